"""Virtual devices measured by a virtual instrument: raw measurement files drawn from a device model.

Sweeps: a device is drawn from the model's population (`calib.sampling`): ln R from its quantiles, two cycles of a
device as alike as the fitted ones', the law's parameters about their line, stuck with the model's probability. A loop
0 -> +V -> 0 -> -V -> 0 begins in the high-resistance state, sets on the way up, is read on the way down in the
low-resistance state, and resets at the other polarity. The instrument adds relative noise and noise of its floor, and
holds the current at the compliance. Beyond the fitted voltages the law is extrapolated; only the shape of the loop
depends on that.

Reads of programmed states come from the programming spread; pulses, writes, retention and read noise from their nodes
(`calib.simulation_draws`). Files are written as instruments write them (`calib.simulation_layouts`).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import files, measurement, simulation_draws, sweeps
from calib.errors import ModelError, OptionError
from calib.iv_models import iv_model
from calib.model_draw import Spread, Stuck
from calib.sampling import PopulationDraw
from calib.simulation_layouts import LAYOUTS, Layout

__all__ = ["LAYOUTS", "Layout", "Loops", "experiments", "simulate", "simulate_file", "simulate_loops"]

_NODES = {"sweeps": "iv", "reads": "programming", "pulses": "pulse", "writes": "writes", "retention": "retention",
          "noise": "read_noise"}  # fmt: skip
"""The node that each experiment is drawn from."""
_OPTIONS = {
    "sweeps": ("points", "noise", "noise_floor", "compliance"), "reads": ("noise",), "pulses": (), "writes": (),
    "retention": ("points",), "noise": ("points",),
}  # fmt: skip
_FEWEST_POINTS = 4
FLOOR_SIGMAS = 3.0
"""The noise floor is this many standard deviations of the instrument's noise."""
_SET = (1.10, 1.25)
_PEAK = 1.35
"""Set and reset voltages, and the ends of the loop, relative to the largest fitted voltage."""


@dataclass(frozen=True)
class Loops:
    """Simulated sweeps before they are split into branches.

    Attributes
    ----------
    voltage : (point,) [V].
    current : (device, cycle, point) [A].
    device : (device,) names.
    stuck : (device,) [S] conductance of the devices that are stuck, NaN for the others.
    ln_r : by state, (device, cycle) the true ln(R / Ohm).
    compliance, noise_floor : [A]; temperature : [K] or NaN.
    """

    voltage: np.ndarray
    current: np.ndarray
    device: np.ndarray
    stuck: np.ndarray
    ln_r: dict[str, np.ndarray]
    compliance: float
    noise_floor: float
    temperature: float


@dataclass(frozen=True)
class Reads:
    """Reads of programmed states: conductance (device, cycle, state) [S], names, states, read voltage [V]."""

    conductance: np.ndarray
    device: np.ndarray
    states: list[str]
    voltage: float


def experiments(tree: xr.DataTree) -> list[str]:
    """Return the experiments that a device model can simulate; the first is what `simulate` takes by itself."""
    found = [name for name, node in _NODES.items() if node in tree.children]
    if "pulses" in found and "law_chosen" not in tree["pulse"].to_dataset():
        found.remove("pulses")
    return found


def simulate(
    tree: xr.DataTree, devices: int = 50, cycles: int = 5, seed: int = 0, *, experiment: str | None = None,
    **instrument: Any,
) -> xr.DataTree:  # fmt: skip
    """Measure virtual devices of a model.

    Parameters
    ----------
    tree : the device model.
    devices, cycles : how many devices, and cycles of each (of pulses: trains up and down; of writes: of all targets).
    seed : of all draws.
    experiment : 'sweeps', 'reads', 'pulses', 'writes', 'retention' or 'noise'; default: the first of `experiments`.
    **instrument : of sweeps: `points` from 0 V to the largest fitted voltage (default 24), `noise` relative standard
        deviation of the current (default: that of the fitted curves), `noise_floor` [A] (default 0), `compliance` [A]
        (default: 1.5 times the largest current of the low-resistance state in the fitted range). Of reads: `noise`
        (default 0). Of retention and noise: `points`, reads of a trace.

    Returns
    -------
    xarray.DataTree
        A Measurement as `calib.read` returns it.

    Raises
    ------
    ModelError
        When the model lacks what the experiment is drawn from; the message says what.
    OptionError
        When an option is unknown or out of its range.
    """
    chosen = _experiment(tree, experiment)
    _check(chosen, devices, cycles, seed, instrument)
    drawn = _draw(tree, chosen, devices, cycles, seed, instrument)
    texts: dict[str, str] = {"instrument": "simulated", "sample": str(tree.attrs.get("name", "")),
             "citation": str(tree.attrs.get("citation", ""))}  # fmt: skip
    if chosen == "sweeps":
        return sweeps.split(measurement.build({"iv": _sweeps_node(drawn)}, (), **texts))
    name, node = _MEASURED[chosen](drawn)
    return measurement.build({name: node}, (), **texts)


