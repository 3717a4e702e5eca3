"""Switching voltages of closed loops: which loops switched, at which voltage, and by which rule that was found."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from calib.fitting.curves import flag_mask
from calib.sweeps.labels import openings
from calib.sweeps.rules import SweepRules

OPERATIONS = ("form", "set", "reset")
ABRUPT, STEEPEST, HALF_WAY = "abrupt", "steepest", "half-way"
RULES = {
    ABRUPT: "the first point after the jump of ln(I/V) (set, form), or after the largest |I| (reset)",
    STEEPEST: "the end of the step in which the branches of growing and of shrinking |V| approach each other fastest, "
    "the largest fall of |ln I_down - ln I_up| per ln |V|",
    HALF_WAY: "the last |V| at which the branches are half of their largest distance in ln I apart, interpolated",
}
MOSTLY = 0.9
"""Abrupt events are taken beside steepest ones that differ from them where they are this part of the events."""
WINDOW = 0.03
"""The fall is looked for over this part of a branch's points, and then at its largest step."""


@dataclass(frozen=True)
class Loops:
    """The loops of one population in which a device was to be formed, set or reset; all arrays are (loop,).

    Attributes
    ----------
    device, cycle : whose loop it is.
    operation : form, set or reset.
    polarity : +1 or -1.
    up, down : rows of the iv node, growing and shrinking |V|.
    switched : the branches differ in the way of the operation by more than the ratio `SweepRules.open_ratio`.
    abrupt, steepest, half_way : |V| [V] of the event by each rule (`RULES`), NaN where it finds none.
    voltage : |V| [V] of the event by the rule that was taken, NaN where the loop did not switch.
    resolution : [V] the event lies between `voltage - resolution` and `voltage`; 0 where it was interpolated.
    rule : the rule that was taken, '' where the loop did not switch.
    reach : largest |V| [V] of the loop.
    """

    device: np.ndarray
    cycle: np.ndarray
    operation: np.ndarray
    polarity: np.ndarray
    up: np.ndarray
    down: np.ndarray
    switched: np.ndarray
    abrupt: np.ndarray
    steepest: np.ndarray
    half_way: np.ndarray
    voltage: np.ndarray
    resolution: np.ndarray
    rule: np.ndarray
    reach: np.ndarray

    def __len__(self) -> int:
        return len(self.device)

    def of(self, operation: str) -> np.ndarray:
        """Return the indices of the loops of an operation."""
        return np.flatnonzero(self.operation == operation)


def find_loops(iv: xr.Dataset, rules: SweepRules | None = None) -> Loops:
    """Find every loop of a Measurement's iv node in which a device was to switch, and its switching voltage.

    Per operation one definition serves all events, so that a distribution is not a mixture of two: abrupt events are
    taken as they are, and gradual ones beside them at the steepest step, where both rules agree within one step of the
    voltage (median over the loops in which both find one), or where 90 % of the events are abrupt; else all are taken
    at the steepest step. The half-way voltage is kept beside it.
    """
    rules = rules or SweepRules()
    pairs = _pairs(iv)
    up, down = (np.array(part, dtype=np.int64) for part in (zip(*pairs, strict=True) if pairs else ((), ())))
    operation = iv["operation"].values.astype(str)[up]
    voltage = iv["voltage"].values
    offset = np.nan_to_num(iv["offset"].values) if "offset" in iv.coords else np.zeros(len(voltage))
    current = iv["current"].values - offset[:, None]
    floor = _floor(iv)
    plateau = flag_mask(iv, ("compliance", "saturated"))
    opened = np.zeros(len(up))
    for level in np.unique(floor[up]):  # the floor of a population is one number
        here = np.flatnonzero(floor[up] == level)
        some = [pairs[k] for k in here]
        opened[here] = openings(voltage, current, plateau, float(level), some, rules)
    sign = np.where(operation == "reset", -1.0, 1.0)
    switched = sign * np.nan_to_num(opened) > rules.open_log
    abrupt, resolution = _abrupt(iv, up)
    abrupt = np.where(switched, abrupt, np.nan)
    steepest, step, half_way = (np.full(len(up), np.nan) for _ in range(3))
    for k in np.flatnonzero(switched):
        branches = [_branch(voltage[row], current[row], float(floor[row])) for row in (up[k], down[k])]
        grid, gap = branch_distance(*branches[0], *branches[1], rising=sign[k] > 0)
        steepest[k], step[k] = steepest_voltage(grid, gap)
        half_way[k] = half_way_voltage(grid, gap)
    chosen, width, rule = _one_definition(operation, (abrupt, resolution), (steepest, step), half_way)
    with np.errstate(invalid="ignore"):
        reach = np.nanmax(np.abs(voltage[up]), axis=1) if len(up) else np.zeros(0)
    return Loops(
        device=iv["device"].values.astype(str)[up],
        cycle=iv["cycle"].values[up],
        operation=operation,
        polarity=np.where(iv["polarity"].values.astype(str)[up] == "negative", -1, 1),
        up=up,
        down=down,
        switched=switched,
        abrupt=abrupt,
        steepest=steepest,
        half_way=half_way,
        voltage=chosen,
        resolution=width,
        rule=rule,
        reach=reach,
    )


