"""Signal to noise of a bit line against closed forms, and the devices that it warns of."""

import math

import numpy as np
import pytest
import torch

import calib
from calib.crossbar.devices import Devices, generator
from calib.crossbar.drawing import draw_chip
from calib.crossbar.layers import MemristiveLinear
from calib.signal_to_noise import signal_to_noise
from tests.simple_devices import G_OFF, G_ON, device, everything, programming_node, range_only, stuck_node

MEAN_SQUARE = (G_ON**2 + G_ON * G_OFF + G_OFF**2) / 3  # of G uniform over the range
VARIANCE = (G_ON - G_OFF) ** 2 / 12


def test_lognormal_spread_by_hand() -> None:
    """G e^(s^2/2 - s z): mean G e^(s^2), variance G^2 e^(2 s^2) (e^(s^2) - 1)."""
    sigma = 0.4
    found = signal_to_noise(Devices.from_model(range_only(programming=programming_node(sigma, sigma))))
    assert found.value == pytest.approx(math.sqrt(VARIANCE / (MEAN_SQUARE * math.expm1(sigma**2))), rel=0.03)
    assert list(found.alone) == ["programming spread"]


def test_stuck_devices_by_hand() -> None:
    """Stuck at g with probability p: mean (1 - p) G + p g, variance p (1 - p) (G - g)^2."""
    p, g = 0.2, 4e-6
    devices = Devices.from_model(range_only(stuck=stuck_node(p, (g,), 0.0)))
    offset = (g - (G_ON + G_OFF) / 2) ** 2 + VARIANCE
    assert signal_to_noise(devices).value == pytest.approx(math.sqrt((1 - p) * VARIANCE / (p * offset)), rel=0.03)


def test_devices_without_spread_have_no_noise() -> None:
    found = signal_to_noise(Devices.from_model(range_only()))
    assert found.value == math.inf
    assert found.alone == {}
    assert found.warning is None


def test_it_holds_for_bit_lines_of_any_inputs() -> None:
    """Outputs of a layer of random weights: variance of their means over chips, and about them from chip to chip."""
    devices = Devices.from_model(everything())
    layer = MemristiveLinear(30, 400, devices, mapping="double", bias="digital")
    with torch.no_grad():
        layer.weight.uniform_(generator=generator(0, "weights"))
        layer.weight.view(-1)[0] = 1.0
        x = torch.rand(1, 30, generator=generator(0, "inputs"))
        outputs = []
        for chip in range(60):
            layer.drawn, _ = draw_chip(layer, (0, 0, chip, 0))
            outputs.append(layer(x)[0].numpy())
    y = np.array(outputs)  # (chip, output)
    noise = y.var(axis=0, ddof=1).mean()
    signal = y.mean(axis=0).var() - noise / len(y)
    at_full_voltage = signal_to_noise(devices).value
    assert math.sqrt(signal / noise) == pytest.approx(at_full_voltage, rel=0.15)  # 400 outputs, other voltages


def test_which_bundled_devices_are_warned_of() -> None:
    found = {
        name: signal_to_noise(Devices.from_model(calib.open_device(name)))
        for name in ("ddas04-rram", "siox-high-resistance", "ta-hfo2")
    }
    assert found["ddas04-rram"].value < 0.7
    assert next(iter(found["ddas04-rram"].alone)) == "stuck devices"
    assert "drowns the signal" in (found["ddas04-rram"].warning or "")
    assert "(alone: stuck devices" in (found["ddas04-rram"].warning or "")
    assert found["siox-high-resistance"].warning is None
    assert found["ta-hfo2"].warning is None


def test_the_noise_grows_with_the_voltage_where_laws_scatter() -> None:
    low, high = (signal_to_noise(Devices.from_model(device(), input_voltage=v)).value for v in (0.2, 0.5))
    assert low > 1.5 * high
