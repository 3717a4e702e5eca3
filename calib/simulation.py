"""Virtual devices measured by a virtual instrument: raw sweeps and reads drawn from a device model.

A simulated device is drawn from the model's population (`calib.sampling`): ln R from its quantiles, two cycles of a
device as alike as the fitted ones', the law's parameters about their line, stuck with the model's probability. A loop
0 -> +V -> 0 -> -V -> 0 begins in the high-resistance state, sets on the way up, is read on the way down in the
low-resistance state, and resets at the other polarity. The instrument adds relative noise and noise of its floor, and
holds the current at the compliance. Beyond the fitted voltages the law is extrapolated; only the shape of the loop
depends on that.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import files, measurement, sweeps
from calib.errors import ModelError, OptionError
from calib.iv_models import iv_model
from calib.model_draw import Spread, Stuck
from calib.sampling import PopulationDraw

LAYOUTS = ("table", "analyser")
"""table: a header and one row a point; analyser: with a preamble, and |I| as many instruments write it."""
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


def simulate(tree: xr.DataTree, devices: int = 50, cycles: int = 5, seed: int = 0, **instrument: Any) -> xr.DataTree:
    """Measure virtual devices of a model.

    Parameters
    ----------
    tree : the device model.
    devices, cycles : how many devices, and cycles of each.
    seed : of all draws.
    **instrument : `points` from 0 V to the largest fitted voltage (default 24), `noise` relative standard deviation of
        the current (default: that of the fitted curves), `noise_floor` [A] (default 0), `compliance` [A] (default: 1.5
        times the largest current of the low-resistance state in the fitted range).

    Returns
    -------
    xarray.DataTree
        A Measurement as `calib.read` returns it: branches of sweeps (node iv), or, of a model without an I-V law, reads
        of its programmed states (node reads).

    Raises
    ------
    ModelError
        When the model has neither an I-V law nor a programming spread.
    OptionError
        When an option is out of its range.
    """
    _check(devices, cycles, instrument)
    texts: dict[str, str] = {"instrument": "simulated", "sample": str(tree.attrs.get("name", "")),
             "citation": str(tree.attrs.get("citation", ""))}  # fmt: skip
    if "iv" not in tree.children:
        node = _reads_node(*_reads(tree, devices, cycles, seed, instrument.get("noise") or 0.0))
        return measurement.build({"reads": node}, (), **texts)
    loops = simulate_loops(tree, devices, cycles, seed, **instrument)
    rows = devices * cycles
    variables = {
        "voltage": np.tile(loops.voltage, (rows, 1)),
        "current": loops.current.reshape(rows, -1),
    }
    labels = {
        "device": np.repeat(loops.device, cycles), "cycle": np.tile(np.arange(cycles), devices),
        "compliance": loops.compliance, "temperature": loops.temperature,
    }  # fmt: skip
    if "lrs" not in loops.ln_r:
        state = next(iter(loops.ln_r))
        labels["state"] = "" if state == "all" else state
    return sweeps.split(measurement.build({"iv": measurement.iv_dataset(variables, labels)}, (), **texts))


def simulate_file(
    tree: xr.DataTree, path: str | Path, layout: str = "table", devices: int = 50, cycles: int = 5, seed: int = 0,
    **instrument: Any,
) -> Path:  # fmt: skip
    """Write the raw file that an instrument would have written of virtual devices; `calib.read` reads it again.

    Parameters
    ----------
    path : csv file to write (atomic).
    layout : one of `LAYOUTS`.
    devices, cycles, seed, **instrument : as of `simulate`.
    """
    _check(devices, cycles, instrument)
    if layout not in LAYOUTS:
        raise OptionError(f"there is no layout '{layout}'; choose one of {', '.join(LAYOUTS)}")
    if "iv" in tree.children:
        text = _sweeps_text(simulate_loops(tree, devices, cycles, seed, **instrument), layout)
    else:
        text = _reads_text(*_reads(tree, devices, cycles, seed, instrument.get("noise") or 0.0), layout)
    files.write_text(path, text)
    return Path(path)


def _check(devices: int, cycles: int, instrument: dict[str, Any]) -> None:
    known = {"points", "noise", "noise_floor", "compliance"}
    problems = [f"{name} is {value}; expected at least 1" for name, value in (("devices", devices), ("cycles", cycles))
                if value < 1]  # fmt: skip
    problems += [
        f"there is no option '{name}'; expected {', '.join(sorted(known))}" for name in set(instrument) - known
    ]
    problems += [
        f"{name} is {value}; expected a positive number"
        if name != "points"
        else f"points is {value}; expected 4 or more"
        for name, value in instrument.items()
        if name in known and value is not None and (value < 4 if name == "points" else not value >= 0)
    ]
    if problems:
        raise OptionError("; ".join(problems))


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
    width = len(str(devices))
    names = np.array([f"S{k + 1:0{width}d}" for k in range(devices)])
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


def _reads(
    tree: xr.DataTree, devices: int, cycles: int, seed: int, noise: float
) -> tuple[np.ndarray, np.ndarray, list[str], float]:
    """Draw reads of programmed states: conductance (device, cycle, state) [S], names, states, and the read voltage."""
    if "programming" not in tree.children:
        raise ModelError(
            f"the device model '{tree.attrs.get('name', '')}' has neither an I-V law nor a programming spread, so no "
            "device can be simulated; fit sweeps, or reads of both states"
        )
    generator = np.random.default_rng(seed)
    node = tree["programming"].to_dataset()
    states = [str(state) for state in node["state"].values]
    stuck = np.full(devices, np.nan)
    if "stuck" in tree.children:
        stuck = Stuck.of(tree["stuck"].to_dataset()).devices(devices, generator)
    ln_r = [Spread.of(node, row).devices(devices, cycles, generator) for row in range(len(states))]
    g = np.exp(-np.stack(ln_r, axis=2))
    g = np.where(np.isfinite(stuck)[:, None, None], stuck[:, None, None], g)
    g = g * (1 + noise * generator.standard_normal(g.shape))
    voltage = float(tree["conductance"].attrs.get("reference_voltage", 0.1)) if "conductance" in tree.children else 0.1
    names = np.array([f"S{k + 1:0{len(str(devices))}d}" for k in range(devices)])
    return g, names, states, voltage


def _reads_node(g: np.ndarray, names: np.ndarray, states: list[str], voltage: float) -> xr.Dataset:
    devices, cycles, count = g.shape
    labels = {
        "device": np.repeat(names, cycles * count), "cycle": np.tile(np.repeat(np.arange(cycles), count), devices),
        "state": np.tile(states, devices * cycles),
    }  # fmt: skip
    conductance = g.reshape(-1, 1)
    variables = {"conductance": conductance, "voltage": np.full(conductance.shape, voltage)}
    return measurement.reads_node(variables, labels)


def _sweeps_text(loops: Loops, layout: str) -> str:
    out = io.StringIO()
    if layout == "analyser":
        out.write("Setup title,Simulated DC sweep\nInstrument,Semiconductor parameter analyser\n")
        if np.isfinite(loops.temperature):
            out.write(f"Temperature (K),{loops.temperature:g}\n")
        if np.isfinite(loops.compliance):
            out.write(f"Compliance (uA),{loops.compliance * 1e6:g}\n")
        out.write("Remarks,\n")
    out.write("Device,Cycle,Voltage (V),Current (A)\n")
    for device, rows in zip(loops.device, loops.current, strict=True):
        for cycle, current in enumerate(rows):
            shown = np.abs(current) if layout == "analyser" else current
            for v, i in zip(loops.voltage.tolist(), shown.tolist(), strict=True):
                out.write(f"{device},{cycle + 1},{v:.6g},{i:.9e}\n")
    return out.getvalue()


def _reads_text(g: np.ndarray, names: np.ndarray, states: list[str], voltage: float, layout: str) -> str:
    out = io.StringIO()
    if layout == "analyser":
        out.write("Setup title,Simulated reads\nInstrument,Array tester\nRemarks,\n")
    out.write("Device,Cycle,State,Read voltage (V),Conductance (S)\n")
    for device, rows in zip(names, g.tolist(), strict=True):
        for cycle, values in enumerate(rows):
            for state, value in zip(states, values, strict=True):
                out.write(f"{device},{cycle + 1},{state},{voltage:g},{value:.9e}\n")
    return out.getvalue()
