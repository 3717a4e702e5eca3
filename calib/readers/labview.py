"""LabVIEW measurement files (.lvm)."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from calib.columns import NAME_MAP, Column, assign, convert, recognise
from calib.errors import ReadError
from calib.files import stem_of
from calib.measurement import Measurement
from calib.readers._terminals import Run, Terminal, measurement_of
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import collect, in_name, one_temperature
from calib.table_layout import number
from calib.tables import read_head, read_lines

Array = NDArray[np.float64]

_END = "***End_of_Header***"
_SEPARATORS = {"tab": "\t", "comma": ",", "semicolon": ";"}
_UNITS = {"volts": "V", "volt": "V", "amps": "A", "amperes": "A", "ampere": "A", "amp": "A"}
_X = re.compile(r"x_value", re.IGNORECASE)


@dataclass
class _Segment:
    """One segment: its header by key, its names, its rows of cells."""

    header: dict[str, list[str]] = field(default_factory=dict)
    names: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


class Labview(Reader):
    """`LabVIEW Measurement`, a header of `key<TAB>value` to `***End_of_Header***`, then segments.

    A segment has a header of its own (`Channels`, `Y_Unit_Label`, `X_Dimension`, `X0`, `Delta_X`, with a cell for each
    channel) to `***End_of_Header***`, a row of names `X_Value  Voltage  Current  Comment`, and the rows. `Separator`
    and `Decimal_Separator` of the first header hold; with `X_Columns  No` the first cell is blank and the time is X0 +
    n Delta_X. Each segment is a sweep. Channels are known by their unit and name; --columns names them otherwise, and
    two channels in volts need --series-resistance (I = V2 / R, the device's voltage V1 - V2). Tabbed text without this
    header is a table.
    """

    name = "labview"
    suffixes = (".lvm",)
    name_map: Mapping[str, str] = NAME_MAP

    def sniff(self, path: Path) -> Sniff:
        lines = read_head(path)
        if lines and lines[0].strip().lower().startswith("labview measurement"):
            return Sniff(0.95, "the first line is 'LabVIEW Measurement'")
        if any(line.strip().startswith(_END) for line in lines):
            return Sniff(0.8, f"a line '{_END}'")
        return Sniff(0.0, "no header of LabVIEW")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        header, segments = _parse(read_lines(path, options.skip_rows))
        segments = [segment for segment in segments if segment.rows and segment.names]
        if not segments:
            raise ReadError(
                f"'{path.name}' holds no rows of numbers after '{_END}' and a row of names; save the measurement again"
            )
        decimal = (header.get("Decimal_Separator") or ["."])[0] or "."
        stated = [[key, " ".join(cells)] for key, cells in header.items() if re.search("desc|notes|temp", key.lower())]
        kelvin, conflict = one_temperature([*collect(stated).temperatures, *in_name(path.name, "file's name")])
        questions = []
        if conflict and not np.isfinite(options.temperature):
            questions.append(f"'{path.name}' states more than one temperature: {conflict}; give --temperature KELVIN")
        notes: list[str] = []
        runs = []
        for segment in segments:
            run = _run(path, segment, decimal, options, notes)
            runs.append(replace(run, temperature=kelvin))
        plain = replace(options, columns={}, units={})
        return measurement_of(path, runs, plain, notes, questions, "LabVIEW")


def _parse(lines: Sequence[str]) -> tuple[dict[str, list[str]], list[_Segment]]:
    """Return the file's header and its segments; every line _END ends the header of a segment but the first."""
    separator = "\t"
    for line in lines[:60]:
        match = re.match(r"Separator[\t,;]\s*(\w+)", line)
        if match:
            separator = _SEPARATORS.get(match[1].lower(), "\t")
    header: dict[str, list[str]] = {}
    segments: list[_Segment] = []
    keys: dict[str, list[str]] = {}
    ends = [k for k, line in enumerate(lines) if line.strip().startswith(_END)]
    in_header = True
    for index, line in enumerate(lines):
        cells = [cell.strip() for cell in line.split(separator)]
        if index in ends[:1]:
            header, keys = keys, {}
            in_header = len(ends) > 1
            if not in_header:
                segments.append(_Segment(header))
        elif line.strip().startswith(_END):
            segments.append(_Segment(keys))
            keys, in_header = {}, False
        elif not any(cells):
            continue
        elif not in_header and cells[0] == "Channels":  # the header of a further segment
            in_header, keys = True, {cells[0]: cells[1:]}
        elif in_header:
            keys.setdefault(cells[0], cells[1:])
        elif not segments[-1].names:
            segments[-1].names = cells
        else:
            segments[-1].rows.append(cells)
    return header, segments


def _run(path: Path, segment: _Segment, decimal: str, options: ReadOptions, notes: list[str]) -> Run:
    """Return a segment with its voltage, current and time named V, I and Time, in SI units."""
    names = [name for name in segment.names if name.lower() != "comment"]
    values = np.full((len(segment.rows), len(names)), np.nan)
    for k, row in enumerate(segment.rows):
        for j, cell in enumerate(row[: len(names)]):
            value = number(cell, decimal)
            values[k, j] = np.nan if value is None or np.isinf(value) else value
    columns = _columns(path, segment, names, options)
    chosen = {c.role: c for c in columns if c.role in ("voltage", "current", "time")}
    run: dict[str, Array] = {}
    series = options.series_resistance
    volts = [c for c in columns if c.role == "voltage"]
    if "current" not in chosen and len(volts) == 2 and np.isfinite(series):
        v1, v2 = (convert(path.name, values[:, c.index], replace(c, role="voltage"), "voltage") for c in volts)
        run |= {"V": v1 - v2, "I": v2 / series}
        used = {c.index for c in volts}
        note = f"'{path.name}': current = {volts[1].header} / {series:g} ohm, voltage of the device = the difference"
        notes += [note] if note not in notes else []
    elif not {"voltage", "current"} <= set(chosen):
        raise ReadError(
            f"'{path.name}': found channels {', '.join(names)}, expected voltage and current; say which they are, for "
            "example --columns voltage=1,current=2, or give --series-resistance OHM where the second one is in volts"
        )
    else:
        run |= {key: convert(path.name, values[:, chosen[role].index], chosen[role], role)
                for key, role in (("V", "voltage"), ("I", "current"))}  # fmt: skip
        used = {chosen[role].index for role in ("voltage", "current")}
    time = _time(segment, names, values, decimal)
    if time is not None:
        run["Time"] = time
    kept = {names[c.index] or f"column {c.index}": values[:, c.index] for c in columns if c.index not in used}
    for name, column in kept.items():
        if not _X.fullmatch(name):
            run[name if name not in run else f"{name}_"] = column
    return Run(run, [Terminal("channels", "V", "I", "sweep")], stem_of(path), {"V": "V", "I": "A"})


def _columns(path: Path, segment: _Segment, names: Sequence[str], options: ReadOptions) -> list[Column]:
    """Say what each channel is, from its unit in Y_Unit_Label and its name, after what the user says."""
    labels = iter(segment.header.get("Y_Unit_Label", []))
    result = []
    forced = assign(path.name, names, [], len(names), options.columns, {})
    for index, name in enumerate(names):
        if _X.fullmatch(name):
            result.append(Column(index, name, None, None))
            continue
        label = next(labels, "")
        unit = _UNITS.get(label.lower(), label) or None
        role, own = recognise(re.sub(r"_\d+$", "", name), unit)
        if role not in ("voltage", "current"):
            role = {"V": "voltage", "A": "current"}.get(unit or "", role)
        role = forced[index].role if forced[index].role in options.columns else role
        if role in options.columns and forced[index].role != role:
            role = None
        result.append(Column(index, name, role, options.units.get(role or "", own or unit)))
    return result


def _time(segment: _Segment, names: Sequence[str], values: Array, decimal: str) -> Array | None:
    """Return the time [s]: the column X_Value, or X0 + n Delta_X; None where X is not the time."""
    if (segment.header.get("X_Dimension") or ["Time"])[0] != "Time":
        return None
    column = next((k for k, name in enumerate(names) if _X.fullmatch(name)), None)
    if column is not None and np.isfinite(values[:, column]).all():
        return values[:, column]
    start, step = (number((segment.header.get(key) or ["x"])[0], decimal) for key in ("X0", "Delta_X"))
    if start is None or step is None:
        return None
    return np.asarray(start + step * np.arange(len(values)), dtype=np.float64)


member = Labview()
