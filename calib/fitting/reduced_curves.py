"""Fits of curves of one voltage sweep, on a few nodes instead of all points: where the fits of all points start.

For curves that share their voltages V_i the sums of a least-squares fit are of the form sum_i W_i F(V_i), with weights
that differ from curve to curve and functions F that the law makes. With r the current of the candidate that is nearest
to a curve (`calib.fitting.sweep_candidates`), W_i = (r_i / sigma_i)^2 and F = (dI/dtheta / r) (dI/dtheta' / r), which
varies little: its values at few nodes v_j give it everywhere, F(V_i) = sum_j L_ij F(v_j), and

    sum_i W_i F(V_i) = sum_j (sum_i W_i L_ij) F(v_j),

so that two matrix products turn a curve of any number of points into one of 5 to 26 nodes with nearly the same normal
equations. Levenberg-Marquardt on the nodes costs a fraction of that on the points, and its end is usually within 1e-3
standard errors of the minimum.

The second derivatives of the law, which Gauss and Newton's normal matrix leaves out, are found on the nodes as well.
With them, one step on all points reaches the minimum.

Where the cost lies in a bent valley (`calib.iv_models.base.StartGrid.valley`), the valley's parameter is held at a few
values, the others are put at their best, and the lowest point of the polynomial through the costs is the start.
"""

from dataclasses import dataclass

import numpy as np

from calib.fitting import small_matrices
from calib.fitting.buffers import scratch
from calib.fitting.curve_data import CurveData
from calib.fitting.curve_problem import LawColumns
from calib.fitting.levenberg_marquardt import approach
from calib.fitting.normal_equations import NormalEquations, Rows, Summed, chunks, evaluate_all
from calib.fitting.starting_values import THINNED_FROM, internal_bounds, longest_step
from calib.fitting.sweep_candidates import SweepCandidates, sweep_candidates
from calib.iv_models.base import IVModel

LEAST_CURVES = 500
"""Curves from which on the nodes are worth finding."""
RATE, VALLEY_RATE = 3e-4, 1e-3
"""What a step on all points, with second derivatives, leaves of the distance to the minimum; or less."""
_TOLERANCE, _VALLEY_TOLERANCE = 5e-3, 1e-4  # standard errors; along a valley one of them is a long way
_ITERATIONS = 15
_VALLEY_POINTS = 41  # at which the polynomial through the stations is looked at
_LONGEST_STEP = 2.0
_STEP = 1e-5  # of the second derivatives' differences
_LEAST_PIVOT = 0.1  # of the matrix with second derivatives, relative to that without


@dataclass(frozen=True)
class Start:
    """Where to start on all points.

    Attributes
    ----------
    u : (curve, parameter) estimates in the fitted coordinates.
    curvature : (parameter, parameter, curve) what second derivatives add to the normal matrix; 0 where they would make
        it indefinite.
    rate : (curve,) what one step on all points is expected to leave of the distance to the minimum.
    near : (curve,) where the estimate is near to the candidate that is best of all, or the lowest of a whole valley: no
        other start will do better.
    """

    u: np.ndarray
    curvature: np.ndarray
    rate: np.ndarray
    near: np.ndarray


def start(law: IVModel, data: CurveData, rate: float) -> Start | None:
    """Fit a block of curves on the nodes; None unless they are many complete ones of one sweep, and the law suits.

    Parameters
    ----------
    law : the conduction law.
    data : the curves.
    rate : what one step leaves of the distance to the minimum where the second derivatives are of no use.
    """
    if law.start is None or not LawColumns(law).projects or not (data.complete and data.shares_voltage):
        return None
    if data.width < THINNED_FROM or len(data) < LEAST_CURVES:
        return None
    sweep = sweep_candidates(law, np.ascontiguousarray(data.voltage, dtype=float).tobytes())
    if sweep is None:
        return None
    best, stations, begin = sweep.nearest(data)
    problem = _reduced(law, sweep, data, best)
    if sweep.valley is not None:
        begin = problem.lowest_along(sweep.valley, sweep.starts[stations])
    tolerance, least = (_TOLERANCE, RATE) if sweep.valley is None else (_VALLEY_TOLERANCE, VALLEY_RATE)
    u, matrix, converged = approach(
        problem, begin, lower=problem.lower, upper=problem.upper, tolerance=tolerance,
        longest_step=longest_step(law, False), maximum_iterations=_ITERATIONS,
    )  # fmt: skip
    curvature, known = problem.usable_curvature(u, matrix, np.arange(len(data)))
    stayed = (np.abs(u.T - sweep.starts[best]) <= sweep.reach[best]).all(1) | (sweep.valley is not None)
    return Start(u.T, curvature, np.where(known, least, rate), converged & stayed)


