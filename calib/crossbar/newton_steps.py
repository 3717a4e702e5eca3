"""Newton steps of arrays behind resistive lines: linear arrays of other conductances for each input.

The step solves (Z^-1 + G) dx = -rho for the conductances G of each input, by conjugate gradients that are
preconditioned with an array that all inputs share, or by an elimination for each input. Notation and shapes are those
of `line_response`.
"""

from typing import Protocol

import torch

from calib.crossbar.line_resistance import Lines
from calib.crossbar.line_response import Factors

_FEW, _MANY = 12, 40
"""Conjugate-gradient steps of one Newton step after which the preconditioner is made anew, and then given up."""
_ELEMENTS = 2**22  # of the factors of arrays that are eliminated for their own inputs at a time


class Preconditioner(Protocol):
    """A linear array that stands for others: `Factors`, or one of equal devices."""

    @property
    def g(self) -> torch.Tensor:
        """Conductances (word_line, ..., bit_line) or (1,) [S]."""
        ...

    def respond(self, voltage: None, end: None, source: torch.Tensor) -> tuple[torch.Tensor, object]:
        """Return the devices' voltages for current sources (word_line, ..., batch, bit_line)."""
        ...


def linear_step(
    lines: Lines, factors: Factors | None, slope: torch.Tensor, rho: torch.Tensor, relative: float
) -> tuple[torch.Tensor, torch.Tensor | None, Factors | None]:
    """Solve (Z^-1 + G) dx = -rho for conductances `slope` of each input.

    Conjugate gradients with the given preconditioner; where a few steps are not enough, with one made of the mean of
    `slope`; where many are not, or the preconditioner is None, by an elimination for each input.

    Returns
    -------
    dx, what is left of rho (None: nothing), and the preconditioner that served.
    """
    if factors is not None:
        goal = relative * sum_of_devices(rho.abs())
        dx, left, _ = conjugate_gradients(factors, slope, rho, goal, _FEW)
        if _reached(left, goal):
            return dx, left, factors
        factors = Factors.of(bounded(slope).mean(-2), lines)
        more, left, _ = conjugate_gradients(factors, slope, left, goal, _MANY)
        if _reached(left, goal):
            return dx.add_(more), left, factors
    return _own_eliminations(lines, slope, rho), None, None


def _reached(left: torch.Tensor, goal: torch.Tensor) -> bool:
    return bool((sum_of_devices(left.abs()) <= goal).all())


def conjugate_gradients(
    factors: "Preconditioner", slope: torch.Tensor, rho: torch.Tensor, goal: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Solve (Z^-1 + G) dx = -rho, preconditioned with (Z^-1 + G_0)^-1, until sum |left| <= goal or all steps are done.

    A vector d = -Z e of voltages is kept with its currents e, so that Z^-1 is never needed: (Z^-1 + G) d = G d - e.

    Returns
    -------
    dx, what is left of rho, and the number of steps.
    """
    left, g = rho.clone(), factors.g.unsqueeze(-2)
    dx = torch.zeros_like(left)
    d = e = before = None
    number = 0
    for number in range(1, steps + 1):  # noqa: B007
        z = factors.respond(None, None, left)[0]
        currents = torch.addcmul(left, g, z)
        product = -dot(left, z)
        if d is None or e is None or before is None:
            d, e = z, currents
        else:
            beta = _quotient(product, before).unsqueeze(-1)
            d, e = d.mul_(beta).add_(z), e.mul_(beta).add_(currents)
        before = product
        change = torch.addcmul(-e, slope, d)
        alpha = _quotient(product, dot(d, change)).unsqueeze(-1)
        dx.addcmul_(d, alpha)
        left.addcmul_(change, alpha)
        if _reached(left, goal):
            break
    return dx, left, number


def _quotient(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return a / b, and 0 where that is no number: nothing is left to do there."""
    return torch.where((b > 0) & torch.isfinite(b), a / b, 0.0)


def _own_eliminations(lines: Lines, slope: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
    """Solve (Z^-1 + G) dx = -rho by an elimination for each input, some at a time."""
    m, n = slope.shape[0], slope.shape[-1]
    g, source = bounded(slope).reshape(m, -1, n), rho.reshape(m, -1, 1, n)
    some = max(1, _ELEMENTS // (m * n * n))
    parts = [
        Factors.of(g[:, k : k + some], lines).respond(None, None, source[:, k : k + some])[0]
        for k in range(0, g.shape[1], some)
    ]
    return torch.cat(parts, 1).reshape(slope.shape)


def bounded(slope: torch.Tensor) -> torch.Tensor:
    """Return conductances that a factorisation takes: laws may have an infinite slope at 0 V."""
    largest = torch.finfo(slope.dtype).max ** 0.25
    return torch.nan_to_num(slope, nan=0.0, posinf=largest).clamp(min=0.0, max=largest)


def sum_of_devices(value: torch.Tensor) -> torch.Tensor:
    """Sum over the devices of each array and input: (word_line, ..., batch, bit_line) -> (..., batch)."""
    return value.sum((0, -1))


def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the inner product over the devices of each array and input."""
    return torch.einsum("i...j,i...j->...", a, b)
