"""Weights to conductances of an array, and currents back to what the weights would have given.

Word lines carry the inputs, one more the bias where it is on a line. Every output has one or more physical bit lines,
its `groups`: a differential pair has a positive and a negative one. With D = G_on - G_off, w_max = max|w| over the
layer (Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784, for the first three):

=========== ========= =========================================================================== ==================
name        groups    conductances                                                                k_G
=========== ========= =========================================================================== ==================
double      2         every conductance has its own weight w >= 0: G = G_off + k_G w              D / w_max
lowest      2         G+ = G_off + k_G max(w, 0), G- = G_off + k_G max(-w, 0)                     D / w_max
average     2         G+- = (G_off + G_on) / 2 +- k_G w / 2                                       D / w_max
offset      1         G = (G_off + G_on) / 2 + k_G w / 2, one more bit line at (G_off + G_on) / 2 D / w_max
bit-slicing 2 slices  digit s of |w| on the pair s, positive or negative by the sign of w         see `BitSlicing`
=========== ========= =========================================================================== ==================

`combine` turns the currents of all groups into k_V k_G y. Everything is differentiable, the largest weight included,
and works under `torch.func` transforms. Weights of half precision give conductances in float32, because siemens do not
fit into half precision.
"""

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping as Options
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any, ClassVar

import torch

from calib.crossbar.mapping_gradients import Digits, Largest
from calib.errors import OptionError

_LARGEST_BITS = 24  # integers that float32 holds


