"""Variable projection for laws that are an exponential of their coordinate: I = scale V exp(gamma s(|V|)).

The scale enters linearly, so it is eliminated (G. H. Golub, V. Pereyra, SIAM J. Numer. Anal. 10, 413 (1973),
doi 10.1137/0710036): with g_i = (V_i / sigma_i) exp(gamma s_i) and y_i = I_i / sigma_i, scale = sum(g y) / sum(g^2),
and what is left is a problem in gamma alone, whose Gauss-Newton step in Kaufman's approximation (BIT 15, 49 (1975),
doi 10.1007/BF01932995) needs five sums:

    cost = sum(y^2) - sum(g y)^2 / sum(g^2),
    step = ( sum(g s y) - m sum(g y) ) / ( scale (sum(g^2 s^2) - m sum(g^2 s)) ),    m = sum(g^2 s) / sum(g^2).

One exponential a point and iteration, no temporary but the block's, which stays in the cache.
"""

from dataclasses import dataclass

import numpy as np

from calib.iv_models.base import IVModel

BLOCK = 256  # curves: with 100 points, an array of a block is 0.2 MB
ITERATIONS = 40
STEP_TOLERANCE = 1e-8
ROUNDING = 1e-13
_START_POINTS = 8


@dataclass(frozen=True)
class Projected:
    """Fits of a block of curves; the first dimension is the curve.

    Attributes
    ----------
    gamma, scale : estimates; scale may be negative or zero where the data say so.
    cost : chi^2 at the estimate.
    normal : (curve, 2, 2) normal matrix in the coordinates (ln scale, gamma).
    converged : whether the last step was small.
    """

    gamma: np.ndarray
    scale: np.ndarray
    cost: np.ndarray
    normal: np.ndarray
    converged: np.ndarray


def fit_block(law: IVModel, voltage: np.ndarray, current: np.ndarray, weight: np.ndarray) -> Projected:
    """Fit I = scale V exp(gamma s) to a block of curves (curve, point); `weight` is 1/sigma, 0 where no point is."""
    shared = len(voltage) > 1 and bool((voltage == voltage[0]).all())
    s = np.ascontiguousarray(law.coordinate(np.abs(voltage[0] if shared else voltage), xp=np))
    front, y = voltage * weight, current * weight
    gamma = _start(law, voltage, current, weight)
    sums = _Sums(s, front, y)
    return _minimise(sums, gamma)


class _Sums:
    """The sums over points that a step needs; one buffer serves all iterations."""

    def __init__(self, s: np.ndarray, front: np.ndarray, y: np.ndarray) -> None:
        self.s, self.front, self.y = s, front, y
        self.powers = np.stack([np.ones_like(s), s, s * s], axis=-1)  # (point, 3) or (curve, point, 3)
        self.ys = y * s
        self.y_squared = np.einsum("cp,cp->c", y, y)
        self.buffer = np.empty_like(front)

    def g(self, rows: np.ndarray | slice, gamma: np.ndarray) -> np.ndarray:
        """Return g = front exp(gamma s) of some curves, in the buffer."""
        g = self.buffer[: len(gamma)]
        s = self.s if self.s.ndim == 1 else self.s[rows]
        np.multiply(gamma[:, None], s, out=g)
        np.exp(g, out=g)
        g *= self.front[rows]
        return g

    def at(self, rows: np.ndarray | slice, gamma: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return sum(g^2), sum(g^2 s), sum(g^2 s^2), sum(g y), sum(g s y)."""
        g = self.g(rows, gamma)
        gy = np.einsum("cp,cp->c", g, self.y[rows])
        gsy = np.einsum("cp,cp->c", g, self.ys[rows])
        np.multiply(g, g, out=g)
        if self.s.ndim == 1:
            moments = g @ self.powers
        else:
            moments = np.einsum("cp,cpk->ck", g, self.powers[rows])
        return moments[:, 0], moments[:, 1], moments[:, 2], gy, gsy


def _start(law: IVModel, voltage: np.ndarray, current: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Return a starting value of gamma from a few points of each curve."""
    used = np.flatnonzero((weight > 0).any(0))
    if not len(used):
        return np.zeros(len(voltage))
    columns = used[np.unique(np.linspace(0, len(used) - 1, _START_POINTS).round().astype(int))]
    valid = weight[:, columns] > 0
    few = [np.where(valid, array[:, columns], np.nan) for array in (voltage, current)]
    gamma = law.guess(*few)[law.shape[0]]
    poor = valid.sum(1) < min(3, len(columns))
    if poor.any():
        every = [np.where(weight[poor] > 0, array[poor], np.nan) for array in (voltage, current)]
        gamma[poor] = law.guess(*every)[law.shape[0]]
    return np.clip(np.nan_to_num(gamma), -30, 30)


def _minimise(sums: _Sums, start: np.ndarray) -> Projected:
    """Take Gauss-Newton steps in gamma, halved where the cost does not fall; curves leave as they converge."""
    n = len(start)
    gamma, converged = start.copy(), np.zeros(n, dtype=bool)
    step, cost = np.zeros(n), np.full(n, np.inf)
    active: np.ndarray = np.arange(n)
    with np.errstate(all="ignore"):
        for _ in range(ITERATIONS):
            everyone = len(active) == n
            rows: np.ndarray | slice = slice(None) if everyone else active
            trial = np.clip(gamma[rows] + step[rows], -60, 60)
            g2, g2s, g2ss, gy, gsy = sums.at(rows, trial)
            new_cost = sums.y_squared[rows] - gy * gy / g2
            better = new_cost <= cost[rows] * (1 + 1e-9) + ROUNDING * sums.y_squared[rows]  # less is rounding
            mean = g2s / g2
            denominator = (g2ss - mean * g2s) * (gy / g2)
            newton = (gsy - mean * gy) / denominator
            newton = np.clip(np.where(np.isfinite(newton), newton, 0.0), -3, 3)
            shorter = 0.5 * step[rows]
            gamma[rows] = np.where(better, trial, gamma[rows])
            cost[rows] = np.where(better, new_cost, cost[rows])
            step[rows] = np.where(better, newton, shorter)
            small = np.abs(step[rows]) <= STEP_TOLERANCE * (1 + np.abs(gamma[rows]))
            converged[rows] = small & np.isfinite(new_cost)
            active = active[~small]
            if not len(active):
                break
        return _finish(sums, np.clip(gamma + np.where(converged, step, 0.0), -60, 60), converged)


def _finish(sums: _Sums, gamma: np.ndarray, converged: np.ndarray) -> Projected:
    rows = slice(None)
    g2, g2s, g2ss, gy, _ = sums.at(rows, gamma)
    scale = gy / g2
    residual = sums.g(rows, gamma)
    residual *= scale[:, None]
    residual -= sums.y
    cost = np.einsum("cp,cp->c", residual, residual)
    square = scale * scale
    normal = np.stack([np.stack([g2, g2s], -1), np.stack([g2s, g2ss], -1)], -2) * square[:, None, None]
    return Projected(gamma, scale, cost, normal, converged & np.isfinite(cost) & (scale > 0))
