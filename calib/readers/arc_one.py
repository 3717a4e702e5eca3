"""ArC ONE csv."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.columns import normalised
from calib.errors import ReadError
from calib.measurement import Measurement, Trace, build, extra_node, iv_node, merge, padded, pulses_node, reads_node
from calib.readers._table_reads import sentences
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import collect, in_name, one_temperature
from calib.tables import Table, read_head, read_text
from calib.units import parse_header

Array = NDArray[np.float64]
Rows = NDArray[np.int64]

_MAP = {
    "row": r"word ?line",
    "column": r"bit ?line",
    "resistance": r"resistance",
    "amplitude": r"amplitude|voltage",
    "width": r"pulse ?width",
    "tag": r"tag",
    "read_tag": r"read ?tag",
    "read_voltage": r"read ?voltage",
}
_NEEDED = ("row", "column", "resistance", "amplitude", "width")
_SHORT_RUNS = 2.0  # pulses of one sign come, on average, at least so many in a row: a series of their own


class ArcOne(Reader):
    """`Wordline,Bitline,Resistance,Amplitude (V),Pulse width (s),Tag,ReadTag,ReadVoltage`, below a name and a date.

    One row is one operation on the cell at a word line and a bit line; the resistance [ohm] is the one read at
    ReadVoltage after it. Rows of pulse width 0 are reads and go to the node reads, one trace per cell. Rows with a
    width are pulses and go to the node pulses, cut where the amplitude changes its sign (not where the signs
    alternate). Rows tagged CT (the curve tracer) are points of a sweep with I = V / R and go to the node iv, one trace
    from `CT_s` to `CT_e`. Tags, and with them the order of all rows, are kept in the node extra.
    """

    name = "arc-one"
    suffixes = (".csv",)
    name_map: Mapping[str, str] = _MAP

    def sniff(self, path: Path) -> Sniff:
        for line in read_head(path):
            names = [normalised(parse_header(cell)[0]) for cell in line.split(",")]
            if {"wordline", "bitline", "resistance", "pulse width"} <= set(names):
                return Sniff(0.95, "the columns of an ArC ONE: Wordline, Bitline, Resistance, Pulse width")
        return Sniff(0.0, "no columns Wordline, Bitline, Resistance, Pulse width")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        table = read_text(path, options.skip_rows)
        values, texts = _columns(path, table)
        kelvin, questions = _temperature(path, table, options)
        tracer = np.char.startswith(texts["tag"], "CT")
        pulsed = (values["width"] > 0) & ~tracer
        read = ~pulsed & ~tracer
        notes = [f"'{path.name}': {note}" for note in table.notes]
        notes.append(
            f"'{path.name}': {int(read.sum())} reads, {int(pulsed.sum())} pulses and {int(tracer.sum())} points of the "
            "curve tracer (current = amplitude / resistance)"
        )
        with np.errstate(divide="ignore"):
            values["conductance"] = np.where(values["resistance"] == 0, np.nan, 1.0 / values["resistance"])
        cells = _cells(values)
        nodes: dict[str, Any] = {}
        if (traces := _sweeps(values, texts["tag"], tracer, cells, kelvin)) and any(len(t.voltage) for t in traces):
            nodes["iv"] = iv_node(traces)
        if np.isfinite(values["conductance"][read]).any():
            nodes["reads"] = _reads(values, read, cells, kelvin)
        if np.isfinite(values["conductance"][pulsed]).any():
            nodes["pulses"] = _pulses(values, pulsed, cells, kelvin)
        if not nodes:
            raise ReadError(f"'{path.name}' holds no resistance that is a number; expected ohms in the third column")
        parts = [build({name: node}, []) for name, node in nodes.items()]
        tree = merge([*parts, build({"extra": _tags(path, values, texts)}, [])])
        tree.attrs["instrument"] = "ArC ONE"
        first = next(iter(tree.children.values()))
        first.attrs.update(sentences(first, questions, notes))
        return tree


def _columns(path: Path, table: Table) -> tuple[dict[str, Array], dict[str, NDArray[np.str_]]]:
    """Return the numbers and the texts of the columns by what they are."""
    found: dict[str, int] = {}
    for index, name in enumerate(table.names):
        text = normalised(parse_header(name)[0])
        role = next((role for role, pattern in _MAP.items() if re.fullmatch(pattern, text)), None)
        if role is not None:
            found.setdefault(role, index)
    missing = [role for role in _NEEDED if role not in found]
    if missing:
        raise ReadError(
            f"'{path.name}' has the columns {', '.join(table.names) or 'without names'}, expected Wordline, Bitline, "
            "Resistance, Amplitude (V), Pulse width (s); choose another reader with --reader"
        )
    size = len(table.values)
    values = {role: table.values[:, index] for role, index in found.items() if role not in ("tag", "read_tag")}
    values.setdefault("read_voltage", np.full(size, np.nan))
    texts = {role: table.texts.get(found.get(role, -1), np.full(size, "", dtype="<U1")) for role in ("tag", "read_tag")}
    whole = np.isfinite(values["row"]) & np.isfinite(values["column"]) & (np.abs(values["row"]) < 1e9)
    whole &= np.abs(values["column"]) < 1e9
    if not whole.any():
        raise ReadError(f"'{path.name}' names no word line and bit line as numbers; expected 1, 2, 3...")
    return {k: v[whole] for k, v in values.items()}, {k: v[whole] for k, v in texts.items()}


def _temperature(path: Path, table: Table, options: ReadOptions) -> tuple[float, list[str]]:
    if np.isfinite(options.temperature):
        return options.temperature, []
    kelvin, conflict = one_temperature([*collect(table.preamble).temperatures, *in_name(path.name, "file's name")])
    if conflict:
        return kelvin, [f"'{path.name}' states more than one temperature: {conflict}; give --temperature KELVIN"]
    return kelvin, []


def _cells(values: Mapping[str, Array]) -> list[tuple[int, int, Rows]]:
    """Return word line, bit line and rows of each cell, in order of appearance."""
    lines = np.column_stack([values["row"], values["column"]]).astype(np.int64)
    unique, first, inverse = np.unique(lines, axis=0, return_index=True, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    groups = np.split(order, np.cumsum(np.bincount(inverse.ravel()))[:-1])
    return [(int(unique[k, 0]), int(unique[k, 1]), groups[k]) for k in np.argsort(first)]


def _sweeps(
    values: Mapping[str, Array],
    tag: NDArray[np.str_],
    tracer: NDArray[np.bool_],
    cells: list[tuple[int, int, Rows]],
    kelvin: float,
) -> list[Trace]:
    """Return one trace per cell and run of the curve tracer, which its tags CT_s begin."""
    traces = []
    for row, column, rows in cells:
        own = rows[tracer[rows]]
        starts = np.flatnonzero(np.char.endswith(tag[own], "_s"))
        for part in np.split(own, starts[starts > 0]):
            voltage = values["amplitude"][part]
            current = np.where(voltage == 0, 0.0, voltage * values["conductance"][part])
            if np.isfinite(current).any():
                place = {"row": row, "column": column}
                traces.append(Trace(voltage, current, f"{row}-{column}", temperature=kelvin, place=place))
    return traces


def _reads(
    values: Mapping[str, Array], read: NDArray[np.bool_], cells: list[tuple[int, int, Rows]], kelvin: float
) -> Any:
    kept = [(row, column, rows[read[rows]]) for row, column, rows in cells if read[rows].any()]
    variables = {
        name: padded([values[key][rows] for _, _, rows in kept])
        for name, key in (("conductance", "conductance"), ("voltage", "read_voltage"))
    }
    return reads_node(variables, _places(kept, kelvin))


def _pulses(
    values: Mapping[str, Array], pulsed: NDArray[np.bool_], cells: list[tuple[int, int, Rows]], kelvin: float
) -> Any:
    """Return the node pulses: sequences of pulses of one sign, or of both where the signs alternate."""
    kept: list[tuple[int, int, Rows]] = []
    polarity = []
    for row, column, rows in cells:
        own = rows[pulsed[rows]]
        if not len(own):
            continue
        sign = np.sign(values["amplitude"][own])
        turns = np.flatnonzero(np.diff(sign) != 0) + 1
        parts = np.split(own, turns) if len(own) / (len(turns) + 1) >= _SHORT_RUNS else [own]
        for part in parts:
            signs = set(np.sign(values["amplitude"][part]).tolist())
            polarity.append({(1.0,): "positive", (-1.0,): "negative"}.get(tuple(signs), ""))
            kept.append((row, column, part))
    variables = {
        name: padded([values[name][rows] for _, _, rows in kept]) for name in ("amplitude", "width", "read_voltage")
    }
    variables["conductance"] = padded([values["conductance"][rows] for _, _, rows in kept])[:, :, None]
    variables["count"] = np.where(np.isfinite(variables["amplitude"]), 1.0, np.nan)
    return pulses_node(variables, {**_places(kept, kelvin), "polarity": polarity})


def _places(kept: list[tuple[int, int, Rows]], kelvin: float) -> dict[str, Any]:
    return {
        "device": [f"{row}-{column}" for row, column, _ in kept],
        "row": [row for row, _, _ in kept],
        "column": [column for _, column, _ in kept],
        "temperature": kelvin,
    }


def _tags(path: Path, values: Mapping[str, Array], texts: Mapping[str, NDArray[np.str_]]) -> Any:
    columns: dict[str, tuple[NDArray[Any], str, str]] = {
        "Wordline": (values["row"].astype(np.int64), "1", "Wordline"),
        "Bitline": (values["column"].astype(np.int64), "1", "Bitline"),
        "Tag": (texts["tag"], "1", "Tag"),
        "ReadTag": (texts["read_tag"], "1", "ReadTag"),
    }
    return extra_node(columns, path.name)


member = ArcOne()
