"""Output currents of stacked tiles behind resistive lines, for layers and for chips that are held.

Shapes as layers have them: voltages (..., batch, word_line) [V], conductances and parameters of devices
(..., word_line, bit_line), currents (..., batch, bit_line) [A]. The leading dimensions are tiles and chips, the same
for all arguments, or ones that broadcast. `line_resistance`, `line_response` and `nonlinear_lines` hold the physics.

Power. Drivers send P = sum_i V_i I_i into the array, I_i the current into word line i; since every bit line ends on
ground, all of it becomes heat. The devices' part is sum |x_ij| |I_ij|, x_ij the voltage that is left across device ij;
the rest heats lines, drivers and sense resistances.
"""

from typing import NamedTuple

import torch

from calib.crossbar.line_resistance import Lines, transfer_matrix
from calib.crossbar.line_response import Factors, response
from calib.crossbar.nonlinear_lines import Convergence, Settings, joint_currents, joint_solution, preconditioner
from calib.errors import OptionError
from calib.iv_models import IVModel

_AT_A_TIME = 2**24  # voltages of devices that are worked on


class Power(NamedTuple):
    """Power of each input (..., batch) [W].

    Attributes
    ----------
    drawn : from the drivers, sum V I; with two-phase or signed inputs each phase counts for itself.
    devices : what becomes heat in the devices, sum |x| |I|.
    """

    drawn: torch.Tensor
    devices: torch.Tensor


def tile_currents(voltage: torch.Tensor, conductance: torch.Tensor, lines: Lines) -> torch.Tensor:
    """Return the output currents of linear devices, differentiable to any order.

    The gradients are exact, by the adjoint network, and `torch.func` transforms them.
    """
    if lines.ideal:
        return voltage @ conductance
    v, g = _word_lines_first(voltage, (conductance,))
    return response(Factors.of(g[0], lines), g[0], v)[1]


def tile_currents_nonlinear(
    voltage: torch.Tensor,
    parameters: dict[str, torch.Tensor],
    law: IVModel,
    lines: Lines,
    tolerance: float = Settings.tolerance,
    iterations: int = Settings.iterations,
) -> tuple[torch.Tensor, Convergence]:
    """Return the output currents of devices that follow a conduction law, and how the solution was reached.

    Differentiable by voltages and parameters (twice where the law's slope and jacobian are). Nothing is raised where
    the tolerance is not reached: `Convergence.check` does.

    Parameters
    ----------
    parameters : of the law by name; a device whose scale is 0 is absent.
    tolerance : residual by Kirchhoff's current law, relative to the devices' current, see `nonlinear_lines`.
    iterations : most Newton steps.
    """
    names = _checked(law, parameters)
    v, p = _word_lines_first(voltage, tuple(parameters[name] for name in names))
    settings = Settings(tolerance, iterations)
    if not torch.is_grad_enabled():
        out, _, _, convergence = joint_currents(None, law, names, p, v, lines, settings)
        return out, convergence
    factors = preconditioner(law, names, p, v, lines)
    _, out, convergence = joint_solution(factors, law, names, p, v, settings)
    return out, convergence


def tile_evaluation_nonlinear(
    voltage: torch.Tensor,
    parameters: dict[str, torch.Tensor],
    law: IVModel,
    lines: Lines,
    tolerance: float = Settings.tolerance,
    iterations: int = Settings.iterations,
) -> tuple[torch.Tensor, Power, Convergence]:
    """Return what `tile_currents_nonlinear` does, and the power of each input, without gradients."""
    names = _checked(law, parameters)
    v, p = _word_lines_first(voltage, tuple(parameters[name] for name in names))
    with torch.no_grad():
        out, drawn, heat, convergence = joint_currents(None, law, names, p, v, lines, Settings(tolerance, iterations))
    return out, Power(drawn, heat), convergence


class LinearTiles:
    """Linear devices that are held for many inputs: everything by matrix products, made once.

    Parameters
    ----------
    conductance : (..., word_line, bit_line) [S].
    power : whether `power` will be asked for; it needs two matrices (word_line, word_line) more for each tile.

    Attributes
    ----------
    transfer : T (..., word_line, bit_line) [S], I = V T.
    drawn : P (..., word_line, word_line) [S], V P V is the power from the drivers.
    """

    def __init__(self, conductance: torch.Tensor, lines: Lines, *, power: bool = True) -> None:
        self.transfer = transfer_matrix(conductance, lines)  # (..., word_line, bit_line) [S]
        if power:
            self.drawn, self._devices = _power_matrices(conductance.detach(), lines)

    def currents(self, voltage: torch.Tensor) -> torch.Tensor:
        """Return the output currents (..., batch, bit_line), differentiable by the voltages."""
        return voltage @ self.transfer

    def power(self, voltage: torch.Tensor) -> Power:
        """Return the power of each input."""
        with torch.no_grad():
            return Power(*(((voltage @ m) * voltage).sum(-1) for m in (self.drawn, self._devices)))


