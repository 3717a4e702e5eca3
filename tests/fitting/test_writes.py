"""Write outcomes: devices that never switched and devices that fail writes are kept apart."""

import numpy as np
import pytest
import xarray as xr

import calib
from calib import device_model, measurement
from calib.fitting.writes import stuck_of_writes, switching_extremes, writes_node
from tests.pulse_trains import TARGETS, writes


def log(rows, **more) -> xr.Dataset:
    """Return a node writes of rows (device, low, high, achieved, success)."""
    names, low, high, achieved, success = zip(*rows, strict=True)
    variables = {"target_low": low, "target_high": high, "achieved": achieved, "success": success, **more}
    arrays = {key: np.array(value) for key, value in variables.items()}
    arrays |= {key: arrays[key].astype(float) for key in ("target_low", "target_high", "achieved")}
    return measurement.writes_node(arrays, {"device": list(names), "cycle": list(range(len(rows)))})


def test_devices_that_never_switched_are_not_those_that_fail_writes():
    warnings: list[str] = []
    node = writes_node(writes(np.random.default_rng(0)), warnings)
    assert int(node["n_never_switched"]) == 5
    assert int(node["n_switching"]) == 195
    assert int(node["n_failing"]) >= 20  # the weak ones, and those of chance
    assert node["never_device"].values.tolist() == [f"c{k:03d}" for k in range(5)]
    assert node["never_conductance"].values == pytest.approx(np.full(5, 6e-5), rel=0.01)
    low, high = node["never_switched_probability_bound"].values
    assert low < 0.025 < high
    device_model.build({"writes": node}, name="made up")


def test_a_device_that_hit_two_ranges_apart_has_switched():
    """Half of the devices move between the two upper ranges only: narrow by the rule, but they switch."""
    rows = []
    for k in range(40):
        for low, high in ((1e-6, 2e-6), (1.2e-4, 1.3e-4), (1.5e-4, 1.6e-4)):
            reached = 1.25e-4 if k < 12 and low == 1e-6 else 0.5 * (low + high)
            rows.append((f"c{k:02d}", low, high, reached, int(low <= reached <= high)))
    warnings: list[str] = []
    node = writes_node(log(rows), warnings)
    assert (int(node["n_narrow"]), int(node["n_narrow_moved"]), int(node["n_never_switched"])) == (12, 12, 0)
    assert any("so they switch and miss some targets" in sentence for sentence in warnings)
    assert int(stuck_of_writes(log(rows), "range", [])["n_stuck"]) == 0


def test_the_stuck_node_holds_the_devices_that_never_switched():
    node = stuck_of_writes(writes(np.random.default_rng(1)), "range", [])
    assert int(node["n_stuck"]) == 5
    assert node["conductance"].values == pytest.approx(np.full(5, 6e-5), rel=0.01)
    device_model.build({"stuck": node}, name="made up")


def test_extremes_are_those_of_the_log():
    node = writes(np.random.default_rng(2), devices=30)
    devices, low, high, mean = switching_extremes(node)
    for k in (0, 17):
        values = node["achieved"].values[node["device"].values == devices[k]]
        assert (low[k], high[k], mean[k]) == pytest.approx((values.min(), values.max(), values.mean()))


def test_programming_error_against_the_target():
    node = writes_node(writes(np.random.default_rng(3), devices=800, weak=0), [])
    uniform = 8e-6 / np.sqrt(12)
    assert node["target_low"].values.tolist() == [low for low, _ in TARGETS]
    assert node["sigma"].values == pytest.approx(np.full(4, uniform), rel=0.05)
    z = (node["sigma"].values - uniform) / node["sigma_stderr"].values
    assert (np.abs(z) < 4).all()
    assert node["bias"].values[1:3] == pytest.approx([0, 0], abs=4 * uniform / np.sqrt(800))
    assert node["target"].values[1:3] == pytest.approx([4.5e-5, 8.5e-5])
    assert node["target"].values[[0, 3]] == pytest.approx([5e-6, 1.3e-4], rel=0.05)  # open ends: the median achieved
    assert node["sigma_relative"].values == pytest.approx(node["sigma"].values / node["target"].values, rel=1e-9)
    assert node["miss"].values[1:3] == pytest.approx([1.5e-5, 1.5e-5], rel=0.02)
    assert np.isnan(node["miss"].values[3]) or node["miss"].values[3] > 0


def test_success_probability_has_its_exact_interval():
    node = writes_node(writes(np.random.default_rng(4), devices=400, never=0, weak=0, failure=0.1), [])
    covered = [low < 0.9 < high for low, high in node["success_probability_bound"].values]
    assert all(covered)
    assert node["n_writes"].values.tolist() == [400] * 4


@pytest.mark.parametrize(("weak", "gathered"), [(0, False), (60, True)], ids=["by chance", "in some devices"])
def test_failures_by_chance_or_of_some_devices(weak, gathered):
    rows = []
    generator = np.random.default_rng(5)
    for k in range(400):
        chance = 0.4 if k < weak else 0.05
        for low, high in TARGETS[1:3]:
            for _ in range(3):
                failed = generator.random() < chance
                rows.append((f"c{k:03d}", low, high, 2e-5 if failed else 0.5 * (low + high), int(not failed)))
    warnings: list[str] = []
    node = writes_node(log(rows), warnings)
    assert (float(node["dispersion_p"]) < 0.01) == gathered
    assert any("failures gather" in sentence for sentence in warnings) == gathered
    assert float(node["dispersion"]) == pytest.approx(1.0, abs=0.2) or gathered
    assert int(node["n_devices_failing"].sum()) == 400


