"""Confidence intervals that make no assumption about a distribution's form."""

import numpy as np
from scipy import stats

LEVEL = 0.95


def quantile_interval(values: np.ndarray, q: float, level: float = LEVEL) -> tuple[float, float]:
    """Return the order-statistic confidence interval of a quantile.

    The number of values under the q-quantile is binomial (n, q); the interval runs between the order statistics that
    hold at least (1 - level) / 2 on either side. Where the sample is too small for that, the end is NaN.

    Source: W. J. Conover, Practical Nonparametric Statistics, 3rd ed., section 3.2.
    """
    values = np.sort(np.asarray(values, dtype=float)[np.isfinite(values)])
    n = len(values)
    if n == 0:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    counts = np.arange(n + 1)
    cumulative = stats.binom.cdf(counts, n, q)
    below = np.flatnonzero(cumulative <= tail)
    above = np.flatnonzero(cumulative >= 1 - tail)
    low = float(values[below[-1]]) if len(below) else float("nan")
    high = float(values[above[0]]) if len(above) and above[0] < n else float("nan")
    return low, high


def clustered_quantile_interval(
    values: np.ndarray, devices: np.ndarray, q: float, level: float = LEVEL
) -> tuple[float, float]:
    """Return the confidence interval of a quantile of values of which several belong to the same device.

    The fraction of values under the quantile has a standard error that follows from its scatter over devices; the ends
    are the quantiles at that fraction +- Student's t with one degree of freedom less than there are devices (R. S.
    Woodruff, J. Am. Stat. Assoc. 47, 635 (1952), doi 10.1080/01621459.1952.10483443). Resampling devices covers less
    than it says in the tails. Where devices do not repeat, or there is one (whose values then stand for themselves),
    the interval is that of `quantile_interval`. An end that lies beyond the sample is NaN.
    """
    keep = np.isfinite(values)
    values, devices = np.asarray(values, dtype=float)[keep], np.asarray(devices)[keep]
    labels, index, counts = np.unique(devices, return_inverse=True, return_counts=True)
    groups, n = len(labels), len(values)
    if groups in (0, 1, n):
        return quantile_interval(values, q, level)
    at = np.quantile(values, q)
    below = np.bincount(index, ((values < at) + 1.0 * (values <= at)) / 2)
    stderr = float(np.sqrt(groups / (groups - 1) * np.square(below - q * counts).sum())) / n
    half = float(stats.t.ppf((1 + level) / 2, groups - 1)) * max(stderr, np.sqrt(q * (1 - q) / n) / 2)
    low = float(np.quantile(values, q - half)) if q - half > 0 else float("nan")
    high = float(np.quantile(values, q + half)) if q + half < 1 else float("nan")
    return low, high


def binomial_interval(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of a probability.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26, 404 (1934), doi 10.1093/biomet/26.4.404.
    """
    result = stats.binomtest(successes, trials).proportion_ci(level, method="exact")
    return float(result.low), float(result.high)
