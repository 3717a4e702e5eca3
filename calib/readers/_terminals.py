"""Sweeps recorded at several terminals: which two of them are the device, and what becomes of the rest.

A run is one sweep of all terminals. A terminal has a voltage and a current column, or one of them, or none (only its
bias is stated). The device's pair is that of the one terminal that is swept; a gate's voltage becomes the coordinate
gate_voltage; everything else goes to the node extra.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from calib.columns import Column, assign, convert, normalised, recognise
from calib.errors import ReadError
from calib.measurement import Measurement, Trace, build, extra_node, iv_node, merge, reads_node
from calib.readers._table_reads import sentences
from calib.readers.base import ReadOptions

Array = NDArray[np.float64]

OVERFLOW = 1e30
"""Beyond it a number stands for none: 9.9e37 and 9.91e37 are overflow and not-a-number in SCPI (IEEE 488.2)."""

_GATE = re.compile(r"v?g(?:ate)?(?: ?v(?:oltage)?)?|v ?gs|wl|word ?line")
_TIMES = ("time", "t", "timestamp", "elapsed time")
_GROUND = ("common", "gnd", "gndu", "ground")
_NAMED = re.compile(
    r"(\w*?[A-Za-z0-9])[ ._]?([VI])|([VI])(?:[ ._]?(\d+|[dgsb]{1,2}|top|bot\w*|te|be|anode|cathode|dut|[A-Z]\w*))?"
)
_STEADY = 1e-3  # a voltage that varies by less than this part of its largest value (and 0.1 mV) is held
_STEADY_VOLTS = 1e-4


@dataclass(frozen=True)
class Terminal:
    """One unit of the instrument.

    Attributes
    ----------
    name : as messages name it ('Drain', 'SMU1:HR').
    voltage, current : names of its recorded columns, '' when not recorded.
    function : 'sweep', 'step', 'constant', 'common' or '' when not stated.
    bias : [V] of a constant terminal, NaN when not stated.
    compliance : [A], NaN when not stated.
    alias : name of its voltage where that is stated but not recorded.
    """

    name: str
    voltage: str = ""
    current: str = ""
    function: str = ""
    bias: float = np.nan
    compliance: float = np.nan
    alias: str = ""

    @property
    def is_gate(self) -> bool:
        """Return whether its name, or that of its voltage, is one of a gate."""
        names = (self.name, self.voltage, self.alias)
        return any(_GATE.fullmatch(re.sub(r" ?\d+$", "", normalised(name))) for name in names if name)

    def shown(self) -> str:
        """Return how questions describe it."""
        columns = ", ".join(name for name in (self.voltage or self.alias, self.current) if name)
        kind = self.function or "not stated"
        if np.isfinite(self.bias) and self.function == "constant":
            kind += f" {self.bias:g} V"
        return f"{self.name} ({columns + ': ' if columns else ''}{kind})"


@dataclass(frozen=True)
class Run:
    """One sweep: recorded columns by name, (point,) each, in SI units, with the terminals they belong to."""

    columns: Mapping[str, Array]
    terminals: Sequence[Terminal]
    device: str
    units: Mapping[str, str] = field(default_factory=dict)
    temperature: float = np.nan
    cycle: int = -1
    population: str = ""


@dataclass(frozen=True)
class _Pair:
    """The columns that are the device's voltage and current; `sign` turns the current's direction."""

    voltage: str
    current: str
    sign: float
    gate: Terminal | None
    compliance: float
    question: str = ""
    note: str = ""
    time: str = ""
    gate_column: str = ""


def paired_terminals(names: Sequence[str]) -> list[Terminal]:
    """Return the terminals that names such as DrainV, DrainI or V1, I1 or Smu1.V, Smu1.I speak of."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        match = _NAMED.fullmatch(name.strip())
        if match and recognise(name)[0] != "absolute current":
            label, letter = (match[1], match[2]) if match[2] else (match[4] or "", match[3])
            found.setdefault(label, {}).setdefault(letter, name)
    return [Terminal(label or "V", pair.get("V", ""), pair.get("I", "")) for label, pair in found.items()]


