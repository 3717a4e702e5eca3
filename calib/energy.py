"""Power, energy and efficiency of inference from the devices' currents.

As in Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784: the power dissipated in the devices,
P = sum |V| |I|, counts. Converters and other periphery are a term of their own, of figures that the user gives. The
energy of programming is in `calib.programming_energy`.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from calib.crossbar import drawing
from calib.crossbar.calibration import ideal_passes
from calib.crossbar.chips import ChipStack
from calib.crossbar.devices import generator
from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.errors import OptionError

READ_TIME = 50e-9
"""Duration of one read [s]."""
ROLES = ("positive", "negative", "bias")
"""Roles of devices, see `role_power`."""
_IMAGES_AT_ONCE = 1000
CONVERSIONS = ("dac", "adc")
"""What `periphery` has figures of."""


def synapses(module_or_sizes: "nn.Module | Iterable[tuple[int, int]]") -> int:
    """Return N = sum over layers of word lines times outputs, of a network or of (n_in, n_out) with bias lines."""
    if isinstance(module_or_sizes, nn.Module):
        return sum(layer.word_lines * layer.out_features for layer in memristive_layers(module_or_sizes))
    return sum((n_in + 1) * n_out for n_in, n_out in module_or_sizes)


def energy_per_inference(power, read_time: float = READ_TIME):
    """Return sum(P) t_read [J] of the layers' powers (..., layer) [W], each the sum over all readings of an input."""
    return power.sum(-1) * read_time


def efficiency(power, synapses: float, read_time: float = READ_TIME):
    """Return 2 N / (t_read sum(P)) [1e12 operations per second and watt] of the layers' powers (..., layer) [W].

    Parameters
    ----------
    power : sum over all readings of an input.
    synapses : N, a synapse counted once for each reading of its layer, see `Work.products`.
    """
    return 2e-12 * synapses / (read_time * power.sum(-1))


@dataclass(frozen=True)
class Work:
    """What one inference takes in one crossbar layer.

    Attributes
    ----------
    synapses : word lines times outputs.
    readings : with inputs of their own; a fully connected layer has 1, a convolution one for each output position, a
        recurrent layer one for each step.
    phases : of a reading: 2 where inputs of both signs are applied after one another, else 1.
    dac, adc : conversions of inputs and of currents, over all readings and phases.
    """

    synapses: int
    readings: float
    phases: int
    dac: float
    adc: float

    @property
    def products(self) -> float:
        """Multiplications with a weight; each is two operations, with the addition."""
        return self.synapses * self.readings


@torch.no_grad()
def work(network: nn.Module, images: torch.Tensor) -> list[Work]:
    """Count what an inference takes, layer by layer, on the inputs of a network.

    Conversions: an input is converted for each block of columns in which it is applied, a bias never. A current is
    converted for each block of rows: that of each bit line where the converters are single-ended, else the difference
    of each pair. In the input mode 'offset' the second reading, at half the voltage, is the same for all inputs and is
    not counted.

    Parameters
    ----------
    images : (image, ...) on which readings are counted; layers that see no negative input need one phase.
    """
    layers = {str(index): layer for index, layer in enumerate(memristive_layers(network))}
    rows, signed = dict.fromkeys(layers, 0), dict.fromkeys(layers, False)

    def record(name: str, x: torch.Tensor) -> None:
        rows[name] += x.numel() // x.shape[-1]
        signed[name] |= bool((x < 0).any())

    training = network.training
    with ideal_passes(layers, record):
        network.eval()(images)
    network.train(training)
    return [_work(layer, rows[name] / len(images), signed[name]) for name, layer in layers.items()]


def _work(layer: MemristiveLinear, readings: float, signed: bool) -> Work:
    phases = 2 if signed and layer.array.input_mode == "two-phase" else 1
    mapping, adc = layer.mapping, layer.array.adc
    tiles = layer.tiles
    row_blocks, column_blocks = (max(t.row_block for t in tiles) + 1, max(t.column_block for t in tiles) + 1)
    lines = torch.zeros(mapping.groups, mapping.bit_lines(layer.out_features))
    single = adc is not None and not adc.differential
    currents = lines.numel() if single else mapping.difference(lines).numel()
    return Work(
        synapses=layer.word_lines * layer.out_features,
        readings=readings,
        phases=phases,
        dac=layer.in_features * column_blocks * readings * phases,
        adc=currents * row_blocks * readings * phases,
    )


