"""Power, energy and efficiency against calculations by hand."""

import numpy as np
import pytest
import torch

from calib import energy
from calib import nn as memristive
from calib.crossbar.chips import ChipStack
from tests.simple_devices import G_OFF, G_ON, range_only


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