def simulate_file(
    tree: xr.DataTree, path: str | Path, layout: str | None = None, devices: int = 50, cycles: int = 5, seed: int = 0,
    *, experiment: str | None = None, progress: Callable[[int, int], object] | None = None, **instrument: Any,
) -> list[Path]:  # fmt: skip
    """Write the raw files that an instrument would have written of virtual devices; `calib.read` reads them again.

    Parameters
    ----------
    path : file to write. Where a file of the layout holds one device and several are asked for, a folder: its files
        are named after the devices, and it must hold no others. Every file is written whole or not at all.
    layout : one of those of the experiment in `LAYOUTS`; default: the first.
    progress : called now and then with how many devices (trains, writes, traces) are done, and of how many.
    devices, cycles, seed, experiment, **instrument : as of `simulate`.

    Returns
    -------
    list of Path
        The files.
    """
    chosen = _experiment(tree, experiment)
    _check(chosen, devices, cycles, seed, instrument)
    known = {each.name: each for each in LAYOUTS[chosen]}
    if layout is not None and layout not in known:
        raise OptionError(f"there is no layout '{layout}' of {chosen}; choose one of {', '.join(known)}")
    style = LAYOUTS[chosen][0] if layout is None else known[layout]
    drawn = _draw(tree, chosen, devices, cycles, seed, instrument)
    if chosen == "pulses" and drawn.unit == "1" and style.name != "columns":
        raise OptionError(
            f"the pulse response of this model is normalised, and the layout '{style.name}' states siemens; "
            "choose --layout columns"
        )
    path = Path(path)
    if not style.single or devices == 1:
        _write(path, style, drawn, None if style.single else progress)
        return [path]
    if path.is_file():
        raise OptionError(
            f"'{path}' is a file; files of the layout '{style.name}' hold one device each, so give a folder for "
            f"{devices} devices"
        )
    paths = [path / f"{name}{style.suffix}" for name in dict.fromkeys(map(str, drawn.device))]
    _check_folder(path, paths)
    for k, (name, each) in enumerate(zip(dict.fromkeys(map(str, drawn.device)), paths, strict=True), 1):
        _write(each, style, _of_device(drawn, name), None)
        if progress is not None:
            progress(k, devices)
    return paths


def _check_folder(folder: Path, paths: list[Path]) -> None:
    """Raise an OptionError where a folder holds other files: whoever reads the folder would read them as well."""
    if not folder.is_dir():
        return
    others = sorted(each.name for each in folder.iterdir() if each not in paths and not each.name.startswith("."))
    if others:
        raise OptionError(
            f"the folder '{folder}' holds other files ({', '.join(others[:3])}{' ...' if len(others) > 3 else ''}), "
            "which would be read as devices together with the new ones; give an empty folder"
        )


def _write(path: Path, style: Layout, drawn: Any, progress: Callable[[int, int], object] | None) -> None:
    parts, total = [], len(drawn.device)
    for part in style.lines(drawn):
        parts.append(part)
        if progress is not None:
            progress(min(len(parts), total), total)
    files.write_text(path, "".join(parts))


def _of_device(drawn: Any, name: str) -> Any:
    """Return what was drawn of one device."""
    if isinstance(drawn, Loops):
        rows = np.flatnonzero(drawn.device == name)
        return replace(drawn, current=drawn.current[rows], device=drawn.device[rows], stuck=drawn.stuck[rows],
                       ln_r={state: values[rows] for state, values in drawn.ln_r.items()})  # fmt: skip
    rows = [k for k, device in enumerate(drawn.device) if device == name]
    return replace(drawn, **{key: [getattr(drawn, key)[k] for k in rows]
                             for key in ("device", "cycle", "polarity", "values")})  # fmt: skip


def _experiment(tree: xr.DataTree, experiment: str | None) -> str:
    if experiment is not None:
        if experiment not in _NODES:
            raise OptionError(f"there is no experiment '{experiment}'; choose one of {', '.join(_NODES)}")
        return experiment
    found = experiments(tree)
    if not found:
        raise ModelError(
            f"the device model '{tree.attrs.get('name', '')}' has neither an I-V law nor a programming spread, nor a "
            "pulse response, writes, drift or read noise, so no device can be simulated; fit sweeps, or reads of both "
            "states"
        )
    return found[0]


