"""Lines of pulse trains: `(U2,0,0),tprog=0.0002,Gprog, 1e-6, 9e-7, ...`, each of its own length."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from calib.errors import ReadError
from calib.files import stem_of
from calib.measurement import padded, pulses_node
from calib.readers.base import ReadOptions
from calib.table_layout import number
from calib.tables import read_lines
from calib.units import QUANTITIES, to_si

_CELLS = re.compile(r"[,;\t](?![^(]*\))")
_KEY = re.compile(r"\s*([A-Za-z]\w*)\s*=\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*")
_QUANTITY = re.compile(r"([GRgr])(?:[a-z_]\w*)?|(conductance|resistance)\w*")
_ROLES = {
    "width": re.compile(r"t(?!emp)\w*|(?:pulse_?)?width|pw|duration", re.IGNORECASE),
    "read_voltage": re.compile(r"v_?(?:read|meas)\w*|read_?v\w*", re.IGNORECASE),
    "amplitude": re.compile(r"v\w*|amp\w*", re.IGNORECASE),
    "count": re.compile(r"n|count|num\w*", re.IGNORECASE),
    "temperature": re.compile(r"temp\w*", re.IGNORECASE),
    "cycle": re.compile(r"cyc\w*|run|loop", re.IGNORECASE),
}
_FEWEST = 3  # readings of a line


def is_pulse_line(line: str) -> bool:
    """Say whether a line has `key=value` text and then readings."""
    if "=" not in line:
        return False
    head, _, rest = line.rpartition("=")
    cells = _CELLS.split(rest[:2000])[1:]
    return bool(_KEY.fullmatch(f"{_CELLS.split(head)[-1]}={_CELLS.split(rest)[0]}")) and (
        sum(_is_number(cell) for cell in cells) >= _FEWEST
    )


def read_lines_of_pulses(path: Path, options: ReadOptions) -> tuple[xr.Dataset, list[str]]:
    """Return the node pulses of a file of such lines, and notes."""
    trains, notes, skipped = [], [], []
    for line in read_lines(path, options.skip_rows):
        train = _train(line)
        if train is not None:
            trains.append(train)
        elif line.strip():
            skipped.append(line.strip()[:40])
    if not trains:
        raise ReadError(f"'{path.name}' holds no line of key=value text and readings; expected one per train of pulses")
    if skipped:
        notes.append(
            f"'{path.name}': {len(skipped)} lines hold no readings and are left out (the first: '{skipped[0]}')"
        )
    quantities = {quantity for _, quantity, _, _, _ in trains}
    if len(quantities) > 1:
        raise ReadError(f"'{path.name}' mixes lines of conductance and of resistance; give them in files of their own")
    (quantity,) = quantities
    unit = options.units.get(quantity)
    rows = [np.asarray(to_si(values, unit, quantity)) if unit else values for _, _, _, _, values in trains]
    if quantity == "resistance":
        with np.errstate(divide="ignore"):
            rows = [np.where(row == 0, np.nan, 1 / row) for row in rows]
    if unit is None:
        taken = QUANTITIES[quantity].unit
        notes.append(
            f"'{path.name}' does not state the unit of its {quantity}; taken is {taken} "
            f"(--units {quantity}=UNIT overrides)"
        )
    if not any(np.isfinite(row).any() for row in rows):
        raise ReadError(f"'{path.name}': its lines hold no finite readings; expected conductances or resistances")
    variables: dict[str, NDArray[Any]] = {"conductance": padded(rows)[:, :, None]}
    shape = variables["conductance"].shape[:2]
    used: set[str] = set()
    for role in ("width", "read_voltage", "amplitude", "count"):
        numbers = np.array([_stated(keys, role, used) for _, _, keys, _, _ in trains])
        if np.isfinite(numbers).any():
            inside = np.arange(shape[1]) < np.array([len(row) for row in rows])[:, None]
            variables[role] = np.where(inside, numbers[:, None], np.nan)
    labels = _labels(path, trains, rows, options, used)
    unused = sorted({key for _, _, keys, _, _ in trains for key in keys} - used)
    if unused:
        notes.append(f"'{path.name}': what its lines state as {', '.join(unused)} is not used")
    words = sorted({word for _, _, _, word, _ in trains if word})
    notes.append(
        f"'{path.name}': {len(trains)} lines{f' ({chr(44).join(words[:6])})' if words else ''}, each one train; "
        "the polarity is potentiation where a line rises, depression where it falls"
    )
    return pulses_node(variables, labels), notes


_Train = tuple[str, str, dict[str, float], str, NDArray[np.float64]]


def _train(line: str) -> _Train | None:
    """Return device, quantity, keys, the word before the readings, and the readings; None for a line without any."""
    cells = [cell.strip() for cell in _CELLS.split(line)]
    while cells and not cells[-1]:
        cells.pop()
    device, quantity, word = "", "conductance", ""
    keys: dict[str, float] = {}
    begin = len(cells)
    for index, cell in enumerate(cells):
        key = _KEY.fullmatch(cell)
        if key:
            value = number(key[2])
            keys[key[1]] = np.nan if value is None else value
        elif _is_number(cell):
            begin = index
            break
        elif match := _QUANTITY.fullmatch(cell):
            quantity = "resistance" if (match[1] or match[2]).lower().startswith("r") else "conductance"
            word = cell
        elif cell and not device:
            device = cell.strip("()").replace(" ", "")
    values = [number(cell) for cell in cells[begin:]]
    readings = np.array([np.nan if value is None else value for value in values], dtype=np.float64)
    if len(readings) == 0 or not (keys or word or device):
        return None
    return device, quantity, keys, word, readings


def _labels(
    path: Path, trains: list[_Train], rows: list[NDArray[np.float64]], options: ReadOptions, used: set[str]
) -> dict[str, Any]:
    devices = [device or stem_of(path) for device, _, _, _, _ in trains]
    polarity = [_trend(row) for row in rows]
    stated = [_stated(keys, "cycle", used) for _, _, keys, _, _ in trains]
    seen: dict[tuple[str, str, str], int] = {}
    cycles = []
    for device, (_, _, _, word, _), number_ in zip(devices, trains, stated, strict=True):
        key = (device, word, "")
        seen[key] = seen.get(key, -1) + 1
        cycles.append(int(number_) if abs(number_) < 1e9 else seen[key])
    temperature = [_stated(keys, "temperature", used) for _, _, keys, _, _ in trains]
    if np.isfinite(options.temperature):
        temperature = [options.temperature] * len(trains)
    return {"device": devices, "cycle": cycles, "polarity": polarity, "temperature": temperature}


def _stated(keys: dict[str, float], role: str, used: set[str]) -> float:
    for key, value in keys.items():
        if _ROLES[role].fullmatch(key) and (role != "amplitude" or not _ROLES["read_voltage"].fullmatch(key)):
            used.add(key)
            return value
    return np.nan


def _trend(row: NDArray[np.float64]) -> str:
    finite = row[np.isfinite(row)]
    few = max(1, len(finite) // 10)
    if len(finite) < _FEWEST:
        return ""
    first, last = float(np.median(finite[:few])), float(np.median(finite[-few:]))
    return "potentiation" if last > first else "depression" if last < first else ""


def _is_number(cell: str) -> bool:
    value = number(cell)
    return value is not None and value == value
