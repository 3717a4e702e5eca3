"""What the columns of a table mean: names, overrides and units."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.errors import ReadError, UnitError
from calib.units import QUANTITIES, factor, is_unit, parse_header, to_si

_PORT = r"(?:(?:ch|channel|smu|port|dut|te|top electrode|anode|a) ?\d* ?)?"
NAME_MAP: dict[str, str] = {
    "voltage": rf"{_PORT}(?:v|u|voltage|volts?|bias|source|vin|vd|drive|applied voltage|source voltage"
    r"|v ?(?:meas|measured|applied|app|set|force|bias|cell|mem|dut)|voltage (?:measured|applied|source|set|in)"
    r"|(?:measured|applied|bias|set|device|cell|drive) (?:v|voltage|bias)|potential|av|spannung) ?\d*",
    "absolute current": r"abs(?:olute)? ?(?:i|current|curr)(?: ?\d*)|\|(?:i|current)\d*\|(?: ?\d*)"
    r"|(?:i|current) abs|abs\(i\d*\)",
    "current": rf"{_PORT}(?:i|current|curr|amps?|i ?(?:meas|measured|cell|mem|dut)|current measured"
    r"|(?:measured|device|cell) (?:i|current)|ai|strom) ?\d*",
    "time": r"(?:(?:smu|ch) ?\d* ?)?"
    r"(?:t|time|times|timestamp|time stamp|elapsed|elapsed time|test time|seconds|zeit) ?\d*",
    "resistance": rf"{_PORT}(?:r|res|resistance|resist) ?\d*",
    "conductance": rf"{_PORT}(?:g|cond|conductance) ?\d*",
    "device": r"(?:device|dev|cell|dut|addr|address|memristor)(?: (?:id|no|number|name|index|address))?",
    "row": r"(?:row|wl|word ?line)",
    "column": r"(?:col|column|bl|bit ?line)",
    "die": r"(?:die|chip)(?: (?:id|no|number))?",
    "wafer": r"wafer(?: (?:id|no|number))?",
    "cycle": r"(?:cycle|cyc|cycles|loop|sweep|repeat|repetition|run|iteration|cycle (?:no|number|index|id)|count)",
    "state": r"(?:state|resistance state)",
    "level": r"(?:level|lvl|range|level (?:no|number|index))",
    "temperature": r"(?:temp|temperature|t sample|chuck temperature|chuck temp)",
    "compliance": r"(?:compliance|compliance current|current compliance|cc|icc|i ?comp|i ?cc|compl)",
    "series_resistance": r"(?:rs|r ?s|series resistance|r ?series)",
    "gate_voltage": r"(?:vg|vgs|v ?gate|gate ?v|gate voltage|gate bias|gate)",
    "target": r"(?:target|target (?:g|conductance)|g target)",
}
"""Regular expressions over normalised header names, by canonical name."""

STATE_COLUMNS = tuple(f"{q}_{s}" for q in ("resistance", "conductance") for s in ("lrs", "hrs"))
_STATE = re.compile(r"(?:(r|resistance|g|conductance) ?(lrs|hrs|on|off)|(lrs|hrs) ?(r|resistance|g|conductance))")
_LABEL = r"(?:(?:d|dev|device|cell|m|mem|memristor|sample|cycle|cyc|run|loop) ?|#)\d+"
_TRANSISTOR = re.compile(r"(?:drain|source|src|gate|bulk) ?(?:v|i|voltage|current) ?\d*|[iv] ?(?:ds|gs|d|g)|g ?m")
CANONICAL = (*(name for name in NAME_MAP if name != "absolute current"), *STATE_COLUMNS)
TEXT_ROLES = frozenset({"device", "row", "column", "die", "wafer", "cycle", "state", "level"})


@dataclass(frozen=True)
class Column:
    """One column of a table and what it is taken for.

    Attributes
    ----------
    index, header : position from 0 and the header text as written ('' without a header).
    role : canonical name; 'absolute current'; 'transistor'; or None when not recognised.
    unit : the unit stated in the header, under it, or by the user; None when none is.
    """

    index: int
    header: str
    role: str | None
    unit: str | None

    @property
    def shown(self) -> str:
        """Return how messages name the column."""
        return f"'{self.header}'" if self.header else str(self.index)


def recognise(
    header: str, unit_below: str | None = None, name_map: Mapping[str, str] = NAME_MAP
) -> tuple[str | None, str | None]:
    """Return the canonical name and the unit of a header text; None for what it does not say.

    A unit stands in brackets, after a separator ('current_uA', 'Voltage, V', 'I/uA'), or in the row below.
    """
    name, unit = parse_header(header)
    unit = unit or (unit_below if unit_below and is_unit(unit_below) else None)
    role = _role(name, unit, name_map)
    if role is None and unit is None:
        stem, separator, tail = re.sub(r"[,/_ ]+(?=[^,/_ ]+$)", "\0", name.strip()).partition("\0")
        if separator and re.search("[A-Za-zΩ]", tail) and not tail.isdigit() and is_unit(tail):
            candidate = _role(stem, tail, name_map)
            if candidate is not None and _fits(candidate, tail):
                return candidate, tail
    return role, unit


def assign(
    path_name: str,
    names: Sequence[str],
    units_below: Sequence[str],
    width: int,
    columns: Mapping[str, int | str],
    units: Mapping[str, str],
    name_map: Mapping[str, str] = NAME_MAP,
) -> list[Column]:
    """Say what each of `width` columns is: what the user says first, then what its name says by `name_map`.

    Raises
    ------
    ReadError
        When an override names no column, or two name the same.
    """
    headers = list(names) or [""] * width
    below = [*units_below, *[""] * len(headers)][: len(headers)]
    given = _overrides(path_name, headers, columns, CANONICAL if name_map is NAME_MAP else tuple(name_map))
    result = []
    for index, (header, under) in enumerate(zip(headers, below, strict=True)):
        role, unit = recognise(header, under, name_map) if header else (None, None)
        if index in given:
            role = given[index]
        elif role in given.values():
            role = None
        result.append(Column(index, header, role, units.get(role or "", unit)))
    return result


def convert(path_name: str, values: NDArray[np.float64], column: Column, quantity: str) -> NDArray[np.float64]:
    """Return the values of a column in the SI unit of `quantity`.

    Raises
    ------
    UnitError
        When the unit cannot be one of that quantity; the message names the file and the column.
    """
    if column.unit is None or column.unit == QUANTITIES[quantity].unit:
        return values
    try:
        if quantity == "temperature":
            return np.asarray(to_si(values, column.unit, quantity))
        scale = factor(column.unit, quantity)
    except UnitError as error:
        raise UnitError(f"column {column.shown} of '{path_name}': {error}; give --units {quantity}=UNIT") from error
    return np.asarray(to_si(values, column.unit, quantity)) if scale != 1.0 else values


def guess(values: NDArray[np.float64]) -> str:
    """Return an example of --columns for a table without names, from the sizes of its numbers."""
    device = current = voltage = resistance = None
    for index, column in enumerate(values.T):
        numbers = column[np.isfinite(column)]
        largest = float(np.abs(numbers).max(initial=0.0))
        whole = bool(len(numbers)) and not (numbers % 1).any() and numbers.min() >= 0
        if whole and largest > 1 and np.ptp(numbers) > 0:
            device = index if device is None else device
        elif 0 < largest < 0.05:
            current = index if current is None else current
        elif 0.05 <= largest <= 20:
            voltage = index if voltage is None else voltage
        elif largest > 20 and not whole:
            resistance = index if resistance is None else resistance
    if voltage is None or current is None:
        if resistance is not None:
            found = {"device": device, "resistance": resistance}
        else:
            found = {"voltage": 0, "current": 1} if values.shape[1] == 2 else {"device": 0, "voltage": 1, "current": 2}
            found = found if values.shape[1] > 1 else {"resistance": 0}
    else:
        found = {"device": device, "voltage": voltage, "current": current}
    return "--columns " + ",".join(f"{role}={index}" for role, index in found.items() if index is not None)


def pair_label(header: str) -> str:
    """Return the label of a device or cycle in a name such as 'V_D3' or 'Cycle 2 Current (A)', '' for none."""
    text = normalised(parse_header(header)[0])
    match = re.fullmatch(rf"({_LABEL}) .+|.+ ({_LABEL})", text)
    return (match[1] or match[2]) if match else ""


def is_transistor(columns: Sequence[Column]) -> bool:
    """Say whether the names are those of a transistor's terminals."""
    found = [c for c in columns if c.role == "transistor"]
    return len(found) >= 2