@dataclass(frozen=True)
class Mapping(ABC):
    """How weights become conductances.

    Attributes
    ----------
    clip : weights beyond a limit are clipped to it before they are mapped, so that a few large ones do not press all
        others together at one end of the range. '3sigma' is three times the root mean square of the weights (their
        standard deviation about 0), '99.5%' the smallest |w| that 99.5 % of the weights do not exceed. None clips
        nothing. The gradient is exact: inside it passes, and what is clipped acts on the limit.
    """

    clip: str | None = None

    name: ClassVar[str]
    own_weights: ClassVar[bool] = False
    """Whether each conductance has a weight of its own, not negative."""
    reference: ClassVar[bool] = False
    """Whether the last bit line is a reference that is subtracted from all others."""

    def __post_init__(self) -> None:
        _limit_of(self.clip)

    @property
    @abstractmethod
    def factors(self) -> tuple[float, ...]:
        """Digital factor of the current of each group."""

    @abstractmethod
    def _place(self, weight: torch.Tensor, k_g: torch.Tensor, g_off: float, g_on: float) -> torch.Tensor:
        """Return the conductances (group, word_line, bit_line) of clipped weights."""

    @property
    def span(self) -> float:
        """Largest combination of conductances, in units of G_on - G_off."""
        return 1.0

    @property
    def groups(self) -> int:
        """Physical bit lines of one output."""
        return len(self.factors)

    def bit_lines(self, out_features: int) -> int:
        """Return the bit lines of a group, a reference included."""
        return out_features + self.reference

    def weight_shape(self, in_features: int, out_features: int, bias: bool = True) -> tuple[int, ...]:
        """Return the shape of a layer's weights: (pair, word_line, out) if double, else (word_line, out)."""
        single = (in_features + bias, out_features)
        return (2, *single) if self.own_weights else single

    @torch.no_grad()
    def initialise(self, weight: torch.Tensor, generator: torch.Generator | None, bias: bool = True) -> None:
        """Draw a layer's first weights; the last word line is the bias if there is one.

        Double: N(0.5, 1 / sqrt(n_in)), biases 0.5; else N(0, 1 / sqrt(n_in)), biases 0.
        """
        centre = 0.5 if self.own_weights else 0.0
        n_in = weight.shape[-2] - bias
        weight.normal_(centre, max(n_in, 1) ** -0.5, generator=generator)
        if bias:
            weight[..., -1, :] = centre
        self.project(weight)

    @torch.no_grad()
    def project(self, weight: torch.Tensor) -> None:
        """Put weights that a step made negative back to 0 where conductances have weights of their own."""
        if self.own_weights:
            weight.clamp_(min=0.0)

    @torch.no_grad()
    def from_signed(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the layer's weights that stand for signed ones (word_line, out)."""
        return torch.stack((weight.clamp(min=0), (-weight).clamp(min=0))) if self.own_weights else weight.clone()

    def to_signed(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the signed weights (word_line, out) that a layer's weights stand for, before clipping."""
        return weight[0] - weight[1] if self.own_weights else weight

    def clipped(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights inside the limit of `clip`."""
        limit = _limit_of(self.clip)
        if limit is None:
            return weight
        kind, amount = limit
        if kind == "sigma":
            bound = amount * weight.square().mean().sqrt()
        else:
            rank = max(math.ceil(amount * weight.numel() - 1e-9), 1)
            bound = weight.abs().flatten().kthvalue(rank).values
        return torch.minimum(torch.maximum(weight, -bound), bound)

    def conductances(self, weight: torch.Tensor, g_off: float, g_on: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Map weights to conductances.

        Returns
        -------
        conductance : (group, word_line, bit_line) [S].
        k_g : [S per unit of weight]; `combine` of the currents is k_V k_G y.
        """
        weight = self.clipped(_single(weight))
        k_g = (g_on - g_off) * self.span / _largest(weight)
        return self._place(weight, k_g, g_off, g_on), k_g

    def k_g(self, weight: torch.Tensor, g_off: float, g_on: float) -> torch.Tensor:
        """Return k_G [S per unit of weight] alone."""
        return (g_on - g_off) * self.span / _largest(self.clipped(_single(weight)))

    def difference(self, currents: torch.Tensor, dim: int = -2) -> torch.Tensor:
        """Return what is subtracted before a differential converter: (..., slice, out) of (..., group, bit_line).

        One slice for pairs and for the offset column, whose reference is subtracted; `slices` for bit slicing.
        """
        if self.reference:
            return currents[..., :-1] - currents[..., -1:]
        lines = currents.unbind(dim)
        return torch.stack([p - n for p, n in zip(lines[::2], lines[1::2], strict=True)], dim)

    def add(self, differences: torch.Tensor, dim: int = -2) -> torch.Tensor:
        """Return k_V k_G y (..., out) of differences (..., slice, out): the digital sum with the slices' factors."""
        parts = differences.unbind(dim)
        factors = self.factors if self.reference else self.factors[::2]
        total = _times(parts[0], factors[0])
        for part, factor in zip(parts[1:], factors[1:], strict=True):
            total = total + _times(part, factor)
        return total

    def combine(self, currents: torch.Tensor, dim: int = -2) -> torch.Tensor:
        """Return k_V k_G y (..., out) of the currents (..., group, bit_line) [A].

        It is linear, so it applies to conductances and coefficients as well; `dim` is where the groups are, the bit
        lines are last.
        """
        if self.reference:
            return self.add(self.difference(currents, dim), dim)
        lines = currents.unbind(dim)
        total = lines[0] - lines[1]
        for index in range(2, len(lines), 2):
            total = total + _times(lines[index] - lines[index + 1], self.factors[index])
        return total

    def weights(self, conductance: torch.Tensor, g_off: float, k_g: torch.Tensor | float) -> torch.Tensor:
        """Return the layer's weights that conductances (group, word_line, bit_line) stand for."""
        if self.own_weights:
            return (conductance - g_off) / k_g
        return self.combine(conductance, dim=-3) / k_g

    @property
    def text(self) -> str:
        """The mapping with its options as text, which `mapping` understands."""
        given = [f"{f.name}={getattr(self, f.name)}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"{self.name}:{','.join(given)}" if given else self.name


@dataclass(frozen=True)
class Double(Mapping):
    """Pairs whose conductances have weights of their own."""

    name: ClassVar[str] = "double"
    own_weights: ClassVar[bool] = True

    @property
    def factors(self) -> tuple[float, ...]:
        return (1.0, -1.0)

    def _place(self, weight: torch.Tensor, k_g: torch.Tensor, g_off: float, g_on: float) -> torch.Tensor:
        return g_off + k_g * weight


@dataclass(frozen=True)
class Lowest(Mapping):
    """Pairs of which one device is at G_off."""

    name: ClassVar[str] = "lowest"

    @property
    def factors(self) -> tuple[float, ...]:
        return (1.0, -1.0)

    def _place(self, weight: torch.Tensor, k_g: torch.Tensor, g_off: float, g_on: float) -> torch.Tensor:
        return g_off + k_g * torch.stack((weight.clamp(min=0), torch.relu(-weight)))  # at 0 one device has the gradient


@dataclass(frozen=True)
class Average(Mapping):
    """Pairs around the middle of the range."""

    name: ClassVar[str] = "average"

    @property
    def factors(self) -> tuple[float, ...]:
        return (1.0, -1.0)

    def _place(self, weight: torch.Tensor, k_g: torch.Tensor, g_off: float, g_on: float) -> torch.Tensor:
        half = 0.5 * k_g * weight
        return 0.5 * (g_off + g_on) + torch.stack((half, -half))


@dataclass(frozen=True)
class Offset(Mapping):
    """One device a weight, and one reference bit line at the middle of the range for the whole layer.

    The reference is the last bit line, so it lies in the last block of bit lines of a layer that is split into tiles.
    """

    name: ClassVar[str] = "offset"
    reference: ClassVar[bool] = True

    @property
    def factors(self) -> tuple[float, ...]:
        return (2.0,)

    def _place(self, weight: torch.Tensor, k_g: torch.Tensor, g_off: float, g_on: float) -> torch.Tensor:
        change = torch.nn.functional.pad(0.5 * k_g * weight, (0, 1))
        return (0.5 * (g_off + g_on) + change).unsqueeze(0)


@dataclass(frozen=True)
class BitSlicing(Mapping):
    """Digits of the weights on pairs of their own.

    With b bits a slice and n slices, |w| is rounded to q w_max / (2^(n b) - 1), q an integer with the digits d_s in the
    base 2^b. Slice s, least significant first, has its device of the sign of w at G_off + D d_s / (2^b - 1) and the
    other at G_off; its factors are +-2^(b s). So the combination is q D / (2^b - 1), and

        k_G = D (2^(n b) - 1) / ((2^b - 1) w_max).

    The gradient is that of the same mapping without rounding: every slice at G_off + D |w| / w_max, whose combination
    is k_G w too.

    Attributes
    ----------
    slices : n.
    bits_per_slice : b; each device takes 2^b conductances.
    """

    slices: int = 4
    bits_per_slice: int = 2

    name: ClassVar[str] = "bit-slicing"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("slices", "bits_per_slice"):
            value = getattr(self, name)
            if not (isinstance(value, int) and value >= 1):
                raise OptionError(f"the mapping 'bit-slicing' has {name} = {value}; expected a whole number from 1")
        if self.bits > _LARGEST_BITS:
            raise OptionError(
                f"the mapping 'bit-slicing' has {self.slices} slices of {self.bits_per_slice} bits, {self.bits} bits; "
                f"expected at most {_LARGEST_BITS} together, which is what a float32 holds"
            )

    @property
    def bits(self) -> int:
        """Bits of a weight's magnitude."""
        return self.slices * self.bits_per_slice

    @property
    def factors(self) -> tuple[float, ...]:
        return tuple(sign * 2.0 ** (self.bits_per_slice * s) for s in range(self.slices) for sign in (1, -1))

    @property
    def span(self) -> float:
        return (2**self.bits - 1) / (2**self.bits_per_slice - 1)

    def quantised(self, weight: torch.Tensor) -> torch.Tensor:
        """Return the weights that the slices stand for.

        The gradient is 1 through the rounding, and exact for the size of a step, which the largest weight sets.
        """
        conductance, k_g = self.conductances(weight, 0.0, 1.0)
        return self.combine(conductance, dim=-3) / k_g

    def levels(self, g_off: float, g_on: float) -> list[float]:
        """Return the conductances [S] that devices are programmed to."""
        top = 2**self.bits_per_slice - 1
        return [g_off + (g_on - g_off) * digit / top for digit in range(top + 1)]

    def _place(self, weight: torch.Tensor, k_g: torch.Tensor, g_off: float, g_on: float) -> torch.Tensor:
        share = torch.stack((weight.clamp(min=0), (-weight).clamp(min=0))) * (k_g / ((g_on - g_off) * self.span))
        digits = Digits.apply(share, self.slices, self.bits_per_slice)
        return g_off + (g_on - g_off) * digits  # type: ignore[operator]


_CLASSES: dict[str, type[Mapping]] = {c.name: c for c in (Double, Lowest, Average, Offset, BitSlicing)}
MAPPINGS = tuple(_CLASSES)


def mapping(name: "str | Mapping", **options: Any) -> Mapping:
    """Return a mapping by its name, or by a text with options: 'bit-slicing:slices=4,bits=2', 'lowest:clip=3sigma'.

    An option's name may be shortened as long as it stays unique.

    Raises
    ------
    OptionError
        When there is no such mapping or option, or a value cannot be used.
    """
    if isinstance(name, Mapping):
        if options:
            raise OptionError(f"the mapping '{name.text}' has its options already; leave out {', '.join(options)}")
        return name
    kind, _, given = str(name).partition(":")
    kind = kind.strip()
    if kind not in _CLASSES:
        raise OptionError(f"there is no mapping '{kind}'; expected one of {', '.join(MAPPINGS)}")
    cls = _CLASSES[kind]
    known = {f.name: f for f in fields(cls)}
    values: dict[str, Any] = {}
    for option, value in [*_pairs(kind, given).items(), *options.items()]:
        found = [option] if option in known else [k for k in known if k.startswith(option)]
        if len(found) != 1:
            raise OptionError(f"the mapping '{kind}' has no option '{option}'; expected {', '.join(known)}")
        values[found[0]] = _whole(kind, option, value) if found[0] != "clip" else value
    return cls(**values)


def _pairs(kind: str, text: str) -> Options[str, str]:
    """Return the options of a text 'a=1,b=2'."""
    result = {}
    for part in filter(None, (p.strip() for p in text.split(","))):
        option, equals, value = part.partition("=")
        if not (equals and option.strip() and value.strip()):
            raise OptionError(f"the mapping '{kind}' was given '{part}'; expected option=value, for example slices=4")
        result[option.strip()] = value.strip()
    return result


def _whole(kind: str, option: str, value: object) -> int:
    try:
        return int(str(value))
    except ValueError:
        raise OptionError(f"the mapping '{kind}' was given {option}={value}; expected a whole number") from None


def _limit_of(clip: str | None) -> tuple[str, float] | None:
    """Return the kind of a limit, 'sigma' or 'quantile', and its amount."""
    if clip is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(sigma|%)", str(clip).strip())
    if match is None or not float(match[1]) > 0 or (match[2] == "%" and float(match[1]) > 100):
        raise OptionError(
            f"weights cannot be clipped at '{clip}'; expected a multiple of the standard deviation, for example "
            "3sigma, or the share of the weights to keep, for example 99.5%"
        )
    return ("sigma", float(match[1])) if match[2] == "sigma" else ("quantile", float(Decimal(match[1]) / 100))


def _largest(weight: torch.Tensor) -> torch.Tensor:
    return Largest.apply(weight).clamp(min=torch.finfo(weight.dtype).tiny)  # type: ignore[union-attr]


def _single(weight: torch.Tensor) -> torch.Tensor:
    return weight.float() if weight.dtype in (torch.float16, torch.bfloat16) else weight


def _times(x: torch.Tensor, factor: float) -> torch.Tensor:
    return x if factor == 1 else x * factor
