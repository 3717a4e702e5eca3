"""Predictive coverage: a right model covers as a perfect one would, a wrong one does not."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats

import calib
from calib import calibrate, device_model, validation, validation_drift, validation_programming, validation_scores
from calib.cli import main
from calib.errors import FitError, OptionError
from calib.fitting import levels, read_noise, retention
from calib.validation_figures import validation_figures, whole_figure
from calib.validation_tables import comparison_section, validation_json, validation_section
from tests import simple_devices
from tests.synthetic import iv_node, measurement, reads_node

DEVICES = 60


@pytest.fixture(scope="module")
def node() -> xr.Dataset:
    return iv_node(devices=DEVICES, cycles=1)


@pytest.fixture(scope="module")
def model(node) -> xr.DataTree:
    return calibrate.fit(measurement(iv=node), v_max=0.5)


def test_new_devices_of_the_same_population_are_covered(model):
    """The mean coverage over eight sets of new devices, whose standard deviation is known from the interval."""
    covered = []
    for seed in range(8):
        found = validation.validation_node(model, iv_node(devices=DEVICES, cycles=1, seed=100 + seed))
        covered.append(float(found["coverage"].sel(level=0.9)))
    low, high = found["coverage_bound"].sel(level=0.9).values
    assert low < 0.9 < high
    # the model itself is known from 60 devices only, so the mean may be off by as much as one set's spread
    assert np.mean(covered) == pytest.approx(0.9, abs=(high - low) / 2)


def test_devices_of_another_population_are_not_covered(model, node):
    other = node.assign(current=node["current"] * 5)
    found = validation.validation_node(model, other)
    assert float(found["coverage"].sel(level=0.9)) < float(found["coverage_bound"].sel(level=0.9, bound="low"))
    assert "less than a perfect model's" in found.attrs["verdict"]


def test_a_model_that_is_too_wide_is_said_to_be(model, node):
    wide = model.copy(deep=True)
    iv = wide["iv"].to_dataset()
    centre = iv["ln_r_mean"]
    wide["iv"] = xr.DataTree(iv.assign(ln_r_quantile=centre + 4 * (iv["ln_r_quantile"] - centre)))
    assert "more than a perfect model's" in validation.validation_node(wide, node).attrs["verdict"]


def test_few_devices_give_a_wide_interval(model, node):
    few = node.isel(sweep=np.flatnonzero(np.isin(node["device"].values, np.unique(node["device"].values)[:6])))
    wide = validation.validation_node(model, few)["coverage_bound"].sel(level=0.9).values
    narrow = validation.validation_node(model, node)["coverage_bound"].sel(level=0.9).values
    assert np.ptp(wide) > 2 * np.ptp(narrow)  # 6 against 60 devices: a factor of sqrt(10)


def test_nothing_to_validate_with(model, node):
    one = node.isel(sweep=np.flatnonzero(node["device"].values == node["device"].values[0]))
    with pytest.raises(FitError, match="no state has 4 devices"):
        validation.validation_node(model, one)


def test_holdout_splits_by_device_and_stores_the_result(node, tmp_path):
    whole = measurement(iv=node)
    model = calibrate.fit(whole, v_max=0.5, holdout=0.5)
    assert model["iv"]["n_devices"].values.max() <= DEVICES / 2
    assert model["validation"]["n_devices"].values.tolist() == [DEVICES / 2] * 2
    assert "held out for validation" in model.attrs["warnings"]
    device_model.save(model, tmp_path / "device.nc")
    xr.testing.assert_identical(device_model.open_device(tmp_path / "device.nc"), model)
    kept, held = validation.split_devices(node, 0.5)
    devices = node["device"].values
    assert not set(devices[kept]) & set(devices[held])
    assert (kept ^ held).all()


def test_one_device_is_split_by_cycle():
    kept, held = validation.split_devices(iv_node(devices=1, cycles=10), 0.4)
    assert kept.sum() == held.sum() * 6 / 4


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_too_few_devices_to_hold_out(node, fraction):
    with pytest.raises(FitError, match=r"expected at least 4 of each"):
        calibrate.fit(measurement(iv=node), holdout=fraction)


def test_a_fraction_that_is_none(node):
    with pytest.raises(OptionError, match="--holdout is 1"):
        calibrate.fit(measurement(iv=node), holdout=1.0)


# scores, distances and nulls


def test_interval_score_by_hand():
    """Gneiting and Raftery 2007, eq. 43: width, and 2 / alpha of what lies outside."""
    x = np.array([0.0, -1.0, 3.0])
    assert validation_scores.interval_score(x, -0.5, 2.0, 0.9) == pytest.approx([2.5, 2.5 + 20 * 0.5, 2.5 + 20 * 1.0])
    # of all intervals, the quantiles of the distribution have the smallest mean score
    normal = np.random.default_rng(0).standard_normal(20_000)
    scores = [validation_scores.interval_score(normal, -z, z, 0.9).mean() for z in (1.2, 1.645, 2.1)]
    assert scores[1] < min(scores[0], scores[2])


def test_distances_are_those_of_scipy():
    rng = np.random.default_rng(1)
    pool, x = np.sort(rng.normal(size=50_000)), rng.normal(0.3, 1.2, 80)
    u = validation_scores.probability_transform(x, pool, rng)
    assert float(validation_scores.kolmogorov_smirnov(u)) == pytest.approx(stats.ks_2samp(x, pool).statistic, abs=1e-3)
    assert float(validation_scores.wasserstein(x, pool)) == pytest.approx(stats.wasserstein_distance(x, pool), abs=0.01)


def test_the_null_counts_devices_not_cycles():
    """Ten cycles of eight devices: p-values are even under the model; an ordinary test would reject nearly always."""
    p, naive, covered = [], [], []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        pool = rng.normal(size=(20, 60, 1)) + 0.1 * rng.normal(size=(20, 60, 10))
        x = (rng.normal(size=(8, 1)) + 0.1 * rng.normal(size=(8, 10))).ravel()
        found = validation_scores.compare("x", "", "", x, np.repeat(np.arange(8), 10), pool, rng)
        p.append(found.wasserstein_p)
        naive.append(stats.ks_2samp(x, pool.ravel()).pvalue)
        low, high = found.coverage_bound[1]
        covered.append(low <= found.coverage[1] <= high)
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(naive) < 0.05) > 0.4
    assert np.mean(covered) > 0.85


def test_values_of_another_distribution_are_told_apart():
    rng = np.random.default_rng(2)
    pool = rng.normal(size=(20, 200, 1))
    found = validation_scores.compare("x", "lrs", "1 V", rng.normal(1.0, 1.0, 100), np.arange(100), pool, rng)
    assert found.ks_p < 0.01
    assert found.wasserstein == pytest.approx(1.0, abs=0.3)
    assert "differ from the model's by more than chance" in validation.findings([found])[0]
    assert "x lrs 1 V: KS" in validation.findings([found])[0]


def test_ties_at_the_floor_are_spread_evenly():
    rng = np.random.default_rng(3)
    pool = np.sort(np.maximum(rng.normal(size=20_000), 0.0))
    u = validation_scores.probability_transform(np.maximum(rng.normal(size=4000), 0.0), pool, rng)
    assert stats.kstest(u, "uniform").pvalue > 1e-3


# the node


@pytest.fixture(scope="module")
def found(model) -> xr.Dataset:
    return validation.validation_node(model, iv_node(devices=DEVICES, cycles=1, seed=77))


def test_the_node_holds_curves_scores_and_distances(found, model):
    assert (found["coverage_curve_bound"].sel(bound="low") <= found["coverage_curve_bound"].sel(bound="high")).all()
    assert float(found["interval_score_ratio"].sel(level=0.9)) == pytest.approx(1.0, abs=0.15)
    assert found["pit"].sum("bin").values == pytest.approx(1.0)
    quantities = set(found["comparison_quantity"].values)
    assert {"ln R (ohm)", "ln I (A)", "ln R after programming (ohm)"} == quantities
    assert ((found["ks_p"] > 0) & (found["ks_p"] <= 1)).all()
    whole = device_model.build(
        {**{k: v.to_dataset() for k, v in model.children.items()}, "validation": found}, name="x"
    )
    assert "validation" in whole.children


def test_the_same_seed_gives_the_same_node(model, found):
    again = validation.validation_node(model, iv_node(devices=DEVICES, cycles=1, seed=77))
    xr.testing.assert_identical(found, again)


def test_tables_and_plain_values(found):
    values = validation_json(found)
    assert {"verdict", "coverage_50", "coverage_90", "coverage_curve_90", "interval_score_ratio", "distances",
            "findings"} == set(values)  # fmt: skip
    assert set(values["coverage_90"]) == {"mean", "low", "high"}
    assert set(values["coverage_curve_90"]) == {"lrs", "hrs"}
    json.dumps(values, allow_nan=False)
    assert "a perfect model" in validation_section(found).rows[0][3]
    section = comparison_section(found)
    assert section is not None
    assert len(section.rows) == found.sizes["comparison"]


def test_figures_of_every_part(found):
    assert [key for key, _, _ in validation_figures(found)] == ["coverage", "pit", "quantiles", "comparisons"]
    assert len(whole_figure(found).axes) == 3
    few = found.drop_vars([v for v in found.data_vars if "voltage" in str(v) or str(v).startswith(("pit", "qq"))])
    assert [key for key, _, _ in validation_figures(few)] == ["comparisons"]
    assert len(whole_figure(few).axes) == 1


def test_currents_under_the_noise_floor_count_as_at_it(model, node):
    """Cut off at a floor, measured and drawn currents still agree; none is left out because it is small."""
    floor = float(np.quantile(np.abs(node["current"].values[:, 1:]), 0.3))
    low = np.abs(node["current"].values) < floor
    flagged = node.copy(deep=True)
    rng = np.random.default_rng(0)
    flagged["current"] = node["current"] + floor / 3 * rng.standard_normal(node["current"].shape)
    flagged["flag"] = node["flag"] | np.where(low, 4, 0).astype(np.int32)
    flagged = flagged.assign_coords(noise_floor=("sweep", np.full(node.sizes["sweep"], floor)))
    found = validation.validation_node(model, flagged).sel(level=0.9)
    assert np.isfinite(found["coverage_voltage"].values).all()
    assert float(found["coverage"]) >= float(found["coverage_bound"].sel(bound="low"))
    assert float(found["coverage"]) <= float(found["coverage_bound"].sel(bound="high")) + 0.02


def test_cycles_of_few_devices_widen_the_interval_of_a_perfect_model(model):
    """Twelve devices with five alike cycles tell little more than twelve curves."""
    many = validation.validation_node(model, iv_node(devices=12, cycles=5, seed=9))["coverage_bound"].sel(level=0.9)
    one = validation.validation_node(model, iv_node(devices=60, cycles=1, seed=9))["coverage_bound"].sel(level=0.9)
    assert float(np.ptp(many.values)) > 1.2 * float(np.ptp(one.values))


def test_the_fitted_devices_give_the_reference_of_the_score(model, node):
    held = iv_node(devices=DEVICES, cycles=1, seed=78)
    by_table = validation.validation_node(model, held)["interval_score_ratio"].sel(level=0.9)
    measured = validation.validation_node(model, held, fitted=node)["interval_score_ratio"].sel(level=0.9)
    assert float(measured) == pytest.approx(float(by_table), rel=0.05)


# reads


def programmed(devices: int, cycles: int, seed: int, factor: float = 1.0) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    parts = []
    for centre, d2d, c2c in ((9.0, 0.1, 0.06), (12.0, 0.3, 0.2)):
        ln_r = centre + d2d * rng.standard_normal((devices, 1)) + c2c * rng.standard_normal((devices, cycles))
        parts.append(factor * np.exp(-ln_r))
    names = np.array([f"d{k:03d}" for k in range(devices)] * 2)
    return reads_node(np.concatenate(parts), device=names, state=np.repeat(["lrs", "hrs"], devices))


def test_a_model_of_reads_is_validated_with_reads():
    model = calibrate.fit(measurement(reads=programmed(40, 5, 0)))
    right = calib.validate(model, measurement(reads=programmed(40, 5, 1)))
    low, high = right["coverage_bound"].sel(level=0.9).values
    assert low <= float(right["coverage"].sel(level=0.9)) <= high
    assert "as a perfect model's would" in right.attrs["verdict"]
    assert {"lrs", "hrs"} <= set(right["comparison_state"].values)
    wrong = calib.validate(model, measurement(reads=programmed(40, 5, 1, factor=2.0)))
    assert "less than a perfect model's" in wrong.attrs["verdict"]
    assert float(wrong["wasserstein"].sel(comparison=0)) == pytest.approx(np.log(2), rel=0.2)
    assert validation_json(wrong)["interval_score_ratio"] is None  # the fitted reads were not given


def test_reads_are_split_by_device():
    node = programmed(12, 3, 0)
    kept, held = validation.split_devices(node, 0.5)
    devices = node["device"].values
    assert len(set(devices[held])) == len(set(devices[kept])) == 6
    assert not set(devices[held]) & set(devices[kept])


def test_traces_of_one_device_are_split_by_trace():
    node = reads_node(np.ones((10, 3)), device="d0", level=np.arange(10).astype(str))
    kept, held = validation.split_devices(node, 0.4)
    assert held.sum() == 4
    assert (kept ^ held).all()


def drifting(traces: int, seed: int, exponent: float = 0.02, noise: float = 0.01) -> xr.Dataset:
    rng = np.random.default_rng(seed)
    time = np.array([0.0, 1e-1, 1e0, 1e1, 1e2, 1e3, 1e4])
    nu = exponent + 0.01 * rng.standard_normal((traces, 1))
    first = np.exp(rng.normal(-10, 0.3, (traces, 1)))
    g = first * np.exp(-nu * np.log(np.maximum(time, 0.01) / 0.01)) * (1 + noise * rng.standard_normal((traces, 7)))
    node = reads_node(g, level=np.where(np.arange(traces) % 2, "a", "b"))
    return node.assign(
        time=(("trace", "sample"), np.broadcast_to(time, g.shape).copy(), {"units": "s", "long_name": "t"})
    )


def test_drift_is_validated_at_each_time():
    warnings: list[str] = []
    node = retention.retention_node(drifting(120, 0), warnings)
    assert node is not None
    tree = xr.DataTree.from_dict({"/retention": node})
    rng = np.random.default_rng(0)
    right = validation_drift.compare_drift(tree, drifting(120, 1), rng)
    assert len(right) == 6
    inside = [low <= item.coverage[1] <= high for item in right for low, high in [item.coverage_bound[1]]]
    assert np.mean(inside) >= 5 / 6
    compared = validation.validate_nodes(
        device_model.build({"retention": node}, name="x"), {"reads": drifting(120, 1)}, 0, {"reads": drifting(120, 0)}
    )
    assert float(compared["interval_score_ratio"].sel(level=0.9)) == pytest.approx(1.0, abs=0.05)
    wrong = validation_drift.compare_drift(tree, drifting(120, 1, exponent=0.06), rng)
    assert wrong[-1].coverage[1] < wrong[-1].coverage_bound[1, 0]
    assert wrong[-1].ks_p < 0.01
    without = tree["retention"].to_dataset().drop_vars("shift_quantile")
    by_exponent = validation_drift.compare_drift(xr.DataTree.from_dict({"/retention": without}), drifting(120, 1), rng)
    assert by_exponent[0].coverage[1] == pytest.approx(0.9, abs=0.08)


def test_levels_and_noise_are_validated():
    rng = np.random.default_rng(0)

    def reads(seed: int, noise: float) -> xr.Dataset:
        r = np.random.default_rng(seed)
        level = np.repeat(np.arange(4), 15)
        trace = (1e-5 * (1 + level) * (1 + 0.02 * r.standard_normal(60)))[:, None]
        g = trace * (1 + noise * r.standard_normal((60, 40)))
        return reads_node(g, level=level.astype(str))

    known = reads(0, 0.01)
    found = {"levels": levels.levels_node(known, []), "read_noise": read_noise.read_noise_node(known, [])}
    tree = xr.DataTree.from_dict({f"/{name}": node for name, node in found.items()})
    right = validation_programming.compare_levels(tree, reads(1, 0.01), rng)
    assert len(right) == 4
    assert np.mean([item.coverage[1] for item in right]) == pytest.approx(0.9, abs=0.08)
    (noise,) = validation_drift.compare_noise(tree, reads(1, 0.01), rng)
    assert noise.coverage_bound[1, 0] <= noise.coverage[1] <= noise.coverage_bound[1, 1]
    (louder,) = validation_drift.compare_noise(tree, reads(1, 0.03), rng)
    assert louder.coverage[1] < noise.coverage[1] - 0.2


def test_nothing_in_common(model):
    with pytest.raises(FitError, match="nothing to validate with: the measurement holds conductance reads"):
        calib.validate(simple_devices.range_only(), measurement(reads=programmed(8, 2, 0)))
    with pytest.raises(FitError, match="takes I-V sweeps or conductance reads"):
        calib.validate(model, measurement())


# the command


@pytest.fixture
def files(model, tmp_path):
    device_model.save(model, tmp_path / "device.nc")
    from calib import simulation

    simulation.simulate_file(model, tmp_path / "other.csv", devices=8, cycles=1, seed=3)
    return tmp_path


def test_the_command_writes_a_report_and_a_figure(files, capsys):
    arguments = ["validate", str(files / "device.nc"), str(files / "other.csv")]
    assert main([*arguments, "--report", str(files / "v.html"), "--figure", str(files / "v.png")]) == 0
    shown = capsys.readouterr().out
    assert "Coverage of the predictive interval" in shown
    assert "Measured against drawn distributions" in shown
    page = (files / "v.html").read_text(encoding="utf-8")
    assert page.count("<svg") == 4
    assert "covers" in page
    assert (files / "v.png").read_bytes().startswith(b"\x89PNG")
    assert main([*arguments, "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["same_sources"] == []
    assert {"mean", "low", "high"} == set(values["coverage_90"])


@pytest.mark.parametrize(
    ("option", "message"), [("--report=v.txt", "ends in .html"), ("--figure=v.doc", "ends in .png, .svg, .pdf")]
)
def test_names_that_do_not_fit(files, capsys, option, message):
    assert main(["validate", str(files / "device.nc"), str(files / "other.csv"), option]) == 1
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_few_devices_with_many_cycles_are_covered(measurements):
    """Twelve or thirteen devices of xiao2025 a half: the quantiles of 75 curves alone cover 0.74 of the others."""
    whole = calib.read(measurements / "xiao2025-multilevel" / "uniformity-data.xlsx")
    node = whole["iv"].to_dataset()
    found = []
    for seed in range(3):
        kept, held = (node.isel(sweep=np.flatnonzero(mask)) for mask in validation.split_devices(node, 0.5, seed))
        half = xr.DataTree.from_dict({"/iv": kept})
        half.attrs = dict(whole.attrs)
        model = calib.fit(half, iv_model="hyperbolic-sine", v_max=0.405)
        found.append(validation.validation_node(model, held, seed, kept).sel(level=0.9))
    low, high = np.mean([one["coverage_bound"].values for one in found], axis=0)
    assert low < np.mean([float(one["coverage"]) for one in found]) < high
    assert np.mean([float(one["interval_score_ratio"]) for one in found]) < 1.1
    assert any("too few points over the noise floor" in one.attrs["findings"] for one in found)