def measurement_of(
    path: Path,
    runs: Sequence[Run],
    options: ReadOptions,
    notes: Sequence[str] = (),
    questions: Sequence[str] = (),
    instrument: str = "",
) -> Measurement:
    """Return runs as traces of the node iv (reads, where the voltage is held) and the rest in the node extra.

    Raises
    ------
    ReadError
        When no pair of voltage and current can be told from the columns.
    """
    said: dict[str, list[str]] = {"notes": list(notes), "questions": list(questions)}
    traces: list[Trace] = []
    parts: list[Measurement] = []
    rest: list[tuple[Run, set[str]]] = []
    overflow = 0
    for run in runs:
        overflow += sum(int((np.abs(values) > OVERFLOW).sum()) for values in run.columns.values())
        run = replace(run, columns={k: np.where(np.abs(v) > OVERFLOW, np.nan, v) for k, v in run.columns.items()})
        pair = _pair(path, run, options)
        for key, sentence in (("questions", pair.question), ("notes", pair.note)):
            if sentence and sentence not in said[key]:
                said[key].append(sentence)
        used: set[str] = set()
        if pair.voltage:
            trace, used = _trace(run, pair, options)
            if _is_read(trace):
                parts.append(_reads(trace))
            elif (np.isfinite(trace.voltage) & np.isfinite(trace.current)).any():
                traces.append(trace)
        rest.append((run, used))
    if overflow:
        said["notes"].append(f"'{path.name}': {overflow} values beyond {OVERFLOW:g} are the instrument's overflow")
    extra = _extra(path, rest, said["notes"])
    if traces:
        parts.insert(0, build({"iv": iv_node(traces)}, []))
    if extra is not None:
        parts.append(build({"extra": extra}, []))
    if not parts:
        raise ReadError(f"'{path.name}' holds no points with both voltage and current; expected rows of numbers")
    tree = merge(parts)
    tree.attrs["instrument"] = instrument
    first = next(iter(tree.children.values()))
    first.attrs.update(sentences(first, said["questions"], said["notes"]))
    return tree


def _pair(path: Path, run: Run, options: ReadOptions) -> _Pair:
    """Choose the device's voltage and current: what the user says, else the one terminal that is swept."""
    names = list(run.columns)
    if {"voltage", "current"} & set(options.columns):
        return _given_pair(path, run, options)
    gates = [t for t in run.terminals if t.is_gate]
    stepped = [t for t in run.terminals if t.function == "step" and t not in gates]
    gate = gates[0] if gates else stepped[0] if stepped and len(run.terminals) > 2 else None
    others = [t for t in run.terminals if t is not gate and t not in gates]
    swept = [t for t in others if t.voltage in run.columns and not _held(run.columns[t.voltage])]
    preferred = [t for t in swept if t.function == "sweep"] or swept
    if not preferred and not any(t.voltage and not _held(run.columns[t.voltage]) for t in gates):
        preferred = [t for t in others if t.voltage in run.columns and t.current in run.columns]
    with_current = [t for t in preferred if t.current in run.columns] or preferred
    if not with_current:
        return _no_pair(path, run, names)
    own = with_current[0]
    current, sign, note = own.current, 1.0, ""
    if current not in run.columns:
        across = [t for t in others if t is not own and t.current in run.columns]
        if len(across) != 1:
            return _no_pair(path, run, names)
        current, sign = across[0].current, -1.0
        note = f"'{path.name}': the current of {own.name} is not recorded; it is taken as minus {current}"
    question = _question(path, run, own, current, gate, len(with_current))
    return _Pair(own.voltage, current, sign, gate, own.compliance, question, note)


def _given_pair(path: Path, run: Run, options: ReadOptions) -> _Pair:
    """Return the pair that the user names; of a voltage or a current alone, the other one is its terminal's."""
    names = list(run.columns)
    given = {c.role: c.header for c in assign(path.name, names, [], len(names), options.columns, {}) if c.role}
    wanted = {role: given.get(role, "") for role in ("voltage", "current") if role in options.columns}
    own = next((t for t in run.terminals if t.current == wanted.get("current", t.current) and t.current), None)
    if "current" not in wanted:
        own = next((t for t in run.terminals if t.voltage == wanted["voltage"]), None)
    voltage = wanted.get("voltage", own.voltage if own else "")
    current = wanted.get("current", own.current if own else "")
    if voltage not in run.columns or current not in run.columns:
        return _no_pair(path, run, names)
    gate = next((t for t in run.terminals if t.is_gate and t.voltage != voltage), None)
    column = given.get("gate_voltage", "") if "gate_voltage" in options.columns else ""
    time = given.get("time", "") if "time" in options.columns else ""
    compliance = own.compliance if own else np.nan
    return _Pair(voltage, current, 1.0, gate, compliance, time=time, gate_column=column)


def _no_pair(path: Path, run: Run, names: Sequence[str]) -> _Pair:
    gates = [t for t in run.terminals if t.is_gate and t.voltage in run.columns]
    if gates and not _held(run.columns[gates[0].voltage]):
        question = (
            f"'{path.name}' is not a two-terminal sweep: {_listed(run)}; it sweeps the gate, so everything is kept in "
            "the node extra; if the device is among these terminals, give --columns voltage=NAME,current=NAME"
        )
        return _Pair("", "", 1.0, None, np.nan, question)
    shown = ", ".join(f"'{name}'" for name in names[:14])
    raise ReadError(
        f"'{path.name}': found columns {shown}, expected the voltage and the current of one swept terminal; say which "
        "are the device's, for example --columns voltage=V1,current=I1"
    )


