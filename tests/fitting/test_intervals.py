"""Intervals that assume no distribution: coverage by simulation, and tabulated values."""

import numpy as np
import pytest
from scipy import stats

from calib.fitting.intervals import binomial_interval, clustered_quantile_interval, quantile_interval


@pytest.mark.parametrize("n", [6, 11, 40])
def test_median_interval_covers(n: int) -> None:
    """At least 95 %, at most what one order statistic less would leave; 4000 samples have an error of 0.35 %."""
    generator = np.random.default_rng(n)
    samples = generator.lognormal(0.0, 1.0, (4000, n))  # median 1, skewed
    bounds = np.array([quantile_interval(sample, 0.5) for sample in samples])
    covered = ((bounds[:, 0] <= 1) & (bounds[:, 1] >= 1)).mean()
    tail = stats.binom.cdf(stats.binom.ppf(0.025, n, 0.5) - 1, n, 0.5)
    assert covered == pytest.approx(1 - 2 * tail, abs=0.014)
    assert covered > 0.95 - 0.014


@pytest.mark.parametrize(("n", "low", "high"), [(6, 1, 6), (10, 2, 9), (20, 6, 15), (25, 8, 18), (50, 18, 33)])
def test_median_interval_as_tabulated(n: int, low: int, high: int) -> None:
    """Order statistics of the 95 % interval of a median (Conover, Practical Nonparametric Statistics, table A3)."""
    assert quantile_interval(np.arange(1.0, n + 1), 0.5) == (low, high)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_small_samples_have_no_median_interval(n: int) -> None:
    assert np.isnan(quantile_interval(np.arange(float(n)), 0.5)).all()


def test_an_end_that_the_sample_is_too_small_for() -> None:
    """Of 20 values the 5 % quantile has no lower bound at 95 %, but an upper one."""
    low, high = quantile_interval(np.arange(20.0), 0.05)
    assert np.isnan(low)
    assert high == 3.0  # P(binomial(20, 0.05) <= 3) = 0.984


def test_no_values_and_values_that_are_not_there() -> None:
    assert np.isnan(quantile_interval(np.array([]), 0.5)).all()
    assert np.isnan(quantile_interval(np.array([np.nan, np.nan]), 0.5)).all()
    values = np.array([3.0, np.nan, 1.0, 6.0, 2.0, np.nan, 5.0, 4.0])
    assert quantile_interval(values, 0.5) == (1.0, 6.0)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [
        (0, 10, 0.0, 0.3085), (1, 10, 0.0025, 0.4450), (5, 10, 0.1871, 0.8129), (8, 10, 0.4439, 0.9748),
        (10, 10, 0.6915, 1.0), (4, 20, 0.0573, 0.4366), (5, 100, 0.0164, 0.1128),
    ],
)  # fmt: skip
def test_binomial_interval_as_tabulated(successes: int, trials: int, low: float, high: float) -> None:
    """Clopper-Pearson 95 %, to the four digits of the tables (Geigy Scientific Tables)."""
    np.testing.assert_allclose(binomial_interval(successes, trials), (low, high), atol=6e-5)


def test_binomial_interval_is_that_of_the_beta_distribution() -> None:
    low, high = binomial_interval(7, 61, 0.9)
    assert low == pytest.approx(stats.beta.ppf(0.05, 7, 55), rel=1e-9)
    assert high == pytest.approx(stats.beta.ppf(0.95, 8, 54), rel=1e-9)


@pytest.mark.parametrize("q", [0.05, 0.5, 0.95])
def test_intervals_of_quantiles_of_devices_that_repeat(q: float) -> None:
    """60 devices of 3 values: of 300 samples each end misses 2.5 %, within 3 binomial standard errors of 0.9 %."""
    generator = np.random.default_rng(1)
    device = np.repeat(np.arange(60), 3)
    truth = stats.norm.ppf(q) * np.hypot(1.0, 0.5)
    misses = np.zeros(2)
    for _ in range(300):
        values = generator.standard_normal(60)[device] + 0.5 * generator.standard_normal(180)
        low, high = clustered_quantile_interval(values, device, q)
        misses += [truth < low, truth > high]
    assert (misses / 300 < 0.025 + 0.027).all()


def test_values_of_different_devices_have_order_statistics() -> None:
    values = np.arange(20.0)
    assert clustered_quantile_interval(values, np.arange(20), 0.5) == quantile_interval(values, 0.5)
    assert clustered_quantile_interval(values, np.zeros(20), 0.5) == quantile_interval(values, 0.5)
    assert np.isnan(clustered_quantile_interval(np.array([]), np.array([]), 0.5)).all()
    equal = clustered_quantile_interval(np.ones(20), np.repeat(np.arange(5), 4), 0.5)
    assert equal == (1.0, 1.0)
