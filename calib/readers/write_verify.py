"""Logs of write-verify programming: one row per write, with the target range and what was achieved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.columns import Column, assign, convert, recognise
from calib.errors import ReadError, UnitError
from calib.files import sha256_of, stem_of
from calib.measurement import Measurement, build, merge, writes_node
from calib.readers import _table_reads as flat
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import collect, one_temperature
from calib.tables import SPREADSHEETS, Table, kind_of_bytes, looks_numeric, names_in_head, read_text, read_workbook
from calib.units import factor

OPEN_RESISTANCE = 1e10
"""[ohm]; a target range that ends here or beyond, or at 0 ohm, is open on that side."""

_LOW, _HIGH = (
    r"(?:lo|low|lower|min|minimum)(?: (?:end|bound|limit))?",
    r"(?:hi|high|upper|max|maximum)(?: (?:end|bound|limit))?",
)
_R, _G = r"(?:r|res|resistance)", r"(?:g|cond|conductance)"
_DONE = r"(?:final|achieved|reached|last|end|read|measured)"
_COUNTS = ("attempts", "n_set", "n_reset", "n_read")
_EXAMPLE = (
    "--columns device=0,resistance_low=1,resistance_high=2,resistance=3,success=4 "
    "(or target_low, target_high and conductance)"
)
_WORDS = {"true": 1, "yes": 1, "ok": 1, "pass": 1, "passed": 1, "false": 0, "no": 0, "fail": 0, "failed": 0}


class WriteVerifyReader(Reader):
    """A table with one row per write: device (an address), target range, achieved value, success, attempts.

    The range and the achieved value are conductances (target_low, target_high, conductance) or resistances
    (resistance_low, resistance_high, resistance); the ends of a range in ohm change places in siemens. A range is open
    where it ends at 0 or at 1e10 ohm (0 S and infinite S). Numbers of set, reset and read pulses are kept where there
    are such columns; other columns go to the node extra. A file without names is read once --columns names its columns.
    """

    name = "write-verify"
    suffixes = (".csv", ".tsv", ".txt", ".dat", ".gz")
    name_map: Mapping[str, str] = {
        "device": r"(?:device|dev|cell|dut|addr|address|memristor)(?: (?:id|no|number|name|index|address))?",
        "row": r"(?:row|wl|wlv?|word ?line)",
        "column": r"(?:col|column|bl|blv?|bit ?line)",
        "die": r"(?:die|chip)(?: (?:id|no|number))?",
        "wafer": r"wafer(?: (?:id|no|number))?",
        "cycle": r"(?:cycle|cyc|loop|repeat|repetition|run|iteration|cycle (?:no|number|index))",
        "state": r"(?:state|level|lvl|range|level (?:no|number|index)|target (?:level|state))",
        "temperature": r"(?:temp|temperature)",
        "target_low": rf"(?:target )?{_G} ?(?:target )?{_LOW}|target ?{_LOW}|{_LOW} (?:target|(?:target )?{_G})",
        "target_high": rf"(?:target )?{_G} ?(?:target )?{_HIGH}|target ?{_HIGH}|{_HIGH} (?:target|(?:target )?{_G})",
        "resistance_low": rf"(?:target )?{_R} ?(?:target )?{_LOW}|{_LOW} (?:target )?{_R}",
        "resistance_high": rf"(?:target )?{_R} ?(?:target )?{_HIGH}|{_HIGH} (?:target )?{_R}",
        "conductance": rf"(?:{_DONE} )?{_G}(?: {_DONE})?|g ?f|achieved|{_G} ?{_DONE}",
        "resistance": rf"(?:{_DONE} )?{_R}(?: {_DONE})?|r ?f|{_R} ?{_DONE}",
        "success": r"(?:success|successful|succeeded|ok|pass|passed|done|converged)",
        "attempts": r"(?:n ?)?(?:attempts?|tries|trials|iterations|write attempts)",
        "n_set": r"(?:n ?|num |number of )?sets?(?: ?pulses| ?count)?",
        "n_reset": r"(?:n ?|num |number of )?resets?(?: ?pulses| ?count)?",
        "n_read": r"(?:n ?|num |number of )?reads?(?: ?pulses| ?count)?",
    }

    def sniff(self, path: Path) -> Sniff:
        with open(path, "rb") as file:
            head = file.read(65536)
        if kind_of_bytes(head) is not None and not head.startswith((b"\x1f\x8b", b"PK")):
            return Sniff(0.0, "no table of text")
        for row in names_in_head(path):
            roles = {recognise(cell, None, self.name_map)[0] for cell in row}
            if (
                _has_range(roles)
                and roles & {"conductance", "resistance"}
                and roles & {"success", *_COUNTS}
                and looks_numeric(head)
                and looks_numeric(head)
            ):
                return Sniff(0.8, "its columns are target range, achieved value and success or attempts")
        return Sniff(0.02, "no columns of a target range and of what was achieved")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        if path.suffix.lower() in SPREADSHEETS:
            tables = read_workbook(path, options.sheets)[0]
        else:
            tables = [read_text(path, options.skip_rows)]
        trees = [self._table(path, table, options) for table in tables]
        tree = merge([part for parts in trees for part in parts])
        source = {"name": path.name, "sha256": sha256_of(path), "reader": self.name, "why": tables[0].layout}
        tree.attrs["sources"] = build({}, [source]).attrs["sources"]
        return tree

    def _table(self, path: Path, table: Table, options: ReadOptions) -> list[Measurement]:
        where = f"{path.name} (sheet '{table.name}')" if table.name else path.name
        width = table.values.shape[1]
        columns = assign(where, table.names, table.units, width, options.columns, options.units, self.name_map)
        by_role = {c.role: c for c in columns if c.role is not None}
        if not _has_range(set(by_role)) or not {"conductance", "resistance"} & set(by_role):
            found = ", ".join(c.shown for c in columns[:14]) if any(table.names) else f"no header and {width} columns"
            raise ReadError(
                f"'{where}': found {found} (first row: {table.first_row()}), expected a target range and what was "
                f"achieved; say which column is which, for example {_EXAMPLE}"
            )
        values, notes = _values(where, table, by_role)
        if not np.isfinite(values["achieved"]).any():
            raise ReadError(f"'{where}': its column of achieved values holds no numbers; name another with --columns")
        rows = flat.Rows.of(path.name, table, [c for c in columns if c.role in _LABELS], stem_of(path), -1)
        labels = {key: rows.labels[key] for key in (*_LABELS, "cycle", "device") if key in rows.labels}
        if "cycle" not in by_role:
            labels["cycle"] = _numbered(labels["device"])
            notes.append(f"'{where}': the writes of each device are numbered in the order of the file")
        stated = one_temperature(collect(table.preamble, options.units.get("temperature")).temperatures)[0]
        given = options.temperature if np.isfinite(options.temperature) else labels.get("temperature", stated)
        node = writes_node(values, {**labels, "temperature": given})
        node.attrs.update(flat.sentences(node, [], [*(f"'{where}': {n}" for n in table.notes), *notes]))
        rest = [c for c in columns if c.role is None]
        return [build({"writes": node}, []), *flat.kept_columns(where, table, rest)]


_LABELS = ("device", "row", "column", "die", "wafer", "cycle", "state", "temperature")


def _has_range(roles: set[str | None]) -> bool:
    return {"target_low", "target_high"} <= roles or {"resistance_low", "resistance_high"} <= roles


def _values(where: str, table: Table, by_role: Mapping[str, Column]) -> tuple[dict[str, NDArray[Any]], list[str]]:
    """Return the variables of the node writes, and notes on what was done to get them."""
    notes: list[str] = []
    values: dict[str, NDArray[Any]] = {}
    kind = "target" if {"target_low", "target_high"} <= set(by_role) else "resistance"
    low, high = (by_role[f"{kind}_{end}"] for end in ("low", "high"))
    if kind == "resistance" or _is_resistance(low):
        lower, upper = (_si(where, table, column, "resistance") for column in (low, high))
        values |= {"target_low": _inverse(upper), "target_high": _inverse(lower)}
        values["target_low"][upper >= OPEN_RESISTANCE] = 0.0
        values["target_high"][lower <= 0] = np.inf
        notes.append(f"'{where}': target ranges are resistances; their ends change places in siemens")
    else:
        values |= {
            "target_low": _si(where, table, low, "conductance"),
            "target_high": _si(where, table, high, "conductance"),
        }
    ends = int((values["target_low"] <= 0).sum()), int(np.isinf(values["target_high"]).sum())
    if any(ends):
        notes.append(f"'{where}': {ends[0]} target ranges are open at low conductance and {ends[1]} at high")
    swapped = values["target_low"] > values["target_high"]
    if swapped.any():
        notes.append(f"'{where}': {int(swapped.sum())} target ranges have their upper end first and are turned round")
        both = np.where(swapped, values["target_high"], values["target_low"])
        values["target_high"] = np.where(swapped, values["target_low"], values["target_high"])
        values["target_low"] = both
    column = by_role.get("conductance") or by_role["resistance"]
    if column.role == "resistance" or _is_resistance(column):
        resistance = _si(where, table, column, "resistance")
        values["achieved"] = _inverse(resistance)
        if zeros := int((resistance == 0).sum()):
            notes.append(f"'{where}': {zeros} achieved resistances are 0 and have no conductance; they count as blank")
    else:
        values["achieved"] = _si(where, table, column, "conductance")
    if "success" in by_role:
        values["success"] = _truth(table, by_role["success"])
    values |= {name: _whole(table.values[:, by_role[name].index]) for name in _COUNTS if name in by_role}
    return values, notes


def _is_resistance(column: Column) -> bool:
    if column.unit is None:
        return False
    try:
        factor(column.unit, "resistance")
    except UnitError:
        return False
    return True


def _si(where: str, table: Table, column: Column, quantity: str) -> NDArray[np.float64]:
    return convert(where, table.values[:, column.index], column, quantity)


def _inverse(values: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.where(values == 0, np.nan, 1.0 / values)


def _truth(table: Table, column: Column) -> NDArray[np.int64]:
    """Return 1 for success, 0 for failure and -1 where the file does not say."""
    if column.index in table.texts:
        return np.array([_WORDS.get(text.lower(), -1) for text in table.texts[column.index]], dtype=np.int64)
    numbers = table.values[:, column.index]
    return np.where(np.isfinite(numbers), numbers != 0, -1).astype(np.int64)


def _whole(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return counts, -1 where they are blank or no counts."""
    return np.where((numbers >= 0) & (numbers < 2**53), numbers, -1).astype(np.int64)


def _numbered(devices: NDArray[Any]) -> NDArray[np.int64]:
    """Return how many rows of the same device stand above each row."""
    _, codes = np.unique(devices, return_inverse=True)
    order = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[order], codes[order])
    result = np.empty(len(codes), dtype=np.int64)
    result[order] = np.arange(len(codes)) - starts
    return result


member = WriteVerifyReader()
