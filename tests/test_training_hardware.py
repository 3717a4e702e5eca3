"""Trainings whose biases are digital, and whose hidden layers are read at a lower voltage."""

import json
import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from calib import runs
from calib.cli import main
from calib.crossbar.devices import Devices
from calib.crossbar.layers import memristive_layers
from calib.energy import synapses
from calib.errors import OptionError
from calib.evaluation import chip_performance, evaluate
from calib.moment_step import MomentStep, moments_of
from calib.networks import build_network
from calib.report_record import commands
from calib.training import resume_run
from calib.training_step import drawn_pass
from tests.simple_devices import device, everything
from tests.test_training import DATA, assert_same, short

pytestmark = pytest.mark.usefixtures("one_thread")

IMAGES, LABELS = torch.tensor(DATA.test_images), torch.tensor(DATA.test_labels)
NEW = {"bias": "digital", "hidden_voltage": 0.1}


def test_devices_at_a_lower_voltage_are_the_same_devices() -> None:
    devices = Devices.from_model(everything())
    lower = devices.at(0.1)
    assert lower is devices.at(0.1)
    assert devices.at(0.5) is devices
    assert (lower.input_voltage, lower.g_off, lower.stages) == (0.1, devices.g_off, devices.stages)
    assert lower.full_current == pytest.approx(0.1 * devices.g_on, rel=0.01)  # the law is anchored at 0.1 V
    for voltage in (0.0, -0.1, 0.6, math.nan):
        with pytest.raises(OptionError, match="expected more than 0, and at most the input voltage of 0.5 V"):
            devices.at(voltage)


def test_hidden_layers_and_their_bias_lines_are_at_the_hidden_voltage() -> None:
    """The currents' power in the second layer is that of the law at 0.1 V times the input."""
    devices = Devices.from_model(device(), tolerance=1e-9)
    model = build_network((6, 4, 3), "lowest", devices, (0,), None, "line", 0.1)
    layers = memristive_layers(model)
    assert [layer.devices.input_voltage for layer in layers] == [0.5, 0.1]
    measured = chip_performance(model, IMAGES, LABELS, seed=1, chips=range(2))
    usual = build_network((6, 4, 3), "lowest", devices, (0,))
    at_half = chip_performance(usual, IMAGES, LABELS, seed=1, chips=range(2))
    np.testing.assert_allclose(measured.power[:, 0], at_half.power[:, 0], rtol=1e-6)  # the first is as it was
    hidden = torch.sigmoid(torch.zeros(1, 4))
    (layer,) = layers[1:]
    layer.generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        power = drawn_pass(layer, [layer], hidden, torch.zeros(1, dtype=torch.int64), True)[1]
        g, _ = layer.mapping.conductances(layer.weight, devices.g_off, devices.g_on)
        own = torch.Generator().manual_seed(3)
        deviates = devices.conduction.deviates(tuple(g.shape), own, g.dtype)
        v = 0.1 * functional.pad(hidden, (0, 1), value=1.0)[0]
        parameters = devices.conduction.parameters(g, deviates)
        currents = devices.conduction.law.current(v[:, None], xp=torch, **parameters)
    assert float(torch.as_tensor(power)) == pytest.approx(float((v[:, None] * currents).sum()), rel=1e-4)


