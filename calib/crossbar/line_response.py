"""Voltages of an array's devices behind resistive lines, as a function that is its own adjoint.

With Z the impedances of the lines alone, between all pairs of devices, and u_ij = V_i - e_j the voltage that device ij
would have without currents, V of the drivers and e of the ends of the bit lines, devices of conductance G in parallel
with current sources c have the voltages x and send the currents out into the ends of the bit lines:

    x = u - Z (G x + c),    out_j = sum_i (G_ij x_ij + c_ij).

Z is symmetric (reciprocity), so that the gradient by all arguments is the same network again. For gradients y of out
and t of x, let a be the voltages with drivers at ground, ends at -y and sources t. Then

    dL/dG = sum over the batch of x a,    dL/dc = a,    dL/dV_i = sum_j (t_ij + G_ij a_ij),    dL/de = -out(a):

the adjoint network of S. W. Director and R. A. Rohrer, IEEE Trans. Circuit Theory 16, 318 (1969),
doi 10.1109/TCT.1969.1082965. Derivatives of any order follow, with the same factors.

Shapes. Word lines come first, so that the elimination goes through contiguous blocks: conductances are
(word_line, ..., bit_line), voltages of drivers (word_line, ..., batch), voltages of devices
(word_line, ..., batch, bit_line), currents (..., batch, bit_line).
"""

from dataclasses import dataclass

import torch

from calib.crossbar.line_resistance import Lines, WordLines, behind, inverse_of_one_plus


@dataclass(frozen=True, eq=False)
class Factors:
    """An array, eliminated: what any number of solutions share.

    Attributes
    ----------
    g : conductances (word_line, ..., bit_line) [S].
    lines : resistances.
    impedance : A_i^-1 of each word line (word_line, ..., bit_line, bit_line) [Ohm].
    total : c_i, (word_line, ..., bit_line) [S].
    inverse : (1 + r Y_i)^-1 (word_line, ..., bit_line, bit_line).
    last : admittance behind the ends of the bit lines (1, ..., bit_line, bit_line) [S].
    """

    g: torch.Tensor
    lines: Lines
    impedance: torch.Tensor
    total: torch.Tensor
    inverse: torch.Tensor
    last: torch.Tensor

    @classmethod
    def of(cls, g: torch.Tensor, lines: Lines) -> "Factors":
        """Eliminate arrays of conductance g (word_line, ..., bit_line); no gradient goes through the factors."""
        g = g.detach()
        return cls(g, lines, *_Elimination.apply(g, lines))  # type: ignore[misc]

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Everything but conductances and lines."""
        return self.impedance, self.total, self.inverse, self.last

    def respond(
        self, voltage: torch.Tensor | None, end: torch.Tensor | None = None, source: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the devices' voltages and the outputs, without gradients; arguments that are None are zero."""
        m, *lead, n = self.g.shape
        given = [v for v in (voltage, source, end) if v is not None]
        batch = voltage.shape[-1] if voltage is not None else given[0].shape[-2]

        def flat(value: torch.Tensor, start: int, *inner: int) -> torch.Tensor:
            return value.reshape(*value.shape[:start], -1, *inner)

        g, total = flat(self.g, 1, n), flat(self.total, 1, n)
        impedance, inverse = flat(self.impedance, 1, n, n), flat(self.inverse, 1, n, n)
        v = None if voltage is None else flat(voltage, 1, batch)
        c = None if source is None else flat(source, 1, batch, n)
        e = None if end is None else flat(end, 0, batch, n)
        resistive = not self.lines.ideal_words

        short = g.new_zeros((m, g.shape[1], batch, n)) if v is None else v.unsqueeze(-1) * total.unsqueeze(-2)
        if c is not None:
            short += c
            if resistive:
                short.addcmul_(c @ impedance, g.unsqueeze(-2), value=-1.0)
        out = self._descend(short, inverse)
        if e is not None:
            out = out - e @ flat(self.last, 1, n, n)[0]
        potential = self._ascend(short, inverse, e)
        x = potential.neg_() if v is None else torch.sub(v.unsqueeze(-1), potential, out=potential)
        if resistive:
            inner = x * g.unsqueeze(-2)
            x -= (inner if c is None else inner.add_(c)) @ impedance
        return x.reshape(m, *lead, batch, n), out.reshape(*lead, batch, n)

    def _descend(self, short: torch.Tensor, inverse: torch.Tensor) -> torch.Tensor:
        """Turn the currents into each node to short-circuit currents above it, in place; return the outputs."""
        m = len(short)
        if self.lines.bit_segment:
            for i in range(1, m):
                short[i].baddbmm_(short[i - 1], inverse[i - 1])
        else:
            torch.cumsum(short, 0, out=short)
        return short[-1] @ inverse[-1] if self.lines.after(m - 1, m) else short[-1].clone()

    def _ascend(self, short: torch.Tensor, inverse: torch.Tensor, end: torch.Tensor | None) -> torch.Tensor:
        """Return the potentials of the bit lines' nodes, u_i = (u_(i+1) + r J_i) (1 + r Y_i)^-1, in the place of J."""
        m = len(short)
        r = self.lines.after(m - 1, m)
        below = short[-1] * r if end is None else torch.add(end, short[-1], alpha=r)
        if r:
            below = below @ inverse[-1]
        if not self.lines.bit_segment:
            return short.copy_(below.expand_as(short))
        short[-1] = below
        for i in range(m - 2, -1, -1):
            sum_ = torch.add(short[i + 1], short[i], alpha=self.lines.bit_segment)
            torch.bmm(sum_, inverse[i], out=short[i])
        return short


