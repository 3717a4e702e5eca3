"""Pulse response: the truth is recovered with honest errors, and what data cannot tell is said."""

import numpy as np
import pytest

import calib
from calib import device_model
from calib.fitting.pulse import pulse_node
from calib.fitting.pulse_fit import fit_law
from calib.fitting.pulse_numbers import GRID, NEUROSIM_LABEL, deviation
from calib.fitting.pulse_trains import joined, trains_of
from calib.pulse_laws import LAWS
from tests.pulse_trains import curve, population, pulses, train

TRUE_U = {"linear": 0.0, "soft-bounds": np.arcsinh(3.0), "exponential-step": 2.0, "power": np.log(1.8)}


def flat(parts, **more):
    names = [f"d{k}" for k in range(len(parts))]
    return joined(trains_of(pulses(parts, ["potentiation"] * len(parts), names, **more)))


@pytest.mark.parametrize("law", LAWS)
def test_a_smooth_train_gives_its_own_parameters(law):
    generator = np.random.default_rng(0)
    part = train(generator, law, TRUE_U[law], 50, other=1e-13)
    fit = fit_law(LAWS[law], flat([part]))
    assert fit.start[0] == pytest.approx(1e-6, rel=1e-5)
    assert fit.change[0] == pytest.approx(2e-6, rel=1e-5)
    assert fit.u[0] == pytest.approx(TRUE_U[law], abs=1e-4)
    aicc = {name: fit_law(other, flat([part])).aicc[0] for name, other in LAWS.items()}
    assert min(aicc, key=aicc.__getitem__) == law


@pytest.mark.parametrize(
    ("write", "other", "reads"), [(2e-8, 2e-8, 1), (2e-8, 4e-8, 4), (0.0, 3e-8, 1)], ids=["both", "repeated", "reading"]
)
def test_intervals_cover_and_the_noises_are_told_apart(write, other, reads):
    generator = np.random.default_rng(1)
    law = LAWS["soft-bounds"]
    u = TRUE_U["soft-bounds"]
    fit = fit_law(
        law, flat([train(generator, u=u, steps=100, write=write, other=other, reads=reads) for _ in range(80)])
    )
    truth = np.array([1e-6, 2e-6, u])
    estimate = np.stack([fit.start, fit.change, fit.u], axis=1)
    stderr = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
    covered = (np.abs(estimate - truth) < 1.96 * stderr).mean(axis=0)
    assert (covered > 0.85).all()  # 95 % less four standard errors of 80 trials
    assert np.median(fit.write_noise) == pytest.approx(write, rel=0.12, abs=2e-9)
    assert np.median(fit.other_noise) == pytest.approx(other / np.sqrt(reads), rel=0.12)


def test_write_noise_that_fades_is_recognised():
    generator = np.random.default_rng(2)
    parts = [train(generator, "linear", steps=900, write=3e-8, other=5e-8, memory=12.0) for _ in range(3)]
    fit = fit_law(LAWS["linear"], flat(parts))
    assert fit.memory == pytest.approx(np.full(3, 12.0), rel=0.4)
    assert fit.write_noise == pytest.approx(np.full(3, 3e-8), rel=0.25)
    lasting = fit_law(LAWS["linear"], flat([train(generator, "linear", steps=300, write=3e-8, other=5e-8)]))
    assert np.isinf(lasting.memory).all()


def test_trains_are_fitted_as_they_would_be_alone():
    generator = np.random.default_rng(3)
    parts = [train(generator, u=u, steps=n, write=1e-8, other=1e-8) for u, n in ((1.0, 30), (2.0, 45), (-1.0, 60))]
    together = fit_law(LAWS["soft-bounds"], flat(parts))
    for k, part in enumerate(parts):
        alone = fit_law(LAWS["soft-bounds"], flat([part]))
        assert together.u[k] == pytest.approx(alone.u[0], abs=1e-4)
        assert together.change[k] == pytest.approx(alone.change[0], rel=1e-4)


@pytest.mark.parametrize(("label", "a"), [(0.05, 25.253264), (0.6, 2.097877), (1.0, 1.226672), (9.0, 0.022810)])
def test_the_label_is_that_of_neurosim(label, a):
    """Entries of the table of A in MLP NeuroSim's formula.cpp (P.-Y. Chen, X. Peng, S. Yu)."""
    f = LAWS["soft-bounds"].f(GRID, np.full(len(GRID), np.arcsinh(1 / a)))
    assert deviation(f[None])[0] / NEUROSIM_LABEL == pytest.approx(label, rel=0.03)