@pytest.mark.parametrize("bias", ["line", "digital"])
def test_moments_of_layers_at_different_voltages_are_those_of_drawn_devices(bias: str) -> None:
    """Of a second layer whose inputs are the same for every image; 2000 chips."""
    devices = Devices.from_model(device())
    model = build_network((6, 4, 3), "lowest", devices, (0,), None, bias, 0.3)  # 0.15 V: at 0.1 V there is no spread
    moments = moments_of(model)
    assert moments[1].unit == pytest.approx(0.6 * moments[0].unit)
    layers = memristive_layers(model)
    with torch.no_grad():
        layers[0].weight.zero_()
    layers[0].devices = devices.ideal()
    of_first = moments_of(torch.nn.Sequential(layers[0]))
    for index, layer in enumerate(layers):
        layer.generator = torch.Generator().manual_seed(index)
    x = torch.rand(1, 6, generator=torch.Generator().manual_seed(2))
    outputs, powers = [], []
    with torch.no_grad():
        for _ in range(2000):
            _, power, logits = drawn_pass(model, layers, x, torch.zeros(1, dtype=torch.int64), True)
            outputs.append(logits[0])
            powers.append(torch.as_tensor(power))
        drawing = MomentStep((*of_first, moments[1]), torch.Generator().manual_seed(4))
        known, mean_power = drawing.outputs(model, x.repeat(2000, 1))
    drawn = torch.stack(outputs)
    spread = drawn.std(0)
    torch.testing.assert_close(known.mean(0), drawn.mean(0), rtol=0.01, atol=float(6 * spread.max() / 2000**0.5))
    torch.testing.assert_close(known.std(0), spread, rtol=0.1, atol=0)
    assert float(mean_power) == pytest.approx(float(torch.stack(powers).mean()), rel=0.01)


def test_the_options_are_those_of_the_networks_of_a_run(tmp_path) -> None:
    """After training, opening and evaluating; interrupted or not."""
    whole = short(tmp_path / "whole", everything(), epochs=3, **NEW)
    options = runs.open_run(whole.path).options
    assert {name: getattr(options, name) for name in NEW} == NEW
    model = whole.network(0, whole.devices())
    layers = memristive_layers(model)
    assert [layer.devices.input_voltage for layer in layers] == [0.5, 0.1]
    assert all(layer.bias is not None and not layer.bias_on_line for layer in layers)
    assert float(layers[0].bias.detach().abs().max()) > 0  # type: ignore[union-attr]
    assert synapses(model) == 6 * 4 + 4 * 3
    found = evaluate([whole.path], chips=3, data=DATA, output=tmp_path / "results.nc")
    measured = chip_performance(model, IMAGES, LABELS, seed=0, chips=range(3))
    np.testing.assert_allclose(np.squeeze(found["error"].values), 1 - measured.accuracy)

    def stop(network: int, row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        short(tmp_path / "cut", everything(), progress=stop, epochs=3, **NEW)
    assert_same(whole, resume_run(tmp_path / "cut", data=DATA))


def test_a_report_says_the_options(tmp_path) -> None:
    run = short(tmp_path / "run", everything(), epochs=1, **NEW)
    (line, *_) = commands([], "report.html", {"run": run.record})
    assert "--bias digital" in line
    assert "--hidden-voltage 0.1" in line
    usual = short(tmp_path / "usual", everything(), epochs=1)
    (line, *_) = commands([], "report.html", {"run": usual.record})
    assert all(option not in line for option in ("--bias", "--hidden"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bias": "none"}, "bias is 'none'; expected one of line, digital"),
        ({"hidden_voltage": 0.6}, "hidden_voltage is 0.6 V; expected more than 0, and at most the input voltage"),
        ({"hidden_voltage": 0.0}, "hidden_voltage is 0 V; expected more than 0"),
        (
            {"network": "tests.test_training_networks:make", "layers": None, "hidden_voltage": 0.1},
            "it is for fully connected layers",
        ),
    ],
)
def test_options_that_cannot_be_used_are_refused(tmp_path, options, message) -> None:
    with pytest.raises(OptionError, match=message):
        short(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_the_command_line_and_an_experiment_take_the_options(tmp_path, capsys) -> None:
    blob = tmp_path / "blobs.npz"
    np.savez(blob, train_images=DATA.train_images, train_labels=DATA.train_labels, test_images=DATA.test_images,
             test_labels=DATA.test_labels)  # fmt: skip
    asked = ["train", "--device", "siox-high-resistance", "--data", str(blob), "--layers", "6-4-3", "--epochs", "1"]
    asked += ["--bias", "digital", "--hidden-voltage", "0.1"]
    experiment = tmp_path / "experiment.yaml"
    assert main([*asked, "-o", str(tmp_path / "run"), "--write-experiment", str(experiment), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)["options"]
    assert {name: shown[name] for name in NEW} == NEW
    assert main(["train", "--experiment", str(experiment), "-o", str(tmp_path / "again"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["options"] == shown
