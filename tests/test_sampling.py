"""Draws: quantile functions that a sample leaves open, devices in several cycles, and whole models."""

import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from calib import calibrate, device_model, sampling
from calib.iv_models import iv_model
from calib.model_draw import Spread, Stuck, chi_draw
from calib.resistance_draw import components, drawn_quantiles
from tests import simple_devices
from tests.synthetic import iv_node, measurement

LEVELS = np.linspace(0.0, 1.0, 101)


@pytest.fixture(scope="module")
def fitted() -> xr.DataTree:
    node = iv_node(devices=20, cycles=4, stuck=[3, 11])
    return calibrate.fit(measurement(iv=node), v_max=0.5, iv_model="poole-frenkel")


@pytest.fixture(scope="module")
def draws(fitted) -> list[xr.DataTree]:
    return [sampling.sample_model(fitted, seed) for seed in range(40)]


def test_the_same_seed_gives_the_same_model(fitted):
    one, again, other = (sampling.sample_model(fitted, seed) for seed in (5, 5, 6))
    xr.testing.assert_identical(one, again)
    assert device_model.identity(one) == device_model.identity(again) != device_model.identity(other)


def test_a_draw_says_that_it_is_one(fitted, tmp_path):
    sample = sampling.sample_model(fitted, 5)
    draw = json.loads(sample.attrs["draw"])
    assert draw["seed"] == 5
    assert draw["parent"] == device_model.identity(fitted)
    assert draw["not_drawn"] == []
    assert "draw" not in fitted.attrs
    device_model.save(sample, tmp_path / "draw.nc")
    xr.testing.assert_identical(device_model.open_device(tmp_path / "draw.nc"), sample)


def test_draws_have_the_structure_of_their_parent(fitted, draws):
    for sample in draws[:5]:
        device_model.check(sample)
        for name in fitted.children:
            parent, child = fitted[name].to_dataset(), sample[name].to_dataset()
            assert set(parent.variables) == set(child.variables)
            assert parent.sizes == child.sizes
            assert all(parent[v].attrs == child[v].attrs for v in parent.variables)


@pytest.mark.parametrize("name", ["slope", "intercept", "ln_r_mean"])
def test_draws_spread_as_the_standard_errors_say(fitted, draws, name):
    drawn = np.array([sample["iv"][name].values for sample in draws])
    stderr = fitted["iv"][f"{name}_stderr"].values
    # 40 draws know a standard deviation to 11 %; a bootstrap of 20 devices and a normal error differ by some 30 %
    assert drawn.std(0) == pytest.approx(stderr, rel=0.5)
    assert (np.abs(drawn.mean(0) - fitted["iv"][name].values) < 0.6 * stderr).all()


def test_a_drawn_line_keeps_the_current_at_the_reference_voltage(draws):
    """The scale's line moves with the shape's, so that a device on both has the resistance that it was drawn for."""
    law = iv_model("poole-frenkel")
    for sample in draws[:5]:
        node = sample["iv"].to_dataset().sel(state="hrs")
        ln_r = float(node["ln_r_mean"])
        t = node["intercept"].values + node["slope"].values * ln_r
        log = node["transform"].values == "log"
        values = dict(zip(node["parameter"].values.tolist(), np.where(log, np.exp(t), t).tolist(), strict=True))
        current = law.current(np.array(0.1), xp=np, **values)
        assert np.log(0.1 / current) == pytest.approx(ln_r, abs=0.05)


