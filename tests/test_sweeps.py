"""Splitting sweeps into branches, labels and flags, on data whose truth is chosen here."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib import measurement as m
from calib.sweeps import SweepRules, cut, cut_all, split
from calib.sweeps.events import spikes

RULES = SweepRules()


def ramp(*corners: float, points: int = 11, repeat: bool = False) -> np.ndarray:
    """A staircase through the corners; `repeat` writes each corner twice."""
    parts = [np.linspace(a, b, points) for a, b in itertools.pairwise(corners)]
    return np.concatenate([parts[0], *(part if repeat else part[1:] for part in parts[1:])])


def bipolar(voltage: np.ndarray, g_low: float, g_high: float, v_set: float, v_reset: float, start_high: bool = False):
    """Current of an ohmic device that goes to g_high at v_set and to g_low at v_reset (signed voltages)."""
    high, current = start_high, []
    for v in voltage:
        if (v >= v_set) if v_set > 0 else (v <= v_set):
            high = True
        if (v >= v_reset) if v_reset > 0 else (v <= v_reset):
            high = False
        current.append(v * (g_high if high else g_low))
    return np.array(current)


def branches(*traces: m.Trace, rules: SweepRules = RULES):
    tree = m.build({"iv": m.iv_node(traces)}, [{"name": "x", "sha256": "", "reader": "", "why": ""}])
    result = split(tree, rules)
    m.check(result)
    return result["iv"].to_dataset(inherit=False)


def labels(node, *names: str) -> list[tuple]:
    return list(zip(*(node[name].values.tolist() for name in names), strict=True))


def flagged(node, name: str) -> np.ndarray:
    return (node["flag"].values & m.FLAGS[name]) != 0


@pytest.mark.parametrize(
    ("voltage", "expected"),
    [
        ([0, 1, 2, 1, 0, -1, -2, -1, 0], [0, 3, 5, 7]),
        ([0, 1, 2, 2, 1, 0, 0, -1, -1, 0], [0, 3, 6, 8]),  # corners written twice
        ([1, 0.5, 0, -0.5, -1, -0.5, 0, 0.5, 1], [0, 3, 5, 7]),  # starts at +V
        ([-1, -2, -1, 0, 1], [0, 2, 4]),
        ([0, 1, 2, 2, 1, 0, 0, 1, 2, 1], [0, 3, 6, 9]),  # unipolar
        ([0, 1, 2, 2, 2, 2, 1, 0], [0, 4]),  # a plateau at the turning point is halved
        ([0, 1, 2, 3], [0]),
        ([3], [0]),
        ([0, 0, 0], [0]),
        ([], []),
        ([0, 2, -2, 0], [0, 2, 3]),  # no point at zero
    ],
)
def test_cut(voltage, expected) -> None:
    assert cut(np.array(voltage, dtype=float)).tolist() == expected


def test_cut_ignores_noise_of_set_points() -> None:
    clean = np.concatenate([ramp(0, 8, 0, -8, 0, points=80, repeat=True)] * 5)
    noisy = clean + np.random.default_rng(3).normal(0, 0.01, len(clean))
    starts = cut(noisy)
    assert len(starts) == 20
    assert np.abs(starts - cut(clean)).max() <= 2


def test_cut_finds_small_loops_of_a_staircase() -> None:
    assert len(cut(ramp(0, 0.02, 0, 4, 0, -4, 0, points=21))) == 6


def test_cut_ignores_the_snap_back_of_a_measured_voltage() -> None:
    v = np.sin(np.linspace(0, 2 * np.pi, 200)) + np.random.default_rng(0).normal(0, 2e-3, 200)
    v[30:32] -= 0.015
    assert len(cut(v)) == 4


corner = st.integers(-20, 20)


@given(st.lists(corner, min_size=2, max_size=12), st.integers(3, 9), st.booleans())
def test_the_loop_put_together_again_is_the_trace(corners, points, repeat) -> None:
    voltage = 0.1 * ramp(*corners, points=points, repeat=repeat)
    found = cut_all([voltage], RULES)
    inside = found.index[found.index >= 0]
    assert sorted(inside.tolist()) == list(range(len(voltage)))  # every point in exactly one branch
    again = np.concatenate([row[row >= 0] for row in found.index[np.argsort(found.order)]])
    assert again.tolist() == list(range(len(voltage)))
    for row in found.index:
        part = voltage[row[row >= 0]]
        steps = np.diff(np.abs(part))
        small = RULES.zero_range * np.ptp(voltage) + 1e-12
        assert (steps >= -small).all() or (steps <= small).all()  # monotonic in |V|
        assert (part >= -small).all() or (part <= small).all()  # of one polarity


@given(st.lists(corner, min_size=2, max_size=8), st.integers(0, 2**32 - 1))
def test_splitting_keeps_every_point(corners, seed) -> None:
    voltage = 0.1 * ramp(*corners, points=5)
    current = np.random.default_rng(seed).normal(0, 1e-6, len(voltage))
    node = branches(m.Trace(voltage, current, "a"))
    order = np.argsort(node["order"].values)
    assert np.array_equal(np.concatenate([row[np.isfinite(row)] for row in node["voltage"].values[order]]), voltage)
    restored = np.concatenate([row[np.isfinite(row)] for row in node["current"].values[order]])
    assert np.array_equal(np.abs(restored), np.abs(current))


def test_labels_of_a_bipolar_device() -> None:
    voltage = np.concatenate([ramp(0, 2, 0, -2, 0, repeat=True)] * 3)
    node = branches(m.Trace(voltage, bipolar(voltage, 1e-6, 1e-4, 1.5, -1.5), "a"))
    expected = [
        ("set", "hrs", "up", "positive"),
        ("set", "lrs", "down", "positive"),
        ("reset", "lrs", "up", "negative"),
        ("reset", "hrs", "down", "negative"),
    ]
    assert labels(node, "operation", "state", "direction", "polarity") == expected * 3
    assert node["cycle"].values.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert node["order"].values.tolist() == list(range(12))
    assert any("positive voltage sets" in note for note in m.notes_of(node))


def test_the_polarity_that_sets_is_found() -> None:
    voltage = ramp(0, 2, 0, -2, 0)
    node = branches(m.Trace(voltage, bipolar(voltage, 1e-6, 1e-4, -1.5, 1.5, start_high=True), "a"))
    assert labels(node, "operation", "state") == [("reset", "lrs"), ("reset", "hrs"), ("set", "hrs"), ("set", "lrs")]


def test_a_sweep_that_starts_at_its_end() -> None:
    voltage = ramp(1, -2, 1, points=61)
    node = branches(m.Trace(voltage, bipolar(voltage, 1e-6, 1e-4, 0.8, -1.5, start_high=True), "a"))
    assert labels(node, "operation", "state", "direction") == [
        ("set", "lrs", "down"),
        ("reset", "lrs", "up"),
        ("reset", "hrs", "down"),
        ("set", "hrs", "up"),
    ]


def test_a_failed_attempt_keeps_the_state_that_it_should_have_left() -> None:
    voltage = ramp(0, 2, 0, -2, 0)
    good = bipolar(voltage, 1e-6, 1e-4, 1.5, -1.5)
    failed = bipolar(voltage, 1e-6, 1e-4, 1.5, -9.0)  # the reset fails
    node = branches(*(m.Trace(voltage, current, "a") for current in (good, good, failed)))
    assert labels(node, "operation", "state")[-2:] == [("reset", "lrs"), ("reset", "hrs")]
    assert node["cycle"].values.tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_a_device_that_never_switches_is_read_only() -> None:
    voltage = ramp(0, 2, 0, -2, 0)
    good, dead = bipolar(voltage, 1e-6, 1e-4, 1.5, -1.5), 1e-5 * voltage
    node = branches(m.Trace(voltage, good, "a"), m.Trace(voltage, dead, "b"))
    assert set(labels(node.isel(sweep=node["device"].values == "b"), "operation", "state")) == {("read", "")}


def test_the_switching_event_is_flagged_from_its_first_point() -> None:
    voltage = ramp(0, 2, 0, -2, 0, points=21)
    node = branches(m.Trace(voltage, bipolar(voltage, 1e-6, 1e-4, 1.5, -1.5), "a"))
    mask = flagged(node, "switching")
    assert np.nanmin(np.abs(node["voltage"].values)[0][mask[0]]) == pytest.approx(1.5)
    assert np.nanmin(np.abs(node["voltage"].values)[2][mask[2]]) == pytest.approx(1.5)
    assert not mask[[1, 3]].any()


def test_a_smooth_exponential_is_no_switching_event() -> None:
    voltage = ramp(0, 2, 0, -2, 0, points=21)
    current = np.sinh(4 * voltage) * 1e-7 * np.where(np.arange(len(voltage)) < 21, 1.0, 50.0)
    node = branches(m.Trace(voltage, current, "a"))
    assert not flagged(node, "switching")[0].any()


def test_compliance_is_found_per_polarity() -> None:
    voltage = ramp(0, 2, 0, -2, 0, points=41)
    current = bipolar(voltage, 1e-6, 1e-4, 0.8, -1.5)
    jitter = 1 + 2e-4 * np.random.default_rng(0).normal(size=len(voltage))
    node = branches(m.Trace(voltage, np.where(current > 5.2e-5, 5.2e-5 * jitter, current), "a"))
    positive = node["polarity"].values == "positive"
    assert node["compliance"].values[positive] == pytest.approx(5.2e-5, rel=1e-3)
    assert np.isnan(node["compliance"].values[~positive]).all()
    mask = flagged(node, "compliance")
    assert mask[positive].sum() == (current > 5.2e-5).sum()
    assert not mask[~positive].any()
    assert not flagged(node, "spike").any()  # a compliance knee is no spike


def test_a_clipped_read_is_saturated() -> None:
    voltage = ramp(0, 1, 0, points=41)
    node = branches(*(m.Trace(voltage, np.minimum(1e-3 * voltage, 5e-4), str(k)) for k in range(3)))
    assert flagged(node, "saturated").sum() > 0
    assert np.isnan(node["compliance"].values).all()
    assert set(node["operation"].values) == {"read"}


def test_an_ohmic_sweep_on_a_fine_grid_has_no_plateau() -> None:
    voltage = ramp(0, 1, 0, points=2001)
    node = branches(m.Trace(voltage, 1e-5 * voltage, "a"))
    assert not node["flag"].values.any()


def test_recorded_absolute_values_get_their_sign_back() -> None:
    voltage = ramp(0, 2, 0, -2, 0)
    current = bipolar(voltage, 1e-6, 1e-4, 1.5, -1.5)
    node = branches(m.Trace(voltage, np.abs(current), "a"))
    negative = node["polarity"].values == "negative"
    assert (np.nan_to_num(node["current"].values[negative]) <= 0).all()
    assert flagged(node, "sign_restored").sum() == (current < 0).sum()
    signed = branches(m.Trace(voltage, current, "a"))
    assert not flagged(signed, "sign_restored").any()


@pytest.mark.parametrize("per_device", [0.0, 3e-7])
def test_a_constant_offset_is_found_with_its_error(per_device) -> None:
    """As in 1T1R read sweeps: linear devices, noise of 0.2 uA, -2 uA added; within five standard errors."""
    rng = np.random.default_rng(11)
    voltage = np.arange(36) * 0.01
    truth = -2e-6 + per_device * rng.normal(size=300)
    traces = [
        m.Trace(voltage, rng.uniform(2e-5, 1.3e-4) * voltage + a + rng.normal(0, 2e-7, 36), str(k))
        for k, a in enumerate(truth)
    ]
    node = branches(*traces)
    offset, stderr = node["offset"].values, node["offset_stderr"].values
    assert np.unique(offset).size == 1
    assert abs(offset[0] - truth.mean()) < 5 * stderr[0]
    assert stderr[0] < 3e-8
    assert flagged(node, "offset").sum() == 300 * 36
    assert np.array_equal(node["voltage"].values[0], voltage)
    assert node["current"].values[3] == pytest.approx(traces[3].current)  # the fit subtracts it
    assert 2e-7 < node["noise_floor"].values[0] < 2e-6


def test_offsets_that_clearly_differ_are_kept_per_sweep() -> None:
    rng = np.random.default_rng(5)
    voltage = np.arange(36) * 0.01
    truth = -2e-6 * (1 + 0.3 * rng.normal(size=60))
    traces = [m.Trace(voltage, 1e-4 * voltage + a + rng.normal(0, 2e-8, 36), str(k)) for k, a in enumerate(truth)]
    node = branches(*traces)
    error = (node["offset"].values - truth) / node["offset_stderr"].values
    assert np.median(np.abs(error)) < 2
    assert np.abs(node["offset"].values - truth).max() < 2e-7


def test_noise_alone_is_no_offset() -> None:
    rng = np.random.default_rng(2)
    voltage = ramp(0, 1, 0, points=21)
    traces = [m.Trace(voltage, 1e-6 * voltage + rng.normal(0, 1e-9, len(voltage)), str(k)) for k in range(40)]
    node = branches(*traces)
    assert not node["offset"].values.any()
    assert np.isnan(node["offset_stderr"].values).all()
    assert node["noise_floor"].values[0] == pytest.approx(2e-9, rel=0.5)  # two standard deviations, from 80 sweeps
    below = np.abs(node["current"].values) < node["noise_floor"].values[:, None]
    assert np.array_equal(flagged(node, "below_floor"), below)


def test_a_spike_is_flagged_and_nothing_beside_it() -> None:
    voltage = ramp(0, 1, 0, points=41)
    current = 1e-5 * np.sinh(2 * voltage)
    current[20] *= 3
    node = branches(m.Trace(voltage, current, "a"))
    assert np.argwhere(flagged(node, "spike")).tolist() == [[0, 20]]


@given(st.lists(st.floats(1e-9, 1e-3), min_size=3, max_size=30))
def test_a_monotonic_curve_has_no_spike(values) -> None:
    current = np.sort(np.array(values))[None]
    assert not spikes(np.arange(current.size, dtype=float)[None], current, 0.0, RULES).any()


def test_repeated_points_are_flagged() -> None:
    node = branches(m.Trace(np.array([0.0, 0.1, 0.1, 0.2]), np.array([0.0, 1e-6, 1e-6, 2e-6]), "a"))
    assert flagged(node, "duplicate").tolist() == [[False, False, True, False]]


def test_populations_are_treated_apart() -> None:
    voltage = ramp(0, 2, 0, -2, 0)
    one = bipolar(voltage, 1e-6, 1e-4, 1.5, -1.5)
    other = bipolar(voltage, 1e-6, 1e-4, -1.5, 1.5, start_high=True)
    node = branches(m.Trace(voltage, one, "a", population="p"), m.Trace(voltage, other, "a", population="q"))
    assert node["operation"].values.tolist() == ["set", "set", "reset", "reset", "reset", "reset", "set", "set"]


def test_stated_labels_stay() -> None:
    voltage = ramp(0, 1)
    node = branches(m.Trace(voltage, 1e-5 * voltage, "a", cycle=7, state="level 3", compliance=1e-3))
    assert labels(node, "cycle", "state") == [(7, "level 3")]
    assert node["compliance"].values.tolist() == [1e-3]


def test_splitting_twice_changes_nothing() -> None:
    voltage = ramp(0, 2, 0, -2, 0)
    tree = m.build({"iv": m.iv_node([m.Trace(voltage, bipolar(voltage, 1e-6, 1e-4, 1.5, -1.5), "a")])}, [])
    once = split(tree)
    assert split(once) is once


def test_a_thousand_devices_take_no_time() -> None:
    import time

    rng = np.random.default_rng(0)
    voltage = np.arange(36) * 0.01
    traces = [m.Trace(voltage, 1e-4 * voltage + rng.normal(0, 1e-7, 36), str(k)) for k in range(1024)]
    start = time.perf_counter()
    node = branches(*traces)
    assert time.perf_counter() - start < 4.0
    assert node.sizes["sweep"] == 1024
