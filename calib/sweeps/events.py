"""Points within a branch: switching events, spikes, duplicates."""

import numpy as np
from numpy.typing import NDArray

from calib.sweeps.rules import SweepRules

Array = NDArray[np.float64]


def switching(
    voltage: Array,
    current: Array,
    floor: float,
    operation: NDArray[np.str_],
    opens: NDArray[np.bool_],
    rules: SweepRules,
) -> NDArray[np.bool_]:
    """Flag the points from the first abrupt switching event on, (branch, point).

    Only branches of growing |V| of open loops (`opens`) are looked at. Set: the first step of ln(I/V) above
    ln(set_jump) and above set_jump_ratio times the median of the steps before. Reset: from where |I| is `reset_drop`
    below its largest value so far, beginning after that value.
    """
    result = np.zeros(voltage.shape, dtype=bool)
    smallest = rules.event_floor * floor if np.isfinite(floor) else 0.0
    for k in np.flatnonzero(opens):
        finite = np.isfinite(voltage[k])
        x, y = np.abs(voltage[k][finite]), np.abs(current[k][finite])
        start = _set_event(x, y, smallest, rules) if operation[k] == "set" else _reset_event(y, smallest, rules)
        if start is not None:
            result[k, start : len(x)] = True
    return result


def first_voltages(voltage: Array, switched: NDArray[np.bool_]) -> Array:
    """Return the voltage [V] at which each branch's switching event is first seen, NaN where there is none."""
    found = switched.any(axis=1)
    first = switched.argmax(axis=1)
    return np.where(found, voltage[np.arange(len(voltage)), first], np.nan)


def clipped(voltage: Array, current: Array, rules: SweepRules) -> NDArray[np.bool_]:
    """Flag runs of points whose |I| is exactly the largest of their branch, (branch, point); see `clip_points`."""
    result = np.zeros(voltage.shape, dtype=bool)
    size = np.abs(current)
    with np.errstate(invalid="ignore"):
        largest = np.nanmax(np.where(np.isfinite(size), size, 0.0), axis=1, initial=0.0)
        top = (size == largest[:, None]) & (largest > 0)[:, None]
    for k in np.flatnonzero(top.sum(axis=1) >= rules.clip_points):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], top[k].astype(np.int8), [0]])))
        reach = float(np.nanmax(np.abs(voltage[k])))
        for start, stop in zip(edges[::2], edges[1::2], strict=True):
            wide = abs(voltage[k, stop - 1] - voltage[k, start]) >= rules.plateau_extent * reach
            if stop - start >= rules.clip_points and wide:
                result[k, start:stop] = True
    return result


def spikes(voltage: Array, current: Array, floor: float, rules: SweepRules) -> NDArray[np.bool_]:
    """Flag isolated points that depart from the line between their neighbours, (branch, point)."""
    result = np.zeros(voltage.shape, dtype=bool)
    if voltage.shape[1] < 3:
        return result
    before, here, after = current[:, :-2], current[:, 1:-1], current[:, 2:]
    departure = np.abs(here - (before + after) / 2)
    difference = np.abs(after - before) / 2
    local = np.maximum(np.abs(before), np.abs(after))
    count = np.maximum(np.isfinite(current).sum(axis=1, keepdims=True), 1)
    mean = np.nansum(np.abs(current), axis=1, keepdims=True) / count
    noise = rules.spike_floor * (floor if np.isfinite(floor) else 0.0)
    with np.errstate(invalid="ignore"):
        found = (departure > rules.spike_local * local) & (departure > rules.spike_mean * mean)
        found &= (departure > rules.spike_isolation * difference) & (departure > noise)
    departure = np.where(found, departure, 0.0)
    padded = np.pad(departure, ((0, 0), (1, 1)))
    result[:, 1:-1] = found & (departure >= padded[:, :-2]) & (departure > padded[:, 2:])
    return result


def without(spiked: NDArray[np.bool_], current: Array) -> Array:
    """Return the current [A] with spikes replaced by the mean of their neighbours, (branch, point)."""
    result = current.copy()
    rows, points = np.nonzero(spiked)
    result[rows, points] = (current[rows, points - 1] + current[rows, points + 1]) / 2
    return result


def duplicates(voltage: Array, current: Array) -> NDArray[np.bool_]:
    """Flag points that repeat voltage and current of the point before exactly, (branch, point)."""
    result = np.zeros(voltage.shape, dtype=bool)
    result[:, 1:] = (np.diff(voltage, axis=1) == 0) & (np.diff(current, axis=1) == 0)
    return result


def _set_event(x: Array, y: Array, smallest: float, rules: SweepRules) -> int | None:
    usable = np.flatnonzero((x > 0) & (y > smallest))
    if len(usable) < 5:
        return None
    step = np.diff(np.log(y[usable] / x[usable]))
    for k in range(3, len(step)):
        usual = float(np.median(np.abs(step[max(0, k - rules.set_history) : k])))
        if step[k] > np.log(rules.set_jump) and step[k] > rules.set_jump_ratio * usual:
            return int(usable[k + 1])
    return None


def _reset_event(y: Array, smallest: float, rules: SweepRules) -> int | None:
    largest = np.maximum.accumulate(y)
    fallen = np.flatnonzero((y < (1 - rules.reset_drop) * largest) & (largest > smallest))
    if not len(fallen):
        return None
    return int(np.flatnonzero(y[: fallen[0]] == largest[fallen[0]])[-1]) + 1
