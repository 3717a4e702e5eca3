"""How many conductance levels can be told apart: the definition that fits, tables and resampling share."""

import numpy as np
from scipy.special import ndtri


def half_width(error: float) -> float:
    """Return z, with which a normal value lies farther than z standard deviations on one side with chance `error`."""
    return float(-ndtri(error))


def select(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return the largest set of intervals [low, high] that do not overlap, as indices from below.

    Taking again and again the interval that ends first among those that begin after the last one taken gives a largest
    set (interval scheduling). Intervals that are not finite are left out.
    """
    taken: list[int] = []
    end = -np.inf
    for index in np.argsort(high, kind="stable"):
        if np.isfinite(low[index]) and np.isfinite(high[index]) and low[index] >= end:
            taken.append(int(index))
            end = high[index]
    return np.array(taken, dtype=int)


def distinguishable(mean: np.ndarray, std: np.ndarray, error: float) -> np.ndarray:
    """Return a largest set of levels of which each neighbouring pair is misread with a chance of at most `error`.

    Two normal levels read with a threshold between them are misread equally often, with Phi(-z), where the threshold
    lies at z = (m_2 - m_1) / (s_1 + s_2) standard deviations from both means. Phi(-z) <= error is the same as that the
    intervals m +- z_error s do not overlap.
    """
    z = half_width(error)
    return select(mean - z * std, mean + z * std)


def pair_error(mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """Return the misread chance of each level and the next one, Phi(-(m_2 - m_1) / (s_1 + s_2)), last NaN."""
    from scipy.special import ndtr

    gap, spread = np.diff(mean), std[1:] + std[:-1]
    z = np.divide(gap, spread, out=np.full(len(gap), np.inf), where=spread > 0)
    return np.append(ndtr(-z), np.nan)


def fitting_in(low: float, high: float, coefficients: np.ndarray, reference: float, errors: np.ndarray) -> np.ndarray:
    """Return how many levels fit between two conductances when neighbours are 2 z sigma(G) apart.

    N = 1 + integral of dG / (2 z sigma(G)) from `low` to `high`, ln sigma = sum_k coefficients_k ln(G / reference)^k;
    not rounded.
    """
    g = np.exp(np.linspace(np.log(low), np.log(high), 400))
    sigma = np.exp(np.polynomial.polynomial.polyval(np.log(g / reference), coefficients))
    z = np.array([half_width(float(error)) for error in errors])
    with np.errstate(divide="ignore", over="ignore"):
        return 1 + float(np.trapezoid(1 / sigma, g)) / (2 * z)
