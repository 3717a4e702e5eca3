"""Drift and relaxation at a time, and their compensation by reference columns."""

import numpy as np
import pytest
import torch

from calib import device_model
from calib.errors import OptionError
from calib.nonidealities.base import Conditions
from calib.nonidealities.retention import Drift, Relaxation, Retention
from tests.nonidealities.nodes import retention_node
from tests.simple_devices import G_OFF, G_ON, range_only

N = 100_000


def ln_change(effect: Retention, g: float, seed: int = 1, device_seed: int | None = None) -> np.ndarray:
    own = None if device_seed is None else torch.Generator().manual_seed(device_seed)
    out = effect.conductance(torch.full((N,), g, dtype=torch.float64), torch.Generator().manual_seed(seed), own)
    return np.log(out.numpy() / g)


def of(node, time: float, **options: object) -> Retention:
    effect = Retention.from_device(range_only(retention=node), Conditions(time=time, **options))  # type: ignore[arg-type]
    assert effect is not None
    return effect


@pytest.mark.parametrize("time", [1e2, 1e4, 1e7])
def test_drift_is_a_power_law_of_each_device(time: float) -> None:
    """ln G falls by nu ln(t / t_0), nu normal with the mean and spread of the model; 4 standard errors."""
    change = ln_change(of(retention_node((0.05,), (0.02,)), time), 1e-6) / -np.log(time / 2.0)
    assert change.mean() == pytest.approx(0.05, abs=4 * 0.02 / np.sqrt(N))
    assert change.std() == pytest.approx(0.02, rel=4 / np.sqrt(2 * N) + 1e-3)


def test_a_device_keeps_its_exponent() -> None:
    """At two times the same device generator gives the same exponents, and so does another programming."""
    node = retention_node()
    first, later = (ln_change(of(node, t), 1e-6, 1, 7) / np.log(t / 2.0) for t in (1e3, 1e6))
    np.testing.assert_allclose(first, later, rtol=1e-9)
    np.testing.assert_array_equal(ln_change(of(node, 1e3), 1e-6, 1, 7), ln_change(of(node, 1e3), 1e-6, 2, 7))


def test_exponents_follow_the_conductance() -> None:
    node = retention_node((0.02, 0.06), (0.0, 0.0))
    factor = np.log(1e4 / 2.0)
    for g, nu in ((G_OFF, 0.02), (np.sqrt(G_OFF * G_ON), 0.04), (G_ON, 0.06), (10 * G_ON, 0.06)):
        assert ln_change(of(node, 1e4), float(g))[0] == pytest.approx(-nu * factor, rel=1e-9)


@pytest.mark.parametrize("relaxation", [False, True])
def test_at_time_zero_nothing_has_changed(relaxation: bool) -> None:
    g = torch.tensor([1e-6, 2e-6], dtype=torch.float64)
    effect = of(retention_node(relaxation=relaxation), 0.0, compensate=True)
    assert effect.conductance(g, torch.Generator()) is g
    assert float(effect.compensation((G_OFF, G_ON), torch.Generator())) == 1.0
    assert not effect.compensates


def test_before_the_reference_time_drift_has_not_begun() -> None:
    assert (ln_change(of(retention_node(), 1.5), 1e-6) == 0).all()


def test_relaxation_shifts_and_broadens_the_population() -> None:
    """Mean and standard deviation of G(t) - G follow the node's laws at the ranges' centres; 4 standard errors."""
    node = retention_node(relaxation=True)
    for time in (10.0, 1e5):
        effect = of(node, time)
        for row, g in enumerate(node["range_conductance"].values):
            a, b = node["shift_law"].values[row]
            c, d = node["broadening"].values[row]
            mean, sigma = a + b * np.log(time), np.sqrt(c * time ** (2 * d))
            change = g * np.expm1(ln_change(effect, float(g)))
            assert change.mean() == pytest.approx(mean, abs=4 * sigma / np.sqrt(N))
            assert change.std() == pytest.approx(sigma, rel=0.015)


