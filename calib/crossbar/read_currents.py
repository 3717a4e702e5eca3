"""Fluctuation of the currents of bit lines from one reading to the next, at the speed of matrix products.

The current of device (i, j) at a reading is I_ij(V_i) (1 + sigma_ij z_ij + d_ij): independent normal deviates z and
telegraph noise d (`calib.nonidealities.base.ReadNonideality`). The sum over word lines of the normal parts is exactly
normal with the variance

    s_j^2 = sum_i sigma_ij^2 I_ij(V_i)^2,

so that one deviate a bit line and input is enough. With s the voltage coordinate of the law and h_0 = I / V of a usual
device, (I / (V h_0))^2 is smooth in s and is interpolated by Chebyshev polynomials T_k(u):

    s_j^2 = sum_ik [ (V_i h_0(s_i))^2 T_k(u_i) ] [ sigma_ij^2 C_kij ],

one product of a basis, which knows only inputs, and coefficients, which know only devices: as the currents themselves
in `calib.crossbar.multiply`, with fewer nodes, as a standard deviation needs no more than 1 %.

Telegraph noise is no normal deviate: the few devices that have it are gathered, their currents are evaluated at every
input, and each is in its upper or lower level by a deviate of its own. Deviates are functions of the chip's key, the
index of the input and the line or device (`calib.crossbar.counter_random`), so they do not depend on the batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from calib.crossbar import counter_random
from calib.crossbar.power_collocation import PowerCollocation, can_be_mapped, collocation
from calib.nonidealities.base import Conduction, ReadNonideality

TOLERANCE = 0.01
"""Of a device's standard deviation, relative to the largest one that it has."""
_SMALLEST = 1e-12  # of the largest voltage
_CURRENT_TOLERANCE = 1e-4  # of currents of devices with telegraph noise, where the law is not evaluated itself


@dataclass(frozen=True, eq=False)
class ReadState:
    """What the noise of the readings of one chip follows from, or of several along a first dimension.

    Attributes
    ----------
    squares : nodes of the squared currents.
    currents : nodes of the currents of devices with telegraph noise; None where their law is evaluated itself.
    variance : (K, word_line, group, bit_line) sigma^2 C [S^2].
    word_line, place, device : (n,) int64 of each device with telegraph noise: its word line, its group and bit line as
        one index, and its index among all devices, by which it draws.
    amplitude, occupancy : (n,) relative distance of its levels, probability of the upper one; amplitude 0 fills up.
    law : tensors (..., n) that its current follows from: the law's parameters, or coefficients.
    """

    squares: PowerCollocation
    currents: PowerCollocation | None
    variance: torch.Tensor
    word_line: torch.Tensor
    place: torch.Tensor
    device: torch.Tensor
    amplitude: torch.Tensor
    occupancy: torch.Tensor
    law: tuple[torch.Tensor, ...]

    def tensors(self) -> tuple[torch.Tensor, ...]:
        """Return all tensors, what `torch.func.vmap` maps over."""
        return (
            self.variance, self.word_line, self.place, self.device, self.amplitude, self.occupancy, *self.law
        )  # fmt: skip

    def from_tensors(self, tensors: Sequence[torch.Tensor]) -> "ReadState":
        """Return the state of the same laws and nodes with other tensors, in the order of `tensors`."""
        return ReadState(self.squares, self.currents, *tensors[:6], law=tuple(tensors[6:]))


def squared_collocation(conduction: Conduction, v_max: float, tolerance: float = TOLERANCE) -> PowerCollocation:
    """Choose the nodes of squared currents for voltages up to `v_max` [V], see `power_collocation.collocation`."""
    return collocation(conduction, float(v_max), 2, float(tolerance))


