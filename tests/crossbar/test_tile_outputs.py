"""Layers on tiles with lines, converters and noise of readings."""

import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from calib import nn as memristive
from calib.crossbar import line_currents, tile_outputs
from calib.crossbar.array import Array
from calib.crossbar.chips import ChipStack
from calib.crossbar.converters import Adc, Dac
from calib.crossbar.line_resistance import Lines
from calib.crossbar.random_streams import generator
from calib.errors import OptionError
from calib.nonidealities.read_noise import ReadNoise
from tests.simple_devices import device, everything, range_only

LINES = Lines(word_segment=50.0, bit_segment=30.0, driver=100.0, sense=20.0)
TINY = Lines(word_segment=1e-7, bit_segment=1e-7)


def layer(tree=None, n_in: int = 9, n_out: int = 4, **options) -> memristive.MemristiveLinear:
    devices = memristive.Devices.from_model(range_only() if tree is None else tree, tolerance=1e-7)
    first = torch.Generator().manual_seed(1)
    return memristive.MemristiveLinear(n_in, n_out, devices, first=first, dtype=torch.float64, **options)


def inputs(n: int = 6, n_in: int = 9, signed: bool = True) -> torch.Tensor:
    x = torch.rand(n, n_in, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    return 2 * x - 1 if signed else x


def chip(one: nn.Module, x: torch.Tensor, chips=(0,)) -> torch.Tensor:
    return ChipStack(one, 3, chips)(x)


@pytest.mark.parametrize("mapping", ["double", "lowest", "average", "offset", "bit-slicing"])
@pytest.mark.parametrize("mode", ["two-phase", "voltage", "offset"])
@pytest.mark.parametrize("tree", [range_only(), device()], ids=["linear", "law"])
def test_limits_give_the_plain_layer(tree, mode: str, mapping: str) -> None:
    """Tiles, vanishing line resistance and converters of many bits change nothing."""
    plain = layer(tree, mapping=mapping, array=Array(input_mode=mode))
    expected = chip(plain, inputs())
    size = {"rows": 4, "columns": 8, "input_mode": mode}
    for array in (
        Array(**size),
        Array(**size, lines=TINY),
        Array(**size, dac=Dac(24), adc=Adc(24, full_scale=5e-5)),
    ):
        one = layer(tree, mapping=mapping, array=array)
        tolerance = 1e-6 if array.adc is None else 1e-4
        torch.testing.assert_close(chip(one, inputs()), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("mode", ["two-phase", "voltage", "offset"])
def test_input_modes_agree_on_linear_devices(mode: str) -> None:
    one = layer(array=Array(input_mode=mode))
    signed = one.mapping.to_signed(one.weight).detach()
    torch.testing.assert_close(one(inputs()), inputs() @ signed[:-1] + signed[-1], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("tree", [range_only(), everything()], ids=["linear", "law"])
def test_outputs_are_the_sums_of_tile_currents(tree) -> None:
    """y = sum over tiles of I+ - I-, each tile solved by itself; the power is what the drivers give."""
    one = layer(tree, array=Array(rows=4, columns=4, lines=LINES))
    x = inputs(signed=False)
    stack = ChipStack(one, 3, [5, 6])
    stack.measures = True
    found = stack(x)
    voltage = nn.functional.pad(x, (0, 1), value=1.0) * one.devices.input_voltage
    for index, number in enumerate((5, 6)):
        g, k_g = one.mapping.conductances(one.weight.detach(), one.devices.g_off, one.devices.g_on)
        for member in one.devices.stages:
            g = member.conductance(
                g, generator(3, 0, number, 0, member.name), generator(3, 0, number, 0, member.name, "device")
            )
        law = one.devices.conduction
        z = law.deviates(tuple(g.shape), generator(3, 0, number, 0, law.name), g.dtype)
        total, power = torch.zeros(2, len(x), 4, dtype=torch.float64), 0.0
        for tile in one.tiles:
            v = voltage[:, tile.rows]
            parameters = {name: tile.take(p.expand_as(g)) for name, p in law.parameters(g, z).items()}
            held = line_currents.NonlinearTiles(parameters, law.law, LINES, v, 1e-9)
            current, used, _ = held.evaluate(v)
            power = power + used.drawn.mean()
            total[..., tile.outputs] += tile.split(current).movedim(-2, 0)
        expected = (total[0] - total[1]) / (k_g * one.devices.input_voltage)
        torch.testing.assert_close(found[index], expected, rtol=1e-5, atol=1e-5)
        assert float(stack.mean_power()[index, 0]) == pytest.approx(float(power), rel=1e-5)


@pytest.mark.parametrize("tree", [range_only(), everything()], ids=["linear", "law"])
@pytest.mark.parametrize(
    "array",
    [
        Array(rows=4, columns=6, lines=LINES),
        Array(rows=5, adc=Adc(6, full_scale="array"), dac=Dac(4)),
        Array(rows=5, lines=LINES, adc=Adc(6, full_scale="array", differential=False)),
    ],
    ids=["lines", "converters", "all"],
)
def test_chips_together_are_single_chips_in_any_batch(tree, array: Array) -> None:
    network = nn.Sequential(layer(tree, array=array), nn.Sigmoid(), layer(tree, 4, 3, array=array))
    x = inputs(8)
    together = chip(network, x, range(3))
    alone = ChipStack(network, 3, [2])
    parts = torch.cat([alone(x[:3]), alone(x[3:], 3)], dim=1)
    torch.testing.assert_close(parts[0], together[2], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("tree", [range_only(), device()], ids=["linear", "law"])
def test_gradients_through_lines(tree) -> None:
    one = layer(tree, 4, 2, array=Array(rows=3, lines=LINES))
    weight = one.weight.detach() + 0.01 * torch.rand(one.weight.shape, generator=torch.Generator().manual_seed(4))

    def f(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        one.generator = torch.Generator().manual_seed(3)
        return torch.func.functional_call(one, {"weight": w}, (x,))

    x = inputs(2, 4, signed=False).clamp(0.1)
    assert torch.autograd.gradcheck(f, (weight.requires_grad_(True), x.requires_grad_(True)), atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("tree", [range_only(), device()], ids=["linear", "law"])
def test_a_phase_that_drives_no_line_is_not_solved(tree, monkeypatch) -> None:
    """Nor is the constant phase of the input mode 'offset' solved for each input; what comes out does not change."""
    rows: list[int] = []
    for name in ("tile_currents", "tile_currents_nonlinear"):
        solve = getattr(tile_outputs, name)
        monkeypatch.setattr(tile_outputs, name, lambda v, *a, solve=solve: rows.append(v.shape[-2]) or solve(v, *a))
    for mode, expected in (("two-phase", (6, 12)), ("offset", (7, 7))):
        one = layer(tree, array=Array(lines=LINES, input_mode=mode))
        bright = inputs(signed=False)
        signed = torch.cat([bright[:5], -bright[5:]])
        found = []
        for x, count in zip((bright, signed), expected, strict=True):
            rows.clear()
            one.generator = torch.Generator().manual_seed(3)
            found.append(one(x).detach())
            assert rows == [count]
        torch.testing.assert_close(found[0][:5], found[1][:5], rtol=1e-6, atol=1e-6)


def test_the_power_of_a_constant_phase_counts_for_each_input() -> None:
    stack = ChipStack(layer(device(), array=Array(lines=LINES, input_mode="offset")), 3, [0])
    stack.measures = True
    x = inputs(2)
    stack(x)
    each = []
    for k in range(len(x)):
        alone = ChipStack(layer(device(), array=Array(lines=LINES, input_mode="offset")), 3, [0])
        alone.measures = True
        alone(x[k : k + 1])
        each.append(float(alone.power[0, 0]))
    assert float(stack.power[0, 0]) == pytest.approx(sum(each), rel=1e-5)


def test_the_largest_residual_is_kept_over_tiles_passes_and_chips(monkeypatch) -> None:
    layers = [layer(device(), array=Array(rows=4, lines=LINES)), layer(device(), 4, 3)]
    network = nn.Sequential(layers[0], nn.Sigmoid(), layers[1])
    assert math.isnan(tile_outputs.take_residual(layers))  # nothing was solved
    network(inputs())
    first = tile_outputs.take_residual(layers)
    assert 0 < first <= tile_outputs.tolerance(layers[0])
    assert math.isnan(tile_outputs.take_residual(layers))
    with torch.no_grad():
        chip(network, inputs(), range(3))
    assert 0 < tile_outputs.take_residual(layers) <= tile_outputs.tolerance(layers[0])
    solve = tile_outputs.tile_currents_nonlinear
    monkeypatch.setattr(tile_outputs, "tile_currents_nonlinear", lambda *a: solve(*a, iterations=1))
    chip(network, inputs(), range(3))
    worst = tile_outputs.take_residual(layers)
    assert worst > 10 * tile_outputs.tolerance(layers[0])
    monkeypatch.setattr(
        tile_outputs, "tile_currents_nonlinear", lambda v, *a: solve(torch.full_like(v, torch.nan), *a, iterations=2)
    )
    layers[0](inputs())
    assert tile_outputs.take_residual(layers) == math.inf


def noisy(one: memristive.MemristiveLinear, sigma: float = 0.05) -> memristive.MemristiveLinear:
    one.devices = replace(one.devices, read=ReadNoise(sigma))
    return one


def test_noise_of_readings_follows_from_chip_and_image() -> None:
    one = noisy(layer(everything(), array=Array(rows=4)))
    x = inputs(12)
    together = chip(one, x, range(3))
    alone = ChipStack(one, 3, [1])
    parts = torch.cat([alone(x[:5], 0), alone(x[5:], 5)], dim=1)[0]
    torch.testing.assert_close(parts, together[1], rtol=1e-9, atol=1e-9)
    same = chip(one, x[:1].expand(400, -1), [0])[0]
    assert bool((same.std(0) > 0).all())


def test_noise_of_readings_has_the_variance_of_its_devices() -> None:
    """var y = sum over devices of (sigma I)^2 / (k_V k_G)^2 of linear devices."""
    one = noisy(layer(), 0.03)
    x = inputs(1, signed=False)
    many, ideal = chip(one, x.expand(20_000, -1))[0], chip(layer(), x)[0, 0]
    g, k_g = one.mapping.conductances(one.weight.detach(), one.devices.g_off, one.devices.g_on)
    v = nn.functional.pad(x, (0, 1), value=1.0)[0] * one.devices.input_voltage
    expected = torch.sqrt(((0.03 * v[None, :, None] * g) ** 2).sum((0, 1))) / (k_g * one.devices.input_voltage)
    torch.testing.assert_close(many.std(0), expected, rtol=0.03, atol=0)
    assert bool(((many.mean(0) - ideal).abs() < 5 * expected / 20_000**0.5).all())


def test_a_range_that_comes_from_data_must_be_calibrated() -> None:
    one = layer(array=Array(rows=4, adc=Adc(8)))
    with pytest.raises(OptionError, match="no data were seen"):
        one(inputs())
    memristive.calibrate(one, inputs())
    plain = layer()(inputs()).detach()
    torch.testing.assert_close(one(inputs()), plain, rtol=0, atol=0.05 * float(plain.abs().max()))
    again = layer(array=Array(rows=4, adc=Adc(8)))
    again.load_state_dict(one.state_dict())
    assert torch.equal(again(inputs()), one(inputs()))
