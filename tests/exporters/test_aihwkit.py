"""The aihwkit card: its numbers, by aihwkit's rules, and a run of aihwkit where it is installed."""

import ast
import warnings

import numpy as np
import pytest

from calib.exporters import _numbers
from calib.exporters._pulse_response import directions
from calib.exporters.aihwkit import member, pulsed_device, train
from tests import simple_devices
from tests.exporters.simulator_devices import document, drifting, pulsed, written


@pytest.fixture
def aihwkit():
    """Skip where aihwkit is absent, or was built for another torch than the one that is installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = pytest.importorskip("aihwkit", reason="aihwkit is not installed", exc_type=ImportError)
        tiles = pytest.importorskip(
            "aihwkit.simulator.tiles", reason="aihwkit does not fit this torch", exc_type=ImportError
        )
        torch = pytest.importorskip("torch")
        from aihwkit.simulator.configs import ConstantStepDevice, SingleRPUConfig  # pyright: ignore

        try:
            tiles.AnalogTile(1, 1, SingleRPUConfig(device=ConstantStepDevice())).set_weights(torch.zeros(1, 1))
        except RuntimeError as error:
            pytest.skip(f"aihwkit was built for another torch: {error}")
        yield module


@pytest.mark.parametrize(("law", "k_up", "k_down"), [("soft-bounds", 3.0, 1.5), ("soft-bounds", -2.0, 0.4),
                                                     ("linear", 0.0, 0.0), ("power", 1.8, 0.5)])  # fmt: skip
def test_pulses_of_the_device_follow_the_law(law, k_up, k_down) -> None:
    tree = pulsed(law, noise=1e-10, k_up=k_up, k_down=k_down)
    device = pulsed_device(tree)
    assert device is not None
    assert device["curve_error"] < 2e-3
    low, high = device["g_min"], device["g_max"]
    for polarity, direction in directions(tree).items():
        begin = 2 * (direction.start - low) / (high - low) - 1
        w = train(device["class"], device["parameters"], polarity, begin, direction.pulses)
        g = low + (w + 1) * (high - low) / 2
        truth = direction.at(np.arange(len(w)))
        assert np.abs(g - truth).max() < 4e-3 * (high - low)
    assert device["class"] == ("PiecewiseStepDevice" if law == "power" else "LinearStepDevice")


def test_soft_bounds_step_by_step() -> None:
    """w(n) = w_b - (w_b - w_s) exp(-n / A), whatever aihwkit calls its parameters."""
    direction = directions(pulsed(noise=0.0))["potentiation"]
    device = pulsed_device(pulsed(noise=0.0))
    assert device is not None
    p = device["parameters"]
    k = np.sinh(direction.u)
    bound = -1 + 2 / (1 - np.exp(-k))
    assert 1 / p["gamma_up"] == pytest.approx(bound, rel=2e-3)
    scale_up = p["dw_min"] * (1 + min(p["up_down"], 0.0))
    assert scale_up == pytest.approx(bound * (1 - np.exp(-k / 60)), rel=2e-3)


def test_noise_and_spreads_of_pulses() -> None:
    tree = pulsed(noise=2e-8)
    device = pulsed_device(tree)
    assert device is not None
    p = device["parameters"]
    step = p["dw_min"] * 2e-6  # half of the range is 2 uS
    found = directions(tree)
    written_noise = np.sqrt(np.mean([d.write_noise**2 for d in found.values()]))
    assert written_noise == pytest.approx(2e-8, rel=0.25)
    relative = p["dw_min_std"] * (1 if not p["mult_noise"] else found["potentiation"].rms_step() * 4e-6 / step)
    assert relative * step == pytest.approx(written_noise, rel=0.3)
    assert p["w_max"] == -p["w_min"] == 1
    assert 0 <= p["w_min_dtod"] < 0.2


def test_one_direction_is_not_a_device_and_is_said() -> None:
    tree = pulsed()
    node = tree["pulse"].to_dataset().isel(polarity=[0])
    tree["pulse"] = node
    assert pulsed_device(tree) is None
    assert any("both directions" in sentence for sentence in member.omits(tree))


def test_the_document_holds_the_numbers_of_the_model() -> None:
    found = document("aihwkit", drifting())
    assert found["conductance"] == {"g_off": 5e-7, "g_on": 2.5e-6, "source": "conductance range"}
    assert found["programming"]["sigma"] == [0.2, 0.4]
    assert found["drift"]["exponent_mean"] == [0.06, 0.02]
    assert found["read_noise"]["relative"] == pytest.approx(0.02)
    assert found["stuck"]["probability"] == 0.1
    assert found["left_out"] == member.omits(drifting())
    assert any("I-V law" in sentence for sentence in found["left_out"])


def test_the_range_is_found_in_what_there_is() -> None:
    full = drifting()
    for node, source in (("conductance", "conductance range"), ("programming", "after programming"), ("iv", "curves")):
        window = _numbers.conductance_range(full)
        assert window is not None
        assert source in window.source
        del full[node]
    assert _numbers.conductance_range(full) is None
    assert document("aihwkit", full)["conductance"] is None


def test_the_module_is_python_that_names_its_data() -> None:
    texts = member.contents(simple_devices.range_only('x"; import os #'))
    assert list(texts) == ["x-import-os.aihwkit.json", "x_import_os_aihwkit.py"]
    source = texts["x_import_os_aihwkit.py"]
    ast.parse(source)
    assert 'DATA_FILE = "x-import-os.aihwkit.json"' in source
    assert "pyright" not in source


def test_inference_in_aihwkit(aihwkit, tmp_path) -> None:
    """Programming spreads ln R by sigma and keeps the mean of R; drift and read noise are the model's."""
    import torch

    tree = drifting(0.1)
    tree["stuck"] = tree["stuck"].to_dataset().assign(probability=((), 0.0, {"units": "1"}))
    module = written("aihwkit", tree, tmp_path)
    noise = module.inference_config().noise_model
    target = torch.full((200, 200), 2.5)  # uS
    programmed = noise.apply_programming_noise_to_conductance(target)
    ln_r = -torch.log(programmed)
    assert float(ln_r.std()) == pytest.approx(0.1, rel=0.03)
    assert float((1 / programmed).mean()) == pytest.approx(0.4, rel=0.005)
    nu = noise.generate_drift_coefficients(target)
    assert float(nu.mean()) == pytest.approx(0.02, abs=2e-4)
    assert float(nu.std()) == pytest.approx(0.005, rel=0.03)
    later = noise.apply_drift_noise_to_conductance(target, torch.zeros_like(target), 1e4)
    assert float((later / 2.5).std()) == pytest.approx(0.02 * 2.5**-0.5, rel=0.03)
    drifted = noise.apply_drift_noise_to_conductance(target, torch.full_like(target, 0.02), 1e4)
    assert float(drifted.mean()) == pytest.approx(2.5 * 1000**-0.02, rel=1e-3)