def read_state(
    member: ReadNonideality,
    conduction: Conduction,
    conductance: torch.Tensor,
    deviates: torch.Tensor,
    generator: torch.Generator,
    v_max: float,
) -> ReadState:
    """Draw what the devices of a chip keep of their read noise.

    Parameters
    ----------
    member : the read noise.
    conduction : the law of the devices.
    conductance : (group, word_line, bit_line) [S], after all that changes it.
    deviates : (deviate, group, word_line, bit_line) of `conduction.deviates`.
    generator : draws the devices' levels of noise and which have telegraph noise.
    v_max : largest voltage [V] of the inputs.
    """
    squares = squared_collocation(conduction, v_max)
    mapped = can_be_mapped(conduction.law)
    currents = None if mapped else collocation(conduction, float(v_max), 1, _CURRENT_TOLERANCE)
    parameters = {
        name: value.expand_as(conductance) for name, value in conduction.parameters(conductance, deviates).items()
    }
    jumps = member.telegraph(conductance.detach(), generator)
    sigma = member.relative_spread(conductance, generator, jumps)
    variance = (squares.coefficients(parameters) * sigma.square()).transpose(1, 2)
    amplitude, occupancy = jumps if jumps is not None else (conductance.new_zeros(0),) * 2
    (device,) = torch.nonzero(amplitude.flatten(), as_tuple=True)
    _, word_lines, bit_lines = conductance.shape
    chosen = {name: value.flatten()[device] for name, value in parameters.items()}
    group, within = device // (word_lines * bit_lines), device % (word_lines * bit_lines)
    return ReadState(
        squares=squares, currents=currents, variance=variance.contiguous(),
        word_line=within // bit_lines, place=group * bit_lines + within % bit_lines, device=device,
        amplitude=amplitude.flatten()[device], occupancy=occupancy.flatten()[device],
        law=tuple(chosen[name] for name in conduction.law.parameter_names) if currents is None
        else (currents.coefficients(chosen),),
    )  # fmt: skip


def stack(states: Sequence[ReadState]) -> ReadState:
    """Return the states of several chips of the same conduction as one, chips along the first dimension."""
    most = max(state.device.shape[0] for state in states)
    filled = [_filled(state, most) for state in states]
    return filled[0].from_tensors([torch.stack(rows) for rows in zip(*(s.tensors() for s in filled), strict=True)])


def noise(
    state: ReadState, voltage: torch.Tensor, image: torch.Tensor, key: torch.Tensor, stream: int = 0
) -> torch.Tensor:
    """Return the deviation (batch, group, bit_line) [A] of bit-line currents from their means at one reading.

    Differentiable by the voltage and by what the state was made from, the deviates being held.

    Parameters
    ----------
    voltage : (batch, word_line) [V].
    image : (batch,) int64, the index of each input.
    key : () int64 of the chip and layer.
    stream : tells apart several readings of the same input, for example two phases.
    """
    groups, bit_lines = state.variance.shape[-2:]
    basis = state.squares.basis(voltage).flatten(-2)
    variance = basis @ state.variance.flatten(0, 1).flatten(1)  # (batch, group bit_line)
    positive = variance > 0
    spread = torch.where(positive, torch.sqrt(torch.where(positive, variance, 1.0)), 0.0)
    image = image.unsqueeze(-1)
    line = torch.arange(groups * bit_lines, device=voltage.device)
    found = spread * counter_random.normal(key, image, line, 2 * stream, voltage.dtype)
    if state.device.shape[-1]:
        found = found + _telegraph(state, voltage, image, key, stream, groups * bit_lines)
    return found.unflatten(-1, (groups, bit_lines))


def _telegraph(
    state: ReadState, voltage: torch.Tensor, image: torch.Tensor, key: torch.Tensor, stream: int, lines: int
) -> torch.Tensor:
    """Return the deviation (batch, group bit_line) [A] of telegraph noise."""
    v = voltage[..., state.word_line]  # (batch, n)
    if state.currents is None:
        names = state.squares.law.parameter_names
        small = _SMALLEST * state.squares.v_max
        held = torch.where(v.abs() < small, small, v)  # the law's slope may diverge at 0
        current = state.squares.law.current(held, xp=torch, **dict(zip(names, state.law, strict=True))) * (v / held)
    else:
        current = (state.currents.basis(v) * state.law[0]).sum(-2)
    high = counter_random.uniform(key, image, state.device, 2 * stream + 1, voltage.dtype) < state.occupancy
    change = current * state.amplitude * (high.to(voltage.dtype) - state.occupancy)
    zero = (change[..., :1] * 0).expand(*change.shape[:-1], lines)
    return zero.index_add(-1, state.place, change)


def _filled(state: ReadState, size: int) -> ReadState:
    """Return the state with `size` devices of telegraph noise, those that are added with amplitude 0."""
    missing = size - state.device.shape[0]
    if not missing:
        return state

    def longer(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.new_ones((*x.shape[:-1], missing))], dim=-1)

    def zeros(x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x.new_zeros(missing)])

    names = ("word_line", "place", "device", "amplitude", "occupancy")
    return replace(state, law=tuple(map(longer, state.law)), **{name: zeros(getattr(state, name)) for name in names})
