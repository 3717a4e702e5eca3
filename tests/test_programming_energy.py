"""Energy of programming against calculations by hand, real files, and what is said where it is not known."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

import calib
from calib import device_model, energy
from calib import nn as memristive
from calib.errors import ModelError, OptionError
from calib.evaluation import evaluate, open_results
from calib.fitting.pulse import pulse_node
from calib.programming_energy import chord_conductance, programming_energy, programming_figures
from calib.pulse_paths import cumulative, energy_to
from calib.training import train
from tests.pulse_trains import pulses
from tests.pulse_trains import train as train_of_pulses
from tests.simple_devices import G_OFF, G_ON, blobs, conductance_node, device, range_only

pytestmark = pytest.mark.usefixtures("one_thread")
ONE = {"units": "1"}


def trains(amplitudes: np.ndarray | None = None, devices: int = 1, **more) -> xr.Dataset:
    """Return a node pulses of devices that rise linearly from 1 to 3 uS in 20 pulses."""
    made = [train_of_pulses(np.random.default_rng(k), law="linear", u=0.0, steps=20, **more) for k in range(devices)]
    given = {}
    if amplitudes is not None:
        given = {"amplitude": np.tile(amplitudes, (devices, 1)), "width": np.full((devices, 21), 1e-6)}
    return pulses(made, ["potentiation"] * devices, [f"d{k}" for k in range(devices)], **given)


def model_of(node: xr.Dataset) -> xr.DataTree:
    found = pulse_node(node, [])
    assert found is not None
    return device_model.build({"conductance": conductance_node(), "pulse": found}, name="pulsed")


def writes_node(**counts: tuple[list[float], list[float]]) -> xr.Dataset:
    """Return a node writes of two targets, 1 and 2 uS; counts are (mean, standard error) by effort."""
    names = [name.replace("_", " ") for name in counts]
    mean, stderr = (np.array([pair[k] for pair in counts.values()]) for k in (0, 1))
    dims, zeros = ("effort", "target"), np.zeros(2)
    return xr.Dataset(
        {
            "effort": ("effort", names), "effort_mean": (dims, mean, ONE), "effort_stderr": (dims, stderr, ONE),
            "n_effort": (dims, np.full(mean.shape, 50)), "target": ("target", [1e-6, 2e-6], {"units": "S"}),
            "target_low": ("target", [0.9e-6, 1.9e-6], {"units": "S"}),
            "target_high": ("target", [1.1e-6, 2.1e-6], {"units": "S"}),
            "success_probability": ("target", zeros + 1, ONE),
            "success_probability_bound": (("target", "bound"), np.ones((2, 2)), ONE),
            "sigma": ("target", zeros, {"units": "S"}), "sigma_relative": ("target", zeros, ONE),
            "bias": ("target", zeros, {"units": "S"}), "n_writes": ("target", [50, 50]), "n_devices": ((), 50),
        },
        coords={"bound": ["low", "high"]}, attrs={"statement": "made up", "rule": "range"},
    )  # fmt: skip


def switching_node(v_set: list[float], v_reset: list[float], r_lrs: list[float]) -> xr.Dataset:
    n = len(v_set)
    return xr.Dataset(
        {
            "device_v_set": ("device", v_set, {"units": "V"}), "device_v_reset": ("device", v_reset, {"units": "V"}),
            "device_ln_r_lrs": ("device", np.log(r_lrs), ONE), "n_devices": ((), n), "n_switched": ((), n),
            "n_never": ((), 0), "yield_switched": ((), 1.0, ONE),
        },
        coords={"device": [f"d{k}" for k in range(n)]}, attrs={"statement": "made up", "method": "made up"},
    )  # fmt: skip


def test_the_path_of_a_train_by_hand() -> None:
    """1, 2, 2, 4 uS by pulses of 1 V^2 us: 1.5, 2 and 3 pJ; 3 uS lies in the middle of the last pulse."""
    g = np.array([1e-6, 2e-6, 2e-6, 4e-6])
    spent = cumulative(np.array([1e-6, 1e-6, 1e-6]), g)
    np.testing.assert_allclose(spent, [0, 1.5e-12, 3.5e-12, 6.5e-12])
    wanted = np.array([0.5e-6, 1e-6, 1.5e-6, 2e-6, 3e-6, 4e-6, 9e-6])
    np.testing.assert_allclose(
        energy_to(wanted, g, spent), np.array([0, 0, 0.75, 1.5, 5.0, 6.5, 6.5]) * 1e-12, rtol=1e-12
    )


def test_stated_pulses_by_hand() -> None:
    """20 pulses of 2 V and 1 us from 1 to 3 uS: V^2 t n mean(G) = 160 pJ to the end, 10 pulses at 1.5 uS half-way."""
    found = programming_energy(model_of(trains()), programming_figures("voltage=2,width=1e-6"))
    assert found.source == "pulse"
    assert found.of(np.array([3e-6]))[0] == pytest.approx(4e-6 * 20 * 2e-6, rel=1e-6)
    assert found.of(np.array([2e-6]))[0] == pytest.approx(4e-6 * 10 * 1.5e-6, rel=1e-6)
    assert found.of(np.array([1e-6, 0.5e-6])).tolist() == pytest.approx([0, 0], abs=1e-18)
    total, (low, high) = found.total([np.array([[3e-6, 2e-6]]), np.array([1e-6])])
    assert total == pytest.approx(4e-6 * (40e-6 + 15e-6), rel=1e-6)
    assert np.isnan([low, high]).all()  # one device says nothing about others


def test_measured_pulses_by_hand() -> None:
    """Amplitudes that rise from 1 to 3 V: sum V_k^2 t (G_k + G_(k-1)) / 2, without any stated figure."""
    volts = np.linspace(1, 3, 21)
    tree = model_of(trains(volts))
    found = programming_energy(tree)
    assert found.source == "energy"
    g = 1e-6 + 2e-6 * np.arange(21) / 20
    expected = float(np.sum(volts[1:] ** 2 * 1e-6 * (g[1:] + g[:-1]) / 2))
    assert found.of(np.array([3e-6]))[0] == pytest.approx(expected, rel=1e-9)
    device_model.check(tree)


def test_the_interval_is_that_of_the_mean_over_devices() -> None:
    """Devices whose conductances differ by a factor: the interval of the mean follows its standard error."""
    random, n = np.random.default_rng(4), 40
    scale = np.exp(0.3 * random.standard_normal(n))
    made = [train_of_pulses(random, law="linear", u=0.0, steps=20, start=s * 1e-6, change=s * 2e-6) for s in scale]
    node = pulses(made, ["potentiation"] * n, [f"d{k}" for k in range(n)])
    found = programming_energy(model_of(node), {"voltage": 1.0, "width": 1e-6})
    by_device = 1e-6 * 20 * 2e-6 * scale  # all pulses of each train
    total, (low, high) = found.total([np.full(100, 9e-6)])
    assert total == pytest.approx(100 * np.mean(by_device), rel=1e-6)
    half = 100 * 1.96 * by_device.std(ddof=1) / np.sqrt(n)
    assert (high - low) / 2 == pytest.approx(half, rel=0.1)


def test_writes_by_hand() -> None:
    """2 set pulses of 2 V and 3 reset pulses of 3 V, 1 us: the first reset meets 2 uS, the others the target."""
    node = writes_node(set_pulses=([2.0, 4.0], [0.0, 0.0]), reset_pulses=([3.0, 0.5], [0.0, 0.0]))
    tree = range_only(writes=node)
    found = programming_energy(tree, programming_figures("set_voltage=2, reset_voltage=3, width=1e-6"))
    assert found.source == "writes"
    first = 4e-6 * 2 * 1e-6 + 9e-6 * (2e-6 + 2 * 1e-6)
    second = 4e-6 * 4 * 2e-6 + 9e-6 * 0.5 * 2e-6
    np.testing.assert_allclose(found.energy, [first, second], rtol=1e-12)
    total, bound = found.total([np.array([1e-6, 1.5e-6, 2e-6])])
    assert total == pytest.approx(1.5 * (first + second), rel=1e-12)
    assert bound == pytest.approx((total, total), rel=1e-12)


def test_counts_that_are_uncertain_widen_the_interval() -> None:
    node = writes_node(set_pulses=([5.0, 5.0], [0.5, 0.5]), reset_pulses=([0.0, 0.0], [0.0, 0.0]))
    found = programming_energy(range_only(writes=node), {"voltage": 1.0, "width": 1e-6})
    total, (low, high) = found.total([np.array([2e-6])])
    assert (high - low) / total == pytest.approx(2 * 1.96 * 0.1, rel=0.1)


def test_switching_voltages_by_hand() -> None:
    """One reset in the low-resistance state and one set at the target, with the device's own voltages."""
    tree = range_only(switching=switching_node([1.0, 2.0], [2.0, 2.0], [5e5, 5e5]))
    found = programming_energy(tree, {"width": 1e-7})
    assert found.source == "switching"
    expected = [np.mean([1.0, 4.0]) * 1e-7 * g + 4e-7 * 2e-6 for g in (G_OFF, G_ON)]
    np.testing.assert_allclose(found.energy[[0, -1]], expected, rtol=1e-9)
    stated = programming_energy(tree, {"width": 1e-7, "set_voltage": 3.0, "reset_width": 2e-7})
    np.testing.assert_allclose(stated.energy[-1], 9e-7 * G_ON + 8e-7 * 2e-6, rtol=1e-9)
    assert "least estimate" in stated.statement


