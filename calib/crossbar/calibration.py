"""The full scales of each layer's inputs and of its converters of currents, from data."""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import PackedSequence

from calib.crossbar.crossbars import same_devices, signed_weights
from calib.crossbar.layers import MemristiveLinear
from calib.errors import OptionError

_BINS = 2**14


class Magnitudes:
    """Distribution of |x| in a histogram whose range doubles when it is exceeded.

    Its quantiles are upper edges of bins: at least the true ones, by at most 2^-13 of the largest |x|.
    """

    def __init__(self) -> None:
        self.counts = torch.zeros(_BINS, dtype=torch.int64)
        self.range = 0.0
        self.largest = 0.0

    def add(self, x: torch.Tensor) -> None:
        """Count values."""
        size = x.detach().abs().flatten().double().cpu()
        largest = float(size.max()) if size.numel() else 0.0
        self.largest = max(self.largest, largest)
        if self.range == 0:
            self.range = largest
        if self.range == 0:
            self.counts[0] += size.numel()
            return
        while largest > self.range:
            self.range *= 2
            self.counts = torch.cat((self.counts.view(-1, 2).sum(1), self.counts.new_zeros(_BINS // 2)))
        bins = (size * (_BINS / self.range)).long().clamp_(max=_BINS - 1)
        self.counts += torch.bincount(bins, minlength=_BINS)

    def quantile(self, quantile: float) -> float:
        """Return the |x| that a fraction `quantile` of the values does not exceed."""
        needed = math.ceil(quantile * int(self.counts.sum()))
        index = int(torch.searchsorted(self.counts.cumsum(0), torch.tensor(needed)))
        return min(self.largest, (min(index, _BINS - 1) + 1) * self.range / _BINS)


@torch.no_grad()
def calibrate(module: nn.Module, batches: Any, *, quantile: float = 1.0) -> dict[str, float]:
    """Set the full scale of |x| of every memristive layer to a quantile of what data bring there.

    The network runs on ideal devices, without limits of the inputs, in evaluation mode. Weights keep their meaning:
    those of a bias line, which is at full scale, are adapted. Where the range of an ADC is to come from data, the
    network then runs on drawn devices, and the ADC's share of the currents gives it.

    Parameters
    ----------
    module : network with memristive layers.
    batches : inputs of the network: one batch or an iterable of batches. A batch is a tensor, a tuple of positional
        arguments, or a dictionary of keyword arguments; of a loader that gives labels as well, give the inputs alone,
        for example `(x for x, label in loader)`.
    quantile : of |x| over all inputs of a layer; 1 takes the largest, less gives converters more resolution and clips
        the rest.

    Returns
    -------
    full scales by the names of the layers. Layers that no batch reaches, or only zeros, keep theirs and are left out.

    Raises
    ------
    OptionError
        When there is no memristive layer or no input, the quantile is not in (0, 1], or inputs are not finite.
    """
    if not 0 < quantile <= 1:
        raise OptionError(f"the quantile of inputs is {quantile}; expected more than 0 and at most 1")
    layers = {n: layer for n, layer in module.named_modules() if isinstance(layer, MemristiveLinear)}
    if not layers:
        raise OptionError(f"the network {type(module).__name__} has no memristive layer to calibrate; convert it first")
    seen = {name: Magnitudes() for name in layers}

    def record(name: str, x: torch.Tensor) -> None:
        if not bool(torch.isfinite(x).all()):
            raise OptionError(f"inputs of the layer '{name}' are not finite in the calibration; check the data")
        seen[name].add(x)

    converted = [layer for layer in layers.values() if layer.array.adc is not None and layer.array.adc.calibrated]
    given = list(_batches(batches)) if converted else _batches(batches)  # an iterator gives its batches once
    count = 0
    with _evaluation_mode(module):
        with ideal_passes(layers, record):
            for arguments, named in given:
                module(*arguments, **named)
                count += 1
        if not count:
            raise OptionError("there is no batch to calibrate with; give at least one")
        found = {n: s.largest if quantile == 1 else s.quantile(quantile) for n, s in seen.items() if s.largest > 0}
        for name, full_scale in found.items():
            layers[name].set_input_range(full_scale)
        if converted:
            calibrate_converters(module, converted, list(given))
    return found


def calibrate_converters(
    module: nn.Module, layers: list[MemristiveLinear], batches: list[tuple[tuple, dict[str, Any]]]
) -> None:
    """Set the full scales [A] of the converters of each block of word lines, with new devices for each batch."""
    seen = [[Magnitudes() for _ in layer.adc_range] for layer in layers]
    try:
        for arguments, named in batches:
            for layer in layers:
                layer.reading.adc_currents = [[] for _ in layer.adc_range]
            with same_devices(module):
                module(*arguments, **named)
            for layer, blocks in zip(layers, seen, strict=True):
                for block, currents in zip(blocks, layer.reading.adc_currents or (), strict=True):
                    for part in currents:
                        block.add(part)
    finally:
        for layer in layers:
            layer.reading.adc_currents = None
    for layer, blocks in zip(layers, seen, strict=True):
        assert layer.array.adc is not None
        share = layer.array.adc.quantile
        ranges = [block.largest if share == 1 else block.quantile(share) for block in blocks]
        if max(ranges) > 0:  # else nothing reached the layer
            ranges = [full_scale or max(ranges) for full_scale in ranges]
            layer.set_adc_range(layer.adc_range.new_tensor(ranges))


@contextlib.contextmanager
def ideal_passes(
    layers: dict[str, MemristiveLinear], record: Callable[[str, torch.Tensor], None] | None = None
) -> Iterator[None]:
    """Let layers compute with their signed weights, which is what ideal devices do, inside the block.

    Parameters
    ----------
    layers : by name.
    record : is called with the name and the inputs of each layer in each pass.
    """

    def passes(name: str, layer: MemristiveLinear) -> Callable[[torch.Tensor], torch.Tensor]:
        def forward(x: torch.Tensor) -> torch.Tensor:
            if record is not None:
                record(name, x)
            return functional.linear(x, *signed_weights(layer))

        return forward

    try:
        for name, layer in layers.items():
            layer.forward = passes(name, layer)  # type: ignore[method-assign]
        yield
    finally:
        for layer in layers.values():
            layer.__dict__.pop("forward", None)


@contextlib.contextmanager
def _evaluation_mode(module: nn.Module) -> Iterator[None]:
    modes = [(part, part.training) for part in module.modules()]
    try:
        module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


def _batches(given: Any) -> Iterator[tuple[tuple, dict[str, Any]]]:
    """Yield positional and keyword arguments of each batch."""
    if isinstance(given, torch.Tensor | PackedSequence | dict | tuple):
        yield _arguments(given)
    elif isinstance(given, Iterable):
        for batch in given:
            yield _arguments(batch)
    else:
        raise OptionError(f"batches to calibrate with are a {type(given).__name__}; expected tensors, see `calibrate`")


def _arguments(batch: Any) -> tuple[tuple, dict[str, Any]]:
    if isinstance(batch, dict):
        return (), batch
    if isinstance(batch, tuple | list) and not isinstance(batch, PackedSequence):
        return tuple(batch), {}
    if isinstance(batch, torch.Tensor | PackedSequence):
        return (batch,), {}
    raise OptionError(
        f"a batch to calibrate with is a {type(batch).__name__}; expected a tensor, a tuple of arguments or a "
        "dictionary of keyword arguments"
    )
