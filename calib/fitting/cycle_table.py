"""One row per device and cycle: resistances of both states and switching voltages, from sweeps or from reads."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from calib.fitting.conductance import STANDARD_READ_VOLTAGES, read_at
from calib.fitting.loops import Loops

FEATURES = {
    "ln_r_hrs": ("ln(R / Ohm) of the high-resistance state", "1"),
    "ln_r_lrs": ("ln(R / Ohm) of the low-resistance state", "1"),
    "v_set": ("magnitude of the set voltage", "V"),
    "v_reset": ("magnitude of the reset voltage", "V"),
}
SWITCHED_RATIO = 1.5
"""A device that was only read has switched in a cycle where its resistances differ by this factor."""
_CENSORED_SHARE = 0.1


@dataclass(frozen=True)
class CycleTable:
    """What was measured in every cycle of every device; rows are sorted by device, then cycle.

    Attributes
    ----------
    device, cycle : (row,).
    values : (row,) of each feature (`FEATURES`) that was measured; NaN where it was not.
    censored : (row,) of each feature: the value is a bound only, the true one is larger (R under the noise floor).
    switched : (row,) whether the device switched in that cycle.
    read_voltage : [V] at which the resistances were read, NaN where not known.
    resolution : [V] of each voltage: it lies within this step under its value; 0 where the steps are not all alike.
    """

    device: np.ndarray
    cycle: np.ndarray
    values: dict[str, np.ndarray]
    censored: dict[str, np.ndarray]
    switched: np.ndarray
    read_voltage: float
    resolution: dict[str, float]

    def __len__(self) -> int:
        return len(self.device)


def table_of_loops(iv: xr.Dataset, loops: Loops, reference_voltage: float) -> CycleTable:
    """Return the table of sweeps.

    The resistances are those of the set loop: R of the high-resistance state before the set event and of the
    low-resistance state after it (of the reset loop before and after, where no set loop was measured), read at the
    reference voltage, or at the next of the usual read voltages at which nine of ten currents are over the noise floor.
    """
    keys, row = _rows(loops.device, loops.cycle)
    count = len(keys[0])
    values: dict[str, np.ndarray] = {}
    censored: dict[str, np.ndarray] = {}
    main = "set" if (loops.operation == "set").any() else "reset"
    of_main = loops.of(main)
    before, after = (loops.up, loops.down) if main == "set" else (loops.down, loops.up)
    voltage = read_voltage_of(iv, before[of_main], abs(reference_voltage)) if len(of_main) else float("nan")
    for name, rows in (("ln_r_hrs", before[of_main]), ("ln_r_lrs", after[of_main])):
        measured, under = _ln_r(iv, rows, voltage)
        values[name], censored[name] = np.full(count, np.nan), np.zeros(count, dtype=bool)
        values[name][row[of_main]], censored[name][row[of_main]] = measured, under
    resolution = {}
    for operation in ("set", "reset"):
        here = loops.of(operation)
        if len(here):
            resolution[f"v_{operation}"] = _common_step(loops.resolution[here[loops.switched[here]]])
            values[f"v_{operation}"] = np.full(count, np.nan)
            values[f"v_{operation}"][row[here]] = loops.voltage[here]
            censored[f"v_{operation}"] = np.zeros(count, dtype=bool)
    switched = np.ones(count, dtype=bool)
    np.logical_and.at(switched, row, loops.switched)
    return CycleTable(keys[0], keys[1], values, censored, switched, voltage, resolution)


def table_of_reads(reads: xr.Dataset) -> CycleTable | None:
    """Return the table of conductance reads that name states and cycles, None where they name only one state.

    Several reads of a state in a cycle are represented by their median; values that are not positive are left out.
    """
    state = reads["state"].values.astype(str)
    cycle = reads["cycle"].values
    known = np.isin(state, ["lrs", "hrs"]) & (cycle >= 0)
    g = reads["conductance"].values
    usable = np.isfinite(g) & (g > 0)
    known &= usable.any(axis=1)
    if not {"lrs", "hrs"} <= set(state[known]):
        return None
    ln_r = np.full(len(g), np.nan)
    ln_r[known] = -np.log(np.nanmedian(np.where(usable, g, np.nan)[known], axis=1))
    rows = np.flatnonzero(known)
    keys, row = _rows(reads["device"].values.astype(str)[rows], cycle[rows])
    values = {}
    for name, of in (("ln_r_hrs", "hrs"), ("ln_r_lrs", "lrs")):
        values[name] = np.full(len(keys[0]), np.nan)
        here = state[rows] == of
        values[name][row[here]] = ln_r[rows][here]
    with np.errstate(invalid="ignore"):
        switched = values["ln_r_hrs"] - values["ln_r_lrs"] > np.log(SWITCHED_RATIO)
    voltage = float("nan")
    if "voltage" in reads:
        measured = np.abs(reads["voltage"].values)
        voltage = float(np.nanmedian(measured)) if np.isfinite(measured).any() else float("nan")
    censored = {name: np.zeros(len(keys[0]), dtype=bool) for name in values}
    return CycleTable(keys[0], keys[1], values, censored, switched, voltage, {})


def read_voltage_of(iv: xr.Dataset, rows: np.ndarray, reference_voltage: float) -> float:
    """Return the |V| [V] at which the resistances of sweeps are read.

    It is the reference voltage, unless a tenth of the currents is under the noise floor (or of the wrong sign) there;
    then the smallest usual read voltage above it that does better, else the best of them.
    """
    candidates = [reference_voltage, *(v for v in (*STANDARD_READ_VOLTAGES, 1.0) if v > reference_voltage * 1.001)]
    shares = []
    for voltage in candidates:
        ln_r, censored = _ln_r(iv, rows, voltage)
        usable = np.isfinite(ln_r) & ~censored
        if usable.mean() >= 1 - _CENSORED_SHARE:
            return float(voltage)
        shares.append(usable.mean())
    return float(candidates[int(np.argmax(shares))])


def _ln_r(iv: xr.Dataset, rows: np.ndarray, voltage: float) -> tuple[np.ndarray, np.ndarray]:
    """Return ln(R / Ohm) of sweeps at |V|, and where it is under the noise floor and R only known to be larger."""
    part = iv.isel(sweep=rows)
    sign = -1.0 if len(rows) and str(part["polarity"].values[0]) == "negative" else 1.0
    g, censored = read_at(part, sign * voltage)
    floor = np.nan_to_num(part["noise_floor"].values) if "noise_floor" in part.coords else np.zeros(len(rows))
    limit = floor / abs(voltage)
    low = np.isfinite(g) & (censored | (g < limit))
    g = np.where(low, limit, g)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(g > 0, -np.log(g), np.nan), low & (limit > 0)


def _common_step(step: np.ndarray) -> float:
    """Return the step [V] that nine of ten events have, 0 where there is none."""
    middle = float(np.median(step)) if len(step) else 0.0
    return middle if middle > 0 and (np.abs(step / middle - 1) < 0.05).mean() >= 0.9 else 0.0


def _rows(device: np.ndarray, cycle: np.ndarray) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Return the sorted (device, cycle) pairs, and the place of each entry among them."""
    _, number = np.unique(device, return_inverse=True)
    order = np.lexsort([cycle, number])
    sorted_device, sorted_cycle = device[order], cycle[order]
    first = np.ones(len(order), dtype=bool)
    first[1:] = (np.diff(number[order]) != 0) | (np.diff(sorted_cycle) != 0)
    row = np.empty(len(order), dtype=np.int64)
    row[order] = np.cumsum(first) - 1
    return (sorted_device[first], sorted_cycle[first]), row
