"""Levels of the instrument: recorded absolute values, noise floor, current offset, compliance."""

from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from calib.sweeps.rules import SweepRules

Array = NDArray[np.float64]
_ROUNDING = 1e-12  # a floor under this part of the largest current is the rounding of computed data


@dataclass(frozen=True)
class Offset:
    """A constant current that the instrument adds.

    Attributes
    ----------
    value, stderr : (sweep,) [A]; 0 and NaN where none was found.
    per_sweep : whether each sweep has its own.
    """

    value: Array
    stderr: Array
    per_sweep: bool = False


def recorded_absolute(voltage: Array, current: Array, rules: SweepRules) -> bool:
    """Say whether |I| was recorded although V is negative: real signal there, and none of it negative."""
    largest = float(np.nanmax(np.abs(current), initial=0.0))
    signal = (voltage < 0) & (np.abs(current) > rules.sign_signal * largest)
    return int(signal.sum()) >= rules.sign_points and float((current[signal] < 0).mean()) <= rules.sign_negative


def at_zero(voltage: Array, current: Array, rules: SweepRules) -> Array:
    """Return the current at zero volts, (sweep,) [A]; NaN for sweeps that do not come near it."""
    absolute = np.abs(voltage)
    absolute = np.where(np.isfinite(absolute), absolute, np.inf)
    nearest = absolute.argmin(axis=1)
    rows = np.arange(len(voltage))
    largest = np.where(np.isfinite(absolute), absolute, 0.0).max(axis=1)
    near = absolute[rows, nearest] <= rules.near_zero * largest
    return np.where(near, current[rows, nearest], np.nan)


def noise_floor(voltage: Array, current: Array, rules: SweepRules) -> float:
    """Return the noise floor [A] of a population, NaN when the data do not show it (or are computed).

    With current at 0 V: floor = floor_sigma * q / z, q being the `floor_quantile` of |I(0)| over the sweeps and
    z that quantile of |N(0, 1)|. Without: from the second differences of the sweeps' five smallest-voltage points.
    """
    zero = np.abs(at_zero(voltage, current, rules))
    zero = zero[np.isfinite(zero)]
    if len(zero) >= 3:
        z = NormalDist().inv_cdf(0.5 + rules.floor_quantile / 2)
        return _unless_rounding(float(rules.floor_sigma * np.quantile(zero, rules.floor_quantile) / z), current)
    if current.shape[1] < 5:
        return np.nan
    order = np.argsort(np.where(np.isfinite(voltage), np.abs(voltage), np.inf), axis=1)[:, :5]
    lowest = np.take_along_axis(current, order, axis=1)
    sigma = 1.4826 * np.abs(np.diff(lowest, 3, axis=1)) / np.sqrt(20.0)  # third differences: 1, 9, 9, 1
    sigma = sigma[np.isfinite(sigma)]
    return _unless_rounding(float(rules.floor_sigma * np.median(sigma)), current) if len(sigma) >= 3 else np.nan


def find_offset(voltage: Array, current: Array, rules: SweepRules) -> Offset:
    """Find a constant current offset of a population of sweeps.

    I = offset + g |V| + h V^2 is fitted to the lowest part of each sweep; offset is the median over the sweeps, with
    standard error 1.2533 * robust standard deviation / sqrt(sweeps). It is accepted when it is significant, large
    beside the signal, alike in all sweeps, and equal to the current measured at 0 V (`SweepRules`).
    """
    none = Offset(np.zeros(len(voltage)), np.full(len(voltage), np.nan))
    intercept, error, signal = _intercepts(voltage, current, rules)
    known = np.isfinite(intercept)
    if known.sum() < 3:
        return none
    middle = float(np.median(intercept[known]))
    spread = 1.4826 * float(np.median(np.abs(intercept[known] - middle)))
    stderr = max(1.2533 * spread / np.sqrt(known.sum()), np.finfo(float).tiny)
    zero = at_zero(voltage, current, rules)
    agrees = True
    if np.isfinite(zero).sum() >= 3:
        measured = float(np.nanmedian(zero))
        scatter = 1.4826 * float(np.nanmedian(np.abs(zero - measured)))
        agrees = abs(measured - middle) < rules.offset_agreement * abs(middle)
        agrees = agrees and scatter < rules.offset_spread * abs(measured)
    significant = abs(middle) > rules.offset_sigma * stderr and spread < rules.offset_spread * abs(middle)
    if not (agrees and significant and abs(middle) > rules.offset_relative * float(np.median(signal[known]))):
        return none
    typical = float(np.median(error[known]))
    if spread > rules.offset_per_sweep * typical:
        return Offset(np.where(known, intercept, middle), np.where(known, error, spread), True)
    return Offset(np.full(len(voltage), middle), np.full(len(voltage), stderr))


