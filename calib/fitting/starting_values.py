"""Where the fits of a law start, and the bounds of its parameters in the fitted coordinates.

The law's guess is improved on a few points of each curve, which is cheap and leaves the fit of all points two or three
iterations. An offset is estimated beforehand as well, because it bends the logarithms that a guess looks at. A fit
whose result is `doubtful` is repeated with care, also from the guess itself (a few points may prefer a corner that all
points do not) and from the middle of the law's typical range, and the lowest cost is kept.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from calib.fitting.curve_data import CurveData
from calib.fitting.curve_problem import CurveProblem
from calib.fitting.levenberg_marquardt import minimise
from calib.fitting.solution import Solution
from calib.iv_models.base import IVModel

GUESS_POINTS = 24
"""Points of a curve that the law's guess looks at."""
THINNED_FROM = 40
"""Points a curve from which on a part of them is enough to start from."""
LONGEST_STEP = 2.0
"""Furthest that an iteration may move a logarithm, or another parameter relative to its size or one."""
DOUBTFUL_CONDITION = 1e5
_TOLERANCE, _QUICK_ITERATIONS, _ITERATIONS = 0.1, 8, 25


def logarithms(law: IVModel, fit_offset: bool) -> np.ndarray:
    """Return (parameter,) which of the fitted coordinates are logarithms."""
    return np.array([parameter.transform == "log" for parameter in law.parameters] + [False] * fit_offset)


def quick_start(
    law: IVModel, data: CurveData, x0: Mapping[str, np.ndarray], fit_offset: bool, loss: str, f_scale: float
) -> np.ndarray:
    """Return starting values (curve, parameter) in the fitted coordinates, the offset last: the guess, improved."""
    guess = _guess(law, data, x0, np.zeros(len(data)), fit_offset)
    few = _few(data, guess.shape[1])
    improve = _Improvement(law, fit_offset, loss, f_scale, _QUICK_ITERATIONS)
    u, cost = improve(few, guess)
    if fit_offset and "offset" not in x0:
        u, cost = _better(u, cost, *improve(few, _guess(law, data, x0, _offset(few), fit_offset)))
    usable = np.isfinite(cost) & np.isfinite(u).all(1) & (few.n_points > guess.shape[1])
    return np.where(usable[:, None], u, guess)


def careful_starts(
    law: IVModel, data: CurveData, x0: Mapping[str, np.ndarray], fit_offset: bool, loss: str, f_scale: float
) -> list[np.ndarray]:
    """Return several starting values for curves whose fit is doubtful: guessed, improved, and from the middle."""
    quick = quick_start(law, data, x0, fit_offset, loss, f_scale)
    few = _few(data, quick.shape[1])
    middle, cost = _Improvement(law, fit_offset, loss, f_scale, _ITERATIONS)(few, _middle(law, few, quick))
    usable = np.isfinite(cost) & np.isfinite(middle).all(1) & (few.n_points > quick.shape[1])
    offset = _offset(few) if fit_offset and "offset" not in x0 else np.zeros(len(data))
    guess = _guess(law, data, x0, offset, fit_offset)
    return [guess, quick, np.where(usable[:, None], middle, guess)]


def _few(data: CurveData, k: int) -> CurveData:
    return data.thinned(max(3 * k + 4, 12)) if data.width >= THINNED_FROM else data


