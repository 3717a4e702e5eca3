"""Nonlinear least squares of a conduction law: all curves at once, or one curve with lmfit.

For a curve of points (V_i, I_i) with standard deviations sigma_i the cost

    chi^2(theta, I_0) = sum_i C^2 rho( r_i^2 / C^2 ),    r_i = (I(V_i; theta) + I_0 - I_i) / sigma_i,

is minimised within the bounds of the law's parameters, in coordinates u where positive parameters are logarithms. I_0
is a constant offset of the instrument, an optional nuisance; rho is a loss of `calib.fitting.robust` and C its
`f_scale`, rho(z) = z unless stated.

Every fit is Levenberg-Marquardt (`calib.fitting.levenberg_marquardt`), started on a few points of each curve, or, where
many curves share their voltages, on nodes that stand for all points (`calib.fitting.reduced_curves`). Where a law is a
factor times an exponential, there is no offset and the loss is linear, the same minimum is found in one pass
(`calib.fitting.variable_projection`).

The covariance of the estimates is s^2 (J^T J)^-1 with s^2 = chi^2 / (n - p), as in
`scipy.optimize.curve_fit(absolute_sigma=False)` and lmfit; s^2 = 1 with `absolute_sigma`. With a robust loss it is
Huber's (`calib.fitting.robust`). A parameter at its bound is held there: the covariance is that of the others.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from calib.errors import FitError, OptionError
from calib.fitting import reduced_curves, robust, variable_projection
from calib.fitting.batch_fit import FLAGS, OK, SINGULAR, UNDETERMINED, BatchFit, assemble
from calib.fitting.curve_data import CurveData, prepare
from calib.fitting.curve_problem import CurveProblem
from calib.fitting.levenberg_marquardt import solve
from calib.fitting.single_fit import fit_single
from calib.fitting.solution import Solution
from calib.fitting.starting_values import (
    careful_starts,
    doubtful,
    internal_bounds,
    logarithms,
    longest_step,
    quick_start,
)
from calib.iv_models.base import IVModel

__all__ = ["FLAGS", "OK", "UNDETERMINED", "BatchFit", "fit_batch", "fit_blocks", "fit_single", "solve"]

BLOCK = 1_000_000  # points of a block of curves: much for one call of numpy, little for the memory
MAXIMUM_ITERATIONS = 100
TOLERANCE = 1e-7  # error of the estimates in standard errors
_RATE = 0.1  # by which the error shrinks in an iteration close to the minimum
_OTHER_ITERATIONS = 40  # of further starts
_QUICK_ITERATIONS = 6  # of the first look; curves that need more are treated together
_NEAR_ITERATIONS = 12  # the same, of curves that nearly all need only one
_TOGETHER = 50  # doubtful curves up to which all further starts are tried at once
_MOST_THREADS = 8


@dataclass(frozen=True)
class _Options:
    """How a curve is fitted."""

    fit_offset: bool
    loss: str
    f_scale: float
    careful: bool = True

    @property
    def of_start(self) -> tuple[bool, str, float]:
        """What starting values depend on."""
        return self.fit_offset, self.loss, self.f_scale

    def solve(
        self, law: IVModel, data: CurveData, start: np.ndarray, damping: float, maximum_iterations: int,
        curvature: np.ndarray | None = None, rate: np.ndarray | float | None = None,
    ) -> Solution:  # fmt: skip
        """Fit curves from `start` (curve, parameter)."""
        lower, upper = internal_bounds(law, self.fit_offset)
        problem = CurveProblem(law, data, self.fit_offset, self.loss == "linear")
        return solve(
            problem, start, lower=lower, upper=upper, loss=self.loss, f_scale=self.f_scale, damping=damping,
            tolerance=TOLERANCE, curvature=curvature,
            rate=rate if rate is not None else _RATE if damping == 0 and self.loss == "linear" else 1.0,
            longest_step=longest_step(law, self.fit_offset), logarithms=logarithms(law, self.fit_offset),
            maximum_iterations=maximum_iterations,
        )  # fmt: skip


def fit_batch(
    law: IVModel,
    voltage: np.ndarray,
    current: np.ndarray,
    sigma: np.ndarray,
    *,
    fit_offset: bool = False,
    loss: str = "linear",
    f_scale: float = 1.0,
    absolute_sigma: bool = False,
    x0: Mapping[str, Any] | None = None,
    threads: int | None = None,
    careful: bool = True,
) -> BatchFit:
    """Fit a law to many curves at once.

    Parameters
    ----------
    law : the conduction law.
    voltage, current, sigma : (curve, point) [V], [A], [A]; a point with a NaN, or sigma that is not positive and
        finite, is not used.
    fit_offset : fit a constant current offset besides the law.
    loss, f_scale : how residuals cost: 'linear', 'soft_l1', 'huber' or 'cauchy', and the residual in sigmas from which
        on it is soft.
    absolute_sigma : take the sigmas as known; else they count as relative, and the scatter of the residuals sets their
        size.
    x0 : starting values by parameter, a number or (curve,); the law's own guess where not given.
    threads : how many threads share the work; the environment's CALIB_THREADS, or as many as there are processors (8
        at most), unless given. The result does not depend on it.
    careful : look once more, from further starting values, at curves whose fit is doubtful.

    Returns
    -------
    BatchFit
        A curve that cannot be fitted has a status that says why, and NaN estimates; nothing is raised.

    Raises
    ------
    FitError
        When the arrays differ in shape.
    OptionError
        When there is no such loss, f_scale is not positive, x0 names no parameter, or threads is not positive.
    """
    voltage, current, sigma = (np.atleast_2d(np.asarray(a, dtype=float)) for a in (voltage, current, sigma))
    if not voltage.shape == current.shape == sigma.shape:
        raise FitError(
            f"voltage has shape {voltage.shape}, current {current.shape} and sigma {sigma.shape}; expected the same"
        )
    robust.check_loss(loss, f_scale)
    known = robust.normal_variance_factor(loss, f_scale) if absolute_sigma else None
    options = _Options(fit_offset, loss, f_scale, careful)
    return _fit_all(law, (voltage, current, sigma), _given(law, x0, len(voltage)), options, known, _threads(threads))


def _fit_all(
    law: IVModel, arrays: tuple[np.ndarray, ...], x0: dict[str, np.ndarray], options: _Options,
    known_variance: float | None, threads: int,
) -> BatchFit:  # fmt: skip
    """Look at all curves, block by block, and once more, together, at those that are doubtful."""
    n, width = arrays[0].shape
    size = max(64, BLOCK // max(width, 1))
    parts = [slice(k, min(k + size, n)) for k in range(0, max(n, 1), size)]

    def first(part: slice) -> _Block:
        return _first_look(law, prepare(*(array[part] for array in arrays)), _at(x0, part), options)

    def second(rows: np.ndarray) -> Solution:
        data = prepare(*(array[rows] for array in arrays))
        return _second_look(law, data, _at(x0, rows), options, solution.take(rows), unsure[rows])

    with _workers(threads, len(parts)) as run:
        blocks = run(first, parts)
        solution = Solution.join([block.solution for block in blocks])
        n_points, all_zero, searched, unsure = (
            np.concatenate([getattr(b, name) for b in blocks])
            for name in ("n_points", "all_zero", "searched", "unsure")
        )
        enough = (n_points > solution.u.shape[1]) & ~all_zero
        left = np.flatnonzero(enough & (unsure | (doubtful(law, solution) & ~searched)) & options.careful)
        groups = np.array_split(left, -(-len(left) // size)) if len(left) else []
        for rows, other in zip(groups, run(second, groups), strict=True):
            solution.put_better(rows, other)
    return assemble(law, solution, n_points, all_zero, options.fit_offset, known_variance, MAXIMUM_ITERATIONS)


def fit_blocks(
    law: IVModel, blocks: Iterable[tuple[np.ndarray, np.ndarray, np.ndarray]], **options: Any
) -> Iterator[BatchFit]:
    """Fit curves that come in blocks, any number of them: only one block and its result are held at a time.

    Parameters
    ----------
    law : the conduction law.
    blocks : (voltage, current, sigma) of some thousand curves each, as `fit_batch` takes them.
    options : those of `fit_batch`.

    Yields
    ------
    BatchFit
        One for each block, in order.
    """
    for voltage, current, sigma in blocks:
        yield fit_batch(law, voltage, current, sigma, **options)


def _threads(threads: int | None) -> int:
    """Return how many threads to use."""
    if threads is None:
        stated = os.environ.get("CALIB_THREADS", "")
        if not stated:
            count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
            return min(count, _MOST_THREADS)
        if not stated.isdigit() or int(stated) < 1:
            raise OptionError(f"CALIB_THREADS is '{stated}'; give a whole number of at least 1")
        return int(stated)
    if threads < 1:
        raise OptionError(f"threads is {threads}; give a whole number of at least 1")
    return threads


def _given(law: IVModel, x0: Mapping[str, Any] | None, n: int) -> dict[str, np.ndarray]:
    """Return given starting values as arrays (curve,)."""
    unknown = sorted(set(x0 or ()) - {*law.parameter_names, "offset"})
    if unknown:
        raise OptionError(
            f"x0 names {', '.join(unknown)}; the parameters of {law.name} are {', '.join(law.parameter_names)}"
        )
    return {name: np.broadcast_to(np.asarray(value, dtype=float), (n,)) for name, value in (x0 or {}).items()}


def _at(start: dict[str, np.ndarray], rows: Any) -> dict[str, np.ndarray]:
    return {name: value[rows] for name, value in start.items()}


@contextmanager
def _workers(threads: int, tasks: int) -> Iterator[Callable[[Callable, Iterable], list]]:
    """Provide a function that maps over tasks with some threads, in order."""
    if min(threads, tasks) <= 1:
        yield lambda function, items: [function(item) for item in items]
        return
    with ThreadPoolExecutor(min(threads, tasks)) as pool:
        yield lambda function, items: list(pool.map(function, items))


@dataclass(frozen=True)
class _Block:
    """What the first look at a block of curves gives.

    Attributes
    ----------
    solution, n_points, all_zero : minima, points used, and whether every current is zero.
    searched : (curve,) that started from the best of many candidates, and need no other start.
    unsure : (curve,) that started from nodes and did not converge.
    """

    solution: Solution
    n_points: np.ndarray
    all_zero: np.ndarray
    searched: np.ndarray
    unsure: np.ndarray


def _first_look(law: IVModel, data: CurveData, x0: dict[str, np.ndarray], options: _Options) -> _Block:
    """Fit what is easily fitted; the rest is left not converged, so that all such curves are treated together."""
    k = len(law.parameters) + options.fit_offset
    all_zero = _all_zero(data.current)
    enough = (data.n_points > k) & ~all_zero
    searched, unsure = np.zeros(len(data), dtype=bool), np.zeros(len(data), dtype=bool)
    plain = options.loss == "linear" and not options.fit_offset
    if plain and enough.any() and variable_projection.reference(law) is not None:
        solution = variable_projection.fit(law, data)
    else:
        solution, some = Solution.empty(len(data), k, data.n_points), np.flatnonzero(enough)
        if len(some):
            part = data if len(some) == len(data) else data.take(some)
            near = reduced_curves.start(law, part, _RATE) if plain and not x0 else None
            if near is None:
                start = quick_start(law, part, _at(x0, some), *options.of_start)
                found = options.solve(law, part, start, 0.0, _QUICK_ITERATIONS)
            else:
                found = options.solve(law, part, near.u, 0.0, _NEAR_ITERATIONS, near.curvature, near.rate)
                searched[some] = near.near & found.converged & (found.condition < SINGULAR)
                unsure[some] = ~found.converged
            solution = found if part is data else solution.put(some, found)
    return _Block(solution, data.n_points, all_zero, searched, unsure)


def _all_zero(current: np.ndarray) -> np.ndarray:
    """Return (curve,) whether every current is zero."""
    zero = (current[:, ::16] == 0).all(1)  # few curves pass this
    some = np.flatnonzero(zero)
    zero[some] = ~current[some].any(1)
    return zero


def _second_look(
    law: IVModel, data: CurveData, x0: dict[str, np.ndarray], options: _Options, first: Solution, unsure: np.ndarray
) -> Solution:
    """Go on where the first look did not converge; where it is doubtful still, try other starts; keep the best."""
    solution = first
    rows = np.flatnonzero(unsure)
    if len(rows):
        part = data.take(rows)
        start = quick_start(law, part, _at(x0, rows), *options.of_start)
        found = options.solve(law, part, start, 0.0, _QUICK_ITERATIONS)
        solution.put_better(rows, found)
        lost = ~solution.converged[rows]
        solution.put(rows[lost], found.take(lost))
    rows = np.flatnonzero(~solution.converged & np.isfinite(solution.u).all(1))
    if len(rows):
        start = solution.u[rows]
        solution.put_better(rows, options.solve(law, data.take(rows), start, 1e-2, MAXIMUM_ITERATIONS))
    left = np.flatnonzero(doubtful(law, solution))
    if not len(left):
        return solution
    starts = careful_starts(law, data.take(left), _at(x0, left), *options.of_start)
    if len(left) <= _TOGETHER:
        rows = np.tile(left, len(starts))
        found = options.solve(law, data.take(rows), np.concatenate(starts), 1e-2, _OTHER_ITERATIONS)
        for at in np.array_split(np.arange(len(rows)), len(starts)):
            solution.put_better(left, found.take(at))
        return solution
    for start in starts:
        at = np.flatnonzero(doubtful(law, solution.take(left)))
        rows = left[at]
        if len(rows):
            solution.put_better(rows, options.solve(law, data.take(rows), start[at], 1e-2, _OTHER_ITERATIONS))
    return solution
