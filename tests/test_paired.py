"""Means of paired differences: against t by hand, and coverage of the interval."""

import numpy as np
import pytest
from scipy import stats

from calib.paired import mean


def test_one_network_is_t_over_chips() -> None:
    values = np.array([[0.1, 0.3, 0.2, 0.6]])
    found = mean(values)
    assert found.value == pytest.approx(0.3)
    assert found.half == pytest.approx(3.182446 * values.std(ddof=1) / 2, rel=1e-6)
    assert np.isnan(mean(np.array([[0.4]])).half)
    assert mean(values.T).half == pytest.approx(found.half)


def test_equal_values_have_no_interval() -> None:
    assert mean(np.full((3, 5), 0.25)).half == 0
    assert mean(np.full((1, 5), 0.25)).half == 0


def test_networks_that_differ_alone_are_t_over_networks() -> None:
    values = np.repeat([[0.1], [0.2], [0.4]], 10, axis=1)
    expected = stats.t.ppf(0.975, 2) * values[:, 0].std(ddof=1) / np.sqrt(3)
    assert mean(values).half == pytest.approx(expected, rel=1e-6)


def test_interval_covers_the_truth_with_effects_of_networks_and_chips() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(1000):
        values = generator.normal(0, 1, (4, 1)) + generator.normal(0, 2, (1, 12)) + generator.normal(0, 1, (4, 12))
        found = mean(values)
        covered += found.low <= 0 <= found.high
    assert 0.925 < covered / 1000 < 0.985  # Satterthwaite is approximate; 0.95 +- 0.007 by chance