def test_a_network_runs_in_aihwkit(aihwkit, tmp_path) -> None:
    import torch
    from aihwkit.nn import AnalogLinear  # pyright: ignore

    module = written("aihwkit", drifting(), tmp_path)
    layer = AnalogLinear(16, 8, bias=False, rpu_config=module.inference_config())
    layer.eval()
    before = layer.get_weights()[0].clone()
    layer.program_analog_weights()
    layer.drift_analog_weights(3600.0)
    after = layer.get_weights()[0]
    assert torch.isfinite(layer(torch.ones(2, 16))).all()
    assert not torch.equal(before, after)


@pytest.mark.parametrize("law", ["soft-bounds", "power"])
def test_pulses_in_aihwkit(aihwkit, tmp_path, law) -> None:
    """The trains of aihwkit's own tiles, without noise, are those that the card was computed with."""
    import torch
    from aihwkit.simulator.tiles import AnalogTile  # pyright: ignore

    tree = pulsed(law, k_up=1.8 if law == "power" else 3.0, k_down=0.5 if law == "power" else 1.5)
    device = pulsed_device(tree)
    assert device is not None
    module = written("aihwkit", tree, tmp_path)
    config = module.training_config()
    for name in ("w_min_dtod", "w_max_dtod", "dw_min_std", "dw_min_dtod", "up_down_dtod", "write_noise_std"):
        setattr(config.device, name, 0.0)
    config.update.desired_bl = 1
    config.update.update_management = config.update.update_bl_management = False
    for polarity, sign in (("potentiation", 1.0), ("depression", -1.0)):
        tile = AnalogTile(1, 1, config)
        tile.set_learning_rate(1.0)
        tile.set_weights(torch.tensor([[-sign]]))
        path = [tile.get_weights()[0].item()]
        for _ in range(60):
            tile.update(torch.tensor([[1.0]]), torch.tensor([[-sign]]))
            path.append(tile.get_weights()[0].item())
        expected = train(device["class"], device["parameters"], polarity, -sign, 60)
        np.testing.assert_allclose(path, expected, atol=2e-5)
