"""One step of a training: new devices, the loss with its energy, and the optimiser."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from calib.crossbar import drawing
from calib.crossbar.layers import Encoded, MemristiveLinear
from calib.errors import OptionError


@dataclass(frozen=True)
class Pass:
    """What one pass gives for the loss.

    Attributes
    ----------
    loss : mean cross-entropy.
    logits : outputs (image, class).
    power : [W] mean over the images, None where it does not count.
    activity : sum over the layers after the first of the mean squared input, None where it does not count.
    """

    loss: torch.Tensor
    logits: torch.Tensor
    power: torch.Tensor | None = None
    activity: torch.Tensor | None = None


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
    activation_penalty: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make one step on one batch with new devices; return cross-entropy, outputs and labels, those of all draws.

    See `calib.train` for what is minimised.
    """

    def one_pass() -> Pass:
        return drawn_pass(model, layers, images, labels, bool(energy_weight), bool(activation_penalty))

    weights = (l1, draws, energy_weight, clip_gradient, activation_penalty)
    return descend(model, layers, optimizer, one_pass, labels, *weights)


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
    activation_penalty: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make one step down the mean loss of passes; return cross-entropy, outputs and labels, those of all draws."""
    optimizer.zero_grad(set_to_none=True)
    losses, outputs = [], []
    for _ in range(draws):
        found = one_pass()
        total = found.loss
        if found.power is not None:
            total = total + found.power * (energy_weight / full_power(layers))
        if found.activity is not None:
            total = total + found.activity * activation_penalty
        (total if draws == 1 else total / draws).backward()
        losses.append(found.loss.detach())
        outputs.append(found.logits.detach())
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
    wants_activity: bool = False,
) -> Pass:
    """Return what a pass with new devices gives; the activity is that of a network of layers after one another.

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
        logits, activity = _through(model, images) if wants_activity else (model(images), None)
        loss = functional.cross_entropy(logits, labels)
        return Pass(loss, logits, _mean_power(layers, len(labels)) if wants_power else None, activity)
    finally:
        for layer in layers:
            layer.drawn = None
            if wants_power:
                layer.wants_power = False
            layer.reading.measures, layer.reading.power, layer.reading.weights = False, 0.0, None


def _through(model: nn.Module, images: torch.Tensor | Encoded) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs and activity of a network of layers after one another."""
    value, activity = images, torch.zeros(())
    for part in model.children():
        if isinstance(part, MemristiveLinear) and value is not images:
            assert isinstance(value, torch.Tensor)
            activity = activity + value.square().mean()
        value = part(value)
    assert isinstance(value, torch.Tensor)
    return value, activity


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