def response(
    factors: Factors,
    g: torch.Tensor,
    voltage: torch.Tensor | None,
    end: torch.Tensor | None = None,
    source: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the devices' voltages and the outputs, differentiable to any order and by `torch.func`.

    Parameters
    ----------
    factors : of the array; g : its conductances, the same values, by which gradients are taken.
    voltage : (word_line, ..., batch) [V]; end : (..., batch, bit_line) [V]; source : (word_line, ..., batch, bit_line)
        [A]. None is zero.
    """
    return _Response.apply(voltage, end, source, g, factors.lines, *factors.tensors)  # type: ignore[return-value]


class _Elimination(torch.autograd.Function):
    """The factors of arrays (word_line, ..., bit_line): impedance, total, inverse, last."""

    @staticmethod
    def forward(g: torch.Tensor, lines: Lines) -> tuple[torch.Tensor, ...]:
        m, *lead, n = g.shape
        g = g.reshape(m, -1, n)
        words = WordLines(g, lines)
        impedance = words.impedance(slice(None))
        inverse, total = words.multiport(slice(None), impedance)  # S_i stands where (1 + r Y_i)^-1 will
        y = inverse[0].clone()
        for i in range(m):
            r = lines.after(i, m)
            if i:
                y = y + inverse[i]
            if r:
                inverse[i] = inverse_of_one_plus(y, r)
                y = behind(y, r, inverse[i])
        square = (m, *lead, n, n)
        total = total.clone() if total is g else total
        return (impedance.reshape(square), total.reshape(m, *lead, n), inverse.reshape(square),
                y.reshape(1, *lead, n, n))  # fmt: skip

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[None, None]:
        return None, None

    @staticmethod
    def vmap(info, in_dims, g: torch.Tensor, lines: Lines) -> tuple[tuple[torch.Tensor, ...], tuple[int, ...]]:
        return _Elimination.apply(g.movedim(in_dims[0], 1), lines), (1, 1, 1, 1)  # type: ignore[return-value]


class _Response(torch.autograd.Function):
    """The devices' voltages and the outputs of a linear array."""

    @staticmethod
    def forward(voltage, end, source, g, lines, *factors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return Factors(g, lines, *factors).respond(voltage, end, source)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, _, _, g, lines, *factors = inputs
        ctx.lines = lines
        ctx.save_for_backward(output[0], g, *factors)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        t, y = grads
        x, g, *factors = ctx.saved_tensors
        nothing = (None,) * (1 + len(factors))
        if t is None and y is None:
            return None, None, None, None, *nothing
        a, out = _Response.apply(None, None if y is None else -y, t, g, ctx.lines, *factors)  # type: ignore[misc]
        by_voltage = by_end = by_source = by_g = None
        if ctx.needs_input_grad[0]:
            by_voltage = (a * g.unsqueeze(-2)).sum(-1)
            by_voltage = by_voltage if t is None else by_voltage + t.sum(-1)
        if ctx.needs_input_grad[1]:
            by_end = -out
        if ctx.needs_input_grad[2]:
            by_source = a
        if ctx.needs_input_grad[3]:
            by_g = (x * a).sum(-2)
        return by_voltage, by_end, by_source, by_g, *nothing

    @staticmethod
    def vmap(info, in_dims, voltage, end, source, g, lines, *factors):
        voltage_dim, end_dim, source_dim, g_dim, _, *factor_dims = in_dims
        if g_dim is None and all(d is None for d in factor_dims):
            return _one_array_for_all(info, in_dims, voltage, end, source, g, lines, *factors)
        size = info.batch_size
        arrays = [stacked(v, d, size, 1) for v, d in zip((g, *factors), (g_dim, *factor_dims), strict=True)]
        voltage, source = stacked(voltage, voltage_dim, size, 1), stacked(source, source_dim, size, 1)
        end = stacked(end, end_dim, size, 0)
        return _Response.apply(voltage, end, source, arrays[0], lines, *arrays[1:]), (1, 0)


def _one_array_for_all(info, in_dims, voltage, end, source, g, lines, *factors):
    """Return the response where only inputs differ: the mapped dimension joins the batch."""
    size = info.batch_size
    x, out = _Response.apply(
        joined(voltage, in_dims[0], size, -2), joined(end, in_dims[1], size, -3), joined(source, in_dims[2], size, -3),
        g, lines, *factors,
    )  # type: ignore[misc] # fmt: skip
    x, out = x.unflatten(-2, (size, -1)), out.unflatten(-2, (size, -1))
    return (x, out), (x.dim() - 3, out.dim() - 3)


def joined(value: torch.Tensor | None, dim: int | None, size: int, at: int) -> torch.Tensor | None:
    """Return a mapped argument with its dimension, put at `at` (negative) before the batch, as a part of the batch."""
    if value is None:
        return None
    first = value.expand(size, *value.shape) if dim is None else value.movedim(dim, 0)
    return first.movedim(0, at).flatten(at, at + 1)


def stacked(value, dim: int | None, size: int, to: int):
    """Return a mapped argument with its dimension at `to`, one that is not mapped repeated; None stays None."""
    if value is None:
        return None
    if dim is None:
        return value.unsqueeze(to).expand(*value.shape[:to], size, *value.shape[to:])
    return value.movedim(dim, to)
