"""Device-to-device and cycle-to-cycle spread: recovered, against other computations, and honest about its errors."""

import numpy as np
import pytest

from calib.fitting.programming import level_dependence, programming_node, sentences
from calib.fitting.variance_components import VarianceComponents, variance_components

D2D, C2C = 0.3, 0.12


def drawn(
    counts: np.ndarray, generator: np.random.Generator, d2d: float = D2D, c2c: float = C2C
) -> tuple[np.ndarray, np.ndarray]:
    """Return values and devices of the one-way model, counts[k] values of device k."""
    devices = np.repeat(np.arange(len(counts)), counts)
    values = 8.0 + d2d * generator.standard_normal(len(counts))[devices] + c2c * generator.standard_normal(len(devices))
    return values, devices


def brute_force(values: np.ndarray, devices: np.ndarray) -> tuple[float, float]:
    """Return (d2d, c2c) of the largest restricted likelihood on a grid, with full n x n matrices."""
    same = (devices[:, None] == devices).astype(float)
    one = np.ones((len(values), 1))

    def likelihood(d2d: float, c2c: float) -> float:
        v = d2d**2 * same + c2c**2 * np.eye(len(values))
        inverse = np.linalg.inv(v)
        information = one.T @ inverse @ one
        residual = values - float((one.T @ inverse @ values)[0] / information[0, 0])
        terms = np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1] + residual @ inverse @ residual
        return -0.5 * float(terms)

    centre, width = np.log([0.3, 0.12]), 1.5
    for _ in range(7):
        steps = np.linspace(-width, width, 7)
        grid = [(likelihood(np.exp(centre[0] + a), np.exp(centre[1] + b)), a, b) for a in steps for b in steps]
        _, a, b = max(grid)
        centre, width = np.add(centre, (a, b)), width / 2.5
    return float(np.exp(centre[0])), float(np.exp(centre[1]))


def test_is_the_maximum_of_the_restricted_likelihood() -> None:
    """The grid's last step is 0.1 %."""
    counts = np.array([1, 2, 9, 4, 4, 1, 7, 3, 5, 2, 6, 1])
    values, devices = drawn(counts, np.random.default_rng(5))
    found = variance_components(values, devices)
    d2d, c2c = brute_force(values, devices)
    assert found.d2d == pytest.approx(d2d, rel=3e-3)
    assert found.c2c == pytest.approx(c2c, rel=3e-3)


def test_balanced_data_agree_with_the_analysis_of_variance() -> None:
    """For m values of each device the restricted likelihood gives c2c^2 = MSW and d2d^2 = (MSB - MSW) / m."""
    values, devices = drawn(np.full(15, 8), np.random.default_rng(2))
    table = values.reshape(15, 8)
    within = table.var(axis=1, ddof=1).mean()
    between = 8 * table.mean(axis=1).var(ddof=1)
    found = variance_components(values, devices)
    assert found.c2c == pytest.approx(np.sqrt(within), rel=1e-6)
    assert found.d2d == pytest.approx(np.sqrt((between - within) / 8), rel=1e-6)
    assert found.total == pytest.approx(np.hypot(found.d2d, found.c2c), rel=1e-12)
    assert (found.n_devices, found.n_values) == (15, 120)


def test_the_order_and_the_names_of_devices_do_not_matter() -> None:
    values, devices = drawn(np.array([5, 1, 8, 3, 4]), np.random.default_rng(3))
    order = np.random.default_rng(0).permutation(len(values))
    named = np.array([f"x{9 - k}" for k in devices])
    first, second = variance_components(values, devices), variance_components(values[order], named[order])
    assert second.d2d == pytest.approx(first.d2d, rel=1e-6)
    assert second.c2c == pytest.approx(first.c2c, rel=1e-6)
    shifted = variance_components(values + 100.0, devices)
    assert shifted.d2d == pytest.approx(first.d2d, rel=1e-5)


def test_unbalanced_components_and_their_errors_by_simulation() -> None:
    """Over 300 data sets of 30 devices with 1 to 12 cycles.

    The mean of the variances is the truth within 4 of its standard errors (the restricted likelihood is unbiased but
    for the bound at zero, far away here); the stated standard errors are the estimates' spread within 15 % (4 sigma).
    """
    generator = np.random.default_rng(7)
    counts = np.resize([1, 2, 3, 5, 8, 12], 30)
    found = [variance_components(*drawn(counts, generator)) for _ in range(300)]
    for name, truth in (("d2d", D2D), ("c2c", C2C), ("total", np.hypot(D2D, C2C))):
        values = np.array([getattr(item, name) for item in found])
        stderr = np.array([getattr(item, f"{name}_stderr") for item in found])
        assert abs((values**2).mean() - truth**2) < 4 * (values**2).std() / np.sqrt(300)
        assert stderr.mean() == pytest.approx(values.std(), rel=0.15)


