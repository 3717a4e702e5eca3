"""The batched fit and lmfit find the same: every law, with bounds, an offset and robust losses."""

from typing import Any

import numpy as np
import pytest

from calib.errors import FitError, OptionError
from calib.fitting.least_squares import fit_batch, fit_single
from calib.fitting.robust import LOSSES
from calib.iv_models import all_names, iv_model, names
from tests.fitting.curve_sets import curves

HOW: dict[str, dict[str, Any]] = {
    "plain": {},
    "offset": {"fit_offset": True},
    "huber": {"loss": "huber", "f_scale": 1.5},
    "cauchy, sigma known": {"loss": "cauchy", "f_scale": 2.0, "absolute_sigma": True},
}


def assert_agrees(law: Any, data: tuple[np.ndarray, ...], how: dict[str, Any], least: int) -> None:
    """Compare every curve; parameters to 1e-6, standard errors to 1e-4, cost to 1e-8 (it is found by differences)."""
    fit = fit_batch(law, *data, **how)
    assert fit.ok.sum() >= least
    for k in np.flatnonzero(fit.ok & (fit.condition < 1e8)):
        single = fit_single(law, *(array[k] for array in data), **how)
        expected = np.array([single.params[name].value for name in law.parameter_names])
        stderr = np.array([single.params[name].stderr or np.nan for name in law.parameter_names])
        spread = np.nan_to_num(fit.stderr[k])
        assert (np.abs(fit.values[k] - expected) <= 1e-6 * np.abs(expected) + 1e-6 * spread).all()
        np.testing.assert_allclose(fit.stderr[k], stderr, rtol=1e-4)
        assert fit.cost[k] == pytest.approx(single.chisqr, rel=1e-8)
        assert fit.n_free[k] == single.nfree
        held = [name for name in law.parameter_names if not single.params[name].vary]
        assert held == [name for name, at in zip(law.parameter_names, fit.at_bound[k], strict=True) if at]
        if how.get("fit_offset"):
            offset = single.params["offset"]
            assert fit.offset[k] == pytest.approx(offset.value, rel=1e-6, abs=1e-6 * fit.offset_stderr[k])
            assert fit.offset_stderr[k] == pytest.approx(offset.stderr, rel=1e-4)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", names())
def test_every_law_agrees_with_lmfit(name: str, how: str) -> None:
    law = iv_model(name)
    _, voltage, current, sigma = curves(law, 3, 60, 0.01, seed=1)
    if "offset" in how:
        largest = np.abs(current).max(1, keepdims=True)
        current, sigma = current + 0.01 * largest, sigma + 1e-4 * largest
    assert_agrees(law, (voltage, current, sigma), HOW[how], least=3)


@pytest.mark.parametrize("name", sorted(set(all_names()) - set(names())))
def test_laws_with_a_series_resistance_agree_with_lmfit(name: str) -> None:
    """Some curves do not determine the resistance, and say so."""
    law = iv_model(name)
    _, voltage, current, sigma = curves(law, 3, 40, 0.001, seed=2)
    assert_agrees(law, (voltage, current, sigma), {}, least=0)


@pytest.mark.parametrize("loss", LOSSES)
def test_curves_of_their_own_voltages_agree_with_lmfit(loss: str) -> None:
    law = iv_model("poole-frenkel")
    generator = np.random.default_rng(8)
    voltage = np.sort(generator.uniform(0.02, 0.6, (4, 30)), axis=1)
    clean = law.current(voltage, xp=np, c=np.logspace(-9, -3, 4)[:, None], gamma=np.linspace(-1, 4, 4)[:, None])
    sigma = 0.02 * np.abs(clean)
    current = clean + sigma * generator.standard_normal(clean.shape)
    voltage[:, 7] = np.nan
    assert_agrees(law, (voltage, current, sigma), {"loss": loss}, least=4)


@pytest.mark.parametrize(
    ("name", "shape", "bound"),
    [
        ("fowler-nordheim", lambda v: v**2 * np.exp(0.1 / v), {"b": 0.0}),
        ("power-law", lambda v: v**-0.3, {"n": 1.0}),
    ],
)
def test_an_estimate_sits_on_its_bound(name: str, shape: Any, bound: dict[str, float]) -> None:
    """Exactly, flagged, without a standard error, and the covariance is that of the others."""
    law = iv_model(name)
    voltage = np.linspace(0.1, 1.0, 50)
    generator = np.random.default_rng(0)
    current = 1e-6 * shape(voltage) * (1 + 0.01 * generator.standard_normal((2, 50)))
    data = (np.tile(voltage, (2, 1)), current, np.tile(1e-8 * shape(voltage), (2, 1)))
    fit = fit_batch(law, *data)
    ((parameter, value),) = bound.items()
    k = law.parameter_names.index(parameter)
    assert fit.ok.all()
    assert (fit.values[:, k] == value).all()
    assert fit.at_bound.sum(0).tolist() == [2 * (j == k) for j in range(len(law.parameters))]
    assert np.isnan(fit.stderr[:, k]).all()
    assert np.isfinite(np.delete(fit.stderr, k, axis=1)).all()
    assert not fit.covariance[:, k].any()
    assert not fit.covariance[:, :, k].any()
    assert (fit.n_free == 50 - len(law.parameters) + 1).all()
    assert any(f"{parameter} = {value:.4g}" in sentence for sentence in fit.sentences(0))
    assert_agrees(law, data, {}, least=2)


def test_starting_values_can_be_given() -> None:
    law = iv_model("hyperbolic-sine")
    truth, voltage, current, sigma = curves(law, 5, 30, 0.01, seed=3)
    own = fit_batch(law, voltage, current, sigma)
    shape = next(iter(law.shape))
    given = fit_batch(law, voltage, current, sigma, x0={shape: truth[shape][:, 0]})
    np.testing.assert_allclose(given.values, own.values, rtol=1e-6)
    single = fit_single(law, voltage[0], current[0], sigma[0], x0={shape: float(truth[shape][0, 0])})
    assert single.params[shape].value == pytest.approx(own.values[0, law.parameter_names.index(shape)], rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": "l3"}, "there is no loss 'l3'; choose one of linear, soft_l1, huber, cauchy"),
        ({"f_scale": 0.0}, "f_scale is 0.0; give a positive number"),
        ({"threads": 0}, "threads is 0; give a whole number of at least 1"),
        ({"x0": {"d": 1.0}}, "x0 names d; the parameters of poole-frenkel are c, gamma"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    ones = np.ones((1, 5))
    with pytest.raises(OptionError, match=message):
        fit_batch(iv_model("poole-frenkel"), ones, ones, ones, **options)


def test_a_single_curve_of_zeros_is_an_error() -> None:
    with pytest.raises(FitError, match="every current is zero: there is no poole-frenkel to fit"):
        fit_single(iv_model("poole-frenkel"), np.linspace(0.1, 1, 9), np.zeros(9), np.ones(9))
