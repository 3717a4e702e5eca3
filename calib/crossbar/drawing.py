"""Drawing the devices of layers: the conductances and coefficients that their inputs are multiplied with.

Which numbers a layer needs depends on its array. Where a product gives the outputs (no line resistance, no converter of
currents, no noise of readings) they are

================ ======================== ================================================================
coefficients     (K word_line, bit_line)  sum over the groups of factor D / (k_V k_G) [1/V], D of `multiply`
power            (K word_line,)           sum over all bit lines of D [S]; of held chips, or where it is wanted
================ ======================== ================================================================

and otherwise those of `calib.crossbar.tile_outputs`. All are tensors, so that chips can be stacked.
"""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from calib.crossbar import exponential, tile_outputs
from calib.crossbar.exponential import Pairs
from calib.crossbar.mapping import Average, Double, Lowest
from calib.crossbar.multiply import Collocation
from calib.crossbar.random_streams import generator
from calib.nonidealities.iv import IV

if TYPE_CHECKING:
    from calib.crossbar.devices import Devices
    from calib.crossbar.layers import MemristiveLinear

Drawn = dict[str, torch.Tensor]
Stream = Callable[[str], torch.Generator]
"""Gives the generator of a nonideality, by its name."""
DeviceStream = Callable[[str], torch.Generator | None]


def draw(layers: "Sequence[MemristiveLinear]") -> list[Drawn]:
    """Return new devices of each layer, from its own generator, differentiable by the weights.

    Layers of the same devices are computed together where the law allows it.
    """
    found: list[Drawn | None] = [None] * len(layers)
    together: dict[tuple[Pairs, bool, torch.dtype], list[int]] = {}
    for index, layer in enumerate(layers):
        pairs = _pairs(layer)
        if pairs is not None:
            together.setdefault((pairs, layer.wants_power, layer.weight.dtype), []).append(index)
        else:
            own = layer.stream()
            found[index] = _draw_one(layer, lambda name, own=own: own, lambda name: None)
    for (pairs, wants_power, _), members in together.items():
        for index, drawn in zip(members, _draw_together([layers[i] for i in members], pairs, wants_power), strict=True):
            found[index] = drawn
    return found  # type: ignore[return-value]


def draw_chip(layer: "MemristiveLinear", key: tuple[int | str, ...], programming: int = 0) -> tuple[Drawn, int]:
    """Return the devices of a chip with their power, and how many lie outside of what the device model was fitted to.

    Parameters
    ----------
    key : what the random numbers follow from, for example (seed, layer, chip, draw).
    programming : how often the chip was programmed before; what devices keep is the same each time.
    """
    place = layer.weight.device
    again = (f"programming {programming}",) if programming else ()
    return _devices(
        layer,
        lambda name: generator(*key, name, *again, device=place),
        lambda name: generator(*key, name, "device", device=place),
        holds=True,
    )


def _draw_one(layer: "MemristiveLinear", stream: Stream, device_stream: DeviceStream) -> Drawn:
    if _is_exact(layer):
        return {"coefficients": layer.mapping.to_signed(layer.weight) * (1 / layer.devices.input_voltage)}
    return _devices(layer, stream, device_stream, holds=False)[0]


def _is_exact(layer: "MemristiveLinear") -> bool:
    """Whether outputs are those of the weights: ideal devices in pairs that carry them, whatever k_G is."""
    mapping = layer.mapping
    return (
        layer.devices.is_ideal
        and layer.by_product
        and not layer.wants_power
        and isinstance(mapping, Double | Lowest | Average)
        and mapping.clip is None
        and layer.weight.dtype in (torch.float32, torch.float64)
    )


def _devices(layer: "MemristiveLinear", stream: Stream, device_stream: DeviceStream, holds: bool) -> tuple[Drawn, int]:
    """Return the devices of one layer, differentiable by its weights, and how many are clipped.

    Parameters
    ----------
    stream : generators of what differs each time that devices are programmed.
    device_stream : generators of what devices keep when they are programmed again, None for the same as `stream`.
    holds : whether the devices are held for many inputs: then the power's numbers are there, and devices are counted.
    """
    devices, plan = layer.devices, layer.plan
    g, k_g = layer.mapping.conductances(layer.weight, devices.g_off, devices.g_on)
    g = programmed(devices, g, stream, device_stream)
    conduction = devices.conduction
    deviates = conduction.deviates(tuple(g.shape), stream(conduction.name), g.dtype)
    drawn = _compensation(devices, stream, g)
    if layer.by_product:
        d = plan.coefficients(conduction, g, deviates)  # (K, group, word_line, bit_line)
        scale = 1 / (k_g * devices.input_voltage)
        drawn["coefficients"] = _combined(d, layer.mapping.factors).flatten(0, 1) * scale
        if holds or layer.wants_power:
            drawn["power"] = d.sum((1, 3)).flatten()
    else:
        drawn |= {"inverse_k_g": 1 / k_g, **tile_outputs.numbers(layer, g, deviates, stream, holds)}
        if layer.wants_power and "groups" in drawn:
            drawn["power"] = drawn["groups"].sum((1, 3)).flatten()
    return drawn, conduction.clipped(g, deviates) if holds else 0