def _question(path: Path, run: Run, own: Terminal, current: str, gate: Terminal | None, candidates: int) -> str:
    """Return what is ambiguous about the choice of a pair, '' for a plain two-terminal sweep."""
    others = [t for t in run.terminals if t is not own]
    grounded = all(t.function in _GROUND or abs(_bias(t, run)) <= _STEADY_VOLTS for t in others)
    if gate is None and candidates == 1 and len(others) <= 1 and grounded:
        return ""
    kept = f", {gate.voltage or gate.name} is kept as gate_voltage" if gate is not None else ""
    return (
        f"'{path.name}' is not a two-terminal sweep: {_listed(run)}; voltage {own.voltage} and current {current} are "
        f"read{kept}, the rest is in the node extra; if the device is between other terminals, give "
        "--columns voltage=NAME,current=NAME"
    )


def _listed(run: Run) -> str:
    return ", ".join(t.shown() for t in run.terminals)


def _bias(terminal: Terminal, run: Run) -> float:
    """Return the voltage [V] at which a terminal is held: recorded, else stated, else 0; NaN when it varies."""
    if terminal.voltage in run.columns:
        values = run.columns[terminal.voltage]
        return float(np.nanmedian(values)) if np.isfinite(values).any() and _held(values) else np.nan
    return terminal.bias if np.isfinite(terminal.bias) else 0.0


def _held(values: Array) -> bool:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return True
    return float(np.ptp(finite)) <= max(_STEADY * float(np.abs(finite).max()), _STEADY_VOLTS)


def _trace(run: Run, pair: _Pair, options: ReadOptions) -> tuple[Trace, set[str]]:
    time = pair.time or next((name for name in run.columns if normalised(name) in _TIMES), None)
    gate_voltage, used = np.nan, {pair.voltage, pair.current}
    if pair.gate_column:
        gate_voltage = float(np.nanmedian(run.columns[pair.gate_column]))
        used.add(pair.gate_column)
    elif pair.gate is not None:
        gate = pair.gate
        gate_voltage = _bias(gate, run) if gate.voltage in run.columns or np.isfinite(gate.bias) else np.nan
        used |= {gate.voltage} if np.isfinite(gate_voltage) else set()
    if time is not None:
        used.add(time)

    def si(name: str, quantity: str) -> Array:
        column = Column(0, name, quantity, options.units.get(quantity))
        return convert(name, run.columns[name], column, quantity)

    trace = Trace(
        si(pair.voltage, "voltage"),
        pair.sign * si(pair.current, "current"),
        run.device,
        None if time is None else si(time, "time"),
        run.cycle,
        run.population,
        compliance=pair.compliance if pair.compliance > 0 else np.nan,
        temperature=options.temperature if np.isfinite(options.temperature) else run.temperature,
        gate_voltage=gate_voltage,
    )
    return trace, used


def _is_read(trace: Trace) -> bool:
    finite = trace.voltage[np.isfinite(trace.voltage)]
    return len(finite) > 1 and _held(finite) and abs(float(np.median(finite))) > _STEADY_VOLTS


def _reads(trace: Trace) -> Measurement:
    with np.errstate(divide="ignore", invalid="ignore"):
        conductance = np.where(trace.voltage == 0, np.nan, trace.current / trace.voltage)
    variables = {"conductance": conductance, "voltage": trace.voltage, "current": trace.current}
    if trace.time is not None:
        variables["time"] = trace.time
    labels = {name: getattr(trace, name) for name in ("device", "cycle", "population", "temperature")}
    return build({"reads": reads_node({k: v[None, :] for k, v in variables.items()}, labels)}, [])


def _extra(path: Path, rest: Sequence[tuple[Run, set[str]]], notes: list[str]) -> xr.Dataset | None:
    """Return the columns that no trace holds, run after run, with the number of the run."""
    names = dict.fromkeys(name for run, used in rest for name in run.columns if name not in used)
    kept: dict[str, tuple[NDArray[np.float64] | NDArray[np.int64], str, str]] = {}
    for name in names:
        pieces = [run.columns[name] if name not in used and name in run.columns else _blank(run) for run, used in rest]
        values = np.concatenate(pieces)
        if not np.isfinite(values).any():
            continue
        key = re.sub(r"\W+", "_", name).strip("_") or "column"
        while key in kept or key in ("table", "index", "run"):
            key += "_"
        unit = next((run.units[name] for run, _ in rest if name in run.units), "1")
        kept[key] = (values, unit, name)
    if not kept:
        return None
    number = np.repeat(np.arange(len(rest)), [len(_blank(run)) for run, _ in rest])
    listed = ", ".join(list(kept)[:8]) + (", ..." if len(kept) > 8 else "")
    notes.append(f"'{path.name}': {len(kept)} further columns are kept in the node extra: {listed}")
    return extra_node({**kept, "run": (number, "1", "number of the sweep in the file, from 0")}, path.name)


def _blank(run: Run) -> Array:
    return np.full(len(next(iter(run.columns.values()), np.empty(0))), np.nan)