def test_the_current_of_a_pulse_follows_the_law_to_its_validity() -> None:
    """Poole-Frenkel: G exp(gamma (sqrt V - sqrt V_ref)), ln gamma = 0.05 ln R, up to 0.5 V."""
    tree = device()
    gamma = np.exp(0.05 * np.log(1 / G_ON))
    factor = np.exp(gamma * (np.sqrt([0.3, 0.5, 0.5]) - np.sqrt(0.1)))
    found = chord_conductance(tree, np.full(3, G_ON), np.array([0.3, 0.5, 4.0]))
    np.testing.assert_allclose(found, G_ON * factor, rtol=1e-9)
    np.testing.assert_allclose(chord_conductance(range_only(), np.array([1e-6]), 3.0), [1e-6])


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ModelError, match="no pulses, no writes and no switching voltages"):
        programming_energy(range_only(), {"voltage": 1.0, "width": 1.0})
    with pytest.raises(ModelError, match="do not hold amplitude and width of a pulse; state them"):
        programming_energy(calib.open_device("wang-yflash"), {"width": 1e-4})
    with pytest.raises(ModelError, match="not their reset_voltage, reset_width; state them"):
        programming_energy(calib.open_device("levy-write-verify"), {"set_voltage": 1.0, "set_width": 1.0})
    with pytest.raises(ModelError, match="normalised, not in siemens"):
        programming_energy(calib.open_device("gong-reram"), {"voltage": 1.0, "width": 1.0})
    with pytest.raises(ModelError, match="not the width of a pulse"):
        programming_energy(calib.open_device("xiao2025-multilevel"))
    with pytest.raises(ModelError, match="do not count set and reset pulses"):
        programming_energy(range_only(writes=writes_node(reads=([1.0, 1.0], [0.0, 0.0]))))


