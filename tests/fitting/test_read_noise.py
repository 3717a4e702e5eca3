"""Read noise: the law, telegraph noise (power and false alarms), the spectrum's slope, real files, bad data."""

import numpy as np
import pytest

import calib
from calib.fitting.read_noise import read_noise_node
from calib.fitting.spectrum import spectrum
from calib.fitting.telegraph import FALSE_ALARM, hidden_chain, telegraph
from calib.fitting.traces import correlation_reads, drift_removed
from tests.fitting.traces_made import coloured, reads_of, switching

RNG = np.random.default_rng


def noisy(n, reads=100, level=0.01, exponent=-0.3, spread=0.2, seed=0):
    rng = RNG(seed)
    g = np.geomspace(1e-7, 1e-4, n)
    sigma = level * (g / 3e-6) ** exponent * np.exp(spread * rng.standard_normal(n))
    return g[:, None] * (1 + sigma[:, None] * rng.standard_normal((n, reads)))


def test_the_power_law_and_its_spread_are_recovered():
    g = noisy(60)
    node = read_noise_node(reads_of(g), [])
    assert abs(float(node["noise_exponent"]) + 0.3) < 4 * float(node["noise_exponent_stderr"])
    reference = float(node.attrs["reference_conductance"])
    expected = np.log(0.01) - 0.3 * np.log(reference / 3e-6)
    low, high = node["ln_noise_bound"].values
    assert low - 0.05 < expected < high + 0.05
    low, high = node["noise_spread_bound"].values
    assert low < 0.2 < high
    assert float(node["ln_successive"]) == pytest.approx(float(node["ln_noise"]), abs=0.02)


def test_drift_is_not_counted_as_noise():
    k = np.arange(300)
    rng = RNG(1)
    g = 1e-5 * (1 - 0.03 * np.log1p(k) - 1e-4 * k)[None] * (1 + 0.005 * rng.standard_normal((12, 300)))
    node = read_noise_node(reads_of(g), [])
    assert np.exp(float(node["ln_noise"])) == pytest.approx(0.005, rel=0.15)


def test_small_samples_have_their_coverage():
    covered = 0
    for seed in range(60):
        rng = RNG(seed)
        g = 1e-5 * (1 + 0.01 * np.exp(0.3 * rng.standard_normal((6, 1))) * rng.standard_normal((6, 30)))
        low, high = read_noise_node(reads_of(g), [])["ln_noise_bound"].values
        covered += low <= np.log(0.01) <= high
    assert covered >= 52  # 95 % of 60 is 57; 52 or more with chance 0.98


@pytest.mark.parametrize("alpha", [0.0, 1.0, 1.5, 2.0])
def test_gaussian_noise_of_any_colour_is_rarely_telegraph_noise(alpha):
    rng = RNG(int(10 * alpha))
    make = (lambda: np.cumsum(rng.standard_normal(600))) if alpha == 2.0 else (lambda: coloured(600, alpha, rng))
    results = telegraph([drift_removed(make())[0] for _ in range(40)], rng)
    # at the stated rate of 1 % two or more of 40 come with chance 0.06, three or more with 0.008
    assert sum(result.found for result in results) <= 2
    assert FALSE_ALARM == 0.01


def test_telegraph_noise_is_found_and_fitted():
    rng = RNG(7)
    traces = [3 * switching(1000, 20, 40, rng) + rng.standard_normal(1000) for _ in range(12)]
    results = telegraph([drift_removed(trace)[0] for trace in traces], rng)
    found = [result for result in results if result.found]
    assert len(found) >= 11
    assert np.median([result.amplitude for result in found]) == pytest.approx(3.0, rel=0.07)
    assert np.median([result.noise for result in found]) == pytest.approx(1.0, rel=0.07)
    for state, dwell in ((0, 20), (1, 40)):
        inside = [result.dwell_bound[state, 0] <= dwell <= result.dwell_bound[state, 1] for result in found]
        assert np.mean(inside) >= 0.75  # 95 % nominal, some 12 traces


def test_telegraph_noise_in_coloured_noise_is_found():
    rng = RNG(8)
    traces = [6 * switching(1000, 15, 15, rng) + rng.standard_normal(1000) + coloured(1000, 1.0, rng) for _ in range(5)]
    assert sum(result.found for result in telegraph(traces, rng)) >= 4


def test_the_chain_agrees_with_a_plain_recursion():
    rng = RNG(9)
    x = 3 * switching(157, 8, 12, rng) + rng.standard_normal(157)
    mean, noise, stay, state = hidden_chain(x, iterations=200)
    # forward and backward recursion, read by read, at the fitted parameters
    transition = np.array([[stay[0], 1 - stay[0]], [1 - stay[1], stay[1]]])
    b = np.exp(-0.5 * np.square((x[:, None] - mean) / noise))
    start = np.array([1 - stay[1], 1 - stay[0]]) / (2 - stay.sum())
    forward, backward = np.empty((157, 2)), np.ones((157, 2))
    forward[0] = start * b[0]
    for t in range(1, 157):
        forward[t] = (forward[t - 1] @ transition) * b[t]
        forward[t] /= forward[t].sum()
    for t in range(155, -1, -1):
        backward[t] = transition @ (b[t + 1] * backward[t + 1])
        backward[t] /= backward[t].sum()
    weight = forward * backward
    weight /= weight.sum(axis=1, keepdims=True)
    assert state == pytest.approx(weight[:, 1], abs=0.02)  # the state belongs to the parameters of one step before


