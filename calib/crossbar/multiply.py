"""Currents of a crossbar at the speed of matrix products.

A direct evaluation of I_j = sum_i I(V_i, theta_ij) costs one evaluation of the law for each input, word line and bit
line. With s the coordinate in which ln(I / V) is smooth, write the law as

    I(V, theta) = V h_0(s) f(s, theta),    f = h / h_0,    h = I / V,

with h_0 the law h of one usual device, so that f is nearly constant, and interpolate f in s on K equally spaced
nodes by Newton's forward differences:

    f(s) = sum_k C(u, k) D_k,   u = (s - s_0) / ds,   C(u, k) = u (u - 1) ... (u - k + 1) / k!,   D_k = Delta^k f(s_0).

Then I_j = sum_ik B_ik D_kij with the basis B_ik = V_i h_0(s_i) C(u_i, k), which knows only inputs: K evaluations a
device, independent of the batch, and one product (p x K m) @ (K m x n). Only differences of the bit lines of a pair
are used in training, so D is subtracted first. Where f is an exponential of s (Poole-Frenkel), its values on the
nodes are geometric, so D_k = f(s_0) q^k, q = exp((gamma - gamma_0) ds) - 1: two exponentials a device. The voltage as
a factor and h_0 keep K small: 5 reach 1e-4 where Chebyshev nodes on I / V take 7. Laws that are not odd have a basis
for each sign of V.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch

from calib.errors import OptionError
from calib.iv_models import IVModel, exponential_parameter
from calib.nonidealities.base import Conduction

_SMALLEST = 1e-12  # of the largest voltage: below it the coordinate is held, whose slope may diverge at 0
_USUAL = 2.0  # standard deviations within which a device's current is held relative to itself at every voltage,
_LOW_VOLTAGE = 100.0  # to this multiple of the tolerance
_MOST_NODES = 16


@dataclass(frozen=True)
class Collocation:
    """Where a law is evaluated and what it is divided by.

    Attributes
    ----------
    law : the conduction law.
    v_max : largest voltage [V] of the inputs.
    start, step : first node s_0 and distance ds of the nodes in the law's coordinate.
    count : number of nodes K.
    reference : shape parameters of the device whose law is h_0, as sorted pairs.
    error : largest |interpolated - I(V)| / I(v_max) over 0 to v_max and all devices that can be drawn.
    """

    law: IVModel
    v_max: float
    start: float
    step: float
    count: int
    reference: tuple[tuple[str, float], ...]
    error: float

    @property
    def sides(self) -> tuple[int, ...]:
        """Signs of the voltage that have a basis of their own."""
        return (1,) if self.law.odd else (1, -1)

    @property
    def size(self) -> int:
        """Number of basis functions."""
        return self.count * len(self.sides)

    @functools.cached_property
    def exponent(self) -> str | None:
        """Name of the shape parameter gamma if the law is I = scale V exp(gamma s), else None."""
        return exponential_parameter(self.law)

    def node_voltages(self) -> np.ndarray:
        """Return the voltages [V] > 0 of the nodes."""
        nodes = self.start + self.step * np.arange(self.count)
        return np.asarray(self.law.coordinate_inverse(nodes, xp=np))

    def profile(self, voltage: torch.Tensor) -> torch.Tensor:
        """Return h_0 = I / V of the reference device."""
        return _conductance_at(self.law, voltage, dict(self.reference), torch)

    def basis(self, voltage: torch.Tensor) -> torch.Tensor:
        """Return the basis functions (..., K, word_line) [V] of voltages (..., word_line) [V]."""
        if self.count == 1 and self.law.odd:
            return (voltage * self.profile(voltage) if self.reference else voltage).unsqueeze(-2)
        size = voltage.abs().clamp(min=_SMALLEST * self.v_max)
        coordinate = self.law.coordinate(size, xp=torch)
        u = (coordinate - self.start) * (1 / self.step)
        if self.exponent is not None:  # h_0 from the coordinate that is there
            profile = torch.exp(coordinate * dict(self.reference)[self.exponent])
            return _Binomials.apply(voltage * profile, u, self.count)  # type: ignore[return-value]
        if self.law.odd:
            return _Binomials.apply(voltage * self.profile(size), u, self.count)  # type: ignore[return-value]
        parts = []
        for sign in self.sides:
            here = voltage >= 0 if sign > 0 else voltage < 0
            factor = torch.where(here, voltage * self.profile(sign * size), 0.0)
            parts.append(_Binomials.apply(factor, u, self.count))
        return torch.cat(parts, dim=-2)  # type: ignore[arg-type]

    def coefficients(self, conduction: Conduction, conductance: torch.Tensor, deviates: torch.Tensor) -> torch.Tensor:
        """Return D (K, ...) [S] of devices of `conductance` (...) [S]."""
        if self.count == 1 and not self.reference:
            return conductance.unsqueeze(0)
        if self.exponent is not None:
            scale, gamma, slope, anchor = self._exponential(conduction, conductance, deviates)
            return _Geometric.apply(scale, gamma, slope, anchor, self, False)  # type: ignore[return-value]
        return self._differences(conduction.parameters(conductance, deviates))

    def pair_coefficients(
        self, conduction: Conduction, conductance: torch.Tensor, deviates: torch.Tensor
    ) -> torch.Tensor:
        """Return D+ - D- (K, word_line, bit_line) [S] of pairs of devices (pair, word_line, bit_line) [S]."""
        if self.exponent is not None and not (self.count == 1 and not self.reference):
            scale, gamma, slope, anchor = self._exponential(conduction, conductance, deviates)
            return _Geometric.apply(scale, gamma, slope, anchor, self, True)  # type: ignore[return-value]
        d = self.coefficients(conduction, conductance, deviates)
        return d[:, 0] - d[:, 1]

    def _exponential(
        self, conduction: Conduction, conductance: torch.Tensor, deviates: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, float]:
        """Return scale, gamma, d gamma / d ln R and the coordinate at which h is the scale."""
        assert self.exponent is not None
        known = conduction.shape_with_slope(conductance, deviates)
        if known is not None:
            anchor = np.asarray(self.law.coordinate(np.asarray(conduction.reference_voltage), xp=np))
            return conductance, known[0], known[1], float(anchor)
        values = conduction.parameters(conductance, deviates)
        return values[self.law.scale], values[self.exponent], None, 0.0

    def _differences(self, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        first = next(iter(parameters.values()))
        parts = []
        for sign in self.sides:
            nodes = torch.as_tensor(sign * self.node_voltages(), dtype=first.dtype, device=first.device)
            nodes = nodes.view(-1, *(1,) * first.dim())
            ratio = self.law.current(nodes, xp=torch, **parameters) / (nodes * self.profile(nodes))
            matrix = torch.as_tensor(_difference_matrix(self.count), dtype=first.dtype, device=first.device)
            parts.append(torch.tensordot(matrix, ratio, dims=1))
        return torch.cat(parts)


class _Binomials(torch.autograd.Function):
    """factor * C(u, k), k = 0 ... count - 1: (..., word_line) -> (..., count, word_line)."""

    @staticmethod
    def forward(ctx, factor: torch.Tensor, u: torch.Tensor, count: int) -> torch.Tensor:
        basis = u.new_empty((*u.shape[:-1], count, u.shape[-1]))
        rows = basis.unbind(-2)
        rows[0].copy_(factor)
        for k in range(1, count):
            torch.mul(rows[k - 1], u if k == 1 else torch.sub(u * (1 / k), (k - 1) / k), out=rows[k])
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            ctx.save_for_backward(factor, u)
            ctx.count = count
        return basis

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        factor, u = ctx.saved_tensors
        (grad,) = grads
        with torch.no_grad():
            c = _Binomials.apply(torch.ones_like(u), u, ctx.count)  # (..., count, word_line)
        slope = torch.as_tensor(_binomial_slopes(ctx.count), dtype=u.dtype, device=u.device)
        by_factor = (grad * c).sum(-2)
        by_u = (torch.matmul(slope.T, grad) * c).sum(-2) * factor
        return by_factor, by_u, None


class _Geometric(torch.autograd.Function):
    """D_k = f(s_0) q^k of the law h = scale exp(gamma (s - anchor)); with `pair`, D_k of pair 0 minus pair 1.

    `slope` is d gamma / d ln R where gamma follows from scale = 1 / R; its gradient then goes to the scale.
    """

    @staticmethod
    def forward(ctx, scale, gamma, slope, anchor: float, plan: Collocation, pair: bool) -> torch.Tensor:
        gamma_0 = dict(plan.reference)[plan.exponent]  # type: ignore[index]
        d = gamma.new_empty((plan.count, *gamma.shape))
        rows = d.unbind(0)
        first = (gamma * (plan.start - anchor)).sub_(gamma_0 * plan.start).exp_()
        torch.mul(first, scale, out=rows[0])
        q = (gamma - gamma_0).mul_(plan.step).expm1_()
        for k in range(1, plan.count):
            torch.mul(rows[k - 1], q, out=rows[k])
        ctx.save_for_backward(scale, d, q, slope)
        ctx.anchor, ctx.plan, ctx.pair = anchor, plan, pair
        return d[:, 0] - d[:, 1] if pair else d.clone()

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        scale, d, q, slope = ctx.saved_tensors
        plan: Collocation = ctx.plan
        (grad,) = grads
        rows = torch.stack((grad, -grad), dim=1) if ctx.pair else grad
        by_log = (rows * d).sum(0)  # derivative by ln f(s_0)
        by_gamma = by_log * (plan.start - ctx.anchor)
        if plan.count > 1:
            order = torch.arange(1, plan.count, dtype=d.dtype, device=d.device).mul_(plan.step)
            weighted = (rows[1:] * order.view(-1, *(1,) * q.dim())).mul_(d[:-1]).sum(0)
            by_gamma.addcmul_(weighted, q).add_(weighted)
        if slope is None:
            return by_log / scale, by_gamma, None, None, None, None
        return by_log.addcmul_(by_gamma, slope.expand_as(q), value=-1).div_(scale), None, None, None, None, None


def direct(
    conduction: Conduction, voltage: torch.Tensor, conductance: torch.Tensor, deviates: torch.Tensor
) -> torch.Tensor:
    """Return the currents (batch, pair, bit_line) [A], evaluated one device at a time.

    The reference that `Collocation` is compared with: voltages (batch, word_line), conductances
    (pair, word_line, bit_line) [S].
    """
    parameters = conduction.parameters(conductance, deviates)
    v = voltage[:, None, :, None]
    return conduction.law.current(v, xp=torch, **parameters).sum(-2)


def collocation(conduction: Conduction, v_max: float, tolerance: float = 1e-4) -> Collocation:
    """Choose the nodes for a law and voltages up to `v_max` [V].

    The fewest nodes are taken for which no device that can be drawn errs by more than `tolerance` of its largest
    current at any voltage from 0 to v_max, and none within 2 standard deviations by more than 100 `tolerance` of its
    current at that voltage, however small. Sums over the word lines err far less.

    Raises
    ------
    OptionError
        When 16 nodes do not reach the tolerance.
    """
    if not (0 < tolerance < 1 and v_max > 0):
        raise OptionError(f"tolerance {tolerance} and largest voltage {v_max} V; expected 0 < tolerance < 1 and > 0 V")
    law = conduction.law
    if not law.shape:
        return Collocation(law, v_max, 0.0, 1.0, 1, (), 0.0)
    for count in range(1, _MOST_NODES + 1):
        error, start, step, reference = _best_nodes(conduction, v_max, count)
        if error <= tolerance:
            return Collocation(law, v_max, start, step, count, tuple(sorted(reference.items())), error)
    raise OptionError(
        f"the law '{law.name}' cannot be interpolated to {tolerance:g} with {_MOST_NODES} nodes up to {v_max:g} V "
        f"(reached {error:.1g}); lower the input voltage or raise the tolerance"
    )


@dataclass(frozen=True)
class _Bank:
    """Laws h = I / V of devices (device, point) at coordinates s, of one sign of the voltage."""

    law: IVModel
    sign: int
    devices: list[dict[str, float]]

    def at(self, s: np.ndarray) -> np.ndarray:
        v = self.sign * np.asarray(self.law.coordinate_inverse(s, xp=np))
        return np.stack([_conductance_at(self.law, v, device, np) for device in self.devices])


def _best_nodes(conduction: Conduction, v_max: float, count: int) -> tuple[float, float, float, dict[str, float]]:
    """Return the least error with `count` nodes, the first node, their distance and the reference device."""
    law, usual = conduction.law, conduction.extremes(_USUAL)
    devices = usual + conduction.extremes()
    s_max = float(law.coordinate(np.asarray(v_max), xp=np))
    s = s_max * np.linspace(1e-3, 1.0, 101)
    banks = [_Bank(law, sign, devices) for sign in ((1,) if law.odd else (1, -1))]
    exact = [bank.at(s) for bank in banks]
    relative_voltage = np.asarray(law.coordinate_inverse(s, xp=np)) / v_max
    best = (math.inf, 0.0, 1.0, usual[0])
    for low, high in itertools.product(np.linspace(1e-3, 0.48, 13), (0.97, 1.0)):
        nodes = s_max * (np.linspace(low, high, count) if count > 1 else np.array([high]))
        weights = _lagrange(nodes, s).T  # (node, point)
        errors = np.zeros(len(devices))  # for each device as the reference
        for bank, curve in zip(banks, exact, strict=True):
            at_nodes = bank.at(nodes)
            ratio = at_nodes / at_nodes[:, None]  # (reference, device, node)
            off = np.abs(curve[:, None] * (ratio @ weights) - curve)  # (reference, device, point)
            high_voltage = (off * relative_voltage / np.abs(curve[:, -1:])).max((1, 2))
            low_voltage = (off / np.abs(curve))[:, : len(usual)].max((1, 2)) / _LOW_VOLTAGE
            errors = np.maximum(errors, np.maximum(high_voltage, low_voltage))
        index = int(errors.argmin())
        if errors[index] < best[0]:
            step = nodes[1] - nodes[0] if count > 1 else s_max
            best = (float(errors[index]), float(nodes[0]), float(step), devices[index])
    return best


def _conductance_at(law: IVModel, voltage, shape: dict[str, float], xp):
    """Return I / V [S] of the law with scale 1."""
    one = voltage * 0 + 1
    parameters = {name: one * value for name, value in shape.items()}
    return law.current(voltage, xp=xp, **{law.scale: one, **parameters}) / voltage


def _lagrange(nodes: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return the matrix (point, node) that interpolates values on `nodes` at `s`."""
    matrix = np.ones((len(s), len(nodes)))
    for k, node in enumerate(nodes):
        for other in np.delete(nodes, k):
            matrix[:, k] *= (s - other) / (node - other)
    return matrix


@functools.cache
def _difference_matrix(count: int) -> np.ndarray:
    """Return the matrix of forward differences, Delta^k f_0 = sum_j (-1)^(k-j) C(k, j) f_j."""
    return np.array([[(-1.0) ** (k - j) * math.comb(k, j) for j in range(count)] for k in range(count)])


@functools.cache
def _binomial_slopes(count: int) -> np.ndarray:
    """Return E with d C(u, k) / du = sum_j E_kj C(u, j) = sum_(j < k) (-1)^(k-1-j) / (k - j) C(u, j)."""
    return np.array([[(-1.0) ** (k - 1 - j) / (k - j) if j < k else 0.0 for j in range(count)] for k in range(count)])
