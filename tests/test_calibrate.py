"""Whole fits: from a Measurement of devices with a known truth to the device model."""

import json
from typing import Any

import numpy as np
import pytest
import xarray as xr

import calib
from calib.calibrate import FitOptions, fit, populations
from calib.device_model import check, identity, shape_law
from calib.errors import FitError, OptionError
from calib.fitting.intervals import binomial_interval
from calib.measurement import check as check_measurement
from tests.synthetic import FLAG, HRS, LRS, V_REF, VOLTAGE, State, dataset, iv_dataset, iv_node, measurement, reads_node

STUCK = (3, 17)


def warnings_of(tree: xr.DataTree) -> str:
    return "\n".join(json.loads(tree.attrs["warnings"]))


@pytest.fixture(scope="module")
def raw() -> xr.DataTree:
    """40 devices, two of them stuck, 5 cycles, both polarities, 1 % noise."""
    return measurement(iv=iv_node(stuck=STUCK, polarities=("positive", "negative")))


@pytest.fixture(scope="module")
def model(raw: xr.DataTree) -> xr.DataTree:
    return fit(raw, v_max=0.5)


def test_the_synthetic_measurement_conforms(raw: xr.DataTree) -> None:
    check_measurement(raw)
    check_measurement(measurement(reads=reads_node(np.full((2, 3), 1e-5))))
    assert populations(raw) == [""]


@pytest.mark.parametrize(("state", "truth"), [("lrs", LRS), ("hrs", HRS)])
def test_the_truth_is_recovered(model: xr.DataTree, state: str, truth: State) -> None:
    """Within 4 stated standard errors, or 4 standard errors of 38 live devices (sigma) or 190 curves (spread of gamma).

    The two stuck devices follow another state's law and must not bend this one's.
    """
    node = dataset(model, "iv").sel(state=state)
    for name in ("intercept", "slope"):
        found, error = node[name].sel(parameter="gamma"), node[f"{name}_stderr"].sel(parameter="gamma")
        assert abs(float(found) - getattr(truth, name)) < 4 * float(error)
    assert node["transform"].values.tolist() == ["log", "identity"]
    spread = np.sqrt(float(node["covariance"].sel(parameter="gamma", parameter_other="gamma")))
    assert spread == pytest.approx(truth.spread, rel=4 / np.sqrt(2 * 190))
    programming = dataset(model, "programming").sel(state=state)
    for name, true in (("sigma_d2d", truth.d2d), ("sigma_c2c", truth.c2c), ("sigma", np.hypot(truth.d2d, truth.c2c))):
        assert abs(float(programming[name]) - true) < 4 * float(programming[f"{name}_stderr"])
    assert float(programming["sigma_c2c"]) == pytest.approx(truth.c2c, rel=4 / np.sqrt(2 * 152))
    assert float(np.log(programming["r_median"])) == pytest.approx(truth.ln_r, abs=4 * 1.25 * truth.d2d / np.sqrt(38))
    assert (int(programming["n_devices"]), int(programming["n_values"])) == (38, 190)


@pytest.mark.parametrize(("state", "truth"), [("lrs", LRS), ("hrs", HRS)])
def test_stuck_devices_do_not_widen_a_states_resistances(model: xr.DataTree, state: str, truth: State) -> None:
    """The stuck node draws them; a state's ln R is that of devices in that state."""
    node = dataset(model, "iv").sel(state=state)
    assert float(node["ln_r_mean"]) == pytest.approx(truth.ln_r, abs=4 * truth.d2d / np.sqrt(38))
    assert float(node["ln_r_std"]) == pytest.approx(np.hypot(truth.d2d, truth.c2c), rel=4 / np.sqrt(2 * 37))
    assert float(node["ln_r_max"] - node["ln_r_min"]) < 8 * truth.d2d


