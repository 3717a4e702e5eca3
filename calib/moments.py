"""Mean and variance of a device's current over the devices of a model, as sums of products of voltage and conductance.

A device that is programmed to the share u = (G - G_off) / (G_on - G_off) of the conductance range passes, at the
voltage V, a current of mean m(V, u) and variance v(V, u) over all that a chip draws: programming, stuck devices and the
law's spread. Both are tabulated and split by a singular value decomposition into

    m(V, u) = m_0(V) + sum_r a_r(V) q_r(u),    v(V, u) = v_0(V) + sum_r b_r(V) p_r(u),

of which one or two terms suffice. The current of a bit line of many devices is then nearly normal, and its mean and
variance for every image of a batch are two matrix products; devices need not be drawn. Drawing the sum of a layer
instead of its weights is the local reparametrisation of Kingma, Salimans and Welling, NeurIPS 28 (2015), arXiv
1506.02557: the expected loss is that of devices of its own for every image, and its gradient varies less than with
devices that all images of a batch share.
"""

from dataclasses import dataclass

import numpy as np
import torch

from calib.crossbar.devices import Devices, generator
from calib.errors import OptionError

_SHARES, _VOLTAGES, _DRAWS = 21, 257, 4096
_DEGREE = 4
_LEAST_SPREAD = 1e-6  # of the largest mean: a standard deviation below it is rounding
_TERMS, _ENOUGH = 3, 2e-3  # terms of a sum, and the error relative to the largest value at which no more are taken
LARGEST_ERROR = 0.02
"""Error of mean and variance, relative to their largest value, from which on an expansion is refused."""


@dataclass(frozen=True, eq=False)
class Expansion:
    """A function f(x, u) = f_0(x) + sum_r a_r(x) q_r(u) of the input x = V / k_V in [0, 1] and the share u in [0, 1].

    Attributes
    ----------
    inputs : (1 + term, node) f_0 and a_r on equally spaced nodes of sqrt(x), linear between them.
    shares : (term, power) coefficients of q_r(u) = sum_k c_k u^k, k from 1; q_r(0) = 0.
    error : largest error of the expansion over the largest |f|.
    """

    inputs: torch.Tensor
    shares: torch.Tensor
    error: float

    @classmethod
    def of(cls, table: np.ndarray) -> "Expansion":
        """Return the expansion of values (node of sqrt(x), node of u), both from 0 to 1."""
        change = table - table[:, :1]
        left, sizes, right = np.linalg.svd(change, full_matrices=False)
        largest = np.abs(table).max() or 1.0
        u = np.linspace(0, 1, table.shape[1])
        powers = np.stack([u**k for k in range(1, _DEGREE + 1)])  # (power, share)
        for terms in range(1, _TERMS + 1):
            columns = left[:, :terms] * sizes[:terms]
            shares = np.linalg.lstsq(powers.T, right[:terms].T, rcond=None)[0].T
            error = np.abs(columns @ (shares @ powers) - change).max() / largest
            if error < _ENOUGH or np.abs(change).max() <= _ENOUGH * largest:
                break
        inputs = np.concatenate((table[:, :1], columns), axis=1).T
        return cls(torch.tensor(inputs, dtype=torch.float32), torch.tensor(shares, dtype=torch.float32), float(error))

    @property
    def terms(self) -> int:
        """Number of products."""
        return len(self.shares)

    def of_inputs(self, x: torch.Tensor) -> torch.Tensor:
        """Return f_0 and a_r (1 + term, ...) of inputs in [0, 1], differentiable."""
        steps = self.inputs.shape[1] - 1
        place = x.clamp(min=(0.5 / steps) ** 2).sqrt() * steps
        low = place.detach().floor().clamp(max=steps - 1).long()
        start = self.inputs[:, low]
        found = torch.addcmul(start, self.inputs[:, low + 1] - start, place - low)
        return torch.where(x > 0, found, self.inputs[:, :1].view(-1, *(1,) * x.dim()))

    def of_shares(self, u: torch.Tensor) -> torch.Tensor:
        """Return q_r (term, ...) of shares in [0, 1], differentiable."""
        parts = [_Polynomial.apply(u, tuple(coefficients)) for coefficients in self.shares.tolist()]
        return torch.stack(parts) if len(parts) > 1 else parts[0].unsqueeze(0)  # type: ignore[arg-type]


