"""Outputs of a layer whose tiles have lines with resistance, converters of currents, or noise of readings.

Each block of word lines is read on its own: the currents of its bit lines, with the noise of the reading, are converted
and added as numbers. With lines of resistance the blocks are solved tile by tile, tiles of the same size together, and
both phases of an input together; a phase in which no input of the batch drives a line has no currents. The noise of a
reading is that of the devices at the voltages of the drivers. The numbers of drawn devices are

=================== ========================================= ==========================================================
groups              (K, group, word_line, bit_line) [S]       coefficients of `calib.crossbar.multiply`, ideal lines
conductance         (group, word_line, bit_line) [S]          linear devices on lines
law <parameter>     (group, word_line, bit_line)              other devices on lines
transfer <size>     (tile, row, column) [S]                   of linear devices on lines, held for many inputs
drawn <size>        (tile, row, row) [S]                      V P V is the power from the drivers, held for many inputs
inverse_k_g         ()                                        1 / k_G [1/S]
power               (K word_line,) [S]                        sum of D over all bit lines, held for many inputs
read <block> <n>                                              tensor n of the `ReadState` of a block of word lines
key                 () int64                                  what noise of readings follows from
=================== ========================================= ==========================================================
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from calib.crossbar import read_currents
from calib.crossbar.array import Tile
from calib.crossbar.functions import caller
from calib.crossbar.line_currents import (
    LinearTiles,
    tile_currents,
    tile_currents_nonlinear,
    tile_evaluation_nonlinear,
)
from calib.crossbar.nonlinear_lines import Convergence
from calib.errors import OptionError

if TYPE_CHECKING:
    from calib.crossbar.layers import MemristiveLinear

TOLERANCE = 0.1
"""Residual of Kirchhoff's current law that arrays of nonlinear devices are solved to, as a share of the tolerance that
the devices' currents have anyway (`Devices.tolerance`)."""
_ONES = 6  # tensors of a `ReadState` from this number on are parameters of laws, for which 1 is harmless

Numbers = dict[str, torch.Tensor]


def numbers(
    layer: "MemristiveLinear",
    conductance: torch.Tensor,
    deviates: torch.Tensor,
    stream: Callable[[str], torch.Generator],
    holds: bool,
) -> Numbers:
    """Return the numbers of drawn devices.

    Parameters
    ----------
    conductance : (group, word_line, bit_line) [S].
    deviates : of the conduction law.
    holds : whether the devices are held for many inputs.
    """
    conduction = layer.devices.conduction
    found: Numbers = {}
    if layer.array.lines.ideal:
        groups = layer.plan.coefficients(conduction, conductance, deviates)
        found["groups"] = groups
        if holds:
            found["power"] = groups.sum((1, 3)).flatten()
    elif conduction.law.shape:
        parameters = conduction.parameters(conductance, deviates)
        found |= {f"law {name}": value.expand_as(conductance) for name, value in parameters.items()}
    else:
        found["conductance"] = conductance
        if holds:
            for size, tiles in stacks(layer).items():
                held = LinearTiles(torch.stack([tile.take(conductance) for tile in tiles]), layer.array.lines)
                found[f"transfer {size}"], found[f"drawn {size}"] = held.transfer, held.drawn
    if layer.devices.read is not None:
        found |= _read_numbers(layer, conductance, deviates, stream)
    return found


def _read_numbers(
    layer: "MemristiveLinear",
    conductance: torch.Tensor,
    deviates: torch.Tensor,
    stream: Callable[[str], torch.Generator],
) -> Numbers:
    devices, found = layer.devices, {}
    assert devices.read is not None
    generator = stream(devices.read.name)
    states = [
        read_currents.read_state(
            devices.read,
            devices.conduction,
            conductance[:, rows],
            deviates[:, :, rows],
            generator,
            devices.input_voltage,
        )
        for rows in row_blocks(layer)
    ]
    for block, state in enumerate(states):
        found |= {f"read {block} {n}": tensor for n, tensor in enumerate(state.tensors())}
    # of what the layer keeps only the shape counts: tensors of a graph could not be copied
    layer.read_states = [state.from_tensors([tensor.detach() for tensor in state.tensors()]) for state in states]
    key = torch.randint(2**62, (), generator=generator, device=generator.device)
    return found | {"key": key}