def test_drawn_numbers_stay_within_their_bounds(fitted, draws):
    for sample in draws:
        g = sample["conductance"].to_dataset()
        assert 0 < float(g["g_off"]) < float(g["g_on"])
        assert (sample["programming"]["sigma"].values > 0).all()
        assert 0 <= float(sample["stuck"]["probability"]) <= 1
        assert set(sample["stuck"]["conductance"].values) <= set(fitted["stuck"]["conductance"].values)
        covariance = sample["iv"]["covariance"].values
        assert (np.linalg.eigvalsh(covariance) > -1e-9 * np.trace(covariance, axis1=1, axis2=2)[:, None]).all()
        assert (np.diff(sample["iv"]["ln_r_quantile"].values, axis=1) >= 0).all()
    probability = [float(sample["stuck"]["probability"]) for sample in draws]
    assert np.mean(probability) == pytest.approx(2.5 / 21, abs=0.035)  # Jeffreys: beta(2.5, 18.5)


def test_a_published_model_has_what_its_errors_tell_and_says_what_it_keeps():
    sample = sampling.sample_model(simple_devices.device(), 1)
    parent = simple_devices.device()
    held = json.loads(sample.attrs["draw"])["not_drawn"]
    assert "iv: ln R of state hrs" in held
    assert "conductance/g_off" in held
    np.testing.assert_array_equal(sample["iv"]["ln_r_quantile"].values, parent["iv"]["ln_r_quantile"].values)


def test_errors_without_a_table_of_curves_are_drawn():
    iv = simple_devices.iv_node()
    for name, value in {"ln_r_mean": 0.1, "ln_r_std": 0.05, "slope": 0.02}.items():
        iv[f"{name}_stderr"] = iv[name] * 0 + value
    iv["covariance_stderr"] = 0.1 * np.abs(iv["covariance"])
    parent = simple_devices.device(iv=iv)
    drawn = [sampling.sample_model(parent, seed)["iv"].to_dataset() for seed in range(60)]
    assert np.std([float(node["ln_r_mean"][0]) for node in drawn]) == pytest.approx(0.1, rel=0.3)
    slope = np.array([float(node["slope"].sel(parameter="gamma")[0]) for node in drawn])
    assert slope.std() == pytest.approx(0.02, rel=0.3)