def test_no_spread_between_devices() -> None:
    """160 values give c2c within 4 of its standard errors of 1/sqrt(320), 22 %."""
    found = variance_components(*drawn(np.resize([2, 4, 6], 40), np.random.default_rng(4), 0.0, 0.2))
    assert found.d2d <= 3 * found.d2d_stderr
    assert found.c2c == pytest.approx(0.2, rel=0.22)
    assert np.isfinite([found.d2d_stderr, found.total_stderr]).all()


@pytest.mark.parametrize("c2c", [0.0, 1e-9, 1e-4])
def test_no_spread_between_cycles(c2c: float) -> None:
    """Then d2d is the standard deviation of the devices' means, however small c2c is beside it."""
    counts = np.resize([2, 4, 6], 40)
    values, devices = drawn(counts, np.random.default_rng(4), 0.2, c2c)
    means = np.bincount(devices, values) / counts
    found = variance_components(values, devices)
    assert found.d2d == pytest.approx(means.std(ddof=1), rel=1e-4)
    assert found.d2d_stderr == pytest.approx(found.d2d / np.sqrt(80), rel=0.05)
    assert found.c2c == pytest.approx(c2c, rel=0.25, abs=1e-8)


def test_estimation_error_is_not_cycle_to_cycle_spread() -> None:
    """Values with an error of their own of 0.2: taken off c2c, d2d unchanged; 60 x 10 values give 0.12 within 15 %."""
    generator = np.random.default_rng(9)
    values, devices = drawn(np.full(60, 10), generator)
    values = values + 0.2 * generator.standard_normal(len(values))
    found = variance_components(values, devices, error_variance=0.2**2)
    assert found.c2c == pytest.approx(C2C, rel=0.15)
    assert found.total == pytest.approx(np.hypot(found.d2d, found.c2c), rel=1e-9)
    assert found.d2d == pytest.approx(variance_components(values, devices).d2d, rel=1e-9)


def test_the_standard_error_after_estimation_error_was_taken_off() -> None:
    """c2c^2 is as uncertain as before the known error was taken off, so c2c is more uncertain (20 %, 200 data sets)."""
    generator = np.random.default_rng(9)
    found = []
    for _ in range(200):
        values, devices = drawn(np.full(60, 10), generator)
        found.append(variance_components(values + 0.2 * generator.standard_normal(600), devices, error_variance=0.04))
    for name in ("c2c", "total"):
        values = np.array([getattr(item, name) for item in found])
        assert np.mean([getattr(item, f"{name}_stderr") for item in found]) == pytest.approx(values.std(), rel=0.2)


def test_an_estimation_error_larger_than_the_spread_leaves_none() -> None:
    values, devices = drawn(np.full(20, 5), np.random.default_rng(1))
    found = variance_components(values, devices, error_variance=1.0)
    assert found.c2c == 0.0
    assert found.total == pytest.approx(found.d2d, rel=1e-12)


def test_one_device_shows_cycles_only() -> None:
    values = C2C * np.random.default_rng(3).standard_normal(50)
    found = variance_components(values, np.zeros(50, dtype=int))
    assert np.isnan([found.d2d, found.d2d_stderr]).all()
    assert found.c2c == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert found.c2c_stderr == pytest.approx(found.c2c / np.sqrt(98), rel=1e-12)
    assert found.total == found.c2c


def test_one_cycle_each_does_not_separate() -> None:
    values = D2D * np.random.default_rng(3).standard_normal(50)
    found = variance_components(values, np.arange(50))
    assert np.isnan([found.d2d, found.d2d_stderr, found.c2c, found.c2c_stderr]).all()
    assert found.total == pytest.approx(values.std(ddof=1), rel=1e-12)
    assert found.total_stderr == pytest.approx(found.total / np.sqrt(98), rel=1e-12)