def normalised(name: str) -> str:
    """Return a header name in lower case, separators as single spaces and trailing indices removed."""
    text = re.sub(r"\[[^\]]*\]", "", name)
    text = re.sub(r"\(\d+\)$", "", text.strip())
    text = re.sub(r"[_.\-:/]+", " ", text.strip().strip('"').lower())
    return re.sub(r"\s+", " ", text).strip()


def _role(name: str, unit: str | None, name_map: Mapping[str, str] = NAME_MAP) -> str | None:
    text = normalised(name)
    for candidate in (text, re.sub(r"(?<=[a-z])(?= ?\d+$) ?\d+$", "", text)):
        state = _STATE.fullmatch(candidate) if name_map is NAME_MAP else None
        if state:
            quantity = (state[1] or state[4])[0]
            label = {"on": "lrs", "off": "hrs"}.get(state[2] or state[3], state[2] or state[3])
            return f"{'resistance' if quantity == 'r' else 'conductance'}_{label}"
        matches = [role for role, pattern in name_map.items() if re.fullmatch(pattern, candidate)]
        if unit is not None and (fitting := [role for role in matches if _fits(role, unit)]):
            return fitting[0]
        if unit is not None and candidate == "t" and _fits("temperature", unit):
            return "temperature"
        if matches:
            return matches[0]
    if name_map is NAME_MAP and _TRANSISTOR.fullmatch(text):
        return "transistor"
    bare = re.sub(rf"^{_LABEL} | {_LABEL}$", "", text)
    return _role(bare, unit, name_map) if bare != text else None


