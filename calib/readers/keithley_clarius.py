"""Keithley 4200 Clarius (KITE) workbooks."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from calib.columns import NAME_MAP
from calib.errors import ReadError
from calib.files import stem_of
from calib.measurement import Measurement, build, extra_node, merge
from calib.readers._terminals import Run, Terminal, measurement_of, paired_terminals
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import collect, in_name, one_temperature
from calib.table_layout import Cell, number, text_of
from calib.tables import Table, read_cells, table_of

_SETTINGS, _CALC = "Settings", "Calc"
_RUN = re.compile(r"(?:Data|(?:Append|Run|Data)[ _-]?\d+|Sheet ?\d+)", re.IGNORECASE)
_REPEATED = re.compile(r"(.+?)\s*\((\d+)\)")
_FUNCTIONS = (("sweep", "sweep"), ("step", "step"), ("bias", "constant"), ("common", "common"), ("ground", "common"))
_KEYS = ("test name", "device terminal", "instrument")
_MAGIC = (b"\xd0\xcf\x11\xe0", b"PK\x03\x04")
Block = dict[str, list[str]]


class _Sheet(NamedTuple):
    """A sheet of runs with its block of settings."""

    table: Table
    block: Block


class KeithleyClarius(Reader):
    """Sheets of columns `DrainI(1), DrainV(1), GateV(1), DrainI(2), ...`; a sheet Settings; mostly a sheet Calc.

    A name is a terminal's and I or V; columns of the same number in brackets are one sweep, all in SI units. Sheets
    Data, Append1, Run20 are further runs of one device, sheets with other names are devices. Settings holds a block per
    sheet: rows of a key and one cell for each `Device Terminal`, among them Operation Mode (or Forcing Function),
    Start/Bias and Compliance, which say what each terminal is: the swept one is the device, a gate or a stepped one
    becomes gate_voltage, the rest goes to the node extra, as the columns of Calc.
    """

    name = "keithley-clarius"
    suffixes = (".xls", ".xlsx", ".xlsm")
    name_map: Mapping[str, str] = NAME_MAP

    def sniff(self, path: Path) -> Sniff:
        no = Sniff(0.0, "no workbook with the sheet Settings of Clarius")
        with open(path, "rb") as file:
            magic = file.read(4)
        if path.suffix.lower() not in self.suffixes or magic not in _MAGIC:
            return no
        try:
            settings = read_cells(path, [_SETTINGS])[_SETTINGS]
        except ReadError:
            return no
        keys = {text_of(row[0]).strip().lower() for row in settings if row}
        return Sniff(0.95, "a Clarius workbook (sheet Settings)") if len(keys & set(_KEYS)) >= 2 else no

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        cells = read_cells(path)
        blocks = _blocks(cells.pop(_SETTINGS, []))
        wanted = options.sheets or [name for name in cells if name != _CALC]
        missing = [name for name in wanted if name not in cells]
        if missing:
            raise ReadError(f"'{path.name}' has no sheet '{missing[0]}'; give --sheet one of {', '.join(cells)}")
        notes: list[str] = []
        questions: list[str] = []
        runs: list[Run] = []
        for name in wanted:
            table = table_of(name, cells[name])
            if table is None or not any(table.names):
                notes.append(f"'{path.name}': sheet '{name}' holds no named columns of numbers")
                continue
            block = blocks.get(name) or next(iter(blocks.values()), {})
            notes += [f"'{path.name}' (sheet '{name}'): {note}" for note in table.notes]
            runs += _runs(path, _Sheet(table, block), questions)
        if not runs:
            raise ReadError(
                f"'{path.name}' holds no rows of numbers under names such as AnodeI, AnodeV in its sheets "
                f"{', '.join(wanted)}; save the workbook again with its data"
            )
        version = next((" ".join(v[:1]) for b in blocks.values() for k, v in b.items() if "version" in k), "")
        tree = measurement_of(path, runs, options, notes, questions, f"Keithley 4200 Clarius {version}".strip())
        return _with_calc(path, tree, cells.get(_CALC, []))


def _blocks(rows: Sequence[Sequence[Cell]]) -> dict[str, Block]:
    """Return the rows of the sheet Settings by lower-case key, for each name that stands between lines of '='."""
    blocks: dict[str, Block] = {}
    block: Block = {}
    heading = False
    for row in rows:
        key, *rest = [text_of(cell).strip() for cell in row] or [""]
        if key.startswith("==="):
            heading = not heading
        elif heading and key:
            block = blocks.setdefault(key, {})
        elif key:
            block.setdefault(key.lower(), rest)
            if not blocks:
                blocks[""] = block
    return blocks


def _runs(path: Path, sheet: _Sheet, questions: list[str]) -> list[Run]:
    """Return one run for each number in brackets; columns without one belong to every run of the sheet."""
    table, block = sheet
    numbered: dict[int, dict[str, NDArray[np.float64]]] = {}
    shared: dict[str, NDArray[np.float64]] = {}
    for index, name in enumerate(table.names):
        match = _REPEATED.fullmatch(name)
        if match:
            numbered.setdefault(int(match[2]), {})[match[1]] = table.values[:, index]
        elif name:
            shared[name] = table.values[:, index]
    groups = [{**columns, **shared} for columns in numbered.values()] or [shared]
    device = stem_of(path) if _RUN.fullmatch(table.name.strip()) else table.name.strip()
    stated = [[key, " ".join(cells)] for key, cells in block.items() if re.search("temp|comment|note", key)]
    kelvin, conflict = one_temperature(
        [*collect(stated).temperatures, *in_name(table.name, "sheet's name"), *in_name(path.name, "file's name")]
    )
    if conflict:
        questions.append(
            f"'{path.name}' (sheet '{table.name}') states more than one temperature: {conflict}; give the right one "
            "with --temperature KELVIN"
        )
    runs = []
    for columns in groups:
        filled = np.isfinite(np.column_stack(list(columns.values()))).any(axis=1)
        kept = {name: values[filled] for name, values in columns.items()}
        runs.append(Run(kept, _terminals(list(columns), block), device, temperature=kelvin))
    return runs


def _terminals(names: Sequence[str], block: Block) -> list[Terminal]:
    """Return the terminals that the columns speak of, with what Settings says of them, then its other ones."""
    stated: dict[str, Terminal] = {}
    modes = block.get("operation mode") or block.get("forcing function", [])
    for k, name in enumerate(block.get("device terminal", [])):
        if not name or name == "N/A":
            continue
        mode = _at(modes, k).lower()
        function = next((kind for word, kind in _FUNCTIONS if word in mode), "")
        if _at(block.get("instrument", []), k).upper().startswith("GND"):
            function = "common"
        bias, limit = (number(_at(block.get(key, []), k) or "nan") for key in ("start/bias", "compliance"))
        stated[name] = Terminal(
            name,
            function=function,
            bias=(bias if bias is not None else np.nan) if function == "constant" else np.nan,
            compliance=limit if limit is not None else np.nan,
        )
    result = []
    for terminal in paired_terminals(names):
        said = stated.pop(terminal.name, None)
        result.append(terminal if said is None else replace(said, voltage=terminal.voltage, current=terminal.current))
    return [*result, *stated.values()]


def _with_calc(path: Path, tree: Measurement, rows: list[list[Cell]]) -> Measurement:
    """Add the columns of the sheet Calc to the node extra."""
    table = table_of(_CALC, rows) if rows else None
    if table is None:
        return tree
    kept = {}
    for index, name in enumerate(table.names or [""] * table.values.shape[1]):
        values = table.values[:, index]
        key = "Calc_" + (re.sub(r"\W+", "_", name).strip("_") or str(index))
        if np.isfinite(values).any() and key not in kept:
            kept[key] = (values, "1", name or f"column {index}")
    if not kept:
        return tree
    instrument = tree.attrs["instrument"]
    return merge([tree, build({"extra": extra_node(kept, f"{path.name} (sheet '{_CALC}')")}, instrument=instrument)])


def _at(cells: Sequence[str], index: int) -> str:
    return cells[index] if index < len(cells) else ""


member = KeithleyClarius()
