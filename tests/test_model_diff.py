import functools
import json
import math
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from calib import calibrate, model_diff, simulation
from calib.characteristics.base import Estimate, with_error
from calib.device_model import save
from calib.errors import OptionError
from calib.iv_models import iv_model
from calib.model_diff import LEVEL, Difference, _difference, _judged, diff
from tests.device_trees import full_device, part_of_device

OTHER = json.dumps([{"name": "others.csv", "sha256": "1" * 64}])


def estimate(value: float, stderr: float) -> Estimate:
    return with_error(Estimate("iv", "lrs", "slope", "slope", value, "1", stderr=stderr))


def of(found: model_diff.ModelDiff, quantity: str, state: str = "lrs") -> Difference:
    return next(d for d in found.differences if (d.quantity, d.state) == (quantity, state))


def test_normal_estimates_have_their_combined_standard_error() -> None:
    found = _difference(estimate(1.0, 0.3), estimate(3.0, 0.4))
    assert (found.low, found.high) == pytest.approx((2.0 - 1.959964 * 0.5, 2.0 + 1.959964 * 0.5), rel=1e-6)
    assert found.z == pytest.approx(4.0, rel=1e-9)
    assert found.p == pytest.approx(2 * stats.norm.sf(4.0), rel=1e-9)


def test_unequal_sides_are_taken_where_they_matter() -> None:
    a = replace(estimate(0.0, 1.0), value=0.1, low=0.05, high=0.3, stderr=math.nan)
    b = replace(a, value=0.5, low=0.4, high=0.9)
    up, down = _difference(a, b), _difference(b, a)
    assert up.low == pytest.approx(0.4 - math.hypot(0.1, 0.2))  # 10.1002/sim.3095, equation 1
    assert up.high == pytest.approx(0.4 + math.hypot(0.4, 0.05))
    assert (down.low, down.high) == pytest.approx((-up.high, -up.low))
    assert up.z == pytest.approx(1.959964 * 0.4 / math.hypot(0.1, 0.2), rel=1e-6)
    assert down.z == pytest.approx(-up.z)


def test_an_interval_of_the_population_is_no_uncertainty() -> None:
    a = replace(estimate(1.0, math.nan), low=0.5, high=2.0, interval="5 to 95 % of the curves")
    assert math.isnan(_difference(a, a).low)
    assert _judged([_difference(a, replace(a, value=9.0))], LEVEL)[0].more_than_uncertainty is None


def test_one_model_without_uncertainty_is_not_judged() -> None:
    found = _judged([_difference(estimate(1.0, 0.1), estimate(2.0, math.nan))], LEVEL)[0]
    assert found.difference == 1.0
    assert found.more_than_uncertainty is None


def test_holm_of_known_probabilities() -> None:
    one = _difference(estimate(0.0, 1.0), estimate(1.0, 1.0))
    found = _judged([replace(one, p=p) for p in (0.01, 0.04, math.nan, 0.03, 0.005)], 0.05)
    assert [d.p_holm for d in found] == pytest.approx([0.03, 0.06, math.nan, 0.06, 0.02], nan_ok=True)
    assert [d.more_than_uncertainty for d in found] == [True, False, None, False, True]


def t_estimate(values: np.ndarray) -> Estimate:
    mean, stderr = float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values)))
    half = float(stats.t.ppf(0.975, len(values) - 1)) * stderr
    return replace(estimate(mean, stderr), low=mean - half, high=mean + half)


def test_small_samples_keep_their_tails() -> None:
    generator = np.random.default_rng(11)
    p = np.array([_difference(*(t_estimate(generator.normal(2.0, 0.5, 6)) for _ in range(2))).p for _ in range(4000)])
    for level in (0.05, 0.01, 0.002):
        rate = float((p < level).mean())
        assert rate < level + 3 * math.sqrt(level * (1 - level) / len(p))
        assert rate > 0.3 * level