class NonlinearTiles:
    """Devices that follow a conduction law and are held for many inputs: the elimination is made once.

    Parameters
    ----------
    parameters : of the law by name, (..., word_line, bit_line).
    typical : voltages (..., batch, word_line) or (..., batch, 1) like those that will come; they set the conductances
        of the preconditioner, which does not change the solution but how many steps it takes.
    tolerance, iterations : as for `tile_currents_nonlinear`.
    """

    def __init__(
        self,
        parameters: dict[str, torch.Tensor],
        law: IVModel,
        lines: Lines,
        typical: torch.Tensor,
        tolerance: float = Settings.tolerance,
        iterations: int = Settings.iterations,
    ) -> None:
        self.law, self.lines, self.names = law, lines, _checked(law, parameters)
        self.settings = Settings(tolerance, iterations)
        v, self._parameters = _word_lines_first(
            typical, tuple(parameters[name].detach() for name in self.names), any_word_lines=True
        )
        self._factors = preconditioner(law, self.names, self._parameters, v, lines)

    def currents(self, voltage: torch.Tensor) -> tuple[torch.Tensor, Convergence]:
        """Return the output currents (..., batch, bit_line), differentiable by the voltages, and the convergence."""
        v, p = _broadcast(voltage.movedim(-1, 0), self._parameters)
        return joint_solution(self._factors, self.law, self.names, p, v, self.settings)[1:]

    def evaluate(self, voltage: torch.Tensor) -> tuple[torch.Tensor, Power, Convergence]:
        """Return the output currents, the power of each input and the convergence, without gradients."""
        with torch.no_grad():
            v, p = _broadcast(voltage.movedim(-1, 0), self._parameters)
            out, drawn, heat, convergence = joint_currents(
                self._factors, self.law, self.names, p, v, self.lines, self.settings
            )
            return out, Power(drawn, heat), convergence


def tile_power(voltage: torch.Tensor, conductance: torch.Tensor, lines: Lines) -> Power:
    """Return the power of each input with linear devices, without gradients."""
    with torch.no_grad():
        v, (g,) = _word_lines_first(voltage, (conductance,))
        x, _ = Factors.of(g, lines).respond(v)
        return _power(v, x * g.unsqueeze(-2), x)


def _power(voltage: torch.Tensor, current: torch.Tensor, x: torch.Tensor) -> Power:
    """Return the power of voltages (word_line, ..., batch) and the devices' currents and voltages."""
    drawn = torch.einsum("i...bj,i...b->...b", current, voltage.expand(current.shape[:-1]))
    return Power(drawn, torch.einsum("i...j,i...j->...", current, x))


def _power_matrices(g: torch.Tensor, lines: Lines) -> tuple[torch.Tensor, torch.Tensor]:
    """Return P and Q (..., word_line, word_line) with V P V drawn from the drivers and V Q V left in the devices."""
    m, n = g.shape[-2:]
    arrays = g.reshape(-1, m, n)
    drawn, heat = (g.new_empty(len(arrays), m, m) for _ in range(2))
    unit = torch.eye(m, dtype=g.dtype, device=g.device).unsqueeze(1)
    some = max(1, _AT_A_TIME // (m * m * n))
    with torch.no_grad():
        for k in range(0, len(arrays), some):
            part = slice(k, k + some)
            first = arrays[part].movedim(-2, 0)
            x, _ = Factors.of(first, lines).respond(unit.expand(m, first.shape[1], m))
            current = x * first.unsqueeze(-2)  # (word_line, array, input, bit_line)
            drawn[part] = current.sum(-1).movedim(0, -1)
            heat[part] = torch.einsum("itaj,itbj->tab", current, x)
    square = (*g.shape[:-1], m)
    return drawn.reshape(square), heat.reshape(square)


def _checked(law: IVModel, parameters: dict[str, torch.Tensor]) -> tuple[str, ...]:
    if set(parameters) != set(law.parameter_names):
        raise OptionError(
            f"the law '{law.name}' has the parameters {', '.join(law.parameter_names)}; "
            f"{', '.join(parameters) or 'none'} were given for the devices of an array"
        )
    return law.parameter_names


def _word_lines_first(
    voltage: torch.Tensor, arrays: tuple[torch.Tensor, ...], *, any_word_lines: bool = False
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Return voltages (word_line, ..., batch) and arrays (word_line, ..., bit_line) of the same leading dimensions.

    Raises
    ------
    OptionError
        When voltages and arrays differ in their number of word lines or their stacking.
    """
    try:
        arrays = tuple(torch.broadcast_tensors(*arrays))
        lead = torch.broadcast_shapes(voltage.shape[:-2], arrays[0].shape[:-2])
    except RuntimeError as error:
        raise OptionError(f"voltages and devices of stacked arrays do not fit together: {error}") from error
    m, n = arrays[0].shape[-2:]
    if voltage.shape[-1] != m and not (any_word_lines and voltage.shape[-1] == 1):
        raise OptionError(
            f"an array of {m} word lines was given {voltage.shape[-1]} voltages; the last dimension of the voltages "
            "and the second last of the devices count word lines"
        )
    voltage = voltage.expand(*lead, voltage.shape[-2], m)
    return voltage.movedim(-1, 0), tuple(a.expand(*lead, m, n).movedim(-2, 0) for a in arrays)


def _broadcast(
    voltage: torch.Tensor, parameters: tuple[torch.Tensor, ...]
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
    """Return voltages (word_line, ..., batch) with the stacking of the parameters."""
    return voltage.expand(*parameters[0].shape[:-1], voltage.shape[-1]), parameters