def test_members_of_the_family_draw_their_own_nodes(fitted, monkeypatch):
    class Member:
        node = "examples"

        @staticmethod
        def resample(node: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
            return node.assign(current=node["current"] * (1 + 0.1 * generator.standard_normal()))

    monkeypatch.setattr(sampling, "members", lambda tree: [Member])
    sample = sampling.sample_model(fitted, 1)
    ratio = (sample["examples"]["current"] / fitted["examples"]["current"]).values
    assert np.nanstd(ratio) < 1e-12
    assert np.nanmean(ratio) != 1


@pytest.mark.parametrize("n", [5, 12, 40])
def test_drawn_distributions_cover_new_values_exactly(n):
    """Any continuous distribution: the predictive probability below the i-th sorted value is i / (n + 1)."""
    rng = np.random.default_rng(n)
    inside = []
    for _ in range(150):
        x = rng.gamma(2.0, size=n)
        parts = components(x, np.arange(n))
        drawn = np.concatenate([drawn_quantiles(parts, (np.arange(50) + 0.5) / 50, rng) for _ in range(60)])
        inside.append(np.mean(drawn[:, None] < np.sort(x), axis=0))
    assert np.mean(inside, axis=0) == pytest.approx(np.arange(1, n + 1) / (n + 1), abs=0.02)


@pytest.mark.parametrize(("between", "within"), [(0.5, 0.1), (0.2, 0.5), (0.0, 0.3)])
def test_few_devices_with_many_cycles_are_not_many_devices(between, within):
    """The 90 % predictive interval from 12 devices covers new devices; the empirical quantiles of the curves do not."""
    rng = np.random.default_rng(1)
    drawn_cover, plain_cover = [], []
    for _ in range(50):
        x = rng.normal(0, between, (12, 1)) + rng.normal(0, within, (12, 6))
        parts = components(x.ravel(), np.repeat(np.arange(12), 6))
        pool = np.concatenate([drawn_quantiles(parts, (np.arange(50) + 0.5) / 50, rng) for _ in range(15)])
        total = np.hypot(between, within)
        for found, values in ((drawn_cover, pool), (plain_cover, x)):
            low, high = np.quantile(values, [0.05, 0.95])
            found.append(stats.norm.cdf(high, 0, total) - stats.norm.cdf(low, 0, total))
    assert np.mean(drawn_cover) == pytest.approx(0.9, abs=0.03)
    if between > within:
        assert np.mean(plain_cover) < np.mean(drawn_cover) - 0.04


def test_components_of_unbalanced_groups_are_recovered():
    rng = np.random.default_rng(2)
    counts = rng.integers(1, 9, 3000)
    device = np.repeat(np.arange(3000), counts)
    x = 2.0 + rng.normal(0, 0.4, 3000)[device] + rng.normal(0, 0.2, len(device))
    parts = components(x, device)
    assert parts.between == pytest.approx(0.16, rel=0.05)
    assert parts.within == pytest.approx(0.04, rel=0.05)
    assert parts.device.std() == pytest.approx(0.4, rel=0.03)
    assert parts.cycle.std() == pytest.approx(0.2, rel=0.03)
    assert parts.correlation == pytest.approx(0.8, abs=0.02)


def test_cycles_of_drawn_devices_are_as_alike_as_those_of_the_fitted(fitted):
    source = sampling.PopulationDraw(fitted)
    rng = np.random.default_rng(3)
    population = source.centre
    ln_r, parameters = population.devices("lrs", np.full(4000, np.nan), 2, rng)
    rho = source.draws.correlations(population.states.index("lrs"))[0]
    # the score's correlation is rho; that of ln R is near it
    assert np.corrcoef(ln_r.T)[0, 1] == pytest.approx(rho, abs=0.06)
    assert rho == pytest.approx(0.9, abs=0.08)  # 0.3^2 / (0.3^2 + 0.1^2)
    marginal = np.quantile(ln_r[:, 0], [0.1, 0.5, 0.9])
    node = fitted["iv"].to_dataset().sel(state="lrs")
    assert marginal == pytest.approx(np.interp([0.1, 0.5, 0.9], LEVELS, node["ln_r_quantile"].values), abs=0.04)
    assert set(parameters) == {"c", "gamma"}


def test_a_stuck_device_is_stuck_in_every_state_and_cycle(fitted):
    population = sampling.PopulationDraw(fitted).centre
    rng = np.random.default_rng(4)
    stuck = population.stuck(400, rng)
    dead = np.isfinite(stuck)
    assert dead.mean() == pytest.approx(0.1, abs=0.05)
    for state in ("lrs", "hrs"):
        ln_r, _ = population.devices(state, stuck, 3, rng)
        assert np.ptp(ln_r[dead], axis=1).max() == 0
        assert ln_r[dead, 0] == pytest.approx(-np.log(stuck[dead]))
        assert np.ptp(ln_r[~dead], axis=1).min() > 0


def test_chi_draws():
    rng = np.random.default_rng(5)
    drawn = np.array([chi_draw(0.5, 0.05, rng) for _ in range(3000)])
    assert drawn.std() == pytest.approx(0.05, rel=0.1)
    assert np.median(drawn) == pytest.approx(0.5, rel=0.02)
    assert (drawn > 0).all()
    assert chi_draw(0.5, np.nan, rng) == 0.5
    assert all(chi_draw(0.0, 0.1, rng) >= 0 for _ in range(20))


def test_spread_and_stuck_take_part_information():
    node = simple_devices.programming_node()
    spread = Spread.of(node, 0)
    assert spread.parts() == (0.2, 0.0)  # not separated: all of it is between devices
    assert spread.draw(np.random.default_rng(0)).total == 0.2  # without a standard error it stays
    assumed = Stuck(0.1, np.array([1e-6]), 0.0, 0, 1)
    assert assumed.draw(np.random.default_rng(0)).probability == 0.1
