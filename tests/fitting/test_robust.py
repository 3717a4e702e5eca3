"""Robust losses: scipy's definitions, little weight for stray points, and honest standard errors."""

import numpy as np
import pytest
from scipy.optimize import least_squares as scipy_least_squares

from calib.fitting import robust
from calib.fitting.least_squares import fit_batch
from calib.iv_models import iv_model
from tests.synthetic import poole_frenkel

PF = iv_model("poole-frenkel")
VOLTAGE = np.linspace(0.02, 0.5, 40)
SOFT = sorted(set(robust.LOSSES) - {"linear"})


def contaminated(count: int, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return currents and sigmas (curve, point); a share of the points is off by 20 sigmas on average."""
    generator = np.random.default_rng(seed)
    clean = np.tile(poole_frenkel(VOLTAGE, 1e-6, 2.0), (count, 1))
    noise = generator.standard_normal(clean.shape)
    stray = generator.random(clean.shape) < share
    noise[stray] += 20 * generator.standard_normal(stray.sum())
    return clean * (1 + 0.01 * noise), 0.01 * clean


@pytest.mark.parametrize("loss", robust.LOSSES)
def test_the_cost_is_twice_that_of_scipy_and_its_minimum_is_the_same(loss: str) -> None:
    current, sigma = contaminated(1, 0.1, seed=0)
    fit = fit_batch(PF, VOLTAGE[None], current, sigma, loss=loss, f_scale=1.7)

    def residual(u: np.ndarray) -> np.ndarray:
        return (poole_frenkel(VOLTAGE, np.exp(u[0]), u[1]) - current[0]) / sigma[0]

    found = scipy_least_squares(residual, fit.internal[0] * 1.001, loss=loss, f_scale=1.7, xtol=1e-14, ftol=1e-14)
    assert fit.cost[0] == pytest.approx(2 * found.cost, rel=1e-9)
    np.testing.assert_allclose(fit.internal[0], found.x, rtol=1e-6)


@pytest.mark.parametrize("loss", robust.LOSSES)
def test_influence_and_curvature_are_derivatives_of_the_cost(loss: str) -> None:
    r = np.array([-7.0, -1.2, -0.3, 1e-3, 0.4, 0.9, 1.6, 30.0])
    h = 1e-6
    cost = [robust.cost_influence_curvature(r + k * h, loss, 1.3)[0] for k in (-1, 1)]
    _, psi, slope = robust.cost_influence_curvature(r, loss, 1.3)
    ends = [robust.cost_influence_curvature(r + k * h, loss, 1.3)[1] for k in (-1, 1)]
    np.testing.assert_allclose(psi, (cost[1] - cost[0]) / (4 * h), rtol=1e-6, atol=1e-8)
    np.testing.assert_allclose(slope, (ends[1] - ends[0]) / (2 * h), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("loss", SOFT)
def test_stray_points_hardly_matter(loss: str) -> None:
    """The median error is below half that of least squares, whose error the stray points set."""
    current, sigma = contaminated(300, 0.1, seed=1)
    voltage = np.tile(VOLTAGE, (300, 1))
    plain = fit_batch(PF, voltage, current, sigma)
    soft = fit_batch(PF, voltage, current, sigma, loss=loss)
    errors = [np.median(np.abs(fit.values[:, 1] - 2.0)) for fit in (plain, soft)]
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(("loss", "share"), [*((loss, 0.0) for loss in SOFT), ("huber", 0.05), ("cauchy", 0.05)])
def test_standard_errors_cover(loss: str, share: float) -> None:
    """Pulls have a standard deviation of one, within 6 % (4 sigma of 2000 curves and the t distribution's excess)."""
    current, sigma = contaminated(2000, share, seed=2)
    fit = fit_batch(PF, np.tile(VOLTAGE, (2000, 1)), current, sigma, loss=loss, f_scale=1.5)
    assert fit.ok.all()
    spread = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
    pulls = (fit.internal - [np.log(1e-6), 2.0]) / spread
    np.testing.assert_allclose(pulls.std(0), np.sqrt(38 / 36), rtol=0.06)


@pytest.mark.parametrize("loss", robust.LOSSES)
def test_standard_errors_cover_where_the_sigmas_are_known(loss: str) -> None:
    """Then pulls are normal; 2000 curves give their standard deviation to 1.6 %, hence 6 %."""
    current, sigma = contaminated(2000, 0.0, seed=3)
    how = {"loss": loss, "f_scale": 1.5, "absolute_sigma": True}
    fit = fit_batch(PF, np.tile(VOLTAGE, (2000, 1)), current, sigma, **how)
    spread = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(((fit.internal - [np.log(1e-6), 2.0]) / spread).std(0), 1.0, rtol=0.06)
    assert len(np.unique(fit.variance)) == 1


def test_known_sigmas_set_the_errors_and_unknown_ones_do_not() -> None:
    current, sigma = contaminated(5, 0.0, seed=4)
    voltage = np.tile(VOLTAGE, (5, 1))
    relative = [fit_batch(PF, voltage, current, k * sigma).stderr for k in (1, 10)]
    known = [fit_batch(PF, voltage, current, k * sigma, absolute_sigma=True).stderr for k in (1, 10)]
    np.testing.assert_allclose(relative[1], relative[0], rtol=1e-6)
    np.testing.assert_allclose(known[1], 10 * known[0], rtol=1e-6)


def test_the_linear_loss_has_the_usual_variance() -> None:
    residual = np.random.default_rng(5).standard_normal((3, 20))
    used = np.ones((3, 20), dtype=bool)
    v = robust.variance_factor(residual, used, np.full(3, 18), "linear", 1.0)
    np.testing.assert_allclose(v, np.square(residual).sum(1) / 18)
    assert robust.normal_variance_factor("linear", 1.0) == pytest.approx(1.0)
    assert np.isnan(robust.variance_factor(residual, used, np.zeros(3, dtype=int), "huber", 1.0)).all()