def _fits(role: str, unit: str) -> bool:
    quantity = "current" if role == "absolute current" else role
    if quantity not in QUANTITIES:
        return False
    try:
        to_si(1.0, unit, quantity)
    except UnitError:
        return False
    return True


def _overrides(
    path_name: str, headers: Sequence[str], columns: Mapping[str, int | str], known: Sequence[str]
) -> dict[int, str]:
    given: dict[int, str] = {}
    shown = ", ".join(f"{k} '{h}'" if h else str(k) for k, h in enumerate(headers[:12]))
    for role, where in columns.items():
        if role not in known:
            raise ReadError(f"--columns {role}={where}: '{role}' is no kind of column; known are {', '.join(known)}")
        index = _index_of(headers, where)
        if index is None:
            raise ReadError(f"--columns {role}={where}: '{path_name}' has no such column; it has {shown}")
        if index in given:
            raise ReadError(
                f"--columns gives column {where} both as {given[index]} and as {role}; give each column once"
            )
        given[index] = role
    return given


def _index_of(headers: Sequence[str], where: int | str) -> int | None:
    if isinstance(where, int) or re.fullmatch(r"-?\d+", where):
        index = int(where) + (len(headers) if int(where) < 0 else 0)
        return index if 0 <= index < len(headers) else None
    wanted = where.strip().lower()
    for index, header in enumerate(headers):
        if wanted in (header.lower(), normalised(header), normalised(parse_header(header)[0])):
            return index
    return None
