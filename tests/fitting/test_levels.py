"""Levels: recovered means and spreads, the count, limits, real files, bad data."""

import itertools

import numpy as np
import pytest
from scipy.special import ndtr

import calib
from calib.fitting.levels import ERRORS, levels_node
from calib.level_count import distinguishable, fitting_in, half_width, pair_error, select
from tests.fitting.traces_made import reads_of

RNG = np.random.default_rng


def many(means, stds, traces, samples, seed=0, between=0.0):
    """Return reads of normal levels: `traces` devices each, some of the spread between devices."""
    rng = RNG(seed)
    rows, names = [], []
    for k, (mean, std) in enumerate(zip(means, stds, strict=True)):
        own = mean + between * std * rng.standard_normal((traces, 1))
        rows.append(own + np.sqrt(1 - between**2) * std * rng.standard_normal((traces, samples)))
        names += [str(k)] * traces
    return reads_of(np.concatenate(rows), level=names)


def test_the_greedy_set_is_as_large_as_any():
    rng = RNG(3)
    for _ in range(40):
        mean, std = np.sort(rng.uniform(0, 10, 9)), rng.uniform(0.05, 0.6, 9)
        z = half_width(0.01)
        best = 1
        for size in range(2, 10):
            for subset in itertools.combinations(range(9), size):
                m, s = mean[list(subset)], std[list(subset)]
                # a wide level may be misread as one that is not its neighbour, so every pair counts
                if all(m[j] - m[i] >= z * (s[i] + s[j]) for i in range(size) for j in range(i + 1, size)):
                    best = size
        assert len(distinguishable(mean, std, 0.01)) == best


def test_pair_error_is_the_share_that_crosses_the_threshold():
    mean, std = np.array([1.0, 2.0]), np.array([0.2, 0.4])
    rng = RNG(0)
    threshold = (mean[0] * std[1] + mean[1] * std[0]) / std.sum()
    low, high = rng.normal(mean[0], std[0], 400_000), rng.normal(mean[1], std[1], 400_000)
    expected = pair_error(mean, std)[0]
    assert expected == pytest.approx(ndtr(-1 / 0.6))
    assert (low > threshold).mean() == pytest.approx(expected, rel=0.02)  # 400,000 draws: 0.7 %
    assert (high < threshold).mean() == pytest.approx(expected, rel=0.02)


def test_levels_that_fit_follow_from_the_closed_form():
    # sigma constant: 1 + range / (2 z sigma); sigma = a G: 1 + ln(high / low) / (2 z a)
    z = half_width(0.01)
    constant = fitting_in(1e-6, 1e-5, np.array([np.log(1e-7)]), 1e-6, np.array([0.01]))
    assert constant[0] == pytest.approx(1 + 9e-6 / (2 * z * 1e-7), rel=1e-4)
    relative = fitting_in(1e-6, 1e-4, np.array([np.log(0.02 * 1e-6), 1.0]), 1e-6, np.array([0.01]))
    assert relative[0] == pytest.approx(1 + np.log(100) / (2 * z * 0.02), rel=1e-3)


def test_intervals_that_are_not_finite_are_left_out():
    assert select(np.array([0.0, np.nan, 2.0]), np.array([1.0, 1.5, 3.0])).tolist() == [0, 2]


def test_known_levels_are_recovered():
    means, stds = np.linspace(1e-5, 1e-4, 10), np.full(10, 1.5e-6)
    warnings: list[str] = []
    node = levels_node(many(means, stds, 60, 20, between=0.6), warnings)
    assert node is not None
    assert warnings == []
    assert node.attrs["told_by"] == "level"
    assert (np.abs(node["mean"].values - means) < 4 * node["mean_stderr"].values).all()
    assert (np.abs(node["std"].values - stds) < 4 * node["std_stderr"].values).all()
    assert node["std_between"].values == pytest.approx(0.6 * stds, rel=0.35)
    # 1e-5 apart, 2 z sigma = 7.0e-6 at 1 %: all ten; 9.3e-6 at 0.1 %: all, or nine
    assert node["n_distinguishable"].values[1] == 10
    low, high = node["n_fit_bound"].values[1]
    assert low <= 1 + 9e-5 / (2 * half_width(0.01) * 1.5e-6) <= high
    assert node["misread"].values[2] <= 0.01
    assert node["n_empirical"].values[2] == 10


