"""Levenberg-Marquardt over many least-squares problems at once: the core of every fit of calib.

Each problem minimises chi^2(u) = sum_i C^2 rho((r_i(u) / C)^2) within lower <= u <= upper; rho is a loss of
`calib.fitting.robust`, the sum of squares unless stated. All problems of a batch have the same parameters and as many
points (a point that is not there has residual and derivatives 0). A problem leaves the batch as it converges.

Step. Marquardt's damping in units of the largest norms that the columns of the Jacobian lately had (J. J. More, Lect.
Notes Math. 630, 105 (1978), doi 10.1007/BFb0067700); the normal equations by Cholesky, and a singular value
decomposition of the Jacobian itself for the problems whose normal matrix is nearly singular. Robust losses enter as
weighted residuals and derivatives (B. Triggs et al., Lect. Notes Comput. Sci. 1883, 298 (2000), section 4.3, doi
10.1007/3-540-44480-7_21).

Bounds. A parameter at its bound whose gradient points outwards is held; a parameter whose step would cross its bound
is stopped on it, exactly, and the step of the others is found anew with it there (D. P. Bertsekas, SIAM J. Control
Optim. 20, 221 (1982), doi 10.1137/0320018).

End. With d the reduction of the cost that the undamped step promises, sqrt(d / s^2) is the step's length in standard
errors (D. M. Bates, D. G. Watts, Technometrics 23, 179 (1981), doi 10.1080/00401706.1981.10486268). The iteration
ends where that length, times the rate at which it has been shrinking, is below `TOLERANCE`, or below what rounding
lets one see; the last step is still taken.
"""

import numpy as np

from calib.fitting import robust, small_matrices
from calib.fitting.bounded_step import bounded_step
from calib.fitting.normal_equations import (
    NormalEquations,
    Problem,
    Rows,
    Summed,
    chunks,
    evaluate_all,
    jacobian_of,
)
from calib.fitting.solution import Solution, covariance

__all__ = ["Problem", "Rows", "Solution", "approach", "minimise", "solve"]

MAXIMUM_ITERATIONS = 100
TOLERANCE = 1e-9  # length of a step in standard errors
RELATIVE_TOLERANCE = 1e-7
CLOSE = 1e-4  # length of a step in standard errors that is enough where iterations run out
NEARLY_SINGULAR = 1e-11  # smallest squared pivot of the scaled normal matrix below which the Jacobian is decomposed
_LEAST_LEFT = 1e-2  # of a step, for its length relative to the parameters: the covariance is that before the step
_EPS = np.finfo(float).eps
_LEAST_DAMPING, _LARGEST_DAMPING = 1e-8, 1e12
_SUMMED_DAMPING = 5e-5  # after an undamped step that failed, where an evaluation costs little
_LONGEST_LAST_STEP = 1e-3
_PATIENCE = 6  # steps in a row that gain less than a tenth of what they promise
_UNSEEN = 4.0  # a step that promises this many times what rounding hides, and fails, has found the minimum
_FIRST_STEPS = 4  # without second derivatives, where they are known
_FADING = 0.5  # what an iteration leaves of the largest norm of a column so far


def solve(
    problem: Problem,
    start: np.ndarray,
    *,
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
    loss: str = "linear",
    f_scale: float = 1.0,
    damping: float = 1e-3,
    tolerance: float = TOLERANCE,
    rate: float | np.ndarray = 1.0,
    longest_step: np.ndarray | None = None,
    logarithms: np.ndarray | None = None,
    curvature: np.ndarray | None = None,
    maximum_iterations: int = MAXIMUM_ITERATIONS,
) -> Solution:
    """Minimise every problem of a batch.

    Parameters
    ----------
    problem : residuals and derivatives, see `calib.fitting.normal_equations.Problem`.
    start : (n, k) starting values; those outside the bounds are moved onto them.
    lower, upper : (k,) bounds; infinite where there is none.
    loss, f_scale : how residuals cost, see `calib.fitting.robust`.
    damping : Marquardt's parameter of the first step; 0 is right where the start is close.
    tolerance : error of the estimates, in standard errors, at which the iteration may end.
    rate : factor by which the first step is expected to shrink the error, one or (n,); 1 where nothing is known of the
        start.
    longest_step : (k,) furthest that an iteration may move a parameter, relative to its size or to one, whichever is
        larger.
    logarithms : (k,) which parameters are logarithms; where it is given, the iteration also ends once every parameter,
        not its logarithm, is known to `RELATIVE_TOLERANCE`.
    curvature : (k, k, n) what second derivatives of the model near the start add to J^T J; it makes the first steps
        those of Newton's method. For the sum of squares.
    maximum_iterations : evaluations of the model after which a problem counts as not converged.

    Raises
    ------
    OptionError
        When the loss does not exist.
    """
    how = (loss, f_scale, damping, tolerance, rate, longest_step, logarithms)
    state = _minimised(problem, start, lower, upper, how, maximum_iterations, curvature)
    state.last_step()
    return state.solution()