def test_telegraph_numbers_of_a_population():
    rng = RNG(10)
    rows = []
    for k in range(20):
        noise = 0.005 * rng.standard_normal(800)
        rows.append(2e-5 * (1 + noise + (0.03 * switching(800, 20, 60, rng) if k < 5 else 0)))
    warnings: list[str] = []
    node = read_noise_node(reads_of(rows, 0.01 * np.arange(800)), warnings)
    assert int(node["n_telegraph"]) == 5
    low, high = node["telegraph_probability_bound"].values
    assert (low, high) == pytest.approx((0.0866, 0.491), abs=0.001)  # exact binomial, 5 of 20
    assert np.exp(float(node["telegraph_ln_amplitude_mean"])) == pytest.approx(0.03, rel=0.1)
    assert np.exp(float(node["telegraph_ln_dwell_ratio_mean"])) == pytest.approx(3, rel=0.5)
    assert node["telegraph_dwell"].attrs["units"] == "s"
    assert float(node["telegraph_dwell"][:, 1].mean()) == pytest.approx(0.6, rel=0.4)
    assert set(node["telegraph_device"].values) == {f"d{k}" for k in range(5)}


def test_jumps_that_crowd_at_the_start_are_no_telegraph_noise():
    rng = RNG(11)
    x = 0.5 * rng.standard_normal(1000)
    x[:100] += 6 * switching(100, 4, 4, rng)
    (result,) = telegraph([x], rng)
    assert not result.found
    assert "crowd" in result.status


@pytest.mark.parametrize("alpha", [0.6, 1.0, 1.6])
def test_the_slope_of_the_spectrum_is_recovered(alpha):
    rng = RNG(int(100 * alpha))
    parts = [spectrum(0.01 * coloured(4096, alpha, rng), 0.1) for _ in range(12)]
    values = np.array([part.alpha for part in parts])
    assert values.mean() == pytest.approx(alpha, abs=0.07)
    errors = (values - alpha) / np.array([part.alpha_stderr for part in parts])
    assert np.sqrt(np.mean(errors**2)) < 2
    assert parts[0].frequency[-1] < 5.0
    plain = spectrum(0.01 * (coloured(4096, 1.5, rng) + 0.3 * rng.standard_normal(4096)), 1.0)
    assert plain.white > 0


def test_white_noise_has_the_density_of_its_variance():
    part = spectrum(0.01 * RNG(0).standard_normal(8192), 0.5)
    assert part.alpha == pytest.approx(0.0, abs=0.1)
    assert np.median(part.density) == pytest.approx(2 * 0.5 * 1e-4, rel=0.1)  # one-sided: 2 dt sigma^2


def test_independent_reads_are_counted():
    rng = RNG(0)
    assert correlation_reads(rng.standard_normal(5000)) == pytest.approx(1.0, abs=0.2)
    x = np.zeros(50_000)
    for k in range(1, len(x)):
        x[k] = 0.9 * x[k - 1] + rng.standard_normal()
    assert correlation_reads(x) == pytest.approx(1.9 / 0.1, rel=0.25)  # (1 + r) / (1 - r)


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        (reads_of([[1e-5, 1.1e-5, 1e-5]]), "at most 3 reads"),
        (reads_of([[1e-5] * 20]), "do not differ"),
        (reads_of(-1e-5 * (1 + 0.01 * RNG(0).standard_normal((2, 20)))), "not positive"),
        (reads_of(1e-5 + 1e-7 * RNG(0).standard_normal((2, 20)), np.geomspace(1e-3, 1e6, 20)), "decades of time"),
        (reads_of(np.tile([1e-5, 1e-5, 1.01e-5, 1e-5], 50)), "resolution"),
    ],
)
def test_data_that_do_not_support_noise_say_so(reads, message):
    warnings: list[str] = []
    assert read_noise_node(reads, warnings) is None
    assert len(warnings) == 1
    assert warnings[0].startswith("read noise: not found, because")
    assert message in warnings[0]


def test_short_traces_say_what_is_missing():
    warnings: list[str] = []
    node = read_noise_node(reads_of(noisy(5, reads=30)), warnings)
    assert "telegraph_probability" not in node
    assert any(w.startswith("telegraph noise: not found, because") for w in warnings)
    assert any(w.startswith("noise spectrum: not found, because") for w in warnings)


def test_the_same_reads_give_the_same_node():
    reads = reads_of(noisy(4, reads=300))
    assert read_noise_node(reads, []).identical(read_noise_node(reads, []))


def test_elgeresy_noise_is_one_over_f(measurements):
    tree = calib.read(sorted((measurements / "elgeresy-tio2-drift").glob("*_proc.csv"))[:3])
    node = read_noise_node(tree["reads"].to_dataset(), [])
    low, high = node["spectral_exponent_bound"].values
    assert 0.6 < low < 1.13 < high < 1.7  # of the three files; 1.19 +- 0.06 of all eight
    assert node.attrs["frequency_unit"] == "Hz"
    assert float(node.attrs["interval"]) == pytest.approx(10.01, abs=0.02)
    assert int(node["n_telegraph"]) == 0


def test_radway_single_cell_noise(measurements):
    path = measurements / "radway-1t1r" / "ret1.csv"
    tree = calib.read(path, columns="device=0,time=1,resistance=2,conductance=3,current=4,voltage=5")
    warnings: list[str] = []
    node = read_noise_node(tree["reads"].to_dataset(), warnings)
    assert np.exp(float(node["ln_successive"])) == pytest.approx(0.0126, abs=2e-4)  # std of differences / sqrt 2 / mean
    assert np.isnan(float(node["noise_exponent"]))
    assert any("one trace" in w for w in warnings)
