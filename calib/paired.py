"""Means of differences over networks and chips, with intervals."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean with the 95 % interval mean +- half; half is NaN where there is one value only.

    `freedom` are the degrees of freedom of Student's t in `half`, NaN where there are none.
    """

    value: float
    half: float
    freedom: float = np.nan

    @property
    def low(self) -> float:
        """Lower end."""
        return self.value - self.half

    @property
    def high(self) -> float:
        """Upper end."""
        return self.value + self.half


def mean(values: np.ndarray) -> Mean:
    """Return the mean of values (network, chip) with its interval.

    Network n and chip c are crossed: all networks meet the same chips. With x_nc = m + a_n + b_c + e_nc the variance of
    the mean is var(a) / N + var(b) / C + var(e) / (N C) = (MS_e + max(MS_a - MS_e, 0) + max(MS_b - MS_e, 0)) / (N C)
    of the mean squares of the two-way analysis of variance, with the degrees of freedom of F. E. Satterthwaite
    (Biometrics Bulletin 2, 110 (1946), doi 10.2307/3002019). One network: t over chips, so that the interval is for
    that network. One chip: t over networks.

    Parameters
    ----------
    values : (network, chip), differences on the same chips, or what a single set of chips does.
    """
    values = np.asarray(values, dtype=float)
    networks, chips = values.shape
    centre = float(values.mean())
    if networks == 1 or chips == 1:
        count = values.size
        if count < 2:
            return Mean(centre, np.nan)
        return Mean(centre, float(_t(count - 1) * values.std(ddof=1) / np.sqrt(count)), count - 1)
    by_network, by_chip = values.mean(1, keepdims=True), values.mean(0, keepdims=True)
    degrees = np.array([networks - 1, chips - 1, (networks - 1) * (chips - 1)], dtype=float)
    squares = np.array([
        chips * np.square(by_network - centre).sum(),
        networks * np.square(by_chip - centre).sum(),
        np.square(values - by_network - by_chip + centre).sum(),
    ]) / degrees  # fmt: skip
    weight = np.array([squares[0] > squares[2], squares[1] > squares[2], 1.0])
    weight[2] -= weight[0] + weight[1]
    variance = float(weight @ squares)
    if not variance > 0:
        return Mean(centre, 0.0)
    freedom = variance**2 / float((np.square(weight * squares) / degrees).sum())
    return Mean(centre, float(_t(freedom) * np.sqrt(variance / values.size)), freedom)


def _t(freedom: float) -> float:
    return float(stats.t.ppf(0.5 + LEVEL / 2, freedom))
