"""Keysight (Agilent) B1500A EasyEXPERT csv."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.columns import NAME_MAP
from calib.errors import ReadError
from calib.files import stem_of
from calib.measurement import Measurement
from calib.readers._terminals import Run, Terminal, measurement_of, paired_terminals
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import collect, in_name, one_temperature
from calib.table_layout import number
from calib.tables import read_head, read_lines

_KEYS = ("SetupTitle", "PrimitiveTest", "ClassicTest", "ApplicationTest", "TestParameter", "MetaData", "AnalysisSetup")
_DATA = ("Dimension1", "Dimension2", "DataName", "DataValue")
_FUNCTIONS = {"VAR1": "sweep", "VAR1'": "sweep", "VAR2": "step", "CONST": "constant"}
_LARGEST = 10_000_000  # steps of a sweep that a file may state


@dataclass
class _Record:
    """One measurement of a file: its parameters, its columns, and the lines of its data."""

    parameters: dict[str, list[str]] = field(default_factory=dict)
    stated: list[list[str]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)
    steps: int = 1


class KeysightEasyExpert(Reader):
    """Lines of `Key, value, ...`: SetupTitle, PrimitiveTest, TestParameter, MetaData, AnalysisSetup, then the data.

    `Dimension1` and `Dimension2` give, for each name, the points of a sweep and the number of sweeps (steps of a second
    variable, or repeats); `DataName, V1, I1` the names, which the user chose, and each `DataValue, 0.1, 2E-6` a point.
    The same may stand without the words DataName and DataValue. A first line may be blank; measurements may follow one
    another in a file.

    `Channel.VName`, `IName`, `Func` (VAR1, VAR2, CONST), `Mode` and `Measurement.Port.Unit` say what each column is:
    the swept unit is the device, a gate or the unit of VAR2 becomes gate_voltage, the rest goes to the node extra.
    The compliance is `Measurement.Primary.Compliance`, the device `TestRecord.TestTarget`.
    """

    name = "keysight-easyexpert"
    suffixes = (".csv",)
    name_map: Mapping[str, str] = NAME_MAP

    def sniff(self, path: Path) -> Sniff:
        first = [line.split(",")[0].strip() for line in read_head(path)]
        keys = [key for key in first if key in _KEYS or key in _DATA]
        if len(keys) >= 2 and keys[0] in (*_KEYS, "Dimension1"):
            return Sniff(0.95, f"EasyEXPERT: lines begin with {keys[0]} and {next(k for k in keys[1:])}")
        return Sniff(0.0, "no lines that begin with SetupTitle, TestParameter or DataName")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        records = [record for record in _records(read_lines(path, options.skip_rows)) if record.rows]
        if not records:
            raise ReadError(
                f"'{path.name}' holds no DataValue lines; expected `DataName, V1, I1` and `DataValue, 0.1, 2E-6`; "
                "export the measurement again with its data"
            )
        notes: list[str] = []
        questions: list[str] = []
        runs: list[Run] = []
        for record in records:
            runs += _runs(path, record, notes, questions)
        frames = [_value(record, "Context.MainFrame") for record in records]
        return measurement_of(path, runs, options, notes, questions, next((f for f in frames if f), ""))


def _records(lines: Sequence[str]) -> list[_Record]:
    records = [_Record()]
    for line in lines:
        cells = [cell.strip() for cell in line.split(",")]
        key, record = cells[0], records[-1]
        if record.rows and (key in _KEYS or key in ("DataName", "Dimension1")):
            fresh = _Record() if key == "SetupTitle" else _Record(dict(record.parameters), list(record.stated))
            records.append(fresh)
            record = fresh
        if key == "DataValue":
            record.rows.append(cells[1:])
        elif key == "DataName":
            record.names = [cell for cell in cells[1:] if cell]
        elif key == "Dimension2":
            record.steps = _steps(cells[1:])
        elif key in ("TestParameter", "MetaData") and len(cells) > 1:
            record.parameters[cells[1]] = cells[2:]
            if re.search("temp|remarks", cells[1], re.IGNORECASE):
                record.stated.append([cells[1].rpartition(".")[2], ", ".join(cells[2:])])
        elif key == "SetupTitle":
            record.stated.append([", ".join(cells[1:])])
        elif key in _KEYS or key in _DATA or not any(cells):
            continue
        elif record.names and number(key) is not None:
            record.rows.append(cells)
        elif not record.names and number(key) is None:
            record.names = [cell for cell in cells if cell]
    return records


def _steps(cells: Sequence[str]) -> int:
    counts = [int(cell) for cell in cells if re.fullmatch(r"\d{1,9}", cell)]
    return max(counts, default=1) or 1


def _runs(path: Path, record: _Record, notes: list[str], questions: list[str]) -> list[Run]:
    """Return one run for each sweep of a record: as many as Dimension2 says, of equal length."""
    if not record.names:
        raise ReadError(f"'{path.name}' has DataValue lines without a DataName line above them; export the file again")
    values = _numbers(path, record, notes)
    steps = record.steps if record.steps <= min(len(values), _LARGEST) and len(values) % record.steps == 0 else 1
    if steps != record.steps:
        notes.append(
            f"'{path.name}': Dimension2 states {record.steps} sweeps, which does not divide its {len(values)} points; "
            "they are read as one trace"
        )
    terminals = _terminals(record)
    device = _value(record, "TestRecord.TestTarget")
    if device:
        sentence = f"'{path.name}': device '{device}' as stated by TestRecord.TestTarget"
        notes += [] if sentence in notes else [sentence]
    kelvin, conflict = one_temperature([*collect(record.stated).temperatures, *in_name(path.name, "file's name")])
    if conflict:
        sentence = (
            f"'{path.name}' states more than one temperature: {conflict}; give the right one with --temperature KELVIN"
        )
        questions += [] if sentence in questions else [sentence]
    return [
        Run(dict(zip(record.names, part.T, strict=True)), terminals, device or stem_of(path),
            temperature=kelvin)
        for part in np.split(values, steps)
    ]  # fmt: skip


def _numbers(path: Path, record: _Record, notes: list[str]) -> NDArray[np.float64]:
    """Return the data (point, column); blanks, words and missing cells are NaN and counted."""
    width = len(record.names)
    values = np.full((len(record.rows), width), np.nan)
    stray = 0
    for k, row in enumerate(record.rows):
        for j, cell in enumerate(row[:width]):
            value = number(cell)
            stray += value is None
            values[k, j] = np.nan if value is None or np.isinf(value) else value
    if stray:
        notes.append(f"'{path.name}': {stray} cells are no numbers and count as blank")
    return values


def _terminals(record: _Record) -> list[Terminal]:
    """Return the units that the parameters Channel.* describe; from the names of the columns where there are none."""
    voltages, currents = (record.parameters.get(f"Channel.{key}", []) for key in ("VName", "IName"))
    if not (set(voltages) & set(record.names) and set(currents) & set(record.names)):
        return paired_terminals(record.names)
    units = record.parameters.get("Channel.Unit") or record.parameters.get("Measurement.Port.Unit", [])
    columns = {name: record.parameters.get(f"Channel.{name}", []) for name in ("Mode", "Func")}
    bias = record.parameters.get("Measurement.Bias.Source", [])
    limits = record.parameters.get("Measurement.Bias.Compliance", [])
    primary = number(_value(record, "Measurement.Primary.Compliance") or "nan")
    result = []
    for k, voltage in enumerate(voltages):
        current = _at(currents, k)
        function = _FUNCTIONS.get(_at(columns["Func"], k), "")
        if _at(columns["Mode"], k) == "COMMON":
            function = "common"
        limit = primary if function == "sweep" and primary and np.isfinite(primary) else number(_at(limits, k) or "nan")
        result.append(
            Terminal(
                _at(units, k) or f"unit {k + 1}",
                voltage if voltage in record.names else "",
                current if current in record.names else "",
                function,
                (number(_at(bias, k) or "nan") or 0.0) if function == "constant" else np.nan,
                np.nan if limit is None else limit,
                voltage,
            )
        )
    return result


def _at(cells: Sequence[str], index: int) -> str:
    return cells[index] if index < len(cells) else ""


def _value(record: _Record, key: str) -> str:
    return _at(record.parameters.get(key, []), 0)


member = KeysightEasyExpert()
