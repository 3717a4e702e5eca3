"""Endurance and yield: resistances against the cycle number, when a device stops switching, how many devices switch."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from calib.fitting.cycle_table import CycleTable
from calib.fitting.loops import Loops

FAILED_CYCLES = 3
"""A device that does not switch in its last so many cycles (and did before) has failed at the first of them."""


@dataclass(frozen=True)
class Trend:
    """Slope of a quantity per decade of cycles, with its standard error and the degrees of freedom of that."""

    slope: float
    stderr: float
    freedom: float
    n_values: int
    n_devices: int

    @property
    def interval(self) -> tuple[float, float]:
        """Return the ends of the 95 % interval (Student's t)."""
        if not np.isfinite(self.stderr) or self.freedom < 1:
            return float("nan"), float("nan")
        half = float(stats.t.ppf(0.975, self.freedom)) * self.stderr
        return self.slope - half, self.slope + half


def trend(values: np.ndarray, device: np.ndarray, cycle: np.ndarray) -> Trend:
    """Return the slope of `values` per decade of cycles, log10(cycle + 1), devices compared with themselves.

    Least squares with an own intercept for each device. The standard error is grouped by device (sandwich with
    G / (G - 1)) where five devices or more changed their cycle; with fewer it is that of independent residuals,
    enlarged by sqrt((1 + r) / (1 - r)) for the correlation r > 0 of the residuals of neighbouring cycles.
    """
    usable = np.isfinite(values)
    y, device, cycle = values[usable], device[usable], cycle[usable]
    none = Trend(float("nan"), float("nan"), 0.0, len(y), len(np.unique(device)))
    if len(y) < 2:
        return none
    x = np.log10(np.maximum(cycle, 0) + 1.0)
    _, index, count = np.unique(device, return_inverse=True, return_counts=True)
    x = x - (np.bincount(index, x) / count)[index]
    y = y - (np.bincount(index, y) / count)[index]
    size = float(x @ x)
    groups = len(count)
    if size <= 1e-12:
        return none
    slope = float(x @ y) / size
    residual = y - slope * x
    moving = np.bincount(index, x * x, groups) > 1e-12
    if moving.sum() >= 5:
        score = np.bincount(index, x * residual, groups)[moving]
        g = int(moving.sum())
        return Trend(slope, float(np.sqrt(score @ score * g / (g - 1))) / size, g - 1.0, len(y), groups)
    freedom = len(y) - groups - 1
    if freedom < 1:
        return Trend(slope, float("nan"), 0.0, len(y), groups)
    error = float(np.sqrt(residual @ residual / freedom / size))
    r = _neighbours(residual, index, cycle)
    return Trend(slope, error * float(np.sqrt((1 + r) / (1 - r))), freedom * (1 - r) / (1 + r), len(y), groups)


def _neighbours(residual: np.ndarray, index: np.ndarray, cycle: np.ndarray) -> float:
    """Return the correlation of residuals of successive cycles of a device, 0 to 0.95."""
    order = np.lexsort([cycle, index])
    same = np.diff(index[order]) == 0
    total = float(residual @ residual)
    if not same.any() or total <= 0:
        return 0.0
    before, after = residual[order][:-1][same], residual[order][1:][same]
    r = float(before @ after) / total * len(residual) / same.sum()
    return float(np.clip(r, 0.0, 0.95))


def failures(table: CycleTable) -> tuple[np.ndarray, np.ndarray]:
    """Return for each device the cycle from which on it no longer switches (-1: it still does), and its last cycle.

    A device has failed when it switched before and did not in its last three cycles or more.
    """
    labels, index = np.unique(table.device, return_inverse=True)
    failed, last = np.full(len(labels), -1, dtype=np.int64), np.zeros(len(labels), dtype=np.int64)
    for k in range(len(labels)):
        rows = np.flatnonzero(index == k)
        last[k] = table.cycle[rows[-1]]
        switched = np.flatnonzero(table.switched[rows])
        if len(switched) and len(rows) - 1 - switched[-1] >= FAILED_CYCLES:
            failed[k] = table.cycle[rows[switched[-1] + 1]]
    return failed, last


def counts(table: CycleTable, loops: Loops | None) -> dict[str, int]:
    """Return how many devices there are, and how many formed, switched once, in all cycles, or never.

    In sweeps a device has switched when one of its set or reset loops is open, and in all cycles when all of them are.
    """
    if loops is None:
        device, done = table.device, table.switched
    else:
        some = np.flatnonzero(loops.operation != "form")
        device, done = loops.device[some], loops.switched[some]
    labels, index = np.unique(device, return_inverse=True)
    total, good = np.bincount(index, minlength=len(labels)), np.bincount(index, done, len(labels))
    found = {
        "n_devices": len(labels),
        "n_switched": int((good > 0).sum()),
        "n_all_cycles": int((good == total).sum()),
        "n_never": int((good == 0).sum()),
    }
    if loops is not None and (loops.operation == "form").any():
        rows = loops.of("form")
        names, which = np.unique(loops.device[rows], return_inverse=True)
        found |= {
            "n_form_devices": len(names),
            "n_formed": int((np.bincount(which, loops.switched[rows]) > 0).sum()),
        }
    return found


def window_closure(table: CycleTable, threshold: float) -> tuple[Trend, float, float, float]:
    """Return the trend of ln(R_hrs / R_lrs), its median and smallest value, and when it has fallen to ln(threshold).

    The last is the cycle where the straight line in log10(cycle + 1), through the centre of the data, is there:
    infinite when the window does not close, and an extrapolation when beyond the cycles that were measured.
    """
    window = table.values["ln_r_hrs"] - table.values["ln_r_lrs"]
    line = trend(window, table.device, table.cycle)
    usable = np.isfinite(window)
    if not usable.any():
        return line, float("nan"), float("nan"), float("nan")
    middle, centre = float(window[usable].mean()), float(np.log10(table.cycle[usable] + 1.0).mean())
    closes = float("inf")
    if np.isfinite(line.slope) and line.slope < 0:
        decades = centre + (np.log(threshold) - middle) / line.slope
        closes = float(10.0 ** min(decades, 300.0))
    elif not np.isfinite(line.slope):
        closes = float("nan")
    return line, float(np.median(window[usable])), float(window[usable].min()), closes