def plateaus(voltage: Array, current: Array, rules: SweepRules) -> Array:
    """Return the level [A] of the plateau at the top of each sweep, NaN where there is none, (sweep,).

    Its level is the median of the currents within `plateau_outlier` of the largest. All points in its range of highest
    |V| reach the level within `plateau_tolerance`, and half of them lie within half of that.
    """
    absolute, size = np.abs(voltage), np.abs(current)
    result = np.full(len(voltage), np.nan)
    count = np.isfinite(size).sum(axis=1)
    for k in np.flatnonzero(count > rules.plateau_points):
        x, y = absolute[k, : count[k]], size[k, : count[k]]
        level = float(np.median(y[y >= (1 - rules.plateau_outlier) * y.max()]))
        near = y >= (1 - rules.plateau_tolerance) * level
        begins, top = float(x[near].min()), float(x.max())
        if near.all() or near.sum() < rules.plateau_points or top - begins < rules.plateau_extent * top:
            continue
        flat = float(np.median(np.abs(y[near] - level))) <= rules.plateau_tolerance * level / 2
        if flat and near[x >= begins].all():
            result[k] = level
    return result


def on_plateau(current: Array, own: Array, shared: float, rules: SweepRules) -> tuple[Array, NDArray[np.bool_]]:
    """Return the level for each sweep (its own, else the shared one) and which of its points lie on it."""
    level = np.where(np.isfinite(own), own, shared)
    size = np.abs(current)
    tolerance = rules.plateau_tolerance * level[:, None]
    with np.errstate(invalid="ignore"):
        reached = np.where(np.isfinite(own), np.inf, shared * (1 + rules.plateau_outlier))
        allowed = np.nanmax(np.where(np.isfinite(size), size, 0.0), axis=1) <= reached
        points = (size >= level[:, None] - tolerance) & allowed[:, None]
    return level, points


def _unless_rounding(floor: float, current: Array) -> float:
    return floor if floor > _ROUNDING * float(np.nanmax(np.abs(current), initial=0.0)) else np.nan


def _intercepts(voltage: Array, current: Array, rules: SweepRules) -> tuple[Array, Array, Array]:
    """Fit a parabola in |V| to the low part of each sweep: intercept, its standard error, |I| at the window's end."""
    absolute = np.abs(voltage)
    count = np.isfinite(absolute).sum(axis=1)
    largest = np.where(np.isfinite(absolute), absolute, 0.0).max(axis=1)
    result = np.full((3, len(voltage)), np.nan)
    for k in np.flatnonzero(count >= rules.offset_points):
        x, y = absolute[k, : count[k]], current[k, : count[k]]
        order = np.argsort(x, kind="stable")
        taken = order[: max(rules.offset_points, int((x <= rules.offset_window * largest[k]).sum()))]
        if x[taken].max() > 2 * rules.offset_window * largest[k] or np.ptp(x[taken]) == 0:
            continue
        design = np.vander(x[taken] / x[taken].max(), 3, increasing=True)
        solution, _, rank, _ = np.linalg.lstsq(design, y[taken], rcond=None)
        if rank < 3:
            continue
        residual = y[taken] - design @ solution
        variance = float(residual @ residual) / max(len(taken) - 3, 1)
        error = np.sqrt(variance) * np.linalg.norm(np.linalg.pinv(design)[0])
        result[:, k] = solution[0], error, abs(y[taken[-1]])
    return result[0], result[1], result[2]