def programmed(devices: "Devices", g: torch.Tensor, stream: Stream, device_stream: DeviceStream) -> torch.Tensor:
    """Return the conductances [S] after all nonidealities that change them."""
    for member in devices.stages:
        g = member.conductance(g, stream(member.name), device_stream(member.name))
    return g


def _compensation(devices: "Devices", stream: Stream, g: torch.Tensor) -> Drawn:
    """Return the factor of outputs that undoes the drift which reference columns show, if there is one."""
    for member in devices.stages:
        if getattr(member, "compensates", False):
            factor = member.compensation((devices.g_off, devices.g_on), stream(f"{member.name} reference"))  # type: ignore[attr-defined]
            return {"compensation": torch.as_tensor(factor, dtype=g.dtype, device=g.device)}
    return {}


def _combined(d: torch.Tensor, factors: tuple[float, ...]) -> torch.Tensor:
    """Return sum_group factor D (K, word_line, bit_line) of (K, group, word_line, bit_line)."""
    if len(factors) == 1:
        return d[:, 0]
    total = d[:, 0] - d[:, 1]
    for index in range(2, len(factors), 2):
        total = total + factors[index] * (d[:, index] - d[:, index + 1])
    return total


def _factors(layer: "MemristiveLinear") -> tuple[float, ...]:
    """Return the factors of the groups; one group is subtracted from its reference after the product."""
    factors = layer.mapping.factors
    return (1.0,) if len(factors) == 1 else factors


def _pairs(layer: "MemristiveLinear") -> Pairs | None:
    """Return what the fused computation of `exponential.combined` draws the layer with, None where it cannot.

    It is exact, but for laws of one exponent.
    """
    if not layer.by_product or layer.weight.dtype not in (torch.float32, torch.float64):
        return None
    devices, mapping = layer.devices, layer.mapping
    weights_alone = not devices.stages and mapping.own_weights and mapping.clip is None
    key = (layer.plan, _factors(layer), weights_alone)
    if key not in devices.pairs:
        devices.pairs[key] = _new_pairs(devices, *key)
    return devices.pairs[key]


def _new_pairs(devices: "Devices", plan: Collocation, factors: tuple[float, ...], weights_alone: bool) -> Pairs | None:
    conduction = devices.conduction
    if (
        plan.exponent is None
        or plan.count == 1
        or not (isinstance(conduction, IV) and conduction.anchored and len(conduction.law.shape) == 1)
        or any(getattr(member, "compensates", False) for member in devices.stages)
    ):
        return None
    ends = torch.tensor([-math.log(devices.g_on), -math.log(devices.g_off)], dtype=torch.float64)
    return Pairs(
        conduction=conduction,
        law=plan.exponential(conduction.reference_voltage),
        factors=factors,
        input_voltage=devices.input_voltage,
        g_off=devices.g_off if weights_alone else None,
        g_on=devices.g_on if weights_alone else None,
        covered=weights_alone and conduction.covers(ends),
    )


def _draw_together(layers: "list[MemristiveLinear]", pairs: Pairs, wants_power: bool) -> list[Drawn]:
    devices, conduction = layers[0].devices, pairs.conduction
    sources, inverses, deviates = [], [], []
    for layer in layers:
        own = layer.stream()
        if pairs.g_off is not None:
            sources.append(layer.weight)
        else:
            g, k_g = layer.mapping.conductances(layer.weight, devices.g_off, devices.g_on)
            sources.append(programmed(devices, g, lambda name, own=own: own, lambda name: None))
            inverses.append(1 / k_g)
        deviates.append(conduction.deviates(tuple(sources[-1].shape), own, sources[-1].dtype))
    found = exponential.combined(pairs, sources, deviates, wants_power)
    coefficients, power = found[: len(layers)], found[len(layers) :]
    if inverses:
        coefficients = [part * inverse for part, inverse in zip(coefficients, inverses, strict=True)]
    drawn = [{"coefficients": part} for part in coefficients]
    for one, part in zip(drawn, power, strict=False):
        one["power"] = part
    return drawn
