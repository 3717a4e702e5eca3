"""Power, energy and efficiency against calculations by hand."""

import numpy as np
import pytest
import torch

from calib import energy
from calib import nn as memristive
from calib.crossbar.chips import ChipStack
from calib.errors import OptionError
from tests.simple_devices import G_OFF, G_ON, everything, range_only


def measured(layer: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the power (1,) [W] of the first chip of a layer."""
    chips = ChipStack(layer, 0, [0])
    chips.measures = True
    chips(x)
    return chips.mean_power()[0]


def test_energy_and_efficiency_by_hand() -> None:
    power = np.array([[2e-3, 1e-3], [4e-3, 2e-3]])  # W, (chip, layer)
    assert energy.energy_per_inference(power).tolist() == pytest.approx([3e-3 * 50e-9, 6e-3 * 50e-9])
    count = energy.synapses([(784, 25), (25, 10)])
    assert count == 785 * 25 + 26 * 10 == 19885
    assert energy.efficiency(power, count).tolist() == pytest.approx(
        [2 * 19885 / (50e-9 * p) / 1e12 for p in (3e-3, 6e-3)]
    )


def test_every_device_at_g_off_is_the_published_ceiling() -> None:
    """784-25-10 with all inputs at full scale and G_off: P = 2 (785 25 + 26 10) V^2 G_off."""
    devices = memristive.Devices.from_model(range_only())
    network = torch.nn.Sequential(
        memristive.MemristiveLinear(784, 25, devices), memristive.MemristiveLinear(25, 10, devices)
    )
    powers = []
    for layer, n_in in zip(network, (784, 25), strict=True):
        torch.nn.init.zeros_(layer.weight)
        powers.append(measured(layer, torch.ones(3, n_in)))
    power = torch.cat(powers)
    count = energy.synapses(network)
    assert float(power.sum()) == pytest.approx(2 * count * 0.25 * G_OFF, rel=1e-5)
    assert float(energy.efficiency(power, count)) == pytest.approx(1e-12 / (50e-9 * 0.25 * G_OFF), rel=1e-5)


def test_one_word_line_by_hand() -> None:
    """Weights 1 and 0 on x = 0.6 with k_V 0.5 V: P = V^2 (G_on + G_off) + V_bias^2 2 G_off."""
    devices = memristive.Devices.from_model(range_only())
    layer = memristive.MemristiveLinear(1, 1, devices, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.zero_()[0, 0, 0] = 1.0
    power = measured(layer, torch.tensor([[0.6]], dtype=torch.float64))
    assert float(power) == pytest.approx(0.3**2 * (G_ON + G_OFF) + 0.5**2 * 2 * G_OFF, rel=1e-12)


def test_a_convolution_uses_its_synapses_at_every_position() -> None:
    """1 to 2 channels, 3 x 3, on 6 x 5 without padding: 4 x 3 positions of (9 + 1) 2 synapses; then 24 to 3."""
    devices = memristive.Devices.from_model(range_only())
    network = torch.nn.Sequential(
        memristive.MemristiveConv2d(1, 2, 3, devices), torch.nn.Sigmoid(), torch.nn.Flatten(),
        memristive.MemristiveLinear(24, 3, devices),
    )  # fmt: skip
    images = torch.rand(4, 1, 6, 5)
    first, second = energy.work(network, images)
    assert (first.synapses, first.readings, first.phases) == (20, 12, 1)
    assert (second.synapses, second.readings) == (25 * 3, 1)
    assert first.products + second.products == 20 * 12 + 75
    assert (first.dac, first.adc) == (9 * 12, 2 * 12)
    torch.nn.init.zeros_(network[0].crossbars[0].weight)
    chips = ChipStack(network, 0, [0])
    chips.measures = True
    chips(torch.ones(4, 1, 6, 5))
    power = float(chips.mean_power()[0, 0])  # every device at G_off, at 0.5 V, in 12 readings
    assert power == pytest.approx(12 * 2 * 20 * 0.25 * G_OFF, rel=1e-5)
    assert float(energy.efficiency(np.array([power]), first.products)) == pytest.approx(
        1e-12 / (50e-9 * 0.25 * G_OFF), rel=1e-5
    )


def test_a_recurrent_layer_is_read_at_every_step() -> None:
    devices = memristive.Devices.from_model(range_only())
    network = memristive.MemristiveLSTM(3, 4, devices, batch_first=True)
    (found,) = energy.work(network, torch.rand(2, 5, 3))
    assert found.readings == 5
    assert found.synapses == (3 + 4 + 1) * 16


def test_roles_by_hand() -> None:
    """One weight of 1 on x = 0.6 and a bias weight of 0: positive V^2 G_on, negative V^2 G_off, bias 2 V_b^2 G_off."""
    devices = memristive.Devices.from_model(range_only())
    layer = memristive.MemristiveLinear(1, 1, devices, dtype=torch.float64)
    with torch.no_grad():
        layer.weight.zero_()[0, 0, 0] = 1.0
    found = energy.role_power(layer, torch.tensor([[0.6]], dtype=torch.float64), seed=0, chips=[0])
    expected = [0.3**2 * G_ON, 0.3**2 * G_OFF, 0.5**2 * 2 * G_OFF]
    np.testing.assert_allclose(found, [[expected]], rtol=1e-12)


@pytest.mark.parametrize("kind", ["linear", "convolution", "tiles"])
def test_roles_add_up_to_the_power_of_the_chip(kind: str) -> None:
    devices = memristive.Devices.from_model(everything())
    if kind == "convolution":
        network: torch.nn.Module = memristive.MemristiveConv2d(1, 2, 2, devices)
        images = torch.rand(5, 1, 4, 4)
    else:
        array = memristive.Array.from_options("rows=3,adc_bits=8,adc_range=array" if kind == "tiles" else "")
        network, images = memristive.MemristiveLinear(6, 4, devices, array=array), torch.rand(5, 6)
    stack = ChipStack(network, 3, [0, 1])
    stack.measures = True
    stack(images)
    found = energy.role_power(network, images, seed=3, chips=[0, 1])
    np.testing.assert_allclose(found.sum(-1), stack.mean_power(), rtol=1e-5)
    assert (found > 0).all()


def test_roles_are_not_known_on_lines_with_resistance() -> None:
    devices = memristive.Devices.from_model(range_only())
    layer = memristive.MemristiveLinear(3, 2, devices, array=memristive.Array.from_options("word_segment=1"))
    assert np.isnan(energy.role_power(layer, torch.rand(2, 3), seed=0, chips=[0])).all()


def test_conversions_by_hand() -> None:
    """10 inputs and a bias to 6 outputs in tiles of 4 x 6: 3 x 2 tiles; signed inputs take two phases."""
    devices = memristive.Devices.from_model(range_only())
    array = memristive.Array.from_options("rows=4,columns=6,adc_bits=8,adc_range=array")
    layer = memristive.MemristiveLinear(10, 6, devices, array=array)
    (positive,) = energy.work(layer, torch.rand(3, 10))
    assert (positive.dac, positive.adc) == (10 * 2, 6 * 3)
    (signed,) = energy.work(layer, torch.rand(3, 10) - 0.5)
    assert (signed.phases, signed.dac, signed.adc) == (2, 40, 36)
    layer.set_array(memristive.Array.from_options("adc_bits=8,adc_range=array,adc_mode=single-ended"))
    (single,) = energy.work(layer, torch.rand(3, 10))
    assert (single.dac, single.adc) == (10, 12)
    figures = energy.periphery_figures("dac=1e-13, adc=2e-12")
    assert energy.periphery_energy([positive], figures) == pytest.approx(20e-13 + 36e-12)
    with pytest.raises(OptionError, match="'rom' of 1.0 J"):
        energy.periphery_figures("rom=1")
    with pytest.raises(OptionError, match="for example dac=1e-13"):
        energy.periphery_figures("dac=much")


def test_targets_are_what_the_mapping_asks_for() -> None:
    """Weights 1 and 0 of a pair, and a bias of 0: G_on, and G_off three times."""
    layer = memristive.MemristiveLinear(1, 1, memristive.Devices.from_model(range_only()))
    with torch.no_grad():
        layer.weight.zero_()[0, 0, 0] = 1.0
    (found,) = energy.targets(layer)
    np.testing.assert_allclose(np.sort(found.ravel()), [G_OFF, G_OFF, G_OFF, G_ON], rtol=1e-6)