@pytest.mark.parametrize("n", [0, 1])
def test_too_few_values(n: int) -> None:
    found = variance_components(np.arange(float(n)), np.arange(n))
    assert isinstance(found, VarianceComponents)
    assert np.isnan([found.d2d, found.c2c, found.total, found.total_stderr]).all()
    assert (found.n_devices, found.n_values) == (n, n)


def test_equal_values_have_no_spread() -> None:
    found = variance_components(np.full(12, 8.0), np.repeat(np.arange(4), 3))
    assert found.d2d == pytest.approx(0.0, abs=1e-12)
    assert found.c2c == pytest.approx(0.0, abs=1e-12)


def test_the_node() -> None:
    values, devices = drawn(np.full(10, 4), np.random.default_rng(1))
    node = programming_node({"lrs": (values, devices, 0.0), "hrs": (values + 5, devices, 0.0)})
    assert list(node["state"].values) == ["lrs", "hrs"]
    np.testing.assert_allclose(node["r_median"].values, np.exp(np.median(values) + np.array([0, 5])), rtol=1e-12)
    assert node["r_median"].attrs["units"] == "ohm"
    expected = variance_components(values, devices)
    assert float(node["sigma_d2d"][0]) == expected.d2d
    assert float(node["sigma_c2c_stderr"][0]) == expected.c2c_stderr
    assert float(node["sigma"][0]) == expected.total
    assert node["n_devices"].values.tolist() == [10, 10]
    assert "standard deviation of ln R" in node.attrs["statement"]


@pytest.mark.parametrize(
    "counts", [[5] * 8, [1, 2, 9, 4, 4, 1, 7, 3], [1, 2, 20]], ids=["8 x 5", "8 unbalanced", "3 unbalanced"]
)
def test_intervals_cover(counts: list[int]) -> None:
    """Of 300 data sets each end misses 2.5 %, within 3 binomial standard errors of 0.9 %."""
    generator = np.random.default_rng(3)
    truth = {"d2d": D2D, "c2c": C2C, "total": np.hypot(D2D, C2C), "mean": 8.0}
    misses = {name: np.zeros(2) for name in truth}
    for _ in range(300):
        found = variance_components(*drawn(np.array(counts), generator))
        for name, true in truth.items():
            low, high = getattr(found, f"{name}_bound")
            misses[name] += [true < low, true > high]
    for name, count in misses.items():
        assert (count / 300 < 0.025 + 0.027).all(), name


def test_intervals_hold_the_estimates_whatever_the_data() -> None:
    for values, devices in (
        (np.full(12, 8.0), np.repeat(np.arange(4), 3)),
        drawn(np.full(4, 3), np.random.default_rng(0), 0.0, 0.1),
        drawn(np.full(4, 3), np.random.default_rng(0), 0.1, 0.0),
    ):
        found = variance_components(values, devices)
        for name in ("d2d", "c2c", "total"):
            low, high = getattr(found, f"{name}_bound")
            assert 0 <= low <= getattr(found, name) <= high
            assert np.isfinite(high)


def test_a_spread_that_grows_with_resistance() -> None:
    """sigma_c2c ~ R^0.8 over 40 devices of 6 cycles; without a trend the p value is not small."""
    generator = np.random.default_rng(2)
    devices = np.repeat(np.arange(40), 6)
    level = generator.standard_normal(40)[devices]
    noise = 0.1 * generator.standard_normal(240)
    found = level_dependence(8 + level + np.exp(0.8 * level) * noise, devices)
    assert found.slope == pytest.approx(0.8, abs=4 * found.stderr)
    assert found.p_value < 1e-3
    assert found.n_devices == 40
    assert level_dependence(8 + level + noise, devices).p_value > 0.01
    assert np.isnan(level_dependence(noise[:6], devices[:6]).slope)


def test_values_beyond_the_floor_are_taken_as_such() -> None:
    generator = np.random.default_rng(5)
    values, devices = drawn(np.full(30, 4), generator, 0.8, 0.4)
    censored = values > 8.5
    node = programming_node({"hrs": (np.minimum(values, 8.5), devices, 0.0, censored)})
    assert int(node["n_censored"][0]) == censored.sum()
    assert float(node["sigma_observed"][0]) < 0.7 < float(node["sigma"][0])
    assert float(node["sigma_bound"][0, 0]) < np.hypot(0.8, 0.4) < float(node["sigma_bound"][0, 1])
    assert any("beyond the instrument's noise floor" in sentence for sentence in sentences(node))
    assert "censored" in node.attrs["method"]
