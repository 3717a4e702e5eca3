"""Oscilloscope csv of Keysight, Rigol and Tektronix."""

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.columns import normalised
from calib.errors import ReadError, UnitError
from calib.files import stem_of
from calib.measurement import Measurement, Trace, build, extra_node, iv_node, merge
from calib.readers._table_reads import sentences
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import in_name, one_temperature
from calib.table_layout import number
from calib.tables import read_head, read_lines
from calib.units import is_unit, to_si

Array = NDArray[np.float64]

_TIME = re.compile(r"x axis|x|time(?: ?\(?s\)?)?|second|in s")
_CHANNEL = re.compile(
    r"(?:(?:ch|c|channel|math|m|ref|f) ?\d*|\d+|x ?\(ch ?\d+\)|ch ?\d+ ?\(?v\)?)(?: ?\(?(?:v|volt|a)\)?)?"
)
_TEKTRONIX = ("record length", "sample interval", "trigger point")
_HEAD = 100  # lines in which the row of names stands
_WORDS = {
    "volt": "V",
    "volts": "V",
    "v": "V",
    "ampere": "A",
    "amp": "A",
    "amps": "A",
    "a": "A",
    "second": "s",
    "s": "s",
}


@dataclass(frozen=True)
class _Record:
    """What an oscilloscope recorded: time [s] and channels by name, (point,) each, with their units 'V' or 'A'."""

    time: Array | None
    channels: Mapping[str, Array]
    units: Mapping[str, str]
    assumed: Sequence[str] = ()


class Oscilloscope(Reader):
    """Samples of two channels in volts against time, under names and a row of units.

    - Keysight: `x-axis,1,2` then `second,Volt,Volt`;
    - Rigol: `X,CH1,CH2,Start,Increment,` then `Sequence,Volt,Volt,-1.0E-03,1.0E-06`, the time being Start + n
      Increment; or `Time,X(CH1),X(CH2)` then `Second,Volt,Volt`;
    - Tektronix: `TIME,CH1,CH2` under lines of `key,value`, or columns `key,value,,time,volts` side by side.

    The first channel is the voltage V1 over device and series resistor, the second the voltage V2 over the resistor
    R (--series-resistance): I = V2 / R, and the device's voltage is V1 - V2. A channel in amperes is the current.
    --columns voltage=CH1,current=CH2 chooses other channels; those left go to the node extra. Without R the channels
    are kept in the node extra and R is asked for.
    """

    name = "oscilloscope"
    suffixes = (".csv",)
    name_map: Mapping[str, str] = {"voltage": _CHANNEL.pattern, "current": _CHANNEL.pattern, "time": _TIME.pattern}

    def sniff(self, path: Path) -> Sniff:
        lines = read_head(path, 16384)
        if _is_tektronix_columns(lines):
            return Sniff(0.9, "columns of key, value and samples, as Tektronix saves")
        at = _names_row(lines)
        if at is None:
            return Sniff(0.0, "no row of time and channels such as x-axis,1,2 or TIME,CH1,CH2")
        return Sniff(0.9, f"time and channels of an oscilloscope: {', '.join(_cells(lines[at])[:4])}")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        lines = read_lines(path, options.skip_rows)
        at = _names_row(lines)
        if _is_tektronix_columns(lines):
            record = _tektronix(path, lines)
        elif at is not None:
            record = _named(path, lines, at)
        else:
            raise ReadError(
                f"'{path.name}' has no row of time and channels; expected names such as x-axis,1,2 or TIME,CH1,CH2"
            )
        return _measurement(path, record, options)


def _cells(line: str) -> list[str]:
    return [cell.strip().strip('"').strip() for cell in re.split(r"[,;\t]", line)]


def _names_row(lines: Sequence[str]) -> int | None:
    """Return the index of the row of names: a time and at least one channel, besides Start and Increment."""
    for index, line in enumerate(lines[:_HEAD]):
        first, *rest = [re.sub(r"[-_]+", " ", cell.lower()).strip() for cell in _cells(line)]
        names = [cell for cell in rest if cell and cell not in ("start", "increment")]
        if _TIME.fullmatch(first) and names and all(_CHANNEL.fullmatch(name) for name in names):
            return index
    return None


def _is_tektronix_columns(lines: Sequence[str]) -> bool:
    keys = {_cells(line)[0].lower() for line in lines[:20]}
    wide = [line for line in lines[:5] if len(_cells(line)) >= 5 and number(_cells(line)[4]) is not None]
    return len(keys & set(_TEKTRONIX)) >= 2 and bool(wide)


