"""Values that each carry their own estimation error: their mean or line, and their spread with that error removed."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.optimize import brentq, minimize_scalar

MANY = 30


@dataclass(frozen=True)
class RandomEffects:
    """A line through values with known errors, and the spread of the values about it.

    Attributes
    ----------
    coefficient : (p,) of the columns of the design.
    covariance : (p, p) after Hartung and Knapp; intervals use t with `df` degrees of freedom.
    std : standard deviation of the true values about the line, estimation errors removed.
    std_bound : its 95 % interval.
    n, df : values used, and degrees of freedom.
    """

    coefficient: np.ndarray
    covariance: np.ndarray
    std: float
    std_bound: tuple[float, float]
    n: int
    df: int

    @property
    def stderr(self) -> np.ndarray:
        """Return (p,) the standard errors of the coefficients."""
        return np.sqrt(np.maximum(np.diag(self.covariance), 0.0))

    def bound(self, index: int = 0) -> tuple[float, float]:
        """Return the 95 % interval of a coefficient."""
        half = float((stats.t.ppf(0.975, self.df) if self.df > 0 else stats.norm.ppf(0.975)) * self.stderr[index])
        return float(self.coefficient[index]) - half, float(self.coefficient[index]) + half


def random_effects(values: np.ndarray, variances: np.ndarray, design: np.ndarray | None = None) -> RandomEffects:
    """Fit y_i = x_i b + u_i + e_i, u ~ N(0, tau^2), e_i ~ N(0, variances_i), by restricted maximum likelihood.

    The errors of b are those of Hartung and Knapp (G. Knapp, J. Hartung, Stat. Med. 22, 2693 (2003), doi
    10.1002/sim.1482), never smaller than the plain ones. The interval of tau inverts the weighted sum of squares
    Q(tau^2) ~ chi^2 (W. Viechtbauer, Stat. Med. 26, 37 (2007), doi 10.1002/sim.2514); from `MANY` values on it comes
    from the scatter of the values' own scores, which holds for tails that are heavier than normal ones as well.

    Parameters
    ----------
    values, variances : (n,).
    design : (n, p); a column of ones by default.
    """
    y, v = np.asarray(values, dtype=float), np.asarray(variances, dtype=float)
    x = np.ones((len(y), 1)) if design is None else design
    n, p = x.shape
    df = n - p
    if df < 1:
        if n < p:
            return RandomEffects(np.full(p, np.nan), np.full((p, p), np.nan), np.nan, (np.nan, np.nan), n, df)
        own = np.linalg.inv(x.T @ (x / np.maximum(v, 1e-300)[:, None]))
        return RandomEffects(np.linalg.solve(x, y), own, np.nan, (np.nan, np.nan), n, df)
    scale = float(np.var(y)) or 1.0
    v = np.maximum(v, 1e-12 * scale)

    def solve(tau2: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        w = 1 / (v + tau2)
        normal = x.T @ (w[:, None] * x)
        b = np.linalg.solve(normal, x.T @ (w * y))
        return b, y - x @ b, w, normal

    def deviance(tau2: float) -> float:
        _, r, w, normal = solve(tau2)
        return float(-np.log(w).sum() + np.linalg.slogdet(normal)[1] + (w * r * r).sum())

    high = np.log(100 * scale + 10 * float(v.max()))
    best = minimize_scalar(lambda u: deviance(np.exp(u)), bounds=(np.log(1e-10 * scale), high), method="bounded")
    tau2 = float(np.exp(best.x)) if best.fun < deviance(0.0) else 0.0
    b, r, w, normal = solve(tau2)
    inflation = max(float((w * r * r).sum()) / df, 1.0)
    if n >= MANY:
        score = 0.5 * (np.square(w * r) - w)
        relative = float(np.sqrt(np.square(score).sum()) / (0.5 * np.square(w).sum())) / tau2 if tau2 > 0 else np.nan
        bound = tuple(np.sqrt(tau2 * np.exp(sign * 1.96 * relative)) for sign in (-1, 1)) if tau2 > 0 else None
    else:
        bound = None

    def excess(tau2: float) -> float:
        _, r, w, _ = solve(tau2)
        return float((w * r * r).sum()) / df

    if bound is None:
        ends = [_root(excess, float(stats.chi2.ppf(q, df)) / df, float(np.exp(high))) for q in (0.975, 0.025)]
        bound = (min(np.sqrt(ends[0]), np.sqrt(tau2)), max(np.sqrt(ends[1]), np.sqrt(tau2)))
    bound = (float(bound[0]), float(bound[1]))
    return RandomEffects(b, np.linalg.inv(normal) * inflation, float(np.sqrt(tau2)), bound, n, df)


def _root(decreasing: Callable[[float], float], target: float, high: float) -> float:
    """Return where a decreasing function of tau^2 >= 0 takes a value, 0 where it never does."""
    if decreasing(0.0) <= target:
        return 0.0
    while decreasing(high) > target and high < 1e300:
        high *= 100
    root, _ = brentq(lambda tau2: decreasing(tau2) - target, 0.0, high, xtol=1e-12 * high, full_output=True)
    return float(root)
