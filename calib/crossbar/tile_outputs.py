"""Outputs of a layer whose tiles have lines with resistance, converters of currents, or noise of readings.

Each block of word lines is read on its own: the currents of its bit lines, with the noise of the reading, are converted
and added as numbers. With lines of resistance the blocks are solved tile by tile, tiles of the same size together. The
noise of a reading is that of the devices at the voltages of the drivers. The numbers of drawn devices are

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

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from calib.crossbar import read_currents
from calib.crossbar.array import Tile
from calib.crossbar.line_currents import LinearTiles, NonlinearTiles, tile_currents, tile_currents_nonlinear
from calib.errors import OptionError

if TYPE_CHECKING:
    from calib.crossbar.layers import MemristiveLinear

TOLERANCE = 1e-6
"""Residual of Kirchhoff's current law that arrays of nonlinear devices are solved to."""
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
    layer.read_states = [
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
    for block, state in enumerate(layer.read_states):
        found |= {f"read {block} {n}": tensor for n, tensor in enumerate(state.tensors())}
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
    total = None
    for phase, (factor, voltage) in enumerate(layer.phases(x)):
        for block, currents in enumerate(_currents(layer, voltage, drawn)):
            if layer.devices.read is not None:
                currents = currents + _noise(layer, voltage, drawn, block, phase)
            part = factor * _converted(layer, currents, block)
            total = part if total is None else total + part
    assert total is not None
    return total * (drawn["inverse_k_g"] / layer.devices.input_voltage)


def _currents(layer: "MemristiveLinear", voltage: torch.Tensor, drawn: Numbers) -> list[torch.Tensor]:
    """Return the currents (batch, group, bit_line) [A] of each block of word lines."""
    if not layer.array.lines.ideal:
        return _line_currents(layer, voltage, drawn)
    groups = drawn["groups"]
    basis = layer.phase_basis(voltage).unflatten(-1, (groups.shape[0], -1))
    if layer.reading.measures:
        layer.reading.take_power(drawn["power"])
    found = []
    for rows in row_blocks(layer):
        part = groups[:, :, rows].transpose(1, 2)  # (K, word_line, group, bit_line)
        product = basis[..., rows].flatten(-2) @ part.flatten(0, 1).flatten(1)
        found.append(product.unflatten(-1, part.shape[2:]))
    return found


def _line_currents(layer: "MemristiveLinear", voltage: torch.Tensor, drawn: Numbers) -> list[torch.Tensor]:
    placed: dict[tuple[int, int], torch.Tensor] = {}
    for size, tiles in stacks(layer).items():
        v = torch.stack([voltage[..., tile.rows] for tile in tiles])
        for tile, current in zip(tiles, _solved(layer, size, tiles, v, drawn).unbind(0), strict=True):
            placed[tile.row_block, tile.column_block] = tile.split(current)
    rows, columns = (max(position) + 1 for position in zip(*placed, strict=True))
    return [torch.cat([placed[r, c] for c in range(columns)], dim=-1) for r in range(rows)]


def _solved(
    layer: "MemristiveLinear", size: str, tiles: list[Tile], voltage: torch.Tensor, drawn: Numbers
) -> torch.Tensor:
    """Return the currents (tile, batch, column) of tiles of one size at voltages (tile, batch, row)."""
    lines, reading = layer.array.lines, layer.reading
    if f"transfer {size}" in drawn:
        if reading.measures:
            reading.add(((voltage @ drawn[f"drawn {size}"]) * voltage).sum())
        return voltage @ drawn[f"transfer {size}"]
    if "conductance" in drawn:
        return tile_currents(voltage, torch.stack([tile.take(drawn["conductance"]) for tile in tiles]), lines)
    law = layer.devices.conduction.law
    parameters = {
        name: torch.stack([tile.take(drawn[f"law {name}"]) for tile in tiles]) for name in law.parameter_names
    }
    if reading.measures:
        held = NonlinearTiles(parameters, law, lines, voltage, TOLERANCE)
        currents, power, convergence = held.evaluate(voltage)
        reading.add(power.drawn.sum())
    else:
        currents, convergence = tile_currents_nonlinear(voltage, parameters, law, lines, TOLERANCE)
    reading.note(convergence)
    return currents


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
