"""What layers that are composed of crossbars share: signed weights in and out, and devices that stay during a pass."""

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import nn

from calib.crossbar import drawing
from calib.crossbar.devices import generator
from calib.crossbar.layers import MemristiveLinear, memristive_layers

_STEP = 2**40  # readings that are left for each step of a sequence


def bias_place(layer: MemristiveLinear) -> str | None:
    """Return where a layer's bias is: 'line', 'digital' or None."""
    return "line" if layer.bias_on_line else "digital" if layer.bias is not None else None


def signed_weights(layer: MemristiveLinear) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the weights (out, in) and biases (out,) that the conductances stand for, as those of torch.nn.Linear.

    A bias line is at the full scale s of the inputs, so its weights are the biases divided by s.
    """
    signed = layer.mapping.to_signed(layer.weight)
    if layer.bias_on_line:
        return signed[:-1].T, signed[-1] * layer.input_range
    return signed.T, layer.bias


@torch.no_grad()
def set_signed_weights(layer: MemristiveLinear, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
    """Give a layer the weights (out, in) and biases (out,) of a torch.nn.Linear; no bias is one of zero."""
    lines = weight.T
    bias = weight.new_zeros(len(weight)) if bias is None else bias
    if layer.bias_on_line:
        lines = torch.cat((lines, bias[None] / layer.input_range))
    elif layer.bias is not None:
        layer.bias.copy_(bias)
    layer.weight.copy_(layer.mapping.from_signed(lines))


def separate_draws(module: nn.Module) -> None:
    """Give the crossbars of a module random numbers of their own, which follow from torch's initial seed."""
    seed = torch.initial_seed()
    for index, layer in enumerate(memristive_layers(module)):
        layer.generator = generator(seed, "crossbar", index)


@contextlib.contextmanager
def same_devices(module: nn.Module) -> Iterator[None]:
    """Let all passes through the crossbars of a module inside the block meet the same drawn devices.

    A pass otherwise draws new devices. A crossbar that is read many times for one result, for every step of a sequence
    or for parts of an image, must not change in between. Gradients by the weights add up over the passes. Crossbars
    that hold devices already keep them, so that blocks may be nested.
    """
    layers = [layer for layer in memristive_layers(module) if layer.drawn is None]
    try:
        for layer, drawn in zip(layers, drawing.draw(layers), strict=True):
            layer.drawn = drawn
        yield
    finally:
        for layer in layers:
            layer.drawn = None


@contextlib.contextmanager
def numbered_rows(layer: MemristiveLinear, rows: int) -> Iterator[Callable[[int], None]]:
    """Let the rows of a pass be computed in parts: give a function that says which row comes next.

    Noise of readings follows from the number of a row, so that parts meet the noise that they would meet together.

    Parameters
    ----------
    rows : of all parts.
    """
    first, images = layer.reading.first_image, layer.reading.images
    start = first * (1 if images is None else max(rows // images, 1))

    def go_to(row: int) -> None:
        layer.reading.first_image, layer.reading.images = start + row, None

    try:
        yield go_to
    finally:
        layer.reading.first_image, layer.reading.images = first, images


@contextlib.contextmanager
def numbered_steps(module: nn.Module) -> Iterator[Callable[[int], None]]:
    """Let the crossbars of a module be read step after step: give a function that says which step comes next.

    Every step of a sequence is a reading of its own, with noise of its own.
    """
    readings = [layer.reading for layer in memristive_layers(module)]
    before = [(reading.first_image, reading.images) for reading in readings]

    def go_to(step: int) -> None:
        for reading, (first, _) in zip(readings, before, strict=True):
            reading.first_image, reading.images = first + step * _STEP, None

    try:
        yield go_to
    finally:
        for reading, (first, images) in zip(readings, before, strict=True):
            reading.first_image, reading.images = first, images
