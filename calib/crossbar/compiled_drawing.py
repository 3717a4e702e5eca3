"""Drawing devices with compiled loops: what `calib.crossbar.exponential.combined` computes, for laws of one line."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from calib.crossbar.compiled import loops, numbers

if TYPE_CHECKING:
    from calib.crossbar.exponential import Pairs


def draw(pairs: "Pairs", sources: list[torch.Tensor], deviates: list[torch.Tensor], power: bool) -> list[torch.Tensor]:
    """Return what `calib.crossbar.exponential.combined` returns."""
    if torch.is_grad_enabled() and any(source.requires_grad for source in sources):
        return list(_Draw.apply(pairs, power, *sources, *deviates))  # type: ignore[arg-type]
    return _outputs([_drawn(pairs, power, *given) for given in zip(sources, deviates, strict=True)])


class _Devices(NamedTuple):
    """What the gradient of a layer's devices needs.

    Attributes
    ----------
    source : (group, word_line, bit_line) weights or conductances.
    place, inverse : index of the largest weight, and 1 / k_G; 0 and 1 for conductances.
    offset : g_off / k_G.
    constants, factors, kept : see `calib.crossbar.kernels.draw`.
    power : (K word_line,) [S], or None.
    """

    source: np.ndarray
    place: int
    inverse: float
    offset: np.floating
    constants: np.ndarray
    factors: np.ndarray
    kept: np.ndarray
    power: np.ndarray | None


def _drawn(
    pairs: "Pairs", wants_power: bool, source: torch.Tensor, deviates: torch.Tensor
) -> tuple[_Devices, torch.Tensor]:
    """Return a layer's devices and their coefficients (K word_line, bit_line)."""
    weights, line = numbers(source), pairs.line
    assert line is not None
    scalar = weights.dtype.type
    place, inverse, offset = 0, 1.0, 0.0
    if pairs.g_off is not None and pairs.g_on is not None:
        place = int(weights.argmax())
        inverse = max(weights.item(place), float(np.finfo(scalar).tiny)) / (pairs.g_on - pairs.g_off)
        offset = inverse * pairs.g_off
    ln_inverse = math.log(inverse)
    covered = pairs.covered or line.covers(*_ends(weights, offset, ln_inverse))
    held, free, factors = pairs.constants.of(source.dtype)
    constants = free if covered else held
    count, (groups, word_lines, bit_lines) = pairs.law.count, weights.shape
    kept = np.empty((3, groups, word_lines, bit_lines), weights.dtype)
    coefficients = torch.empty((count * word_lines, bit_lines), dtype=source.dtype)
    power = np.empty((count, word_lines) if wants_power else (0, 0), weights.dtype)
    loops().draw(
        weights, numbers(deviates)[0], factors, scalar(offset), scalar(ln_inverse), constants, line.is_log,
        coefficients.numpy().reshape(count, word_lines, bit_lines), kept, power,
    )  # fmt: skip
    whole = (power * scalar(pairs.input_voltage / inverse)).reshape(-1) if wants_power else None
    return _Devices(weights, place, inverse, scalar(offset), constants, factors, kept, whole), coefficients


def _ends(weights: np.ndarray, offset: float, ln_inverse: float) -> tuple[float, float]:
    """Return the least and largest ln R."""
    low, high = float(weights.min()) + offset, float(weights.max()) + offset
    if not low > 0:
        return math.nan, math.nan
    return ln_inverse - math.log(high), ln_inverse - math.log(low)


def _outputs(found: list[tuple[_Devices, torch.Tensor]]) -> list[torch.Tensor]:
    powers = [torch.tensor(devices.power) for devices, _ in found if devices.power is not None]
    return [coefficients for _, coefficients in found] + powers


def _gradient(
    pairs: "Pairs", devices: _Devices, by_coefficients: torch.Tensor | None, by_power: torch.Tensor | None
) -> torch.Tensor:
    """Return dL/d source."""
    weights = devices.source
    shape = (pairs.law.count, *weights.shape[1:])
    grad = np.zeros(shape, weights.dtype) if by_coefficients is None else numbers(by_coefficients).reshape(shape)
    by_sums, explicit = np.empty((0, 0), weights.dtype), 0.0
    if by_power is not None and devices.power is not None:
        given = numbers(by_power)
        explicit = float(given @ devices.power)  # the power is k_V k_G times a sum of D / (k_V k_G)
        by_sums = (given * weights.dtype.type(pairs.input_voltage / devices.inverse)).reshape(shape[:2])
    result = np.empty_like(weights)
    by_ln_r, total = loops().gradient(
        grad, by_sums, weights, devices.factors, devices.offset, devices.constants, devices.kept, result
    )
    if pairs.g_off is not None and pairs.g_on is not None:
        by_inverse = pairs.g_off * total + (by_ln_r - explicit) / devices.inverse
        result.reshape(-1)[devices.place] += by_inverse / (pairs.g_on - pairs.g_off)
    return torch.from_numpy(result)


class _Draw(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pairs: "Pairs", power: bool, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        count = len(tensors) // 2
        found = [_drawn(pairs, power, *given) for given in zip(tensors[:count], tensors[count:], strict=True)]
        ctx.save_for_backward(*tensors[:count])  # whose memory the arrays are: torch sees changes
        ctx.set_materialize_grads(False)
        ctx.pairs, ctx.devices = pairs, [devices for devices, _ in found]
        return tuple(_outputs(found))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        _ = ctx.saved_tensors  # an error where they have changed
        count = len(ctx.devices)
        powers = grads[count:] or (None,) * count
        found = [_gradient(ctx.pairs, *given) for given in zip(ctx.devices, grads[:count], powers, strict=True)]
        return (None, None, *found, *(None,) * count)