def test_the_interval_of_the_number_that_fits_covers_the_truth():
    means = np.linspace(1e-5, 1e-4, 8)
    truth = 1 + 9e-5 * (7 / 7) / (2 * half_width(0.01) * 2e-6)
    covered = 0
    for seed in range(12):
        node = levels_node(many(means, np.full(8, 2e-6), 12, 5, seed=seed, between=0.7), [])
        low, high = node["n_fit_bound"].values[1]
        covered += low <= truth <= high
    assert covered >= 9  # 95 % nominal: 9 of 12 or more with chance 0.998


def test_reads_that_creep_count_as_few():
    k = np.arange(1000)
    rng = RNG(0)
    rows = [m * (1 - 0.02 * np.log1p(k) / 7 + 0.001 * rng.standard_normal(1000)) for m in (1e-5, 2e-5, 4e-5)]
    warnings: list[str] = []
    node = levels_node(reads_of(rows, device="d", level=["a", "b", "c"]), warnings)
    assert node["n_effective"].values.max() < 100
    assert any("worth" in w for w in warnings)
    assert any("one device" in w for w in warnings)


def test_targets_go_before_labels_and_states_serve_as_levels():
    rng = RNG(0)
    g = np.repeat([[1e-5], [2e-5]], 6, axis=0) * (1 + 0.01 * rng.standard_normal((12, 8)))
    target = np.repeat([1e-5, 2e-5], 6)
    assert levels_node(reads_of(g, target=target, level=["x"] * 12), []).attrs["told_by"] == "target"
    node = levels_node(reads_of(g, state=np.repeat(["hrs", "lrs"], 6)), [])
    assert node.attrs["told_by"] == "state"
    assert node["level_name"].values.tolist() == ["hrs", "lrs"]
    assert np.isnan(node["n_fit"].values).all()


def test_traces_of_one_device_are_levels():
    g = np.outer([1e-5, 2e-5, 3e-5], np.ones(20)) * (1 + 0.01 * RNG(1).standard_normal((3, 20)))
    assert levels_node(reads_of(g, device="d"), []).attrs["told_by"] == "trace"


@pytest.mark.parametrize(
    ("reads", "message"),
    [
        (reads_of([[1e-5, 1e-5]]), "nothing tells which reads belong"),
        (reads_of([[1e-5] * 9, [2e-5] * 9], level=["a", "b"]), "0 of 2 levels"),
        (reads_of([[1e-5, np.nan], [2e-5, np.nan]], level=["a", "b"]), "0 of 2 levels"),
        (reads_of([[np.nan] * 9, [np.nan] * 8 + [1e-5]], level=["a", "b"]), "0 of 1 levels"),
    ],
)
def test_data_that_do_not_support_levels_say_so(reads, message):
    warnings: list[str] = []
    assert levels_node(reads, warnings) is None
    assert len(warnings) == 1
    assert warnings[0].startswith("levels: not found, because")
    assert message in warnings[0]


def test_negative_reads_near_zero_are_kept():
    g = np.repeat([[0.0], [1e-5]], 10, axis=0) + 2e-7 * RNG(2).standard_normal((20, 10))
    node = levels_node(reads_of(g, level=np.repeat(["0", "1"], 10)), [])
    assert node["n_distinguishable"].values.tolist() == [2] * len(ERRORS)
    assert abs(float(node["mean"][0])) < 1e-7


def test_thirty_two_levels_of_xiao(measurements):
    tree = calib.read(measurements / "xiao2025-multilevel" / "32-levels-retention.xlsx")
    warnings: list[str] = []
    node = levels_node(tree["reads"].to_dataset(), warnings)
    assert node["n_distinguishable"].values.tolist() == [29, 31, 32]
    assert node["n_empirical"].values[1:].tolist() == [32, 32]
    low, high = node["n_fit_bound"].values[1]
    assert low < 96 < high
    # 16 and 17 lie closer than their spreads: misread by 1.2 %
    assert node["pair_error"].values[15] == pytest.approx(0.0122, abs=5e-4)


def test_relaxing_cells_lose_their_levels(measurements):
    path = measurements / "levy-relaxation" / "relaxdata.min.tsv.gz"
    tree = calib.read(path, columns="device=0,time=1,resistance=2,conductance=3,level=5")
    node = levels_node(tree["reads"].to_dataset(), [])
    counts = node["n_distinguishable_at"].sel(error=0.01).values
    assert counts[0] == 17
    assert counts[-1] == 3
    assert (np.diff(counts) <= 0).all()
    assert float(node["time"][-1]) == pytest.approx(1e5, rel=0.05)
