"""Monte-Carlo evaluation of trained networks over chips."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from calib import device_model, files, runs
from calib.crossbar.array import Array
from calib.crossbar.calibration import calibrate_converters
from calib.crossbar.chips import held_chips
from calib.crossbar.devices import Devices, generator
from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.crossbar.tile_outputs import take_residual
from calib.effects import Hardware
from calib.energy import (
    READ_TIME,
    ROLES,
    energy_per_inference,
    periphery_energy,
    periphery_figures,
    role_power,
    targets,
    work,
)
from calib.errors import ModelError, OptionError
from calib.nonidealities.base import AS_PROGRAMMED, Conditions
from calib.programming_energy import programming_energy, programming_figures
from calib.results import (
    PAPER_BATCH,
    REDRAWS,
    RUN_DEVICE,
    Case,
    ChipPerformance,
    Programming,
    attributes,
    dataset,
    format_time,
    with_programming,
)
from calib.results import open_results as open_results
from calib.runs import Run
from calib.vision import ImageData

_MOST_COEFFICIENTS = 2**25  # held for the chips that are stacked, 4 bytes each
_MOST_BASIS = 2**24  # of the images that are computed at once


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
    width = max(layer.plan.size * layer.word_lines * (len(chips) if index else 1) for index, layer in enumerate(layers))
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
    return (right.double() / count).numpy(), (loss / count).numpy(), (watts / count).numpy(), clipped.numpy()


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
    time: float | Sequence[float] = 0.0,
    reads: int = 0,
    temperature: float | None = None,
    compensate: bool = False,
    array: str | Array | None = None,
    periphery: str | Mapping[str, float] | None = None,
    roles: bool = False,
    programming: str | Mapping[str, float] | None = None,
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
    time : since programming [s]. Several times make a device of each, labelled 'device, 1 h'; the chips are the same.
    reads : of each device since programming.
    temperature : [K] at which devices are kept, None for that of the measurement.
    compensate : whether reference columns correct the outputs for drift.
    array : the array in place of that of each run, see `calib.crossbar.array.Array.from_options`.
    periphery : energy [J] of one conversion, 'dac=1e-13,adc=2e-12'; a term of its own, of no influence on the others.
    roles : measure the power of positive, negative and bias devices apart, see `calib.energy.role_power`; takes several
        times as long.
    programming : whether to give the energy of programming each network, None for no. Amplitudes [V] and widths [s] of
        pulses that the device model does not hold, 'set_voltage=2,reset_voltage=2.5,width=1e-7'; '' or {} for those of
        the model alone. See `calib.programming_energy`; NaN where it is not known, with the reason.
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
    _check(opened, redraw)
    check_numbers(chips, read_time)
    figures = periphery_figures(periphery)
    pulses = None if programming is None else programming_figures(programming)
    if roles and redraw != "chip":
        raise OptionError("the power of each role is that of chips that stay the same; leave out --redraw batch")
    arrays = [array_of(item, array) for item in opened]
    models = [_device(item) for item in _listed(devices)] if devices is not None else [RUN_DEVICE]
    times = [Conditions(float(t), reads, temperature, compensate) for t in _listed(time)]
    cases = _cases(models, _unique_names(models, opened), times)
    rows, energies, by_role, spent, residuals = [], [], [], [], []
    for item, placed in zip(opened, arrays, strict=True):
        images = data if data is not None else item.data(None, data_folder)
        test = (torch.tensor(images.test_images), torch.tensor(images.test_labels))
        prepared = [
            Hardware(_devices_of(item, case.model, extrapolate, case.conditions), placed) for case in cases
        ]  # fmt: skip
        for index in range(item.options.networks):
            row, shares, costs = [], [], []
            for case, made in zip(cases, prepared, strict=True):
                network = network_on(item, index, made, torch.tensor(images.train_images[:_CALIBRATION_IMAGES]))
                row.append(chip_performance(network, *test, seed=seed, chips=range(chips), redraw=redraw))
                residuals.append(take_residual(memristive_layers(network)))
                if roles:
                    shares.append(role_power(network, test[0], seed=seed, chips=range(chips)))
                if pulses is not None:
                    costs.append(_programming(item, case, network, pulses))
                if progress is not None:
                    progress(1, f"{item.path.name} network {index} on {case.label}")
            rows.append(row)
            by_role.append(shares)
            spent.append(costs)
            taken = work(network, test[0][:_COUNTED_IMAGES])
            energies.append(periphery_energy(taken, figures))
    results = dataset(opened, [case.label for case in cases], rows, taken, read_time)
    results = _with_residuals(results, residuals)
    if figures:
        each = np.repeat(np.array(energies)[:, None], len(cases), axis=1)
        attrs = {"units": "J", "long_name": "energy of the conversions of one inference, from given figures"}
        results["energy_periphery"] = (("network", "device"), each, attrs)
    if roles:
        attrs = {"units": "W", "long_name": "power of the devices of each role"}
        dims = ("network", "device", "chip", "layer", "role")
        results["power_role"] = (dims, np.array(by_role), attrs)
        results = results.assign_coords(role=list(ROLES))
    if pulses is not None:
        results = with_programming(results, spent)
    results.attrs = attributes(opened, cases, chips, redraw, seed, read_time, data) | {
        "options": json.dumps(
            {"chips": chips, "redraw": redraw, "read_time": read_time, "time": _listed(time), "reads": reads,
             "temperature": temperature, "compensate": compensate, "periphery": figures, "programming": pulses,
             "array": None if array is None else arrays[0].to_options(), "extrapolate": extrapolate},
            sort_keys=True,
        )
    }  # fmt: skip
    if output is not None:
        files.write_netcdf(results, output)
    return results


def _with_residuals(results: xr.Dataset, residuals: list[float]) -> xr.Dataset:
    """Add the residuals of networks and devices, those of a network one after the other, if lines were solved."""
    if np.isnan(residuals).all():
        return results
    text = "largest residual of Kirchhoff's current law on lines with resistance, relative to the devices' currents"
    each = np.reshape(residuals, (results.sizes["network"], results.sizes["device"]))
    return results.assign(line_residual_evaluated=(("network", "device"), each, {"units": "1", "long_name": text}))


def _programming(run: Run, case: Case, network: nn.Module, figures: Mapping[str, float]) -> Programming:
    """Return the energy of programming a network; where it is not known, NaN and the reason."""
    if isinstance(case.model, str) and case.model == "ideal":
        return Programming("an ideal device needs no pulses")
    try:
        cost = programming_energy(case.model if isinstance(case.model, xr.DataTree) else run.device, figures)
    except ModelError as error:
        return Programming(str(error))
    return Programming(cost.statement, *cost.total(targets(network)))


_CALIBRATION_IMAGES = 256
_COUNTED_IMAGES = 16


def _cases(models: list[Any], names: list[str], times: list[Conditions]) -> list[Case]:
    if not times:
        raise OptionError("no time was given; give one or more, in seconds")
    if len({conditions.time for conditions in times}) < len(times):
        raise OptionError(f"a time was given twice: {', '.join(format_time(c.time) for c in times)}")
    cases = []
    for model, name in zip(models, names, strict=True):
        if len(times) == 1 or (isinstance(model, str) and model == "ideal"):
            cases.append(Case(name, model, times[0]))
        else:
            cases += [Case(f"{name}, {format_time(each.time)}", model, each) for each in times]
    return cases


def array_of(run: Run, given: str | Array | None = None) -> Array:
    """Return the array that was given, else that of the run."""
    return Array.from_options(getattr(run.options, "array", "") if given is None else given)


def network_on(run: Run, network: int, hardware: Hardware, images: torch.Tensor) -> nn.Module:
    """Return a trained network of a run on some hardware.

    Where the array is not the one that the network was trained on and the range of its ADC is to come from data, it is
    found with devices of this hardware and these images.

    Parameters
    ----------
    network : number of the network.
    images : (image, ...) inputs of the network.
    """
    result = run.network(network, hardware.devices)
    layers = memristive_layers(result)
    changed = [layer for layer in layers if layer.array != hardware.array]
    for layer in changed:
        layer.set_array(hardware.array)
    adc = hardware.array.adc
    if changed and adc is not None and not adc.is_ideal and adc.full_scale is None:
        for index, layer in enumerate(layers):
            layer.generator = generator(run.options.seed, network, "converters", index)
        with torch.no_grad():
            calibrate_converters(result, changed, [((images,), {})])
    return result


def error_and_energy(
    run: Run,
    hardware: Hardware,
    images: ImageData,
    *,
    seed: int,
    chips: int,
    read_time: float,
    advance: Callable[[int], None] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return error and energy per inference [J] (network, chip) of all networks of a run on some hardware.

    Parameters
    ----------
    advance : called with the number of each network when it is done.
    """
    test = (torch.tensor(images.test_images), torch.tensor(images.test_labels))
    sample = torch.tensor(images.train_images[:_CALIBRATION_IMAGES])
    error, energy = [], []
    for index in range(run.options.networks):
        network = network_on(run, index, hardware, sample)
        found = chip_performance(network, *test, seed=seed, chips=range(chips))
        error.append(1 - found.accuracy)
        energy.append(energy_per_inference(found.power, read_time))
        if advance is not None:
            advance(index)
    return np.array(error), np.array(energy)


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def check_numbers(chips: int, read_time: float) -> None:
    """Raise an error when there are no chips or no time to read."""
    if chips < 1 or not read_time > 0:
        raise OptionError(f"chips is {chips} and the read time {read_time} s; expected at least 1 and more than 0")