@torch.no_grad()
def role_power(network: nn.Module, images: torch.Tensor, *, seed: int | str, chips: Sequence[int]) -> np.ndarray:
    """Return the power (chip, layer, role) [W] of the devices of each role, summed over readings, mean over images.

    Roles are `ROLES`: devices whose current is added, devices whose current is subtracted, and those of the word line
    of the bias, of both signs. They add up to the power of the layer. NaN where lines have resistance, because there
    the currents of devices depend on each other.

    Parameters
    ----------
    images : (image, ...) inputs of the network.
    seed, chips : as of `calib.evaluation.chip_performance`, for the same chips.
    """
    layers = memristive_layers(network)
    found = np.full((len(chips), len(layers), len(ROLES)), np.nan)
    for row, chip in enumerate(chips):
        stack = ChipStack(network, seed, [chip])
        whole = list(stack.drawn)
        parts = [_role_coefficients(layer, (seed, k, chip, 0)) for k, layer in enumerate(layers)]
        known = [k for k, drawn in enumerate(whole) if "power" in drawn.tensors]
        for role in range(len(ROLES)):
            for k in known:
                stack.drawn[k] = replace(whole[k], tensors={**whole[k].tensors, "power": parts[k][role][None]})
            stack.power.zero_()
            stack.inputs, stack.measures = 0, True
            for start in range(0, len(images), _IMAGES_AT_ONCE):
                stack(images[start : start + _IMAGES_AT_ONCE], start)
            found[row, known, role] = stack.mean_power()[0, known]
    return found


def _role_coefficients(layer: MemristiveLinear, key: tuple[int | str, ...]) -> torch.Tensor:
    """Return the power's coefficients (role, K word_line) [S] of the chip that `drawing.draw_chip` draws."""
    devices, place = layer.devices, layer.weight.device
    g, _ = layer.mapping.conductances(layer.weight, devices.g_off, devices.g_on)
    g = drawing.programmed(
        devices,
        g,
        lambda name: generator(*key, name, device=place),
        lambda name: generator(*key, name, "device", device=place),
    )
    conduction = devices.conduction
    deviates = conduction.deviates(tuple(g.shape), generator(*key, conduction.name, device=place), g.dtype)
    by_group = layer.plan.coefficients(conduction, g, deviates).sum(3)  # (K, group, word_line)
    signs = layer.mapping.factors
    signal = torch.ones(layer.word_lines, dtype=g.dtype, device=place)
    if layer.bias_on_line:
        signal[-1] = 0
    positive = by_group[:, [k for k, sign in enumerate(signs) if sign > 0]].sum(1)
    negative = by_group[:, [k for k, sign in enumerate(signs) if sign < 0]].sum(1)
    return torch.stack((positive * signal, negative * signal, by_group.sum(1) * (1 - signal))).flatten(1)


def periphery_energy(found: Iterable[Work], figures: Mapping[str, float]) -> float:
    """Return the energy [J] of the conversions of one inference, from the energy [J] of one of each kind.

    Raises
    ------
    OptionError
        When a figure is not one of `CONVERSIONS`, or no energy.
    """
    for kind, value in figures.items():
        if kind not in CONVERSIONS or not value >= 0:
            raise OptionError(
                f"the periphery has '{kind}' of {value} J; expected the energy of one conversion of "
                f"{' or '.join(CONVERSIONS)}, 0 or more"
            )
    return sum(getattr(layer, kind) * value for layer in found for kind, value in figures.items())


def periphery_figures(given: "str | Mapping[str, Any] | None") -> dict[str, float]:
    """Return the energies [J] of a text 'dac=1e-13,adc=2e-12', or of a mapping.

    Raises
    ------
    OptionError
        When it cannot be read.
    """
    if isinstance(given, str):
        pairs = [part.partition("=") for part in given.split(",") if part.strip()]
        given = {kind.strip(): value for kind, _, value in pairs}
    try:
        figures = {kind: float(value) for kind, value in (given or {}).items()}
    except (TypeError, ValueError) as error:
        raise OptionError(
            f"the periphery is '{given}'; expected energies in J of one conversion, for example dac=1e-13,adc=2e-12"
        ) from error
    periphery_energy([], figures)
    return figures


@torch.no_grad()
def targets(network: nn.Module) -> list[np.ndarray]:
    """Return the conductances [S] that the devices of each layer are programmed to, (group, word_line, bit_line)."""
    return [
        layer.mapping.conductances(layer.weight, layer.devices.g_off, layer.devices.g_on)[0].double().cpu().numpy()
        for layer in memristive_layers(network)
    ]