class ReducedCurves(Summed):
    """Curves on the nodes: chi^2 = sum W I^2 - 2 sum Z I + sum (I_measured / sigma)^2, the scale at its best value.

    Parameters
    ----------
    law : the conduction law.
    sweep : its candidates and nodes.
    square, product : (node, curve) W and Z.
    total : (curve,) sum of the squares of the weighted currents.
    n_points : (curve,) points that the curves have.
    """

    def __init__(
        self, law: IVModel, sweep: SweepCandidates, square: np.ndarray, product: np.ndarray, total: np.ndarray,
        n_points: np.ndarray,
    ) -> None:  # fmt: skip
        self.lower, self.upper = internal_bounds(law, False)
        self.columns, self.voltage, self.bent = LawColumns(law), sweep.voltage[sweep.nodes, None], sweep.bent
        self.square, self.product = square, product
        self.data_square, self.n_points, self.width = total, n_points, len(sweep.nodes)

    def add(self, out: NormalEquations, part: slice, u: np.ndarray, rows: Rows) -> None:
        k = self.columns.scale_index
        square, product = self.square[:, rows], self.product[:, rows]
        columns, chain, _ = self.columns.derivatives(u, self.voltage)
        model = columns[k]
        weighted = [square * column for column in columns]
        along = (product * model).sum(0)
        own = (weighted[k] * model).sum(0)
        best = self.columns.put_scale(u, chain, along / own)
        influence = weighted[k] * best
        influence -= product
        out.cost[part] = out.square[part] = np.maximum(self.data_square[rows] + best * (best * own - 2 * along), 0.0)
        out.fourth[part] = 0.0
        for i, column in enumerate(columns):
            out.gradient[i, part] = (column * influence).sum(0) * chain[i]
            for j in range(i, len(columns)):
                sums = (column * weighted[j]).sum(0) * (chain[i] * chain[j])
                out.matrix[i, j, part] = out.matrix[j, i, part] = sums

    @np.errstate(all="ignore")
    def lowest_along(self, valley: int, start: np.ndarray) -> np.ndarray:
        """Return the lowest point (curve, parameter) along a parameter's valley, as a polynomial through its stations.

        Parameters
        ----------
        valley : position of the parameter.
        start : (station, curve, parameter) where to start at each of its values.
        """
        stations = start[:, 0, valley]
        points, cost = start.transpose(0, 2, 1).copy(), np.empty(start.shape[:2])
        rows = slice(0, start.shape[1])
        free = [k for k in range(start.shape[2]) if k not in (valley, self.columns.scale_index)]
        both = [self.columns.scale_index, *free]
        lower, upper = self.lower[free, None], self.upper[free, None]
        for u, found in zip(points, cost, strict=True):
            now = evaluate_all(self, u, rows)
            factor, _ = small_matrices.cholesky(now.matrix[np.ix_(both, both)])
            step = -small_matrices.solve_cholesky(factor, now.gradient[both])
            found[:] = now.cost + (step * now.gradient[both]).sum(0)
            u[free] = np.clip(u[free] + np.clip(step[1:], -_LONGEST_STEP, _LONGEST_STEP), lower, upper)
        fine = np.linspace(stations[0], stations[-1], _VALLEY_POINTS)
        polynomials = _lagrange(stations, fine)
        lowest = (polynomials @ np.where(np.isfinite(cost), cost, 1e300)).argmin(0)
        return np.einsum("nj,jkn->nk", polynomials[lowest], points)

    @np.errstate(all="ignore")
    def usable_curvature(self, u: np.ndarray, matrix: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return `curvature` of the problems `rows`, 0 where it spoils the normal matrix, and (curve,) where not."""
        curvature = np.empty(matrix.shape)
        for part in chunks(len(rows), self.width):
            whole = len(rows) == len(self.n_points)
            curvature[:, :, part] = self.curvature(u[:, part], part if whole else rows[part])
        norm = np.sqrt(small_matrices.diagonal(matrix))
        without = small_matrices.cholesky(small_matrices.scaled(matrix, norm))[1]
        pivot = small_matrices.cholesky(small_matrices.scaled(matrix + curvature, norm))[1]
        known = (pivot > _LEAST_PIVOT * without) & (without > 0)
        return np.where(known, curvature, 0.0), known

    def curvature(self, u: np.ndarray, rows: Rows) -> np.ndarray:
        """Return sum((I - I_measured) d^2 I / du du' / sigma^2), (parameter, parameter, curve), by differences.

        Rows and columns of the scale are 0: at its best value they are elements of the gradient, which vanishes.
        """
        scale = self.columns.scale_index
        out = np.zeros((len(u), len(u), u.shape[1]))
        if not self.bent:
            return out
        here = self.columns.by_coordinates(u, self.voltage)
        influence = self.square[:, rows] * here[scale]
        influence -= self.product[:, rows]
        gradient = [(influence * column).sum(0) for column in here]
        for a in self.bent:
            step = _STEP * np.maximum(np.abs(u[a]), 1.0)
            step = np.where(u[a] + step > self.upper[a], -step, step)
            moved = u.copy()
            moved[a] += step
            there = self.columns.by_coordinates(moved, self.voltage)
            for b in range(len(u)):
                if b != scale and (b not in self.bent or b >= a):
                    out[a, b] = out[b, a] = ((influence * there[b]).sum(0) - gradient[b]) / step
        return out


def _reduced(law: IVModel, sweep: SweepCandidates, data: CurveData, best: np.ndarray) -> ReducedCurves:
    """Return the curves on the nodes, each in units of its candidate."""
    n, k = len(data), len(sweep.nodes)
    square, product, total = np.empty((k, n)), np.empty((k, n)), np.empty(n)
    for part in chunks(n, data.width):
        weight = data.weight[part]
        g, y = (scratch(name, weight.shape) for name in ("reduced g", "reduced y"))
        np.take(sweep.table, best[part], axis=0, out=g)
        g *= weight
        np.multiply(data.current[part], weight, out=y)
        np.vecdot(y, y, out=total[part])
        y *= g
        product[:, part] = (y @ sweep.spread).T
        g *= g
        square[:, part] = (g @ sweep.spread).T
    unit = np.ascontiguousarray(sweep.table[:, sweep.nodes].T)[:, best]
    product /= unit
    unit *= unit
    square /= unit
    return ReducedCurves(law, sweep, square, product, total, data.n_points)


def _lagrange(nodes: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Return the values (point, node) at some points of the polynomials that are 1 at a node and 0 at the others."""
    others = at[:, None, None] - nodes
    between = nodes[:, None] - nodes
    diagonal = np.eye(len(nodes), dtype=bool)
    ratio = np.where(diagonal, 1.0, others / np.where(diagonal, 1.0, between))
    return ratio.prod(2)