def _check(experiment: str, devices: int, cycles: int, seed: int, instrument: dict[str, Any]) -> None:
    known = {name for names in _OPTIONS.values() for name in names}
    mine = _OPTIONS[experiment]
    problems = [f"{name} is {value}; expected at least 1" for name, value in (("devices", devices), ("cycles", cycles))
                if value < 1]  # fmt: skip
    if seed < 0:
        problems.append(f"seed is {seed}; expected 0 or more")
    for name, value in instrument.items():
        if name not in known:
            problems.append(f"there is no option '{name}'; expected {', '.join(sorted(known))}")
        elif value is None:
            continue
        elif name not in mine:
            problems.append(f"{name} is no option of {experiment}; it has {', '.join(mine) or 'none'}")
        elif name == "points" and value < _FEWEST_POINTS:
            problems.append(f"points is {value}; expected {_FEWEST_POINTS} or more")
        elif not value >= 0:
            problems.append(f"{name} is {value}; expected a positive number")
    if problems:
        raise OptionError("; ".join(problems))


def _draw(tree: xr.DataTree, experiment: str, devices: int, cycles: int, seed: int, instrument: dict[str, Any]) -> Any:
    if experiment == "sweeps":
        given = {name: value for name, value in instrument.items() if value is not None}
        return simulate_loops(tree, devices, cycles, seed, **given)
    generator = np.random.default_rng(seed)
    if experiment == "reads":
        return _reads(tree, devices, cycles, generator, instrument.get("noise") or 0.0)
    if experiment == "pulses":
        return simulation_draws.trains(tree, devices, cycles, generator)
    if experiment == "writes":
        return simulation_draws.writes(tree, devices, cycles, generator)
    traces = simulation_draws.retention if experiment == "retention" else simulation_draws.read_noise
    return traces(tree, devices, cycles, generator, instrument.get("points"))


def simulate_loops(
    tree: xr.DataTree, devices: int = 50, cycles: int = 5, seed: int = 0, *, points: int = 24,
    noise: float | None = None, noise_floor: float = 0.0, compliance: float | None = None,
) -> Loops:  # fmt: skip
    """Simulate the whole sweeps of devices; see `simulate`. Without two states, sweeps from 0 V upwards of each state.

    Raises
    ------
    ModelError
        When the model has no I-V law.
    """
    generator = np.random.default_rng(seed)
    population = PopulationDraw(tree).centre
    node = tree["iv"].to_dataset()
    law = iv_model(population.law.iv_model)
    v_max = population.law.v_max
    sign = -1.0 if str(node.attrs.get("polarity", "positive")) == "negative" else 1.0
    stuck = population.stuck(devices, generator)
    states = ("hrs", "lrs") if {"lrs", "hrs"} <= set(population.states) else population.states[:1]
    ln_r, parameters = {}, {}
    for state in states:  # one more cycle: the state that the last reset leaves
        ln_r[state], parameters[state] = population.devices(state, stuck, cycles + 1, generator)
    if noise is None:
        noise = float(np.nan_to_num(node["rms"].max())) if "rms" in node else 0.0

    def current(state: str, shift: int, voltage: np.ndarray) -> np.ndarray:
        rows = slice(shift, cycles + shift)
        columns = {name: values[:, rows, None] for name, values in parameters[state].items()}
        with np.errstate(over="ignore", invalid="ignore"):
            return np.nan_to_num(law.current(voltage, xp=np, **columns), posinf=1e300, neginf=-1e300)

    if len(states) == 1:
        voltage = np.linspace(0.0, v_max, points + 1)
        clean = current(states[0], 0, voltage)
        compliance = np.inf if compliance is None else compliance
    else:
        voltage, phase = _loop(v_max, points)
        if compliance is None:
            compliance = 1.5 * float(np.quantile(current("lrs", 0, np.array([v_max])), 0.999))
        v_set, v_reset = (v_max * generator.uniform(*_SET, (devices, cycles, 1)) for _ in range(2))
        before_set = (phase == 0) & (voltage < v_set)
        after_reset = ((phase == 2) & (voltage <= -v_reset)) | (phase == 3)
        clean = np.where(before_set, current("hrs", 0, voltage), current("lrs", 0, voltage))
        clean = np.where(after_reset, current("hrs", 1, voltage), clean)
    measured = clean * (1 + noise * generator.standard_normal(clean.shape))
    measured = np.clip(measured, -compliance, compliance)
    measured = measured + noise_floor / FLOOR_SIGMAS * generator.standard_normal(clean.shape)
    names = simulation_draws.names(devices)
    true = {state: values[:, :cycles] for state, values in ln_r.items()}
    temperature = float(node.attrs.get("temperature", np.nan))
    limit = float(compliance) if np.isfinite(compliance) else float("nan")
    return Loops(sign * voltage, sign * measured, names, stuck, true, limit, noise_floor, temperature)