class _Improvement:
    """Minimises the cost of a few points roughly, with care not to leap."""

    def __init__(self, law: IVModel, fit_offset: bool, loss: str, f_scale: float, iterations: int) -> None:
        lower, upper = internal_bounds(law, fit_offset)
        self.law, self.fit_offset = law, fit_offset
        self.how: dict[str, Any] = {
            "lower": lower, "upper": upper, "loss": loss, "f_scale": f_scale, "damping": 1e-3, "tolerance": _TOLERANCE,
            "longest_step": longest_step(law, fit_offset), "maximum_iterations": iterations,
        }  # fmt: skip

    def __call__(self, data: CurveData, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return parameters (curve, parameter) and cost."""
        problem = CurveProblem(self.law, data, self.fit_offset, self.how["loss"] == "linear")
        return minimise(problem, start, **self.how)


def doubtful(law: IVModel, solution: Solution) -> np.ndarray:
    """Return (curve,) where another start may find a lower cost: at a bound, not determined, or not converged."""
    variance = np.einsum("cii->ci", solution.unscaled)[:, : len(law.parameters)] * solution.variance[:, None]
    is_log = np.array([parameter.transform == "log" for parameter in law.parameters])
    with np.errstate(invalid="ignore"):
        vague = ((variance > 0.5**2) & is_log).any(1) | ~(solution.condition < DOUBTFUL_CONDITION)
    return vague | solution.at_bound.any(1) | ~solution.converged


def internal_bounds(law: IVModel, fit_offset: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper bounds (parameter,) in the fitted coordinates; the offset has none."""
    bounds = []
    for parameter in law.parameters:
        low, high = parameter.lower, parameter.upper
        if parameter.transform == "log":
            low, high = (float(np.log(b)) if b > 0 else -np.inf for b in (low, high))
        bounds.append((low, high))
    if fit_offset:
        bounds.append((-np.inf, np.inf))
    return np.array([b[0] for b in bounds]), np.array([b[1] for b in bounds])


def longest_step(law: IVModel, fit_offset: bool) -> np.ndarray:
    """Return the longest step of each coordinate; none for the offset, which is linear."""
    return np.array([LONGEST_STEP] * len(law.parameters) + [np.inf] * fit_offset)


def _guess(
    law: IVModel, data: CurveData, x0: Mapping[str, np.ndarray], offset: np.ndarray, fit_offset: bool
) -> np.ndarray:
    """Return the values given, else the law's guess for the currents less `offset`."""
    values = dict(x0)
    if any(name not in values for name in law.parameter_names):
        few = data.thinned(GUESS_POINTS) if data.complete else data
        voltage, current = few.masked()
        with np.errstate(all="ignore"):
            values = {**law.guess(voltage, current - offset[:, None] if offset.any() else current), **values}
    columns = []
    for parameter in law.parameters:
        value = np.clip(values[parameter.name], parameter.lower, parameter.upper)
        columns.append(np.log(np.maximum(value, 1e-300)) if parameter.transform == "log" else value)
    if fit_offset:
        columns.append(np.broadcast_to(values.get("offset", offset), (len(data),)))
    return np.stack(columns, axis=1)


def _offset(data: CurveData) -> np.ndarray:
    """Return the current at no voltage, from a weighted line through the quarter of the points of smallest voltage."""
    voltage, current = data.masked()
    count = max(4, data.width // 4)
    size = np.where(np.isfinite(voltage), np.abs(voltage), np.inf)
    nearest = np.argsort(size, axis=1, kind="stable")[:, :count]
    weight = np.where(np.isfinite(np.take_along_axis(size, nearest, 1)), np.take_along_axis(data.weight, nearest, 1), 0)
    weight = np.square(weight / np.maximum(weight.max(1, keepdims=True, initial=0.0), 1e-300))
    v = np.nan_to_num(np.take_along_axis(voltage, nearest, 1))
    i = np.nan_to_num(np.take_along_axis(current, nearest, 1))
    total = np.maximum(weight.sum(1), 1e-3)
    mean_v, mean_i = (weight * v).sum(1) / total, (weight * i).sum(1) / total
    dv = weight * (v - mean_v[:, None])
    variance = (dv * v).sum(1)
    slope = np.where(variance > 0, (dv * i).sum(1) / np.where(variance > 0, variance, 1.0), 0.0)
    return mean_i - slope * mean_v


def _middle(law: IVModel, data: CurveData, u: np.ndarray) -> np.ndarray:
    """Return the middle of the typical ranges, the scale such that the largest current is right; u where unknown."""
    middle = u.copy()
    for k, parameter in enumerate(law.parameters):
        low, high = parameter.typical
        if parameter.name != law.scale and np.isfinite(low) and np.isfinite(high):
            middle[:, k] = (np.log(low) + np.log(high)) / 2 if parameter.transform == "log" else (low + high) / 2
    if law.scale_is_factor:
        k = law.parameter_names.index(law.scale)
        shape = {
            p.name: np.exp(middle[:, i, None]) if p.transform == "log" else middle[:, i, None]
            for i, p in enumerate(law.parameters)
            if p.name != law.scale
        }
        with np.errstate(all="ignore"):
            one = law.current(data.voltage, xp=np, **{law.scale: np.ones((1, 1)), **shape}) * data.weight
            scale = (one * data.current * data.weight).sum(1) / np.square(one).sum(1)
        middle[:, k] = np.where(scale > 0, np.log(np.where(scale > 0, scale, 1.0)), middle[:, k])
    return middle


def _better(
    u: np.ndarray, cost: np.ndarray, other_u: np.ndarray, other_cost: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return, per curve, the parameters of the lower cost, and that cost."""
    better = other_cost < np.where(np.isfinite(cost), cost, np.inf)
    return np.where(better[:, None], other_u, u), np.where(better, other_cost, cost)
