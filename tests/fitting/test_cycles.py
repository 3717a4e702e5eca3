"""The generative model of switching: exact likelihood, exact marginals, closed loop, and real files."""

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from scipy.stats import multivariate_normal

import calib
from calib import cycle_sampling as sampling
from calib import device_model
from calib.fitting import vector_autoregression as autoregression
from calib.fitting.cycles import cycles_node
from calib.fitting.device_classes import find_classes
from calib.fitting.quantile_transform import normal_scores, normal_table, quantile_table, spread_in_steps
from tests.fitting.loops_made import loops_of
from tests.synthetic import iv_node, reads_node

RNG = np.random.default_rng
MEMORY = np.array([[[0.5, 0.1], [-0.2, 0.3]]])
INNOVATION = np.array([[0.5, 0.1], [0.1, 0.6]])
BETWEEN = np.array([[0.4, -0.2], [-0.2, 0.3]])


def truth(memory=MEMORY, between=BETWEEN, classes: int = 1) -> xr.Dataset:
    """Return a cycles node of two features with skewed marginals, scores of variance 1."""
    order = len(memory)
    found = autoregression.normalised(autoregression.Autoregression(memory, INNOVATION, between, 0.0, 0, 0.0))
    score = sampling.score_grid()
    tables = np.stack([[13 + 0.5 * score + 0.06 * score**2 + 0.01 * score**3 - 6 * k, 9 + 0.2 * np.sinh(0.8 * score)]
                       for k in range(classes)])  # fmt: skip
    weight = np.array([1.0]) if classes == 1 else np.array([0.85, 0.15])
    ff = ("feature", "feature_other")
    return xr.Dataset(
        {
            "memory": (("lag", *ff), found.memory if order else np.zeros((1, 2, 2))),
            "innovation": (ff, found.innovation),
            "between": (ff, found.between),
            "within": (ff, found.within),
            "table": (("class", "feature", "grid"), np.maximum.accumulate(tables, axis=2)),
            "class_weight": ("class", weight),
        },
        coords={"feature": ["ln_r_hrs", "ln_r_lrs"]},
        attrs={"order": order},
    )


def as_reads(drawn: np.ndarray) -> xr.Dataset:
    """Return reads of both states from (device, cycle, feature) of ln R."""
    devices, cycles, _ = drawn.shape
    g = np.exp(-np.concatenate([drawn[..., 0].ravel(), drawn[..., 1].ravel()]).astype(float))
    device = np.tile(np.repeat([f"d{k:03d}" for k in range(devices)], cycles), 2)
    return reads_node(
        g[:, None], device=device, state=np.repeat(["hrs", "lrs"], devices * cycles),
        cycle=np.tile(np.arange(cycles), 2 * devices),
    )  # fmt: skip


