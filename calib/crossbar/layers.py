"""Layers whose weights are conductances of memristive devices."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from calib.crossbar import mapping as mappings
from calib.crossbar.devices import Devices, generator
from calib.errors import OptionError


@dataclass
class Chips:
    """Drawn arrays of one layer.

    Attributes
    ----------
    coefficients : (K word_line, chip, bit_line) [S], what the basis of the inputs is multiplied with.
    power : (chip, K word_line) [S], the same summed over all bit lines of both signs, for the power.
    clipped : (chip,) devices outside of the range that the device model was fitted to.
    """

    coefficients: torch.Tensor
    power: torch.Tensor
    clipped: torch.Tensor


@dataclass
class Meter:
    """Sum of the power over inputs of one layer."""

    power: torch.Tensor | float = 0.0  # (chip,) [W], summed over inputs
    inputs: int = 0

    def mean(self) -> torch.Tensor:
        """Return the mean power of each chip (chip,) [W]."""
        return torch.as_tensor(self.power / max(self.inputs, 1))


class MemristiveLinear(nn.Module):
    """A fully connected layer on a crossbar of memristive devices: y = (I+ - I-) / (k_V k_G).

    Inputs x in [-1, 1] become voltages V = k_V x, the bias is one more word line at x = 1, I+ and I- are the currents
    of a pair of bit lines. Every forward pass draws new devices, unless chips are held (`draw_chips`); then inputs
    (batch, in) give outputs (chip, batch, out), as do inputs (chip, batch, in).

    Parameters
    ----------
    in_features, out_features : word lines without the bias, pairs of bit lines.
    devices : what the layer is made of.
    mapping : 'double', 'lowest' or 'average', see `calib.crossbar.mapping`.
    first : generator of the first weights.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        devices: Devices,
        *,
        mapping: str = "double",
        first: torch.Generator | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.mapping = mappings.check(mapping)
        self.devices = devices
        self.generator: torch.Generator = torch.Generator().manual_seed(torch.initial_seed() % 2**63)
        self.meter: Meter | None = None
        self.chips: Chips | None = None
        shape = mappings.weight_shape(mapping, in_features, out_features)
        self.weight = nn.Parameter(torch.empty(shape, dtype=dtype))
        mappings.initialise(self.weight, mapping, first)

    def extra_repr(self) -> str:
        """Return what the layer's line shows."""
        return f"{self.in_features}, {self.out_features}, mapping={self.mapping}, devices={self.devices.name}"

    def project(self) -> None:
        """Put weights back into their range; call it after each step of an optimiser."""
        mappings.project(self.weight, self.mapping)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return (..., out) of inputs (..., in); with held chips (chip, batch, out)."""
        self._check(x)
        k_v = self.devices.input_voltage
        voltage = functional.pad(x, (0, 1), value=1.0) * k_v
        basis = self.devices.plan.basis(voltage).flatten(-2)
        if self.chips is None:
            coefficients, k_g = self._fresh()
            return (basis @ coefficients.flatten(0, 1)) / (k_g * k_v)
        if self.meter is not None:
            self._measure(voltage.detach(), basis.detach())
        _, k_g = mappings.conductances(self.weight, self.mapping, self.devices.g_off, self.devices.g_on)
        return _currents(basis, self.chips.coefficients) / (k_g * k_v)

    def draw_chips(self, seed: int | str, layer: int, chips: Sequence[int], draw: int = 0) -> None:
        """Hold chips: chip i is the same for the same (seed, layer, i, draw), whichever others are held.

        Raises
        ------
        OptionError
            When no chips are given.
        """
        if not len(chips):
            raise OptionError("no chips to draw; give at least 1")
        devices, plan = self.devices, self.devices.plan
        count = 1 if devices.is_ideal else len(chips)
        word_lines = self.in_features + 1
        with torch.no_grad():
            first, _ = mappings.conductances(self.weight, self.mapping, devices.g_off, devices.g_on)
            coefficients = first.new_empty((plan.size * word_lines, len(chips), self.out_features))
            power = first.new_empty((len(chips), plan.size * word_lines))
            clipped = torch.zeros(len(chips), dtype=torch.int64)
            for index in range(count):
                g = first
                for member in devices.stages:
                    g = member.conductance(g, generator(seed, layer, chips[index], draw, member.name))
                stream = generator(seed, layer, chips[index], draw, devices.conduction.name)
                deviates = devices.conduction.deviates(tuple(g.shape), stream, g.dtype)
                clipped[index] = devices.conduction.clipped(g, deviates)
                d = plan.coefficients(devices.conduction, g, deviates)  # (K, pair, word_line, bit_line)
                coefficients[:, index] = (d[:, 0] - d[:, 1]).flatten(0, 1)
                power[index] = d.sum((1, 3)).flatten()
            coefficients[:, count:] = coefficients[:, :1]
            power[count:] = power[:1]
        self.chips = Chips(coefficients, power, clipped)

    def release(self) -> None:
        """Draw new devices at every pass again."""
        self.chips = None

    def _check(self, x: torch.Tensor) -> None:
        if x.shape[-1] != self.in_features:
            raise OptionError(f"a layer of {self.in_features} inputs was given {x.shape[-1]}; check the layers' sizes")
        low, high = torch.aminmax(x.detach())
        if not (float(low) >= -1.0 - 1e-5 and float(high) <= 1.0 + 1e-5):
            raise OptionError(
                f"inputs of a memristive layer lie between {float(low):g} and {float(high):g}; expected -1 to 1, which "
                "become voltages; scale the data or cap the activation before the layer"
            )

    def _fresh(self) -> tuple[torch.Tensor, torch.Tensor]:
        devices = self.devices
        g, k_g = mappings.conductances(self.weight, self.mapping, devices.g_off, devices.g_on)
        for member in devices.stages:
            g = member.conductance(g, self.generator)
        deviates = devices.conduction.deviates(tuple(g.shape), self.generator, g.dtype)
        return devices.plan.pair_coefficients(devices.conduction, g, deviates), k_g

    def _measure(self, voltage: torch.Tensor, basis: torch.Tensor) -> None:
        """Add P = sum_i |V_i| sum_j |I_ij| of the inputs to the meter."""
        assert self.meter is not None
        assert self.chips is not None
        size = self.devices.plan.size
        weighted = torch.einsum("...bki,...bi->...ki", basis.unflatten(-1, (size, -1)), voltage).flatten(-2)
        self.meter.power = self.meter.power + (weighted * self.chips.power).sum(-1)
        self.meter.inputs += voltage.shape[-2]


def _currents(basis: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Return I+ - I- (chip, batch, bit_line) of a basis (batch, K word_line), common or one for each chip."""
    rows, chips, bit_lines = coefficients.shape
    if basis.dim() == 2:
        product = basis @ coefficients.reshape(rows, chips * bit_lines)
        return product.view(-1, chips, bit_lines).transpose(0, 1)
    return torch.bmm(basis, coefficients.transpose(0, 1))


def memristive_layers(module: nn.Module) -> list[MemristiveLinear]:
    """Return the memristive layers of a module in the order in which it lists them."""
    return [layer for layer in module.modules() if isinstance(layer, MemristiveLinear)]


@contextlib.contextmanager
def held_chips(
    module: nn.Module, seed: int | str, chips: Sequence[int], draw: int = 0
) -> Iterator[list[MemristiveLinear]]:
    """Hold chips in all memristive layers of a module inside the block."""
    layers = memristive_layers(module)
    try:
        for index, layer in enumerate(layers):
            layer.draw_chips(seed, index, chips, draw)
        yield layers
    finally:
        for layer in layers:
            layer.release()