def test_a_measured_relaxation() -> None:
    """The population's spread at the measured times is that of the data, in each range to 30 %, on average to 10 %."""
    tree = device_model.open_device("levy-relaxation")
    node = tree["retention"].to_dataset()
    ratio = []
    for column in (1, 2, 3, 4):
        effect = Retention.from_device(tree, Conditions(time=float(node["time"][column])))
        assert effect is not None
        assert effect.relaxation is not None
        for row, g in enumerate(node["range_conductance"].values):
            change = g * np.expm1(ln_change(effect, float(g)))
            ratio.append(change.std() / float(node["sigma"][row, column]))
    assert np.exp(np.mean(np.log(ratio))) == pytest.approx(1.0, abs=0.1)
    assert np.abs(np.log(ratio)).max() < 0.3


@pytest.mark.parametrize("nu", [0.03, -0.02])
def test_compensation_of_common_drift_is_exact(nu: float) -> None:
    effect = Retention(1e6, Drift(1.0, [nu], [0.0]), compensate=True)
    assert effect.compensates
    factor = effect.compensation((G_OFF, G_ON), torch.Generator())
    g = torch.linspace(G_OFF, G_ON, 50, dtype=torch.float64)
    torch.testing.assert_close(effect.conductance(g, torch.Generator()) * factor, g, rtol=1e-13, atol=0)
    assert factor.shape == ()


def test_compensation_of_devices_that_differ_removes_the_mean() -> None:
    """The factor is the mean of the references' conductances over that of what they became; it varies as 1/sqrt(n)."""
    effect = Retention(1e5, Drift(1.0, [0.05], [0.01]), compensate=True, references=200)
    factors = torch.stack([effect.compensation((G_OFF, G_ON), torch.Generator().manual_seed(k)) for k in range(200)])
    t = np.log(1e5)
    expected = np.exp(0.05 * t - (0.01 * t) ** 2 / 2)  # 1 / E[exp(-nu ln t)]
    spread = 0.01 * t * np.sqrt((1 + 1 / 3 * ((G_ON - G_OFF) / (G_ON + G_OFF)) ** 2) / 200) * expected
    assert float(factors.mean()) == pytest.approx(expected, abs=4 * spread / np.sqrt(200) + spread**2)
    assert float(factors.std()) == pytest.approx(spread, rel=4 / np.sqrt(400))
    uncompensated = Retention(1e5, effect.drift).compensation((G_OFF, G_ON), torch.Generator())
    assert float(uncompensated) == 1.0


def test_temperature_scales_the_exponent_by_its_activation_energy() -> None:
    node = retention_node(temperatures=(300.0, 330.0, 360.0))
    nu = {t: -ln_change(of(node, 1e4, temperature=t), 1e-6).mean() / np.log(1e4 / 2.0) for t in (300.0, 400.0)}
    for t, found in nu.items():
        expected = 4.0 * np.exp(-0.12 * 1.602176634e-19 / (1.380649e-23 * t))
        assert found == pytest.approx(expected, rel=0.02)


def test_a_temperature_without_data_is_refused() -> None:
    node = retention_node()
    with pytest.raises(OptionError, match="300 K was given, but .* does not state its temperature"):
        of(node, 1e4, temperature=300.0)
    node.attrs["temperature"] = 358.15
    with pytest.raises(OptionError, match=r"was measured at 358.15 K and has no activation energy; leave"):
        of(node, 1e4, temperature=300.0)
    assert of(node, 1e4, temperature=358.0).drift is not None
    with pytest.raises(OptionError, match="does not state its temperature"):
        of(retention_node(relaxation=True), 1e4, temperature=300.0)


@pytest.mark.parametrize("make", [
    lambda: Retention(-1.0), lambda: Retention(1.0, references=0), lambda: Drift(0.0, [0.1], [0.1]),
    lambda: Drift(1.0, [0.1], [-0.1]), lambda: Drift(1.0, [0.1, 0.2], [0.1], [0.0]),
    lambda: Drift(1.0, [float("nan")], [0.1]), lambda: Drift(1.0, [0.1, 0.1], [0.1, 0.1], [1.0, 0.0]),
    lambda: Relaxation([1e-6], 1.0, "linear", [[0, 0]], "power", [[0, 0]]),
    lambda: Relaxation([0.0], 1.0, "power", [[0, 0]], "power", [[0, 0]]),
])  # fmt: skip
def test_bad_values_are_refused(make) -> None:
    with pytest.raises(OptionError, match="retention|drift|relaxation"):
        make()