def test_stuck_devices(model: xr.DataTree) -> None:
    node = dataset(model, "stuck")
    assert list(node["stuck_device"].values) == ["d003", "d017"]
    assert float(node["probability"]) == 2 / 40
    np.testing.assert_allclose(node["probability_bound"].values, binomial_interval(2, 40))
    assert int(node["n_stuck_on"]) == 2  # they stay in the low-resistance state
    assert "2 stuck of 40 devices (d003, d017)" in warnings_of(model)


def test_conductance_range(model: xr.DataTree) -> None:
    node = dataset(model, "conductance")
    for name, truth in (("g_on", LRS), ("g_off", HRS)):
        low, high = node[f"{name}_bound"].values
        assert low < float(node[name]) < high
        assert -np.log(float(node[name])) == pytest.approx(truth.ln_r, abs=4 * 1.25 * truth.d2d / np.sqrt(38))
    assert {-0.1, 0.1, 0.5} <= set(node["read_voltage"].values)


def test_every_curve_is_kept_with_its_status(model: xr.DataTree) -> None:
    node = dataset(model, "iv")
    assert node.sizes["curve"] == 400
    assert (node["curve_status"].values == "ok").all()
    assert set(node["curve_device"].values) == {f"d{k:03d}" for k in range(40)}
    assert sorted(set(node["curve_cycle"].values)) == [0, 1, 2, 3, 4]
    assert np.median(node["curve_rms"].values) == pytest.approx(0.01, rel=0.15)


def test_the_model_conforms_and_says_what_it_is(model: xr.DataTree) -> None:
    check(model)
    attrs = dataset(model, "iv").attrs
    assert (attrs["iv_model"], attrs["form"], attrs["polarity"]) == ("poole-frenkel", "anchored", "positive")
    assert (attrs["reference_voltage"], attrs["v_min"], attrs["v_max"]) == (0.1, 0.02, 0.5)
    assert "temperature" not in attrs
    assert "no temperature is known" in warnings_of(model)
    assert model.attrs["name"] == "synthetic"
    assert model.attrs["citation"] == "a test"
    assert json.loads(model.attrs["sources"]) == [{"name": "synthetic.csv", "sha256": "0" * 64}]
    law = shape_law(model)
    assert law.reference_voltage == V_REF
    assert law.centres[0] < law.centres[1]


def test_options_are_recorded(raw: xr.DataTree, model: xr.DataTree) -> None:
    options = json.loads(model.attrs["options"])
    assert options == {
        "reference_voltage": 0.1, "v_max": 0.5, "iv_model": "auto", "form": "anchored", "temperature": None,
        "stuck_rule": "ratio", "population": None, "holdout": 0.0,
    }  # fmt: skip
    other = fit(
        raw, name="n", citation="c", technology="t", v_max=0.4, stuck_rule="range", form="paper", temperature=300.0
    )
    assert json.loads(other.attrs["options"]) | {"v_max": 0.4} == json.loads(other.attrs["options"])
    assert (other.attrs["name"], other.attrs["citation"], other.attrs["technology"]) == ("n", "c", "t")
    assert (dataset(other, "iv").attrs["form"], dataset(other, "iv").attrs["temperature"]) == ("paper", 300.0)
    assert "no temperature" not in warnings_of(other)
    assert dataset(other, "stuck").attrs["rule_name"] == "range"


def test_calib_fit_is_this_function() -> None:
    assert calib.fit is fit


def test_the_same_input_gives_the_same_model(raw: xr.DataTree, model: xr.DataTree) -> None:
    again = fit(raw, v_max=0.5)
    assert identity(again) == identity(model)
    for key, node in model.children.items():
        xr.testing.assert_identical(dataset(again, str(key)), node.to_dataset())


def test_the_order_of_the_sweeps_does_not_matter(raw: xr.DataTree, model: xr.DataTree) -> None:
    node = dataset(raw, "iv")
    order = np.random.default_rng(0).permutation(node.sizes["sweep"])
    again = fit(measurement(iv=node.isel(sweep=order)), v_max=0.5)
    for name in ("intercept", "slope", "covariance", "ln_r_quantile"):
        np.testing.assert_allclose(dataset(again, "iv")[name], dataset(model, "iv")[name], rtol=1e-4, atol=1e-8)
    np.testing.assert_allclose(
        dataset(again, "programming")["sigma_d2d"], dataset(model, "programming")["sigma_d2d"], rtol=1e-6
    )


