"""Inputs as basis functions in one step, for laws I = scale V exp(gamma s) with s = |V|^p: Poole-Frenkel and others.

With V = k_V x, u = (s - s_0) / ds and w_k = (u - k + 1) / k the basis is B_k = V exp(gamma_0 s) w_1 ... w_k. For a
gradient e_k, P = e_0 + w_1 (e_1 + w_2 (e_2 + ...)) is sum_k e_k C(u, k), its derivative by u follows on the way, and

    dL/dx = k_V exp(gamma_0 s) (P + p s (gamma_0 P + P' / ds)).

Few inputs are encoded by compiled loops where there are such (`calib.crossbar.compiled`).
"""

import functools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from calib.crossbar import compiled
from calib.crossbar.exponential import Exponential
from calib.crossbar.functions import caller

_SMALLEST = 1e-12  # of the full scale: below it the coordinate is held, whose slope may diverge at 0
_MOST_COMPILED = 2**15  # inputs; with more the threads of torch win


@dataclass(frozen=True)
class Encoding:
    """The law's numbers, the power p of its coordinate, k_V [V], and whether a word line at full scale is appended."""

    law: Exponential
    power: float
    input_voltage: float
    bias: bool

    @functools.cached_property
    def at_full_scale(self) -> list[float]:
        """Basis functions (K,) of x = 1."""
        law = self.law
        s = self.input_voltage**self.power
        u = (s - law.start) / law.step
        values = [self.input_voltage * math.exp(law.gamma_0 * s)]
        for k in range(1, law.count):
            values.append(values[-1] * (u - k + 1) / k)
        return values

    @functools.cached_property
    def constants(self) -> compiled.Constants:
        """What `calib.crossbar.kernels.encode` is given: its constants, and the appended word line."""
        law, k_v = self.law, self.input_voltage
        numbers = (k_v**self.power, self.power, law.gamma_0, math.log(k_v), law.start, 1 / law.step, _SMALLEST)
        return compiled.Constants(numbers, self.at_full_scale if self.bias else ())


def encode(x: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    """Return the basis functions (..., K, word_line) [V] of inputs (..., in), fractions of the full scale."""
    if x.dim() == 2 and x.numel() <= _MOST_COMPILED and compiled.usable(x):
        if torch.is_grad_enabled() and x.requires_grad:
            return _EncodeCompiled.apply(x, encoding)  # type: ignore[return-value]
        return _encode_compiled(x, encoding)
    return _encode(x, encoding)


def _encode_compiled(x: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    numbers, full_scale = encoding.constants.of(x.dtype)
    found = torch.empty((len(x), encoding.law.count, x.shape[1] + encoding.bias), dtype=x.dtype)
    compiled.loops().encode(compiled.numbers(x), numbers, full_scale, found.numpy())
    return found


class _EncodeCompiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, encoding: Encoding) -> torch.Tensor:
        ctx.encoding = encoding
        ctx.save_for_backward(x)
        return _encode_compiled(x, encoding)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (x,) = ctx.saved_tensors
        numbers, _ = ctx.encoding.constants.of(x.dtype)
        result = torch.empty_like(x, memory_format=torch.contiguous_format)
        compiled.loops().encode_gradient(compiled.numbers(grads[0]), compiled.numbers(x), numbers, result.numpy())
        return result, None


class _Encode(torch.autograd.Function):
    @staticmethod
    def forward(x: torch.Tensor, encoding: Encoding) -> torch.Tensor:
        law, k_v = encoding.law, encoding.input_voltage
        found = x.new_empty((*x.shape[:-1], law.count, x.shape[-1] + encoding.bias))
        rows = found[..., : x.shape[-1]].unbind(-2)
        s = _coordinate(x, encoding)
        torch.add(x.new_full((), math.log(k_v)), s, alpha=law.gamma_0, out=rows[0]).exp_().mul_(x)
        if law.count > 1:
            torch.mul(rows[0], s.sub_(law.start).mul_(1 / law.step), out=rows[1])
        for k in range(2, law.count):
            torch.mul(rows[k - 1], torch.add(s, -(k - 1)).mul_(1 / k), out=rows[k])
        if encoding.bias:
            found[..., -1] = x.new_tensor(encoding.at_full_scale)
        return found

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, ctx.encoding = inputs
        ctx.save_for_backward(x)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, None]:
        (x,) = ctx.saved_tensors
        law, k_v = ctx.encoding.law, ctx.encoding.input_voltage
        e = grads[0][..., : x.shape[-1]].unbind(-2)
        s = _coordinate(x, ctx.encoding)
        u = (s - law.start) * (1 / law.step)
        value, slope = e[-1], None
        for k in range(law.count - 1, 0, -1):
            w = (u - (k - 1)) * (1 / k)
            part = value * (1 / k)
            slope = part if slope is None else torch.addcmul(part, slope, w)
            value = torch.addcmul(e[k - 1], value, w)
        steep = value * law.gamma_0 if slope is None else torch.add(slope * (1 / law.step), value, alpha=law.gamma_0)
        total = torch.addcmul(value, steep, s, value=ctx.encoding.power)
        return total * torch.exp(s * law.gamma_0) * k_v, None

    @staticmethod
    def vmap(info, in_dims, x, encoding):
        return _encode(x.movedim(in_dims[0], 0), encoding), 0


_encode = caller(_Encode)


def _coordinate(x: torch.Tensor, encoding: Encoding) -> torch.Tensor:
    size = x.abs().clamp_(min=_SMALLEST)
    scale = encoding.input_voltage**encoding.power
    return size.sqrt_().mul_(scale) if encoding.power == 0.5 else size.pow_(encoding.power).mul_(scale)
