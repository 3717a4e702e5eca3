"""The numbers of a device model that simulators of networks take, in SI units, and what a simulator leaves out."""

import json
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import xarray as xr

from calib.characteristics import median_resistance
from calib.device_model import identity
from calib.exporters._text import escape_hidden

WORDS = {
    "iv": "the I-V law, so devices are taken as ohmic",
    "conductance": "the conductance range",
    "programming": "the spread of the resistance after programming",
    "stuck": "the devices that do not switch",
    "levels": "the levels and how many can be told apart",
    "retention": "how the conductance drifts after programming",
    "read_noise": "the read noise",
    "pulse": "how the conductance answers to identical pulses",
    "writes": "the outcome of writes with verification",
    "switching": "the switching voltages",
    "cycles": "how cycles follow each other",
    "activation": "the dependence on temperature",
}
_SILENT = ("examples", "selection", "validation")
"""Nodes about the fit, not about the device."""
DIGITS = 9
"""Of numbers in the files."""


@dataclass(frozen=True)
class Range:
    """The conductance range [S], and what it was taken from."""

    g_off: float
    g_on: float
    source: str


@dataclass(frozen=True)
class Programming:
    """Standard deviation of ln R at some resistances [Ohm], and its part between devices (None where not separated)."""

    resistance: list[float]
    sigma: list[float]
    sigma_d2d: list[float] | None


@dataclass(frozen=True)
class StuckDevices:
    """Probability of being stuck; the kernel density of the conductance is normals about `values` [S], reflected."""

    probability: float
    values: list[float]
    bandwidth: float


@dataclass(frozen=True)
class Drift:
    """G(t) = G(t0) (t / t0)^-nu: t0 [s], and mean and standard deviation of nu at some conductances [S]."""

    reference_time: float
    conductance: list[float]
    exponent_mean: list[float]
    exponent_std: list[float]


@dataclass(frozen=True)
class ReadNoise:
    """sigma_G / G = relative (G / reference_conductance)^exponent, ln of it spread by `spread` between devices."""

    reference_conductance: float
    relative: float
    exponent: float
    spread: float


def header(tree: xr.DataTree) -> dict[str, str]:
    """Return who the device is: name, technology, citation, identity."""
    return {
        **{key: str(tree.attrs.get(key, "")) for key in ("name", "technology", "citation")},
        "identity": identity(tree),
    }


def conductance_range(tree: xr.DataTree) -> Range | None:
    """Return the conductance range; where the node conductance is absent, the medians of two states, or the pulses'."""
    if "conductance" in tree.children:
        node = tree["conductance"].to_dataset()
        return _range(float(node["g_off"]), float(node["g_on"]), "conductance range")
    if "programming" in tree.children:
        r = tree["programming"].to_dataset()["r_median"].values
        return _range(1 / float(r.max()), 1 / float(r.min()), "median resistances after programming")
    if "iv" in tree.children:
        node = tree["iv"].to_dataset()
        states = set(map(str, node["state"].values))
        if {"lrs", "hrs"} <= states:
            ends = [1 / float(median_resistance(node, state)) for state in ("hrs", "lrs")]
            if ends[0] < ends[1]:
                return _range(ends[0], ends[1], "median resistances of the two states")
        low, high = float(np.exp(-node["ln_r_max"].values.max())), float(np.exp(-node["ln_r_min"].values.min()))
        return _range(low, high, "smallest and largest conductance of the curves")
    if "pulse" in tree.children and tree["pulse"].attrs.get("unit") == "S":
        node = tree["pulse"].to_dataset()
        return _range(float(node["g_min"]), float(node["g_max"]), "conductances that pulses reach")
    return None


def _range(low: float, high: float, source: str) -> Range | None:
    return Range(low, high, source) if 0 < low < high < math.inf else None


def programming(tree: xr.DataTree) -> Programming | None:
    """Return the programming spread, in the order of the resistance."""
    if "programming" not in tree.children:
        return None
    node = tree["programming"].to_dataset()
    known = np.isfinite(node["sigma"].values) & np.isfinite(node["r_median"].values)
    node = node.isel(state=np.flatnonzero(known))
    node = node.isel(state=np.argsort(node["r_median"].values, kind="stable"))
    if not node.sizes["state"]:
        return None
    d2d = node["sigma_d2d"].values.astype(float)
    return Programming(
        node["r_median"].values.tolist(),
        node["sigma"].values.tolist(),
        d2d.tolist() if np.isfinite(d2d).all() else None,
    )