def test_negative_branches(raw: xr.DataTree, model: xr.DataTree) -> None:
    negative = fit(raw, v_max=0.5, reference_voltage=-0.1)
    assert dataset(negative, "iv").attrs["polarity"] == "negative"
    assert shape_law(negative).reference_voltage == 0.1
    np.testing.assert_allclose(
        dataset(negative, "programming")["r_median"], dataset(model, "programming")["r_median"], rtol=0.01
    )
    assert list(dataset(negative, "stuck")["stuck_device"].values) == ["d003", "d017"]


def test_the_window_is_found() -> None:
    found = fit(measurement(iv=iv_node(devices=15, cycles=2)))
    assert dataset(found, "iv").attrs["v_max"] == 0.5
    assert dataset(found, "iv").attrs["iv_model"] == "poole-frenkel"


def test_ohmic_devices_are_found_ohmic() -> None:
    tree = fit(measurement(iv=iv_node(devices=15, cycles=3, ohmic=True)))
    assert dataset(tree, "iv").attrs["iv_model"] == "ohmic"
    node = dataset(tree, "iv")
    np.testing.assert_array_equal(node["slope"].values, -1.0)
    np.testing.assert_array_equal(node["covariance"].values, 0.0)
    assert np.isfinite(dataset(tree, "programming")["sigma_d2d"].values).all()


def test_a_law_that_was_asked_for_is_kept() -> None:
    raw = measurement(iv=iv_node(devices=15, cycles=1, ohmic=True))
    tree = fit(raw, iv_model="poole-frenkel", v_max=0.5)
    assert dataset(tree, "iv").attrs["iv_model"] == "poole-frenkel"
    gamma = dataset(tree, "iv")["curve_parameter"].sel(parameter="gamma")
    assert abs(float(gamma.mean())) < 4 * float(gamma.std()) / np.sqrt(30)
    nonlinear = fit(measurement(iv=iv_node(devices=15, cycles=2)), iv_model="ohmic", v_max=0.5)
    assert dataset(nonlinear, "iv").attrs["iv_model"] == "ohmic"


def test_no_population_is_pooled_with_another() -> None:
    parts = [iv_node(devices=6, cycles=2, population=name, seed=k) for k, name in enumerate(("wafer 1", "wafer 2"))]
    parts[1] = parts[1].assign_coords(device=("sweep", np.char.add("w2", parts[1]["device"].values)))
    both = measurement(iv=xr.concat(parts, dim="sweep"))
    assert populations(both) == ["wafer 1", "wafer 2"]
    with pytest.raises(OptionError, match=r"holds 2 populations that are not pooled: 'wafer 1', 'wafer 2'; choose one"):
        fit(both)
    with pytest.raises(OptionError, match=r"no population 'wafer 3' in the measurement; it holds 'wafer 1', 'wafer 2'"):
        fit(both, population="wafer 3")
    one = fit(both, population="wafer 2", v_max=0.5)
    assert one.attrs["name"] == "wafer 2"
    assert all(str(name).startswith("w2") for name in dataset(one, "iv")["curve_device"].values)


def test_all_devices_stuck() -> None:
    with pytest.raises(
        FitError, match=r"all 6 devices are stuck: .* expected set and reset cycles of devices that switch"
    ):
        fit(measurement(iv=iv_node(devices=6, cycles=2, stuck=range(6))), v_max=0.5)


def test_no_branch_of_that_polarity() -> None:
    with pytest.raises(FitError, match=r"no negative branch among 24 sweeps; .* which takes the positive branches"):
        fit(measurement(iv=iv_node(devices=6, cycles=2)), reference_voltage=-0.1)


