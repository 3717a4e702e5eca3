"""Closed loop: simulate, fit again, and count how often the stated intervals hold the truth."""

import numpy as np
import pytest
from scipy import stats

from benchmarks import closed_loop

FEW = 12


@pytest.fixture(scope="module")
def counted() -> dict[str, dict[str, float]]:
    model = closed_loop.truth()
    runs = [closed_loop.run(model, seed, devices=14, cycles=3, draws=12) for seed in range(FEW)]
    return closed_loop.coverage(runs, closed_loop.values(closed_loop.nodes_of(model)))


def test_the_loop_recovers_every_quantity(counted):
    for key, row in counted.items():
        assert abs(row["z_mean"]) < 4.5 / np.sqrt(FEW), key  # in standard errors of a fit, few of which are normal


def test_stated_intervals_hold_the_truth_in_most_runs(counted):
    """Loose: a 95 % interval covers fewer than 8 of 12 times once in five thousand."""
    for key, row in counted.items():
        assert row["stated"] >= stats.binom.ppf(2e-4, row["n_stated"], 0.95) - 1, key
    total, inside = (sum(row[name] for row in counted.values()) for name in ("n_stated", "stated"))
    assert inside / total > 0.87


def test_models_drawn_from_a_fit_hold_the_truth_in_most_runs(counted):
    total, inside = (sum(row[name] for row in counted.values()) for name in ("n_drawn", "drawn"))
    assert inside / total > 0.72  # the ends of 12 draws are those of an 85 % interval


@pytest.mark.reproduction
def test_intervals_have_their_nominal_coverage():
    """200 runs of 40 devices and 5 cycles; 95 % intervals of a quantity that large-sample errors describe."""
    model, seeds = closed_loop.truth(), 200
    runs = [closed_loop.run(model, seed, devices=40, cycles=5, draws=100) for seed in range(seeds)]
    counted = closed_loop.coverage(runs, closed_loop.values(closed_loop.nodes_of(model)))
    for key, row in counted.items():
        if row["n_stated"]:
            assert row["stated"] / row["n_stated"] > 0.88, key
        assert row["drawn"] / row["n_drawn"] > 0.85, key
