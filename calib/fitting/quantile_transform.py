"""Marginal distributions as tables: values against normal scores, exact within the data, straight beyond them."""

import numpy as np
from scipy import special, stats

from calib.cycle_sampling import score_grid

TAIL_SHARE = 0.1
"""The straight line of a tail has the slope of this part of the data at that end."""


def normal_scores(values: np.ndarray, censored: np.ndarray | None = None) -> np.ndarray:
    """Return u = Phi^-1((rank - 1/2) / n), (n,); equal values share their mean rank.

    Censored values are above all others.
    """
    ranked = np.where(censored, np.inf, values) if censored is not None else values
    return special.ndtri((stats.rankdata(ranked) - 0.5) / len(values))


def quantile_table(values: np.ndarray, censored: np.ndarray | None = None, *, positive: bool = False) -> np.ndarray:
    """Return the values at the normal scores of `score_grid`, ascending, (grid,).

    Within the data the table interpolates the sorted values linearly between their scores; beyond them it goes on with
    the slope of the outer tenth of the data. Censored values only take their part of the scores.

    Parameters
    ----------
    values : (n,) finite.
    censored : (n,) whether the true value is larger.
    positive : keep the lower tail above half of the smallest value (a voltage's magnitude).
    """
    censored = np.zeros(len(values), dtype=bool) if censored is None else censored
    n, known = len(values), np.sort(values[~censored])
    score = special.ndtri((np.arange(1, len(known) + 1) - 0.5) / n)
    grid = score_grid()
    table = np.interp(grid, score, known)
    size = max(2, int(np.ceil(TAIL_SHARE * len(known))))
    for end, outside in ((slice(None, size), grid < score[0]), (slice(-size, None), grid > score[-1])):
        x, y = score[end], known[end]
        slope = float((y[-1] - y[0]) / (x[-1] - x[0])) if len(x) > 1 and x[-1] > x[0] else 0.0
        anchor = 0 if end.start is None else -1
        table = np.where(outside, known[anchor] + slope * (grid - score[anchor]), table)
    if positive:
        table = np.maximum(table, known[0] / 2)
    return np.maximum.accumulate(table)


def normal_table(values: np.ndarray, *, positive: bool = False) -> np.ndarray:
    """Return the table of the normal distribution with the mean and standard deviation of the values, (grid,)."""
    spread = values.std(ddof=1) if len(values) > 1 else 0.0
    table = values.mean() + spread * score_grid()
    return np.maximum(table, values.min() / 2) if positive else table


def spread_in_steps(values: np.ndarray, step: float) -> np.ndarray:
    """Return values that were rounded up to the ends of steps, spread evenly over their steps, sorted."""
    known = np.sort(values)
    if step <= 0:
        return known
    _, first, count = np.unique(np.round(known / step, 3), return_index=True, return_counts=True)
    place = np.arange(len(known)) - np.repeat(first, count)
    return known - step * (1 - (place + 0.5) / np.repeat(count, count))
