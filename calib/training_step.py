"""One step of a training: new devices, the loss with its energy, and the optimiser."""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn import functional

from calib.crossbar import drawing
from calib.crossbar.layers import Encoded, MemristiveLinear
from calib.errors import OptionError

Pass = tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]


def step(
    model: nn.Module,
    layers: list[MemristiveLinear],
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor | Encoded,
    labels: torch.Tensor,
    l1: float = 0.0,
    draws: int = 1,
    energy_weight: float = 0.0,
    clip_gradient: float | None = None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make one step on one batch with new devices; return cross-entropy, outputs and labels, those of all draws.

    See `calib.train` for what is minimised.
    """

    def one_pass() -> Pass:
        return drawn_pass(model, layers, images, labels, bool(energy_weight))

    return descend(model, layers, optimizer, one_pass, labels, l1, draws, energy_weight, clip_gradient)


def descend(
    model: nn.Module,
    layers: list[MemristiveLinear],
    optimizer: torch.optim.Optimizer,
    one_pass: Callable[[], Pass],
    labels: torch.Tensor,
    l1: float,
    draws: int,
    energy_weight: float,
    clip_gradient: float | None,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make one step down the mean loss of passes; return cross-entropy, outputs and labels, those of all draws.

    Parameters
    ----------
    one_pass : gives cross-entropy, mean power [W] over the images, or None where it does not count, and outputs.
    """
    optimizer.zero_grad(set_to_none=True)
    losses, outputs = [], []
    for _ in range(draws):
        loss, power, logits = one_pass()
        total = loss if power is None else loss + power * (energy_weight / full_power(layers))
        (total if draws == 1 else total / draws).backward()
        losses.append(loss.detach())
        outputs.append(logits.detach())
    if l1:
        for layer in layers:
            if layer.weight.grad is not None:
                layer.weight.grad.add_(layer.weight.detach().sign(), alpha=l1)
    if clip_gradient is not None:
        nn.utils.clip_grad_norm_(model.parameters(), clip_gradient)
    optimizer.step()
    for layer in layers:
        layer.project()
    if draws == 1:
        return losses[0], outputs[0], labels
    return torch.stack(losses).mean(), torch.cat(outputs), labels.repeat(draws)


def drawn_pass(
    model: nn.Module,
    layers: list[MemristiveLinear],
    images: torch.Tensor | Encoded,
    labels: torch.Tensor,
    wants_power: bool,
) -> tuple[torch.Tensor, torch.Tensor | None, torch.Tensor]:
    """Return cross-entropy, mean power [W] over the images, where it is wanted, and outputs with new devices.

    Raises
    ------
    OptionError
        When a layer whose weights are trained gives a power without a gradient.
    """
    for layer in layers:
        if layer.wants_power != wants_power:  # torch's modules take long to set
            layer.wants_power = wants_power
        layer.reading.measures, layer.reading.power = wants_power, 0.0
    for layer, drawn in zip(layers, drawing.draw(layers), strict=True):
        layer.drawn = drawn
    try:
        logits = model(images)
        loss = functional.cross_entropy(logits, labels)
        return loss, _mean_power(layers, len(labels)) if wants_power else None, logits
    finally:
        for layer in layers:
            layer.drawn = None
            if wants_power:
                layer.wants_power = False
            layer.reading.measures, layer.reading.power, layer.reading.weights = False, 0.0, None


def _mean_power(layers: list[MemristiveLinear], images: int) -> torch.Tensor:
    parts = [torch.as_tensor(layer.reading.power) for layer in layers]
    for layer, part in zip(layers, parts, strict=True):
        if layer.weight.requires_grad and torch.is_grad_enabled() and not part.requires_grad:
            raise OptionError(
                f"the power of the layer ({layer.extra_repr()}) has no gradient in the module that it is in; leave out "
                "energy_weight (l1 saves energy too)"
            )
    return torch.stack(parts).sum() / images


def full_power(layers: list[MemristiveLinear]) -> float:
    """Return the power [W] of usual devices, all at G_on and at their layer's input voltage, one reading a layer."""
    return sum(
        layer.devices.full_current * layer.devices.input_voltage * layer.word_lines
        * layer.mapping.bit_lines(layer.out_features) * layer.mapping.groups
        for layer in layers
    )  # fmt: skip
