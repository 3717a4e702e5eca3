"""Chips: drawn devices of all layers of a network, many of them computed together."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from calib.crossbar import drawing, tile_outputs
from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.errors import OptionError


@dataclass(frozen=True)
class LayerChips:
    """Drawn arrays of one layer.

    Attributes
    ----------
    tensors : the numbers of `calib.crossbar.drawing`, stacked over chips.
    dims : along which dimension of each the chips are.
    clipped : (chip,) devices outside of the range that the device model was fitted to.
    """

    tensors: drawing.Drawn
    dims: dict[str, int]
    clipped: torch.Tensor

    def one(self, index: int) -> drawing.Drawn:
        """Return the numbers of one chip."""
        return {name: tensor.select(self.dims[name], index) for name, tensor in self.tensors.items()}


@torch.no_grad()
def draw_chips(layer: MemristiveLinear, seed: int | str, index: int, chips: Sequence[int], draw: int = 0) -> LayerChips:
    """Draw chips of a layer: chip i is the same for the same (seed, index, i, draw), whichever others are drawn.

    Parameters
    ----------
    index : number of the layer in its network.
    draw : which of the chip's sets of devices.

    Raises
    ------
    OptionError
        When no chips are given.
    """
    if not len(chips):
        raise OptionError("no chips to draw; give at least 1")
    count = 1 if layer.devices.is_ideal else len(chips)
    found, clipped = [], []
    for chip in chips[:count]:
        drawn, outside = drawing.draw_chip(layer, (seed, index, chip, draw))
        found.append(drawn)
        clipped.append(outside)
    tensors, dims = {}, {}
    for name in found[0]:
        parts = [drawn[name] for drawn in found]
        dims[name] = 1 if name == "coefficients" else 0
        if name.startswith("read "):
            parts = tile_outputs.filled(name, parts)
        stacked = torch.stack(parts, dims[name])
        if count < len(chips):
            sizes = [len(chips) if dim == dims[name] else -1 for dim in range(stacked.dim())]
            stacked = stacked.expand(sizes)
        tensors[name] = stacked
    return LayerChips(tensors, dims, torch.tensor(clipped).expand(len(chips)).clone())


class ChipStack:
    """Chips of a network, which are computed together: `chips(x)` is (chip, batch, ...) of inputs (batch, ...).

    Attributes
    ----------
    network : the module.
    layers : its memristive layers.
    drawn : chips of each.
    count : how many chips.
    measures : whether the power is measured.
    power : (chip, layer) [W] summed over all readings of all inputs; a convolution has many readings of an input.
    inputs : how many inputs.
    """

    def __init__(self, network: nn.Module, seed: int | str, chips: Sequence[int], draw: int = 0) -> None:
        self.network, self.layers = network, memristive_layers(network)
        self.drawn = [draw_chips(layer, seed, index, chips, draw) for index, layer in enumerate(self.layers)]
        self.count = len(chips)
        self.measures = False
        self.power = torch.zeros(self.count, len(self.layers), dtype=torch.float64)
        self.inputs = 0
        self._maps = True

    @property
    def clipped(self) -> torch.Tensor:
        """Devices (chip, layer) outside of the range that the device model was fitted to."""
        return torch.stack([drawn.clipped for drawn in self.drawn], dim=1)

    def mean_power(self) -> torch.Tensor:
        """Return the power (chip, layer) [W] of all readings of an input, mean over inputs."""
        return self.power / max(self.inputs, 1)

    def __call__(self, x: torch.Tensor, first_image: int = 0) -> torch.Tensor:
        """Return the outputs (chip, batch, ...) of all chips.

        Parameters
        ----------
        first_image : index of the first input in its data set, which the noise of readings follows from.
        """
        for layer in self.layers:
            layer.reading.first_image, layer.reading.images = first_image, len(x)
            layer.reading.measures = self.measures
        try:
            outputs, power = self._mapped(x) if self._maps else self._one_by_one(x)
        finally:
            for layer in self.layers:
                layer.drawn = None
                layer.reading.measures, layer.reading.power, layer.reading.weights = False, 0.0, None
                layer.reading.images = None
        if self.measures:
            self.power += torch.stack([part.double().cpu().expand(self.count) for part in power], dim=1)
            self.inputs += len(x)
        return outputs

    def _pass(self, x: torch.Tensor, drawn: list[drawing.Drawn]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        for layer, own in zip(self.layers, drawn, strict=True):
            layer.drawn = own
            layer.reading.power = 0.0
        outputs = self.network(x)
        return outputs, [torch.as_tensor(layer.reading.power) for layer in self.layers]

    def _mapped(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        dims = [drawn.dims for drawn in self.drawn]
        mapped = torch.func.vmap(self._pass, in_dims=(None, dims), randomness="different")
        try:
            return mapped(x, [drawn.tensors for drawn in self.drawn])
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            self._maps = False  # the network's own modules decide by values: one chip after the other
            return self._one_by_one(x)

    def _one_by_one(self, x: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        found = [self._pass(x, [drawn.one(index) for drawn in self.drawn]) for index in range(self.count)]
        outputs, power = zip(*found, strict=True)
        return torch.stack(outputs), [torch.stack(parts) for parts in zip(*power, strict=True)]


@contextlib.contextmanager
def held_chips(module: nn.Module, seed: int | str, chips: Sequence[int], draw: int = 0) -> Iterator[ChipStack]:
    """Draw chips of all memristive layers of a module and give them, to be called like the module."""
    yield ChipStack(module, seed, chips, draw)