class _Polynomial(torch.autograd.Function):
    """sum_k c_k u^k, k from 1."""

    @staticmethod
    def forward(ctx, u: torch.Tensor, coefficients: tuple[float, ...]) -> torch.Tensor:
        ctx.save_for_backward(u)
        ctx.coefficients = coefficients
        return _horner(u, coefficients).mul_(u)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor, None]:
        (u,) = ctx.saved_tensors
        slopes = tuple(k * coefficient for k, coefficient in enumerate(ctx.coefficients, start=1))
        return _horner(u, slopes).mul_(grads[0]), None


def _horner(u: torch.Tensor, coefficients: tuple[float, ...]) -> torch.Tensor:
    """Return sum_k c_k u^k, k from 0."""
    value = torch.full_like(u, coefficients[-1])
    for coefficient in reversed(coefficients[:-1]):
        value.mul_(u).add_(coefficient)
    return value


@dataclass(frozen=True, eq=False)
class Moments:
    """Mean and variance of the devices' currents, in units of the current `unit` [A] and its square."""

    unit: float
    mean: Expansion
    variance: Expansion

    @classmethod
    def of(cls, devices: Devices) -> "Moments":
        """Return the moments of devices at their input voltage.

        They are those of 4096 draws, the same for every voltage and conductance; where one normal deviate is all that
        is drawn, of its 4096 quantiles.

        Raises
        ------
        OptionError
            When the law is not odd, readings are noisy or drift is compensated, or the moments do not follow the
            programmed conductance smoothly.
        """
        if devices.read is not None or any(getattr(member, "compensates", False) for member in devices.stages):
            raise OptionError(
                f"the devices '{devices.name}' have noise of readings or compensated drift, which the moments of the "
                "currents do not hold; train with variation 'devices'"
            )
        if not devices.conduction.law.odd:
            raise OptionError(
                f"the I-V law of '{devices.name}' is not odd; the moments of the currents need I(-V) = -I(V); train "
                "with variation 'devices'"
            )
        unit = devices.g_off * devices.input_voltage
        mean, variance = _tables(devices)
        found = cls(unit, Expansion.of(mean / unit), Expansion.of(variance / unit**2))
        worst = max(found.mean.error, found.variance.error)
        if worst > LARGEST_ERROR:
            raise OptionError(
                f"the moments of the currents of '{devices.name}' do not follow the programmed conductance smoothly "
                f"(error {100 * worst:.1f} %, largest {100 * LARGEST_ERROR:.0f} %); train with variation 'devices'"
            )
        return found


@torch.no_grad()
def _tables(devices: Devices) -> tuple[np.ndarray, np.ndarray]:
    """Return mean [A] and variance [A^2] (node of sqrt(x), share)."""
    conduction = devices.conduction
    share = torch.linspace(0, 1, _SHARES, dtype=torch.float64)
    voltage = devices.input_voltage * torch.linspace(0, 1, _VOLTAGES, dtype=torch.float64).square()
    mean, variance = np.zeros((2, _VOLTAGES, _SHARES))
    for column, u in enumerate(share.tolist()):
        g = torch.full((1, _DRAWS, 1), devices.g_off + u * (devices.g_on - devices.g_off), dtype=torch.float64)
        for member in devices.stages:
            g = member.conductance(g, generator("moments", member.name), None)
        z = conduction.deviates(tuple(g.shape), generator("moments", conduction.name), g.dtype)
        if len(z) == 1 and z.any():
            z = torch.special.ndtri((torch.arange(_DRAWS, dtype=g.dtype) + 0.5) / _DRAWS).view(1, *g.shape)
            if devices.stages:  # not paired with what the stages drew
                z = z[:, :, torch.randperm(_DRAWS, generator=generator("moments", "order"))]
        parameters = conduction.parameters(g, z)
        for row, v in enumerate(voltage.tolist()):
            current = conduction.law.current(torch.full_like(g, v), xp=torch, **parameters)
            mean[row, column] = float(current.mean())
            variance[row, column] = float(current.var(correction=0))
    mean[0] = variance[0] = 0.0
    variance[variance < (_LEAST_SPREAD * np.abs(mean).max()) ** 2] = 0.0
    return mean, variance
