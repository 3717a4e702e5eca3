"""Interpolation of powers of a law's current, for sums over word lines of more than the current itself.

With s the voltage coordinate of the law and h_0 = I / V of a usual device, (I / (V h_0))^p is smooth in s and is
interpolated by Chebyshev polynomials T_k(u), u = (s - s_c) / ds:

    sum_i w_ij I_ij(V_i)^p = sum_ik [ (V_i h_0(s_i))^p T_k(u_i) ] [ w_ij C_kij ],

one product of a basis, which knows only inputs, and coefficients, which know only devices. Everything is elementwise in
the voltage and works under `torch.func.vmap`.
"""

import functools
import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from calib.crossbar.polynomials import chebyshev_matrix, chebyshev_nodes
from calib.errors import OptionError
from calib.iv_models import IVModel, iv_model
from calib.nonidealities.base import Conduction

_USUAL = 2.0  # standard deviations within which a device is held to the tolerance,
_LOW_VOLTAGE = 2.0  # relative to itself at every voltage to this multiple of it,
_TAIL = 5.0  # and the few that lie farther out to this one
_INVISIBLE = 1e-6  # of a device's largest current: below it no relative accuracy is asked for
_VANISHING = 1e-12  # of a reference's largest conductance: no reference may be less at a node
_SMALLEST = 1e-12  # of the largest voltage: below it the coordinate is held, whose slope may diverge at 0
_MOST_NODES = 24
_MOST_REFERENCES = 16
_N_FIT = 16