def _loop(v_max: float, points: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the voltages of one loop, and of each point whether it goes up, back, down or back again (0 to 3)."""
    step = v_max / points
    count = round(_PEAK * points)
    up = step * np.arange(count + 1)
    parts = (up, up[-2::-1], -up[1:], -up[-2::-1])
    return np.concatenate(parts) + 0.0, np.repeat(np.arange(4), [len(part) for part in parts])


def _reads(tree: xr.DataTree, devices: int, cycles: int, generator: np.random.Generator, noise: float) -> Reads:
    """Draw reads of programmed states."""
    if "programming" not in tree.children:
        raise ModelError(
            f"the device model '{tree.attrs.get('name', '')}' has no programming spread, so reads of its states cannot "
            "be simulated; fit sweeps, or reads of both states"
        )
    node = tree["programming"].to_dataset()
    states = [str(state) for state in node["state"].values]
    stuck = np.full(devices, np.nan)
    if "stuck" in tree.children:
        stuck = Stuck.of(tree["stuck"].to_dataset()).devices(devices, generator)
    ln_r = [Spread.of(node, row).devices(devices, cycles, generator) for row in range(len(states))]
    g = np.exp(-np.stack(ln_r, axis=2))
    g = np.where(np.isfinite(stuck)[:, None, None], stuck[:, None, None], g)
    g = g * (1 + noise * generator.standard_normal(g.shape))
    voltage = 0.1
    if "conductance" in tree.children:
        voltage = abs(float(tree["conductance"].attrs.get("reference_voltage", voltage)))
    return Reads(g, simulation_draws.names(devices), states, voltage)


def _sweeps_node(loops: Loops) -> xr.Dataset:
    devices, cycles = loops.current.shape[:2]
    rows = devices * cycles
    variables = {"voltage": np.tile(loops.voltage, (rows, 1)), "current": loops.current.reshape(rows, -1)}
    labels = {
        "device": np.repeat(loops.device, cycles), "cycle": np.tile(np.arange(cycles), devices),
        "compliance": loops.compliance, "temperature": loops.temperature,
    }  # fmt: skip
    if "lrs" not in loops.ln_r:
        state = next(iter(loops.ln_r))
        labels["state"] = "" if state == "all" else state
    return measurement.iv_dataset(variables, labels)


def _reads_node(reads: Reads) -> tuple[str, xr.Dataset]:
    devices, cycles, count = reads.conductance.shape
    labels = {
        "device": np.repeat(reads.device, cycles * count),
        "cycle": np.tile(np.repeat(np.arange(cycles), count), devices),
        "state": np.tile(reads.states, devices * cycles),
    }
    conductance = reads.conductance.reshape(-1, 1)
    variables = {"conductance": conductance, "voltage": np.full(conductance.shape, reads.voltage)}
    return "reads", measurement.reads_node(variables, labels)


def _pulses_node(trains: simulation_draws.Trains) -> tuple[str, xr.Dataset]:
    labels = {"device": trains.device, "cycle": trains.cycle, "polarity": trains.polarity}
    values = measurement.padded(trains.values)[:, :, None]
    return "pulses", measurement.pulses_node({"conductance": values}, labels, trains.unit)


def _writes_node(log: simulation_draws.Writes) -> tuple[str, xr.Dataset]:
    variables: dict[str, Any] = {
        "target_low": log.low, "target_high": log.high, "achieved": log.achieved,
        "success": log.success.astype(np.int64), **log.counts,
    }  # fmt: skip
    return "writes", measurement.writes_node(variables, {"device": log.device, "cycle": log.cycle})


def _traces_node(traces: simulation_draws.ReadTraces) -> tuple[str, xr.Dataset]:
    shape = traces.conductance.shape
    variables = {
        "conductance": traces.conductance, "time": np.broadcast_to(traces.time, shape).copy(),
        "voltage": np.full(shape, traces.voltage),
    }  # fmt: skip
    return "reads", measurement.reads_node(variables, {"device": traces.device, "cycle": traces.cycle})


_MEASURED: dict[str, Callable[[Any], tuple[str, xr.Dataset]]] = {
    "reads": _reads_node, "pulses": _pulses_node, "writes": _writes_node, "retention": _traces_node,
    "noise": _traces_node,
}  # fmt: skip
