"""Lognormal spread of the programmed resistance, separated into device-to-device and cycle-to-cycle.

All spreads are standard deviations of ln R, dimensionless: 0.1 is some 10 % of R, and never a percentage.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from scipy import stats
from scipy.special import digamma, polygamma

from calib.fitting.censored import censored_components, enough
from calib.fitting.variance_components import LEVEL, NAN, NO_BOUND, VarianceComponents, variance_components

__all__ = ["VarianceComponents", "level_dependence", "programming_node", "variance_components"]

STATEMENT = (
    "sigma is the standard deviation of ln R (dimensionless, neither a fraction of R nor a percentage); it is "
    "interpolated linearly in R between the states and constant outside; the mean of R is preserved"
)
_METHOD = "restricted maximum likelihood of a one-way random-effects model of ln R; chi-square or generalised intervals"
_CENSORED = "; where resistances lie beyond the noise floor, maximum likelihood of a censored normal distribution"
_SPREADS = (
    ("sigma", "total", "standard deviation of ln R of one device in one cycle"),
    ("sigma_d2d", "d2d", "standard deviation of ln R between devices"),
    ("sigma_c2c", "c2c", "standard deviation of ln R between the cycles of a device"),
)
_MINIMUM_GROUPS = 5
"""Devices with several cycles from which on it is asked whether sigma depends on R."""


class _Sample(NamedTuple):
    """Values of one state, their devices, the mean variance of their estimation error, and which are censored."""

    values: np.ndarray
    devices: np.ndarray
    error: float
    censored: np.ndarray

    @classmethod
    def of(cls, values: Any, devices: Any, error: float, censored: Any = None) -> "_Sample":
        values = np.asarray(values, dtype=float)
        none = np.zeros(len(values), dtype=bool)
        return cls(values, np.asarray(devices), error, none if censored is None else np.asarray(censored, dtype=bool))

    @property
    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Values that were measured, and their devices."""
        return self.values[~self.censored], self.devices[~self.censored]


@dataclass(frozen=True)
class LevelDependence:
    """d ln(sigma_c2c) / d ln R within a state, from the devices whose cycles repeat; NaN where too few do."""

    slope: float
    stderr: float
    bound: tuple[float, float]
    p_value: float
    n_devices: int


def level_dependence(values: np.ndarray, devices: np.ndarray) -> LevelDependence:
    """Return whether the cycle-to-cycle spread depends on ln R itself.

    The logarithm of each device's variance about its own mean, less that of chi-square's expectation, is regressed on
    its mean: independent of one another for normal values. Weights are the inverse of trigamma(nu / 2), the variance of
    ln chi2(nu); the test is Student's t with the residual's own variance (M. S. Bartlett, D. G. Kendall, Suppl. J. R.
    Stat. Soc. 8, 128 (1946), doi 10.2307/2983618). sigma ~ R^slope.
    """
    _, index, counts = np.unique(devices, return_inverse=True, return_counts=True)
    means = np.bincount(index, values) / counts
    squares = np.bincount(index, np.square(values - means[index]))
    use = (counts > 1) & (squares > 1e-20)
    n = int(use.sum())
    if n < _MINIMUM_GROUPS or np.ptp(means[use]) < 1e-9:
        return LevelDependence(NAN, NAN, NO_BOUND, NAN, n)
    half_free = (counts[use] - 1) / 2
    y = np.log(squares[use] / (2 * half_free)) - digamma(half_free) + np.log(half_free)
    weight = 1 / polygamma(1, half_free)
    x = means[use] - np.average(means[use], weights=weight)
    y = y - np.average(y, weights=weight)
    information = float((weight * x * x).sum())
    slope = float((weight * x * y).sum()) / information
    variance = float((weight * np.square(y - slope * x)).sum()) / (n - 2) / information
    slope, stderr = slope / 2, float(np.sqrt(variance)) / 2  # of ln sigma^2 to ln sigma
    if not stderr > 0:
        return LevelDependence(slope, 0.0, (slope, slope), NAN, n)
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 2)) * stderr
    p_value = 2 * float(stats.t.sf(abs(slope) / stderr, n - 2))
    return LevelDependence(slope, stderr, (slope - half, slope + half), p_value, n)