def test_the_population_has_its_medians_spread_and_asymmetry():
    node = pulse_node(population(np.random.default_rng(4), write=2e-8, other=1e-8), [])
    assert node["law_chosen"].values.tolist() == ["soft-bounds", "soft-bounds"]
    shape = node["shape"].values
    assert shape == pytest.approx([3.0, 5.0], rel=0.2)  # three standard errors of a median of 24
    assert node["shape_spread"].values == pytest.approx([0.75, 1.25], rel=0.4)
    assert float(node["g_min"]) == pytest.approx(1e-6, rel=0.05)
    assert float(node["g_max"]) == pytest.approx(5e-6, rel=0.05)
    low, high = node["nonlinearity_bound"].sel(polarity="potentiation").values
    assert low < deviation(curve("soft-bounds", np.arcsinh(3.0), 400)[None])[0] < high
    assert node["write_noise"].values == pytest.approx([2e-8, 2e-8], rel=0.25)
    assert float(node["asymmetry"]) > 0
    assert int(node["n_both"]) == 24
    tree = device_model.build({"pulse": node}, name="made up")
    assert device_model.identity(tree) == device_model.identity(tree.copy(deep=True))


def test_equal_directions_have_no_asymmetry():
    generator = np.random.default_rng(5)
    up = train(generator, u=1.8, other=1e-10)
    node = pulse_node(pulses([up, 4e-6 - up], ["potentiation", "depression"], ["a", "a"]), [])
    assert float(node["asymmetry"]) == pytest.approx(0, abs=1e-3)
    assert float(node["asymmetry_step"]) == pytest.approx(0, abs=1e-3)
    assert float(node["symmetry_point"]) == pytest.approx(0.5, abs=0.01)
    labels = node["neurosim_label"].values
    assert float(node["asymmetry_neurosim"]) == pytest.approx(labels.sum(), rel=1e-6)


def test_steps_and_states_of_a_straight_line():
    generator = np.random.default_rng(6)
    node = pulse_node(pulses([train(generator, "linear", steps=40, other=1e-9)], ["potentiation"], ["a"]), [])
    assert node["law_chosen"].values.tolist() == ["linear"]
    assert float(node["n_states"][0]) == pytest.approx(40)
    assert float(node["step_mid"][0]) == pytest.approx(5e-8, rel=0.01)
    assert float(node["n_distinguishable"][0]) == pytest.approx(1 + 2e-6 / (2 * 1.645 * 1e-9), rel=0.3)
    assert np.nansum(node["n_steps"].values) == 40


def test_the_device_model_is_saved_and_opened_again(tmp_path):
    node = pulse_node(population(np.random.default_rng(7), devices=4, other=1e-8), [])
    path = tmp_path / "pulse.nc"
    device_model.save(device_model.build({"pulse": node}, name="made up"), path)
    again = device_model.open_device(path)["pulse"].to_dataset()
    assert set(again.variables) == set(node.variables)
    assert np.array_equal(again["sequence_shape"], node["sequence_shape"], equal_nan=True)


def test_repeated_reads_give_the_read_noise():
    generator = np.random.default_rng(8)
    node = pulse_node(pulses([train(generator, other=3e-8, reads=5)], ["potentiation"], ["a"]), [])
    assert float(node["read_noise"][0]) == pytest.approx(3e-8, rel=0.1)
    assert int(node["n_read_freedom"][0]) == 61 * 4
    assert float(node["transient_noise"][0]) == pytest.approx(3e-8 / np.sqrt(5), rel=0.15)


def test_bursts_count_their_pulses():
    generator = np.random.default_rng(9)
    part = train(generator, "linear", steps=20, other=1e-10)
    node = pulse_node(pulses([part], [""], ["a"], count=np.full((1, 21), 100.0)), [])
    assert node["polarity"].values.tolist() == ["potentiation"]
    assert float(node["sequence_pulses"][0]) == 2000
    assert float(node["step_mid"][0]) == pytest.approx(2e-6 / 2000, rel=1e-3)


def test_a_train_whose_amplitude_turns_round_is_two_trains():
    generator = np.random.default_rng(10)
    up = train(generator, other=1e-9, steps=20)
    amplitude = np.r_[np.full(21, 1.2), np.full(21, -0.8)][None]
    node = pulse_node(pulses([np.concatenate([up, up[::-1]])], [""], ["a"], amplitude=amplitude), [])
    assert node["n_sequences"].values.tolist() == [1, 1]


