"""The CrossSim card: the table of currents, and CrossSim itself where it is installed."""

import ast
import importlib.util

import numpy as np
import pytest

from calib.device_model import shape_law
from calib.exporters.crosssim import current_table, member
from calib.iv_models import iv_model
from calib.sampling import parameters_at
from tests import simple_devices
from tests.exporters.simulator_devices import document, drifting, written


@pytest.fixture
def crosssim() -> None:
    if importlib.util.find_spec("simulator") is None or importlib.util.find_spec("simulator.cores") is None:
        pytest.skip("CrossSim is not installed")


def current(tree, voltage: np.ndarray, conductance: np.ndarray) -> np.ndarray:
    """Return the current of typical devices by calib."""
    law = shape_law(tree)
    parameters = parameters_at(law, -np.log(conductance), np.zeros((len(conductance), len(law.parameters))))
    columns = {name: values[:, None] for name, values in parameters.items()}
    return iv_model(law.iv_model).current(voltage, xp=np, **columns)


def test_the_table_between_its_points_is_the_law() -> None:
    tree = drifting()
    part = current_table(tree)
    assert part is not None
    generator = np.random.default_rng(0)
    g = generator.uniform(5e-7, 2.5e-6, 40)
    v = np.linspace(0.005, 0.5, 33)
    rows = np.interp(-np.log(g), part["ln_resistance"], np.arange(len(part["ln_resistance"])))
    columns = np.interp(np.sqrt(v), np.sqrt(part["voltage"]), np.arange(len(part["voltage"])))
    i, j = np.minimum(rows.astype(int), part["ratio"].shape[0] - 2), np.minimum(columns.astype(int), 63)
    a, b = (rows - i)[:, None], columns - j
    t = part["ratio"]
    low = t[i][:, j] * (1 - b) + t[i][:, j + 1] * b
    high = t[i + 1][:, j] * (1 - b) + t[i + 1][:, j + 1] * b
    np.testing.assert_allclose((low * (1 - a) + high * a) * g[:, None] * v, current(tree, v, g), rtol=1e-3)


def test_ohmic_devices_need_no_table() -> None:
    assert document("crosssim", simple_devices.range_only())["current"] is None
    ast.parse(member.contents(simple_devices.range_only())["resistors_crosssim.py"])


def test_programming_drift_and_noise_in_crosssim(crosssim, tmp_path) -> None:
    from simulator import AnalogCore  # pyright: ignore

    tree = drifting(0.1)
    del tree["stuck"], tree["iv"]
    module = written("crosssim", tree, tmp_path)
    params = module.parameters()
    device = params.xbar.device
    assert (device.Rmin, device.Rmax) == pytest.approx((4e5, 2e6))
    core = AnalogCore(np.ones((4, 4)), params=params)
    assert np.all(np.isfinite(core.matvec(np.ones(4))))
    errors = module.DEVICE(device, device.programming_error)
    full = np.ones((200, 200))  # G_on
    ln_r = -np.log(errors.programming_error(full))
    assert ln_r.std() == pytest.approx(0.1, rel=0.03)
    assert np.exp(ln_r).mean() == pytest.approx(1, rel=0.005)
    assert errors.read_noise(full).std() == pytest.approx(0.02 * 2.5**-0.5, rel=0.03)
    device.time = 1e4
    later = np.log(errors.drift_error(full, 1e4) / np.exp(-ln_r.mean()))
    assert later.mean() == pytest.approx(-0.02 * np.log(1000), abs=0.01)
    assert module.parameters(time=1e4).xbar.device.drift_error.enable


def test_stuck_devices_in_crosssim(crosssim, tmp_path) -> None:
    tree = drifting(0.0)
    del tree["programming"], tree["iv"]
    module = written("crosssim", tree, tmp_path)
    device = module.parameters().xbar.device
    found = module.DEVICE(device, device.programming_error).programming_error(np.full((300, 300), 0.5))
    assert np.mean(~np.isclose(found, 0.5)) == pytest.approx(0.1, abs=0.005)


def test_currents_in_crosssim(crosssim, tmp_path) -> None:
    """CrossSim's matrix-vector product of a nonlinear array is calib's sum of currents."""
    from simulator import AnalogCore  # pyright: ignore

    tree = drifting()
    for node in ("programming", "stuck", "retention", "read_noise"):
        del tree[node]
    module = written("crosssim", tree, tmp_path)
    params = module.parameters(read_voltage=0.4)
    device = module.DEVICE(params.xbar.device, params.xbar.device.nonlinear_IV)
    generator = np.random.default_rng(1)
    g = generator.uniform(5e-7, 2.5e-6, (6, 5))
    v = generator.uniform(-0.4, 0.4, 5)
    found = device.nonlinear_current_sum(g * 4e5, v / 0.4) * 0.4 / 4e5
    truth = np.array([sum(current(tree, np.array([abs(x)]), np.array([y]))[0, 0] * np.sign(x)
                          for x, y in zip(v, row, strict=True)) for row in g])  # fmt: skip
    np.testing.assert_allclose(found, truth, rtol=2e-3, atol=1e-3 * np.abs(truth).max())
    batch = device.nonlinear_current_sum(g * 4e5, np.stack([v, -v], axis=1) / 0.4) * 0.4 / 4e5
    np.testing.assert_allclose(batch, np.stack([found, -found], axis=1))
    core = AnalogCore(generator.uniform(-1, 1, (6, 5)), params=params)
    assert np.isfinite(core.matvec(np.ones(5))).all()
    with pytest.raises(ValueError, match="known up to"):
        module.parameters(read_voltage=2.0)
