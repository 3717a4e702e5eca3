"""Coefficients of laws that are an exponential of their coordinate, I = scale V exp(gamma s): Poole-Frenkel and others.

With h_0 = V exp(gamma_0 s) the values on equally spaced nodes are geometric, so that a device's coefficients are

    D_k = D_0 q^k,   D_0 = scale exp(gamma s_0 - gamma_0 s_0),   q = exp((gamma - gamma_0) ds) - 1,

two exponentials a device. Derivatives are polynomials in q as well: with e_k = dL/dD_k and P(q) = sum_k e_k q^k,

    dL/d ln D_0 = D_0 P(q),   dL/d gamma = s_0 D_0 P(q) + ds (1 + q) D_0 P'(q).
"""

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from calib.crossbar import compiled, compiled_drawing
from calib.crossbar.functions import caller

if TYPE_CHECKING:
    from calib.nonidealities.iv import IV, Line

_BLOCK = 2**17
"""Devices that are computed together: their numbers stay in the processor's cache."""
_MOST_COMPILED = 2**18
"""Devices that compiled loops draw; with more, all threads of torch take less time than the one of a loop."""


@dataclass(frozen=True)
class Exponential:
    """The law's numbers: node s_0 and distance ds, the coordinate at which h is the scale, and gamma_0; K nodes."""

    start: float
    step: float
    anchor: float
    gamma_0: float
    count: int

    def first(self, scale: torch.Tensor, gamma: torch.Tensor, out: torch.Tensor, ln_factor: float = 0.0) -> None:
        """Write D_0 exp(ln_factor)."""
        constant = gamma.new_full((), ln_factor - self.gamma_0 * self.start)
        torch.add(constant, gamma, alpha=self.start - self.anchor, out=out).exp_().mul_(scale)

    def ratio(self, gamma: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
        """Write q and return it."""
        constant = gamma.new_full((), -self.gamma_0 * self.step)
        return torch.add(constant, gamma, alpha=self.step, out=out).expm1_()

    def by_log_and_gamma(self, e: torch.Tensor, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return dL/d ln D_0 and dL/d gamma, both divided by D_0, of e_k = dL/dD_k (K, ...)."""
        value, slope = e[-1], None
        for k in range(self.count - 2, -1, -1):
            slope = value if slope is None else torch.addcmul(value, slope, q)
            value = torch.addcmul(e[k], value, q)
        by_gamma = value * (self.start - self.anchor)
        if slope is not None:
            by_gamma.add_(slope, alpha=self.step).addcmul_(slope, q, value=self.step)
        return value, by_gamma


def coefficients(
    law: Exponential, scale: torch.Tensor, gamma: torch.Tensor, slope: torch.Tensor | None
) -> torch.Tensor:
    """Return D (K, ...) of devices, differentiable by scale and gamma.

    `slope` is d gamma / d ln R where gamma follows from scale = 1 / R; the gradient by gamma then goes to the scale.
    """
    return _coefficients(scale, gamma, slope, law)


class _Coefficients(torch.autograd.Function):
    @staticmethod
    def forward(scale, gamma, slope, law: Exponential) -> torch.Tensor:
        d = gamma.new_empty((law.count, *gamma.shape))
        rows = d.unbind(0)
        law.first(scale, gamma, rows[0])
        q = torch.empty_like(gamma)
        law.ratio(gamma, q)
        for k in range(1, law.count):
            torch.mul(rows[k - 1], q, out=rows[k])
        return d

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        scale, gamma, slope, ctx.law = inputs
        ctx.save_for_backward(scale, gamma, slope)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale, gamma, slope = ctx.saved_tensors
        law: Exponential = ctx.law
        first = torch.exp(gamma * (law.start - law.anchor) - law.gamma_0 * law.start)
        q = torch.expm1((gamma - law.gamma_0) * law.step)
        by_log, by_gamma = law.by_log_and_gamma(grads[0], q)  # over D_0 = scale first
        if slope is None:
            return by_log * first, by_gamma * first * scale, None, None
        return (by_log - by_gamma * slope) * first, None, None, None

    @staticmethod
    def vmap(info, in_dims, scale, gamma, slope, law):
        parts = [
            part if part is None or (part.dim() == 0 and dim is None)
            else part.movedim(dim, 0) if dim is not None else part.expand(info.batch_size, *part.shape)
            for part, dim in zip((scale, gamma, slope), in_dims[:3], strict=True)
        ]  # fmt: skip
        return _Coefficients.apply(*parts, law), 1


_coefficients = caller(_Coefficients)


@dataclass(frozen=True, eq=False)
class Pairs:
    """What the arrays of some layers are drawn with.

    Attributes
    ----------
    conduction : the law and its spread.
    law : numbers of the law.
    factors : factor of each group of bit lines.
    input_voltage : k_V [V].
    g_off, g_on : conductance range [S] if weights >= 0 are given, G = g_off + k_G w; None if conductances are.
    covered : whether all conductances lie where the law was fitted.
    """

    conduction: "IV"
    law: Exponential
    factors: tuple[float, ...]
    input_voltage: float
    g_off: float | None
    g_on: float | None
    covered: bool

    @functools.cached_property
    def line(self) -> "Line | None":
        """How the shape parameter is drawn, None where compiled loops do not know it."""
        return self.conduction.line()

    @functools.cached_property
    def constants(self) -> compiled.Constants:
        """Constants of `calib.crossbar.kernels.draw` with ln R held in the range of the data, and free; the factors."""
        law, line = self.law, self.line
        assert line is not None
        drawn = (line.intercept, line.slope, line.deviation)
        held, free = (line.ln_r_min, line.ln_r_max, line.lower, line.upper), (-math.inf, math.inf, -math.inf, math.inf)
        first = -math.log(self.input_voltage) - law.gamma_0 * law.start
        nodes = (law.start - law.anchor, first, law.step, -law.gamma_0 * law.step)
        return compiled.Constants((*drawn, *held, *nodes), (*drawn, *free, *nodes), self.factors)


def combined(
    pairs: Pairs, sources: list[torch.Tensor], deviates: list[torch.Tensor], power: bool = False
) -> list[torch.Tensor]:
    """Return for each layer sum_group factor D / (k_V k_G) (K word_line, bit_line) [1/V]; k_G is 1 for conductances.

    With `power`, they are followed by the sum of D over all bit lines (K word_line,) [S] of each.

    All layers are computed together, in blocks that stay in the cache, and few devices by compiled loops where there
    are such. For laws whose only shape parameter follows from R and one deviate a device. With weights, D / k_G comes
    from G / k_G = w + g_off / k_G, 1 / k_G = max w / (g_on - g_off).

    Parameters
    ----------
    sources : weights or conductances [S] of each layer (group, word_line, bit_line).
    deviates : (1, group, word_line, bit_line) of each.
    power : whether the power's sums are wanted.
    """
    few = sum(source.numel() for source in sources) <= _MOST_COMPILED
    if few and pairs.line is not None and compiled.usable(*sources):
        return compiled_drawing.draw(pairs, sources, deviates, power)
    count = len(sources)
    return list(_combined(pairs, power, count, *sources, *deviates)[: count * (1 + power)])


def _blocks(sources: tuple[torch.Tensor, ...]) -> list[list[tuple[int, slice]]]:
    """Return blocks of (layer, word lines)."""
    blocks: list[list[tuple[int, slice]]] = [[]]
    room = _BLOCK
    for layer, source in enumerate(sources):
        groups, word_lines, bit_lines = source.shape
        start = 0
        while start < word_lines:
            fitting = max(room // (groups * bit_lines), 0 if blocks[-1] else 1)
            if fitting == 0:
                blocks.append([])
                room = _BLOCK
                continue
            stop = min(word_lines, start + fitting)
            blocks[-1].append((layer, slice(start, stop)))
            room -= (stop - start) * groups * bit_lines
            start = stop
    return blocks


def _views(
    devices: torch.Tensor, block: list[tuple[int, slice]], sources: tuple[torch.Tensor, ...]
) -> list[torch.Tensor]:
    """Return each layer's part (..., word_line, bit_line) of numbers (..., device) of a block."""
    shapes = [(rows.stop - rows.start, sources[layer].shape[2]) for layer, rows in block]
    parts = devices.split([m * n for m, n in shapes], -1)
    return [part.unflatten(-1, shape) for part, shape in zip(parts, shapes, strict=True)]


class _Combined(torch.autograd.Function):
    @staticmethod
    def forward(pairs: Pairs, power: bool, count: int, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        sources, deviates = tensors[:count], tensors[count:]
        law, first = pairs.law, sources[0]
        inverses, largest = _scales(pairs, sources)  # 1 / k_G
        logs = [torch.log(inverse) for inverse in inverses]
        constant = -math.log(pairs.input_voltage)
        outputs = [source.new_empty((law.count, *source.shape[1:])) for source in sources]
        sums = [source.new_empty((law.count, source.shape[1])) for source in sources] if power else []
        state: list[torch.Tensor] = []  # of each block, (group, device): G / k_G, gamma, its slope, q, factor D_0
        for block in _blocks(sources):
            size = sum(sources[i][0, rows].numel() for i, rows in block)
            g = first.new_empty((len(pairs.factors), size))
            ln_r, z = torch.empty_like(g), torch.empty_like(g)
            for (layer, rows), own, other in zip(
                block, _views(g, block, sources), _views(z, block, sources), strict=True
            ):
                source = sources[layer][:, rows]
                if pairs.g_off is None:
                    own.copy_(source)
                else:
                    torch.add(source, inverses[layer], alpha=pairs.g_off, out=own)
                other.copy_(deviates[layer][0, :, rows])
            torch.log(g, out=ln_r)
            for (layer, _), own in zip(block, _views(ln_r, block, sources), strict=True):
                torch.sub(logs[layer], own, out=own)
            found = pairs.conduction.shape_with_slope(ln_r, z.unsqueeze(0), pairs.covered)
            assert found is not None
            d = first.new_empty((law.count, *g.shape))
            law.first(g, found[0], d[0], constant)
            q = law.ratio(found[0], ln_r)
            for k in range(1, law.count):
                torch.mul(d[k - 1], q, out=d[k])
            for (layer, rows), own in zip(block, _views(d, block, sources), strict=True):
                _combine(own, pairs.factors, outputs[layer][:, rows])
                if power:
                    torch.sum(own, (1, 3), out=sums[layer][:, rows])
            state += (g, *found, q, _times_factors(d[0], pairs.factors))
        for total, inverse in zip(sums, inverses, strict=False):
            total.mul_(pairs.input_voltage / inverse)
        found = [output.flatten(0, 1) for output in outputs] + [total.flatten() for total in sums]
        return (*found, *inverses, *largest, *state)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.pairs, ctx.power, ctx.count, *tensors = inputs
        found = ctx.count * (1 + ctx.power)
        ctx.mark_non_differentiable(*output[found:])
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(*tensors[: ctx.count], *output[ctx.count :])

    @staticmethod
    def backward(ctx, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        pairs, count, law = ctx.pairs, ctx.count, ctx.pairs.law
        sources, saved = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        power, saved = saved[: count * ctx.power], saved[count * ctx.power :]
        inverses, largest = saved[:count], saved[count : 2 * count]
        results = [torch.empty_like(source) for source in sources]
        by_log_inverse = [source.new_zeros(()) for source in sources]
        by_sums = [
            None if grad is None else grad.view(law.count, -1) * (pairs.input_voltage / inverse)
            for grad, inverse in zip(grads[count : count + len(power)], inverses, strict=False)
        ]
        for index, block in enumerate(_blocks(sources)):
            g, _, slope, q, d_0 = saved[2 * count + 5 * index : 2 * count + 5 * (index + 1)]
            e = g.new_empty((law.count, len(g) if power else 1, g.shape[1]))
            for (layer, rows), own in zip(block, _views(e, block, sources), strict=True):
                grad = grads[layer]
                if grad is None:
                    own.zero_()
                else:
                    own[:] = grad.unflatten(0, (law.count, -1))[:, None, rows]
                if power and (by_sum := by_sums[layer]) is not None:
                    factors = g.new_tensor(pairs.factors)  # which d_0 holds already
                    own += by_sum[:, None, rows, None] / factors[:, None, None]
            by_log, by_gamma = law.by_log_and_gamma(e, q)
            by_ln_r = by_gamma.mul_(slope).mul_(d_0)
            by_g = by_log.mul(d_0).sub_(by_ln_r).div_(g)
            for (layer, rows), own, other in zip(
                block, _views(by_g, block, sources), _views(by_ln_r, block, sources), strict=True
            ):
                results[layer][:, rows] = own
                if pairs.g_off is not None:
                    by_log_inverse[layer] += other.sum()
        for by_log, grad, value in zip(by_log_inverse, grads[count : count + len(power)], power, strict=False):
            if grad is not None:
                by_log -= grad @ value
        if pairs.g_off is not None and pairs.g_on is not None:
            span = pairs.g_on - pairs.g_off
            for result, inverse, place, by_log in zip(results, inverses, largest, by_log_inverse, strict=True):
                by_inverse = pairs.g_off * result.sum() + by_log / inverse
                result.view(-1).index_add_(0, place.view(1), (by_inverse / span).view(1))
        return (None, None, None, *results, *(None,) * count)

    @staticmethod
    def vmap(info, in_dims, pairs, power, count, *tensors):
        found = []
        for index in range(info.batch_size):
            own = [
                part if dim is None else part.select(dim, index) for part, dim in zip(tensors, in_dims[3:], strict=True)
            ]
            found.append(_Combined.apply(pairs, power, count, *own))
        stacked = tuple(torch.stack(parts) for parts in zip(*found, strict=True))
        return stacked, (0,) * len(stacked)


_combined = caller(_Combined)


def _scales(pairs: Pairs, sources: tuple[torch.Tensor, ...]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return 1 / k_G = max w / (g_on - g_off) and the index of the largest weight of each layer."""
    if pairs.g_off is None or pairs.g_on is None:
        none = [source.new_zeros((), dtype=torch.int64) for source in sources]
        return [source.new_ones(()) for source in sources], none
    largest = [_index_of_largest(source) for source in sources]
    found = []
    for source, index in zip(sources, largest, strict=True):
        weight = source.take(index).clamp(min=torch.finfo(source.dtype).tiny)
        found.append(weight / (pairs.g_on - pairs.g_off))
    return found, largest


def _index_of_largest(weight: torch.Tensor) -> torch.Tensor:
    if weight.device.type == "cpu":  # numpy's is several times faster
        return torch.tensor(int(weight.detach().numpy().argmax()))
    return weight.argmax()


def _combine(d: torch.Tensor, factors: tuple[float, ...], out: torch.Tensor) -> None:
    """Write sum_group factor D of (K, group, word_line, bit_line)."""
    if factors == (1.0, -1.0):
        torch.sub(d[:, 0], d[:, 1], out=out)
    else:
        out.copy_(torch.einsum("kgij,g->kij", d, d.new_tensor(factors)))


def _times_factors(d_0: torch.Tensor, factors: tuple[float, ...]) -> torch.Tensor:
    """Return factor D_0 (group, device), in the same place."""
    if factors == (1.0, -1.0):
        d_0[1].neg_()
        return d_0
    return d_0.mul_(d_0.new_tensor(factors).unsqueeze(-1))