@dataclass(frozen=True)
class PowerCollocation:
    """Nodes on which a power of the current is interpolated.

    Attributes
    ----------
    law : the conduction law.
    v_max : largest voltage [V] of the inputs.
    power : 1 or 2, of the current.
    centre, half : of the range of the nodes in the law's coordinate.
    count : number of nodes for each sign of the voltage.
    reference : parameters of the device whose law is h_0, as sorted pairs.
    profile : the law of h_0: the same, or that without the series resistance, see `collocation`.
    unit : h_0 of that device at v_max, by which h_0 is divided.
    end : the law's coordinate at v_max.
    fitted : for each side the Chebyshev coefficients of ln h_0 over 0 to `end`; empty where h_0 is the profile's law.
    error : largest error of |I| over 0 to v_max, relative to |I(v_max)|, as `collocation` weighs devices.
    """

    law: IVModel
    v_max: float
    power: int
    centre: float
    half: float
    count: int
    reference: tuple[tuple[str, float], ...]
    profile: IVModel
    unit: float
    end: float
    fitted: tuple[tuple[float, ...], ...]
    error: float

    @property
    def sides(self) -> tuple[int, ...]:
        """Signs of the voltage that have a basis of their own."""
        return (1,) if self.law.odd else (1, -1)

    def basis(self, voltage: torch.Tensor) -> torch.Tensor:
        """Return (V h_0)^power T_k (..., K, word_line) of voltages (..., word_line) [V]."""
        size = voltage.abs().clamp(min=_SMALLEST * self.v_max)
        s = self.law.coordinate(size, xp=torch)
        u = (s - self.centre) / self.half
        polynomials = [torch.ones_like(u), u]
        while len(polynomials) < self.count:
            polynomials.append(2 * u * polynomials[-1] - polynomials[-2])
        chebyshev = torch.stack(polynomials[: self.count], dim=-2)
        parts = []
        for side, sign in enumerate(self.sides):
            factor = (voltage * self._profile(side, s, sign * size, torch)) ** self.power
            if len(self.sides) > 1:
                factor = torch.where(voltage >= 0 if sign > 0 else voltage < 0, factor, 0.0)
            parts.append(factor.unsqueeze(-2) * chebyshev)
        return torch.cat(parts, dim=-2) if len(parts) > 1 else parts[0]

    def coefficients(self, parameters: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return C (K, ...) [S^power] of devices whose law has the given parameters (...)."""
        first = next(iter(parameters.values()))
        like = {"dtype": first.dtype, "device": first.device}
        matrix = torch.as_tensor(chebyshev_matrix(self.count), **like)
        s = self.centre + self.half * chebyshev_nodes(self.count)
        parts = []
        for side, sign in enumerate(self.sides):
            v = sign * np.asarray(self.law.coordinate_inverse(s, xp=np))
            divisor = torch.as_tensor(v * self._profile(side, s, v, np), **like).view(-1, *(1,) * first.dim())
            at = torch.as_tensor(v, **like).view(-1, *(1,) * first.dim())
            ratio = self.law.current(at, xp=torch, **parameters) / divisor
            parts.append(torch.tensordot(matrix, ratio**self.power, dims=1))
        return torch.cat(parts) if len(parts) > 1 else parts[0]

    def _profile(self, side: int, s: Any, voltage: Any, xp: Any) -> Any:
        """Return h_0 = I / V in units of itself at v_max, or what stands for it."""
        if not self.fitted:
            return _conductance(self.profile, voltage, dict(self.reference), xp) / self.unit
        t = s * (2 / self.end) - 1
        last, before = t * 0, t * 0  # Clenshaw's recurrence
        for term in self.fitted[side][:0:-1]:
            last, before = term + 2 * t * last - before, last
        return xp.exp(self.fitted[side][0] + t * last - before)


@functools.lru_cache(maxsize=64)
def collocation(conduction: Conduction, v_max: float, power: int, tolerance: float) -> PowerCollocation:
    """Choose the nodes of a power of the current for voltages up to `v_max` [V]; remembered for a conduction.

    The fewest nodes are taken for which |I| of no device within 2 standard deviations errs by more than `tolerance` of
    its largest one at any voltage nor by more than 2 `tolerance` of its own at that voltage, and of no other device
    that can be drawn by more than 5 `tolerance` of its largest one.

    Any function near I / V does for h_0. A law that asks for values while it is evaluated (Newton's iteration for a
    series resistance) cannot be mapped by `torch.func.vmap`: its h_0 is the law without the resistance, or an
    exponential of a polynomial in s fitted to it, whichever takes fewer nodes.

    Raises
    ------
    OptionError
        When 24 nodes do not reach the tolerance.
    """
    if not (v_max > 0 and 0 < tolerance < 1):
        raise OptionError(f"tolerance {tolerance} and largest voltage {v_max} V; expected 0 < tolerance < 1 and > 0 V")
    law = conduction.law
    end = float(law.coordinate(np.asarray(v_max), xp=np))
    if not law.shape:
        unit = float(_conductance(law, np.asarray(v_max), {}, np))
        return PowerCollocation(law, v_max, power, end, 1.0, 1, (), law, unit, end, (), 0.0)
    usual = conduction.extremes(_USUAL)
    devices = usual + conduction.extremes()
    searches = [_Search(law, profile, devices, len(usual), end, power) for profile in _profiles(law)]
    best = math.inf
    for count, search in itertools.product(range(1, _MOST_NODES + 1), searches):
        for low in np.linspace(0.0, 0.8, 9) if count > 1 else (1.0,):
            centre, half = end * (1 + low) / 2, end * (1 - low) / 2 or 1.0
            error, index = search.best(centre, half, count)
            best = min(best, error)
            if error <= tolerance:
                return PowerCollocation(
                    law, v_max, power, centre, half, count, search.reference(index), search.profile or law,
                    float(search.unit[index]), end, search.fitted_of(index), error,
                )  # fmt: skip
    raise OptionError(
        f"the fluctuation of the law '{law.name}' cannot be interpolated to {tolerance:g} with {_MOST_NODES} nodes up "
        f"to {v_max:g} V (reached {best:.2g}); lower the input voltage"
    )


class _Search:
    """What nodes are judged by: devices that span those which can be drawn, and their laws at many voltages."""

    def __init__(
        self,
        law: IVModel,
        profile: IVModel | None,
        devices: list[dict[str, float]],
        n_usual: int,
        end: float,
        power: int,
    ) -> None:
        self.law, self.profile, self.n_usual, self.end, self.power = law, profile, n_usual, end, power
        self.devices = _columns(devices)
        known = (profile or law).parameter_names
        chosen = devices[:: -(-len(devices) // _MOST_REFERENCES)]
        self.references = [{name: device[name] for name in device if name in known} for device in chosen]
        self.sides = (1,) if law.odd else (1, -1)
        self.s = end * np.linspace(1e-3, 1.0, 101)
        self.v = np.asarray(law.coordinate_inverse(self.s, xp=np))
        self.exact = [self._at(self.devices, sign, self.s, law) for sign in self.sides]
        self._known = _columns(self.references)
        self.unit = np.abs(self._at(self._known, 1, np.array([end]), profile or law))[:, 0]
        self._fitted = [] if profile else [self._fit(sign) for sign in self.sides]
        self.h_0 = [self._profile(side, self.s) for side in range(len(self.sides))]

    def reference(self, index: int) -> tuple[tuple[str, float], ...]:
        """Return the parameters of a reference as sorted pairs."""
        return tuple(sorted(self.references[index].items()))

    def fitted_of(self, index: int) -> tuple[tuple[float, ...], ...]:
        """Return for each side the Chebyshev coefficients of ln h_0 of a reference, none where its law is evaluated."""
        return tuple(tuple(rows[index].tolist()) for rows in self._fitted)

    def best(self, centre: float, half: float, count: int) -> tuple[float, int]:
        """Return the least error with these nodes, and the index of the reference that has it."""
        weights = np.polynomial.chebyshev.chebvander((self.s - centre) / half, count - 1)
        weights = (weights @ chebyshev_matrix(count)).T  # (node, point)
        nodes = centre + half * chebyshev_nodes(count)
        worst = np.zeros(len(self.references))
        for side, sign in enumerate(self.sides):
            h, h_0 = np.abs(self.exact[side]), self.h_0[side]
            at_nodes, known = np.abs(self._at(self.devices, sign, nodes, self.law)), self._profile(side, nodes)
            with np.errstate(all="ignore"):
                ratio = (at_nodes / known[:, None]) ** self.power @ weights  # (reference, device, point)
                off = np.abs(h_0[:, None] * np.maximum(ratio, 0.0) ** (1 / self.power) - h)
                current, largest = h * self.v, (h * self.v)[:, -1:]
                of_largest = (off * self.v / largest).max(2)
                of_largest[:, self.n_usual :] /= _TAIL
                of_own = np.where(current > _INVISIBLE * largest, off / h, 0.0)[:, : self.n_usual].max((1, 2))
            error = np.maximum(of_largest.max(1), of_own / _LOW_VOLTAGE)
            lost = (known < _VANISHING * h_0[:, -1:]).any(1) | ~np.isfinite(error)
            worst = np.maximum(worst, np.where(lost, np.inf, error))
        index = int(worst.argmin())
        return float(worst[index]), index

    def _at(self, columns: dict[str, np.ndarray], sign: int, s: np.ndarray, law: IVModel) -> np.ndarray:
        """Return h (device, point) at coordinates."""
        v = sign * np.asarray(self.law.coordinate_inverse(s, xp=np))
        rows = len(next(iter(columns.values())))
        with np.errstate(all="ignore"):
            return _conductance(law, np.broadcast_to(v, (rows, len(v))), columns, np)

    def _profile(self, side: int, s: np.ndarray) -> np.ndarray:
        """Return h_0 (reference, point) as `PowerCollocation` evaluates it, in siemens."""
        if self.profile:
            return np.abs(self._at(self._known, self.sides[side], s, self.profile))
        with np.errstate(over="ignore"):
            series = np.polynomial.chebyshev.chebval(s * (2 / self.end) - 1, self._fitted[side].T)
            return np.exp(series) * self.unit[:, None]

    def _fit(self, sign: int) -> np.ndarray:
        """Return (reference, term) Chebyshev coefficients of ln of h_0 over its value at the end of the coordinate."""
        h = np.abs(self._at(self._known, sign, (chebyshev_nodes(_N_FIT) + 1) * self.end / 2, self.law))
        return np.log(np.maximum(h / self.unit[:, None], _VANISHING)) @ chebyshev_matrix(_N_FIT).T


def _columns(devices: list[dict[str, float]]) -> dict[str, np.ndarray]:
    return {name: np.array([[device[name]] for device in devices]) for name in devices[0]}


def _profiles(law: IVModel) -> list[IVModel | None]:
    """Return the laws that may stand for h_0; None for a polynomial fitted to the law."""
    if can_be_mapped(law):
        return [law]
    plain = iv_model(law.name.partition("+")[0])
    return [plain, None] if can_be_mapped(plain) else [None]


@functools.cache
def can_be_mapped(law: IVModel) -> bool:
    """Return whether `torch.func.vmap` can evaluate the law, which it cannot where it asks for values; by trying."""
    bounds = {p.name: np.clip([0.1, 0.1], p.lower, p.upper) for p in law.parameters}
    parameters = {name: torch.as_tensor(value) for name, value in bounds.items()}
    try:
        torch.func.vmap(lambda v: law.current(v, xp=torch, **parameters))(torch.full((2, 2), 0.1, dtype=torch.float64))
    except RuntimeError:
        return False
    return True


def _conductance(law: IVModel, voltage: Any, shape: dict[str, Any], xp: Any) -> Any:
    """Return I / V [S] of the law, with scale 1 where `shape` does not hold the scale."""
    one = voltage * 0 + 1
    parameters = {name: one * value for name, value in shape.items()}
    return law.current(voltage, xp=xp, **{law.scale: one, **parameters}) / voltage
