"""Split sweeps into branches, label them, and flag their points with reasons.

`split` takes a Measurement whose sweeps are whole traces and returns one whose sweeps are monotonic branches of |V| of
one polarity, labelled with operation, state, direction, polarity, order and cycle. Nothing is dropped: what a fit may
not want is flagged, and counted in the notes.
"""

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from calib.measurement import FLAGS, Measurement, iv_dataset, notes_of
from calib.sweeps import events, levels, sentences
from calib.sweeps.branches import Branches, cut, cut_all
from calib.sweeps.labels import label, loops
from calib.sweeps.rules import SweepRules

__all__ = ["SweepRules", "cut", "cut_all", "split"]

_COPIED = ("device", "population", "compliance", "temperature", "series_resistance", "gate_voltage", "source")
_PLACE = ("row", "column", "die", "wafer")


def split(tree: Measurement, rules: SweepRules | None = None) -> Measurement:
    """Return `tree` with the sweeps of its node iv split into branches, labelled and flagged.

    A node iv that is split already, or a tree without one, is returned as it is.
    """
    if "iv" not in tree.children or tree.children["iv"].attrs.get("split"):
        return tree
    node = _split_node(tree.children["iv"].to_dataset(inherit=False), rules or SweepRules())
    others = {f"/{name}": child.to_dataset(inherit=False) for name, child in tree.children.items() if name != "iv"}
    root = xr.Dataset(attrs=tree.attrs)
    return xr.DataTree.from_dict({"/": root, "/iv": node, **others})


def _split_node(node: xr.Dataset, rules: SweepRules) -> xr.Dataset:
    voltage = node["voltage"].values
    counts = np.isfinite(voltage).sum(axis=1)
    branches = cut_all([row[:count] for row, count in zip(voltage, counts, strict=True)], rules)
    at = (branches.trace[:, None], np.maximum(branches.index, 0))
    real = branches.index >= 0
    names = [name for name in ("voltage", "current", "time") if name in node]
    arrays = {name: np.where(real, node[name].values[at], np.nan) for name in names}
    arrays["flag"] = np.zeros(real.shape, dtype=np.int32)
    labels: dict[str, Any] = {
        name: node[name].values[branches.trace].copy() for name in (*_COPIED, *_PLACE) if name in node.coords
    }
    stated = node["state"].values[branches.trace]
    size = len(branches.trace)
    labels |= {name: np.full(size, "", dtype="<U8") for name in ("operation", "state")}
    labels |= {"noise_floor": np.full(size, np.nan), "offset": np.zeros(size), "offset_stderr": np.full(size, np.nan)}
    labels["switching_voltage"] = np.full(size, np.nan)
    labels |= {"cycle": _cycle_numbers(node, branches), "order": branches.order}
    labels["direction"] = np.where(branches.direction > 0, "up", "down")
    labels["polarity"] = np.where(branches.polarity > 0, "positive", "negative")
    notes = [f"{node.sizes['sweep']} traces are split into {size} branches of one direction and polarity"]
    for source in np.unique(labels["source"]):
        for population in np.unique(labels["population"][labels["source"] == source]):
            rows = np.flatnonzero((labels["source"] == source) & (labels["population"] == population))
            if rules.uses("sign_restored"):
                _restore_sign(arrays, rows, str(population), notes, rules)
    for population in np.unique(labels["population"]):
        rows = np.flatnonzero(labels["population"] == population)
        _one_population(arrays, labels, branches, rows, str(population), notes, rules)
    labels["state"] = np.where(stated != "", stated, labels["state"])
    arrays["flag"] = np.where(real, arrays["flag"], 0).astype(np.int32)
    result = iv_dataset(arrays, labels, notes_of(node, "questions"), [*notes_of(node), *notes])
    result.attrs |= {key: value for key, value in node.attrs.items() if key not in result.attrs}
    result.attrs["split"] = 1
    return result


