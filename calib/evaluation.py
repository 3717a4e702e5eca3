"""Monte-Carlo evaluation of trained networks over chips."""

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from calib import __version__, device_model, files, runs
from calib.crossbar.devices import Devices
from calib.crossbar.chips import held_chips
from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.energy import READ_TIME, efficiency, energy_per_inference, synapses
from calib.errors import ModelError, OptionError
from calib.runs import Run
from calib.vision import ImageData

SCHEMA = "calib-results/1"
REDRAWS = ("chip", "batch")
PAPER_BATCH = 100  # images that share devices in the paper's protocol
_MOST_COEFFICIENTS = 2**25  # held for the chips that are stacked, 4 bytes each
_MOST_BASIS = 2**24  # of the images that are computed at once
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
    "power_layer": ("W", "power dissipated in the devices, mean over inputs"),
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


@torch.no_grad()
def chip_performance(
    network: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    *,
    seed: int | str,
    chips: Sequence[int],
    redraw: str = "chip",
    power: bool = True,
) -> ChipPerformance:
    """Measure chips on images (image, feature).

    Chip i is the same whichever others are measured. As many chips as memory allows are computed together.

    Parameters
    ----------
    network : module with memristive layers whose first layers do not mix images.
    seed, chips : numbers that the devices are drawn from.
    redraw : 'chip' keeps a chip over all images, 'batch' draws new devices for every 100 images, as the paper's code.
    power : whether to measure the power.
    """
    layers = memristive_layers(network)
    if all(layer.devices.is_ideal for layer in layers):
        one = _stacked(network, layers, images, labels, seed, chips[:1], [slice(0, len(images))], power)
        return ChipPerformance(*(np.repeat(part, len(chips), axis=0) for part in one))
    spans = [slice(0, len(images))]
    if redraw == "batch":
        spans = [slice(start, start + PAPER_BATCH) for start in range(0, len(images), PAPER_BATCH)]
    largest = max(layer.plan.size * layer.weight.numel() for layer in layers)
    at_once = max(1, _MOST_COEFFICIENTS // largest)
    groups = [chips[start : start + at_once] for start in range(0, len(chips), at_once)]
    found = [_stacked(network, layers, images, labels, seed, group, spans, power) for group in groups]
    return ChipPerformance(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def _stacked(
    network: nn.Module,
    layers: list[MemristiveLinear],
    images: torch.Tensor,
    labels: torch.Tensor,
    seed: int | str,
    chips: Sequence[int],
    spans: list[slice],
    power: bool,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return accuracy, loss, power and clipped of chips that are computed together."""
    width = max(
        layer.plan.size * layer.word_lines * (len(chips) if index else 1) for index, layer in enumerate(layers)
    )
    chunk = max(1, _MOST_BASIS // width)
    right, loss = torch.zeros(len(chips), dtype=torch.int64), torch.zeros(len(chips), dtype=torch.float64)
    clipped = torch.zeros(len(chips), len(layers))
    watts = torch.zeros(len(chips), len(layers), dtype=torch.float64)
    for draw, span in enumerate(spans):
        with held_chips(network, seed, chips, draw) as stack:
            clipped += stack.clipped / len(spans)
            stack.measures = power
            for start in range(span.start, min(span.stop, len(images)), chunk):
                part = slice(start, min(start + chunk, span.stop))
                logits, target = stack(images[part], start), labels[part]  # (chip, image, class)
                right += (logits.argmax(-1) == target).sum(-1)
                each = functional.cross_entropy(logits.flatten(0, 1), target.repeat(len(chips)), reduction="none")
                loss += each.view(len(chips), -1).sum(-1, dtype=torch.float64)
            watts += stack.power
    count = len(images)
    return (right / count).numpy(), (loss / count).numpy(), (watts / count).numpy(), clipped.numpy()


def evaluate(
    run: str | Path | Run | Sequence[str | Path | Run],
    devices: Sequence[str | Path | xr.DataTree] | str | Path | xr.DataTree | None = None,
    *,
    chips: int = 25,
    redraw: str = "chip",
    seed: int = 0,
    data: ImageData | None = None,
    data_folder: str | Path | None = None,
    read_time: float = READ_TIME,
    extrapolate: bool = False,
    output: str | Path | None = None,
    progress: Any = None,
) -> xr.Dataset:
    """Evaluate the networks of runs on device models, chip by chip.

    Parameters
    ----------
    run : run folders with layers of the same sizes.
    devices : device models (trees, paths or bundled names) and 'ideal' (no nonideality, the conductance range that the
        network was trained for); default: the one that each run was trained on.
    chips : chips for each network and device; the same numbers give the same chips for each network and device.
    redraw : 'chip' or 'batch', see `chip_performance`.
    seed : of the chips.
    data : images; default: those of each run.
    data_folder : see `calib.vision.load`.
    read_time : t_read [s], during which an inference dissipates power.
    extrapolate : accept an input voltage beyond the validity of a device model.
    output : file to write the results to, netCDF-4.
    progress : called with (n=1, text) after each network and device.

    Returns
    -------
    xarray.Dataset
        Dimensions network, device, chip, layer, and epoch for the training histories.

    Raises
    ------
    OptionError
        When an option cannot be used.
    """
    opened = [item if isinstance(item, Run) else runs.open_run(item) for item in _listed(run)]
    _check(opened, chips, redraw, read_time)
    models = [_device(item) for item in _listed(devices)] if devices is not None else [_RUN_DEVICE]
    names = _unique_names(models, opened)
    rows = []
    for item in opened:
        images = data if data is not None else item.data(None, data_folder)
        test = (torch.tensor(images.test_images), torch.tensor(images.test_labels))
        prepared = [_devices_of(item, model, extrapolate) for model in models]
        for index in range(item.options.networks):
            row = []
            for name, made in zip(names, prepared, strict=True):
                row.append(
                    chip_performance(item.network(index, made), *test, seed=seed, chips=range(chips), redraw=redraw)
                )
                if progress is not None:
                    progress(1, f"{item.path.name} network {index} on {name}")
            rows.append(row)
    results = _dataset(opened, names, rows, read_time)
    results.attrs = _attributes(opened, models, names, chips, redraw, seed, read_time, data)
    if output is not None:
        files.write_netcdf(results, output)
    return results


_RUN_DEVICE = "trained on"  # stands for the device model of each run


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _check(opened: list[Run], chips: int, redraw: str, read_time: float) -> None:
    if not opened:
        raise OptionError("no run was given; give folders that 'calib train' made")
    if chips < 1 or not read_time > 0:
        raise OptionError(f"chips is {chips} and the read time {read_time} s; expected at least 1 and more than 0")
    if redraw not in REDRAWS:
        raise OptionError(f"redraw is '{redraw}'; expected one of {', '.join(REDRAWS)}")
    sizes = {item.options.layers for item in opened}
    if len(sizes) > 1:
        listed = ", ".join("-".join(map(str, size)) for size in sorted(sizes))
        raise OptionError(f"the runs have layers of different sizes ({listed}); evaluate them one after the other")


def _device(item: Any) -> Any:
    return item if isinstance(item, xr.DataTree) or item == "ideal" else device_model.open_device(item)


def _devices_of(run: Run, model: Any, extrapolate: bool) -> Devices:
    if isinstance(model, xr.DataTree):
        return run.devices(model, extrapolate=extrapolate)
    return run.devices(extrapolate=extrapolate).ideal() if model == "ideal" else run.devices(extrapolate=extrapolate)


def _unique_names(models: list[Any], opened: list[Run]) -> list[str]:
    """Return a name for each device, with its hash where two share one."""
    names = []
    for model in models:
        if isinstance(model, xr.DataTree):
            name = str(model.attrs.get("name", "")) or "device"
            names.append(f"{name} {device_model.identity(model)[:8]}" if name in names else name)
        else:
            trained = {item.record["device"]["name"] for item in opened}
            names.append(model if model == "ideal" or len(trained) > 1 else trained.pop())
    if len(set(names)) < len(names):
        raise OptionError(f"a device model was given twice: {', '.join(names)}")
    return names


def _network_names(opened: list[Run]) -> list[str]:
    folders = [item.path.resolve().name for item in opened]
    labels = [
        f"{folder} {position}" if folders.count(folder) > 1 else folder for position, folder in enumerate(folders)
    ]
    return [f"{label}/{i}" for label, item in zip(labels, opened, strict=True) for i in range(item.options.networks)]


def _dataset(opened: list[Run], names: list[str], rows: list[list[ChipPerformance]], read_time: float) -> xr.Dataset:
    sizes = opened[0].options.layers
    count = synapses(itertools.pairwise(sizes))
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
            column[index, : len(history)] = [row[key] for row in history]
        variables[key] = (("network", "epoch"), column, {"units": "1", "long_name": key.replace("_", " ")})
    coordinates = {
        "network": _network_names(opened),
        "device": names,
        "chip": np.arange(power.shape[2]),
        "layer": np.arange(power.shape[3]),
        "epoch": np.arange(1, epochs + 1),
    }
    return xr.Dataset(variables, coords=coordinates)


def _attributes(
    opened: list[Run],
    models: list[Any],
    names: list[str],
    chips: int,
    redraw: str,
    seed: int,
    read_time: float,
    data: ImageData | None,
) -> dict[str, Any]:
    hashes = {}
    for name, model in zip(names, models, strict=True):
        if isinstance(model, xr.DataTree):
            hashes[name] = device_model.identity(model)
        elif model == _RUN_DEVICE:
            hashes[name] = " ".join(sorted({item.record["device"]["sha256"] for item in opened}))
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
        f"'{recorded['name']}'. {kept} Read time {read_time:g} s; energy is that of the devices alone.",
        "options": json.dumps({"chips": chips, "redraw": redraw, "read_time": read_time}, sort_keys=True),
        "seed": int(seed),
        "device_hashes": json.dumps(hashes, sort_keys=True),
        "data": json.dumps(recorded, sort_keys=True, ensure_ascii=False),
        "versions": json.dumps(runs.versions(), sort_keys=True),
        "training": json.dumps([item.record for item in opened], sort_keys=True, ensure_ascii=False),
    }


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