def test_a_model_does_not_differ_from_itself() -> None:
    found = diff(full_device(), full_device(created="2031-07-08T09:10:11Z"))
    assert found.identical
    assert found.statement == "the two models are identical"
    assert found.changed == []
    assert found.warnings == ()
    assert {d.difference for d in found.differences} == {0.0}
    assert not any((found.only_a, found.only_b, found.not_comparable, found.options, found.sources))


@functools.cache
def halves(seed: int) -> tuple[xr.DataTree, xr.DataTree]:
    """Return two models, each of half of the devices of one simulated measurement."""
    measured = simulation.simulate(full_device(), devices=24, cycles=2, seed=seed, points=12)
    node = measured["iv"].to_dataset()
    names = np.unique(node["device"].values.astype(str))
    models = []
    for k in range(2):
        part = measured.copy()
        here = np.isin(node["device"].values.astype(str), names[k::2])
        part["iv"] = xr.DataTree(node.isel(sweep=np.flatnonzero(here)))
        models.append(calibrate.fit(part, name=f"half {k}"))
    return models[0], models[1]


def test_halves_of_a_measurement_do_not_differ() -> None:
    found = diff(*halves(1))
    assert len(found.differences) > 25
    assert found.changed == []
    p = np.array([d.p for d in found.differences if math.isfinite(d.p)])
    assert (p < 0.05).mean() < 0.2


def test_another_device_differs_where_it_does() -> None:
    shifted = full_device()
    iv = shifted["iv"].to_dataset()
    for name in ("ln_r_mean", "ln_r_quantile", "ln_r_mean_bound", "centre", "ln_r_min", "ln_r_max"):
        iv[name] = iv[name] + 1.0
    iv["intercept"] = iv["intercept"] - iv["slope"]  # the same shapes at resistances that are e times as large
    shifted["iv"] = xr.DataTree(iv)
    measured = simulation.simulate(shifted, devices=12, cycles=2, seed=4, points=12)
    found = diff(halves(1)[0], calibrate.fit(measured, name="other"))
    mean = of(found, "resistance_geometric_mean")
    assert mean.more_than_uncertainty
    assert mean.difference > 0
    assert of(found, "g_on", "").difference < 0
    assert mean in found.changed
    assert found.changed == sorted(found.changed, key=lambda d: d.p)


def moved_centre(step: float) -> xr.DataTree:
    """Return the device with the centre of its lines moved along them: another sample of the same lines."""
    tree = full_device(sources=OTHER)
    iv = tree["iv"].to_dataset()
    iv["centre"] = iv["centre"] + step
    iv["value_at_centre"] = iv["value_at_centre"] + step * iv["slope"]
    iv["value_at_centre_bound"] = iv["value_at_centre_bound"] + step * iv["slope"]
    tree["iv"] = xr.DataTree(iv)
    return tree


def test_lines_are_compared_at_one_resistance() -> None:
    found = of(diff(full_device(), moved_centre(0.4)), "gamma_value_at_centre")
    assert found.difference == pytest.approx(0.0, abs=1e-12)
    node = full_device()["iv"].to_dataset().sel(state="lrs")
    ln_r = float(node["centre"]) + 0.2
    pick = {"line": ["gamma_intercept", "gamma_slope"], "line_other": ["gamma_intercept", "gamma_slope"]}
    weights = np.array([1.0, ln_r])
    stderr = math.sqrt(weights @ node["line_covariance"].sel(pick).values @ weights)
    assert 0.5 * (found.high - found.low) >= 1.959 * math.sqrt(2) * stderr
    assert found.label.startswith("gamma at R = ")


def test_the_covariance_of_a_line_may_be_missing() -> None:
    trees = [full_device(), moved_centre(0.4)]
    full = of(diff(*trees), "gamma_value_at_centre")
    for tree in trees:
        tree["iv"] = xr.DataTree(tree["iv"].to_dataset().drop_vars("line_covariance"))
    found = of(diff(*trees), "gamma_value_at_centre")
    assert found.high - found.low == pytest.approx(full.high - full.low, rel=0.1)