def test_figures_that_are_none_are_refused() -> None:
    assert programming_figures(" reset_voltage=-2.5, width=1e-7") == {"reset_voltage": 2.5, "width": 1e-7}
    assert programming_figures("") == programming_figures(None) == {}
    for text in ("volts=1", "width=0", "width=soon", "width"):
        with pytest.raises(OptionError, match="for example voltage=2,width=1e-7"):
            programming_figures(text)


def test_a_bundled_train_agrees_with_its_band() -> None:
    """V^2 t n times the mean of the median conductance along the train, within what the devices differ."""
    tree = calib.open_device("wang-yflash")
    found = programming_energy(tree, {"voltage": 5.0, "width": 1e-4})
    node = tree["pulse"].to_dataset().sel(polarity="potentiation")
    median = node["band"].sel(band_quantile=0.5)
    whole = tree["pulse"].to_dataset()
    count = float(whole["sequence_pulses"].values[whole["sequence_polarity"].values == "potentiation"].mean())
    expected = 25 * 1e-4 * count * float(np.trapezoid(median.values, median["band_share"].values))
    assert found.energy[-1] == pytest.approx(expected, rel=0.05)
    assert found.n == 96


def test_a_real_file_with_amplitudes_and_widths(measurements) -> None:
    files = sorted((measurements / "timbie-fib3").glob("*Integ1.0.csv"))
    tree = calib.fit(calib.read(files))
    found = programming_energy(tree)
    assert (found.source, found.n) == ("energy", 3)
    raw = np.genfromtxt(files[0], delimiter=",")
    up = raw[: np.flatnonzero(raw[:, 0] < 0)[0]]  # 1000 pulses of about 9 V and 0.5 us between readings
    g = (up[:, 4:] / up[:, 3:4]).mean(axis=1)
    whole = np.sum(up[1:, 0] ** 2 * up[1:, 1] * up[1:, 2] * (g[1:] + g[:-1]) / 2)
    node = tree["pulse"].to_dataset()
    first = (node["pulse_energy_device"] == files[0].stem) & (node["pulse_energy_polarity"] == "potentiation")
    assert float(node["pulse_energy"].values[first.values].max()) == pytest.approx(whole, rel=1e-6)


