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
a factor and h_0 keep K small: 5 reach 1e-4 where Chebyshev nodes on I / V take 7.

Other laws are expanded in Chebyshev polynomials T_k(u) of u = (s - s_c) / ds instead, with D_k the coefficients that
the values on K Chebyshev nodes give: steep laws need 8 to 16 nodes, on which differences at equal distances lose the
digits of single precision. Laws that are not odd have a basis for each sign of V.
"""

import functools
import itertools
import math
from collections.abc import Iterator
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
_MOST_REFERENCES = 24
_INVISIBLE = 1e-6  # of a device's largest current: below it currents need no relative accuracy
_VANISHING = 1e-25  # of a reference's largest conductance: single precision cannot divide by less


@dataclass(frozen=True)
class Collocation:
    """Where a law is evaluated and what it is divided by.

    Attributes
    ----------
    law : the conduction law.
    v_max : largest voltage [V] of the inputs.
    start, step : first node s_0 and distance ds of the nodes in the law's coordinate; where the law is no exponential
        of its coordinate, centre and half width of the range of the Chebyshev nodes.
    count : number of nodes K.
    reference : shape parameters of the device whose law is h_0, as sorted pairs; with the scale where it is no factor.
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
        units = np.arange(self.count) if self.exponent is not None else _chebyshev_nodes(self.count)
        return np.asarray(self.law.coordinate_inverse(self.start + self.step * units, xp=np))

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
            return _Basis.apply(voltage * profile, u, self.count, False)  # type: ignore[return-value]
        if self.law.odd:
            return _Basis.apply(voltage * self.profile(size), u, self.count, True)  # type: ignore[return-value]
        parts = []
        for sign in self.sides:
            here = voltage >= 0 if sign > 0 else voltage < 0
            factor = torch.where(here, voltage * self.profile(sign * size), 0.0)
            parts.append(_Basis.apply(factor, u, self.count, True))
        return torch.cat(parts, dim=-2)  # type: ignore[arg-type]

    def coefficients(self, conduction: Conduction, conductance: torch.Tensor, deviates: torch.Tensor) -> torch.Tensor:
        """Return D (K, ...) [S] of devices of `conductance` (...) [S]."""
        if self.count == 1 and not self.reference:
            return conductance.unsqueeze(0)
        if self.exponent is not None:
            scale, gamma, slope, anchor = self._exponential(conduction, conductance, deviates)
            return _Geometric.apply(scale, gamma, slope, anchor, self, False)  # type: ignore[return-value]
        return self._expansion(conduction.parameters(conductance, deviates))

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

    def _expansion(self, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        first = next(iter(parameters.values()))
        parts = []
        for sign in self.sides:
            nodes = torch.as_tensor(sign * self.node_voltages(), dtype=first.dtype, device=first.device)
            nodes = nodes.view(-1, *(1,) * first.dim())
            ratio = self.law.current(nodes, xp=torch, **parameters) / (nodes * self.profile(nodes))
            matrix = torch.as_tensor(_chebyshev_matrix(self.count), dtype=first.dtype, device=first.device)
            parts.append(torch.tensordot(matrix, ratio, dims=1))
        return torch.cat(parts)


class _Basis(torch.autograd.Function):
    """factor * P_k(u), k = 0 ... count - 1: (..., word_line) -> (..., count, word_line).

    P_k are Chebyshev's T_k, or the binomials C(u, k) of forward differences.
    """

    @staticmethod
    def forward(ctx, factor: torch.Tensor, u: torch.Tensor, count: int, chebyshev: bool) -> torch.Tensor:
        basis = u.new_empty((*u.shape[:-1], count, u.shape[-1]))
        rows = basis.unbind(-2)
        rows[0].copy_(factor)
        double = 2 * u if chebyshev else u
        for k in range(1, count):
            if k == 1:
                torch.mul(rows[0], u, out=rows[1])
            elif chebyshev:
                torch.mul(rows[k - 1], double, out=rows[k]).sub_(rows[k - 2])
            else:
                torch.mul(rows[k - 1], torch.sub(u * (1 / k), (k - 1) / k), out=rows[k])
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
            ctx.save_for_backward(factor, u)
            ctx.count, ctx.chebyshev = count, chebyshev
        return basis

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        factor, u = ctx.saved_tensors
        (grad,) = grads
        with torch.no_grad():
            c = _Basis.apply(torch.ones_like(u), u, ctx.count, ctx.chebyshev)  # (..., count, word_line)
        matrix = _chebyshev_slopes(ctx.count) if ctx.chebyshev else _binomial_slopes(ctx.count)
        slope = torch.as_tensor(matrix, dtype=u.dtype, device=u.device)
        by_factor = (grad * c).sum(-2)
        by_u = (torch.matmul(slope.T, grad) * c).sum(-2) * factor
        return by_factor, by_u, None, None


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
    search = _search(conduction, v_max)
    error = math.inf
    for count in range(1, _MOST_NODES + 1):
        error, start, step, reference = search.best(count)
        if error <= tolerance:
            return Collocation(law, v_max, start, step, count, tuple(sorted(reference.items())), error)
    raise OptionError(
        f"the law '{law.name}' cannot be interpolated to {tolerance:g} with {_MOST_NODES} nodes up to {v_max:g} V "
        f"(reached {error:.2g}): the shapes of the devices that can be drawn differ too much in this range; lower the "
        "input voltage or raise the tolerance"
    )


@dataclass(frozen=True)
class _Bank:
    """Laws h = I / V of devices (device, point) at coordinates s, of one sign of the voltage."""

    law: IVModel
    sign: int
    devices: list[dict[str, float]]

    def at(self, s: np.ndarray) -> np.ndarray:
        v = self.sign * np.asarray(self.law.coordinate_inverse(s, xp=np))
        columns = {name: np.array([[device[name]] for device in self.devices]) for name in self.devices[0]}
        with np.errstate(all="ignore"):
            return _conductance_at(self.law, np.broadcast_to(v, (len(self.devices), len(s))), columns, np)


@dataclass(frozen=True)
class _Search:
    """What nodes are judged by: devices that span those which can be drawn, and their exact laws.

    Attributes
    ----------
    n_usual : the first devices lie within 2 standard deviations.
    references : indices of the devices that are tried as h_0.
    s, relative_voltage : (point,) coordinates, and voltages relative to v_max, at which errors are judged.
    banks, exact : for each sign of the voltage the laws, and h (device, point).
    """

    law: IVModel
    devices: list[dict[str, float]]
    n_usual: int
    references: np.ndarray
    s: np.ndarray
    relative_voltage: np.ndarray
    banks: list[_Bank]
    exact: list[np.ndarray]

    def best(self, count: int) -> tuple[float, float, float, dict[str, float]]:
        """Return the least error with `count` nodes, the first node, their distance and the reference device.

        For Chebyshev nodes, centre and half width of their range instead of first node and distance.
        """
        best = (math.inf, 0.0, 1.0, self.devices[0])
        for start, step, units in _placements(count, exponential_parameter(self.law) is not None):
            nodes = self.s[-1] * (start + step * units)
            weights = _lagrange(nodes, self.s).T  # (node, point)
            pairs = zip(self.banks, self.exact, strict=True)
            errors = np.max([self._errors(bank.at(nodes), h, weights) for bank, h in pairs], 0)
            index = int(errors.argmin())
            if errors[index] < best[0]:
                reference = self.devices[self.references[index]]
                best = (float(errors[index]), float(self.s[-1] * start), float(self.s[-1] * step), reference)
        return best

    def _errors(self, at_nodes: np.ndarray, h: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Return the largest error of all devices for each reference; infinite where that vanishes at a node."""
        largest = np.abs(h[:, -1:])
        visible = np.abs(h) * self.relative_voltage > _INVISIBLE * largest
        known = at_nodes[self.references]
        with np.errstate(all="ignore"):
            ratio = at_nodes / known[:, None]  # (reference, device, node)
            off = np.abs(h[self.references][:, None] * (ratio @ weights) - h)  # (reference, device, point)
            high_voltage = (off * self.relative_voltage / largest).max((1, 2))
            low_voltage = np.where(visible, off / np.abs(h), 0.0)[:, : self.n_usual].max((1, 2))
            errors = np.maximum(high_voltage, low_voltage / _LOW_VOLTAGE)
        vanishing = (np.abs(known) < _VANISHING * np.abs(known).max(1, keepdims=True)).any(1)
        return np.where(np.isfinite(errors) & ~vanishing, errors, np.inf)


def _search(conduction: Conduction, v_max: float) -> _Search:
    law, usual = conduction.law, conduction.extremes(_USUAL)
    devices = usual + conduction.extremes()
    s = float(law.coordinate(np.asarray(v_max), xp=np)) * np.linspace(1e-3, 1.0, 101)
    banks = [_Bank(law, sign, devices) for sign in ((1,) if law.odd else (1, -1))]
    return _Search(
        law=law, devices=devices, n_usual=len(usual),
        references=np.arange(0, len(devices), -(-len(devices) // _MOST_REFERENCES)),
        s=s, relative_voltage=np.asarray(law.coordinate_inverse(s, xp=np)) / v_max,
        banks=banks, exact=[bank.at(s) for bank in banks],
    )  # fmt: skip


def _placements(count: int, equal: bool) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yield first node, distance and their multiples (equal), or centre, half width and Chebyshev nodes; s_max is 1."""
    if not equal:
        for low in np.linspace(0.0, 0.8, 9):
            yield 0.5 * (low + 1), 0.5 * (1 - low), _chebyshev_nodes(count)
        return
    for low, high in itertools.product(np.linspace(1e-3, 0.48, 13), (0.97, 1.0)):
        if count == 1:
            yield high, 1.0, np.zeros(1)
        else:
            yield low, (high - low) / (count - 1), np.arange(count)


def _conductance_at(law: IVModel, voltage, shape: dict, xp):
    """Return I / V [S] of the law, with scale 1 where `shape` does not hold the scale."""
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


def _chebyshev_nodes(count: int) -> np.ndarray:
    """Return the zeros of T_count, ascending."""
    return -np.cos((np.arange(count) + 0.5) * np.pi / count)


@functools.cache
def _chebyshev_matrix(count: int) -> np.ndarray:
    """Return the matrix that makes the coefficients of T_k from values on the Chebyshev nodes."""
    matrix = np.polynomial.chebyshev.chebvander(_chebyshev_nodes(count), count - 1).T * (2 / count)
    matrix[0] /= 2
    return matrix


@functools.cache
def _chebyshev_slopes(count: int) -> np.ndarray:
    """Return E with d T_k / du = sum_j E_kj T_j: 2 k for j < k of other parity, half of it for j = 0."""
    slopes = np.array([[2.0 * k if j < k and (k - j) % 2 else 0.0 for j in range(count)] for k in range(count)])
    slopes[:, 0] /= 2
    return slopes


@functools.cache
def _binomial_slopes(count: int) -> np.ndarray:
    """Return E with d C(u, k) / du = sum_j E_kj C(u, j) = sum_(j < k) (-1)^(k-1-j) / (k - j) C(u, j)."""
    return np.array([[(-1.0) ** (k - 1 - j) / (k - j) if j < k else 0.0 for j in range(count)] for k in range(count)])