def programming_node(states: dict[str, tuple]) -> xr.Dataset:
    """Return the programming node.

    Parameters
    ----------
    states : per state ln(R / Ohm), the device of each value, the mean variance of their estimation error, and (where
        some are) which values are censored: only known to be larger.
    """
    names = list(states)
    samples = [_Sample.of(*states[name]) for name in names]
    observed = [variance_components(*sample.seen, sample.error) for sample in samples]
    parts = [
        censored_components(sample.values, sample.devices, sample.censored, sample.error)
        if sample.censored.any() and enough(sample.censored)
        else part
        for sample, part in zip(samples, observed, strict=True)
    ]
    levels = [level_dependence(*sample.seen) for sample in samples]
    one = {"units": "1"}

    def row(of: list, attribute: str, long_name: str) -> tuple:
        return ("state", [getattr(part, attribute) for part in of], {**one, "long_name": long_name})

    def ends(of: list, attribute: str, long_name: str) -> tuple:
        table = [getattr(part, attribute) for part in of]
        return (("state", "bound"), table, {**one, "long_name": f"95 % interval of the {long_name}"})

    data: dict = {}
    for key, attribute, long_name in _SPREADS:
        data[key] = row(parts, attribute, long_name)
        data[f"{key}_stderr"] = row(parts, f"{attribute}_stderr", f"standard error of the {long_name}")
        data[f"{key}_bound"] = ends(parts, f"{attribute}_bound", long_name)
    medians = [_median(sample, part) for sample, part in zip(samples, parts, strict=True)]
    ohm = {"units": "ohm"}
    means = [part.mean_bound for part in parts]
    return xr.Dataset(
        {
            "r_median": ("state", medians, {**ohm, "long_name": "median resistance"}),
            "r_mean": ("state", [float(np.exp(part.mean)) for part in parts],
                       {**ohm, "long_name": "geometric mean of the resistance"}),
            "r_mean_bound": (("state", "bound"), np.exp(means),
                             {**ohm, "long_name": "95 % interval of the geometric mean"}),
            **data,
            "sigma_observed": row(observed, "total", "standard deviation of ln R, values at the noise floor left out"),
            "sigma_observed_bound": ends(observed, "total_bound", "the same, values at the noise floor left out"),
            "sigma_c2c_slope": row(levels, "slope", "d ln(sigma_c2c) / d ln R within the state"),
            "sigma_c2c_slope_stderr": row(levels, "stderr", "its standard error"),
            "sigma_c2c_slope_bound": ends(levels, "bound", "d ln(sigma_c2c) / d ln R"),
            "sigma_c2c_slope_p": row(levels, "p_value", "p value of no dependence of sigma_c2c on R"),
            "n_devices": ("state", [part.n_devices for part in parts]),
            "n_values": ("state", [len(sample.values) for sample in samples]),
            "n_censored": ("state", [int(sample.censored.sum()) for sample in samples]),
            "n_devices_repeated": ("state", [level.n_devices for level in levels]),
        },
        coords={"state": ("state", names), "bound": ("bound", ["low", "high"])},
        attrs={"method": _METHOD + (_CENSORED if any(sample.censored.any() for sample in samples) else ""),
               "statement": STATEMENT},
    )  # fmt: skip


def _median(sample: _Sample, part: VarianceComponents) -> float:
    """Return the median resistance; where it is censored, that of the censored normal distribution."""
    median = float(np.median(np.where(sample.censored, np.inf, sample.values)))
    if not np.isfinite(median):
        median = part.mean if np.isfinite(part.mean) else float(np.median(sample.values))
    return float(np.exp(median))


def sentences(node: xr.Dataset) -> list[str]:
    """Return what a programming node cannot tell apart, and what it takes beyond the noise floor, in words."""
    said = []
    for state in map(str, node["state"].values):
        here = node.sel(state=state)
        n, total, censored = (int(here[key]) for key in ("n_devices", "n_values", "n_censored"))
        start = f"programming spread of state '{state}': "
        if n == total:
            said.append(
                f"{start}device-to-device and cycle-to-cycle are not separated, because each device was measured in "
                "one cycle"
            )
        elif n == 1:
            said.append(f"{start}cycle-to-cycle only, because one device was measured")
        if censored:
            sigma, observed = float(here["sigma"]), float(here["sigma_observed"])
            share = f"{censored} of {total} resistances lie beyond the instrument's noise floor"
            said.append(
                f"{start}{share}; with them as such sigma of ln R is {sigma:.3g}, without them {observed:.3g}"
                if sigma != observed
                else f"{start}{share}, too many to take as such: sigma of ln R is that of the others"
            )
        p = float(here["sigma_c2c_slope_p"])
        if p < 0.01:
            said.append(
                f"{start}the cycle-to-cycle sigma goes as R^{float(here['sigma_c2c_slope']):.2g} within the state "
                f"(p = {p:.1g}); the model takes one value"
            )
    return said
