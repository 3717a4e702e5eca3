"""Tables to program a real chip with, of all layers of a network."""

import re
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from calib.crossbar.layers import MemristiveLinear
from calib.crossbar.targets import programming_targets, write_targets
from calib.errors import OptionError
from calib.nonidealities.quantise import Quantise


@torch.no_grad()
def targets(module: nn.Module) -> dict[str, pd.DataFrame]:
    """Return the target conductance [S] of every device of every memristive layer, by the names of the layers.

    What devices do afterwards (spread, stuck, drift) is not in the targets; where the device model has discrete levels,
    the nearest one stands beside each target. See `calib.crossbar.targets` for the columns, and for how a chip's
    currents become outputs.

    Raises
    ------
    OptionError
        When the network has no memristive layer.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, MemristiveLinear)}
    if not layers:
        raise OptionError(f"the network {type(module).__name__} has no memristive layer; convert it first")
    found = {}
    for name, layer in layers.items():
        devices = layer.devices
        conductance, k_g = layer.mapping.conductances(layer.weight, devices.g_off, devices.g_on)
        levels = next((member.levels for member in devices.stages if isinstance(member, Quantise)), None)
        found[name or "layer"] = programming_targets(
            name or "layer",
            conductance,
            layer.mapping,
            layer.array,
            k_g=float(k_g),
            input_voltage=devices.input_voltage,
            input_range=float(layer.input_range),
            bias_voltage=devices.input_voltage if layer.bias_on_line else None,
            bias=layer.bias,
            levels=levels,
        )
    return found


def write_all(module: nn.Module, folder: str | Path) -> list[Path]:
    """Write the table of each layer as csv into a folder and return their paths, see `targets`."""
    paths = []
    for index, (name, table) in enumerate(targets(module).items()):
        path = Path(folder) / f"{index}-{_plain(name)}.csv"
        write_targets(table, path)
        paths.append(path)
    return paths


def _plain(name: str) -> str:
    """Return a layer's name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or "layer"
