"""The choice of the nodes on which a law is interpolated."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from calib.crossbar.multiply import Collocation, conductance_at, direct
from calib.crossbar.polynomials import chebyshev_nodes, lagrange
from calib.errors import OptionError
from calib.iv_models import IVModel, exponential_parameter
from calib.nonidealities.base import Conduction

_USUAL = 2.0  # standard deviations within which a device's current is held relative to itself at every voltage,
_LOW_VOLTAGE = 100.0  # to this multiple of the tolerance
_MOST_NODES = 16
_MOST_REFERENCES = 24
_INVISIBLE = 1e-6  # of a device's largest current: below it currents need no relative accuracy
_VANISHING = 1e-25  # of a reference's largest conductance: single precision cannot divide by less
_SINGLE = 10.0  # a single device of a bit line may err by this multiple of the bit line's tolerance
_QUANTILE = 0.999
MOST_WORD_LINES = 64
_DEVICES, _INPUTS = 20_000, 16


@dataclass(frozen=True)
class BitLines:
    """What the sums of a bit line are made of: devices from g_off to g_on [S], and how many."""

    g_off: float
    g_on: float
    word_lines: int


def collocation(
    conduction: Conduction, v_max: float, tolerance: float = 1e-4, bit_lines: BitLines | None = None
) -> Collocation:
    """Choose the nodes for a law and voltages up to `v_max` [V].

    Without `bit_lines`, the fewest nodes are taken for which no device that can be drawn errs by more than `tolerance`
    of its largest current at any voltage from 0 to v_max, and none within 2 standard deviations by more than 100
    `tolerance` of its current at that voltage, however small.

    With `bit_lines`, the tolerance is theirs: the fewest nodes for which 99.9 % of the bit lines of drawn devices err
    by less than `tolerance` of their sum of |I|, for voltages that are uniform from 0 to v_max, and no device by more
    than 10 `tolerance` of its largest current. Errors of devices differ in sign, so that fewer nodes suffice; an array
    of more than 64 word lines is judged as one of 64.

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
    sample = _Sample(conduction, v_max, bit_lines) if bit_lines is not None else None
    error = math.inf
    for count in range(1, _MOST_NODES + 1):
        error, start, step, reference = search.best(count)
        plan = Collocation(law, v_max, start, step, count, tuple(sorted(reference.items())), error)
        if error <= tolerance:
            return plan
        if sample is not None and error <= _SINGLE * tolerance and sample.error(plan) <= tolerance:
            return plan
    raise OptionError(
        f"the law '{law.name}' cannot be interpolated to {tolerance:g} with {_MOST_NODES} nodes up to {v_max:g} V "
        f"(reached {error:.2g}): the shapes of the devices that can be drawn differ too much in this range; lower the "
        "input voltage or raise the tolerance"
    )


class _Sample:
    """Bit lines of drawn devices and their exact currents."""

    def __init__(self, conduction: Conduction, v_max: float, bit_lines: BitLines) -> None:
        self.conduction = conduction
        stream = torch.Generator().manual_seed(0)
        word_lines = min(bit_lines.word_lines, MOST_WORD_LINES)
        shape = (1, word_lines, _DEVICES // word_lines)
        uniform = torch.rand(shape, generator=stream, dtype=torch.float64)
        self.conductance = bit_lines.g_off + (bit_lines.g_on - bit_lines.g_off) * uniform
        self.deviates = conduction.deviates(shape, stream, torch.float64)
        self.voltage = v_max * torch.rand((_INPUTS, shape[1]), generator=stream, dtype=torch.float64)
        if not conduction.law.odd:
            self.voltage[1::2] *= -1
        self.exact = direct(conduction, self.voltage, self.conductance, self.deviates)[:, 0]  # (input, bit_line)

    def error(self, plan: Collocation) -> float:
        """Return the 99.9th percentile of the error relative to the sum of |I|."""
        d = plan.coefficients(self.conduction, self.conductance, self.deviates)[:, 0]
        off = torch.einsum("bki,kij->bj", plan.basis(self.voltage), d) - self.exact
        error = float(torch.quantile((off.abs() / self.exact.abs()).flatten(), _QUANTILE))
        return error if math.isfinite(error) else math.inf


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
            return conductance_at(self.law, np.broadcast_to(v, (len(self.devices), len(s))), columns, np)


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
            weights = lagrange(nodes, self.s).T  # (node, point)
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
            yield 0.5 * (low + 1), 0.5 * (1 - low), chebyshev_nodes(count)
        return
    for low, high in itertools.product(np.linspace(1e-3, 0.48, 13), (0.97, 1.0)):
        if count == 1:
            yield high, 1.0, np.zeros(1)
        else:
            yield low, (high - low) / (count - 1), np.arange(count)
