"""MATLAB files (.mat) of both generations: 4 to 7.2 through scipy, 7.3 (HDF5) through h5py."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.columns import CANONICAL, NAME_MAP, Column, convert, normalised, recognise
from calib.errors import ReadError
from calib.files import stem_of
from calib.measurement import Measurement, Trace, build, extra_node, iv_node, merge, padded, reads_node
from calib.readers import _table_reads as flat
from calib.readers._mat_files import is_hdf5, load
from calib.readers.base import Reader, ReadOptions, Sniff
from calib.statements import Statements

_LABELS = ("temperature", "compliance", "series_resistance", "gate_voltage")
_SHOWN = 12


@dataclass(frozen=True)
class _Variable:
    """An array, or a cell array of arrays, with the struct that holds it ('' at the top)."""

    group: str
    name: str
    value: Any

    @property
    def path(self) -> str:
        return f"{self.group}.{self.name}" if self.group else self.name

    @property
    def shown(self) -> str:
        if isinstance(self.value, str):
            return f"{self.path} (text)"
        if isinstance(self.value, list):
            return f"{self.path} ({len(self.value)} cells)"
        return f"{self.path} ({' x '.join(map(str, self.value.shape))})"


@dataclass
class _Found:
    traces: list[Trace] = field(default_factory=list)
    reads: list[Measurement] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)


class MatlabReader(Reader):
    """Variables of voltage and current, or of resistance or conductance, at the top of the file or in structs.

    A vector is one curve; a matrix holds one curve per column; a cell array or a struct array one per element. A
    voltage may be shared by all curves. Names are those of `calib.columns`, with or without a unit ('i_uA'). Scalars
    and texts called temperature, compliance, device... hold for the curves of their struct and of those within it.
    Other numbers are kept in the node extra; objects and function handles are left out with a note.
    """

    name = "matlab"
    suffixes = (".mat",)
    name_map: Mapping[str, str] = NAME_MAP

    def sniff(self, path: Path) -> Sniff:
        with open(path, "rb") as file:
            head = file.read(1024)
        if head.startswith(b"MATLAB ") and b"MAT-file" in head[:128]:
            return Sniff(1.0, f"starts with '{head[:19].decode('latin-1').strip()}'")
        if path.suffix.lower() == ".mat":
            return Sniff(0.95 if is_hdf5(head) else 0.45, "a .mat file")
        return Sniff(0.0, "does not start as a MATLAB file")

    def read(self, path: Path, options: ReadOptions) -> Measurement:
        content, ignored = load(path)
        variables = list(_flatten(content, ""))
        found = _Found()
        if ignored:
            listed = ", ".join(list(dict.fromkeys(ignored))[:_SHOWN])
            found.notes.append(f"'{path.name}': objects, functions, sparse or complex variables are left out: {listed}")
        groups = _groups(path, variables, options)
        usable = [group for group in groups if _is_usable(group)]
        if not usable:
            raise _nothing(path, variables)
        for members in usable:
            _interpret(path, members, variables, len(usable) > 1, options, found)
        parts = [*found.reads, *_rest(path, variables, found)]
        if found.traces:
            parts.insert(0, build({"iv": iv_node(found.traces, found.questions, found.notes)}, []))
        elif parts and "reads" in parts[0].children:
            node = parts[0].children["reads"]
            node.attrs.update(flat.sentences(node, found.questions, found.notes))
        if not found.traces and not found.reads:
            raise ReadError(
                f"'{path.name}': its variables of voltage and current hold no numbers; name others with --columns"
            )
        return merge(parts)


_Member = tuple[Column, _Variable]


def _flatten(content: Mapping[str, Any], group: str) -> Iterator[_Variable]:
    for name, value in content.items():
        path = f"{group}.{name}" if group else name
        if isinstance(value, dict):
            yield from _flatten(value, path)
        elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
            for k, item in enumerate(value, start=1):
                inside = item if isinstance(item, dict) else {"value": item}
                yield from _flatten(inside, f"{path}({k})")
        elif isinstance(value, str) or (len(value) if isinstance(value, list) else value.size):
            yield _Variable(group, name, value)


def _groups(path: Path, variables: Sequence[_Variable], options: ReadOptions) -> list[list[_Member]]:
    """Return the recognised variables, by the struct that holds them; those of --columns are one group."""
    if options.columns:
        chosen = [_chosen(path, variables, role, where, options) for role, where in options.columns.items()]
        taken = {variable.path for _, variable in chosen}
        roles = {column.role for column, _ in chosen}
        labels = [m for m in _recognised(variables, options) if m[0].role in ("device", "cycle", *_LABELS)]
        top = [m for m in labels if not m[1].group and m[1].path not in taken and m[0].role not in roles]
        return [[*chosen, *top]]
    groups: dict[str, list[_Member]] = {}
    for member in _recognised(variables, options):
        groups.setdefault(member[1].group, []).append(member)
    return list(groups.values())


def _recognised(variables: Sequence[_Variable], options: ReadOptions) -> list[_Member]:
    result = []
    for index, variable in enumerate(variables):
        role, unit = recognise(variable.name)
        if role is not None and role not in ("absolute current", "transistor"):
            result.append((Column(index, variable.path, role, options.units.get(role, unit)), variable))
    return result


def _chosen(path: Path, variables: Sequence[_Variable], role: str, where: int | str, options: ReadOptions) -> _Member:
    """Return the variable that --columns names: by its name, or as a column of the only matrix of the file."""
    if role not in CANONICAL:
        raise ReadError(f"--columns {role}={where}: '{role}' is no kind of column; known are {', '.join(CANONICAL)}")
    unit = options.units.get(role)
    text = str(where).strip()
    for index, variable in enumerate(variables):
        if text in (variable.path, variable.name) or normalised(text) == normalised(variable.path):
            return Column(index, variable.path, role, unit or recognise(variable.name)[1]), variable
    if re.fullmatch(r"\d+", text):
        arrays = [v for v in variables if not isinstance(v.value, list | str)]
        matrices = [v for v in arrays if min(v.value.shape) > 1]
        if len(matrices) == 1 and int(text) < matrices[0].value.shape[1]:
            part = matrices[0].value.reshape(len(matrices[0].value), -1)[:, int(text)]
            name = f"{matrices[0].name}(:,{int(text) + 1})"
            return Column(int(text), name, role, unit), _Variable(matrices[0].group, name, part[:, None])
    raise ReadError(f"--columns {role}={where}: '{path.name}' has no such variable; it holds {_listed(variables)}")


def _is_usable(members: Sequence[_Member]) -> bool:
    roles = {column.role for column, variable in members if not isinstance(variable.value, str)}
    return {"voltage", "current"} <= roles or bool(roles & set(flat.VALUES))


def _nothing(path: Path, variables: Sequence[_Variable]) -> ReadError:
    return ReadError(
        f"'{path.name}' holds {_listed(variables)}; expected voltage and current, or resistance or conductance; "
        "say which variable is which: --columns voltage=NAME,current=NAME"
    )


def _listed(variables: Sequence[_Variable]) -> str:
    shown = ", ".join(v.shown for v in variables[:_SHOWN])
    return (shown + (", ..." if len(variables) > _SHOWN else "")) or "no variables with numbers"


def _interpret(
    path: Path,
    members: Sequence[_Member],
    variables: Sequence[_Variable],
    several: bool,
    options: ReadOptions,
    found: _Found,
) -> None:
    """Turn the variables of one struct into traces or reads."""
    group = members[0][1].group
    found.used |= {variable.path for _, variable in members}
    labels = _labels(path, group, variables, members, options, found)
    curves = {role: _curves(path, members, role) for role in ("voltage", "current", "time", *flat.VALUES)}
    stem = group if several and group else stem_of(path)
    if curves["voltage"] and curves["current"]:
        pairs = _paired(path, group, curves)
        if not flat.is_constant(pairs[0][0]):
            devices, cycles = _who(path, group, labels, stem, len(pairs), options, found)
            numbers = {key: labels[key] for key in _LABELS if key in labels}
            found.traces += [
                Trace(v, i, device, t, cycle, **numbers)
                for (v, i, t), device, cycle in zip(pairs, devices, cycles, strict=True)
                if (np.isfinite(v) & np.isfinite(i)).any()
            ]
            return
    for state in ("", "_lrs", "_hrs"):
        for quantity in ("conductance", "resistance"):
            if curves[quantity + state]:
                values = curves[quantity + state]
                _reads(path, group, quantity, state[1:], values, curves, labels, stem, options, found)
                break
    if not any(curves[role] for role in flat.VALUES):
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = [np.where(v == 0, np.nan, i / v) for v, i, _ in _paired(path, group, curves)]
        found.notes.append(
            f"'{path.name}': the voltage is steady, so these are reads; conductance is current / voltage"
        )
        _reads(path, group, "conductance", "", ratio, curves, labels, stem, options, found)


def _curves(path: Path, members: Sequence[_Member], role: str) -> list[NDArray[np.float64]]:
    """Return the curves [SI] of a role: one per column of a matrix and per cell, of all its variables."""
    result = []
    lengths = [max(v.value.shape) for c, v in members if c.role in ("voltage", "time") and _is_vector(v.value)]
    quantity = role.partition("_")[0] if role in flat.VALUES else role
    for column, variable in members:
        if column.role != role or isinstance(variable.value, str):
            continue
        value = variable.value
        if isinstance(value, list):
            parts = [np.ravel(item) for item in value if not isinstance(item, str)]
        elif _is_vector(value):
            parts = [np.ravel(value)]
        else:
            matrix = value.reshape(len(value), -1)
            rows = lengths and matrix.shape[0] not in lengths and matrix.shape[1] in lengths
            parts = list(matrix if rows else matrix.T)
        result += [convert(path.name, part, column, quantity) for part in parts if part.size > 1 or len(parts) > 1]
    return result


def _is_vector(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.size == max(value.shape)


def _paired(
    path: Path, group: str, curves: Mapping[str, list[NDArray[np.float64]]]
) -> list[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]]:
    voltages, currents, times = curves["voltage"], curves["current"], curves["time"]
    voltages = voltages * len(currents) if len(voltages) == 1 else voltages
    where = f"'{path.name}'{f' ({group})' if group else ''}"
    if len(voltages) != len(currents):
        raise ReadError(
            f"{where}: found {len(voltages)} curves of voltage and {len(currents)} of current; expected as many, or "
            "one voltage for all; name the variables with --columns voltage=NAME,current=NAME"
        )
    for v, i in zip(voltages, currents, strict=True):
        if len(v) != len(i):
            raise ReadError(
                f"{where}: a curve of current has {len(i)} points but its voltage has {len(v)}; expected as many; "
                "name the variables with --columns voltage=NAME,current=NAME"
            )
    times = times * len(currents) if len(times) == 1 else times
    fitting = len(times) == len(currents) and all(len(t) == len(v) for t, v in zip(times, voltages, strict=True))
    return list(zip(voltages, currents, times if fitting else [None] * len(currents), strict=True))


def _labels(
    path: Path,
    group: str,
    variables: Sequence[_Variable],
    members: Sequence[_Member],
    options: ReadOptions,
    found: _Found,
) -> dict[str, Any]:
    """Return what scalars and texts of this struct and of those around it say: SI numbers, device and cycle."""
    outer = [m for m in _recognised(variables, options) if group.startswith(m[1].group) and m[1].group != group]
    labels: dict[str, Any] = {}
    for column, variable in [*outer, *members]:
        role, value = str(column.role), variable.value
        if role in ("device", "cycle"):
            labels[role] = [value] if isinstance(value, str) else value if isinstance(value, list) else np.ravel(value)
        elif role in _LABELS and isinstance(value, str):
            labels[role] = Statements({role: value}).si(role, column.unit)
        elif role in _LABELS and not isinstance(value, list) and value.size == 1:
            labels[role] = float(convert(path.name, np.ravel(value), column, role)[0])
        else:
            continue
        found.used.add(variable.path)
    if np.isfinite(options.temperature):
        labels["temperature"] = options.temperature
    return labels


def _who(
    path: Path, group: str, labels: Mapping[str, Any], stem: str, count: int, options: ReadOptions, found: _Found
) -> tuple[list[str], list[int]]:
    """Return device and cycle of each curve of a struct."""
    given = [_text(item) for item in labels.get("device", [])]
    numbers = [int(n) for n in labels.get("cycle", []) if not isinstance(n, str | np.ndarray) and np.isfinite(n)]
    first = 1 if numbers and min(numbers) >= 1 else 0
    device = given[0] if len(given) == 1 else stem
    if len(given) == count > 1:
        return given, [n - first for n in numbers] if len(numbers) == count else [-1] * count
    if len(numbers) == count:
        return [device] * count, [n - first for n in numbers]
    if count == 1:
        return [device], [-1]
    where = f"'{path.name}'{f' ({group})' if group else ''}"
    if options.pairs is None:
        found.questions.append(
            f"{where}: nothing says whether its {count} curves are devices or cycles; they are taken for devices; if "
            "they are cycles of one device, give --pairs cycle"
        )
    if options.pairs == "cycle":
        return [device] * count, list(range(count))
    digits = max(3, len(str(count)))
    return [f"{device}-{k + 1:0{digits}d}" for k in range(count)], [-1] * count


def _text(item: Any) -> str:
    if isinstance(item, str):
        return item
    return f"{float(np.ravel(item)[0]):.12g}" if np.size(item) else ""


def _reads(
    path: Path,
    group: str,
    quantity: str,
    state: str,
    values: Sequence[NDArray[np.float64]],
    curves: Mapping[str, list[NDArray[np.float64]]],
    labels: Mapping[str, Any],
    stem: str,
    options: ReadOptions,
    found: _Found,
) -> None:
    """Add one trace of reads per curve."""
    with np.errstate(divide="ignore"):
        rows = [np.where(v == 0, np.nan, 1 / v) if quantity == "resistance" else v for v in values]
    if not any(np.isfinite(row).any() for row in rows):
        return
    devices, cycles = _who(path, group, labels, stem, len(rows), options, found)
    variables = {"conductance": padded(rows)}
    for name in ("time", "voltage", "current"):
        series = curves[name] * len(rows) if len(curves[name]) == 1 else curves[name]
        if len(series) == len(rows) and all(len(s) == len(r) for s, r in zip(series, rows, strict=True)):
            variables[name] = padded(series)
    node = reads_node(
        variables,
        {"device": devices, "cycle": cycles, "state": state, "temperature": labels.get("temperature", np.nan)},
    )
    found.reads.append(build({"reads": node}, []))


def _rest(path: Path, variables: Sequence[_Variable], found: _Found) -> list[Measurement]:
    """Return the numbers that no other node holds, in nodes extra, one per length."""
    left = [v for v in variables if v.path not in found.used]
    texts = [f"{v.path} '{v.value[:40]}'" for v in left if isinstance(v.value, str)]
    if texts:
        found.notes.append(f"'{path.name}' says as well: {', '.join(texts[:_SHOWN])}")
    by_length: dict[int, dict[str, tuple[NDArray[Any], str, str]]] = {}
    for variable in left:
        if not isinstance(variable.value, np.ndarray):
            continue
        name = re.sub(r"\W+", "_", variable.path).strip("_") or "variable"
        columns = by_length.setdefault(variable.value.size, {})
        while name in columns or name in ("table", "index"):
            name += "_"
        columns[name] = (variable.value.ravel("F"), "1", variable.shown)
    if by_length:
        listed = [name for columns in by_length.values() for name in columns][:_SHOWN]
        found.notes.append(f"'{path.name}': further variables are kept in the node extra: {', '.join(listed)}")
    return [build({"extra": extra_node(columns, path.name)}, []) for columns in by_length.values()]


member = MatlabReader()
