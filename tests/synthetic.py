"""Measurements and device models made from a known truth, as plain xarray, without calib's own code.

A synthetic device of resistance R = V_ref / I(V_ref) follows the Poole-Frenkel law with an exponent drawn about a line,

    gamma = intercept + slope ln(R / Ohm) + N(0, spread),   c = exp(-gamma sqrt(V_ref)) / R,

so that every number that a fit finds has a true value to be compared with.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

V_REF = 0.1
VOLTAGE = np.round(np.arange(0.0, 0.5001, 0.02), 6)
FLAG_NAMES = ("compliance", "spike", "below_floor", "duplicate", "switching", "sign_restored", "saturated", "offset")
FLAG = {name: 1 << bit for bit, name in enumerate(FLAG_NAMES)}

_UNITS = {
    "voltage": "V", "current": "A", "compliance": "A", "temperature": "K", "series_resistance": "ohm",
    "gate_voltage": "V", "noise_floor": "A", "offset": "A", "offset_stderr": "A", "conductance": "S", "target": "S",
    "time": "s",
}  # fmt: skip


@dataclass(frozen=True)
class State:
    """The truth of one resistance state."""

    ln_r: float
    d2d: float = 0.3
    c2c: float = 0.1
    intercept: float = 2.0
    slope: float = 0.0
    spread: float = 0.0


LRS = State(ln_r=np.log(2e3), intercept=0.4, slope=0.05, spread=0.05)
HRS = State(ln_r=np.log(1e6), intercept=-0.6, slope=0.2, spread=0.2)


def poole_frenkel(voltage: Any, c: Any, gamma: Any) -> Any:
    """Return c V exp(gamma sqrt|V|)."""
    return c * voltage * np.exp(gamma * np.sqrt(np.abs(voltage)))


def draw(state: State, devices: int, cycles: int, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Return ln R, c and gamma, each (device, cycle)."""
    ln_r = state.ln_r + state.d2d * generator.standard_normal((devices, 1))
    ln_r = ln_r + state.c2c * generator.standard_normal((devices, cycles))
    gamma = state.intercept + state.slope * ln_r + state.spread * generator.standard_normal(ln_r.shape)
    return ln_r, np.exp(-ln_r - gamma * np.sqrt(V_REF)), gamma


def iv_dataset(voltage: np.ndarray, current: np.ndarray, flag: np.ndarray | None = None, **labels: Any) -> xr.Dataset:
    """Return a Measurement's iv node of branches (sweep, point); labels that are not given are unknown."""
    n = len(voltage)
    unknown = {
        "device": "d0", "cycle": np.arange(n), "operation": "", "state": "", "direction": "up", "polarity": "positive",
        "order": np.zeros(n, dtype=np.int64), "population": "", "compliance": np.nan, "temperature": np.nan,
        "series_resistance": np.nan, "gate_voltage": np.nan, "noise_floor": np.nan, "offset": 0.0,
        "offset_stderr": np.nan, "source": np.zeros(n, dtype=np.int64),
    }  # fmt: skip
    coords = {
        name: ("sweep", np.broadcast_to(np.asarray(labels.pop(name, value)), (n,)).copy(), attributes(name))
        for name, value in unknown.items()
    }
    assert not labels, f"no such coordinates: {sorted(labels)}"
    dims = ("sweep", "point")
    flag = np.zeros(np.shape(voltage), dtype=np.int32) if flag is None else flag.astype(np.int32)
    flag_attrs = {"flag_masks": np.array(list(FLAG.values()), dtype=np.int32), "flag_meanings": " ".join(FLAG)}
    return xr.Dataset(
        {
            "voltage": (dims, voltage, attributes("voltage")),
            "current": (dims, current, attributes("current")),
            "flag": (dims, flag, {**attributes("flag"), **flag_attrs}),
        },
        coords=coords,
        attrs={"questions": "[]", "notes": "[]"},
    )


def attributes(name: str) -> dict[str, str]:
    """Return units and long_name of a variable."""
    return {"units": _UNITS.get(name, "1"), "long_name": name.replace("_", " ")}


def iv_node(
    states: dict[str, State] | None = None, *, devices: int = 40, cycles: int = 5, noise: float = 0.01,
    stuck: Sequence[int] = (), ohmic: bool = False, voltage: np.ndarray = VOLTAGE,
    polarities: Sequence[str] = ("positive",), population: str = "", temperature: float = float("nan"), seed: int = 0,
) -> xr.Dataset:  # fmt: skip
    """Return an iv node of set and reset branches of a population of devices.

    Parameters
    ----------
    states : truth by state name; the low- and the high-resistance state by default.
    noise : relative standard deviation of the current.
    stuck : devices that stay in the first state's first curve whatever is done to them.
    ohmic : replace the law by I = V / R.
    """
    generator = np.random.default_rng(seed)
    states = {"lrs": LRS, "hrs": HRS} if states is None else states
    drawn = {name: draw(state, devices, cycles, generator) for name, state in states.items()}
    first = next(iter(drawn))
    rows: list[np.ndarray] = []
    labels: dict[str, list[Any]] = {
        key: [] for key in ("device", "cycle", "state", "polarity", "operation", "direction")
    }
    signed = [(name, sign) for sign in ("positive", "negative") if sign in polarities for name in states]
    for name, sign in signed:
        for device in range(devices):
            for cycle in range(cycles):
                ln_r, c, gamma = (part[device, cycle] for part in drawn[name])
                if device in stuck:
                    ln_r, c, gamma = (part[device, 0] for part in drawn[first])
                clean = voltage * np.exp(-ln_r) if ohmic else poole_frenkel(voltage, c, gamma)
                factor = -1.0 if sign == "negative" else 1.0
                rows.append(factor * clean * (1 + noise * generator.standard_normal(len(voltage))))
                setting = sign == "positive"
                labels["device"].append(f"d{device:03d}")
                labels["cycle"].append(cycle)
                labels["state"].append(name)
                labels["polarity"].append(sign)
                labels["operation"].append("set" if setting else "reset")
                labels["direction"].append("up" if (name == "hrs") == setting else "down")
    sign_of = np.where(np.array(labels["polarity"]) == "negative", -1.0, 1.0)
    known = {key: np.array(values) for key, values in labels.items()}
    return iv_dataset(
        sign_of[:, None] * voltage, np.array(rows), population=population, temperature=temperature, **known
    )