def branch_distance(
    x_up: np.ndarray, y_up: np.ndarray, x_down: np.ndarray, y_down: np.ndarray, *, rising: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Return the |V| [V] of the branch of growing |V|, and the distance in ln I of the other branch at the same |V|.

    The distance d = ln I_down - ln I_up (its negative where the current falls) is largest before the device switches
    and 0 where the loop turns.

    Parameters
    ----------
    x_up, x_down : (point,) |V| [V], ascending, > 0.
    y_up, y_down : (point,) ln(|I| / A).
    rising : whether the current rises when the device switches.
    """
    if len(x_up) < 3 or len(x_down) < 2:
        return np.zeros(0), np.zeros(0)
    if x_down[-1] < x_up[-1]:  # the sweep turned at the end of the other branch
        x_down, y_down = np.append(x_down, x_up[-1]), np.append(y_down, y_up[-1])
    inside = (x_up >= x_down[0]) & (x_up <= x_down[-1])
    gap = np.interp(x_up[inside], x_down, y_down) - y_up[inside]
    return x_up[inside], gap if rising else -gap


def steepest_voltage(grid: np.ndarray, gap: np.ndarray) -> tuple[float, float]:
    """Return the |V| [V] at the end of the step in which the distance falls fastest per ln |V|, and that step [V].

    The fall is first looked for over windows of 3 % of the points, so that noise of single points does not count.
    """
    width = max(1, round(WINDOW * len(grid)))
    if len(grid) < width + 2:
        return float("nan"), float("nan")
    logarithm = np.log(grid)
    fall = (gap[:-width] - gap[width:]) / (logarithm[width:] - logarithm[:-width])
    start = int(np.argmax(fall))
    steps = slice(start, start + width + 1)
    single = -np.diff(gap[steps]) / np.diff(logarithm[steps])
    if not fall[start] > 0:
        return float("nan"), float("nan")
    end = start + int(np.argmax(single)) + 1
    return float(grid[end]), float(grid[end] - grid[end - 1])


def half_way_voltage(grid: np.ndarray, gap: np.ndarray) -> float:
    """Return the last |V| [V] at which the distance is half of its largest (three-point median), NaN where nowhere."""
    if len(grid) < 3:
        return float("nan")
    middle = np.concatenate([gap[:1], np.median(np.stack([gap[:-2], gap[1:-1], gap[2:]]), axis=0), gap[-1:]])
    top = float(middle[:-1].max())
    above = np.flatnonzero(middle > top / 2)
    if top <= 0 or not len(above):
        return float("nan")
    last = int(above[-1])
    if last == len(grid) - 1:
        return float(grid[-1])
    high, low = gap[last], gap[last + 1]
    part = 0.5 if high <= low else float(np.clip((high - top / 2) / (high - low), 0.0, 1.0))
    return float(grid[last] + part * (grid[last + 1] - grid[last]))


def _pairs(iv: xr.Dataset) -> list[tuple[int, int]]:
    """Return the (up, down) rows of every loop of an operation that switches."""
    labels = [iv[name].values.tolist() for name in ("source", "population", "device", "cycle", "polarity", "operation")]
    direction = iv["direction"].values.astype(str)
    seen: dict[tuple, dict[str, int]] = {}
    for row, key in enumerate(zip(*labels, strict=True)):
        if key[-1] in OPERATIONS:
            seen.setdefault(key, {}).setdefault(str(direction[row]), row)
    return [(pair["up"], pair["down"]) for pair in seen.values() if len(pair) == 2]


def _floor(iv: xr.Dataset) -> np.ndarray:
    floor = iv["noise_floor"].values if "noise_floor" in iv.coords else np.zeros(iv.sizes["sweep"])
    return np.nan_to_num(floor)


def _branch(voltage: np.ndarray, current: np.ndarray, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ascending |V|, each once, and ln |I| of a branch; a current under the noise floor counts as the floor."""
    usable = np.isfinite(voltage) & np.isfinite(current) & (voltage != 0)
    x, index, count = np.unique(np.abs(voltage[usable]), return_inverse=True, return_counts=True)
    y = np.log(np.maximum(np.abs(current[usable]), max(floor, 1e-15)))
    return x, np.bincount(index, y, len(x)) / count


def _abrupt(iv: xr.Dataset, up: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return |V| of the events that the sweeps' labels hold, and the step before each."""
    found = np.abs(iv["switching_voltage"].values[up]) if "switching_voltage" in iv.coords else np.full(len(up), np.nan)
    step = np.zeros(len(up))
    for k in np.flatnonzero(np.isfinite(found)):
        x = np.abs(iv["voltage"].values[up[k]])
        lower = x[np.isfinite(x) & (x < found[k] - 1e-12)]
        step[k] = found[k] - lower.max() if len(lower) else found[k]
    return found, step


def _one_definition(
    operation: np.ndarray, abrupt: tuple[np.ndarray, ...], steepest: tuple[np.ndarray, ...], half_way: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the voltage, its resolution and the rule of every event; `abrupt` and `steepest` are (voltage, step)."""
    voltage, width = steepest[0].copy(), np.nan_to_num(steepest[1])
    rule = np.where(np.isfinite(voltage), STEEPEST, "").astype("<U8")
    coarse = ~np.isfinite(voltage) & np.isfinite(half_way)
    voltage[coarse], rule[coarse] = half_way[coarse], HALF_WAY
    for name in OPERATIONS:
        found = (operation == name) & np.isfinite(abrupt[0])
        both = found & np.isfinite(steepest[0])
        events = (operation == name) & (np.isfinite(voltage) | found)
        if not found.any():
            continue
        steps = np.abs(abrupt[0] - steepest[0])[both] / np.maximum(abrupt[1][both], 1e-12)
        if (both.any() and np.median(steps) <= 1 + 1e-6) or found.sum() >= MOSTLY * events.sum():
            voltage[found], width[found], rule[found] = abrupt[0][found], abrupt[1][found], ABRUPT
    return voltage, width, rule