def scores_of(devices: int, cycles: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return rows (device cycle, feature) of the process itself, not through the sampler."""
    rng = RNG(seed)
    start, step, between = (np.linalg.cholesky(part) for part in (
        sampling.block_covariance(MEMORY, INNOVATION), INNOVATION, BETWEEN))  # fmt: skip
    rows = []
    for _ in range(devices):
        level, state = between @ rng.standard_normal(2), start @ rng.standard_normal(2)
        for cycle in range(cycles):
            state = MEMORY[0] @ state + step @ rng.standard_normal(2) if cycle else state
            rows.append(level + state)
    return np.array(rows), np.repeat(np.arange(devices), cycles), np.tile(np.arange(cycles), devices)


def test_stationary_covariance_of_one_feature():
    """AR(1): sigma^2 / (1 - a^2), and a^k of it between states."""
    found = sampling.block_covariance(np.array([[[0.7]]]), np.array([[2.0]]), 3)
    expected = 2.0 / (1 - 0.49) * np.array([[1, 0.7, 0.49], [0.7, 1, 0.7], [0.49, 0.7, 1]])
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert sampling.spectral_radius(np.array([[[0.7]]])) == pytest.approx(0.7)
    assert sampling.spectral_radius(np.zeros((0, 2, 2))) == 0


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_likelihood_is_that_of_the_whole_sequence(order):
    """Against the multivariate normal of all cycles of a device at once; padded orders and short runs included."""
    u, device, cycle = scores_of(12, 5, 0)
    keep = ~((device % 3 == 0) & (cycle == 2))  # a gap parts the runs
    runs = autoregression.runs_of(u[keep], device[keep], cycle[keep])
    memory = np.concatenate([MEMORY, np.zeros((order - 1, 2, 2))])
    found = autoregression._Likelihood(runs, order)(memory[None], INNOVATION[None], BETWEEN[None])[0]
    whole = sampling.block_covariance(MEMORY, INNOVATION, 5).reshape(5, 2, 5, 2)[::-1][:, :, ::-1].reshape(10, 10)
    expected = 0.0
    for k in range(12):
        rows = np.flatnonzero(device[keep] == k)
        begins = [r for r in runs.first if r in rows]
        parts = [range(a, b) for a, b in zip(begins, [*begins[1:], rows[-1] + 1], strict=True)]
        covariance = np.kron(np.ones((len(rows), len(rows))), BETWEEN)
        for part in parts:  # runs are independent but for the device's level
            at, size = part[0] - rows[0], 2 * len(part)
            covariance[2 * at : 2 * at + size, 2 * at : 2 * at + size] += whole[:size, :size]
        expected += multivariate_normal(np.zeros(2 * len(rows)), covariance).logpdf(u[keep][rows].ravel())
    assert found == pytest.approx(expected, abs=1e-7)


def test_memory_and_devices_are_recovered():
    u, device, cycle = scores_of(150, 12, 1)
    runs = autoregression.runs_of(u, device, cycle)
    fits = {order: autoregression.fit(runs, order, random_effects=True) for order in (0, 1, 2)}
    assert min(fits, key=lambda order: fits[order].aicc) == 1
    found = fits[1]
    np.testing.assert_allclose(found.memory, MEMORY, atol=0.09)
    np.testing.assert_allclose(found.between, BETWEEN, atol=0.15)
    np.testing.assert_allclose(found.innovation, INNOVATION, atol=0.06)
    assert np.diag(autoregression.normalised(found).between + autoregression.normalised(found).within) == pytest.approx(
        1
    )


def test_a_table_is_exact_at_the_data_and_straight_beyond():
    values = np.sort(np.exp(RNG(0).standard_normal(400)))
    table, grid = quantile_table(values), sampling.score_grid()
    assert (np.diff(table) >= 0).all()
    back = np.interp(normal_scores(values), grid, table)
    np.testing.assert_allclose(back, values, rtol=0.04)
    beyond = grid > normal_scores(values).max() + 0.05
    assert np.ptp(np.diff(table[beyond])) < 1e-9
    assert quantile_table(values, positive=True).min() >= values[0] / 2
    half = values > np.median(values)
    censored = quantile_table(values, half)
    inside = grid < -0.05
    np.testing.assert_allclose(censored[inside & (grid > -2.5)], table[inside & (grid > -2.5)], rtol=1e-9)
    assert normal_scores(np.array([1.0, 2.0, 2.0, 3.0]))[1:3] == pytest.approx(0)
    assert normal_table(np.array([1.0, 3.0]))[200] == pytest.approx(2)


def test_steps_are_spread_evenly():
    assert spread_in_steps(np.array([0.2, 0.1, 0.1]), 0.1) == pytest.approx([0.025, 0.075, 0.15])
    assert spread_in_steps(np.array([2.0, 1.0]), 0.0).tolist() == [1, 2]


def test_draws_have_the_stated_marginals_memory_and_correlation():
    node = truth()
    drawn = sampling.sample_cycles(node, 4000, 12, RNG(0))
    assert drawn.shape == (4000, 12, 2)
    scores = np.stack([np.interp(drawn[..., k], node["table"].values[0, k], node["score"] if "score" in node else
                                 sampling.score_grid()) for k in range(2)], axis=-1)  # fmt: skip
    for cycle in (0, 11):  # stationary from the first cycle on
        for k in range(2):
            assert stats.kstest(scores[:, cycle, k], "norm").pvalue > 1e-3
    total = node["between"].values + node["within"].values
    np.testing.assert_allclose(np.cov(scores[:, 5].T), total, atol=0.06)
    later = np.array([[np.mean(scores[:, 6, i] * scores[:, 5, j]) for j in range(2)] for i in range(2)])
    np.testing.assert_allclose(
        later, node["between"].values + node["memory"].values[0] @ node["within"].values, atol=0.06
    )


def test_draws_depend_on_the_generator_alone():
    one, two = (sampling.sample_cycles(truth(), 9000, 3, RNG(5), threads=threads) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    assert not np.array_equal(one, sampling.sample_cycles(truth(), 9000, 3, RNG(6)))
    assert sampling.sample_cycles(truth(MEMORY[:0]), 3, 1, RNG(0)).shape == (3, 1, 2)
    assert sampling.sample_cycles(truth(), 0, 3, RNG(0)).shape == (0, 3, 2)


def test_classes_are_drawn_with_their_weights():
    drawn = sampling.sample_cycles(truth(classes=2), 20_000, 2, RNG(0))
    low = drawn[..., 0] < 10
    assert (low[:, 0] == low[:, 1]).mean() > 0.999  # a device stays in its class
    assert low[:, 0].mean() == pytest.approx(0.15, abs=0.01)


@pytest.fixture(scope="module")
def refitted() -> xr.Dataset:
    drawn = sampling.sample_cycles(truth(), 80, 30, RNG(7))
    found = cycles_node(None, [], reads=as_reads(drawn))
    assert found is not None
    return found


def test_closed_loop(refitted):
    """Draw, fit, compare: memory, share of the devices and correlation within their intervals; marginals reproduced."""
    node = truth()
    error = refitted["memory_stderr"].values[0]
    assert int(refitted.attrs["order"]) == 1
    assert refitted.attrs["model"] == "generative"
    assert (np.abs(refitted["memory"].values[0] - node["memory"].values[0]) < 4 * error + 0.02).all()
    total = (node["between"].values + node["within"].values)[0, 1]
    low, high = refitted["correlation_bound"].values[0, 1]
    assert low < total < high
    np.testing.assert_allclose(np.diag(refitted["between"].values), np.diag(node["between"].values), atol=0.15)
    assert (refitted["check_p"].values > 0.05).all()
    again, first = (sampling.sample_cycles(n, 5000, 4, RNG(1)) for n in (refitted, node))
    for k in range(2):
        assert stats.ks_2samp(again[:, 2, k], first[:, 2, k]).statistic < 0.12  # 80 devices: their mean is uncertain


def test_the_check_sees_a_wrong_memory(refitted):
    """Autocorrelations lie within the ranges that data sets drawn from the model show."""
    low, high = np.moveaxis(refitted["check_memory_bound"].values, -1, 0)
    measured = refitted["check_memory"].values
    assert ((measured >= low) & (measured <= high)).mean() > 0.8
    assert refitted["check_memory"].sizes["check_lag"] == 10


def test_the_model_conforms_and_survives_the_file(refitted, tmp_path):
    tree = device_model.build({"cycles": refitted}, name="x")
    device_model.save(tree, tmp_path / "x.nc")
    again = device_model.open_device(tmp_path / "x.nc")
    assert again.identical(tree)
    np.testing.assert_array_equal(
        sampling.sample_cycles(again["cycles"].to_dataset(), 10, 3, RNG(0)),
        sampling.sample_cycles(refitted, 10, 3, RNG(0)),
    )


def test_independent_lognormals_are_left_simple():
    rng = RNG(11)
    ln_r = np.array([13.0, 9.0]) + np.array([0.4, 0.1]) * rng.standard_normal((1, 120, 2))
    found = cycles_node(None, [], reads=as_reads(ln_r))
    assert found.attrs["model"] == "lognormal"
    assert set(found["marginal"].values) == {"normal"}
    assert "nothing in the data departs" in found.attrs["selection"]
    assert int(found.attrs["order"]) == 0


def test_few_data_are_left_simple():
    ln_r = np.array([13.0, 9.0]) + 0.3 * RNG(1).standard_normal((4, 3, 2))
    found = cycles_node(None, [], reads=as_reads(ln_r))
    assert found.attrs["model"] == "lognormal"
    assert "under 30 cycles" in found.attrs["selection"]
    drawn = sampling.sample_cycles(found, 4000, 1, RNG(0))[:, 0]
    assert drawn.mean(axis=0) == pytest.approx(ln_r.reshape(-1, 2).mean(axis=0), abs=0.03)
    assert abs(np.corrcoef(drawn.T)[0, 1]) < 0.06
    assert np.isfinite(device_model.build({"cycles": found}, name="x")["cycles"]["table"]).all()


def test_outlier_devices_are_a_class_of_their_own():
    drawn = sampling.sample_cycles(truth(), 120, 8, RNG(3))
    drawn[:12, :, 0] -= 4.0
    found = cycles_node(None, [], reads=as_reads(drawn))
    assert found["n_class"].values.tolist() == [108, 12]
    assert "2 classes of 108, 12 (outliers) devices" in found.attrs["classes"]
    again = sampling.sample_cycles(found, 20_000, 1, RNG(0))[:, 0, 0]
    for q in (0.02, 0.05, 0.3, 0.5, 0.9):
        assert np.quantile(again, q) == pytest.approx(np.quantile(drawn[..., 0], q), abs=0.25)


def test_a_skewed_cloud_is_one_class():
    means = RNG(0).gamma(2.0, 1.0, (300, 2))
    found = find_classes(means, 0.01 * np.eye(2), 10, np.full(300, 5))
    assert not found.which.any()
    assert found.n_components > 1
    assert "overlap" in found.reason
    normal = find_classes(RNG(1).standard_normal((300, 2)), 0.01 * np.eye(2), 10, np.full(300, 5))
    assert normal.n_components == 1


def test_a_first_cycle_that_differs_is_left_out():
    """It would be taken for a long memory, because the process that is fitted is stationary."""
    drawn = sampling.sample_cycles(truth(MEMORY[:0]), 30, 6, RNG(4))
    drawn[:, 0, 0] -= 2.5
    said: list[str] = []
    found = cycles_node(None, said, reads=as_reads(drawn))
    assert int(found["n_cycles"]) == 150
    assert int(found.attrs["order"]) == 0
    assert float(found["first_shift"][0]) == pytest.approx(-2.5, abs=0.4)
    assert any("the first cycle of a device differs" in text for text in said)


def test_loops_give_all_four_features():
    found = cycles_node(loops_of(20, 4), [])
    assert found["feature"].values.tolist() == ["ln_r_hrs", "ln_r_lrs", "v_set", "v_reset"]
    drawn = sampling.sample_cycles(found, 20_000, 1, RNG(0))[:, 0]
    assert np.median(drawn, axis=0) == pytest.approx([13, 9, 1.0, 0.8], abs=0.15)
    assert (drawn[:, 2:] > 0).all()
    assert found["resolution"].values[2:] == pytest.approx(0.05)


@pytest.mark.parametrize("reads", [None, reads_node(np.full((4, 1), 1e-5)), as_reads(np.full((1, 2, 2), 9.0))])
def test_what_is_not_there_is_said(reads):
    said: list[str] = []
    only_read = iv_node(devices=2, cycles=1)
    only_read["operation"][:] = "read"
    assert cycles_node(only_read, said, reads=reads) is None
    assert len(said) == 1
    assert said[0].startswith("cycles: not found, because")


def test_values_that_are_not_positive_are_left_out():
    reads = as_reads(np.array([13.0, 9.0]) + 0.3 * RNG(1).standard_normal((10, 6, 2)))
    reads["conductance"].values[:3] = [[-1e-6], [0.0], [np.nan]]
    found = cycles_node(None, [], reads=reads)
    assert int(found["n_cycles"]) == 57
    assert int(found["n_left_out"]) == 3


def test_radway_cells_differ_and_their_spread_is_reproduced(measurements):
    columns = "device=0,resistance_lrs=1,resistance_hrs=2,cycle=3"
    reads = calib.read(measurements / "radway-1t1r" / "100cyc.tsv", columns=columns)["reads"].to_dataset()
    found = cycles_node(None, [], reads=reads)
    assert (int(found["n_devices"]), int(found["n_cycles"])) == (1024, 2048)
    assert set(found["marginal"].values) == {"quantile"}
    assert found["share_between"].values == pytest.approx([0.31, 0.66], abs=0.05)
    assert "memory cannot be seen" in found.attrs["selection"]  # cycles 24 and 49
    drawn = sampling.sample_cycles(found, 100_000, 2, RNG(0)).reshape(-1, 2)
    state, ln_r = reads["state"].values, -np.log(reads["conductance"].values[:, 0])
    for k, name in enumerate(("hrs", "lrs")):
        assert stats.ks_2samp(drawn[:, k], ln_r[state == name]).statistic < 0.02
    assert np.corrcoef(drawn.T)[0, 1] < -0.1


def test_the_memory_of_a_real_device(measurements):
    iv = calib.read(measurements / "ddas04-rram" / "100devices.xlsx")["iv"].to_dataset()
    found = cycles_node(iv.isel(sweep=np.flatnonzero(iv["population"].values == "100cycles")), [])
    assert int(found.attrs["order"]) >= 1
    assert int(found.attrs["separable"]) == 0
    assert found["memory"].values[0, 0, 0] == pytest.approx(0.3, abs=0.15)
    assert found["check_memory"].values[0, 0] == pytest.approx(0.35, abs=0.03)
    assert (found["check_p"].values > 0.05).all()
