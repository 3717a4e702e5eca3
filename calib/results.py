"""What an evaluation finds, as data: dimensions, attributes, and the file."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import __version__, device_model, files, runs
from calib.energy import Work, efficiency, energy_per_inference
from calib.errors import ModelError
from calib.nonidealities.base import Conditions
from calib.runs import Run
from calib.vision import ImageData

SCHEMA = "calib-results/1"
RUN_DEVICE = "trained on"
"""Stands for the device model of each run."""
REDRAWS = ("chip", "batch")
PAPER_BATCH = 100  # images that share devices in the paper's protocol
_DIMS = {
    "accuracy": ("network", "device", "chip"),
    "error": ("network", "device", "chip"),
    "loss": ("network", "device", "chip"),
    "clipped": ("network", "device", "chip", "layer"),
    "power_layer": ("network", "device", "chip", "layer"),
    "energy_per_inference": ("network", "device", "chip"),
    "efficiency_tops_per_watt": ("network", "device", "chip"),
}
_ATTRS = {
    "accuracy": ("1", "fraction of test images classified rightly"),
    "error": ("1", "fraction of test images classified wrongly"),
    "loss": ("1", "mean cross-entropy"),
    "clipped": ("1", "devices outside of the range that the device model was fitted to"),
    "power_layer": ("W", "power dissipated in the devices, sum over the readings of an input, mean over inputs"),
    "energy_per_inference": ("J", "energy of one inference, devices only"),
    "efficiency_tops_per_watt": ("1e12 s^-1 W^-1", "operations per second and watt, devices only"),
}


@dataclass(frozen=True)
class ChipPerformance:
    """What chips of a network do on a set of images: accuracy and loss (chip,), power [W] and clipped (chip, layer)."""

    accuracy: np.ndarray
    loss: np.ndarray
    power: np.ndarray
    clipped: np.ndarray


@dataclass(frozen=True)
class Case:
    """A device model under conditions, and what it is called in the results."""

    label: str
    model: Any
    conditions: Conditions


@dataclass(frozen=True)
class Programming:
    """Energy [J] of programming a network once, NaN where it is not known, and a sentence about it."""

    statement: str
    energy: float = math.nan
    bound: tuple[float, float] = (math.nan, math.nan)


def format_time(seconds: float) -> str:
    """Return a duration in the largest unit in which it is at least 1: '1 h', '2.5 d', '1e-06 s'."""
    for name, size in (("y", 31557600.0), ("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.3g} {name}"
    return f"{seconds:.3g} s"


def _network_names(opened: list[Run]) -> list[str]:
    folders = [item.path.resolve().name for item in opened]
    labels = [
        f"{folder} {position}" if folders.count(folder) > 1 else folder for position, folder in enumerate(folders)
    ]
    return [f"{label}/{i}" for label, item in zip(labels, opened, strict=True) for i in range(item.options.networks)]


def dataset(
    opened: list[Run], names: list[str], rows: list[list[ChipPerformance]], taken: list[Work], read_time: float
) -> xr.Dataset:
    """Return the results of networks (rows) on devices (their cells).

    Parameters
    ----------
    names : of the devices.
    rows : what was measured, one list for each network.
    taken : what an inference takes in each layer.
    """
    count = sum(layer.products for layer in taken)
    power = np.array([[cell.power for cell in row] for row in rows])
    values = {
        "accuracy": np.array([[cell.accuracy for cell in row] for row in rows], dtype=float),
        "loss": np.array([[cell.loss for cell in row] for row in rows], dtype=float),
        "clipped": np.array([[cell.clipped for cell in row] for row in rows], dtype=float),
        "power_layer": power,
        "energy_per_inference": energy_per_inference(power, read_time),
        "efficiency_tops_per_watt": efficiency(power, count, read_time),
    }
    values["error"] = 1 - values["accuracy"]
    variables: dict[str, Any] = {
        key: (dims, values[key], {"units": _ATTRS[key][0], "long_name": _ATTRS[key][1]}) for key, dims in _DIMS.items()
    }
    histories = [item.history(i) for item in opened for i in range(item.options.networks)]
    epochs = max(len(history) for history in histories)
    for key in runs.HISTORY[1:]:
        column = np.full((len(histories), epochs), np.nan)
        for index, history in enumerate(histories):
            column[index, : len(history)] = [row.get(key, np.nan) for row in history]
        if key == "line_residual" and np.isnan(column).all():
            continue  # no network was trained on lines with resistance and devices with a law
        variables[key] = (("network", "epoch"), column, {"units": "1", "long_name": key.replace("_", " ")})
    coordinates = {
        "network": _network_names(opened),
        "device": names,
        "chip": np.arange(power.shape[2]),
        "layer": np.arange(power.shape[3]),
        "epoch": np.arange(1, epochs + 1),
    }
    return xr.Dataset(variables, coords=coordinates)


def with_programming(results: xr.Dataset, spent: list[list[Programming]]) -> xr.Dataset:
    """Return results with the energy of programming, of networks (rows) on devices (their cells).

    `energy_programming` (network, device), its interval `energy_programming_bound`, and `programming_statement`
    (device): what was counted and assumed, or why the energy is not known.
    """
    bound = np.array([[each.bound for each in row] for row in spent])
    words = {
        "energy_programming": "energy of programming all devices once",
        "energy_programming_bound": "95 % interval of it, from what the devices measured leave uncertain",
    }
    dims = ("network", "device")
    added = {
        "energy_programming": (dims, np.array([[each.energy for each in row] for row in spent])),
        "energy_programming_bound": ((*dims, "bound"), bound),
    }
    variables: dict[str, Any] = {
        name: (*content, {"units": "J", "long_name": words[name]}) for name, content in added.items()
    }
    every = [list(dict.fromkeys(row[k].statement for row in spent)) for k in range(len(spent[0]))]
    what = {"long_name": "what the energy of programming counts, or why it is not known"}
    variables["programming_statement"] = ("device", ["; ".join(parts) for parts in every], what)
    return results.assign(variables).assign_coords(bound=["low", "high"])


def attributes(
    opened: list[Run],
    cases: list[Case],
    chips: int,
    redraw: str,
    seed: int,
    read_time: float,
    data: ImageData | None,
) -> dict[str, Any]:
    """Return the attributes of results, the options apart."""
    hashes = {}
    for case in cases:
        if isinstance(case.model, xr.DataTree):
            hashes[case.label] = device_model.identity(case.model)
        elif case.model == RUN_DEVICE:
            hashes[case.label] = " ".join(sorted({item.record["device"]["sha256"] for item in opened}))
    kept = {
        "chip": "Each chip keeps its devices over the whole test set.",
        "batch": f"New devices are drawn for every {PAPER_BATCH} test images: a draw is a mean over partial chips.",
    }[redraw]
    recorded = opened[0].record["data"] if data is None else {"name": data.name, "source": data.source}
    count = sum(item.options.networks for item in opened)
    return {
        "schema": SCHEMA,
        "calib_version": __version__,
        "protocol": f"{count} trained network(s), {chips} draw(s) of devices each on the test images of "
        f"'{recorded['name']}'. {kept} Read time {read_time:g} s; energy is that of the devices alone."
        f"{_what_happened(opened, cases)}",
        "seed": int(seed),
        "device_hashes": json.dumps(hashes, sort_keys=True),
        "data": json.dumps(recorded, sort_keys=True, ensure_ascii=False),
        "versions": json.dumps(runs.versions(), sort_keys=True),
        "training": json.dumps([item.record for item in opened], sort_keys=True, ensure_ascii=False),
    }


def _what_happened(opened: list[Run], cases: list[Case]) -> str:
    """Return sentences about conditions, and about device models that know nothing of them; empty as programmed."""
    conditions = cases[-1].conditions
    latest = max((case.conditions for case in cases), key=lambda each: each.time)
    parts = []
    if latest.time:
        parts.append(f"{'up to ' if len(cases) > 1 else ''}{format_time(latest.time)} after programming")
    if conditions.reads:
        parts.append(f"after {conditions.reads} readings")
    if conditions.temperature is not None:
        parts.append(f"at {conditions.temperature:g} K")
    if not parts:
        return ""
    trees = {case.label: case.model for case in cases if isinstance(case.model, xr.DataTree)}
    trees |= {case.label: opened[0].device for case in cases if isinstance(case.model, str) and case.model != "ideal"}
    text = f" Devices are evaluated {', '.join(parts)}{', compensated' * conditions.compensate}."
    for asked, node in ((latest.time, "retention"), (conditions.reads, "read_disturb")):
        lacking = [label for label, tree in trees.items() if asked and node not in tree.children]
        if lacking:
            text += f" No {node.replace('_', ' ')} is known of {'; '.join(lacking)}: nothing of it changes there."
    return text


def open_results(path: str | Path) -> xr.Dataset:
    """Open a results file and check it.

    Raises
    ------
    ModelError
        When it is damaged or no results file of calib; the message names what does not conform.
    """
    results = files.open_netcdf(path, "results file", "make it again with 'calib evaluate'").to_dataset()
    schema = results.attrs.get("schema", "")
    if schema != SCHEMA:
        found = f"schema '{schema}'" if schema else "no attribute 'schema'"
        raise ModelError(f"'{path}' is no results file: found {found}, expected '{SCHEMA}'; use 'calib evaluate'")
    problems = [f"variable '{name}' is missing" for name in _DIMS if name not in results]
    problems += [
        f"variable '{name}' has dimensions {results[name].dims}, expected {dims}"
        for name, dims in _DIMS.items()
        if name in results and results[name].dims != dims
    ]
    expected = ("protocol", "training", "options")
    problems += [f"attribute '{key}' is missing" for key in expected if key not in results.attrs]
    if problems:
        raise ModelError(f"'{path}' does not conform to {SCHEMA}: {'; '.join(problems)}")
    return results