def test_the_dispersion_test_keeps_its_level():
    generator = np.random.default_rng(6)
    p_values = []
    for _ in range(40):
        failed = generator.random((100, 4)) < [0.002, 0.02, 0.1, 0.01]
        rows = [(f"c{k}", low, high, 0.0 if failed[k, t] else low + 1e-6, int(not failed[k, t]))
                for k in range(100) for t, (low, high) in enumerate(TARGETS)]  # fmt: skip
        p_values.append(float(writes_node(log(rows), [])["dispersion_p"]))
    assert np.mean(np.array(p_values) < 0.05) < 0.15


def test_success_that_is_not_stated_is_derived():
    warnings: list[str] = []
    stated = writes(np.random.default_rng(7))
    derived = writes_node(writes(np.random.default_rng(7), state_success=False), warnings)
    assert derived["n_success"].values.tolist() == writes_node(stated, [])["n_success"].values.tolist()
    assert any("do not state whether they succeeded" in sentence for sentence in warnings)
    warnings.clear()
    writes_node(stated.drop_vars("success"), warnings)
    assert any("do not state whether they succeeded" in sentence for sentence in warnings)


def test_success_that_contradicts_the_range_is_kept_and_said():
    rows = [(f"c{k}", low, high, 0.5 * (low + high), 0) for k in range(9) for low, high in TARGETS[1:3]]
    warnings: list[str] = []
    node = writes_node(log(rows), warnings)
    assert node["n_success"].values.tolist() == [0, 0]
    assert any("disagrees with the achieved conductance" in sentence for sentence in warnings)


def test_effort():
    node = writes_node(writes(np.random.default_rng(8), devices=400), [])
    assert node["effort"].values.tolist() == ["attempts"]
    z = (node["effort_mean"].values - 5) / node["effort_stderr"].values
    assert (np.abs(z) < 4).all()
    one = log([("a", 1e-6, 2e-6, 1.5e-6, 1), ("b", 1e-6, 2e-6, 1.5e-6, 1)], n_set=[2, 3], n_reset=[1, -1])
    counted = writes_node(one, [])
    assert counted["effort"].values.tolist() == ["set pulses", "reset pulses", "set and reset pulses"]
    assert counted["effort_mean"].values[:, 0] == pytest.approx([2.5, 1.0, 3.0])


def test_targets_of_their_own_are_pooled():
    generator = np.random.default_rng(9)
    rows = []
    for k in range(300):
        for _ in range(3):
            target = generator.uniform(1e-5, 1e-4)
            rows.append((f"c{k}", target - 1e-6, target + 1e-6, generator.normal(target, 3e-7), 1))
    warnings: list[str] = []
    node = writes_node(log(rows), warnings)
    assert node.sizes["target"] == 16
    assert node["sigma"].values == pytest.approx(np.full(16, 3e-7), rel=0.35)
    assert any("are pooled into 16 groups" in sentence for sentence in warnings)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([("a", 1e-6, 2e-6, np.nan, -1)], "no write has a target range and an outcome"),
        ([("a", np.nan, 2e-6, 1e-6, 1)], "no write has a target range and an outcome"),
        ([("a", 1e-6, 2e-6, 1.5e-6, 1)], "hardly any device was written to two target ranges"),
        ([(f"c{k}", low, 2 * low, 1e-6, 0) for k in range(5) for low in (1e-5, 3e-5)], "all 5 devices are stuck"),
        ([("a", 1e-6, 2e-6, np.nan, 1)] * 4, "state success but no achieved conductance"),
    ],
)
def test_what_the_log_does_not_support_is_said(rows, sentence):
    warnings: list[str] = []
    node = writes_node(log(rows), warnings)
    assert any(sentence in found for found in warnings), warnings
    if node is not None:
        device_model.build({"writes": node}, name="made up")
    stuck_of_writes(log(rows), "range", warnings)
    switching_extremes(log(rows))


def test_the_log_of_8193_cells(measurements):
    """8193 cells, four ranges: six cells never moved; the rule alone would call 395 stuck."""
    (path,) = measurements.glob("levy-write-verify/fppv*.csv")
    columns = "device=0,n_read=1,n_set=2,n_reset=3,resistance=4,resistance_low=6,resistance_high=7,success=8"
    data = calib.read(path, columns=columns)["writes"].to_dataset()
    warnings: list[str] = []
    node = writes_node(data, warnings)
    assert node["n_writes"].values.tolist() == [8193] * 4
    assert node["n_success"].values.tolist() == [6968, 8175, 8178, 8191]  # counted in the file
    assert (int(node["n_narrow"]), int(node["n_narrow_moved"]), int(node["n_never_switched"])) == (395, 388, 7)
    assert node["n_never_by_threshold"].values.tolist() == [6, 6, 6, 6, 6, 7]
    assert int(node["n_failing"]) == 1169
    assert node["effort_mean"].sel(effort="reads").values == pytest.approx([2.53, 21.8, 22.0, 7.12], rel=0.01)
    assert int(stuck_of_writes(data, "range", [])["n_stuck"]) == 7
    assert any("1 of 32772 state success but no achieved conductance" in sentence for sentence in warnings)
