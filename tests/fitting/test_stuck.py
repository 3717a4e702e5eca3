"""Which devices are stuck, how probable that is, and at which conductances."""

import numpy as np
import pytest

from calib.errors import FitError
from calib.fitting.intervals import binomial_interval
from calib.fitting.stuck import device_extremes, is_stuck, scott_bandwidth, stuck_node

NAMES = np.array([f"d{k:02d}" for k in range(20)])


def population(stuck_at: list[float]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return smallest, largest and mean conductance [S] of 20 devices, the first of which are stuck."""
    generator = np.random.default_rng(1)
    low = 1e-5 * np.exp(0.1 * generator.standard_normal(20))
    high = 1e-4 * np.exp(0.1 * generator.standard_normal(20))
    for k, g in enumerate(stuck_at):
        low[k], high[k] = 0.98 * g, 1.02 * g
    return low, high, (low + high) / 2


@pytest.mark.parametrize("rule", ["range", "ratio"])
def test_stuck_devices_are_found(rule: str) -> None:
    low, high, mean = population([1e-4, 1e-5, 3.2e-5])
    node = stuck_node(NAMES, low, high, mean, rule)
    assert list(node["stuck_device"].values) == ["d00", "d01", "d02"]
    assert float(node["probability"]) == 3 / 20
    np.testing.assert_allclose(node["probability_bound"].values, binomial_interval(3, 20))
    assert list(node["bound"].values) == ["low", "high"]
    np.testing.assert_allclose(node["conductance"].values, [1e-4, 1e-5, 3.2e-5])
    counts = [int(node[f"n_stuck_{where}"]) for where in ("on", "off", "other")]
    assert counts == [1, 1, 1]
    assert (int(node["n_devices"]), int(node["n_stuck"]), int(node["n_stuck_by_other_rule"])) == (20, 3, 3)
    assert node.attrs["rule_name"] == rule
    assert node.attrs["assumed"] == 0


def test_the_rules_are_the_published_ones() -> None:
    """Half of (median of the maxima - median of the minima), in siemens or in logarithms, by hand.

    Medians 1 and 100 uS: 'range' wants a range of 49.5 uS, 'ratio' an on/off ratio of 10.
    """
    minimum = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.5, 30.0, 30.0]) * 1e-6
    maximum = np.array([100.0, 100.0, 100.0, 100.0, 100.0, 40.0, 90.0, 78.0]) * 1e-6
    assert is_stuck(minimum, maximum, "range").tolist() == [False] * 5 + [True, False, True]
    assert is_stuck(minimum, maximum, "ratio").tolist() == [False] * 5 + [False, True, True]


@pytest.mark.parametrize("rule", ["range", "ratio"])
def test_none_stuck(rule: str) -> None:
    node = stuck_node(NAMES, *population([]), rule)
    assert float(node["probability"]) == 0
    np.testing.assert_allclose(node["probability_bound"].values, [0, 0.1684], atol=6e-5)  # Clopper-Pearson, 0 of 20
    assert node.sizes["stuck_device"] == 0
    assert float(node["bandwidth"]) == 0


def test_one_stuck_device_has_no_bandwidth() -> None:
    node = stuck_node(NAMES, *population([1e-4]), "ratio")
    assert node.sizes["stuck_device"] == 1
    assert float(node["bandwidth"]) == 0


def test_scott_bandwidth() -> None:
    """sigma n^(-1/5) by hand: the standard deviation of 1, 2, 3, 4 is sqrt(5/3)."""
    assert scott_bandwidth(np.array([1.0, 2.0, 3.0, 4.0])) == pytest.approx(np.sqrt(5 / 3) * 4**-0.2, rel=1e-14)
    assert scott_bandwidth(np.array([3.0])) == 0.0


def test_a_device_that_reads_zero_is_not_an_error() -> None:
    low, high, mean = population([])
    low[4] = 0.0
    assert not is_stuck(low, high, "ratio").any()
    low[5] = high[5] = mean[5] = 0.0
    node = stuck_node(NAMES, low, high, mean, "range")
    assert list(node["stuck_device"].values) == ["d05"]
    assert int(node["n_stuck_off"]) == 1


@pytest.mark.parametrize("rule", ["range", "ratio"])
def test_all_stuck_is_an_error(rule: str) -> None:
    g = np.full(20, 2e-5)
    with pytest.raises(
        FitError, match=r"all 20 devices are stuck: the median of their largest .* 2\.02e-05 S .* check"
    ):
        stuck_node(NAMES, g * 0.99, g * 1.01, g, rule)


def test_the_number_stuck_against_the_threshold() -> None:
    """By hand: ratios of 10 but for one of 10^0.38 and one of 10^0.52, so that the count steps at 0.4 and 0.55."""
    low, high = np.full(20, 1e-5), np.full(20, 1e-4)
    high[0], high[1] = 1e-5 * 10**0.38, 1e-5 * 10**0.52
    node = stuck_node(NAMES, low, high, (low + high) / 2, "ratio")
    assert node["n_stuck_at_threshold"].values.tolist() == [0, 0, 1, 1, 1, 2, 2, 2, 2]
    np.testing.assert_allclose(node["threshold"].values[[0, -1]], [0.3, 0.7])
    np.testing.assert_allclose(node["probability_at_threshold_bound"].values[-1], binomial_interval(2, 20))
    np.testing.assert_allclose(node["probability_off_bound"].values, binomial_interval(1, 20))


def test_noise_under_the_floor_is_no_switching() -> None:
    """Two states of noise under the floor of 1 uS: stuck. One state above it, one under: not, or not known."""
    devices = np.array(["a", "a", "b", "b", "c", "c", "d", "d", *np.repeat([f"e{k}" for k in range(6)], 2)])
    g = np.array([1e-9, 5e-7, 1e-4, 1e-8, 2.0e-6, 3e-8, 1.1e-4, 2e-6, *([1e-4, 2e-6] * 6)])
    limit = np.full(len(g), np.nan)
    limit[[0, 1, 3, 5]] = 1e-6
    labels, low, high, mean, censored = device_extremes(devices, g, limit)
    assert low[:4].tolist() == [1e-6, 1e-6, 1e-6, 2e-6]
    assert censored[:4].tolist() == [True, True, True, False]
    node = stuck_node(labels, low, high, mean, "ratio", censored)
    assert node["stuck_device"].values.tolist() == ["a"]
    assert int(node["n_undecided"]) == 1
    assert int(node["n_devices"]) == 9
    assert float(node["probability"]) == pytest.approx(1 / 9)
    assert int(node["n_stuck_off"]) == 1