def test_a_window_beyond_the_data() -> None:
    with pytest.raises(OptionError, match=r"--v-max is 1 V but the usable curves of state 'lrs' end at 0\.5 V"):
        fit(measurement(iv=iv_node(devices=6, cycles=2)), v_max=1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference_voltage": 0.0}, "--reference-voltage is 0 V; expected a voltage other than zero"),
        ({"v_max": -0.5}, "--v-max is -0.5 V; expected a positive voltage"),
        ({"iv_model": "vacuum"}, "--iv-model is 'vacuum'; expected auto, .*ohmic.*poole-frenkel"),
        ({"form": "loose"}, "--form is 'loose'; expected anchored or paper"),
        ({"stuck_rule": "eye"}, "--stuck-rule is 'eye'; expected range or ratio"),
        ({"temperature": -5.0}, "--temperature is -5 K; expected kelvins"),
        ({"v_max": float("nan"), "temperature": float("nan")}, "--v-max is nan V; .*; --temperature is nan K"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_options_that_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        FitOptions(**options)


def test_nothing_to_fit() -> None:
    extra = xr.Dataset({"column": ("row", np.ones(3))})
    with pytest.raises(
        FitError, match=r"the measurement holds extra; a device model needs I-V sweeps, conductance reads, writes or"
    ):
        fit(measurement(extra=extra))


# What the data do not support is said in words


def test_one_curve() -> None:
    """One curve has no spread, so there is no device model; its own fit is said."""
    with pytest.raises(
        FitError, match=r"1 curves of 1 device\(s\).*too few.*at least 4 .*by itself gives c = .*gamma = "
    ):
        fit(measurement(iv=iv_node({"hrs": HRS}, devices=1, cycles=1)))


def test_few_curves_of_one_state() -> None:
    """What three curves lack is said, and nothing is said that is not so."""
    text = warnings_of(fit(measurement(iv=iv_node({"hrs": HRS}, devices=3, cycles=1))))
    assert "state 'hrs': no population law, because 3 curves could be fitted and at least 4 are needed" in text
    assert "stuck devices: not found" in text
    assert "the two states do not differ" not in text
    assert "no programmed states were measured" not in text


def test_one_device() -> None:
    tree = fit(measurement(iv=iv_node(devices=1, cycles=8)), v_max=0.5)
    assert "stuck" not in tree.children
    assert np.isnan(dataset(tree, "programming")["sigma_d2d"].values).all()
    np.testing.assert_allclose(dataset(tree, "programming")["sigma_c2c"], 0.1, rtol=4 / np.sqrt(14))
    assert "stuck devices: not found, because one device was measured" in warnings_of(tree)
    assert "'hrs': cycle-to-cycle only, because one device was measured" in warnings_of(tree)


def test_one_cycle_each() -> None:
    tree = fit(measurement(iv=iv_node(devices=12, cycles=1)), v_max=0.5)
    assert np.isnan(dataset(tree, "programming")["sigma_c2c"].values).all()
    assert np.isfinite(dataset(tree, "programming")["sigma"].values).all()
    assert "'lrs': device-to-device and cycle-to-cycle are not separated" in warnings_of(tree)


def test_curves_without_states() -> None:
    tree = fit(measurement(iv=iv_node({"": HRS}, devices=12, cycles=2)), v_max=0.5)
    assert dataset(tree, "iv")["state"].values.tolist() == ["all"]
    assert "programming" not in tree.children
    assert "stuck" not in tree.children
    assert "the sweeps only read, or no device switches" in warnings_of(tree)
    low, high = float(dataset(tree, "conductance")["g_off"]), float(dataset(tree, "conductance")["g_on"])
    assert low < np.exp(-HRS.ln_r) < high


def test_excluded_points_and_failed_curves_are_counted() -> None:
    node = iv_node(devices=12, cycles=2)
    node["flag"][30, 10:15] = FLAG["compliance"]
    node["flag"][25, 1:24] = FLAG["spike"]  # hrs begins at row 24
    tree = fit(measurement(iv=node), v_max=0.5)
    text = warnings_of(tree)
    assert "state 'hrs': points left out of the fits: 5 compliance, 23 spike" in text
    assert "state 'hrs': 1 of 24 curves could not be fitted (first: 2 usable points" in text
    assert int(dataset(tree, "iv")["n_curves"].sel(state="hrs")) == 23
    assert (dataset(tree, "iv")["curve_status"].values != "ok").sum() == 1


def test_temperature_is_taken_from_the_measurement() -> None:
    tree = fit(measurement(iv=iv_node(devices=6, cycles=2, temperature=298.0)), v_max=0.5)
    assert dataset(tree, "iv").attrs["temperature"] == 298.0
    assert "no temperature" not in warnings_of(tree)


def test_levels_beside_the_two_states() -> None:
    states = {"level-1": State(ln_r=9.0), "lrs": LRS, "hrs": HRS}
    tree = fit(measurement(iv=iv_node(states, devices=8, cycles=2)), v_max=0.5)
    assert dataset(tree, "iv")["state"].values.tolist() == ["lrs", "hrs", "level-1"]
    assert np.diff(shape_law(tree).centres).min() > 0


def test_currents_at_the_noise_floor() -> None:
    """HRS points under the floor are not fitted: R stays within 5 % although the lowest voltages are noise."""
    node = iv_node(devices=30, cycles=2, noise=0.005)
    floor = 3e-8
    generator = np.random.default_rng(1)
    node["current"][:] = node["current"].values + floor / 3 * generator.standard_normal(node["current"].shape)
    node["flag"][:] = np.where(np.abs(node["current"].values) < floor, FLAG["below_floor"], 0)
    node = node.assign_coords(noise_floor=("sweep", np.full(node.sizes["sweep"], floor)))
    tree = fit(measurement(iv=node), v_max=0.5)
    clean = fit(measurement(iv=iv_node(devices=30, cycles=2, noise=0.0)), v_max=0.5)
    np.testing.assert_allclose(dataset(tree, "iv")["ln_r_mean"], dataset(clean, "iv")["ln_r_mean"], atol=0.05)
    np.testing.assert_allclose(dataset(tree, "iv")["ln_r_std"], dataset(clean, "iv")["ln_r_std"], rtol=0.1)
    assert "below floor" in warnings_of(tree)


def test_several_branches_of_one_cycle() -> None:
    """A state seen twice in a cycle is two curves of that device, not two devices."""
    node = iv_node(devices=8, cycles=2)
    twice = xr.concat([node, node.assign_coords(direction=("sweep", ["down"] * node.sizes["sweep"]))], dim="sweep")
    tree = fit(measurement(iv=twice), v_max=0.5)
    assert int(dataset(tree, "iv")["n_devices"].sel(state="lrs")) == 8
    assert int(dataset(tree, "iv")["n_curves"].sel(state="lrs")) == 32


# Conductance reads


def array_reads(devices: int = 60, stuck: int = 6, cycles: int = 4) -> xr.Dataset:
    """40 uS to 1 mS, spread in ln G between devices 0.2 and between cycles 0.1; the first devices are stuck."""
    generator = np.random.default_rng(2)
    rows, labels = [], {"device": [], "cycle": [], "state": []}
    for device in range(devices):
        offset = 0.2 * generator.standard_normal()
        for cycle in range(cycles):
            for state, g in (("lrs", 1e-3), ("hrs", 4e-5)):
                at = 3e-4 if device < stuck else g
                rows.append([at * np.exp(offset + 0.1 * generator.standard_normal())])
                for key, value in zip(labels, (f"d{device:02d}", cycle, state), strict=True):
                    labels[key].append(value)
    return reads_node(np.array(rows), **{key: np.array(values) for key, values in labels.items()})


def test_reads() -> None:
    tree = fit(measurement(reads=array_reads()))
    check(tree)
    assert "iv" not in tree.children
    assert "I-V law: not found" in warnings_of(tree)
    stuck = dataset(tree, "stuck")
    assert list(stuck["stuck_device"].values) == [f"d{k:02d}" for k in range(6)]
    assert float(stuck["probability"]) == 0.1
    np.testing.assert_allclose(stuck["conductance"].values, 3e-4, rtol=0.7)
    node = dataset(tree, "conductance")
    # the smallest and largest of four reads lie 1.03 standard deviations (0.1) beyond a device's mean
    assert float(node["g_off"]) == pytest.approx(4e-5 * np.exp(-0.103), rel=4 * 1.25 * 0.21 / np.sqrt(54))
    assert float(node["g_on"]) == pytest.approx(1e-3 * np.exp(0.103), rel=4 * 1.25 * 0.21 / np.sqrt(54))
    programming = dataset(tree, "programming")
    assert programming["state"].values.tolist() == ["lrs", "hrs"]
    for name, truth in (("sigma_d2d", 0.2), ("sigma_c2c", 0.1)):
        assert (np.abs(programming[name] - truth) < 4 * programming[f"{name}_stderr"]).all()
    assert programming["n_devices"].values.tolist() == [54, 54]


def test_reads_that_are_not_positive_are_left_out_and_counted() -> None:
    node = array_reads()
    node["conductance"][20, 0] = -1e-6
    node["conductance"][30, 0] = 0.0
    node["conductance"][40, 0] = np.nan
    assert "2 reads have a conductance that is not positive and were left out" in warnings_of(
        fit(measurement(reads=node))
    )
    node["conductance"][:] = 0.0
    with pytest.raises(FitError, match="the reads hold no positive conductance"):
        fit(measurement(reads=node))


def test_reads_without_states() -> None:
    node = array_reads().assign_coords(state=("trace", [""] * 480))
    tree = fit(measurement(reads=node))
    assert "programming" not in tree.children
    assert "the reads name no low- and high-resistance state" in warnings_of(tree)
    assert {"stuck", "conductance"} <= set(tree.children)


def test_reads_beside_sweeps_are_used_or_it_is_said_that_they_are_not() -> None:
    tree = fit(measurement(iv=iv_node(devices=6, cycles=2), reads=array_reads()), v_max=0.5)
    assert "reads" in warnings_of(tree) or "reads" in tree.attrs["assumptions"]


def test_a_device_read_once() -> None:
    tree = fit(measurement(reads=reads_node(np.geomspace(1e-5, 1e-3, 20)[:, None])))
    assert "stuck devices: not found, because the devices were not read in two states" in warnings_of(tree)
    assert float(dataset(tree, "conductance")["g_off"]) < float(dataset(tree, "conductance")["g_on"])


def test_unknown_branches_do_not_stop_the_fit() -> None:
    """Branches of a polarity that is not asked for may be anything, even empty of usable points."""
    node = iv_node(devices=6, cycles=2)
    other = iv_dataset(-np.tile(VOLTAGE, (2, 1)), np.full((2, len(VOLTAGE)), -1e-9), polarity="negative", state="hrs")
    other["flag"][:] = FLAG["saturated"]
    tree = fit(measurement(iv=xr.concat([node, other], dim="sweep")), v_max=0.5)
    assert int(dataset(tree, "iv")["n_curves"].sel(state="hrs")) == 12


def test_reads_that_only_drift_name_no_stuck_devices() -> None:
    """Conductances that relax by a third over time are no switching, so nothing is called stuck."""
    rng = np.random.default_rng(0)
    drift = np.geomspace(1, 0.7, 12) * np.exp(0.3 * rng.standard_normal((40, 1))) * 2e-5
    tree = fit(measurement(reads=reads_node(drift)))
    assert "stuck" not in tree.children
    assert "the devices were not read in two states that differ" in warnings_of(tree)
    assert "the devices were not switched" in dataset(tree, "conductance").attrs["rule"]
