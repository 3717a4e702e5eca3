"""Draws of a distribution of ln R that is known from few devices: which distributions the measured values leave open.

For n independent values, the probabilities F(x_(1)) < ... < F(x_(n)) of the sorted values under the true distribution F
are distributed like n sorted uniform numbers, whatever F is. A draw of F therefore puts sorted uniform numbers at the
sorted values, and joins them in the normal score. Its mean over draws has F(x_(i)) = i / (n + 1), which makes a
predictive interval between order statistics exact for any continuous F (B. M. Hill, J. Am. Stat. Assoc. 63, 677 (1968),
doi 10.1080/01621459.1968.11009286), whereas the empirical 5 to 95 % quantiles of n values cover 0.9 (n - 1) / (n + 1):
0.76 of new devices for n = 12. Beyond the outermost values the tail is that of a normal distribution.

Where devices were cycled, ln R = mu + a_d + b_dc, the device's part and the cycle's part are drawn in this way each
and added, so that many cycles of few devices are not taken for many devices.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

_TAIL = 0.00135
"""Probability beyond the outermost quantile: a straight line to it has the mean of a normal tail beyond 1 %."""
_GRID = 201


@dataclass(frozen=True)
class Components:
    """The parts of values that belong to devices and to cycles.

    Attributes
    ----------
    mean : of the devices.
    device : (device,) part of each device, scaled to the variance between devices.
    cycle : (value,) part of each cycle, scaled to the variance between cycles; empty where devices were not cycled.
    between, within : variances.
    n_devices, n_values : sample size.
    """

    mean: float
    device: np.ndarray
    cycle: np.ndarray
    between: float
    within: float
    n_devices: int
    n_values: int

    @property
    def correlation(self) -> float:
        """Correlation of two cycles of a device, between / (between + within); 1 where it cannot be known."""
        total = self.between + self.within
        return self.between / total if total > 0 else 1.0


def components(values: np.ndarray, devices: np.ndarray) -> Components:
    """Separate values into parts of devices and of cycles by the analysis of variance of unbalanced groups.

    between = (MS_between - MS_within) / n_0, n_0 = (N - sum n_d^2 / N) / (D - 1), not under 0
    (S. R. Searle, G. Casella, C. E. McCulloch, Variance Components, 1992, section 3.6).
    """
    labels, index, counts = np.unique(devices, return_inverse=True, return_counts=True)
    n, groups = len(values), len(labels)
    means = np.bincount(index, values) / counts
    residual = values - means[index]
    if groups == n:
        return Components(float(means.mean()), means - means.mean(), np.empty(0), float(values.var(ddof=1)), 0.0, n, n)
    within = float(np.square(residual).sum() / (n - groups))
    cycle = (residual * np.sqrt(counts / np.maximum(counts - 1, 1))[index])[counts[index] > 1]
    if groups == 1:
        return Components(float(means[0]), np.zeros(1), cycle, 0.0, within, 1, n)
    mean = float(values.mean())
    n_0 = (n - np.square(counts).sum() / n) / (groups - 1)
    square = float((counts * np.square(means - mean)).sum() / (groups - 1))
    between = max((square - within) / n_0, 0.0)
    centre = float(means.mean())
    spread = float(np.std(means, ddof=1))
    device = (means - centre) * (np.sqrt(between) / spread if spread > 0 else 0.0)
    return Components(centre, device, cycle, between, within, groups, n)


def drawn_quantiles(parts: Components, levels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Draw the quantile function of a value at the probabilities `levels`, within what the sample leaves open."""
    inner = np.clip(levels, _TAIL, 1 - _TAIL)
    if not len(parts.cycle):
        return parts.mean + _drawn(parts.device, inner, generator)
    probability = (np.arange(_GRID) + 0.5) / _GRID
    cycle = _drawn(parts.cycle, probability, generator)
    cycle -= cycle.mean()
    location = 0.0 if parts.n_devices == 1 else np.sqrt(parts.within / parts.n_values) * generator.standard_normal()
    device = np.zeros(1) if parts.between == 0 else _drawn(parts.device, probability, generator)
    device = device + location
    return parts.mean + np.quantile((device[:, None] + cycle).ravel(), inner)


def _drawn(values: np.ndarray, levels: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    x = np.sort(values)
    z = ndtri(np.sort(generator.random(len(x))))
    at = ndtri(levels)
    slope = float(x.std(ddof=1)) if len(x) > 1 else 0.0
    inside = np.interp(at, z, x)
    return inside + slope * (np.minimum(at - z[0], 0.0) + np.maximum(at - z[-1], 0.0))