def _one_population(
    arrays: dict[str, NDArray[Any]],
    labels: dict[str, Any],
    branches: Branches,
    rows: NDArray[np.int64],
    population: str,
    notes: list[str],
    rules: SweepRules,
) -> None:
    """Find the levels, labels and flags of one population; `arrays` and `labels` are filled in at `rows`."""
    voltage, current = arrays["voltage"][rows], arrays["current"][rows]
    flags = arrays["flag"][rows]
    who = f"population '{population}': " if population else ""
    restored = bool((flags & FLAGS["sign_restored"]).any())
    offset = levels.Offset(np.zeros(len(rows)), np.full(len(rows), np.nan))
    if not restored and rules.uses("offset"):  # an absolute value hides the sign of an offset
        offset = levels.find_offset(voltage, current, rules)
    corrected = current - offset.value[:, None]
    polarity, direction = branches.polarity[rows], branches.direction[rows]
    partners = loops(branches.trace[rows], branches.cycle[rows], polarity, direction)
    level, on_top = labels["compliance"][rows], np.zeros(voltage.shape, dtype=bool)
    if rules.uses("compliance"):
        level, on_top = _compliance(voltage, corrected, level, polarity, rules)
    devices = labels["device"][rows]
    floor = levels.noise_floor(voltage, corrected, rules)
    found = label(voltage, corrected, on_top, devices, polarity, direction, partners, floor, rules)
    if (found.state == "hrs").any():
        quiet = found.state == "hrs"
        floor = levels.noise_floor(voltage[quiet], corrected[quiet], rules)
        found = label(voltage, corrected, on_top, devices, polarity, direction, partners, floor, rules)
    opens = (found.opened != 0) & (direction > 0)
    switched, spiked = _events(voltage, corrected, floor, found.operation, opens, on_top, rules)
    clipped = events.clipped(voltage, current, rules) & ~on_top
    reads_only = not (found.operation != "read").any() and not np.isfinite(labels["compliance"][rows]).any()
    with np.errstate(invalid="ignore"):
        below = np.abs(corrected) < floor
    for name, mask in {
        "compliance": on_top & (not reads_only),
        "saturated": clipped | (on_top & reads_only),
        "switching": switched,
        "spike": spiked,
        "below_floor": below,
        "duplicate": events.duplicates(voltage, current),
        "offset": np.broadcast_to((offset.value != 0)[:, None], current.shape),
    }.items():
        mask = mask & rules.uses(name)
        flags = np.where(mask & np.isfinite(current), flags | np.int32(FLAGS[name]), flags)
    arrays["flag"][rows] = flags
    labels["operation"][rows], labels["state"][rows] = found.operation, found.state
    labels["noise_floor"][rows] = floor
    labels["offset"][rows], labels["offset_stderr"][rows] = offset.value, offset.stderr
    labels["switching_voltage"][rows] = events.first_voltages(voltage, switched)
    if not reads_only:
        labels["compliance"][rows] = level
    said = sentences.levels_and_loops(found, floor, offset, level, polarity, reads_only)
    said += sentences.hysteresis(found, polarity, direction, partners)
    said += sentences.events(found.operation, labels["switching_voltage"][rows])
    said += sentences.flagged(flags, rules)
    notes += [who + text for text in said]


def _events(
    voltage: NDArray[np.float64],
    current: NDArray[np.float64],
    floor: float,
    operation: NDArray[np.str_],
    opens: NDArray[np.bool_],
    on_top: NDArray[np.bool_],
    rules: SweepRules,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the points from switching events on and the spikes; an event is looked for as if no spike were there."""
    spiked = events.spikes(voltage, current, floor, rules) & ~on_top
    if not rules.uses("switching"):
        return np.zeros(voltage.shape, dtype=bool), spiked
    repaired = events.without(spiked, current)
    switched = events.switching(voltage, repaired, floor, operation, opens, rules)
    return switched, spiked & ~switched


def _restore_sign(
    arrays: dict[str, NDArray[Any]], rows: NDArray[np.int64], population: str, notes: list[str], rules: SweepRules
) -> None:
    voltage, current = arrays["voltage"][rows], arrays["current"][rows]
    if not levels.recorded_absolute(voltage, current, rules):
        return
    turned = (voltage < 0) & (current > 0)
    arrays["current"][rows] = np.where(turned, -current, current)
    arrays["flag"][rows] |= np.where(turned, np.int32(FLAGS["sign_restored"]), np.int32(0))
    who = f"population '{population}': " if population else ""
    notes.append(
        f"{who}|I| was recorded at negative voltage; its sign is restored at {int(turned.sum())} points "
        "(flag sign_restored)"
    )


def _compliance(
    voltage: NDArray[np.float64],
    current: NDArray[np.float64],
    stated: NDArray[np.float64],
    polarity: NDArray[np.int64],
    rules: SweepRules,
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the compliance [A] of each branch (found, else stated) and the points that lie on it."""
    level = stated.copy()
    points = np.zeros(voltage.shape, dtype=bool)
    own = levels.plateaus(voltage, current, rules)
    for sign in (1, -1):
        rows = np.flatnonzero(polarity == sign)
        known = own[rows][np.isfinite(own[rows])]
        if not len(rows) or len(known) < max(1.0, rules.plateau_share * len(rows)):
            given = stated[rows]
            reached = np.abs(current[rows]) >= given[:, None] * (1 - rules.plateau_tolerance)
            points[rows] = np.where(np.isfinite(given)[:, None], reached, False)
            continue
        shared = float(np.median(known))
        level[rows], points[rows] = levels.on_plateau(current[rows], own[rows], shared, rules)
    return level, points


def _cycle_numbers(node: xr.Dataset, branches: Branches) -> NDArray[np.int64]:
    """Return the cycle of each branch: as stated, else counted per device in the order of its traces."""
    stated = node["cycle"].values[branches.trace]
    device = node["device"].values
    offset = np.zeros(node.sizes["sweep"], dtype=np.int64)
    count = np.bincount(branches.trace, minlength=len(offset))
    last = np.zeros(len(offset), dtype=np.int64)
    np.maximum.at(last, branches.trace, branches.cycle)
    reached: dict[tuple[str, str], int] = {}
    for trace, key in enumerate(zip(node["population"].values.tolist(), device.tolist(), strict=True)):
        offset[trace] = reached.get(key, 0)
        reached[key] = offset[trace] + (int(last[trace]) + 1 if count[trace] else 0)
    return np.where(stated >= 0, stated, offset[branches.trace] + branches.cycle)