def approach(
    problem: Summed,
    start: np.ndarray,
    *,
    lower: np.ndarray,
    upper: np.ndarray,
    tolerance: float,
    longest_step: np.ndarray,
    maximum_iterations: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return where problems known by their sums end (k, n), J^T J next to it (k, k, n), and which converged (n,)."""
    how = ("linear", 1.0, 0.0, tolerance, 1.0, longest_step, None)
    state = _minimised(problem, start, lower, upper, how, maximum_iterations)
    state.last_step()
    return state.u, state.now.matrix, state.converged


def minimise(
    problem: Problem,
    start: np.ndarray,
    *,
    lower: np.ndarray | None = None,
    upper: np.ndarray | None = None,
    loss: str = "linear",
    f_scale: float = 1.0,
    damping: float = 1e-3,
    tolerance: float = TOLERANCE,
    longest_step: np.ndarray | None = None,
    maximum_iterations: int = MAXIMUM_ITERATIONS,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the parameters (n, k) that `solve` arrives at, converged or not, and their cost (n,); nothing else."""
    how = (loss, f_scale, damping, tolerance, 1.0, longest_step, None)
    state = _minimised(problem, start, lower, upper, how, maximum_iterations)
    return state.u.T, state.now.cost


def _minimised(
    problem: Problem | Summed, start: np.ndarray, lower: np.ndarray | None, upper: np.ndarray | None,
    how: tuple[str, float, float, float, float | np.ndarray, np.ndarray | None, np.ndarray | None],
    maximum_iterations: int, curvature: np.ndarray | None = None,
) -> "_State":  # fmt: skip
    robust.check_loss(*how[:2])
    k = start.shape[1]
    bounds = None
    if (lower is not None and np.isfinite(lower).any()) or (upper is not None and np.isfinite(upper).any()):
        low = np.full(k, -np.inf) if lower is None else np.asarray(lower, dtype=float)
        high = np.full(k, np.inf) if upper is None else np.asarray(upper, dtype=float)
        bounds = (low[:, None], high[:, None])
    state = _State(problem, np.array(start.T, dtype=float, order="C"), bounds, *how, curvature)
    for number in range(maximum_iterations - 1):
        if not len(state.active):
            break
        if number >= _FIRST_STEPS and isinstance(problem, Summed):
            state.renew_curvature(problem)
        state.iterate()
    state.accept_close()
    return state


class _State:
    """Where every problem stands; arrays (k, n)."""

    def __init__(
        self, problem: Problem | Summed, u: np.ndarray, bounds: tuple[np.ndarray, np.ndarray] | None, loss: str,
        f_scale: float, damping: float, tolerance: float, rate: float | np.ndarray, longest_step: np.ndarray | None,
        logarithms: np.ndarray | None = None, curvature: np.ndarray | None = None,
    ) -> None:  # fmt: skip
        n = u.shape[1]
        self.problem, self.bounds, self.loss, self.f_scale = problem, bounds, loss, f_scale
        self.tolerance, self.rate, self.longest_step = tolerance, np.broadcast_to(rate, (n,)), longest_step
        self.logarithms, self.curvature = logarithms, curvature
        self.u = u if bounds is None else np.clip(u, *bounds)
        self.now = evaluate_all(problem, self.u, slice(0, n), loss, f_scale)
        self.largest = small_matrices.diagonal(self.now.matrix)  # of the columns' squared norms so far
        self.damping = np.full(n, damping)
        self.first_damping = _SUMMED_DAMPING if isinstance(problem, Summed) else _LEAST_DAMPING
        self.growth, self.stalled = np.full(n, 2.0), np.zeros(n, dtype=int)
        self.before = np.full(n, np.nan)  # promise of the last undamped step
        self.last, self.promise = np.full(self.u.shape, np.nan), np.full(n, np.nan)  # where a step ended it
        self.converged = np.zeros(n, dtype=bool)
        self.iterations = np.ones(n, dtype=int)
        self.rounding = _EPS**2 * problem.data_square
        self.cancelled = (
            isinstance(problem, Summed) * _EPS
        ) * problem.data_square  # a cost that is a difference of sums
        self.active = np.flatnonzero(np.isfinite(self.now.cost))

    def rows(self) -> Rows:
        """Return the active problems, as a slice while all are."""
        return slice(0, self.u.shape[1]) if len(self.active) == self.u.shape[1] else self.active

    @np.errstate(all="ignore")
    def iterate(self) -> None:
        """Find every active problem's step, end those for which it no longer matters, and try the others'."""
        step, promise = self.step(self.rows(), self.damping[self.active])
        ends = self.ends(promise, step)
        self.converged[self.active[ends]] = True
        undamped = ends & (self.damping[self.active] == 0)
        self.last[:, self.active[undamped]] = step[:, undamped]
        self.promise[self.active[undamped]] = promise[undamped]
        stay = np.flatnonzero(~ends)
        self.active = self.active[stay]
        if not len(stay):
            return
        promise, damping = promise[stay], self.damping[self.active]
        trial = self.u[:, self.active] + step[:, stay]
        if self.bounds is not None:
            trial = np.clip(trial, *self.bounds)
        new = evaluate_all(self.problem, trial, self.rows(), self.loss, self.f_scale)
        self.iterations[self.active] += 1
        cost = self.now.cost[self.active]
        better = new.cost <= cost + self.visible(cost)
        gain = (cost - new.cost + self.visible(cost)) / promise
        self.adopt(trial, new, better)
        self.relax(gain, better)
        stalled = np.where(better & (gain < 0.1), self.stalled[self.active] + 1, 0)
        self.stalled[self.active] = stalled
        lost = ~better & (damping <= 1e-3) & (promise <= _UNSEEN * self.visible(cost))
        if self.logarithms is not None:  # a logarithm that goes to minus infinity, ever more slowly
            lost |= stalled >= _PATIENCE
        self.converged[self.active[lost]] = True
        self.active = self.active[~lost & (better | (self.damping[self.active] < _LARGEST_DAMPING))]

    def adopt(self, trial: np.ndarray, new: NormalEquations, better: np.ndarray) -> None:
        """Go to the trial where it is better."""
        took = self.active[better]
        if len(took) == self.u.shape[1]:
            self.u, self.now = trial, new
        else:
            self.u[:, took] = trial[:, better]
            self.now.put(self.active, new, better)
        largest = small_matrices.diagonal(new.matrix)[:, better]
        self.largest[:, took] = np.fmax(_FADING * self.largest[:, took], largest)

    def relax(self, gain: np.ndarray, better: np.ndarray) -> None:
        """Damp less where the step kept its promise, and more, ever faster, where it failed."""
        damping = self.damping[self.active]
        relaxed = np.where(gain > 0.75, damping * 0.1, np.where(gain < 0.25, np.maximum(4 * damping, 1e-6), damping))
        relaxed = np.where(relaxed < _LEAST_DAMPING, 0.0, relaxed)
        growth = np.where(better, 2.0, self.growth[self.active] * 2)
        self.damping[self.active] = np.where(better, relaxed, np.maximum(damping, self.first_damping) * growth)
        self.growth[self.active] = growth

    def accept_close(self) -> None:
        """Count as converged what comes nearer slowly but is at the minimum for all that it matters."""
        variance = self.now.cost[self.active] / np.maximum(self.problem.n_points[self.active] - len(self.u), 1)
        close = self.before[self.active] <= CLOSE**2 * variance
        self.converged[self.active[close]] = True

    def visible(self, cost: np.ndarray) -> np.ndarray:
        """Return the smallest change of the cost that rounding does not hide."""
        rounding, cancelled = self.rounding[self.active], self.cancelled[self.active]
        return 8 * _EPS * cost + 4 * np.sqrt(cost * rounding) + 16 * (rounding + cancelled)

    @np.errstate(all="ignore")
    def ends(self, promise: np.ndarray, step: np.ndarray) -> np.ndarray:
        """Say which active problems are at their minimum, but for a last step."""
        active = self.active
        cost = self.now.cost[active]
        nearly_undamped = self.damping[active] <= 1e-4
        ratio = promise / self.before[active]
        shrinking = np.where(np.isfinite(ratio), np.minimum(ratio, 1.0), self.rate[active] ** 2)
        self.before[active] = np.where(nearly_undamped, promise, np.nan)
        variance = cost / np.maximum(self.problem.n_points[active] - len(self.u), 1)
        length_small = promise * shrinking <= self.tolerance**2 * variance
        if self.logarithms is not None:
            size = np.where(self.logarithms[:, None], 1.0, np.abs(self.u[:, active]))
            left = np.maximum(np.sqrt(shrinking), _LEAST_LEFT)
            length_small |= (np.abs(step) * left <= RELATIVE_TOLERANCE * size).all(0)
        lost_in_rounding = (promise <= self.visible(cost)) & (ratio > 0.8)
        ends = nearly_undamped & (length_small | lost_in_rounding | (promise <= self.rounding[active]))
        return ends if self.bounds is None else ends & self.stays_at_bounds(step)

    @np.errstate(all="ignore")
    def stays_at_bounds(self, step: np.ndarray) -> np.ndarray:
        """Say for which active problems the parameters at a bound are still pushed outwards after the step."""
        assert self.bounds is not None
        u, rows = self.u[:, self.active], self.rows()
        low, high = u + step <= self.bounds[0], u + step >= self.bounds[1]
        stays = np.ones(len(self.active), dtype=bool)
        some = np.flatnonzero((low | high).any(0))
        if len(some):
            gradient = self.now.gradient[:, rows][:, some]
            after = gradient + np.einsum("ijn,jn->in", self.hessian(rows)[:, :, some], step[:, some])
            after *= (np.abs(after) > 1e-9 * np.abs(gradient)) | ~np.isfinite(after)
            stays[some] = ~((low[:, some] & (after < 0)) | (high[:, some] & (after > 0))).any(0)
        return stays

    def renew_curvature(self, problem: Summed) -> None:
        """Find the active problems' second derivatives."""
        if self.curvature is None:
            self.curvature = np.zeros(self.now.matrix.shape)
        u, matrix = self.u[:, self.active], self.now.matrix[:, :, self.active]
        self.curvature[:, :, self.active] = problem.usable_curvature(u, matrix, self.active)[0]

    def hessian(self, rows: Rows) -> np.ndarray:
        """Return half of the cost's second derivatives (k, k, m), as far as they are known."""
        matrix = self.now.matrix[:, :, rows]
        return matrix if self.curvature is None else matrix + self.curvature[:, :, rows]

    @np.errstate(all="ignore")
    def step(self, rows: Rows, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the damped step (k, m) within the bounds and the reduction of the cost that it promises."""
        largest = self.largest[:, rows]
        norm = np.sqrt(np.where((largest > 0) & np.isfinite(largest), largest, 1.0))
        matrix = small_matrices.scaled(self.hessian(rows), norm)
        gradient = self.now.gradient[:, rows] / norm
        room = None
        if self.bounds is not None:
            room = ((self.bounds[0] - self.u[:, rows]) * norm, (self.bounds[1] - self.u[:, rows]) * norm)
        step, held, pivot = bounded_step(matrix, gradient, damping, room)
        poor = np.flatnonzero(pivot < NEARLY_SINGULAR)
        if len(poor) and isinstance(self.problem, Problem):
            self._by_decomposition(self.problem, step, held, poor, rows, norm, damping)
        if self.longest_step is not None:
            limit = self.longest_step[:, None] * np.maximum(np.abs(self.u[:, rows]), 1.0) * norm
            step *= np.fmin(np.fmin.reduce(limit / np.abs(step), axis=0), 1.0)
        promise = -(step * (2 * gradient + np.einsum("ijn,jn->in", matrix, step))).sum(0)
        return step / norm, np.where(np.isfinite(promise), np.maximum(promise, 0.0), 0.0)

    def _by_decomposition(
        self, problem: Problem, step: np.ndarray, held: np.ndarray, poor: np.ndarray, rows: Rows, norm: np.ndarray,
        damping: np.ndarray,
    ) -> None:  # fmt: skip
        """Replace the steps of nearly singular problems by those from the Jacobian's singular values."""
        which = np.arange(self.u.shape[1])[rows][poor]
        for part in chunks(len(which), problem.width * len(self.u)):
            at = poor[part]
            residual, jacobian = jacobian_of(
                problem, self.u[:, which[part]].copy(), which[part], self.loss, self.f_scale
            )
            jacobian = jacobian / norm[:, at].T[:, None, :]
            fixed = held[:, at].T
            moved = np.where(fixed, step[:, at].T, 0.0)
            residual = residual + np.einsum("npk,nk->np", jacobian, moved)
            jacobian = np.where(fixed[:, None, :], 0.0, jacobian)
            usable = np.isfinite(jacobian).all((1, 2)) & np.isfinite(residual).all(1)
            left, s, right = np.linalg.svd(np.where(usable[:, None, None], jacobian, 0.0), full_matrices=False)
            inverse = s / np.maximum(s * s + damping[at, None], (_EPS * s[:, :1]) ** 2 + 1e-300)
            inverse[s <= _EPS * s[:, :1]] = 0.0
            projected = np.einsum("npk,np->nk", left, np.where(usable[:, None], residual, 0.0))
            found = -np.einsum("nkj,nk->nj", right, inverse * projected)
            step[:, at] = np.where(fixed, moved, found).T

    @np.errstate(all="ignore")
    def last_step(self) -> None:
        """Take the undamped step of the problems that ended: it was found, but did not matter."""
        self.active = np.flatnonzero(self.converged & np.isnan(self.promise))
        if len(self.active):
            found = self.step(self.rows(), np.zeros(len(self.active)))
            self.last[:, self.active], self.promise[self.active] = found
        self.active = np.flatnonzero(self.converged)
        rows = self.rows()
        step, promise = self.last[:, rows], self.promise[rows]
        short = (np.abs(step) <= _LONGEST_LAST_STEP * np.maximum(np.abs(self.u[:, rows]), 1.0)).all(0)
        moved = self.u[:, rows] + np.where(short, step, 0.0)
        self.now.cost[rows] -= np.where(short, np.minimum(promise, 0.5 * self.now.cost[rows]), 0.0)
        if self.loss == "linear":
            self.now.square[rows] = self.now.cost[rows]
        self.u[:, rows] = moved if self.bounds is None else np.clip(moved, *self.bounds)

    @np.errstate(all="ignore")
    def solution(self) -> Solution:
        """Return the estimates with their covariance and what the residuals say."""
        assert isinstance(self.problem, Problem)
        k, n = self.u.shape
        at_bound = np.zeros((k, n), dtype=bool)
        if self.bounds is not None:
            at_bound = (self.u == self.bounds[0]) | (self.u == self.bounds[1])
        n_free = self.problem.n_points - k + at_bound.sum(0)
        variance = np.where(n_free > 0, self.now.cost / np.maximum(n_free, 1), np.nan)
        matrix = self.now.matrix
        if self.loss != "linear":
            matrix, variance = self._without_loss(self.problem, n_free)
        unscaled, condition = covariance(self.problem, self.u, matrix, at_bound)
        return Solution(
            u=self.u.T, cost=self.now.cost, square=self.now.square, fourth=self.now.fourth, converged=self.converged,
            at_bound=at_bound.T, unscaled=unscaled, condition=condition, variance=variance, n_free=n_free,
            iterations=self.iterations,
        )  # fmt: skip

    def _without_loss(self, problem: Problem, n_free: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return J^T J of the unweighted residuals at the estimates, and Huber's factor."""
        k, n = self.u.shape
        matrix, variance = np.empty((k, k, n)), np.empty(n)
        for part in chunks(n, problem.width * k):
            residual, jacobian = jacobian_of(problem, self.u[:, part].copy(), part)
            matrix[:, :, part] = np.einsum("npi,npj->ijn", jacobian, jacobian)
            used = (jacobian != 0).any(2) | (residual != 0)
            variance[part] = robust.variance_factor(residual, used, n_free[part], self.loss, self.f_scale)
        return matrix, variance