def _check(opened: list[Run], redraw: str) -> None:
    if not opened:
        raise OptionError("no run was given; give folders that 'calib train' made")
    if redraw not in REDRAWS:
        raise OptionError(f"redraw is '{redraw}'; expected one of {', '.join(REDRAWS)}")
    sizes = {item.options.layers for item in opened}
    if len(sizes) > 1:
        listed = ", ".join("-".join(map(str, size)) for size in sorted(sizes))
        raise OptionError(f"the runs have layers of different sizes ({listed}); evaluate them one after the other")


def _device(item: Any) -> Any:
    return item if isinstance(item, xr.DataTree) or item == "ideal" else device_model.open_device(item)


def _devices_of(run: Run, model: Any, extrapolate: bool, conditions: Conditions = AS_PROGRAMMED) -> Devices:
    if isinstance(model, str) and model == "ideal":
        return devices_of(run, None, extrapolate=extrapolate).ideal()
    tree = model if isinstance(model, xr.DataTree) else None
    return devices_of(run, tree, extrapolate=extrapolate, conditions=conditions)


def devices_of(
    run: Run, tree: xr.DataTree | None, *, extrapolate: bool = False, conditions: Conditions = AS_PROGRAMMED
) -> Devices:
    """Return the devices of a model (None: that of the run) at the run's input voltage, under conditions."""
    return Devices.from_model(
        run.device if tree is None else tree,
        input_voltage=run.options.input_voltage,
        extrapolate=extrapolate or run.options.extrapolate,
        conditions=conditions,
    )


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
