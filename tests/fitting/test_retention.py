"""Retention: known drift, spread and broadening recovered, laws told apart, failures, temperature, real files."""

import numpy as np
import pytest

import calib
from calib.fitting.drift import LAWS, drift_fits
from calib.fitting.random_effects import random_effects
from calib.fitting.relaxation import relaxation
from calib.fitting.retention import BOLTZMANN, retention_node
from calib.fitting.traces import traces_of
from tests.fitting.traces_made import reads_of

RNG = np.random.default_rng
TIMES = np.geomspace(1.0, 1e4, 25)


def drifting(n, mean, std, noise, seed=0, times=TIMES, slope=0.0):
    rng = RNG(seed)
    g0 = np.exp(rng.normal(np.log(2e-5), 0.8, n))
    nu = mean + slope * np.log(g0 / 2e-5) + std * rng.standard_normal(n)
    g = g0[:, None] * times ** -nu[:, None] * np.exp(noise * rng.standard_normal((n, len(times))))
    return reads_of(g, times), nu


def test_exponents_and_their_spread_are_recovered():
    reads, nu = drifting(80, 0.03, 0.01, 0.02)
    warnings: list[str] = []
    node = retention_node(reads, warnings)
    assert abs(float(node["drift_exponent_mean"]) - 0.03) < 4 * float(node["drift_exponent_mean_stderr"])
    low, high = node["drift_exponent_std_bound"].values
    assert low < 0.01 < high
    assert high < 0.014
    error = node["trace_drift_exponent"].values - nu
    assert np.abs(error / node["trace_drift_exponent_stderr"].values).mean() < 1.5
    assert node.attrs["law"] == "power"
    assert int(node["n_traces"]) == 80


def test_estimation_error_is_not_counted_as_spread():
    left = []
    for seed in range(20):
        fits = drift_fits(traces_of(drifting(60, 0.03, 0.0, 0.05, seed=seed)[0]))
        effect = random_effects(fits.exponent, fits.variance)
        assert fits.exponent.std() > 0.0025
        assert effect.std_bound[0] < 0.5 * fits.exponent.std()
        left.append(effect.std**2 / fits.exponent.var())
    assert np.mean(left) < 0.15  # of a variance that is all error; it cannot be below 0, so its mean is not 0


def test_the_exponent_may_depend_on_the_conductance():
    node = retention_node(drifting(120, 0.03, 0.003, 0.01, slope=-0.01)[0], [])
    low, high = node["drift_exponent_slope_bound"].values
    assert low < -0.01 < high
    assert high < 0
    assert np.diff(node["range_drift_exponent_mean"].values).max() < 0


def test_the_mean_interval_has_its_coverage_for_small_samples():
    covered = 0
    for seed in range(100):
        fits = drift_fits(traces_of(drifting(5, 0.02, 0.01, 0.01, seed=seed, times=TIMES[::3])[0]))
        low, high = random_effects(fits.exponent, fits.variance).bound()
        covered += low <= 0.02 <= high
    assert covered >= 89  # 95 % nominal; below 89 of 100 with chance 0.004


def test_the_spread_interval_has_its_coverage():
    rng = RNG(5)
    covered = 0
    for _ in range(200):
        variance = rng.uniform(0.2, 2.0, 12)
        values = 1 + rng.standard_normal(12) + np.sqrt(variance) * rng.standard_normal(12)
        low, high = random_effects(values, variance).std_bound
        covered += low <= 1 <= high
    assert covered >= 180  # 95 % nominal; below 180 of 200 with chance 0.002


@pytest.mark.parametrize(
    ("law", "ratio"),
    [
        ("constant", lambda t: np.ones_like(t)),
        ("power", lambda t: t**-0.25),
        ("logarithmic", lambda t: 1 - 0.09 * np.log(t)),
        ("aged-power", lambda t: (1 + t / 300) ** -0.3),
        ("exponential", lambda t: np.exp(-0.5 + 0.5 * np.exp(-t / 200))),
    ],
)
def test_the_law_is_told_from_the_others(law, ratio):
    rng = RNG(1)
    g = 1e-5 * ratio(TIMES) * np.exp(0.01 * rng.standard_normal((6, len(TIMES))))
    warnings: list[str] = []
    node = retention_node(reads_of(g, TIMES), warnings)
    assert node.attrs["law"] == law
    assert int(node["n_law_best"].sum()) == 6
    says = any("better than the power law" in w for w in warnings)
    assert says == (law not in ("constant", "power"))