def _named(path: Path, lines: Sequence[str], at: int) -> _Record:
    """Read the layouts with a row of names; a row of units may follow it."""
    names = _cells(lines[at])
    body = list(lines[at + 1 :])
    below = next((k for k, line in enumerate(body[:5]) if line.strip()), None)
    units: list[str] = []
    if below is not None and number(_cells(body[below])[0]) is None:
        units = _cells(body[below])
        body = body[below + 1 :]
    values = _samples(path, body, len(names))
    lowered = [name.lower() for name in names]
    time = values[:, 0]
    if {"start", "increment"} <= set(lowered):
        start, step = (number(_at(units, lowered.index(key))) for key in ("start", "increment"))
        time = np.full(len(values), np.nan) if start is None or step is None else start + step * time
    channels: dict[str, Array] = {}
    stated: dict[str, str] = {}
    assumed = []
    for index, name in enumerate(names[1:], start=1):
        if not name or lowered[index] in ("start", "increment"):
            continue
        channels[name] = values[:, index]
        match = re.search(r"\d ?\(?([VA])\)?$", name)  # CH1V, CH2(A)
        unit = _unit(_at(units, index)) or (match[1] if match else "")
        stated[name] = unit or "V"
        assumed += [] if unit else [name]
    return _Record(time, channels, stated, assumed)


def _tektronix(path: Path, lines: Sequence[str]) -> _Record:
    """Read columns `key,value,,time,volts,` of one channel, or of several side by side."""
    cells = [_cells(line) for line in lines[:_HEAD]]
    width = max(map(len, cells))
    values = _samples(path, lines, width)
    channels: dict[str, Array] = {}
    units: dict[str, str] = {}
    for base in range(0, width - 4, 6):
        keys = {_at(row, base).lower(): _at(row, base + 1) for row in cells if _at(row, base)}
        name = keys.get("source") or f"CH{len(channels) + 1}"
        while name in channels:
            name += "'"
        channels[name] = values[:, base + 4]
        units[name] = _unit(keys.get("vertical units", "V")) or "V"
    return _Record(values[:, 3], channels, units)


def _samples(path: Path, body: Sequence[str], width: int) -> Array:
    """Return the samples (point, column); words are NaN."""
    import pandas as pd

    text = "\n".join(body)
    delimiter = max(",;\t", key="\n".join(body[:100]).count)
    widest = max(width, *(line.count(delimiter) + 1 for line in body[:100])) if body else width
    try:
        frame: Any = pd.read_csv(
            io.StringIO(text), sep=delimiter, header=None, names=range(widest), index_col=False,
            skipinitialspace=True, low_memory=False, on_bad_lines="skip", quotechar='"',
        )  # fmt: skip
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        raise ReadError(f"'{path.name}' holds no samples below its names ({error}); save the record again") from error
    values = np.column_stack([np.asarray(pd.to_numeric(frame[k], errors="coerce"), float) for k in range(width)])
    if not np.isfinite(values).any():
        raise ReadError(f"'{path.name}' holds no samples below its names; save the record again")
    return np.where(np.isinf(values), np.nan, values)


def _unit(text: str) -> str:
    word = text.strip().strip("()").lower()
    if word in _WORDS:
        return _WORDS[word] if _WORDS[word] != "s" else ""
    return text.strip().strip("()") if word and re.search("[a-z]", word) and is_unit(text.strip().strip("()")) else ""


def _measurement(path: Path, record: _Record, options: ReadOptions) -> Measurement:
    """Turn two channels into voltage and current of the device; keep the others."""
    kelvin, conflict = one_temperature(in_name(path.name, "file's name"))
    notes: list[str] = []
    questions: list[str] = []
    if conflict and not np.isfinite(options.temperature):
        questions.append(f"'{path.name}' states more than one temperature: {conflict}; give --temperature KELVIN")
    if record.assumed:
        notes.append(f"'{path.name}': channels {', '.join(record.assumed)} state no unit and are taken in V")
    first, second = _chosen(path, record, options)
    parts: list[Measurement] = []
    trace = None
    if first and second:
        trace, said = _sweep(path, record, (first, second), options)
        (notes if trace is not None else questions).append(said)
    else:
        questions.append(
            f"'{path.name}' holds one channel ({', '.join(record.channels)}), which is no current-voltage curve; save "
            "the voltage and the current (or the voltage over a series resistor) in one file"
        )
    if trace is not None:
        temperature = options.temperature if np.isfinite(options.temperature) else kelvin
        parts.append(build({"iv": iv_node([replace(trace, temperature=temperature)])}, []))
    extra = _rest(path, record, {first, second} if trace is not None else set())
    tree = merge([*parts, *([extra] if extra is not None else [])])
    node = next(iter(tree.children.values()))
    node.attrs.update(sentences(node, questions, notes))
    return tree