def reads_node(conductance: np.ndarray, **labels: Any) -> xr.Dataset:
    """Return a Measurement's reads node of conductances (trace, sample) [S]."""
    n = len(conductance)
    unknown = {
        "device": np.array([f"d{k:03d}" for k in range(n)]), "cycle": np.zeros(n, dtype=np.int64), "level": "",
        "state": "", "target": np.nan, "population": "", "temperature": np.nan, "source": np.zeros(n, dtype=np.int64),
    }  # fmt: skip
    coords = {
        name: ("trace", np.broadcast_to(np.asarray(labels.pop(name, value)), (n,)).copy(), attributes(name))
        for name, value in unknown.items()
    }
    assert not labels, f"no such coordinates: {sorted(labels)}"
    data = {"conductance": (("trace", "sample"), conductance, attributes("conductance"))}
    return xr.Dataset(data, coords=coords, attrs={"questions": "[]", "notes": "[]"})


def measurement(sample: str = "synthetic", **nodes: xr.Dataset) -> xr.DataTree:
    """Return a Measurement of the given nodes."""
    source = {"name": "synthetic.csv", "sha256": "0" * 64, "reader": "table", "why": "made for a test"}
    attrs = {
        "schema": "calib-measurement/1", "instrument": "none", "sample": sample, "citation": "a test", "license": "CC0",
        "sources": json.dumps([source]),
    }  # fmt: skip
    root = xr.Dataset(attrs=attrs)
    return xr.DataTree.from_dict({"/": root, **{f"/{name}": node for name, node in nodes.items()}})


def dataset(tree: xr.DataTree, node: str) -> xr.Dataset:
    """Return a node of a tree as a dataset."""
    return tree.children[node].to_dataset()


def device_nodes() -> dict[str, xr.Dataset]:
    """Return the nodes of a device model written by hand: two states, Poole-Frenkel, gamma regressed as it is."""
    one, names = {"units": "1"}, ["c", "gamma"]
    slope = np.array([0.05, 0.2])
    intercept = np.array([0.4, -0.6])
    root = np.sqrt(V_REF)
    variance = np.array([0.05, 0.2]) ** 2
    rank_one = np.array([[V_REF, -root], [-root, 1.0]])
    centres = np.log([2e3, 1e6])
    levels = np.linspace(0.0, 1.0, 21)
    offsets = 0.6 * np.linspace(-1.0, 1.0, 21) ** 3
    per_state, per_parameter = ("state",), ("state", "parameter")
    iv = xr.Dataset(
        {
            "transform": (per_parameter, np.array([["log", "identity"]] * 2)),
            "intercept": (per_parameter, np.stack([-root * intercept, intercept], axis=1), one),
            "slope": (per_parameter, np.stack([-1 - root * slope, slope], axis=1), one),
            "covariance": ((*per_parameter, "parameter_other"), variance[:, None, None] * rank_one, one),
            "ln_r_quantile": (("state", "quantile"), centres[:, None] + offsets, one),
            "ln_r_mean": (per_state, centres, one),
            "ln_r_std": (per_state, np.array([0.3, 0.3]), one),
            "ln_r_min": (per_state, centres - 0.6, one),
            "ln_r_max": (per_state, centres + 0.6, one),
            "n_curves": (per_state, np.array([100, 100])),
            "n_devices": (per_state, np.array([20, 20])),
        },
        coords={"state": ["lrs", "hrs"], "parameter": names, "parameter_other": names, "quantile": levels},
        attrs={
            "iv_model": "poole-frenkel", "form": "anchored", "reference_voltage": V_REF, "v_min": 0.02, "v_max": 0.5,
            "polarity": "positive",
        },
    )  # fmt: skip
    siemens = {"units": "S"}
    conductance = xr.Dataset({"g_off": ((), 1e-6, siemens), "g_on": ((), 5e-4, siemens)}, attrs={"rule": "by hand"})
    programming = xr.Dataset(
        {
            "r_median": ("state", np.exp(centres), {"units": "ohm"}),
            **{name: ("state", np.array([0.3, 0.4]), one) for name in ("sigma", "sigma_d2d", "sigma_c2c")},
            "n_devices": ("state", np.array([20, 20])),
        },
        coords={"state": ["lrs", "hrs"]},
    )
    stuck = xr.Dataset(
        {
            "probability": ((), 0.1, one), "probability_bound": ("bound", np.array([0.01, 0.3]), one),
            "n_devices": ((), 20), "n_stuck": ((), 2), "conductance": ("stuck_device", np.array([1e-6, 5e-4]), siemens),
            "bandwidth": ((), 1e-5, siemens),
        },
        coords={"bound": ["low", "high"], "stuck_device": ["d001", "d007"]},
    )  # fmt: skip
    return {"iv": iv, "conductance": conductance, "programming": programming, "stuck": stuck}