def test_a_long_trace_is_averaged_in_log_time_and_robust_to_spikes():
    rng = RNG(2)
    t = np.arange(1, 20001, dtype=float)
    g = 1e-5 * t**-0.02 * np.exp(0.03 * rng.standard_normal(len(t)))
    g[rng.integers(len(t), size=20)] *= 3
    fits = drift_fits(traces_of(reads_of(g, t)))
    assert fits.exponent[0] == pytest.approx(0.02, abs=0.003)
    assert fits.n_times[0] < 50


@pytest.mark.parametrize("law", ["power", "logarithmic"])
def test_broadening_and_shift_are_recovered(law):
    rng = RNG(3)
    times = np.array([0.0, 1.0, 10.0, 100.0, 1e3, 1e4])
    sigma = 1e-7 * times[1:] ** 0.2 if law == "power" else np.sqrt(1e-14 + 2e-14 * np.log(times[1:]))
    g0 = np.repeat([5e-6, 1e-5, 2e-5, 4e-5], 200)
    shift = 1e-7 - 3e-8 * np.log(times[1:])
    g = np.concatenate([g0[:, None], g0[:, None] + shift + sigma * rng.standard_normal((800, 5))], axis=1)
    broad = relaxation(traces_of(reads_of(g, times)))
    assert broad.law == law
    known = broad.n[:, 0] > 0
    assert broad.n.sum(axis=0).tolist() == [800] * 5
    assert (np.abs(broad.std - sigma) < 4.5 * broad.std_stderr)[known].all()
    assert (np.abs(broad.mean - shift) < 4.5 * broad.mean_stderr)[known].all()
    assert broad.sigma(1e5)[known] == pytest.approx(
        1e-7 * 1e5**0.2 if law == "power" else np.sqrt(1e-14 + 2e-14 * np.log(1e5)), rel=0.15
    )
    assert broad.shift_at(1e5)[known] == pytest.approx(1e-7 - 3e-8 * np.log(1e5), rel=0.25)


def test_failures_are_measured_where_they_were_and_marked_where_not():
    # ln G falls by nu ln t: beyond 10 % at t = exp(-ln 0.9 / nu); nu = 0.01 reaches that at 3.8e4 s, nu = 0.02 at 194 s
    times = np.concatenate([[0.0], np.geomspace(1, 1e4, 9)])
    rng = RNG(0)
    nu = np.repeat([0.01, 0.02], 20)
    g = 1e-5 * np.maximum(times, 1.0) ** -nu[:, None] * np.exp(1e-4 * rng.standard_normal((40, len(times))))
    node = retention_node(reads_of(g, times), [])
    basis = node["outside_basis"].values.tolist()
    assert basis[:2] == ["measured", "measured"]
    assert all("extrapolated" in text for text in basis[2:])
    at = node.sel(threshold=0.1)
    assert at["outside"].values[:2].tolist() == [0.5, 0.5]
    assert at["outside_bound"].values[0] == pytest.approx([0.338, 0.662], abs=0.01)  # exact binomial, 20 of 40
    assert at["outside"].values[-1] == 1.0
    assert float(node["failure_time"].sel(threshold=0.1)) == pytest.approx(np.sqrt(3.77e4 * 194), rel=0.05)


def test_activation_energy_is_recovered():
    rng = RNG(4)
    kelvin = np.repeat([300.0, 340.0, 380.0], 30)
    energy = 0.15 * 1.602176634e-19
    nu = 0.02 * np.exp(energy / BOLTZMANN * (1 / 340 - 1 / kelvin)) * (1 + 0.1 * rng.standard_normal(90))
    g = 1e-5 * TIMES ** -nu[:, None] * np.exp(0.01 * rng.standard_normal((90, len(TIMES))))
    reads = reads_of(g, TIMES, temperature=kelvin)
    node = retention_node(reads, [])
    assert abs(float(node["activation_energy"]) - energy) < 4 * float(node["activation_energy_stderr"])
    assert float(node["activation_energy_stderr"]) < 0.2 * energy
    assert "temperature" not in node.attrs
    stated = retention_node(reads, [], temperature=300.0)
    assert stated.attrs["temperature"] == 300.0
    assert "activation_energy" not in stated


