"""Operation and state of branches, from the currents: which loops are open, which polarity sets."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.sweeps.rules import SweepRules

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Labels:
    """Operation and state of every branch, with the counts that notes state.

    Attributes
    ----------
    operation, state : (branch,) text.
    opened : (branch,) ln of the loop's opening, ln(I down / I up); 0 where it is closed or opens against its polarity.
    set_polarity : +1 or -1 when one polarity sets and the other resets, 0 otherwise.
    """

    operation: NDArray[np.str_]
    state: NDArray[np.str_]
    opened: Array
    set_polarity: int
    n_open: int
    n_loops: int
    n_against: int


def openings(
    voltage: Array,
    current: Array,
    plateau: NDArray[np.bool_],
    floor: float,
    partners: Sequence[tuple[int, int]],
    rules: SweepRules,
) -> Array:
    """Return ln(|I| down / |I| up) of each loop: the median over voltages, 0 when the signs do not agree.

    Both ways are interpolated at the same voltages, in geometric progression within `open_window` of the smaller of
    their largest |V|, where neither is on a plateau and one is above the noise floor; under it a current counts as the
    floor.
    """
    result = np.full(len(partners), np.nan)
    smallest = floor if np.isfinite(floor) and floor > 0 else np.finfo(float).tiny
    for k, (up, down) in enumerate(partners):
        (x_up, y_up), (x_down, y_down) = (_sorted(voltage[row], current[row]) for row in (up, down))
        if min(len(x_up), len(x_down)) < 2:
            continue
        top = min(x_up[-1], x_down[-1])
        lowest = max(float(x[x > 0].min(initial=np.inf)) for x in (x_up, x_down))
        grid = np.geomspace(*rules.open_window, rules.open_points) * top
        off_plateau = min(float(np.abs(voltage[row][plateau[row]]).min(initial=np.inf)) for row in (up, down))
        grid = grid[(grid >= lowest) & (grid < off_plateau)]
        if len(grid) < 3:  # a coarse sweep: its own points
            own = np.union1d(x_up, x_down)
            grid = own[(own >= lowest) & (own <= top) & (own < off_plateau)]
        on_up, on_down = np.interp(grid, x_up, y_up), np.interp(grid, x_down, y_down)
        seen = np.maximum(on_up, on_down) > smallest
        if not seen.any():
            continue
        ratio = np.log(np.maximum(on_down[seen], smallest) / np.maximum(on_up[seen], smallest))
        middle = float(np.median(ratio))
        result[k] = middle if (np.sign(ratio) == np.sign(middle)).mean() >= rules.open_agreement else 0.0
    return result


def loops(trace: Integers, cycle: Integers, polarity: Integers, direction: Integers) -> list[tuple[int, int]]:
    """Return (up, down) pairs of branches of the same trace, cycle and polarity."""
    seen: dict[tuple[int, int, int], dict[int, int]] = {}
    for k, key in enumerate(zip(trace.tolist(), cycle.tolist(), polarity.tolist(), strict=True)):
        seen.setdefault(key, {}).setdefault(int(direction[k]), k)
    return [(pair[1], pair[-1]) for pair in seen.values() if len(pair) == 2]


def label(
    voltage: Array,
    current: Array,
    plateau: NDArray[np.bool_],
    device: NDArray[np.str_],
    polarity: NDArray[np.int64],
    direction: NDArray[np.int64],
    partners: Sequence[tuple[int, int]],
    floor: float,
    rules: SweepRules,
) -> Labels:
    """Label the branches of one population.

    A loop is open when |ln(I down / I up)| exceeds ln(open_ratio); it sets when the current rises and resets when it
    falls. Where most loops of a polarity are open, a closed one that goes as far (`attempt_reach` of their usual
    largest |V|) is an attempt that failed: it keeps the operation of its polarity, and the state that the operation
    should have found and left, so that devices which fail or are stuck stay in the statistics. A smaller loop, or a
    branch without a partner, of a device that switches elsewhere has the state to whose typical conductance it is
    nearer. What is left is read only.
    """
    size = len(voltage)
    opening = openings(voltage, current, plateau, floor, partners, rules)
    opened = np.full(size, np.nan)
    for (up, down), value in zip(partners, opening, strict=True):
        opened[[up, down]] = value
    is_open = np.abs(np.nan_to_num(opened)) > rules.open_log
    switches = np.isin(device, np.unique(device[is_open]))
    usual = {p: _usual(opened[(polarity == p) & is_open], rules) for p in (1, -1)}
    against = is_open & (np.sign(np.nan_to_num(opened)) * np.where(polarity > 0, usual[1], usual[-1]) < 0)
    is_open &= ~against
    sign = np.where(is_open, np.sign(np.nan_to_num(opened)), 0)
    operation = np.where(sign > 0, "set", np.where(sign < 0, "reset", "read")).astype("<U5")
    rises = sign > 0
    state = np.where(is_open, np.where((direction > 0) == rises, "hrs", "lrs"), "").astype("<U3")
    reach = np.array([np.nanmax(np.abs(row)) for row in voltage])
    attempt = np.zeros(size, dtype=bool)
    in_loop = np.isin(np.arange(size), np.array(partners, dtype=int).ravel())
    for p in (1, -1):
        here = polarity == p
        if usual[p] and is_open[here & in_loop].mean() > 0.5:
            enough = reach >= rules.attempt_reach * float(np.median(reach[here & is_open]))
            attempt |= here & in_loop & ~is_open & enough
            rows = here & attempt
            operation[rows] = "set" if usual[p] > 0 else "reset"
            state[rows] = np.where((direction[rows] > 0) == (usual[p] > 0), "hrs", "lrs")
    switching = switches & ~is_open & ~attempt
    for p in (1, -1):
        rows = np.flatnonzero(switching & (polarity == p))
        if usual[p] and len(rows):
            operation[rows] = "set" if usual[p] > 0 else "reset"
            state[rows] = _nearest(voltage, current, state, rows, np.flatnonzero(is_open & (polarity == p)), floor)
    finite = np.isfinite(opening)
    n_against = sum(bool(against[up]) for up, _ in partners)
    n_open = int((np.abs(opening[finite]) > rules.open_log).sum())
    set_polarity = usual[1] if usual[1] and usual[1] != usual[-1] else -usual[-1] if not usual[1] else 0
    return Labels(operation, state, np.where(is_open, opened, 0.0), set_polarity, n_open, len(partners), n_against)


def _usual(opening: Array, rules: SweepRules) -> int:
    """Return the sign of most loops of a polarity, 0 when there are none or too many of both."""
    if not len(opening):
        return 0
    share = float((opening > 0).mean())
    return 0 if rules.open_minority < share < 1 - rules.open_minority else 1 if share > 0.5 else -1


def _nearest(
    voltage: Array,
    current: Array,
    state: NDArray[np.str_],
    rows: NDArray[np.int64],
    known: NDArray[np.int64],
    floor: float,
) -> NDArray[np.str_]:
    """Return lrs or hrs for `rows`, whichever's median ln I at a common voltage is nearer."""
    smallest = floor if np.isfinite(floor) and floor > 0 else np.finfo(float).tiny
    reference = 0.3 * float(np.median([np.nanmax(np.abs(voltage[k])) for k in known]))
    logs = {}
    for k in (*known, *rows):
        x, y = _sorted(voltage[k], current[k])
        logs[int(k)] = float(np.log(max(np.interp(reference, x, y), smallest)))
    centres = {s: np.median([logs[int(k)] for k in known if state[k] == s]) for s in ("lrs", "hrs")}
    return np.array([min(centres, key=lambda s: abs(logs[int(k)] - centres[s])) for k in rows])


def _sorted(voltage: Array, current: Array) -> tuple[Array, Array]:
    finite = np.isfinite(voltage)
    x, y = np.abs(voltage[finite]), np.abs(current[finite])
    order = np.argsort(x, kind="stable")
    return x[order], y[order]
