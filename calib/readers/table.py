"""Tables of numbers: text (csv, tsv, txt, dat, also gzipped) and workbooks (xlsx, xls, ods).

One row is one point. A table holds one (V, I) pair, with or without columns for device, cycle, state...; or many pairs
side by side, each a device or a cycle; or reads of resistance or conductance.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.columns import NAME_MAP, Column, assign, convert, guess, is_transistor, pair_label
from calib.errors import ReadError
from calib.files import sha256_of, stem_of
from calib.measurement import Measurement, Trace, build, iv_node, merge
from calib.readers import _table_reads as flat
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import Statements, collect, in_name, one_temperature
from calib.tables import SPREADSHEETS, Table, kind_of_bytes, looks_numeric, read_text, read_workbook
from calib.units import QUANTITIES

_CYCLE_SHEET = re.compile(r"(?:cycle|cyc|loop)[ _-]*\d+", re.IGNORECASE)
_HEAD = 65536  # bytes of a text file that are looked at to recognise it
_LARGE_CURRENT = 1.0  # A; more than any memristor carries: the unit is probably not ampere


@dataclass
class _Found:
    """What the tables of one file have given so far."""

    traces: list[Trace] = field(default_factory=list)
    reads: list[Measurement] = field(default_factory=list)
    extras: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)


class TableReader(Reader):
    """Any table whose columns have names that calib knows, or are named with --columns."""

    name = "table"
    suffixes = (".csv", ".tsv", ".txt", ".dat", ".asc", ".gz", *SPREADSHEETS)
    name_map: Mapping[str, str] = NAME_MAP

    def sniff(self, path: Path) -> Sniff:
        suffix = path.suffix.lower()
        if suffix in SPREADSHEETS:
            return Sniff(0.5, f"a workbook ({suffix})")
        with open(path, "rb") as file:
            head = file.read(_HEAD)
        if head.startswith(b"\x1f\x8b"):
            return Sniff(0.4, "gzipped text")
        kind = kind_of_bytes(head)
        if kind is None and not looks_numeric(head[: head.rfind(b"\n")] if len(head) == _HEAD else head):
            return Sniff(0.05, "text without rows of numbers")
        if kind is None:
            return Sniff(0.5 if suffix in self.suffixes else 0.3, f"text{f' ({suffix})' if suffix else ''}")
        return Sniff(0.1 if suffix in self.suffixes else 0.0, f"{kind} although its suffix is '{suffix}'")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        found = _Found()
        if path.suffix.lower() in SPREADSHEETS:
            tables, empty = read_workbook(path, options.sheets)
            found.notes += [f"sheet '{name}' of '{path.name}' holds no rows of numbers" for name in empty]
        else:
            tables = [read_text(path, options.skip_rows)]
        found.notes += [f"'{path.name}'{_of_sheet(table)}: {note}" for table in tables for note in table.notes]
        _interpret(path, tables, options, found)
        source = {"name": path.name, "sha256": sha256_of(path), "reader": self.name, "why": tables[0].layout}
        parts = [*found.reads, *found.extras]
        if found.traces:
            parts.append(build({"iv": iv_node(found.traces, found.questions, found.notes)}, []))
        elif found.reads:
            node = parts[0].children["reads"]
            node.attrs.update(flat.sentences(node, found.questions, found.notes))
        tree = merge(parts)
        tree.attrs["sources"] = build({}, [source]).attrs["sources"]
        return tree


def _interpret(path: Path, tables: Sequence[Table], options: ReadOptions, found: _Found) -> None:
    """Turn every table into traces or reads; a table that cannot be used stops only when no other one can."""
    usable: list[tuple[Table, list[Column]]] = []
    problems: list[ReadError] = []
    for table in tables:
        try:
            usable.append((table, _columns(path, table, options)))
        except ReadError as error:
            problems.append(error)
    if not usable:
        raise problems[0]
    found.notes += [f"not read: {error}" for error in problems]
    _unit_notes(path, [columns for _, columns in usable], found)
    wide = [(table, columns) for table, columns in usable if _is_wide(columns)]
    single = [(table, columns) for table, columns in usable if not _is_wide(columns)]
    for table, columns in wide:
        _read_wide(path, table, columns, table.name if len(usable) > 1 else "", options, found)
    cycles = _sheets_are_cycles([table for table, _ in single], options, found, path)
    for position, (table, columns) in enumerate(single):
        label = table.name if len(single) > 1 and not cycles else stem_of(path)
        population = "sheets" if wide else ""
        _read_single(path, table, columns, label, position if cycles else -1, population, options, found)
    for table, columns in usable:
        _keep_rest(path, table, columns, found)


def _columns(path: Path, table: Table, options: ReadOptions) -> list[Column]:
    """Name the columns of a table and refuse it when they hold neither V and I nor R or G."""
    width = table.values.shape[1]
    where = path.name + _of_sheet(table)
    columns = assign(where, table.names, table.units, width, options.columns, options.units)
    roles = {column.role for column in columns}
    if {"voltage", "current"} <= roles or roles & set(flat.VALUES):
        needed = ("voltage", "current") if {"voltage", "current"} <= roles else flat.VALUES
        empty = [c for c in columns if c.role in needed and not _has_numbers(table, c)]
        filled = {c.role for c in columns if c.role in needed and c not in empty}
        if len(filled) < len(roles & set(needed)):
            raise ReadError(
                f"'{where}': column {empty[0].shown} ({empty[0].role}) holds no numbers; name another with --columns"
            )
        return columns
    shown = ", ".join(column.shown for column in columns[:14]) + (", ..." if width > 14 else "")
    if is_transistor(columns):
        raise ReadError(
            f"'{where}' is not a two-terminal sweep: its columns {shown} are those of a transistor; "
            "for a memristor measured so, say which are its own, for example --columns voltage=1,current=0"
        )
    header = f"columns {shown}" if any(table.names) else f"no header and {width} column{'s' * (width > 1)}"
    raise ReadError(
        f"'{where}': found {header} (first row: {table.first_row()}), expected voltage and current, or resistance or "
        f"conductance; say which column is which, for example {guess(table.values)}"
    )


def _read_wide(
    path: Path, table: Table, columns: list[Column], population: str, options: ReadOptions, found: _Found
) -> None:
    pairs = _pairs(path, table, columns)
    unit = options.units.get("temperature")
    stated = [collect(_cells_of(table, pair), unit) for pair in pairs]
    _absolute_note(path, columns, found)
    series = [
        (_si(path, table, pair[0], "voltage"), _si(path, table, pair[1], "current"), _time(path, table, pair))
        for pair in pairs
    ]
    if _count(columns, "voltage") == 1 and flat.is_constant(series[0][0]):
        levels = flat.level_names([pair[1] for pair in pairs])
        found.questions.append(
            f"'{path.name}'{_of_sheet(table)}: {len(pairs)} current columns at one voltage are taken for levels of one "
            "device; if they are devices, give --pairs device"
        )
        as_device = options.pairs == "device"
        found.reads.append(flat.level_reads(series, levels, stem_of(path), population, as_device))
        return
    stem = population or stem_of(path)
    devices, cycles = _who(path, table, stated, stem, options, found)
    for (voltage, current, time), device, cycle, statement in zip(series, devices, cycles, stated, strict=True):
        trace = Trace(voltage, current, device, time, cycle, population)
        found.traces.append(_with_statements(path, table, trace, statement, options, found))


def _who(
    path: Path, table: Table, stated: Sequence[Statements], stem: str, options: ReadOptions, found: _Found
) -> tuple[list[str], list[int]]:
    """Decide whether the pairs of a wide table are devices or cycles; return the device and cycle of each."""
    numbers = [s.cycle() for s in stated]
    names = [s.values.get("device", "") for s in stated]
    numbered = all(n is not None for n in numbers) and len(set(numbers)) == len(numbers)
    decided = options.pairs
    if decided is None and len(set(names)) == len(names) and all(names):
        decided = "device"
    elif decided is None and numbered and len(set(names)) == 1:
        decided = "cycle"
    elif decided is None:
        decided = "device"
        if not any(n is not None for n in numbers) and not any(names):
            found.questions.append(
                f"'{path.name}'{_of_sheet(table)}: nothing says whether its {len(stated)} (V, I) pairs are devices or "
                "cycles; they are taken for devices; if they are cycles of one device, give --pairs cycle"
            )
    count = len(stated)
    found.notes.append(f"'{path.name}'{_of_sheet(table)}: {count} (V, I) pairs side by side, each one {decided}")
    if decided == "cycle":
        first = 1 if numbered and min(n for n in numbers if n is not None) >= 1 else 0
        cycles = [n - first if numbered and n is not None else k for k, n in enumerate(numbers)]
        return [names[0] or stem] * count, cycles
    if len(set(names)) == count and all(names):
        return list(names), [-1] * count
    digits = max(3, len(str(count)))
    return [f"{stem}-{k + 1:0{digits}d}" for k in range(count)], [-1] * count


def _read_single(
    path: Path,
    table: Table,
    columns: list[Column],
    device: str,
    cycle: int,
    population: str,
    options: ReadOptions,
    found: _Found,
) -> None:
    """Read a table with one column each of voltage, current, resistance..., and label columns."""
    _absolute_note(path, columns, found)
    stated = collect(table.preamble, options.units.get("temperature"))
    if not any(c.role in ("device", "row", "column") for c in columns):
        device = stated.values.get("device", device)
    by_role = {c.role: c for c in columns if c.role is not None}
    if {"voltage", "current"} <= set(by_role):
        voltage = _si(path, table, by_role["voltage"], "voltage")
        current = _si(path, table, by_role["current"], "current")
        if not flat.is_constant(voltage):
            rows = flat.Rows.of(path.name, table, columns, device, cycle)
            time = _si(path, table, by_role["time"], "time") if "time" in by_role else None
            for trace in rows.traces(voltage, current, time):
                trace = replace(trace, population=population)
                found.traces.append(_with_statements(path, table, trace, stated, options, found))
            _current_question(path, current, by_role["current"], options, found)
            return
    names: str | NDArray[np.str_] = device
    unlabelled = not any(c.role in ("device", "row", "column", "time", "cycle", "level") for c in columns)
    if unlabelled and options.pairs == "device":
        digits = max(3, len(str(len(table.values))))
        names = np.array([f"{device}-{k + 1:0{digits}d}" for k in range(len(table.values))])
    elif unlabelled and options.pairs is None and len(table.values) > 1:
        found.questions.append(
            f"'{path.name}'{_of_sheet(table)}: nothing says what its {len(table.values)} rows are; they are taken for "
            "successive reads of one device; if each row is a device, give --pairs device"
        )
    rows = flat.Rows.of(path.name, table, columns, names, cycle)
    tree, notes = rows.reads(population, options.temperature, stated)
    found.reads.append(tree)
    found.notes += notes


def _pairs(path: Path, table: Table, columns: list[Column]) -> list[tuple[Column, Column, Column | None]]:
    voltages, currents, times = ([c for c in columns if c.role == role] for role in ("voltage", "current", "time"))
    if len(voltages) == 1:
        voltages = voltages * len(currents)
    if len(voltages) != len(currents):
        shown = ", ".join(c.shown for c in [*voltages, *currents])
        raise ReadError(
            f"'{path.name}'{_of_sheet(table)}: found {len(voltages)} voltage and {len(currents)} current columns "
            f"({shown}), expected as many of each; name one pair with "
            f"--columns voltage={voltages[0].index},current={currents[0].index}"
        )
    if len(times) == 1:
        times = times * len(currents)
    paired = times if len(times) == len(currents) else [None] * len(currents)
    return list(zip(voltages, currents, paired, strict=True))


def _with_statements(
    path: Path, table: Table, trace: Trace, stated: Statements, options: ReadOptions, found: _Found
) -> Trace:
    """Add temperature, compliance, gate voltage and series resistance as far as the file states them."""
    changes: dict[str, float] = {}
    for key in ("compliance", "gate_voltage", "series_resistance"):
        value = stated.si(key, options.units.get(key))
        if np.isnan(getattr(trace, key)) and np.isfinite(value):
            changes[key] = value
    if np.isfinite(options.temperature):
        return replace(trace, temperature=options.temperature, **changes)
    statements = [*stated.temperatures, *in_name(table.name, "sheet's name"), *in_name(path.name, "file's name")]
    if np.isfinite(trace.temperature):
        statements.append((trace.temperature, "the column of temperatures"))
    kelvin, conflict = one_temperature(statements)
    if conflict:
        question = (
            f"'{path.name}'{_of_sheet(table)} states more than one temperature: {conflict}; "
            "give the right one with --temperature KELVIN"
        )
        if question not in found.questions:
            found.questions.append(question)
    elif np.isfinite(kelvin):
        note = f"'{path.name}'{_of_sheet(table)}: temperature {kelvin:g} K as stated by {statements[0][1]}"
        if note not in found.notes:
            found.notes.append(note)
    return replace(trace, temperature=kelvin, **changes)


def _sheets_are_cycles(tables: Sequence[Table], options: ReadOptions, found: _Found, path: Path) -> bool:
    if len(tables) < 2:
        return False
    if options.pairs is not None:
        return options.pairs == "cycle"
    cycles = all(_CYCLE_SHEET.fullmatch(table.name.strip()) for table in tables)
    kind = "cycles of one device" if cycles else "devices of one population"
    found.notes.append(f"'{path.name}': {len(tables)} sheets with one (V, I) pair each are {kind}")
    return cycles


def _keep_rest(path: Path, table: Table, columns: list[Column], found: _Found) -> None:
    """Put the columns that no node holds into the node extra."""
    roles = {c.role for c in columns}
    is_sweep = {"voltage", "current"} <= roles
    unused = set(flat.VALUES) - (set() if is_sweep else set(flat.used_values(roles)))
    columns = [c for c in columns if c.role in (None, "transistor") or c.role in unused]
    trees = flat.kept_columns(path.name + _of_sheet(table), table, columns)
    found.extras += trees
    for tree in trees:
        kept = [str(name) for name in tree["extra"].data_vars]
        listed = ", ".join(kept[:8]) + (", ..." if len(kept) > 8 else "")
        found.notes.append(
            f"'{path.name}'{_of_sheet(table)}: {len(kept)} further columns are kept in the node extra: {listed}"
        )


def _current_question(
    path: Path, current: NDArray[np.float64], column: Column, options: ReadOptions, found: _Found
) -> None:
    largest = float(np.abs(current[np.isfinite(current)]).max(initial=0.0))
    if largest > _LARGE_CURRENT and column.unit is None:
        found.questions.append(
            f"'{path.name}': no unit is stated for the current, which reaches {largest:.3g} if it is in ampere; "
            "if it is in microampere, give --units current=uA"
        )


def _unit_notes(path: Path, tables: Sequence[Sequence[Column]], found: _Found) -> None:
    """Say which quantities have no stated unit and are taken to be in SI."""
    without = {
        c.role: QUANTITIES[quantity].unit
        for columns in tables
        for c in columns
        if c.role
        and not c.unit
        and (quantity := c.role.partition("_")[0] if c.role in flat.VALUES else c.role) in QUANTITIES
    }
    if without:
        listed = ", ".join(f"{role} in {unit}" for role, unit in without.items())
        found.notes.append(f"'{path.name}' does not state every unit; taken are {listed} (--units overrides)")


def _absolute_note(path: Path, columns: Sequence[Column], found: _Found) -> None:
    for column in columns:
        if column.role == "absolute current":
            note = f"'{path.name}': column {column.shown} is the absolute value of the current and is kept out"
            if note not in found.notes:
                found.notes.append(note)


def _cells_of(table: Table, pair: tuple[Column, Column, Column | None]) -> list[tuple[str, ...]]:
    """Return the cells above a pair of columns, then the label in their names ('D3' of 'V_D3')."""
    first, last = sorted((pair[0].index, pair[1].index))
    labels = (pair_label(pair[1].header), pair_label(pair[0].header))
    return [*(row[first : last + 1] for row in table.preamble), *((label,) for label in labels if label)]


def _si(path: Path, table: Table, column: Column, quantity: str) -> NDArray[np.float64]:
    return convert(path.name + _of_sheet(table), table.values[:, column.index], column, quantity)


def _time(path: Path, table: Table, pair: tuple[Column, Column, Column | None]) -> NDArray[np.float64] | None:
    return None if pair[2] is None else _si(path, table, pair[2], "time")


def _has_numbers(table: Table, column: Column) -> bool:
    return bool(np.isfinite(table.values[:, column.index]).any())


def _is_wide(columns: Sequence[Column]) -> bool:
    return bool(_count(columns, "current")) and _count(columns, "current") + _count(columns, "voltage") > 2


def _count(columns: Sequence[Column], role: str) -> int:
    return sum(column.role == role for column in columns)


def _of_sheet(table: Table) -> str:
    return f" (sheet '{table.name}')" if table.name else ""


member = TableReader()
