"""Activation energy: recovered, per device and pooled, and not found where one temperature was measured."""

import numpy as np
import pytest
import xarray as xr
from scipy.constants import Boltzmann, elementary_charge

from calib.characteristics import activation as presentation
from calib.fitting.activation import activation_energy, activation_node, temperatures
from tests.synthetic import iv_dataset, reads_node

K_EV = Boltzmann / elementary_charge
T = np.array([280.0, 300.0, 320.0, 350.0])


def reads(
    energies: np.ndarray, *, noise: float = 0.02, at: np.ndarray = T, bend: float = 0.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ln G, temperature and device of devices with the given energies [eV], each at every temperature."""
    generator = np.random.default_rng(seed)
    temperature = np.tile(at, len(energies))
    device = np.repeat([f"d{k:02d}" for k in range(len(energies))], len(at))
    x = 1 / (K_EV * temperature)
    x0 = 1 / (K_EV * 300.0)
    level = np.repeat(-9 + 0.5 * generator.standard_normal(len(energies)), len(at))
    ln_g = level - np.repeat(energies, len(at)) * (x - x0) + bend * (x - x0) ** 2
    return ln_g + noise * generator.standard_normal(len(ln_g)), temperature, device


def node(**how) -> xr.Dataset:
    ln_g, temperature, device = reads(np.linspace(0.18, 0.22, 8), **how)
    return reads_node(np.exp(ln_g)[:, None], device=device, temperature=temperature, state="hrs")


def test_the_mean_of_the_devices_energies() -> None:
    truth = np.random.default_rng(3).normal(0.2, 0.03, 12)
    found = activation_energy(*reads(truth))
    np.testing.assert_allclose(found.own, truth, atol=0.02)
    assert found.low < truth.mean() < found.high
    assert found.value == pytest.approx(found.own.mean())
    assert found.spread == pytest.approx(truth.std(ddof=1), rel=0.2)
    assert found.linearity_p > 0.001


def test_one_device() -> None:
    found = activation_energy(*reads(np.array([0.2])))
    assert found.low < 0.2 < found.high
    assert found.stderr > 0
    assert np.isnan(found.spread)


def test_devices_at_one_temperature_each_are_pooled() -> None:
    ln_g, temperature, device = reads(np.full(40, 0.2), noise=0.0)
    pick = np.arange(40) * 4 + np.arange(40) % 4
    found = activation_energy(ln_g[pick], temperature[pick], device[pick])
    assert len(found.own) == 0
    assert found.low < 0.2 < found.high


def test_a_curved_plot_is_seen() -> None:
    warnings: list[str] = []
    found = activation_node(node(bend=0.05), warnings)
    assert found is not None
    assert float(found["linearity_p"][0]) < 1e-3
    assert "not a straight line against 1/T" in warnings[0]


def test_the_node_and_its_presentation() -> None:
    warnings: list[str] = []
    found = activation_node(node(), warnings)
    assert found is not None
    assert not warnings
    assert found["activation_energy"].attrs["units"] == "eV"
    assert float(found["activation_energy"][0]) == pytest.approx(0.2, abs=0.01)
    assert found["temperature"].values.tolist() == T.tolist()
    assert int(found["n_devices"][0]) == 8
    line = np.exp(float(found["ln_g_prefactor"][0]) - float(found["activation_energy"][0]) / (K_EV * T))
    np.testing.assert_allclose(found["g_median"].values[0], line, rtol=0.6)
    tree = xr.DataTree.from_dict({"/activation": found})
    assert "eV" in presentation.sections(found, tree)[0].rows[0][1]
    assert presentation.estimates(found, tree)[0].unit == "eV"
    assert presentation.key_numbers(found, tree)[0][2] == "hrs"
    assert len(presentation.figures(found, tree)) == 1
    drawn = presentation.resample(found, np.random.default_rng(0))
    assert drawn["activation_energy"].dims == found["activation_energy"].dims
    assert not np.array_equal(drawn["activation_energy"], found["activation_energy"])


def test_sweeps_are_read_at_the_reference_voltage() -> None:
    ln_g, temperature, device = reads(np.full(5, 0.3), noise=0.0)
    voltage = np.tile([0.05, 0.1, 0.2], (len(ln_g), 1))
    sweeps = iv_dataset(
        voltage, np.exp(ln_g)[:, None] * voltage, device=device, temperature=temperature, state="lrs",
        cycle=np.zeros(len(ln_g), dtype=np.int64),
    )  # fmt: skip
    found = activation_node(sweeps, [])
    assert found is not None
    np.testing.assert_allclose(found["activation_energy"].values, [0.3], rtol=1e-9)


@pytest.mark.parametrize(("temperature", "why"), [(300.0, "one temperature was measured"), (np.nan, "is stated")])
def test_without_temperatures(temperature: float, why: str) -> None:
    warnings: list[str] = []
    assert activation_node(reads_node(np.full((6, 2), 1e-5), temperature=temperature), warnings) is None
    assert warnings == [f"activation: not found, because {'no temperature ' if 'stated' in why else ''}{why}"]


def test_temperatures_that_wander_are_one() -> None:
    levels, group = temperatures(np.array([300.1, 350.0, 299.8, 350.6]))
    np.testing.assert_allclose(levels, [299.95, 350.3])
    assert group.tolist() == [0, 1, 0, 1]