def test_normalised_conductances_stay_in_their_unit():
    warnings: list[str] = []
    part = train(np.random.default_rng(11), start=-0.9, change=1.9, other=0.05)
    node = pulse_node(pulses([part], ["potentiation"], ["a"], unit="1"), warnings)
    assert node["g_min"].attrs["units"] == node["write_noise"].attrs["units"] == "1"
    assert any("siemens are not known" in sentence for sentence in warnings)


@pytest.mark.parametrize(
    ("parts", "more", "sentence"),
    [
        ([np.full((30, 1), 1e-6)], {}, "no sequence of pulses changes the conductance"),
        ([np.full((1, 1), 1e-6)], {}, "no sequence of pulses changes the conductance"),
        ([np.linspace(1e-6, 2e-6, 6)[:, None]], {}, "fewer than 10 readings"),
        ([np.linspace(1e-6, 2e-6, 30)[:, None]], {"amplitude": np.linspace(1, 2, 30)[None]}, "differ in amplitude"),
        ([np.linspace(1e-6, 2e-6, 30)[:, None], np.full((30, 1), 1e-6)], {}, "1 of 2 trains do not change"),
    ],
    ids=["still", "one", "short", "stepped", "one-still"],
)
def test_what_the_trains_do_not_support_is_said(parts, more, sentence):
    warnings: list[str] = []
    names = [f"d{k}" for k in range(len(parts))]
    node = pulse_node(pulses(parts, [""] * len(parts), names, **more), warnings)
    assert any(sentence in found for found in warnings), warnings
    if node is not None:
        device_model.build({"pulse": node}, name="made up")


def test_missing_and_infinite_readings_are_left_out():
    part = train(np.random.default_rng(12), other=1e-9)
    part[[3, 17]] = np.nan
    part[20] = np.inf
    node = pulse_node(pulses([part], ["potentiation"], ["a"]), [])
    assert float(node["shape"][0]) == pytest.approx(np.sinh(1.8), rel=0.05)


def test_yflash(measurements):
    """Depression of 96 Y-Flash cells is an exponential decay over three decades; potentiation speeds up at first."""
    path = measurements / "wang-yflash" / "data_device2device_prog_erase.txt"
    warnings: list[str] = []
    node = pulse_node(calib.read(path)["pulses"].to_dataset(), warnings)
    assert node["n_sequences"].values.tolist() == [96, 96]
    assert node["law_chosen"].values.tolist() == ["power", "soft-bounds"]
    assert node["n_preferred"].sel(law=["power", "soft-bounds"]).values.tolist() == [[96, 0], [0, 96]]
    assert float(node["g_min"]) == pytest.approx(0.9e-9, rel=0.05)
    assert float(node["g_max"]) == pytest.approx(1.05e-6, rel=0.05)
    up, down = node["nonlinearity"].values
    assert -0.3 < up < -0.15
    assert down == pytest.approx(0.575, abs=0.01)
    assert any("does not follow the potentiation steps" in sentence for sentence in warnings)
    curves = node["sequence_shape"].values[node["sequence_polarity"].values == "depression"]
    assert np.isfinite(curves).all()


def test_gong(measurements):
    """The array from which aihwkit's preset ReRamESPresetDevice was made: noise that does not last, in steps at w = 0.

    The preset: dw_min 0.00135 with up_down 0.26 and an exponential step, range -1 to 1, write_noise_std 75 dw_min.
    """
    path = measurements / "gong-reram" / "gong_et_al.csv"
    node = pulse_node(calib.read(path, columns="potentiation=0,depression=1")["pulses"].to_dataset(), [])
    assert node["law_chosen"].values.tolist() == ["linear", "exponential-step"]
    assert node["transient_noise"].values == pytest.approx([75 * 0.00135] * 2, rel=0.2)
    assert float(node["step_mid"].sel(polarity="potentiation")) == pytest.approx(0.0020, rel=0.05)
    assert node["n_fading"].values.tolist() == [1, 1]
    low, high = node["nonlinearity_bound"].sel(polarity="potentiation").values
    assert low < 0 < high


def test_pulses_of_different_amplitudes_give_range_and_read_noise(measurements):
    (path,) = measurements.glob("timbie-fib3/FIB3_K9_1_5_*Integ1.0.csv")
    warnings: list[str] = []
    node = pulse_node(calib.read(path)["pulses"].to_dataset(), warnings)
    assert "law_chosen" not in node
    assert any("differ in amplitude" in sentence for sentence in warnings)
    assert node["read_noise"].values == pytest.approx([1.9e-9, 1.9e-9], rel=0.1)
    assert float(node["g_min"]) == pytest.approx(3.68e-8, rel=0.01)
