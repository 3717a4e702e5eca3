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


def binomial_interval(successes: int, trials: int, level: float = LEVEL) -> tuple[float, float]:
    """Return the exact (Clopper-Pearson) interval of a probability.

    Source: C. J. Clopper, E. S. Pearson, Biometrika 26, 404 (1934), doi 10.1093/biomet/26.4.404.
    """
    result = stats.binomtest(successes, trials).proportion_ci(level, method="exact")
    return float(result.low), float(result.high)
