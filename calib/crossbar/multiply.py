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
nodes are geometric (`calib.crossbar.exponential`): two exponentials a device. The voltage as a factor and h_0 keep K
small: 5 reach 1e-4 of every device's current where Chebyshev nodes on I / V take 7, and 4 reach 1e-4 of a bit line's.

Other laws are expanded in Chebyshev polynomials T_k(u) of u = (s - s_c) / ds instead, with D_k the coefficients that
the values on K Chebyshev nodes give: steep laws need 8 to 16 nodes, on which differences at equal distances lose the
digits of single precision. Laws that are not odd have a basis for each sign of V.
"""

import functools
from dataclasses import dataclass

import numpy as np
import torch

from calib.crossbar import exponential
from calib.crossbar.exponential import Exponential
from calib.crossbar.polynomials import basis, chebyshev_matrix, chebyshev_nodes
from calib.iv_models import IVModel, exponential_parameter
from calib.nonidealities.base import Conduction

_SMALLEST = 1e-12  # of the largest voltage: below it the coordinate is held, whose slope may diverge at 0


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

    @functools.cached_property
    def power(self) -> float | None:
        """P if the law's coordinate is |V|^p, else None; found by evaluating it."""
        v = np.array([1e-3, 0.02, 0.3, 1.0, 4.0])
        s = np.asarray(self.law.coordinate(v, xp=np))
        if not (np.isfinite(s).all() and s[3] == 1.0 and s[4] > 0):
            return None
        power = float(np.log(s[4]) / np.log(v[4]))
        return power if np.allclose(s, v**power, rtol=1e-12, atol=0) else None

    def node_voltages(self) -> np.ndarray:
        """Return the voltages [V] > 0 of the nodes."""
        units = np.arange(self.count) if self.exponent is not None else chebyshev_nodes(self.count)
        return np.asarray(self.law.coordinate_inverse(self.start + self.step * units, xp=np))

    def profile(self, voltage: torch.Tensor) -> torch.Tensor:
        """Return h_0 = I / V of the reference device."""
        return conductance_at(self.law, voltage, dict(self.reference), torch)

    def basis(self, voltage: torch.Tensor) -> torch.Tensor:
        """Return the basis functions (..., K, word_line) [V] of voltages (..., word_line) [V]."""
        if self.count == 1 and self.law.odd:
            return (voltage * self.profile(voltage) if self.reference else voltage).unsqueeze(-2)
        size = voltage.abs().clamp(min=_SMALLEST * self.v_max)
        coordinate = self.law.coordinate(size, xp=torch)
        u = (coordinate - self.start) * (1 / self.step)
        if self.exponent is not None:  # h_0 from the coordinate that is there
            profile = torch.exp(coordinate * dict(self.reference)[self.exponent])
            return basis(voltage * profile, u, self.count, False)
        if self.law.odd:
            return basis(voltage * self.profile(size), u, self.count, True)
        parts = []
        for sign in self.sides:
            here = voltage >= 0 if sign > 0 else voltage < 0
            factor = torch.where(here, voltage * self.profile(sign * size), 0.0)
            parts.append(basis(factor, u, self.count, True))
        return torch.cat(parts, dim=-2)

    def coefficients(self, conduction: Conduction, conductance: torch.Tensor, deviates: torch.Tensor) -> torch.Tensor:
        """Return D (K, ...) [S] of devices of `conductance` (...) [S]."""
        if self.count == 1 and not self.reference:
            return conductance.unsqueeze(0)
        if self.exponent is None:
            return self._expansion(conduction.parameters(conductance, deviates))
        known = conduction.shape_with_slope(torch.log(conductance.detach()).neg_(), deviates)
        if known is not None:
            return exponential.coefficients(self.exponential(conduction.reference_voltage), conductance, *known)
        values = conduction.parameters(conductance, deviates)
        return exponential.coefficients(self.exponential(None), values[self.law.scale], values[self.exponent], None)

    def exponential(self, reference_voltage: float | None) -> Exponential:
        """Return the numbers of a law that is an exponential; its scale is I / V at `reference_voltage`, or at 0 V."""
        assert self.exponent is not None
        anchor = 0.0
        if reference_voltage is not None:
            anchor = float(np.asarray(self.law.coordinate(np.asarray(reference_voltage), xp=np)))
        return Exponential(self.start, self.step, anchor, dict(self.reference)[self.exponent], self.count)

    def _expansion(self, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        first = next(iter(parameters.values()))
        parts = []
        for sign in self.sides:
            nodes = torch.as_tensor(sign * self.node_voltages(), dtype=first.dtype, device=first.device)
            nodes = nodes.view(-1, *(1,) * first.dim())
            ratio = self.law.current(nodes, xp=torch, **parameters) / (nodes * self.profile(nodes))
            matrix = torch.as_tensor(chebyshev_matrix(self.count), dtype=first.dtype, device=first.device)
            parts.append(torch.tensordot(matrix, ratio, dims=1))
        return torch.cat(parts)


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


def conductance_at(law: IVModel, voltage, shape: dict, xp):
    """Return I / V [S] of the law, with scale 1 where `shape` does not hold the scale."""
    one = voltage * 0 + 1
    parameters = {name: one * value for name, value in shape.items()}
    return law.current(voltage, xp=xp, **{law.scale: one, **parameters}) / voltage
