"""Trains of programming pulses with a reading after each: tables, and lines of `key=value` text before the readings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.columns import Column, assign, convert, recognise
from calib.errors import ReadError
from calib.files import sha256_of, stem_of
from calib.measurement import Measurement, build, merge, padded, pulses_node
from calib.readers import _table_reads as flat
from calib.readers._pulse_lines import is_pulse_line, read_lines_of_pulses
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import collect, one_temperature
from calib.tables import (
    SPREADSHEETS,
    Table,
    kind_of_bytes,
    looks_numeric,
    names_in_head,
    read_head,
    read_text,
    read_workbook,
)

_TRAINS = ("potentiation", "depression")
_READINGS = ("conductance", "resistance", "current")
_PULSE = ("amplitude", "width", "count", "read_voltage")
_LABELS = ("device", "row", "column", "die", "wafer", "cycle", "temperature")
_NUMBER = r"(?: ?(?:no|number|index|id|#))?"


@dataclass
class _Found:
    parts: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class PulseTrainReader(Reader):
    """Trains of pulses; a train is one sequence, a row (or a number of a line) is one pulse and its readings.

    Three layouts: a table with columns for the pulse (amplitude, width, count) and one or several readings after it
    (`i_0`, `i_1`... with the read voltage, or conductances or resistances); a table of conductances whose columns are
    whole trains, named potentiation and depression (of unit 1 unless a unit is stated: normalised data); and lines
    such as `(U2,0,0),tprog=0.0002,Gprog, 1e-6, 9e-7, ...` of any length, one train each. The coordinate polarity is
    'potentiation' or 'depression' where the file names the trains so, or where a line rises or falls.
    """

    name = "pulse-train"
    suffixes = (".csv", ".tsv", ".txt", ".dat", ".gz")
    name_map: Mapping[str, str] = {
        "device": r"(?:device|dev|cell|dut|addr|address|memristor)(?: (?:id|no|number|name|index|address))?",
        "row": r"(?:row|wl|word ?line)",
        "column": r"(?:col|column|bl|bit ?line)",
        "die": r"(?:die|chip)(?: (?:id|no|number))?",
        "wafer": r"wafer(?: (?:id|no|number))?",
        "cycle": r"(?:cycle|cyc|loop|repeat|repetition|run|iteration|cycle (?:no|number|index))",
        "polarity": r"(?:polarity|pulse type|operation|direction)",
        "temperature": r"(?:temp|temperature)",
        "pulse": rf"pulse{_NUMBER}",
        "amplitude": r"pulse (?:v|voltage|amplitude|height)|v ?pulse|(?:write|program|programming) (?:v|voltage)"
        r"|amplitude|v ?(?:prog|write|amp)",
        "width": r"pulse (?:width|duration|length|time)|width|t ?(?:pulse|width|prog)|pw|duration",
        "count": r"num applied|count|(?:n|num|number of) ?pulses|pulses|pulse count",
        "read_voltage": r"(?:meas|measure|read|reading) (?:v|voltage)|v ?(?:read|meas)",
        "conductance": r"(?:read )?(?:g|cond|conductance) ?\d*",
        "resistance": r"(?:read )?(?:r|res|resistance) ?\d*",
        "current": r"(?:read )?(?:i|current) ?\d*",
        "potentiation": r"(?:g |conductance )?(?:potentiation|ltp|pot)(?: (?:g|conductance))? ?\d*",
        "depression": r"(?:g |conductance )?(?:depression|ltd|dep)(?: (?:g|conductance))? ?\d*",
    }

    def sniff(self, path: Path) -> Sniff:
        with open(path, "rb") as file:
            head = file.read(65536)
        if kind_of_bytes(head) is not None and not head.startswith((b"\x1f\x8b", b"PK")):
            return Sniff(0.0, "no table of text")
        if sum(map(is_pulse_line, read_head(path)[:20])) >= 1:
            return Sniff(0.85, "lines of key=value text before readings")
        for row in names_in_head(path):
            roles = {recognise(cell, None, self.name_map)[0] for cell in row}
            clear = roles & {"pulse", "count", *_TRAINS} or {"amplitude", "width"} <= roles
            if _is_train(roles) and clear and looks_numeric(head):
                return Sniff(0.8, "its columns are pulses and readings after them")
        return Sniff(0.02, "no columns of pulses and readings")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        found = _Found()
        lines = read_head(path) if path.suffix.lower() not in SPREADSHEETS else []
        if any(map(is_pulse_line, lines[:20])):
            node, found.notes = read_lines_of_pulses(path, options)
            found.parts, why = [build({"pulses": node}, [])], "lines of key=value text"
        else:
            if path.suffix.lower() in SPREADSHEETS:
                tables = read_workbook(path, options.sheets)[0]
            else:
                tables = [read_text(path, options.skip_rows)]
            for table in tables:
                self._table(path, table, options, found)
            why = tables[0].layout
        node = found.parts[0].children["pulses"]
        node.attrs.update(flat.sentences(node, [], found.notes))
        tree = merge(found.parts)
        source = {"name": path.name, "sha256": sha256_of(path), "reader": self.name, "why": why}
        tree.attrs["sources"] = build({}, [source]).attrs["sources"]
        return tree

    def _table(self, path: Path, table: Table, options: ReadOptions, found: _Found) -> None:
        where = f"{path.name} (sheet '{table.name}')" if table.name else path.name
        width = table.values.shape[1]
        columns = assign(where, table.names, table.units, width, options.columns, options.units, self.name_map)
        roles = {c.role for c in columns}
        if not _is_train(roles):
            named = ", ".join(c.shown for c in columns[:14]) if any(table.names) else f"no header and {width} columns"
            raise ReadError(
                f"'{where}': found {named} (first row: {table.first_row()}), expected pulses and a conductance, a "
                "resistance, or a current and its read voltage; say which column is which, for example --columns "
                "amplitude=0,width=1,read_voltage=2,current=3, or --columns potentiation=0,depression=1"
            )
        stated = one_temperature(collect(table.preamble, options.units.get("temperature")).temperatures)[0]
        temperature = options.temperature if np.isfinite(options.temperature) else stated
        found.notes += [f"'{where}': {note}" for note in table.notes]
        if roles & set(_TRAINS):
            node = _whole_trains(where, path, table, columns, temperature, found)
        else:
            node = _rows(where, path, table, columns, temperature, options, found)
        if not np.isfinite(node["conductance"].values).any():
            raise ReadError(f"'{where}': its readings hold no numbers; name other columns with --columns")
        rest = [c for c in columns if c.role is None]
        found.parts += [build({"pulses": node}, []), *flat.kept_columns(where, table, rest)]


def _is_train(roles: set[str | None]) -> bool:
    if roles & set(_TRAINS):
        return True
    has_pulse = bool(roles & {"pulse", "amplitude", "width", "count"})
    return has_pulse and (bool(roles & {"conductance", "resistance"}) or {"current", "read_voltage"} <= roles)


def _whole_trains(
    where: str, path: Path, table: Table, columns: Sequence[Column], temperature: float, found: _Found
) -> Any:
    """Return the node of a table whose columns are whole trains of conductances."""
    trains = [c for c in columns if c.role in _TRAINS]
    units = {c.unit for c in trains}
    unit = "1" if units <= {None, "1"} else "S"
    rows, cycles = [], []
    for column in trains:
        values = table.values[:, column.index]
        values = values[: int(np.flatnonzero(np.isfinite(values)).max(initial=-1)) + 1]
        rows.append(convert(where, values, column, "conductance") if unit == "S" else values)
        cycles.append(sum(c.role == column.role for c in trains[: len(cycles)]))
    if unit == "1":
        found.notes.append(
            f"'{where}': no unit is stated for its conductances, so they are kept as normalised, of unit 1 "
            "(give --units potentiation=S,depression=S if they are in siemens)"
        )
    labels = {
        "device": stem_of(path), "cycle": cycles, "polarity": [c.role for c in trains],
        "temperature": temperature,
    }  # fmt: skip
    return pulses_node({"conductance": padded(rows)[:, :, None]}, labels, unit)


def _rows(
    where: str,
    path: Path,
    table: Table,
    columns: Sequence[Column],
    temperature: float,
    options: ReadOptions,
    found: _Found,
) -> Any:
    """Return the node of a table with one row per pulse."""
    kind = next(role for role in _READINGS if any(c.role == role for c in columns))
    readings = [c for c in columns if c.role == kind]
    by_role = {c.role: c for c in columns}
    values = np.stack([convert(where, table.values[:, c.index], c, kind) for c in readings], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        if kind == "resistance":
            values = np.where(values == 0, np.nan, 1.0 / values)
        elif kind == "current":
            voltage = convert(where, table.values[:, by_role["read_voltage"].index], by_role["read_voltage"], "voltage")
            values = np.where(voltage[:, None] == 0, np.nan, values / voltage[:, None])
            found.notes.append(f"'{where}': conductance is current / read voltage, {len(readings)} readings per pulse")
    named = [c if c.role != "polarity" else Column(c.index, c.header, "level", None) for c in columns]
    named = [c for c in named if c.role in (*_LABELS, "level")]
    groups = flat.Rows.of(path.name, table, named, stem_of(path), -1)
    parts = np.split(groups.order, groups.starts[1:])
    variables: dict[str, NDArray[Any]] = {
        "conductance": np.stack([padded([values[rows, k] for rows in parts]) for k in range(values.shape[1])], axis=2)
    }
    for role in _PULSE:
        if role in by_role:
            quantity = {"amplitude": "voltage", "read_voltage": "voltage", "width": "width"}.get(role)
            column = by_role[role]
            numbers = table.values[:, column.index]
            numbers = convert(where, numbers, column, quantity) if quantity else numbers
            variables[role] = padded([numbers[rows] for rows in parts])
    first = groups.order[groups.starts]
    labels: dict[str, Any] = {key: groups.labels[key][first] for key in (*_LABELS, "level") if key in groups.labels}
    labels["polarity"] = labels.pop("level", "")
    if np.isfinite(temperature) or "temperature" not in labels:
        labels["temperature"] = temperature
    missing = [f"{role} in {to}" for role, to in (("amplitude", "V"), ("width", "s")) if role in by_role
               and by_role[role].unit is None]  # fmt: skip
    if missing:
        found.notes.append(f"'{where}' does not state every unit; taken are {', '.join(missing)} (--units overrides)")
    return pulses_node(variables, labels)


member = PulseTrainReader()