def stuck(tree: xr.DataTree) -> StuckDevices | None:
    """Return the devices that do not switch; None also where the model says that there are none."""
    if "stuck" not in tree.children:
        return None
    node = tree["stuck"].to_dataset()
    values = [value for value in node["conductance"].values.tolist() if value > 0]
    probability, bandwidth = float(node["probability"]), float(node["bandwidth"])
    if not probability > 0 or not values:
        return None
    return StuckDevices(probability, values, bandwidth if bandwidth > 0 else 0.0)


def drift(tree: xr.DataTree) -> Drift | None:
    """Return the drift exponents: those of ranges of the conductance, or one for all."""
    if "retention" not in tree.children:
        return None
    node = tree["retention"].to_dataset()
    time = float(tree["retention"].attrs.get("reference_time", math.nan))
    mean, std = float(node["drift_exponent_mean"]), float(node["drift_exponent_std"])
    if not (math.isfinite(mean) and time > 0):
        return None
    if "range_ln_g" in node and node.sizes["nu_range"] > 1:
        table = np.stack([
            node[name].values.astype(float)
            for name in ("range_ln_g", "range_drift_exponent_mean", "range_drift_exponent_std")
        ])  # fmt: skip
        table = table[:, np.isfinite(table).all(axis=0)]
        if table.shape[1] > 1:
            order = np.argsort(table[0], kind="stable")
            g, means, stds = table[:, order]
            return Drift(time, np.exp(g).tolist(), means.tolist(), stds.tolist())
    centre = float(node["ln_g_reference"]) if "ln_g_reference" in node else math.nan
    g_one = math.exp(centre) if math.isfinite(centre) else 1.0
    return Drift(time, [g_one], [mean], [std if math.isfinite(std) else 0.0])


def read_noise(tree: xr.DataTree) -> ReadNoise | None:
    """Return the read noise."""
    if "read_noise" not in tree.children:
        return None
    node = tree["read_noise"].to_dataset()
    g = float(tree["read_noise"].attrs.get("reference_conductance", math.nan))
    level, exponent, spread = (float(node[name]) for name in ("ln_noise", "noise_exponent", "noise_spread"))
    if not (math.isfinite(level) and g > 0):
        return None
    exponent, spread = (value if math.isfinite(value) else 0.0 for value in (exponent, spread))
    return ReadNoise(g, math.exp(level), exponent, spread)


_TAKEN: dict[str, Callable[[xr.DataTree], Any]] = {
    "programming": programming, "stuck": stuck, "retention": drift, "read_noise": read_noise,
}  # fmt: skip
"""Node -> what takes its numbers, None where they are not known."""


def omissions(tree: xr.DataTree, carried: Collection[str], finer: Mapping[str, str]) -> list[str]:
    """Return sentences about every node of the model that is not carried or lacks its numbers, and those of `finer`.

    Parameters
    ----------
    carried : nodes that the format carries.
    finer : node -> sentence on what of a node that is carried is not.
    """
    children = [str(name) for name in tree.children]
    lost = [name for name in children if name not in carried and name not in _SILENT]
    unknown = [name for name in children if name in carried and name in _TAKEN and _lacks(tree, name)]
    sentences = [f"{_words(name)} (node {name})" for name in lost]
    sentences += [f"{_words(name)} (node {name}): the model does not know its numbers" for name in unknown]
    if "conductance" in carried and conductance_range(tree) is None:
        sentences.append("a conductance range in siemens: the model states none")
    sentences += [text for name, text in finer.items() if name in children and name in carried and name not in unknown]
    return [*sentences, "the intervals of all numbers, and what the fit says about itself (calib card --format json)"]


def _words(node: str) -> str:
    return WORDS.get(node, f"the characteristic {node}")


def _lacks(tree: xr.DataTree, node: str) -> bool:
    """Whether a node's numbers cannot be taken; a probability of 0 of being stuck is a number."""
    nothing_stuck = node == "stuck" and not float(tree["stuck"].to_dataset()["probability"]) > 0
    return _TAKEN[node](tree) is None and not nothing_stuck


def parts(tree: xr.DataTree) -> dict[str, dict[str, Any] | None]:
    """Return range, programming, stuck devices, drift and read noise as plain data, None what the model lacks."""
    found = {
        "conductance": conductance_range(tree), "programming": programming(tree), "stuck": stuck(tree),
        "drift": drift(tree), "read_noise": read_noise(tree),
    }  # fmt: skip
    return {name: None if part is None else asdict(part) for name, part in found.items()}


def to_json(document: Mapping[str, Any]) -> str:
    """Return strict JSON with sorted keys; numbers that JSON lacks become null."""
    text = json.dumps(_plain(document), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return escape_hidden(text) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float):
        return float(f"{value:.{DIGITS}g}") if math.isfinite(value) else None
    return value