def test_clock_times_count_from_the_first_read():
    reads, _ = drifting(6, 0.05, 0.0, 0.001)
    clock = reads.assign(time=reads["time"] + 1.6e9)
    warnings: list[str] = []
    node = retention_node(clock, warnings)
    assert node.attrs["time_origin"] == "the first read of each trace"
    assert any("clock times" in w for w in warnings)


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        (reads_of([[1e-5, 2e-5, 3e-5]]), "the reads have no times"),
        (reads_of([[1e-5], [2e-5]], [[0.0], [1.0]]), "no trace was read more than once"),
        (reads_of([[1e-5, 2e-5, 3e-5]], [0.0, 1.0, 2.0]), "different times after 0 s"),
        (reads_of([[1e-5, 2e-5, 3e-5]], [2.0, 2.0, 2.0]), "times that differ"),
        (reads_of([[-1e-5, 2e-5, 3e-5, 1e-5]], [1.0, 2.0, 3.0, 4.0]), "not positive"),
    ],
)
def test_data_that_do_not_support_retention_say_so(reads, message):
    warnings: list[str] = []
    assert retention_node(reads, warnings) is None
    assert len(warnings) == 1
    assert warnings[0].startswith("retention: not found, because")
    assert message in warnings[0]


def test_reads_out_of_order_and_padding_change_nothing():
    reads, _ = drifting(8, 0.03, 0.01, 0.02)
    padded = reads.pad(sample=(0, 3), constant_values=np.nan)
    shuffled = padded.isel(sample=RNG(0).permutation(padded.sizes["sample"]))
    for key in ("drift_exponent_mean", "drift_exponent_std", "outside"):
        np.testing.assert_allclose(retention_node(shuffled, [])[key], retention_node(reads, [])[key], rtol=1e-9)


def test_a_trace_without_noise_or_of_one_value_is_no_error():
    node = retention_node(reads_of([1e-5 * TIMES**-0.1, np.full(len(TIMES), 1e-5)], TIMES), [])
    assert node["trace_drift_exponent"].values == pytest.approx([0.1, 0.0], abs=1e-9)


def test_levy_relaxation(measurements):
    path = measurements / "levy-relaxation" / "relaxdata.min.tsv.gz"
    tree = calib.read(path, columns="device=0,time=1,resistance=2,conductance=3,level=5")
    reads = tree["reads"].to_dataset()
    node = retention_node(reads, [])
    assert int(node["n_traces"]) == 16291
    # the standard deviation of G - G(0) at the five times, counted from the file: 6.7e-7 S to 4.0e-6 S
    g, t = reads["conductance"].values, reads["time"].values
    last = g[t > 9e4] - np.broadcast_to(g[:, :1], g.shape)[t > 9e4]
    pooled = np.sqrt((node["n_relaxation"] * node["sigma"] ** 2).sel(time=1e5, method="nearest").sum() / len(last))
    assert float(pooled) == pytest.approx(last.std(), rel=0.1)
    assert node.attrs["broadening_law"] == "logarithmic"
    assert (np.diff(node["sigma"].values, axis=1) > 0).all()
    here = node.sel(horizon=1e5, threshold=0.1)
    assert str(here["outside_basis"].values) == "measured"
    assert 0.5 < float(here["outside"]) < 0.6


def test_elgeresy_drift_is_not_a_plain_power_law(measurements):
    tree = calib.read(sorted((measurements / "elgeresy-tio2-drift").glob("*_proc.csv")))
    warnings: list[str] = []
    node = retention_node(tree["reads"].to_dataset(), warnings)
    assert int(node["n_traces"]) == int(node["n_devices"]) == 8
    assert node.attrs["law"] == "aged-power"
    assert (node["trace_drift_exponent"].values > 0).all()
    assert any("not supported" in w for w in warnings)
    assert list(node["law"].values) == list(LAWS)


def test_one_cell_read_ten_thousand_times(measurements):
    path = measurements / "radway-1t1r" / "ret1.csv"
    tree = calib.read(path, columns="device=0,time=1,resistance=2,conductance=3,current=4,voltage=5")
    warnings: list[str] = []
    node = retention_node(tree["reads"].to_dataset(), warnings)
    low, high = node["drift_exponent_mean_bound"].values
    assert low < 0.002 < high
    assert any("one device" in w for w in warnings)
