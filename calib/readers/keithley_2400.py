"""Keithley 2400-type SourceMeters: strings of readings, and buffers saved as csv (also by KickStart)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.columns import NAME_MAP, normalised
from calib.errors import ReadError, UnitError
from calib.files import stem_of
from calib.measurement import Measurement, build, merge, reads_node
from calib.readers._terminals import OVERFLOW, Run, Terminal, measurement_of
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import collect, in_name, one_temperature
from calib.table_layout import number, split_line
from calib.tables import read_head, read_lines
from calib.units import to_si

Array = NDArray[np.float64]

_NUMBER = r"[+-]\d(?:\.\d+)?[Ee][+-]\d{2,3}"
_STRING = re.compile(rf"\s*{_NUMBER}(?:[,;\t]\s*{_NUMBER})*\s*,?\s*")
_ELEMENTS = ("VOLT", "CURR", "RES", "TIME", "STAT")
_COMPLIANCE = 8  # bit 3 of the status word (2400 Series User's Manual, :FORMat:ELEMents, status information)
_AGREES = 0.05  # currents in compliance agree within this part of their median
_SOURCE = re.compile(r"source value|source|value|src|source reading")
_READING = re.compile(r"reading|measurement|measure|reading value|measured value")
_UNIT = re.compile(r"(?:reading |source |measurement |value )?units?")
_TIME = re.compile(r"relative time|rel time|elapsed time|seconds|time|relative timestamp")
_LIMIT = re.compile(r"(?:source |current )?limit(?: level| value)?|compliance|current compliance", re.IGNORECASE)


class Keithley2400(Reader):
    """Rows of `voltage,current,resistance,time,status` without names, or a buffer with Reading and Source Value.

    The string `+1.0E-01,+2.0E-06,+9.91E+37,+1.5E+00,+2.2E+04` has the elements VOLT, CURR, RES, TIME, STAT, in SI
    units; a first line may name them; readings may stand in one line or one per line. +9.9e37 and +9.91e37 are
    overflow and not-a-number. Bit 3 of the status says that the source was in compliance; its current is kept as such.

    A saved buffer is a preamble of `key,value` lines, a row of names (`Index,Reading,Unit,...,Source Value,Source
    Unit,Relative Time`) and its rows; the units in the rows say which of the two is the voltage.
    """

    name = "keithley-2400"
    suffixes = (".csv", ".txt", ".dat")
    name_map: Mapping[str, str] = NAME_MAP

    def sniff(self, path: Path) -> Sniff:
        lines = [line for line in read_head(path) if line.strip()]
        if not lines:
            return Sniff(0.0, "no text")
        if _is_buffer(lines):
            return Sniff(0.9, "a buffer of readings with their source values")
        body = lines[1:] if _names_elements(lines[0]) else lines
        strings = body[:20]
        if strings and all(_STRING.fullmatch(line) for line in strings):
            values = _strings(strings, 5 if body is lines else len(_cells(lines[0])))
            if values is not None and (body is not lines or _plausible(values)):
                return Sniff(0.9, "strings of voltage, current, resistance, time, status")
        return Sniff(0.0, "neither strings of five readings nor a buffer with source values")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        lines = [line for line in read_lines(path, options.skip_rows) if line.strip()]
        if _is_buffer(lines[:300]):
            return _buffer(path, lines, options)
        elements: Sequence[str] = _ELEMENTS
        if _names_elements(lines[0]):
            elements = [cell.upper() for cell in _cells(lines[0])]
            lines = lines[1:]
        values = _strings(lines, len(elements))
        if values is None or not len(values):
            raise ReadError(
                f"'{path.name}' holds no whole readings of {len(elements)} values ({', '.join(elements)}); name its "
                "columns with --reader table --columns voltage=0,current=1"
            )
        return _readings(path, dict(zip(elements, values.T, strict=True)), options)


@dataclass(frozen=True)
class _Named:
    """Where the columns of a saved buffer are; -1 for none."""

    row: int
    reading: int
    reading_unit: int
    source: int
    source_unit: int
    time: int


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"[,;\t]", line) if cell.strip()]


def _names_elements(line: str) -> bool:
    cells = [cell.upper() for cell in _cells(line)]
    return len(cells) >= 2 and set(cells) <= set(_ELEMENTS) and len(set(cells)) == len(cells)


def _strings(lines: Sequence[str], width: int) -> Array | None:
    """Return readings (reading, element); None when the values do not make whole readings or a cell is no number."""
    counts = {len(_cells(line)) for line in lines[:1]}
    values = [number(cell) for line in lines for cell in _cells(line)]
    extra = len(values) % width
    if any(value is None for value in values) or not counts or next(iter(counts)) % width:
        return None
    whole = [np.nan if value is None else value for value in values[: len(values) - extra]]
    return np.array(whole, dtype=np.float64).reshape(-1, width)


def _plausible(values: Array) -> bool:
    """Say whether five values are a reading: status is a whole number, time does not fall, R is V / I or missing."""
    status, time, resistance = values[:, 4], values[:, 3], values[:, 2]
    whole = bool(np.all((status >= 0) & (status < 2**32) & (status % 1 == 0)) or np.all(np.abs(status) > OVERFLOW))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = values[:, 0] / values[:, 1]
        ohmic = np.isclose(resistance, ratio, rtol=0.05) | (np.abs(values[:, :3]) > OVERFLOW).any(axis=1)
    return whole and bool(np.all(np.diff(time) >= 0)) and bool(np.mean(ohmic) > 0.5)


def _readings(path: Path, columns: dict[str, Array], options: ReadOptions) -> Measurement:
    names = {"VOLT": "V", "CURR": "I", "RES": "R", "TIME": "Time", "STAT": "Status"}
    run = {names[name]: values for name, values in columns.items()}
    notes: list[str] = []
    questions: list[str] = []
    known = {name: np.isfinite(values) & (np.abs(values) < OVERFLOW) for name, values in run.items()}
    kelvin = _temperature(path, [], options, questions)
    filled = {name for name, mask in known.items() if mask.any()}
    if "R" in filled and not {"V", "I"} <= filled:
        return _resistances(path, run, known, kelvin, options)
    compliance = np.nan
    if "Status" in run and {"V", "I"} <= set(run):
        usable = known["Status"] & (np.abs(run["Status"]) < 2**32)
        status = np.where(usable, run["Status"], 0).astype(np.int64)
        limited = np.abs(run["I"][((status & _COMPLIANCE) != 0) & known["I"]])
        if len(limited):
            level = float(np.median(limited))
            agree = bool(np.all(np.abs(limited - level) <= _AGREES * level))
            compliance = level if agree else np.nan
            tail = f": {level:.4g} A" if agree else ", at currents that differ"
            notes.append(f"'{path.name}': {len(limited)} points are in compliance by bit 3 of their status{tail}")
    terminal = Terminal("source", "V", "I", "sweep", compliance=compliance)
    units = {"R": "ohm", "V": "V", "I": "A", "Time": "s"}
    one = Run(run, [terminal], stem_of(path), units, kelvin)
    return measurement_of(path, [one], options, notes, questions, "Keithley 2400 SourceMeter")


def _resistances(
    path: Path, run: Mapping[str, Array], known: Mapping[str, NDArray[np.bool_]], kelvin: float, options: ReadOptions
) -> Measurement:
    """Return reads of readings that hold a resistance but not both voltage and current."""
    resistance = np.where(known["R"] & (run["R"] != 0), run["R"], np.nan)
    variables = {"conductance": (1.0 / resistance)[None, :]}
    for name, key in (("V", "voltage"), ("I", "current"), ("Time", "time")):
        if name in run and known[name].any():
            variables[key] = np.where(known[name], run[name], np.nan)[None, :]
    note = f"'{path.name}': conductance is the inverse of the resistance that the instrument gives"
    labels = {"device": stem_of(path), "temperature": kelvin}
    return merge([build({"reads": reads_node(variables, labels, notes=[note])}, [])])


def _is_buffer(lines: Sequence[str]) -> bool:
    return _find_names(lines, _delimiter(lines)) is not None


def _delimiter(lines: Sequence[str]) -> str:
    text = "\n".join(lines[:300])
    return max(",;\t", key=text.count)


def _find_names(lines: Sequence[str], delimiter: str) -> _Named | None:
    """Find the row of names: a reading and a source value, each with the unit that follows it, and a time."""
    for row, line in enumerate(lines[:300]):
        if "eading" not in line and "easure" not in line:
            continue
        names = [normalised(str(cell)) for cell in split_line(line, delimiter)]
        reading = _first(names, _READING, 0)
        source = _first(names, _SOURCE, reading + 1) if reading >= 0 else -1
        if source < 0 or _first(names, _UNIT, reading + 1) < 0:
            continue
        reading_unit = _first(names[:source], _UNIT, reading + 1)
        return _Named(row, reading, reading_unit, source, _first(names, _UNIT, source + 1), _first(names, _TIME, 0))
    return None


def _first(names: Sequence[str], pattern: re.Pattern[str], start: int) -> int:
    return next((k for k in range(start, len(names)) if pattern.fullmatch(names[k])), -1)


def _buffer(path: Path, lines: Sequence[str], options: ReadOptions) -> Measurement:
    """Read a saved buffer."""
    delimiter = _delimiter(lines)
    at = _find_names(lines, delimiter)
    if at is None:
        raise ReadError(f"'{path.name}' has no row of names with Reading, Unit and Source Value")
    rows = [[str(cell) for cell in split_line(line, delimiter)] for line in lines[at.row + 1 :]]
    preamble = [[str(cell) for cell in split_line(line, delimiter)] for line in lines[: at.row]]
    rows = [row for row in rows if number(_at(row, at.reading)) is not None]
    notes: list[str] = []
    questions: list[str] = []
    reading, source = _column(rows, at.reading), _column(rows, at.source)
    kinds = [_kind(path, rows, index) for index in (at.reading_unit, at.source_unit)]
    if kinds[0] is None or kinds[1] is None:
        known = kinds[0] or kinds[1]
        if known is None:
            raise ReadError(
                f"'{path.name}' states no unit of its readings; name its columns with --reader table --columns "
                f"voltage={at.source},current={at.reading}"
            )
        other = ("current", "A") if known[0] == "voltage" else ("voltage", "V")
        kinds = [kind or other for kind in kinds]
        notes.append(f"'{path.name}' states one unit only; the other column is taken as {other[0]} in {other[1]}")
    series = {kind[0]: to_si(values, kind[1], kind[0]) for kind, values in zip(kinds, (reading, source), strict=True)
              if kind is not None}  # fmt: skip
    if set(series) != {"voltage", "current"}:
        raise ReadError(f"'{path.name}': found readings and source values of {', '.join(series)}, expected V and A")
    run = {"V": series["voltage"], "I": series["current"]}
    if at.time >= 0 and np.isfinite(time := _column(rows, at.time)).all():
        run["Time"] = time
    limit = next((number(row[1]) for row in preamble if len(row) > 1 and _LIMIT.fullmatch(row[0].strip(" :"))), None)
    terminal = Terminal("source", "V", "I", "sweep", compliance=np.nan if limit is None else limit)
    device = collect(preamble).values.get("device") or stem_of(path)
    kelvin = _temperature(path, preamble, options, questions)
    instrument = next((row[1] for row in preamble if len(row) > 1 and re.match("model|instrument", row[0].lower())), "")
    return measurement_of(
        path, [Run(run, [terminal], device, temperature=kelvin)], options, notes, questions, instrument
    )


def _kind(path: Path, rows: Sequence[Sequence[str]], index: int) -> tuple[str, str] | None:
    """Return the quantity and the unit that a column of unit names states, None when it states none."""
    texts = {re.sub(r"\s*(?:DC|AC)$", "", _at(row, index).strip()) for row in rows} if index >= 0 else set()
    texts.discard("")
    if not texts:
        return None
    if len(texts) > 1:
        raise ReadError(
            f"'{path.name}' mixes readings in {' and in '.join(sorted(texts))}; save one kind of reading in a file"
        )
    (unit,) = texts
    for quantity in ("voltage", "current"):
        try:
            to_si(1.0, unit, quantity)
        except UnitError:
            continue
        return quantity, unit
    raise ReadError(f"'{path.name}' gives readings in '{unit}', expected volts and amperes")


def _temperature(path: Path, rows: Sequence[Sequence[str]], options: ReadOptions, questions: list[str]) -> float:
    if np.isfinite(options.temperature):
        return options.temperature
    kelvin, conflict = one_temperature([*collect(rows).temperatures, *in_name(path.name, "file's name")])
    if conflict:
        questions.append(f"'{path.name}' states more than one temperature: {conflict}; give --temperature KELVIN")
    return kelvin


def _column(rows: Sequence[Sequence[str]], index: int) -> Array:
    cells = [number(_at(row, index)) for row in rows]
    return np.array([np.nan if cell is None else cell for cell in cells], dtype=np.float64)


def _at(cells: Sequence[str], index: int) -> str:
    return cells[index] if 0 <= index < len(cells) else ""


member = Keithley2400()
