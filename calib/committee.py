"""Committees: several networks, each on a chip of its own, that answer together.

A committee of n answers with the class of the largest mean output,

    p(class) = (1/n) sum_m softmax(y_m)(class)    or    y(class) = (1/n) sum_m y_m(class),

y_m the outputs of member m on its chip. What devices do wrong differs from chip to chip and averages out; what networks
have learnt differently does so as well when members are different networks.

Source: ensemble averaging of D. Joksas et al., Nat. Commun. 11, 4273 (2020), doi 10.1038/s41467-020-18098-0.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from calib import __version__, device_model, files, runs
from calib.crossbar.array import Array
from calib.crossbar.chips import ChipStack
from calib.crossbar.layers import memristive_layers
from calib.effects import Hardware
from calib.energy import READ_TIME, energy_per_inference
from calib.errors import OptionError
from calib.evaluation import array_of, check_numbers, devices_of, network_on
from calib.runs import Run
from calib.vision import ImageData

SCHEMA = "calib-committee/1"
MEMBERS = ("networks", "copies")
AVERAGES = ("probability", "logits")
_IMAGES_AT_ONCE = 500
_CALIBRATION_IMAGES = 256


def committee(
    run: str | Path | Run,
    device: str | Path | xr.DataTree | None = None,
    *,
    sizes: Sequence[int] | None = None,
    members: str = "networks",
    average: str = "probability",
    chips: int = 25,
    seed: int = 0,
    data: ImageData | None = None,
    data_folder: str | Path | None = None,
    array: str | Array | None = None,
    read_time: float = READ_TIME,
    extrapolate: bool = False,
    output: str | Path | None = None,
) -> xr.Dataset:
    """Measure committees of the networks of a run on chips.

    Network i of N is put on `chips` chips of its own: i `chips` to (i + 1) `chips` - 1 of the seed. Member m of
    committee k is, for each chip number c,

    ========== ===================== ====================
    members    network               its chip
    ========== ===================== ====================
    networks   (k + m) mod N         (c + k m) mod chips
    copies     k                     (c + m) mod chips
    ========== ===================== ====================

    so that every size has N committees, which share members unless the size is 1.

    Parameters
    ----------
    run : folder of a training run.
    device : device model, or 'ideal'; default: that of the run.
    sizes : numbers of members; default: 1 to N, or 1 to 5 copies.
    members : 'networks' that were trained apart, or 'copies' of one network on several chips.
    average : of the softmax outputs ('probability') or of the outputs before it ('logits').
    chips : chips of each network.
    seed : of the chips.
    data, data_folder, array, read_time, extrapolate : see `calib.evaluate`.
    output : file to write the result to, netCDF-4.

    Returns
    -------
    xarray.Dataset
        `accuracy`, `error`, `loss` and `energy_per_inference` (size, committee, chip), the energy being that of all
        members, and `devices` (size), how many a committee has.

    Raises
    ------
    OptionError
        When an option cannot be used.
    """
    opened = run if isinstance(run, Run) else runs.open_run(run)
    check_numbers(chips, read_time)
    count = opened.options.networks
    wanted = _sizes(sizes, members, count, chips)
    if average not in AVERAGES:
        raise OptionError(f"the average is '{average}'; expected one of {', '.join(AVERAGES)}")
    tree = None if device is None or (isinstance(device, str) and device == "ideal") else _tree(device)
    devices = devices_of(opened, tree, extrapolate=extrapolate)
    if isinstance(device, str) and device == "ideal":
        devices = devices.ideal()
    hardware = Hardware(devices, array_of(opened, array))
    images = data if data is not None else opened.data(None, data_folder)
    sample = torch.tensor(images.train_images[:_CALIBRATION_IMAGES])
    stacks = [
        ChipStack(network_on(opened, index, hardware, sample), seed, range(index * chips, (index + 1) * chips))
        for index in range(count)
    ]
    chosen = {size: _members(size, members, count, chips) for size in wanted}
    right, loss = _answers(stacks, chosen, images, average)
    power = np.stack([stack.mean_power().numpy() for stack in stacks])  # (network, chip, layer)
    energy = energy_per_inference(power, read_time)
    spent = np.stack([energy[networks, drawn].sum(-1) for networks, drawn in chosen.values()])
    result = _dataset(right / len(images.test_labels), loss / len(images.test_labels), spent, wanted, stacks[0].network)
    name = "ideal" if devices.is_ideal else devices.name
    result.attrs |= {
        "schema": SCHEMA,
        "calib_version": __version__,
        "device": name,
        "device_hash": device_model.identity(opened.device if tree is None else tree),
        "options": json.dumps({"members": members, "average": average, "chips": chips, "read_time": read_time,
                               "array": hardware.array.to_options()}, sort_keys=True),
        "seed": int(seed),
        "data": json.dumps({"name": images.name, "sha256": images.sha256}, ensure_ascii=False),
        "versions": json.dumps(runs.versions(), sort_keys=True),
        "training": json.dumps(opened.record, sort_keys=True, ensure_ascii=False),
    }  # fmt: skip
    if output is not None:
        files.write_netcdf(result, output)
    return result


def averaged(outputs: torch.Tensor, average: str = "probability") -> torch.Tensor:
    """Return the committee's outputs (..., class), to which a softmax gives its probabilities.

    Parameters
    ----------
    outputs : (member, ..., class) before the softmax.
    average : see `committee`.
    """
    if average == "logits":
        return outputs.mean(0)
    return torch.logsumexp(functional.log_softmax(outputs, -1), 0) - np.log(len(outputs))


def devices_in(network: nn.Module) -> int:
    """Return how many devices the layers of a network have, references included."""
    return sum(
        layer.word_lines * layer.mapping.bit_lines(layer.out_features) * layer.mapping.groups
        for layer in memristive_layers(network)
    )


def _tree(device: str | Path | xr.DataTree) -> xr.DataTree:
    return device if isinstance(device, xr.DataTree) else device_model.open_device(device)


def _sizes(given: Sequence[int] | None, members: str, networks: int, chips: int) -> list[int]:
    if members not in MEMBERS:
        raise OptionError(f"the members are '{members}'; expected one of {', '.join(MEMBERS)}")
    most, what = (networks, "trained networks of the run") if members == "networks" else (chips, "chips")
    sizes = list(range(1, min(most, 5 if members == "copies" else most) + 1)) if given is None else list(given)
    if not sizes or len(set(sizes)) < len(sizes) or not all(1 <= size <= most for size in sizes):
        raise OptionError(
            f"the sizes of committees are {sizes}; expected different numbers from 1 to {most}, the {what}"
        )
    return sizes


def _members(size: int, members: str, networks: int, chips: int) -> tuple[np.ndarray, np.ndarray]:
    """Return network and chip of each member (committee, chip, member) of committees of a size."""
    k, c, m = np.ogrid[:networks, :chips, :size]
    if members == "copies":
        return np.broadcast_arrays(k, (c + m) % chips)[:2]  # type: ignore[return-value]
    return np.broadcast_arrays((k + m) % networks, (c + k * m) % chips)[:2]  # type: ignore[return-value]


@torch.no_grad()
def _answers(
    stacks: list[ChipStack], chosen: dict[int, tuple[np.ndarray, np.ndarray]], images: ImageData, average: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return right answers and summed cross-entropy (size, committee, chip)."""
    shape = (len(chosen), len(stacks), stacks[0].count)
    right, loss = np.zeros(shape), np.zeros(shape)
    given, labels = torch.tensor(images.test_images), torch.tensor(images.test_labels)
    for start in range(0, len(given), _IMAGES_AT_ONCE):
        part = slice(start, start + _IMAGES_AT_ONCE)
        for stack in stacks:
            stack.measures = True
        outputs = torch.stack([stack(given[part], start) for stack in stacks])  # (network, chip, image, class)
        for row, (networks, drawn) in enumerate(chosen.values()):
            for k in range(shape[1]):
                own = outputs[torch.tensor(networks[k].T), torch.tensor(drawn[k].T)]  # (member, chip, image, class)
                answer = averaged(own, average)
                right[row, k] += (answer.argmax(-1) == labels[part]).sum(-1).numpy()
                each = functional.cross_entropy(
                    answer.flatten(0, 1), labels[part].repeat(len(answer)), reduction="none"
                )
                loss[row, k] += each.view(len(answer), -1).sum(-1, dtype=torch.float64).numpy()
    return right, loss


def _dataset(
    accuracy: np.ndarray, loss: np.ndarray, energy: np.ndarray, sizes: list[int], network: nn.Module
) -> xr.Dataset:
    dims = ("size", "committee", "chip")
    return xr.Dataset(
        {
            "accuracy": (dims, accuracy, {"units": "1", "long_name": "fraction of test images classified rightly"}),
            "error": (dims, 1 - accuracy, {"units": "1", "long_name": "fraction of test images classified wrongly"}),
            "loss": (dims, loss, {"units": "1", "long_name": "mean cross-entropy"}),
            "energy_per_inference": (
                dims, energy, {"units": "J", "long_name": "energy of one inference of all members, devices only"}
            ),
            "devices": ("size", np.array(sizes) * devices_in(network), {"units": "1", "long_name": "devices"}),
        },
        coords={
            "size": ("size", sizes, {"units": "1", "long_name": "members of a committee"}),
            "committee": np.arange(accuracy.shape[1]),
            "chip": np.arange(accuracy.shape[2]),
        },
    )  # fmt: skip