def filled(name: str, parts: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return tensors 'read <block> <n>' of several chips in one shape: devices without telegraph noise fill up."""
    fill = 1 if int(name.rpartition(" ")[2]) >= _ONES else 0
    most = max(part.shape[-1] for part in parts)
    return [torch.nn.functional.pad(part, (0, most - part.shape[-1]), value=fill) for part in parts]


def row_blocks(layer: "MemristiveLinear") -> list[slice]:
    """Return the blocks of word lines."""
    return [tile.rows for tile in layer.tiles if tile.column_block == 0]


def stacks(layer: "MemristiveLinear") -> dict[str, list[Tile]]:
    """Return the tiles by the size that they use."""
    found: dict[str, list[Tile]] = {}
    for tile in layer.tiles:
        found.setdefault("x".join(map(str, tile.used)), []).append(tile)
    return found


def outputs(layer: "MemristiveLinear", x: torch.Tensor, drawn: Numbers) -> torch.Tensor:
    """Return sums of currents over k_V k_G (batch, out) of inputs (batch, word_line), fractions of the full scale."""
    phases, total = layer.phases(x), None
    found = _currents(layer, [voltage for _, voltage in phases], drawn)
    for phase, ((factor, voltage), blocks) in enumerate(zip(phases, found, strict=True)):
        for block, currents in enumerate(blocks):
            if layer.devices.read is not None:
                currents = currents + _noise(layer, voltage, drawn, block, phase)
            part = factor * _converted(layer, currents, block)
            total = part if total is None else total + part
    assert total is not None
    return total * (drawn["inverse_k_g"] / layer.devices.input_voltage)


def take_residual(layers: "Sequence[MemristiveLinear]") -> float:
    """Return the largest residual of Kirchhoff's current law since this was last asked, NaN where nothing was solved.

    It is that of all arrays of nonlinear devices behind resistive lines, of all inputs and chips, see
    `calib.crossbar.nonlinear_lines`; outputs are to be trusted where it is at most that of `tolerance`.
    """
    known = [layer.reading.convergence for layer in layers if layer.reading.convergence is not None]
    for layer in layers:
        layer.reading.convergence = None
    return max((float(each.residual) for each in known), default=float("nan"))


def tolerance(layer: "MemristiveLinear") -> float:
    """Return the residual that the layer's arrays are solved to; what rounding allows may be more."""
    return TOLERANCE * layer.devices.tolerance


def _currents(layer: "MemristiveLinear", voltages: list[torch.Tensor], drawn: Numbers) -> list[list[torch.Tensor]]:
    """Return the currents (batch, group, bit_line) [A] of each block of word lines, for each phase."""
    if not layer.array.lines.ideal:
        return _line_currents(layer, voltages, drawn)
    groups = drawn["groups"]
    found = []
    for voltage in voltages:
        basis = layer.phase_basis(voltage).unflatten(-1, (groups.shape[0], -1))
        if layer.reading.measures:
            layer.reading.take_power(drawn["power"])
        found.append([])
        for rows in row_blocks(layer):
            part = groups[:, :, rows].transpose(1, 2)  # (K, word_line, group, bit_line)
            product = basis[..., rows].flatten(-2) @ part.flatten(0, 1).flatten(1)
            found[-1].append(product.unflatten(-1, part.shape[2:]))
    return found


def _line_currents(layer: "MemristiveLinear", voltages: list[torch.Tensor], drawn: Numbers) -> list[list[torch.Tensor]]:
    """Return currents as `_currents`, all phases solved together."""
    batch = len(voltages[0])
    different = [voltages[0], *(_different(layer, voltage) for voltage in voltages[1:])]
    counts = [len(voltage) for voltage in different]
    joined = torch.cat(different) if sum(counts[1:]) else different[0]
    placed: dict[tuple[int, int], torch.Tensor] = {}
    for size, tiles in stacks(layer).items():
        v = torch.stack([joined[..., tile.rows] for tile in tiles])
        solved, power = _solved(layer, size, tiles, v, drawn)
        if power is not None:
            for part in power.split(counts, -1):
                layer.reading.add(part.sum() * (batch if part.shape[-1] == 1 else 1))
        for tile, current in zip(tiles, solved.unbind(0), strict=True):
            placed[tile.row_block, tile.column_block] = tile.split(current)
    rows, columns = (max(position) + 1 for position in zip(*placed, strict=True))
    blocks = [torch.cat([placed[r, c] for c in range(columns)], dim=-1).split(counts) for r in range(rows)]
    return [[_for_all(block[phase], batch) for block in blocks] for phase in range(len(voltages))]


def _different(layer: "MemristiveLinear", voltage: torch.Tensor) -> torch.Tensor:
    """Return the rows of the voltages (batch, word_line) of a second phase that have to be solved."""
    if layer.array.input_mode == "offset":
        return voltage[:1]  # they are all the same
    return voltage if bool(_any(voltage)) else voltage[:0]


def _for_all(currents: torch.Tensor, batch: int) -> torch.Tensor:
    """Return the currents (batch, group, bit_line) of one row or none, which stand for all."""
    if len(currents) == batch:
        return currents
    return currents.expand(batch, -1, -1) if len(currents) else currents.new_zeros((batch, *currents.shape[1:]))


def _solved(
    layer: "MemristiveLinear", size: str, tiles: list[Tile], voltage: torch.Tensor, drawn: Numbers
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return currents (tile, batch, column) of tiles of one size at voltages (tile, batch, row), and power if wanted.

    The power is (tile, batch) [W] from the drivers.
    """
    lines, measures = layer.array.lines, layer.reading.measures
    if f"transfer {size}" in drawn:
        power = ((voltage @ drawn[f"drawn {size}"]) * voltage).sum(-1) if measures else None
        return voltage @ drawn[f"transfer {size}"], power
    if "conductance" in drawn:
        return tile_currents(voltage, torch.stack([tile.take(drawn["conductance"]) for tile in tiles]), lines), None
    law, power = layer.devices.conduction.law, None
    parameters = {
        name: torch.stack([tile.take(drawn[f"law {name}"]) for tile in tiles]) for name in law.parameter_names
    }
    if measures:
        currents, (power, _), convergence = tile_evaluation_nonlinear(voltage, parameters, law, lines, tolerance(layer))
    else:
        currents, convergence = tile_currents_nonlinear(voltage, parameters, law, lines, tolerance(layer))
    residual = convergence.residual.nan_to_num(nan=torch.inf, posinf=torch.inf)
    worst, before = Convergence(_largest(residual), _largest(convergence.iterations)), layer.reading.convergence
    if before is not None:
        worst = Convergence(*map(torch.maximum, worst, before))
    layer.reading.note(worst)
    return currents, power


class _Largest(torch.autograd.Function):
    """The largest of all values, over chips that are mapped too; 0 of none."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.amax() if x.numel() else x.new_zeros(())

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> None:
        return None

    @staticmethod
    def vmap(info, in_dims, x):
        return _largest(x), None


_call_largest = caller(_Largest)


def _largest(x: torch.Tensor) -> torch.Tensor:
    return _call_largest(x.detach())


def _any(x: torch.Tensor) -> torch.Tensor:
    return _largest((x != 0).to(torch.uint8))


def _noise(layer: "MemristiveLinear", voltage: torch.Tensor, drawn: Numbers, block: int, phase: int) -> torch.Tensor:
    """Return the deviation (batch, group, bit_line) [A] of the currents of a block at one reading."""
    template = layer.read_states[block]
    state = template.from_tensors([drawn[f"read {block} {n}"] for n in range(len(template.tensors()))])
    images = layer.reading.image_indices(len(voltage), voltage.device)
    rows = row_blocks(layer)
    stream = phase * len(rows) + block
    return read_currents.noise(state, voltage[..., rows[block]], images, drawn["key"], stream)


def _converted(layer: "MemristiveLinear", currents: torch.Tensor, block: int) -> torch.Tensor:
    """Return k_V k_G y (batch, out) of the currents of a block of word lines, through the ADC."""
    adc, array = layer.array.adc, layer.array
    if adc is None or adc.is_ideal:
        return layer.mapping.combine(currents)
    if layer.reading.adc_currents is not None:
        layer.reading.adc_currents[block].append(array.converted(currents, layer.mapping).detach())
        return layer.mapping.combine(currents)
    rows = row_blocks(layer)[block]
    devices = layer.devices
    usual = devices.full_current / devices.input_voltage  # of a device at G_on, at the input voltage
    full_scale = adc.range_of(rows.stop - rows.start, usual, devices.input_voltage)
    if full_scale is None and not layer.adc_is_calibrated:
        raise OptionError(
            "the range of the layer's ADC is to come from data, but no data were seen; call calib.nn.calibrate with a "
            "batch of inputs, or give a range (adc_range=array, or a current in A)"
        )
    return array.read(currents, layer.mapping, layer.adc_range[block] if full_scale is None else full_scale)
