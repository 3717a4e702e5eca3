"""Lognormal spread of the programmed resistance, separated into device-to-device and cycle-to-cycle."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy.optimize import minimize_scalar

NAN = float("nan")


@dataclass(frozen=True)
class VarianceComponents:
    """Standard deviations of ln R between devices and between the cycles of a device, with standard errors.

    A component that the data cannot separate is NaN; `total` is the spread of one device in one cycle.
    """

    d2d: float
    d2d_stderr: float
    c2c: float
    c2c_stderr: float
    total: float
    total_stderr: float
    n_devices: int
    n_values: int


def variance_components(values: np.ndarray, devices: np.ndarray, error_variance: float = 0.0) -> VarianceComponents:
    """Separate the variance of `values` into between and within groups, for groups of unequal size.

    The model is x_dc = mu + a_d + b_dc, a ~ N(0, sigma_d2d^2), b ~ N(0, sigma_c2c^2); the components maximise the
    restricted likelihood (S. R. Searle, G. Casella, C. E. McCulloch, Variance Components, 1992, chapter 6), profiled
    over the ratio sigma_d2d^2 / sigma_c2c^2.

    Parameters
    ----------
    values : (n,) for example ln R.
    devices : (n,) the group of each value.
    error_variance : mean variance of the values' own estimation error, taken off the smallest component that the
        values show.
    """
    values = np.asarray(values, dtype=float)
    _, index, counts = np.unique(devices, return_inverse=True, return_counts=True)
    n, groups = len(values), len(counts)
    if n < 2:
        return VarianceComponents(NAN, NAN, NAN, NAN, NAN, NAN, groups, n)
    if groups == n or groups == 1:
        spread = np.sqrt(max(values.var(ddof=1) - error_variance, 0.0))
        stderr = values.std(ddof=1) / np.sqrt(2 * (n - 1))
        nothing = (NAN, NAN)
        within = (spread, stderr) if groups == 1 else nothing
        return VarianceComponents(*nothing, *within, spread, stderr, groups, n)
    return _reml(values, index, counts, error_variance)


def _reml(values: np.ndarray, index: np.ndarray, counts: np.ndarray, error_variance: float) -> VarianceComponents:
    n, groups = len(values), len(counts)
    means = np.bincount(index, values) / counts
    within = float(np.square(values - means[index]).sum())
    within = max(within, 1e-16 * n * float(values.var()), n * 1e-30)  # identical cycles: rounding, not a logarithm of 0

    def profile(ratio: float) -> tuple[float, float]:
        """-2 restricted log likelihood and sigma_c2c^2 for sigma_d2d^2 = ratio sigma_c2c^2."""
        weight = counts / (1 + ratio * counts)
        mu = float(weight @ means / weight.sum())
        variance = (within + float(weight @ np.square(means - mu))) / (n - 1)
        value = (n - 1) * np.log(variance) + np.log1p(ratio * counts).sum() + np.log(weight.sum())
        return float(value), variance

    def by_logarithm(log_ratio: float) -> float:
        return profile(np.exp(log_ratio))[0]

    best = minimize_scalar(by_logarithm, bounds=(-12, 40), method="bounded", options={"xatol": 1e-8})
    ratio = float(np.exp(best.x)) if best.fun < profile(0.0)[0] else 0.0
    _, c2c = profile(ratio)
    d2d = ratio * c2c
    covariance = _component_covariance(d2d, c2c, counts, n)
    c2c = max(c2c - error_variance, 0.0)  # the error's variance is known: what is left is as uncertain as before
    return VarianceComponents(
        d2d=np.sqrt(d2d),
        d2d_stderr=_stderr_of_root(d2d, covariance[0, 0]),
        c2c=np.sqrt(c2c),
        c2c_stderr=_stderr_of_root(c2c, covariance[1, 1]),
        total=np.sqrt(d2d + c2c),
        total_stderr=_stderr_of_root(d2d + c2c, covariance.sum()),
        n_devices=groups,
        n_values=n,
    )


def _stderr_of_root(variance: float, variance_of_variance: float) -> float:
    """Return the standard error of sqrt(variance); at a variance of zero, the root of the variance's standard error."""
    spread = float(np.sqrt(max(variance_of_variance, 0.0)))
    return spread / (2 * float(np.sqrt(variance))) if variance > 0 else float(np.sqrt(spread))


def _component_covariance(d2d: float, c2c: float, counts: np.ndarray, n: int) -> np.ndarray:
    """Return the large-sample covariance of (sigma_d2d^2, sigma_c2c^2) from the expected information."""
    c2c = max(c2c, 1e-30)
    lam = c2c + counts * d2d
    information = 0.5 * np.array([
        [np.square(counts / lam).sum(), (counts / np.square(lam)).sum()],
        [(counts / np.square(lam)).sum(), (1 / np.square(lam)).sum() + (n - len(counts)) / c2c**2],
    ])  # fmt: skip
    return np.linalg.inv(information)


def programming_node(states: dict[str, tuple[np.ndarray, np.ndarray, float]]) -> xr.Dataset:
    """Return the programming node from ln(R / Ohm), the device and the mean error variance of each state's values."""
    names = list(states)
    parts = [variance_components(*states[name]) for name in names]
    medians = [float(np.exp(np.median(states[name][0]))) for name in names]
    one = {"units": "1"}

    def row(attribute: str, long_name: str) -> tuple[str, list[float], dict[str, str]]:
        return ("state", [getattr(part, attribute) for part in parts], {**one, "long_name": long_name})

    return xr.Dataset(
        {
            "r_median": ("state", medians, {"units": "ohm", "long_name": "median resistance"}),
            "sigma": row("total", "standard deviation of ln R of one device in one cycle"),
            "sigma_stderr": row("total_stderr", "its standard error"),
            "sigma_d2d": row("d2d", "standard deviation of ln R between devices"),
            "sigma_d2d_stderr": row("d2d_stderr", "its standard error"),
            "sigma_c2c": row("c2c", "standard deviation of ln R between the cycles of a device"),
            "sigma_c2c_stderr": row("c2c_stderr", "its standard error"),
            "n_devices": ("state", [part.n_devices for part in parts]),
            "n_values": ("state", [part.n_values for part in parts]),
        },
        coords={"state": ("state", names)},
        attrs={
            "method": "restricted maximum likelihood of a one-way random-effects model of ln R",
            "statement": "sigma is the standard deviation of ln R (dimensionless, not percent); it is interpolated "
            "linearly in R between the states and constant outside; the mean of R is preserved",
        },
    )