def test_evaluation_holds_it_for_each_network_and_device(tmp_path) -> None:
    data = blobs()
    pulsed = model_of(trains())
    run = train(
        pulsed, output=tmp_path / "run", dataset=data, layers=(6, 3), epochs=1, networks=2, validation_repeats=1
    )
    figures = "voltage=2,width=1e-6"
    found = evaluate(
        run, [pulsed, range_only("unknown"), "ideal"], chips=1, data=data, programming=figures,
        output=tmp_path / "results.nc",
    )  # fmt: skip
    assert found["energy_programming"].dims == ("network", "device")
    assert found["energy_programming"].attrs["units"] == "J"
    cost = programming_energy(pulsed, programming_figures(figures))
    for index in range(2):
        parts = energy.targets(run.network(index, run.devices()))
        expected = sum(float(cost.of(part).sum()) for part in parts)
        assert float(found["energy_programming"][index, 0]) == pytest.approx(expected, rel=1e-9)
        assert sum(part.size for part in parts) == 2 * 7 * 3
    assert np.isnan(found["energy_programming"].values[:, 1:]).all()
    statements = found["programming_statement"].values.tolist()
    assert statements[0].startswith("trains of pulses of 1 device(s), of stated amplitude 2 V")
    assert "'unknown' is not known: it has no pulses" in statements[1]
    assert "ideal" in statements[2]
    assert json.loads(found.attrs["options"])["programming"] == {"voltage": 2.0, "width": 1e-6}
    xr.testing.assert_identical(open_results(tmp_path / "results.nc"), found)
    without = evaluate(run, chips=1, data=data)
    assert "energy_programming" not in without


def test_a_convolution_is_programmed_once() -> None:
    """Its devices are programmed once, however often they are read."""
    layer = memristive.MemristiveConv2d(1, 2, 3, memristive.Devices.from_model(range_only()))
    with torch.no_grad():
        (found,) = energy.targets(layer)
    assert found.size == 2 * 10 * 2