def test_other_reference_voltages_and_laws_are_not_compared() -> None:
    tree = full_device(sources=OTHER)
    tree["iv"].attrs["reference_voltage"] = 0.2
    found = diff(full_device(), tree)
    assert {d.characteristic for d in found.differences} & {"iv", "conductance", "programming"} == set()
    assert "R is defined at 0.1 V and at 0.2 V" in {row["why"] for row in found.not_comparable}
    tree = full_device(sources=OTHER)
    names = list(iv_model("hyperbolic-sine").parameter_names)
    iv = tree["iv"].to_dataset().drop_vars("line_covariance")
    iv = iv.assign_coords(parameter=names, parameter_other=names).assign_attrs(iv_model="hyperbolic-sine")
    tree["iv"] = xr.DataTree(iv)
    found = diff(full_device(), tree)
    assert {d.quantity for d in found.differences if d.characteristic == "iv"} == {
        "resistance_median", "resistance_geometric_mean", "ln_resistance_std",
    }  # fmt: skip


def test_what_only_one_has_is_listed() -> None:
    found = diff(part_of_device("conductance", "stuck"), part_of_device("conductance", sources=OTHER))
    assert any(label.startswith("stuck devices: probability") for label in found.only_a)
    assert found.only_b == ()


def test_models_of_the_same_files_are_not_independent() -> None:
    options = json.dumps({"v_max": 0.4, "form": "paper"})
    found = diff(full_device(), full_device(options=options))
    assert found.shared_sources == ("sweeps.csv",)
    assert "not independent" in found.warnings[0]
    assert ("v_max", "not set", "0.4") in found.options
    assert ("form", "anchored", "paper") in found.options


def test_sources_and_texts_that_differ_are_listed() -> None:
    found = diff(full_device(), full_device(sources=OTHER, citation="another"))
    assert found.warnings == ()
    assert found.sources == (("sweeps.csv", "0" * 12, ""), ("others.csv", "", "1" * 12))
    assert [row[0] for row in found.texts] == ["citation"]
    assert "cannot be checked" in diff(full_device(), full_device(sources="[]")).warnings[0]


def test_a_count_of_stuck_devices_is_compared_by_its_exact_interval() -> None:
    tree = part_of_device("stuck", sources=OTHER)
    node = tree["stuck"].to_dataset()
    low, high = stats.binomtest(11, 12).proportion_ci(0.95, "exact")
    node["probability"], node["n_stuck"] = node["probability"] * 0 + 11 / 12, node["n_stuck"] * 0 + 11
    node["probability_bound"] = ("bound", [low, high], {"units": "1"})
    tree["stuck"] = xr.DataTree(node)
    found = of(diff(part_of_device("stuck"), tree), "probability", "")
    assert found.difference == pytest.approx(10 / 12)
    assert found.more_than_uncertainty
    assert found.low > 0


def test_a_level_outside_of_its_range_is_refused() -> None:
    with pytest.raises(OptionError, match="level is 1; expected a probability"):
        diff(full_device(), full_device(), level=1)


def test_files_and_names_are_opened(tmp_path) -> None:
    save(full_device(), tmp_path / "a.nc")
    assert diff(tmp_path / "a.nc", full_device()).identical
    assert not diff("ta-hfo2", tmp_path / "a.nc").identical


def test_populations_of_one_file_are_two_measurements() -> None:
    a, b = (full_device(options=json.dumps({"population": name})) for name in ("wafer 1", "wafer 2"))
    (sentence,) = diff(a, b).warnings
    assert "to the populations 'wafer 1' and 'wafer 2'" in sentence
    assert "not independent" not in sentence


def test_files_without_a_hash_are_not_the_same_file() -> None:
    a, b = (full_device(sources=json.dumps([{"name": name}]), citation=name) for name in ("a.csv", "b.csv"))
    assert diff(a, b).shared_sources == ()
