"""Currents of an array of nonlinear devices whose lines have resistance.

A device is a conductance G0 in parallel with a current source delta(x) = I(x) - G0 x, x its voltage. The linear network
with the sources (`line_resistance`) answers with the devices' voltages, and the joint solution is the fixed point

    x = x_linear(V) - Z delta(x),

Z the impedances between devices. Because Z <= 1 / G0, the iteration contracts wherever 0 < dI/dV < 2 G0; G0 is the
middle of each device's differential conductances over the batch, and Anderson's acceleration (D. G. Anderson, J. ACM
12, 547 (1965), doi 10.1145/321296.321305) takes a few steps. The factors of the linear network are made once for all
inputs. Gradients are those of the implicit function theorem: the adjoint network, with the devices' differential
conductances, is solved in the same way with the same factors.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from calib.crossbar.line_resistance import Factors, Lines
from calib.errors import FitError

Current = Callable[..., torch.Tensor]
"""I(x, *parameters) [A] of voltages x (..., batch, word_line, bit_line) [V], by functions that torch differentiates."""

MEMORY = 5  # earlier iterates that Anderson's acceleration combines


@dataclass
class Convergence:
    """How a solution was reached: iterations, and the largest change of a device's voltage in the last one [V]."""

    iterations: int = 0
    residual: float = float("inf")


def nonlinear_currents(
    voltage: torch.Tensor,
    current: Current,
    parameters: tuple[torch.Tensor, ...],
    lines: Lines,
    *,
    tolerance: float = 1e-8,
    iterations: int = 200,
    report: Convergence | None = None,
) -> torch.Tensor:
    """Return the output currents (..., batch, bit_line) [A], differentiable by voltages and parameters.

    Parameters
    ----------
    voltage : (..., batch, word_line) [V].
    current : the devices' law I(x, *parameters), increasing in x, with I(0) = 0.
    parameters : of each device, (..., word_line, bit_line).
    lines : resistances of the lines.
    tolerance : largest change of a device's voltage at which the iteration ends, relative to the largest input.
    iterations : most iterations.
    report : is filled in with what the solution took.

    Raises
    ------
    FitError
        When the iteration does not reach the tolerance, with the residual that it reached.
    """
    settings = (tolerance, iterations, report if report is not None else Convergence())
    return _Nonlinear.apply(voltage, current, lines, settings, *parameters)  # type: ignore[return-value]


class _Nonlinear(torch.autograd.Function):
    """The joint solution of a batch."""

    @staticmethod
    def forward(ctx, voltage, current, lines, settings, *parameters) -> torch.Tensor:
        tolerance, iterations, report = settings
        v = voltage.detach()
        fixed = [p.detach().unsqueeze(-3) for p in parameters]
        applied = v.unsqueeze(-1) + torch.zeros_like(fixed[0])  # (..., batch, word_line, bit_line)
        slope = _slope(current, applied, fixed)
        low, high = slope.amin(-3), slope.amax(-3)
        factors = Factors(((low + high) / 2).clamp_(min=torch.finfo(v.dtype).tiny), lines)
        g0 = factors.g.unsqueeze(-3)

        def step(x: torch.Tensor) -> torch.Tensor:
            return factors.respond(v, current(x, *fixed) - g0 * x)[0]

        size = float(v.abs().max()) or 1.0
        with torch.no_grad():
            x = _fixed_point(step, factors.respond(v, None)[0], tolerance * size, iterations, report)
            out = factors.respond(v, current(x, *fixed) - g0 * x)[1]
        ctx.save_for_backward(x, *parameters)
        ctx.factors, ctx.current, ctx.settings = factors, current, settings
        return out

    @staticmethod
    def backward(ctx, *grads: torch.Tensor):
        (y,) = grads
        x, *parameters = ctx.saved_tensors
        tolerance, iterations, _ = ctx.settings
        factors: Factors = ctx.factors
        fixed = [p.detach().unsqueeze(-3) for p in parameters]
        excess = _slope(ctx.current, x, fixed) - factors.g.unsqueeze(-3)
        ground = torch.zeros_like(x[..., 0])

        def step(a: torch.Tensor) -> torch.Tensor:
            return factors.respond(ground, excess * a, y)[0]

        size = float(y.abs().max()) or 1.0
        with torch.no_grad():
            start = factors.respond(ground, None, y)[0]
            across = -_fixed_point(step, start, tolerance * size, iterations, Convergence())
        by_voltage = ((excess + factors.g.unsqueeze(-3)) * across).sum(-1)
        wanted = [p for k, p in enumerate(parameters) if ctx.needs_input_grad[4 + k]]
        by_parameter: list[torch.Tensor | None] = [None] * len(parameters)
        if wanted:
            with torch.enable_grad():
                leaves = [p.detach().requires_grad_(ctx.needs_input_grad[4 + k]) for k, p in enumerate(parameters)]
                i = ctx.current(x, *(p.unsqueeze(-3) for p in leaves))
                found = iter(torch.autograd.grad(i, [p for p in leaves if p.requires_grad], across))
            by_parameter = [next(found) if leaf.requires_grad else None for leaf in leaves]
        return by_voltage, None, None, None, *by_parameter


def _slope(current: Current, x: torch.Tensor, parameters: list[torch.Tensor]) -> torch.Tensor:
    """Return dI/dx."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (slope,) = torch.autograd.grad(current(x, *parameters).sum(), x)
    return slope


def _fixed_point(
    step: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, tolerance: float, iterations: int,
    report: Convergence,
) -> torch.Tensor:  # fmt: skip
    """Return x = step(x) by Anderson's acceleration over whole batches."""
    points: list[torch.Tensor] = []
    residuals: list[torch.Tensor] = []
    for number in range(1, iterations + 1):
        answer = step(x)
        residual = answer - x
        report.iterations, report.residual = number, float(residual.abs().max())
        if report.residual <= tolerance:
            return answer
        points, residuals = [*points[-MEMORY:], answer], [*residuals[-MEMORY:], residual]
        x = _combined(points, residuals)
    raise FitError(
        f"the currents of the array with line resistance did not converge in {iterations} iterations: voltages still "
        f"change by {report.residual:.1g} V, {tolerance:.1g} was asked for; the lines' resistance may be far above "
        "that of the devices, or a device's law may not increase with the voltage"
    )


def _combined(points: list[torch.Tensor], residuals: list[torch.Tensor]) -> torch.Tensor:
    """Return the combination of the answers whose residual is smallest, one for each batch member."""
    if len(points) == 1:
        return points[0]
    last = residuals[-1].flatten(-2)
    differences = torch.stack([r.flatten(-2) - last for r in residuals[:-1]], dim=-1)  # (..., device, earlier)
    normal = differences.transpose(-2, -1) @ differences
    ridge = 1e-12 * normal.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] + torch.finfo(last.dtype).tiny
    normal = normal + ridge * torch.eye(normal.shape[-1], dtype=last.dtype, device=last.device)
    weights = torch.linalg.solve(normal, -(differences.transpose(-2, -1) @ last.unsqueeze(-1)))[..., 0]
    x = points[-1].clone()
    for k, point in enumerate(points[:-1]):
        x += weights[..., k, None, None] * (point - points[-1])
    return x
