"""Splitting variance: known components, coverage of the intervals, degenerate designs."""

import numpy as np
import pytest

from calib.errors import OptionError
from calib.variance_split import COMPONENTS, split_variance

STD = {"chip": 0.02, "network": 0.01, "model": 0.03, "interaction": 0.008}


def drawn(random: np.random.Generator, networks: int, models: int, chips: int, **std: float) -> np.ndarray:
    std = {**STD, **std}
    return (
        0.1
        + std["network"] * random.standard_normal((networks, 1, 1))
        + std["model"] * random.standard_normal((1, models, 1))
        + std["interaction"] * random.standard_normal((networks, models, 1))
        + std["chip"] * random.standard_normal((networks, models, chips))
    )


def test_estimates_are_unbiased_and_intervals_cover() -> None:
    random = np.random.default_rng(1)
    sets = [split_variance(drawn(random, 4, 12, 5), seed) for seed in range(250)]
    for name in COMPONENTS:
        unbiased = np.array([found[name].unbiased for found in sets])
        error = unbiased.std() / np.sqrt(len(sets))
        assert abs(unbiased.mean() - STD[name] ** 2) < 4 * error, name
        covered = np.mean([found[name].low <= STD[name] ** 2 <= found[name].high for found in sets])
        assert 0.91 <= covered <= 0.995, (name, covered)  # 95 % of 250: standard error 1.4 %


def test_against_the_mean_squares_of_a_hand_calculation() -> None:
    values = np.array([[[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [10.0, 8.0]]])
    found = split_variance(values)  # cell means 2, 6, 2, 9; networks 4, 5.5; models 2, 7.5; mean 4.75
    assert found["chip"].variance == pytest.approx((2 + 2 + 0 + 2) / 4)
    interaction, network, model = 4.5, 4.5, 60.5  # 2 * 4 * 0.75^2, 2 * 2 * 2 * 0.75^2, 2 * 2 * 2 * 2.75^2
    assert found["interaction"].variance == pytest.approx((interaction - 1.5) / 2)
    assert found["network"].unbiased == pytest.approx((network - interaction) / 4)
    assert found["model"].variance == pytest.approx((model - interaction) / 4)


def test_a_negative_estimate_is_zero_with_an_upper_bound() -> None:
    random = np.random.default_rng(3)
    sets = [split_variance(drawn(random, 3, 8, 6, network=0.0, interaction=0.0)) for _ in range(20)]
    negative = [found["interaction"] for found in sets if found["interaction"].unbiased < 0]
    assert len(negative) > 3
    for part in negative:
        assert part.variance == 0
        assert part.low == 0
        assert part.high > 0


def test_one_network_and_one_chip() -> None:
    random = np.random.default_rng(4)
    one = split_variance(drawn(random, 1, 200, 6, interaction=0.0))
    assert np.isnan([one["network"].variance, one["interaction"].variance]).all()
    assert one["model"].std == pytest.approx(STD["model"], rel=0.2)  # 200 models: 5 %
    single = split_variance(drawn(random, 8, 200, 1))
    assert np.isnan(single["chip"].variance)
    assert single["interaction"].std == pytest.approx(np.hypot(STD["chip"], STD["interaction"]), rel=0.1)


def test_no_spread_and_heavy_tails() -> None:
    same = split_variance(np.full((2, 3, 4), 0.5))
    assert all(part.variance == 0 for part in same.values())
    random = np.random.default_rng(5)
    normal = split_variance(random.standard_normal((3, 10, 10)))["chip"]
    heavy = split_variance(random.standard_t(5, (3, 10, 10)))["chip"]
    assert heavy.high / heavy.low > 1.1 * normal.high / normal.low


@pytest.mark.parametrize("values", [np.ones((2, 3)), np.full((2, 2, 2), np.nan), np.ones((2, 0, 2))])
def test_values_that_cannot_be_split(values: np.ndarray) -> None:
    with pytest.raises(OptionError, match="values to split"):
        split_variance(values)
