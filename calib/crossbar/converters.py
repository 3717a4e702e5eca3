"""Converters at the edges of an array: inputs to voltages of finitely many levels, currents to numbers.

With n positive codes and a full scale F, a value x becomes

    Q(x) = F round(n clip(x / F)) / n,

clip to [-1, 1] where values are signed, to [0, 1] where not. Zero and full scale are levels, so both are exact, and the
error is at most half a step F / n inside the range. A signed converter of b bits has n = 2^(b - 1) - 1, 2^b - 1 levels
symmetric about 0; one that is not signed has n = 2^b - 1, 2^b levels from 0. Over many values inside the range the
error is uniform, with the variance (F / n)^2 / 12 (W. R. Bennett, Bell Syst. Tech. J. 27, 446 (1948), doi
10.1002/j.1538-7305.1948.tb01340.x).

Gradients are straight-through: 1 inside the range, ends included, and 0 outside (Y. Bengio et al., arXiv:1308.3432).
Where the full scale is a tensor that wants a gradient it gets Q(x) / F - x / F inside and Q(x) / F outside (S. K. Esser
et al., ICLR 2020, arXiv:1902.08153), so that ranges can be trained.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from calib.errors import OptionError

_MOST_BITS = 24  # codes that float32 holds


class _Quantise(torch.autograd.Function):
    """Q(x) for a full scale that broadcasts against x."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, full_scale: torch.Tensor, codes: int, lowest: float) -> torch.Tensor:
        return _codes(x, full_scale, codes, lowest).div_(codes).mul_(full_scale)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: torch.Tensor) -> None:
        x, full_scale, ctx.codes, ctx.lowest = inputs
        ctx.save_for_backward(x, full_scale)
        ctx.save_for_forward(x, full_scale)

    @staticmethod
    def backward(ctx: Any, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        x, full_scale = ctx.saved_tensors
        inside = _inside(x, full_scale, ctx.lowest)
        by_x = by_range = None
        if ctx.needs_input_grad[0]:
            by_x = (grads[0] * inside).sum_to_size(x.shape)
        if ctx.needs_input_grad[1]:
            by_range = (grads[0] * _by_range(x, full_scale, inside, ctx)).sum_to_size(full_scale.shape)
        return by_x, by_range, None, None

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> torch.Tensor:
        x, full_scale = ctx.saved_tensors
        inside = _inside(x, full_scale, ctx.lowest)
        result = torch.zeros_like(x * full_scale)
        if tangents[0] is not None:
            result = result + tangents[0] * inside
        if tangents[1] is not None:
            result = result + tangents[1] * _by_range(x, full_scale, inside, ctx)
        return result


def _codes(x: torch.Tensor, full_scale: torch.Tensor, codes: int, lowest: float) -> torch.Tensor:
    return (x / full_scale).clamp(lowest, 1.0).mul_(codes).round_()


def _inside(x: torch.Tensor, full_scale: torch.Tensor, lowest: float) -> torch.Tensor:
    return (x >= lowest * full_scale) & (x <= full_scale)


def _by_range(x: torch.Tensor, full_scale: torch.Tensor, inside: torch.Tensor, ctx: Any) -> torch.Tensor:
    level = _codes(x, full_scale, ctx.codes, ctx.lowest) / ctx.codes
    return level - torch.where(inside, x / full_scale, 0.0)


def quantise(x: torch.Tensor, full_scale: torch.Tensor | float, codes: int, signed: bool) -> torch.Tensor:
    """Return Q(x) of the module's equation, with `codes` positive codes; the full scale broadcasts against x."""
    if x.dtype in (torch.float16, torch.bfloat16):  # which hold neither the codes nor currents
        return quantise(x.float(), full_scale, codes, signed).to(x.dtype)
    scale = torch.as_tensor(full_scale, dtype=x.dtype, device=x.device).clamp(min=torch.finfo(x.dtype).tiny)
    return _Quantise.apply(x, scale, codes, -1.0 if signed else 0.0)  # type: ignore[return-value]


@dataclass(frozen=True)
class Dac:
    """What turns inputs into voltages.

    Attributes
    ----------
    bits : None is without limit: nothing is rounded and nothing clipped.
    signed : whether inputs have both signs at once; an `Array` states it from its input mode.
    """

    bits: int | None = None
    signed: bool = False

    def __post_init__(self) -> None:
        _check_bits("DAC", self.bits, self.signed)

    @property
    def is_ideal(self) -> bool:
        """Whether inputs are left as they are."""
        return self.bits is None

    def ideal(self) -> "Dac":
        """Return the limit in which it does nothing."""
        return replace(self, bits=None)

    @property
    def codes(self) -> int:
        """Number of positive codes, those of the other sign and 0 not counted."""
        return _positive_codes(self.bits, self.signed)

    def quantise(self, x: torch.Tensor) -> torch.Tensor:
        """Return inputs x as fractions of the full scale, rounded to levels in [0, 1], or [-1, 1] if signed."""
        return x if self.bits is None else quantise(x, 1.0, self.codes, self.signed)


@dataclass(frozen=True)
class Adc:
    """What turns currents of bit lines into numbers.

    Attributes
    ----------
    bits : None is without limit: nothing is rounded and nothing clipped.
    full_scale : [A] of every tile; 'array' is the current of a bit line whose devices are all the usual one at
        G_on, at the input voltage; None is found for each tile from the currents of data (`calibrate`).
    differential : whether the current of a pair is converted after its subtraction, else that of every bit line before.
    quantile : share of the currents that a calibrated range holds; 1 is the largest seen.
    signed : whether currents have both signs; None is as `differential`.
    """

    bits: int | None = None
    full_scale: float | str | None = None
    differential: bool = True
    quantile: float = 1.0
    signed: bool | None = None

    def __post_init__(self) -> None:
        if self.signed is None:
            object.__setattr__(self, "signed", self.differential)
        if self.differential and not self.signed:
            raise OptionError("a differential ADC converts currents of both signs; leave out signed=False")
        _check_bits("ADC", self.bits, bool(self.signed))
        scale = self.full_scale
        if isinstance(scale, str):
            if scale != "array":
                raise OptionError(
                    f"the ADC's range is '{scale}'; expected a current in A, 'array', or None (from data)"
                )
        elif scale is not None and not (math.isfinite(scale) and scale > 0):
            raise OptionError(f"the ADC's range is {scale} A; expected more than 0, and finite")
        if not 0 < self.quantile <= 1:
            raise OptionError(f"the ADC's range holds a share of {self.quantile} of the currents; expected 0 to 1")

    @property
    def is_ideal(self) -> bool:
        """Whether currents are left as they are."""
        return self.bits is None

    def ideal(self) -> "Adc":
        """Return the limit in which it does nothing."""
        return replace(self, bits=None)

    @property
    def codes(self) -> int:
        """Number of positive codes, those of the other sign and 0 not counted."""
        return _positive_codes(self.bits, bool(self.signed))

    @property
    def calibrated(self) -> bool:
        """Whether the range comes from the currents of data."""
        return self.bits is not None and self.full_scale is None

    def range_of(self, rows: int, g_on: float, input_voltage: float) -> float | None:
        """Return the full scale [A] of a tile of `rows` word lines, None where it is to be calibrated."""
        if self.full_scale == "array":
            return rows * g_on * input_voltage
        return None if self.full_scale is None else float(self.full_scale)

    def quantise(self, current: torch.Tensor, full_scale: torch.Tensor | float | None = None) -> torch.Tensor:
        """Return currents [A] rounded to levels in [-F, F], or [0, F] if not signed.

        Parameters
        ----------
        current : any shape.
        full_scale : F [A], broadcast against the currents; the converter's own if not given.

        Raises
        ------
        OptionError
            When the converter has no current as its range and none is given.
        """
        if self.bits is None:
            return current
        scale = self.full_scale if full_scale is None else full_scale
        if scale is None or isinstance(scale, str):
            kind = "taken from the array" if scale else "calibrated"
            raise OptionError(f"the range of the ADC is to be {kind}, but is not known yet; calibrate it, or give one")
        return quantise(current, scale, self.codes, bool(self.signed))

    def calibrate(self, samples: torch.Tensor, quantile: float | None = None, keep: int = 0) -> torch.Tensor:
        """Return the full scale [A] that holds a share of currents.

        Parameters
        ----------
        samples : currents [A] of data, after the subtraction of pairs if differential.
        quantile : the share; the converter's own if not given. No interpolation: the result is one of the currents.
        keep : leading dimensions of the samples, for example the tiles, that get a range each.

        Raises
        ------
        OptionError
            When there are no samples or some are not finite.
        """
        share = self.quantile if quantile is None else quantile
        sizes = (samples.detach().abs() if self.signed else samples.detach()).flatten(keep)
        if not sizes.numel():
            raise OptionError("no currents to calibrate the ADC with; give inputs")
        rank = min(max(math.ceil(share * sizes.shape[-1] - 1e-9), 1), sizes.shape[-1])
        found = sizes.amax(-1) if rank == sizes.shape[-1] else sizes.kthvalue(rank, dim=-1).values
        if not bool(found.isfinite().all()):
            raise OptionError("currents to calibrate the ADC with are not finite; check the inputs")
        return found.clamp(min=0.0)


def _positive_codes(bits: int | None, signed: bool) -> int:
    if bits is None:
        raise OptionError("a converter without limit of bits has no codes")
    return 2 ** (bits - signed) - 1


def _check_bits(what: str, bits: object, signed: bool) -> None:
    fewest = 2 if signed else 1
    if bits is None:
        return
    if isinstance(bits, bool) or not (isinstance(bits, int) and fewest <= bits <= _MOST_BITS):
        kind = " of signed values" if signed else ""
        raise OptionError(f"the {what}{kind} has {bits} bits; expected a whole number from {fewest} to {_MOST_BITS}")
