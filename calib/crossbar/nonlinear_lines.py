"""Currents of an array of nonlinear devices whose lines have resistance.

The devices' voltages x and the currents i that the lines carry through the devices satisfy

    x = u - Z i,    i = I(x),

with u the voltages without currents and Z the impedances of the lines alone (`line_response`). This is the minimum of
a convex function of the nodes' potentials, the co-content, wherever every device's current grows with its voltage, so
there is one solution. Newton's method keeps x = u - Z i exact and reduces the mismatch rho = I(x) - i: its step solves
the linear array of conductances I'(x), one for every input, for the current sources rho,

    dx = -(Z^-1 + I'(x))^-1 rho,

by conjugate gradients. Their preconditioner is the eliminated array of one conductance a device for all inputs of the
batch; with weak lines or weak nonlinearity a step or two are enough. A step that would pass the minimum is shortened.
Where inputs differ so much that conjugate gradients are slow, each array is eliminated for its own input instead, which
is plain Newton's method. The gradient is that of the implicit function: the same linear array once more.

What is reported is the residual sum |rho| / sum |I| of each input. Each mismatch is a current source in parallel with a
device, and no source sends more than itself through its own device and through the others: the errors of the outputs,
summed over the bit lines, are at most twice the residual times the devices' current.

Shapes are those of `line_response`, word lines first.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from calib.crossbar.line_resistance import Lines
from calib.crossbar.line_response import Factors, joined, response, stacked
from calib.crossbar.newton_steps import bounded, dot, linear_step, sum_of_devices
from calib.errors import FitError
from calib.iv_models import IVModel

_AT_A_TIME = 2**20  # devices times inputs
_LEAST_INPUTS, _TYPICAL_INPUTS = 16, 64  # solved together; that a preconditioner is made for
_ROUNDING = 1e3  # a residual below so many units of rounding that does not fall any more is the smallest there is
_OVERSHOOT = 0.9  # a step after which the co-content rises this steeply, relative to its fall before, is shortened
_SHORTENINGS = 60


class Convergence(NamedTuple):
    """How a solution was reached.

    Attributes
    ----------
    residual : (..., batch) sum of |I(x) - i| over the devices, relative to the sum of |I(x)|.
    iterations : (...) Newton steps that it took.
    """

    residual: torch.Tensor
    iterations: torch.Tensor

    def check(self, tolerance: float) -> None:
        """Raise where a residual exceeds `tolerance`.

        Raises
        ------
        FitError
            With the largest residual and what may be the cause.
        """
        largest = float(self.residual.max())
        if not largest <= tolerance:
            raise FitError(
                f"the currents of the array with line resistance did not converge in {int(self.iterations.max())} "
                f"iterations: Kirchhoff's current law is violated by {largest:.1g} of the devices' current, "
                f"{tolerance:.1g} was asked for; a device's law may not grow with the voltage, or its numbers may be "
                "too large for the floating-point type; use float64, or limit the lines' resistance"
            )


@dataclass(frozen=True)
class Settings:
    """When an iteration ends.

    Attributes
    ----------
    tolerance : residual to reach.
    iterations : most Newton steps.
    """

    tolerance: float = 1e-6
    iterations: int = 30


class _Law:
    """A conduction law with its parameters in the order of their tensors, (word_line, ..., batch or 1, bit_line)."""

    def __init__(self, law: IVModel, names: Sequence[str], values: Sequence[torch.Tensor]) -> None:
        self.law, self.names = law, tuple(names)
        self.parameters = dict(zip(self.names, values, strict=True))

    def current(self, x: torch.Tensor) -> torch.Tensor:
        return self.law.current(x, xp=torch, **self.parameters)

    def slope(self, x: torch.Tensor) -> torch.Tensor:
        return self.law.slope(x, xp=torch, **self.parameters)

    def jacobian(self, x: torch.Tensor) -> list[torch.Tensor]:
        found = self.law.jacobian(x, xp=torch, **self.parameters)
        return [found[name] for name in self.names]


def preconditioner(
    law: IVModel, names: Sequence[str], parameters: Sequence[torch.Tensor], voltage: torch.Tensor, lines: Lines
) -> Factors:
    """Eliminate arrays for the mean differential conductance of each device at some of the drivers' voltages."""
    with torch.no_grad():
        voltage = voltage[..., :: max(1, voltage.shape[-1] // _TYPICAL_INPUTS)]
        slope = law_values("slope", law, names, parameters, voltage.unsqueeze(-1)).mean(-2)
        return Factors.of(bounded(slope), lines)


def law_values(
    what: str, law: IVModel, names: Sequence[str], parameters: Sequence[torch.Tensor], voltage: torch.Tensor
) -> torch.Tensor:
    """Return 'current' or 'slope' of a law at (word_line, ..., batch, bit_line), without gradients, also under vmap."""
    return _LawValues.apply(what, law, tuple(names), voltage.detach(), *(p.detach() for p in parameters))  # type: ignore[return-value]


class _LawValues(torch.autograd.Function):
    """Laws may look at the values that they are given; here they get the plain tensors that `torch.func` maps."""

    @staticmethod
    def forward(what, law, names, voltage, *parameters: torch.Tensor) -> torch.Tensor:
        return getattr(_Law(law, names, [p.unsqueeze(-2) for p in parameters]), what)(voltage)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[None, ...]:
        return (None,) * len(ctx.needs_input_grad)

    @staticmethod
    def vmap(info, in_dims, what, law, names, *tensors: torch.Tensor) -> tuple[torch.Tensor, int]:
        plain = [stacked(v, d, info.batch_size, 1) for v, d in zip(tensors, in_dims[3:], strict=True)]
        return _LawValues.apply(what, law, names, *plain), 1  # type: ignore[return-value]


def joint_solution(
    factors: Factors, law: IVModel, names: Sequence[str], parameters: Sequence[torch.Tensor], voltage: torch.Tensor,
    settings: Settings,
) -> tuple[torch.Tensor, torch.Tensor, Convergence]:  # fmt: skip
    """Return the devices' voltages, the outputs and the convergence, differentiable by voltages and parameters.

    Parameters
    ----------
    factors : preconditioner, see `preconditioner`; it does not change the solution.
    law : of the devices; names : the parameters' names in the order of `parameters`, (word_line, ..., bit_line).
    voltage : (word_line, ..., batch) [V].
    """
    x, out, residual, iterations = _Joint.apply(
        voltage, law, tuple(names), settings, factors.lines, factors.g, *factors.tensors, *parameters
    )  # type: ignore[misc]
    return x, out, Convergence(residual, iterations)


def joint_currents(
    factors: Factors | None, law: IVModel, names: Sequence[str], parameters: Sequence[torch.Tensor],
    voltage: torch.Tensor, lines: Lines, settings: Settings,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Convergence]:  # fmt: skip
    """Return the outputs, the power [W] from the drivers and in the devices (..., batch), and the convergence.

    As `joint_solution`, without gradients. The devices' voltages are kept of some inputs at a time and, without
    `factors`, arrays are eliminated some at a time, so that any number of inputs and arrays fits into memory.
    """
    held = (None,) * 5 if factors is None else (factors.g, *factors.tensors)
    fixed = [p.detach() for p in parameters]
    found = _Currents.apply(voltage.detach(), law, tuple(names), settings, lines, *held, *fixed)
    out, drawn, heat, residual, iterations = found  # type: ignore[misc]
    return out, drawn, heat, Convergence(residual, iterations)


def _solve(
    factors: Factors, law: _Law, voltage: torch.Tensor, settings: Settings
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Return x, I(x), the residual (..., batch) and the number of Newton steps."""
    x = voltage.unsqueeze(-1).expand(*voltage.shape, factors.g.shape[-1])
    i = torch.zeros_like(x, memory_format=torch.contiguous_format)
    current = law.current(x)
    if factors.lines.ideal:
        return x, current, torch.zeros_like(voltage[0]), 0
    goal = _attainable(settings.tolerance, x)
    rho, worst, used = current, 0.03, factors
    residual = torch.ones_like(voltage[0])
    for number in range(1, settings.iterations + 1):
        slope = law.slope(x)
        relative = min(0.1, max(0.3 * goal / worst, worst))  # no closer than the step itself, or what is asked for
        dx, left, used = linear_step(factors.lines, used, slope, rho, relative)
        di = torch.addcmul(rho, slope, dx)
        di = di if left is None else di.sub_(left)
        x, i, current = _move(law, x, i, current, rho, dx, di)
        rho = current - i
        residual = sum_of_devices(rho.abs()) / sum_of_devices(current.abs()).clamp_(min=torch.finfo(x.dtype).tiny)
        before, worst = worst, float(residual.max())
        is_all_there_is = before / 2 < worst <= _ROUNDING * torch.finfo(x.dtype).eps
        if worst <= goal or is_all_there_is or math.isnan(worst):
            return x, current, residual, number
    return x, current, residual, settings.iterations


def _attainable(tolerance: float, x: torch.Tensor) -> float:
    """Return a tolerance that rounding allows."""
    return max(tolerance, 8 * torch.finfo(x.dtype).eps)


def _move(
    law: _Law, x: torch.Tensor, i: torch.Tensor, current: torch.Tensor, rho: torch.Tensor, dx: torch.Tensor,
    di: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:  # fmt: skip
    """Return x + t dx, i + t di and I(x + t dx), t = 1 or, for inputs that would pass the minimum, less.

    The co-content changes along the step by phi'(t) = sum (I(x + t dx) - i - t di) dx, which grows with t from
    phi'(0) < 0; t is shortened by regula falsi and bisection in turn until |phi'(t)| <= 0.9 |phi'(0)|.
    """
    fall = -dot(rho, dx)
    new_x, new_i = x + dx, i + di
    new = law.current(new_x)
    rise = dot(new - new_i, dx)
    low, high = torch.zeros_like(fall), torch.ones_like(fall)
    t, at_low = high.clone(), -fall
    for number in range(_SHORTENINGS):
        passed = ~(rise <= _OVERSHOOT * fall)
        short = (rise < -_OVERSHOOT * fall) & (t < 1)
        again = (passed | short) & (fall > 0)
        if not bool(again.any()):
            break
        high, low = torch.where(passed & again, t, high), torch.where(short, t, low)
        at_low = torch.where(short, rise, at_low)
        secant = low - (high - low) * at_low / (rise - at_low)
        is_usable = passed & torch.isfinite(rise) & (secant > low) & (secant < high) & (number % 2 == 0)
        t = torch.where(again, torch.where(is_usable, secant, (low + high) / 2), t)
        step = t.unsqueeze(-1)
        new_x, new_i = torch.addcmul(x, dx, step), torch.addcmul(i, di, step)
        new = law.current(new_x)
        rise = dot(new - new_i, dx)
    return new_x, new_i, new


def _adjoint_solution(
    factors: Factors, slope: torch.Tensor, y: torch.Tensor | None, t: torch.Tensor | None, settings: Settings
) -> torch.Tensor:
    """Return a, the devices' voltages of the linear array of conductances `slope`, ends at -y and sources t."""
    a, _ = factors.respond(None, None if y is None else -y, t)
    rho = (slope - factors.g.unsqueeze(-2)) * a
    size = sum_of_devices((slope * a).abs()) + (sum_of_devices(t.abs()) if t is not None else 0.0)
    worst = float((sum_of_devices(rho.abs()) / size.clamp_(min=torch.finfo(a.dtype).tiny)).max())
    goal = _attainable(settings.tolerance, a)
    if worst <= goal:
        return a
    return a.add_(linear_step(factors.lines, factors, slope, rho, goal / worst)[0])


class _Joint(torch.autograd.Function):
    """The joint solution of a batch: x, outputs, residual, iterations."""

    @staticmethod
    def forward(voltage, law, names, settings, lines, g, *tensors: torch.Tensor):
        lead, batch, n = g.shape[1:-1], voltage.shape[-1], g.shape[-1]
        x = g.new_empty((g.shape[0], g[0, ..., 0].numel(), batch, n))
        out, residual = x.new_empty(x.shape[1:]), x.new_empty(x.shape[1:3])
        iterations = torch.zeros(x.shape[1], dtype=torch.int64, device=x.device)
        for part, (v,), factors, parameters in _arrays_in_turn(lines, g, tensors, (voltage,), batch):
            found = _solve(factors, _Law(law, names, parameters), v, settings)
            x[:, part], residual[part], iterations[part] = found[0], found[2], found[3]
            torch.sum(found[1], 0, out=out[part])
        shape = (*lead, batch)
        return x.reshape(len(x), *shape, n), out.reshape(*shape, n), residual.reshape(shape), iterations.reshape(lead)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        _, ctx.law, ctx.names, ctx.settings, ctx.lines, *tensors = inputs
        ctx.save_for_backward(output[0], *tensors)
        ctx.mark_non_differentiable(output[2], output[3])
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        t, y, _, _ = grads
        x, *tensors = ctx.saved_tensors
        nothing = (None,) * 9
        if t is None and y is None:
            return None, *nothing, *(None for _ in tensors[5:])
        found = _Gradients.apply(y, t, x, ctx.law, ctx.names, ctx.settings, ctx.lines, *tensors)
        return found[0], *nothing, *found[1:]  # type: ignore[index]

    @staticmethod
    def vmap(info, in_dims, voltage, *others):
        found, of_batch = _mapped(_Joint, info.batch_size, in_dims, voltage, others)
        if not of_batch:
            return found, (1, 0, 0, 0)
        x, out, residual, iterations = found
        x, out = (v.unflatten(-2, (info.batch_size, -1)) for v in (x, out))
        residual = residual.unflatten(-1, (info.batch_size, -1))
        return (x, out, residual, iterations), (x.dim() - 3, out.dim() - 3, residual.dim() - 2, None)


class _Currents(torch.autograd.Function):
    """The joint solution, some inputs at a time: outputs, power drawn and in the devices, residual, iterations."""

    @staticmethod
    def forward(voltage, law, names, settings, lines, g, *tensors: torch.Tensor):
        (m, *lead, n), batch = tensors[-1].shape, voltage.shape[-1]
        some = min(max(_LEAST_INPUTS, _AT_A_TIME // (m * n)), max(batch, 1))
        out = voltage.new_empty((math.prod(lead), batch, n))
        drawn, heat, residual = (out.new_empty(out.shape[:2]) for _ in range(3))
        iterations = torch.zeros(len(out), dtype=torch.int64, device=out.device)
        for part, (v,), factors, parameters in _arrays_in_turn(lines, g, tensors, (voltage,), some):
            own = _Law(law, names, parameters)
            if factors is None:
                factors = preconditioner(law, names, [p.squeeze(-2) for p in parameters], v, lines)
            for k in range(0, batch, some):
                rows, few = slice(k, k + some), v[..., k : k + some]
                x, current, residual[part, rows], number = _solve(factors, own, few, settings)
                iterations[part] = iterations[part].clamp(min=number)
                torch.sum(current, 0, out=out[part, rows])
                drawn[part, rows] = torch.einsum("iabj,iab->ab", current, few)
                heat[part, rows] = torch.einsum("iabj,iabj->ab", current, x)
        shape = (*lead, batch)
        return (out.reshape(*shape, n), *(v.reshape(shape) for v in (drawn, heat, residual)), iterations.reshape(lead))

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(*output)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[None, ...]:
        return (None,) * len(ctx.needs_input_grad)

    @staticmethod
    def vmap(info, in_dims, voltage, *others):
        found, of_batch = _mapped(_Currents, info.batch_size, in_dims, voltage, others)
        if not of_batch:
            return found, (0,) * len(found)
        out, *each, iterations = found
        out, each = out.unflatten(-2, (info.batch_size, -1)), [v.unflatten(-1, (info.batch_size, -1)) for v in each]
        return (out, *each, iterations), (out.dim() - 3, *(v.dim() - 2 for v in each), None)


def _mapped(function: Any, size: int, in_dims: tuple, voltage: torch.Tensor, others: tuple) -> tuple[Any, bool]:
    """Return a function of mapped arguments, and whether the mapped dimension joined the batch: one array for all."""
    (law, names, settings, lines), tensors, dims = others[:4], others[4:], in_dims[5:]
    if all(d is None for d in dims):
        return function.apply(joined(voltage, in_dims[0], size, -2), law, names, settings, lines, *tensors), True
    arrays = [stacked(v, d, size, 1) for v, d in zip(tensors, dims, strict=True)]
    return function.apply(stacked(voltage, in_dims[0], size, 1), law, names, settings, lines, *arrays), False


class _Gradients(torch.autograd.Function):
    """The gradients by voltages and parameters, of gradients y by the outputs and t by the devices' voltages."""

    @staticmethod
    def forward(y, t, x, law, names, settings, lines, g, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
        batch, n = x.shape[-2:]
        found = [p.new_empty((len(g), g[0, ..., 0].numel(), n)) for p in tensors[4:]]
        by_voltage = x.new_empty((len(g), g[0, ..., 0].numel(), batch))
        ends = None if y is None else y.unsqueeze(0)
        for part, (e, s, v), factors, parameters in _arrays_in_turn(lines, g, tensors, (ends, t, x), batch):
            own = _Law(law, names, parameters)
            slope = own.slope(v)
            a = _adjoint_solution(factors, slope, None if e is None else e[0], s, settings)
            for k, partial in enumerate(own.jacobian(v)):
                found[k][:, part] = (partial * a).sum(-2)
            total = slope.mul_(a).sum(-1)
            by_voltage[:, part] = total if s is None else total + s.sum(-1)
        lead = g.shape[1:-1]
        return by_voltage.reshape(len(g), *lead, batch), *(f.reshape(len(g), *lead, n) for f in found)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        y, t, x, ctx.law, ctx.names, _, ctx.lines, _, *tensors = inputs
        ctx.given = (y is not None, t is not None)
        ctx.save_for_backward(*(v for v in (y, t) if v is not None), x, *tensors[4:])

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        """Differentiate the same expressions, each input's array eliminated for itself."""
        has_y, has_t = ctx.given

        def expressions(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
            y, t = (values[0] if has_y else None), (values[has_y] if has_t else None)
            x, *parameters = values[has_y + has_t :]
            own = _Law(ctx.law, ctx.names, [p.unsqueeze(-2) for p in parameters])
            slope = own.slope(x)  # (word_line, ..., batch, bit_line): of arrays of one input each
            end = None if y is None else -y.unsqueeze(-2)
            a, _ = response(Factors.of(slope, ctx.lines), slope, None, end, None if t is None else t.unsqueeze(-2))
            a = a.squeeze(-2)
            by_voltage = (slope * a).sum(-1)
            by_voltage = by_voltage if t is None else by_voltage + t.sum(-1)
            return by_voltage, *((partial * a).sum(-2) for partial in own.jacobian(x))

        pullback = torch.func.vjp(expressions, *ctx.saved_tensors)[1]
        found = list(pullback(grads))
        by_y = found.pop(0) if has_y else None
        by_t = found.pop(0) if has_t else None
        return by_y, by_t, found[0], *(None,) * 9, *found[1:]

    @staticmethod
    def vmap(info, in_dims, y, t, x, law, names, settings, lines, *tensors: torch.Tensor):
        size = info.batch_size
        arrays = [stacked(v, d, size, 1) for v, d in zip(tensors, in_dims[7:], strict=True)]
        y, t, x = (stacked(v, d, size, to) for v, d, to in zip((y, t, x), in_dims[:3], (0, 1, 1), strict=True))
        found = _Gradients.apply(y, t, x, law, names, settings, lines, *arrays)
        return found, (1,) * len(found)  # type: ignore[arg-type]


def _arrays_in_turn(
    lines: Lines, g: torch.Tensor | None, tensors: Sequence[torch.Tensor], inputs: Sequence[torch.Tensor | None],
    batch: int,
) -> Iterator[tuple[slice, list[Any], Any, list[torch.Tensor]]]:  # fmt: skip
    """Go through the stacked arrays, as many at a time as keep what is worked on in the processor's caches.

    Yields
    ------
    Which arrays; the inputs, factors (None if there are none) and parameters of these, with one stacking dimension,
    parameters with one for the batch besides.
    """
    lead = tensors[-1].dim() - 2

    def flat(value: torch.Tensor | None) -> torch.Tensor | None:
        return None if value is None else value.reshape(len(value), -1, *value.shape[1 + lead :])

    arrays, given = [flat(v) for v in (g, *tensors)], [flat(v) for v in inputs]
    last = arrays[-1]
    assert last is not None
    count, each = last.shape[1], last.shape[0] * last.shape[-1] * batch
    some = max(1, _AT_A_TIME // each)
    for k in range(0, count, some):
        part = slice(k, min(k + some, count))
        own: list[Any] = [None if v is None else v[:, part] for v in arrays]
        factors = None if g is None else Factors(own[0], lines, *own[1:5])
        yield part, [None if v is None else v[:, part] for v in given], factors, [p.unsqueeze(-2) for p in own[5:]]
