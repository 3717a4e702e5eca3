"""Rows of a table with label columns: grouping into traces and into reads."""

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calib.columns import TEXT_ROLES, Column, convert, normalised
from calib.measurement import Measurement, Trace, build, extra_node, merge, notes_of, reads_node
from calib.statements import Statements, one_temperature
from calib.tables import Table
from calib.units import parse_header

VALUES = ("conductance", "resistance", "conductance_lrs", "conductance_hrs", "resistance_lrs", "resistance_hrs")
_KEYS = ("device", "row", "column", "die", "wafer", "cycle", "state", "level", "gate_voltage", "series_resistance")
_MEDIANS = ("temperature", "compliance", "target")
_STATES = {
    "on": "lrs",
    "low": "lrs",
    "lrs": "lrs",
    "set": "lrs",
    "off": "hrs",
    "high": "hrs",
    "hrs": "hrs",
    "reset": "hrs",
}
_TARGET = re.compile(r"(?:target )?(r|res|resistance|g|conductance) ?(?:target )?(min|max|low|high|lo|hi)")
_CONSTANT = 0.25  # a voltage whose spread is under this part of its median is a read voltage, not a sweep


@dataclass(frozen=True)
class Rows:
    """The rows of one table, in groups that share device, cycle, state and the other labels.

    Attributes
    ----------
    labels : canonical name -> (row,) labels; order : (row,) rows sorted by group, groups in order of appearance;
    starts : (group,) position of each group in `order`; device, cycle : for tables that do not state them.
    """

    name: str
    table: Table
    columns: Sequence[Column]
    labels: Mapping[str, NDArray[Any]]
    order: NDArray[np.int64]
    starts: NDArray[np.int64]

    @classmethod
    def of(cls, name: str, table: Table, columns: Sequence[Column], device: str | NDArray[Any], cycle: int) -> "Rows":
        """Group the rows of a table by their label columns."""
        size = len(table.values)
        labels: dict[str, NDArray[Any]] = {}
        for column in columns:
            if column.role in _KEYS or column.role in _MEDIANS:
                labels[column.role] = _label(name, table, column)
        if "cycle" in labels and len(labels["cycle"]) and labels["cycle"].min() >= 1:
            labels["cycle"] = labels["cycle"] - 1
        labels.setdefault("cycle", np.full(size, cycle))
        if "device" not in labels:
            labels["device"] = _place_names(labels, device, size)
        codes = np.zeros(size, dtype=np.int64)
        for key in _KEYS:
            if key in labels:
                _, inverse = np.unique(labels[key], return_inverse=True)
                _, codes = np.unique(codes * (int(inverse.max(initial=0)) + 1) + inverse, return_inverse=True)
        _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
        rank = np.empty(len(first), dtype=np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        group = rank[codes]
        order = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[order], np.arange(len(first)))
        return cls(name, table, columns, labels, order, starts)

    def traces(
        self, voltage: NDArray[np.float64], current: NDArray[np.float64], time: NDArray[np.float64] | None
    ) -> Iterator[Trace]:
        """Yield one trace per group that holds a point."""
        medians = {key: self._medians(key) for key in ("temperature", "compliance") if key in self.labels}
        for k, rows in enumerate(np.split(self.order, self.starts[1:])):
            if not (np.isfinite(voltage[rows]) & np.isfinite(current[rows])).any():
                continue
            one = {key: self.labels[key][rows[0]] for key in _KEYS if key in self.labels}
            state = str(one.get("state", one.get("level", "")))
            yield Trace(
                voltage[rows],
                current[rows],
                str(one["device"]),
                None if time is None else time[rows],
                int(one["cycle"]),
                state=state,
                place={key: one[key] for key in ("row", "column", "die", "wafer") if key in one},
                compliance=_item(medians, "compliance", k),
                temperature=_item(medians, "temperature", k),
                series_resistance=float(one.get("series_resistance", np.nan)),
                gate_voltage=float(one.get("gate_voltage", np.nan)),
            )

    def reads(self, population: str, temperature: float, stated: Statements) -> tuple[Measurement, list[str]]:
        """Return the reads of the table: one trace per group, one sample per row, and notes on what was done."""
        wanted = (*VALUES, "voltage", "current", "time")
        values = {str(c.role): self._si(c) for c in self.columns if c.role in wanted}
        found, notes = _conductances(self.name, values)
        first = self.order[self.starts] if len(self.starts) else self.order
        labels: dict[str, Any] = {key: self.labels[key][first] for key in _KEYS if key in self.labels}
        labels.pop("gate_voltage", None)
        labels.pop("series_resistance", None)
        labels |= {"population": population, "temperature": self._temperature(temperature, stated)}
        if "target" in self.labels:
            labels["target"] = self._medians("target")
        elif (target := self._target()) is not None:
            labels["target"] = target
            notes.append(f"'{self.name}': the target is the middle, in siemens, of the two ends that its columns state")
        trees = []
        for state, conductance in found.items():
            variables = {"conductance": self._stacked(conductance)}
            variables |= {key: self._stacked(values[key]) for key in ("voltage", "current", "time") if key in values}
            node = reads_node(variables, {**labels, "state": state or labels.get("state", "")})
            trees.append(node)
        return merge([build({"reads": node}, []) for node in trees]), notes

    def _si(self, column: Column) -> NDArray[np.float64]:
        quantity = str(column.role).partition("_")[0] if column.role in VALUES else str(column.role)
        return convert(self.name, self.table.values[:, column.index], column, quantity)

    def _stacked(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        lengths = np.diff(np.append(self.starts, len(self.order)))
        result = np.full((len(lengths), int(lengths.max(initial=0))), np.nan)
        result[np.arange(result.shape[1]) < lengths[:, None]] = values[self.order]
        return result

    def _medians(self, key: str, values: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
        parts = np.split((self.labels[key] if values is None else values)[self.order], self.starts[1:])
        return np.array([np.nanmedian(part) if np.isfinite(part).any() else np.nan for part in parts])

    def _target(self) -> NDArray[np.float64] | None:
        """Return the middle [S] of the target range of each group, from columns such as 'res min' and 'res_max'."""
        found: dict[tuple[str, str], Column] = {}
        for column in self.columns:
            match = _TARGET.fullmatch(normalised(parse_header(column.header)[0])) if column.role is None else None
            if match:
                quantity = "resistance" if match[1].startswith("r") else "conductance"
                found[quantity, "low" if match[2].startswith(("mi", "lo")) else "high"] = column
        for quantity in ("conductance", "resistance"):
            if {(quantity, "low"), (quantity, "high")} <= set(found):
                ends = [
                    convert(self.name, self.table.values[:, found[quantity, end].index], found[quantity, end], quantity)
                    for end in ("low", "high")
                ]
                with np.errstate(divide="ignore", invalid="ignore"):
                    middle = np.mean(ends if quantity == "conductance" else [1.0 / end for end in ends], axis=0)
                return self._medians("", np.where(np.isfinite(middle), middle, np.nan))
        return None

    def _temperature(self, given: float, stated: Statements) -> Any:
        if np.isfinite(given):
            return given
        return self._medians("temperature") if "temperature" in self.labels else one_temperature(stated.temperatures)[0]


def is_constant(voltage: NDArray[np.float64]) -> bool:
    """Say whether a column of voltages is a read voltage (steady and not zero) rather than a sweep."""
    finite = voltage[np.isfinite(voltage)]
    if not len(finite):
        return False
    middle = abs(float(np.median(finite)))
    low, high = np.quantile(finite, [0.01, 0.99])
    return middle > 0 and high - low < _CONSTANT * middle


def level_reads(
    series: Sequence[tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]],
    names: Sequence[str],
    device: str,
    population: str,
    as_devices: bool,
) -> Measurement:
    """Return reads at one voltage of several columns of current, each a level of one device (or a device)."""
    voltage = np.array([v for v, _, _ in series])
    current = np.array([i for _, i, _ in series])
    filled = np.isfinite(voltage) & np.isfinite(current)
    keep = filled.any(axis=0)
    voltage, current, filled = voltage[:, keep], current[:, keep], filled[:, keep]
    conductance = np.where(filled, np.abs(current / np.where(voltage == 0, np.nan, voltage)), np.nan)
    variables = {
        "conductance": conductance,
        "voltage": np.where(filled, voltage, np.nan),
        "current": np.where(filled, np.sign(voltage) * np.abs(current), np.nan),
    }
    if series[0][2] is not None:
        variables["time"] = np.array([np.zeros(len(v)) * np.nan if t is None else t for v, _, t in series])[:, keep]
    labels = {"device": names, "level": ""} if as_devices else {"device": device, "level": names}
    return build({"reads": reads_node(variables, {**labels, "population": population})}, [])


def used_values(roles: Collection[str | None]) -> list[str]:
    """Return which columns of conductance or resistance become the conductance of reads: per state, the conductance."""
    wanted = (("conductance" + state, "resistance" + state) for state in ("", "_lrs", "_hrs"))
    return [next(role for role in pair if role in roles) for pair in wanted if set(pair) & set(roles)]


def level_names(columns: Sequence[Column]) -> list[str]:
    """Return the names of levels from columns of current: their numbers where each has one ('Current3' is 3)."""
    names = [column.header or str(column.index) for column in columns]
    numbers = [match[1] if (match := re.fullmatch(r"[^\d]*?(\d+)(?:\s*[(\[].*)?", name)) else "" for name in names]
    return numbers if all(numbers) and len(set(numbers)) == len(numbers) else names


def kept_columns(where: str, table: Table, columns: Sequence[Column]) -> list[Measurement]:
    """Return a node extra with those of the columns that hold anything; an empty list when none does."""
    kept: dict[str, tuple[NDArray[Any], str, str]] = {}
    for column in columns:
        name = re.sub(r"\W+", "_", parse_header(column.header)[0]).strip("_") or f"column_{column.index}"
        values = table.texts.get(column.index, table.values[:, column.index])
        if values.dtype.kind == "f" and not np.isfinite(values).any():
            continue
        while name in kept or name in ("table", "index"):
            name += "_"
        kept[name] = (values, column.unit or "1", column.header or f"column {column.index}")
    return [build({"extra": extra_node(kept, where)}, [])] if kept else []


def sentences(node: Any, questions: Iterable[str], notes: Iterable[str]) -> dict[str, str]:
    """Return the attributes questions and notes of a node with further sentences."""
    return {
        "questions": json.dumps([*notes_of(node, "questions"), *questions]),
        "notes": json.dumps([*notes_of(node, "notes"), *notes]),
    }


def _conductances(
    name: str, values: Mapping[str, NDArray[np.float64]]
) -> tuple[dict[str, NDArray[np.float64]], list[str]]:
    """Return conductance [S] by state ('' when there is one column), from conductance, resistance or I/V."""
    notes = []
    found: dict[str, NDArray[np.float64]] = {}
    for state in ("", "_lrs", "_hrs"):
        if f"conductance{state}" in values:
            found[state[1:]] = values[f"conductance{state}"]
        elif f"resistance{state}" in values:
            resistance = values[f"resistance{state}"]
            zero = int((resistance == 0).sum())
            if zero:
                notes.append(f"'{name}': {zero} resistances are 0 and have no conductance; they count as blank")
            with np.errstate(divide="ignore"):
                found[state[1:]] = np.where(resistance == 0, np.nan, 1.0 / resistance)
    if not found:
        voltage, current = values["voltage"], values["current"]
        with np.errstate(divide="ignore", invalid="ignore"):
            found[""] = np.where(voltage == 0, np.nan, current / voltage)
        notes.append(f"'{name}': the voltage is steady, so its rows are reads; conductance is current / voltage")
    return found, notes


def _label(name: str, table: Table, column: Column) -> NDArray[Any]:
    role = str(column.role)
    numbers = table.values[:, column.index]
    if role in TEXT_ROLES and column.index in table.texts:
        texts = table.texts[column.index]
        if role in ("cycle", "row", "column"):
            matches = [re.search(r"-?\d+", text) for text in texts]
            return np.array([int(m[0]) if m else -1 for m in matches], dtype=np.int64)
        return np.array([_STATES.get(text.lower(), text) for text in texts]) if role == "state" else texts
    if role in ("cycle", "row", "column"):
        return np.where(np.isfinite(numbers), numbers, -1).astype(np.int64)
    if role in TEXT_ROLES:
        unique, inverse = np.unique(numbers, return_inverse=True)
        return np.array(["" if u != u else f"{u:.12g}" for u in unique])[inverse]
    return convert(name, numbers, column, role)


def _item(values: Mapping[str, NDArray[np.float64]], key: str, index: int) -> float:
    return float(values[key][index]) if key in values else np.nan


def _place_names(labels: Mapping[str, NDArray[Any]], device: str | NDArray[Any], size: int) -> NDArray[Any]:
    keys = [key for key in ("wafer", "die", "row", "column") if key in labels]
    if not {"row", "column"} & set(keys):
        return np.broadcast_to(np.asarray(device), (size,))
    names = labels[keys[0]].astype(str)
    for key in keys[1:]:
        names = np.char.add(np.char.add(names, "-"), labels[key].astype(str))
    return names
