"""What a batch of least-squares problems is, and its normal equations, computed in parts that stay in the cache."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from calib.fitting import robust

Rows = slice | np.ndarray
_CHUNK = 24_576  # points of an array that is worked on at a time: 0.2 MB


class Problem(ABC):
    """A batch of least-squares problems of k parameters and `width` points each.

    Attributes
    ----------
    n_points : (problem,) points that are there.
    data_square : (problem,) sum of squares of the weighted data; it sets what rounding can hide.
    width : points of a problem, missing ones included.
    points_first : whether arrays are (point, problem) instead of (problem, point), which is faster for few points.
    """

    n_points: np.ndarray
    data_square: np.ndarray
    width: int
    points_first: bool = False

    @abstractmethod
    def evaluate(self, u: np.ndarray, rows: Rows) -> tuple[np.ndarray, Sequence[np.ndarray], np.ndarray | None]:
        """Return weighted residuals and their derivatives at `u`.

        Parameters
        ----------
        u : (k, m) parameters of the problems `rows`. A problem that knows the best value of a linear parameter, the
            others given, may put it there.
        rows : which problems.

        Returns
        -------
        residual : (m, width), or (width, m) with `points_first`: (model - measured) / sigma; 0 where there is no point.
            It may be overwritten.
        columns : k arrays like it, derivatives of the residual.
        factors : (k, m) factors by which the columns are still to be multiplied, or None.
        """


class Summed(ABC):
    """A batch of least-squares problems that is known by its normal equations only; the loss is the sum of squares.

    Attributes
    ----------
    n_points, data_square, width : as of `Problem`.
    """

    n_points: np.ndarray
    data_square: np.ndarray
    width: int

    @abstractmethod
    def add(self, out: "NormalEquations", part: slice, u: np.ndarray, rows: Rows) -> None:
        """Write the normal equations of the problems `rows` at `u` (k, m) into the places `part` of `out`."""

    @abstractmethod
    def usable_curvature(self, u: np.ndarray, matrix: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return what second derivatives add to J^T J (k, k, m), 0 where it spoils it, and (m,) where it does not."""


@dataclass
class NormalEquations:
    """Cost and normal equations of m problems: gradient (k, m) is J^T r, matrix (k, k, m) is J^T J.

    `square` and `fourth` are the sums of the residuals' squares and fourth powers, whatever the loss.
    """

    cost: np.ndarray
    gradient: np.ndarray
    matrix: np.ndarray
    square: np.ndarray
    fourth: np.ndarray

    @classmethod
    def empty(cls, k: int, m: int) -> "NormalEquations":
        return cls(np.empty(m), np.empty((k, m)), np.empty((k, k, m)), np.empty(m), np.empty(m))

    def put(self, rows: np.ndarray, other: "NormalEquations", where: np.ndarray) -> None:
        """Replace the problems `rows[where]` by those of `other` (one per row) at `where`."""
        to = rows[where]
        self.cost[to] = other.cost[where]
        self.gradient[:, to] = other.gradient[:, where]
        self.matrix[:, :, to] = other.matrix[:, :, where]
        self.square[to] = other.square[where]
        self.fourth[to] = other.fourth[where]


def dot(a: np.ndarray, b: np.ndarray, points_first: bool = False) -> np.ndarray:
    """Return sums of products over the points, one for each problem."""
    return (a * b).sum(0) if points_first else np.vecdot(a, b)


def chunks(count: int, width: int) -> Iterator[slice]:
    """Yield slices of `count` rows, each of so few rows that an array of `width` points a row stays in the cache."""
    size = max(1, _CHUNK // max(width, 1))
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def evaluate_all(
    problem: Problem | Summed, u: np.ndarray, rows: Rows, loss: str = "linear", f_scale: float = 1.0
) -> NormalEquations:
    """Return the normal equations of the problems `rows` at `u` (k, m); `u` holds what the problem put there."""
    k, m = u.shape
    out = NormalEquations.empty(k, m)
    with np.errstate(all="ignore"):
        for part in chunks(m, problem.width):
            if isinstance(problem, Summed):
                problem.add(out, part, u[:, part], _part(rows, part))
                continue
            residual, columns, factors = problem.evaluate(u[:, part], _part(rows, part))
            _accumulate(out, part, residual, columns, loss, f_scale, problem.points_first)
            if factors is not None:
                out.gradient[:, part] *= factors
                out.matrix[:, :, part] *= factors[:, None] * factors[None]
    return out


def jacobian_of(
    problem: Problem, u: np.ndarray, rows: Rows, loss: str = "linear", f_scale: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return residual (m, width) and Jacobian (m, width, k) at `u` (k, m), as the loss weights them."""
    with np.errstate(all="ignore"):
        residual, columns, factors = problem.evaluate(u, rows)
        jacobian = np.stack([np.broadcast_to(c, residual.shape) for c in columns], axis=-1)
        if problem.points_first:
            residual, jacobian = residual.T, jacobian.transpose(1, 0, 2).copy()
        if factors is not None:
            jacobian *= factors.T[:, None, :]
        if loss == "linear":
            return residual, jacobian
        _, psi, curvature = _softened(residual, loss, f_scale)
        root = np.sqrt(curvature)
        return psi / root, jacobian * root[..., None]


def _part(rows: Rows, part: slice) -> Rows:
    if isinstance(rows, slice):
        start = rows.start or 0
        return slice(start + part.start, start + part.stop)
    return rows[part]


def _softened(residual: np.ndarray, loss: str, f_scale: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return cost and influence of the points, and their curvature kept positive."""
    cost, psi, slope = robust.cost_influence_curvature(residual, loss, f_scale)
    weight = np.where(residual == 0, 1.0, psi / np.where(residual == 0, 1.0, residual))
    return cost, psi, np.maximum(slope, robust.LEAST_CURVATURE * weight)


def _accumulate(
    out: NormalEquations, part: slice, residual: np.ndarray, columns: Sequence[np.ndarray], loss: str, f_scale: float,
    first: bool,
) -> None:  # fmt: skip
    if loss == "linear":
        influence, weighted = residual, columns
        out.cost[part] = out.square[part] = dot(residual, residual, first)
    else:
        cost, influence, curvature = _softened(residual, loss, f_scale)
        weighted = [column * curvature for column in columns]
        out.cost[part] = cost.sum(0 if first else 1)
        out.square[part] = dot(residual, residual, first)
    for i, column in enumerate(columns):
        out.gradient[i, part] = dot(column, influence, first)
        for j in range(i, len(columns)):
            out.matrix[i, j, part] = out.matrix[j, i, part] = dot(column, weighted[j], first)
    np.multiply(residual, residual, out=residual)
    out.fourth[part] = dot(residual, residual, first)