def _sweep(path: Path, record: _Record, pair: tuple[str, str], options: ReadOptions) -> tuple[Trace | None, str]:
    """Return the trace of two channels and how it was made; None and the question when the resistor is not known."""
    (v1, _), (v2, kind) = (_si(path, record, name, options) for name in pair)
    ohm, device = options.series_resistance, stem_of(path)
    first, second = pair
    if kind == "current":
        drop = v2 * ohm if np.isfinite(ohm) else 0.0
        minus = f" - {second} {ohm:g} ohm" if np.isfinite(ohm) else ""
        note = f"'{path.name}': current = {second}, voltage of the device = {first}{minus}"
        return Trace(v1 - drop, v2, device, record.time, series_resistance=ohm), note
    if np.isfinite(ohm):
        note = f"'{path.name}': current = {second} / {ohm:g} ohm, voltage of the device = {first} - {second}"
        return Trace(v1 - v2, v2 / ohm, device, record.time, series_resistance=ohm), note
    return None, (
        f"'{path.name}' holds channels {first} and {second} in volts; if {second} is the voltage over a resistor in "
        "series with the device, give that resistor with --series-resistance OHM (and other channels with --columns "
        "voltage=CH1,current=CH2); until then the channels are kept in the node extra"
    )


def _chosen(path: Path, record: _Record, options: ReadOptions) -> tuple[str, str]:
    """Return the names of the channels of voltage and current: what the user says, else the first two."""
    names = list(record.channels)
    by_name = {normalised(name): name for name in names}
    chosen: dict[str, str] = {}
    for role in ("voltage", "current"):
        where = options.columns.get(role)
        if where is None:
            continue
        digits = str(where)
        name = by_name.get(normalised(digits))
        if name is None and re.fullmatch(r"\d+", digits) and 1 <= int(digits) <= len(names):
            name = names[int(digits) - 1]
        if name is None:
            raise ReadError(f"--columns {role}={where}: '{path.name}' has no such channel; it has {', '.join(names)}")
        chosen[role] = name
    left = [name for name in names if name not in chosen.values()]
    amperes = [name for name in left if _is_current(record.units[name])]
    if "current" not in chosen and amperes and len(names) > 1:
        chosen["current"] = amperes[0]
    left = [name for name in left if name not in chosen.values()]
    for role in ("voltage", "current"):
        if role not in chosen and left:
            chosen[role] = left.pop(0)
    return chosen.get("voltage", ""), chosen.get("current", "") if "voltage" in chosen else ""


def _is_current(unit: str) -> bool:
    try:
        to_si(1.0, unit, "current")
    except UnitError:
        return False
    return True


def _si(path: Path, record: _Record, name: str, options: ReadOptions) -> tuple[Array, str]:
    """Return a channel in volts or amperes and which of the two it is."""
    unit = record.units[name]
    kind = "current" if _is_current(unit) else "voltage"
    unit = options.units.get(kind, unit)
    try:
        return np.asarray(to_si(record.channels[name], unit, kind)), kind
    except UnitError as error:
        raise UnitError(f"channel {name} of '{path.name}': {error}; give --units {kind}=UNIT") from error


def _rest(path: Path, record: _Record, used: set[str]) -> Measurement | None:
    left = {name: values for name, values in record.channels.items() if name not in used}
    left = {name: values for name, values in left.items() if np.isfinite(values).any()}
    if not left:
        return None
    columns: dict[str, tuple[NDArray[Any], str, str]] = {}
    for name, values in left.items():
        key = re.sub(r"\W+", "_", name).strip("_") or "channel"
        columns[f"channel_{key}" if key[0].isdigit() else key] = (values, record.units[name], f"channel {name}")
    if record.time is not None:
        columns["time"] = (record.time, "s", "time")
    return build({"extra": extra_node(columns, path.name)}, [])


def _at(cells: Sequence[str], index: int) -> str:
    return cells[index] if 0 <= index < len(cells) else ""


member = Oscilloscope()
