"""Turning the linear layers of a network into memristive ones."""

import copy

import torch
import xarray as xr
from torch import nn

from calib.crossbar import mapping as mappings
from calib.crossbar.devices import Devices, open_devices
from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.errors import OptionError


def convert(
    module: nn.Module,
    device: "str | xr.DataTree | Devices",
    *,
    mapping: str = "double",
    input_voltage: float = 0.5,
    extrapolate: bool = False,
    tolerance: float = 1e-4,
) -> nn.Module:
    """Return a copy of a network with its linear layers on memristive devices.

    Weights are kept. Layers that are memristive already keep their mapping and are given the new devices.

    Parameters
    ----------
    module : the network; the inputs of its linear layers must lie in [-1, 1].
    device : device model (a tree, a path or a bundled name), or devices made of one.
    mapping, input_voltage : see `MemristiveLinear`; the voltage [V] is that of x = 1.
    extrapolate, tolerance : see `Devices.from_model`.

    Raises
    ------
    OptionError
        When the network has no linear layer or the input voltage is beyond the device model's validity.
    """
    options = {"input_voltage": input_voltage, "extrapolate": extrapolate, "tolerance": tolerance}
    devices = device if isinstance(device, Devices) else open_devices(device, **options)
    result = _converted(copy.deepcopy(module), devices, mappings.check(mapping))
    if not memristive_layers(result):
        raise OptionError(f"the network {type(module).__name__} has no linear layer that could be memristive")
    return result


def _converted(module: nn.Module, devices: Devices, mapping: str) -> nn.Module:
    if isinstance(module, MemristiveLinear):
        module.devices = devices
        return module
    if isinstance(module, nn.Linear):
        return _from_linear(module, devices, mapping)
    for name, child in module.named_children():
        replaced = _converted(child, devices, mapping)
        if replaced is not child:
            setattr(module, name, replaced)
    return module


@torch.no_grad()
def _from_linear(linear: nn.Linear, devices: Devices, mapping: str) -> MemristiveLinear:
    layer = MemristiveLinear(
        linear.in_features, linear.out_features, devices, mapping=mapping, dtype=linear.weight.dtype
    )
    bias = linear.bias if linear.bias is not None else linear.weight.new_zeros(linear.out_features)
    layer.weight.copy_(mappings.from_signed(torch.cat((linear.weight.T, bias[None])), mapping))
    return layer.train(linear.training)


def summary(module: nn.Module) -> list[dict[str, object]]:
    """Describe the memristive layers of a network, one dictionary each.

    Keys: name, word_lines (the bias included), bit_line_pairs, devices, synapses, mapping, device, g_off_siemens,
    g_on_siemens, input_voltage, effects (list of sentences), nodes, interpolation_error.
    """
    rows: list[dict[str, object]] = []
    for name, layer in module.named_modules():
        if isinstance(layer, MemristiveLinear):
            devices, synapses = layer.devices, (layer.in_features + 1) * layer.out_features
            rows.append(
                {
                    "name": name,
                    "word_lines": layer.in_features + 1,
                    "bit_line_pairs": layer.out_features,
                    "devices": 2 * synapses,
                    "synapses": synapses,
                    "mapping": layer.mapping,
                    "device": devices.name,
                    "g_off_siemens": devices.g_off,
                    "g_on_siemens": devices.g_on,
                    "input_voltage": devices.input_voltage,
                    "effects": [effect.describe() for effect in devices.effects()],
                    "nodes": devices.plan.count,
                    "interpolation_error": devices.plan.error,
                }
            )
    return rows
