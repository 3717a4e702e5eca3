"""Variance between and within groups of unequal size, with intervals that hold for few groups."""

from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import minimize_scalar

NAN = float("nan")
NO_BOUND = (NAN, NAN)
LEVEL = 0.95
_PIVOTS = 60  # quantiles of each pivotal quantity


@dataclass(frozen=True)
class VarianceComponents:
    """Standard deviations of ln R between devices and between the cycles of a device, with errors and 95 % intervals.

    A component that the data cannot separate is NaN; `total` is the spread of one device in one cycle. `mean` is that
    of the values; its interval is Student's t with one degree of freedom less than there are devices (than values, for
    one device, whose cycles then say nothing about other devices).
    """

    d2d: float
    d2d_stderr: float
    c2c: float
    c2c_stderr: float
    total: float
    total_stderr: float
    n_devices: int
    n_values: int
    d2d_bound: tuple[float, float] = NO_BOUND
    c2c_bound: tuple[float, float] = NO_BOUND
    total_bound: tuple[float, float] = NO_BOUND
    mean: float = NAN
    mean_stderr: float = NAN
    mean_bound: tuple[float, float] = NO_BOUND


def variance_components(values: np.ndarray, devices: np.ndarray, error_variance: float = 0.0) -> VarianceComponents:
    """Separate the variance of `values` into between and within groups, for groups of unequal size.

    The model is x_dc = mu + a_d + b_dc, a ~ N(0, sigma_d2d^2), b ~ N(0, sigma_c2c^2); the components maximise the
    restricted likelihood (S. R. Searle, G. Casella, C. E. McCulloch, Variance Components, 1992, chapter 6), profiled
    over the ratio sigma_d2d^2 / sigma_c2c^2. The intervals are exact for c2c (chi-square), and generalised confidence
    intervals for d2d and the total (S. Weerahandi, J. Am. Stat. Assoc. 88, 899 (1993),
    doi 10.1080/01621459.1993.10476355): for few devices those of the profile likelihood are too short.

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
        mean = float(values[0]) if n else NAN
        return VarianceComponents(NAN, NAN, NAN, NAN, NAN, NAN, groups, n, mean=mean)
    if groups == n or groups == 1:
        return _one_level(values, groups, error_variance)
    return _reml(values, index, counts, error_variance)


def _one_level(values: np.ndarray, groups: int, error_variance: float) -> VarianceComponents:
    """Return the spread where it is not separated: one device, or one cycle of each."""
    n = len(values)
    raw = float(values.var(ddof=1))
    spread = float(np.sqrt(max(raw - error_variance, 0.0)))
    stderr = float(np.sqrt(raw / (2 * (n - 1))))
    bound = _bounds((n - 1) * raw / stats.chi2.ppf(_TAILS, n - 1) - error_variance, spread)
    mean, mean_stderr = float(values.mean()), float(np.sqrt(raw / n))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * mean_stderr
    nothing = (NAN, NAN)
    within, within_bound = ((spread, stderr), bound) if groups == 1 else (nothing, NO_BOUND)
    return VarianceComponents(
        *nothing, *within, spread, stderr, groups, n, c2c_bound=within_bound, total_bound=bound, mean=mean,
        mean_stderr=mean_stderr, mean_bound=(mean - half, mean + half),
    )  # fmt: skip


_TAILS = np.array([(1 + LEVEL) / 2, (1 - LEVEL) / 2])


def _bounds(variances: np.ndarray, estimate: float) -> tuple[float, float]:
    """Return the roots of the ends of a variance's interval, which hold the estimate."""
    low, high = np.sqrt(np.maximum(variances, 0.0)).tolist()
    return min(low, estimate), max(high, estimate)


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
    mean = float(values.mean())
    mean_stderr = float(np.sqrt(d2d * np.square(counts / n).sum() + c2c / n))
    half = float(stats.t.ppf((1 + LEVEL) / 2, groups - 1)) * mean_stderr
    between, within_bound, total = _pivotal_bounds(means, counts, within, error_variance)
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
        d2d_bound=_bounds(between, float(np.sqrt(d2d))),
        c2c_bound=_bounds(within_bound, float(np.sqrt(c2c))),
        total_bound=_bounds(total, float(np.sqrt(d2d + c2c))),
        mean=mean,
        mean_stderr=mean_stderr,
        mean_bound=(mean - half, mean + half),
    )


def _pivotal_bounds(
    means: np.ndarray, counts: np.ndarray, within: float, error_variance: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the intervals of the variances between devices, within them, and of their sum.

    SSW / sigma_c2c^2 ~ chi2(n - g), and Q = sum (xbar_d - mu)^2 / (sigma_d2d^2 + sigma_c2c^2 / n_d) ~ chi2(g - 1) with
    mu the mean weighted alike: quantiles of both give variances, whose own quantiles are the ends. Devices of as many
    cycles enter Q together.
    """
    n, groups = int(counts.sum()), len(counts)
    sizes, kind = np.unique(counts, return_inverse=True)
    number = np.bincount(kind).astype(float)
    middle = np.bincount(kind, means) / number
    squares = np.bincount(kind, np.square(means - middle[kind]))
    p = (np.arange(_PIVOTS) + 0.5) / _PIVOTS
    inner = within / stats.chi2.ppf(p, n - groups)
    wanted = stats.chi2.ppf(p, groups - 1)
    unit = max(float(means.var(ddof=1)), float(inner.min()), 1e-300)
    grid = np.concatenate([[0.0], unit * np.logspace(-5, 7, 300)])
    weight = 1 / (grid[None, :, None] + inner[:, None, None] / sizes)  # (inner, grid, size)
    mu = (weight * number * middle).sum(-1) / (weight * number).sum(-1)
    q = (weight * (squares + number * np.square(middle - mu[..., None]))).sum(-1)
    between = np.stack([np.interp(-wanted, -row, grid) for row in q])
    total = between + inner[:, None] - error_variance
    exact = within / stats.chi2.ppf(_TAILS, n - groups) - error_variance
    return np.quantile(between, 1 - _TAILS), exact, np.quantile(total, 1 - _TAILS)


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
