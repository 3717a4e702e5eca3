"""Memristive layers: the ideal limit, chips, power, input range; conversion of networks."""

import numpy as np
import pytest
import torch
from torch import nn

from calib import nn as memristive
from calib.crossbar.chips import ChipStack
from calib.crossbar.mapping import MAPPINGS
from calib.crossbar.multiply import direct
from calib.errors import ModelError, OptionError
from tests.simple_devices import device, everything, iv_node, range_only

EXACT = ("double", "lowest", "average", "offset")
"""Mappings that do not round weights."""


def layer(tree=None, mapping: str = "double", **options) -> memristive.MemristiveLinear:
    devices = memristive.Devices.from_model(device() if tree is None else tree, **options)
    first = torch.Generator().manual_seed(1)
    return memristive.MemristiveLinear(8, 5, devices, mapping=mapping, first=first, dtype=torch.float64)


def inputs(n: int = 6) -> torch.Tensor:
    return torch.rand(n, 8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.mark.parametrize("mapping", MAPPINGS)
def test_an_ideal_layer_is_linear(mapping: str) -> None:
    one = layer(range_only(), mapping)
    weight = one.weight if mapping != "bit-slicing" else one.mapping.quantised(one.weight)
    signed = one.mapping.to_signed(weight).detach()
    torch.testing.assert_close(one(inputs()), inputs() @ signed[:-1] + signed[-1], rtol=1e-9, atol=1e-12)


def test_a_layer_is_its_currents() -> None:
    """y = (I+ - I-) / (k_V k_G) with the currents evaluated one device at a time."""
    one = layer(tolerance=1e-6)
    one.generator = torch.Generator().manual_seed(5)
    y = one(inputs())
    d = one.devices
    g, k_g = one.mapping.conductances(one.weight, d.g_off, d.g_on)
    z = d.conduction.deviates(tuple(g.shape), torch.Generator().manual_seed(5), g.dtype)
    current = direct(d.conduction, nn.functional.pad(inputs(), (0, 1), value=1.0) * 0.5, g, z)
    torch.testing.assert_close(y, (current[:, 0] - current[:, 1]) / (0.5 * k_g), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("tree", [device(), everything(), device(iv=iv_node(form="paper"))], ids=["iv", "all", "paper"])
@pytest.mark.parametrize("mapping", EXACT)
def test_gradients_by_weights_and_inputs(tree, mapping: str) -> None:
    one = layer(tree, mapping)
    weight = one.weight.detach().clone().add(0.01).requires_grad_(True)

    def f(w: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        one.generator = torch.Generator().manual_seed(3)
        return torch.func.functional_call(one, {"weight": w}, (x,))

    assert torch.autograd.gradcheck(f, (weight, inputs(3).clamp(0.05).requires_grad_(True)))


def test_every_pass_draws_new_devices_until_chips_are_held() -> None:
    one = layer()
    assert not torch.equal(one(inputs()), one(inputs()))
    with memristive.held_chips(one, 0, range(3)) as chips:
        first, again = chips(inputs()), chips(inputs())
    assert first.shape == (3, 6, 5)
    assert torch.equal(first, again)
    assert one(inputs()).shape == (6, 5)


def test_stacked_chips_are_the_single_ones() -> None:
    network = nn.Sequential(layer(everything()), nn.Sigmoid(), memristive.MemristiveLinear(5, 2, layer().devices))
    network.double()
    with memristive.held_chips(network, 4, range(5)) as five, memristive.held_chips(network, 4, [3]) as one:
        torch.testing.assert_close(one(inputs())[0], five(inputs())[3], rtol=1e-10, atol=1e-12)


def test_power_is_the_sum_over_devices() -> None:
    """P = sum |V| |I|, evaluated one device at a time, over two passes."""
    one = layer(tolerance=1e-7)
    x = inputs() * torch.tensor([1.0, -1.0] * 4, dtype=torch.float64)
    g, _ = one.mapping.conductances(one.weight.detach(), one.devices.g_off, one.devices.g_on)
    expected = []
    for chip in (0, 1):
        from calib.crossbar.devices import generator

        z = one.devices.conduction.deviates(tuple(g.shape), generator(0, 0, chip, 0, "iv"), g.dtype)
        v = nn.functional.pad(x, (0, 1), value=1.0) * 0.5
        parameters = one.devices.conduction.parameters(g, z)
        current = one.devices.conduction.law.current(v[:, None, :, None], xp=torch, **parameters)
        expected.append((v.abs()[:, None, :, None] * current.abs()).sum((1, 2, 3)).mean())
    with memristive.held_chips(one, 0, [0, 1]) as chips:
        chips.measures = True
        chips(x)
        chips(x)
    torch.testing.assert_close(chips.mean_power()[:, 0], torch.stack(expected), rtol=1e-5, atol=0)


def test_inputs_beyond_full_scale_are_refused() -> None:
    with pytest.raises(OptionError, match="inputs of a memristive layer lie between 0 and 1.5; expected -1 to 1"):
        layer()(torch.tensor([[0.0, 1.5, *[0.2] * 6]], dtype=torch.float64))
    with pytest.raises(OptionError, match="8 inputs was given 7"):
        layer()(torch.rand(3, 7, dtype=torch.float64))
    with pytest.raises(OptionError, match="lie between nan"):
        layer()(torch.full((1, 8), float("nan"), dtype=torch.float64))


def test_input_voltage_stays_within_the_law() -> None:
    with pytest.raises(OptionError, match=r"0.8 V is beyond the 0.5 V up to which the I-V law of 'test device'"):
        memristive.Devices.from_model(device(), input_voltage=0.8)
    assert memristive.Devices.from_model(device(), input_voltage=0.8, extrapolate=True).plan(9).v_max == 0.8
    with pytest.raises(OptionError, match="expected more than 0"):
        memristive.Devices.from_model(device(), input_voltage=0.0)


def test_a_model_without_conductance_range_is_refused() -> None:
    tree = device()
    del tree["conductance"]
    with pytest.raises(ModelError, match="no conductance range"):
        memristive.Devices.from_model(tree)


@pytest.mark.parametrize("mapping", EXACT)
def test_conversion_keeps_what_a_network_computes(mapping: str) -> None:
    network = nn.Sequential(nn.Linear(8, 6), nn.Sequential(nn.Sigmoid(), nn.Linear(6, 3, bias=False))).double()
    converted = memristive.convert(network, range_only(), mapping=mapping)
    torch.testing.assert_close(converted(inputs()), network(inputs()), rtol=1e-9, atol=1e-10)
    assert isinstance(network[0], nn.Linear)


def test_conversion_to_another_device_and_summary() -> None:
    network = memristive.convert(nn.Linear(8, 4), range_only())
    other = memristive.convert(network, everything())
    assert torch.equal(other.weight, network.weight)
    (row,) = memristive.summary(other)
    assert (row["word_lines"], row["synapses"], row["devices"]) == (9, 36, 72)
    assert len(row["effects"]) == 3
    assert 0 < row["interpolation_error"] <= 1e-4


def test_a_network_without_linear_layers_is_refused() -> None:
    with pytest.raises(OptionError, match="Sigmoid has no linear layer"):
        memristive.convert(nn.Sigmoid(), range_only())


def test_no_chips_are_refused() -> None:
    with pytest.raises(OptionError, match="at least 1"):
        ChipStack(layer(), 0, [])


def test_clipped_devices_are_counted() -> None:
    one = layer(device(iv=iv_node(spread=0.1)))
    clipped = ChipStack(one, 0, range(4)).clipped
    assert clipped.shape == (4, 1)
    assert np.all(clipped.numpy() <= 2)
