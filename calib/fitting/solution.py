"""What the solver returns, and the covariance of its estimates."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from calib.fitting import small_matrices
from calib.fitting.normal_equations import Problem, chunks, jacobian_of

ILL_CONDITIONED = 1e8
"""Condition number of the scaled normal matrix from which on covariances come from the Jacobian and are flagged."""
_SAME_COST = 1e-9
_EPS = np.finfo(float).eps


@dataclass(frozen=True)
class Solution:
    """Minima of a batch of problems; n problems, k parameters.

    Attributes
    ----------
    u : (n, k) parameters.
    cost : (n,) chi^2 with the loss.
    square, fourth : (n,) sums of the residuals' squares and fourth powers, whatever the loss.
    converged : (n,) whether the iteration ended at a minimum.
    at_bound : (n, k) whether a parameter lies on its bound.
    unscaled : (n, k, k) inverse of J^T J of the parameters that are not at a bound; 0 for those that are; NaN where it
        does not exist.
    condition : (n,) condition number of J^T J of the free parameters, in units of the columns' norms
        (`small_matrices.condition_number`; from the singular values of J where it is above `ILL_CONDITIONED`).
    variance : (n,) factor of `unscaled` that gives the covariance, from the residuals' scatter
        (`robust.variance_factor`).
    n_free : (n,) points less free parameters.
    iterations : (n,) evaluations of the model.
    """

    u: np.ndarray
    cost: np.ndarray
    square: np.ndarray
    fourth: np.ndarray
    converged: np.ndarray
    at_bound: np.ndarray
    unscaled: np.ndarray
    condition: np.ndarray
    variance: np.ndarray
    n_free: np.ndarray
    iterations: np.ndarray

    @classmethod
    def empty(cls, n: int, k: int, n_points: np.ndarray) -> "Solution":
        """Return a solution of nothing, to `put` others into."""
        unknown = np.full(n, np.nan)
        return cls(
            u=np.full((n, k), np.nan), cost=unknown, square=unknown.copy(), fourth=unknown.copy(),
            converged=np.zeros(n, dtype=bool), at_bound=np.zeros((n, k), dtype=bool),
            unscaled=np.full((n, k, k), np.nan), condition=np.full(n, np.inf), variance=unknown.copy(),
            n_free=n_points - k, iterations=np.zeros(n, dtype=int),
        )  # fmt: skip

    def take(self, rows: np.ndarray) -> "Solution":
        """Return some of the problems."""
        return Solution(**{field.name: getattr(self, field.name)[rows] for field in fields(Solution)})

    def put(self, rows: np.ndarray, other: "Solution") -> "Solution":
        """Replace the problems `rows` by those of `other`, and return this solution."""
        for field in fields(Solution):
            getattr(self, field.name)[rows] = getattr(other, field.name)
        return self

    def put_better(self, rows: np.ndarray, other: "Solution") -> None:
        """Replace those of the problems `rows` for which `other` converged at a lower cost, or is better determined."""
        cost, converged = self.cost[rows], self.converged[rows]
        better = other.converged & ~(converged & (cost <= other.cost))
        same = other.converged & converged & (np.abs(other.cost - cost) <= _SAME_COST * cost)
        better |= same & (other.condition < ILL_CONDITIONED) & ~(self.condition[rows] < ILL_CONDITIONED)
        self.put(rows[better], other.take(better))

    @classmethod
    def join(cls, parts: Sequence["Solution"]) -> "Solution":
        """Return the solutions one after the other."""
        if len(parts) == 1:
            return parts[0]
        return cls(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(cls)})


@np.errstate(all="ignore")
def covariance(
    problem: Problem, u: np.ndarray, matrix: np.ndarray, at_bound: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the inverse (n, k, k) of J^T J (k, k, n) of the free parameters, and its condition number (n,)."""
    k = len(u)
    square = small_matrices.diagonal(matrix)
    good = np.logical_and(np.isfinite(matrix).all((0, 1)), ((square > 0) | at_bound).all(0))
    norm = np.sqrt(np.where(good & ~at_bound, square, 1.0))
    free = ~at_bound & good
    part = small_matrices.scaled(np.where(good, matrix, 0.0), norm)
    if not free.all():
        part = np.where(free[:, None] & free[None], part, np.eye(k)[:, :, None])
    factor, _ = small_matrices.cholesky(part)
    inverse = small_matrices.inverse_from_cholesky(factor)
    condition = np.where(good, small_matrices.condition_number(part, inverse), np.inf)
    poor = np.flatnonzero(good & ~(condition < ILL_CONDITIONED))
    for rows in chunks(len(poor), problem.width * k):
        at = poor[rows]
        _, jacobian = jacobian_of(problem, u[:, at].copy(), at)
        jacobian = np.where(free[:, at].T[:, None, :], jacobian / norm[:, at].T[:, None, :], 0.0)
        finite = np.atleast_1d(np.isfinite(jacobian).all((1, 2)))
        s, right = np.linalg.svd(np.where(finite[:, None, None], jacobian, 0.0), full_matrices=False)[1:]
        smallest = s[np.arange(len(at)), free[:, at].sum(0) - 1]  # held columns have singular value 0
        floor = np.maximum(s, 0.1 * _EPS * s[:, :1] + 1e-300)
        weight = np.where(np.arange(k) < free[:, at].sum(0)[:, None], 1 / floor**2, 0.0)
        inverse[:, :, at] = np.einsum("nai,na,naj->ijn", right, weight, right)
        condition[at] = np.where(finite, (s[:, 0] / np.maximum(smallest, 0.1 * _EPS * s[:, 0] + 1e-300)) ** 2, np.inf)
    inverse = inverse / (norm[:, None] * norm[None])
    inverse = np.where(free[:, None] & free[None], inverse, 0.0)
    return np.where(good, inverse, np.nan).transpose(2, 0, 1), condition
