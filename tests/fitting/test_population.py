"""The population law: lines, spread without estimation error, transforms, clusters, and the anchored constraint."""

from collections.abc import Sequence
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from calib.fitting.curves import CurveFits, fit_curves, select
from calib.fitting.population import Line, fit_line, fit_lines
from calib.iv_models import IVModel, Parameter, iv_model
from tests.synthetic import V_REF, iv_dataset, poole_frenkel

PF = iv_model("poole-frenkel")
FIVE = np.array([0.1, 0.2, 0.3, 0.4, 0.5])
MANY = np.round(np.arange(0.02, 0.5001, 0.02), 6)


class Quadratic(IVModel):
    """I = g V exp(a |V| + b V^2): a law with two shape parameters, for the parts that one does not reach."""

    name = "quadratic"
    title = "quadratic exponent"
    parameters = (
        Parameter("g", "S", "slope at zero", lower=0.0, transform="log"),
        Parameter("a", "V^-1", "first"),
        Parameter("b", "V^-2", "second"),
    )
    scale = "g"
    odd = True
    expression = "g*V*exp(a*abs(V) + b*V**2)"
    latex = "-"
    source = "-"

    def current(self, voltage: Any, *, xp: ModuleType, **parameters: Any) -> Any:
        exponent = parameters["a"] * xp.abs(voltage) + parameters["b"] * voltage**2
        return parameters["g"] * voltage * xp.exp(exponent)

    def jacobian(self, voltage: Any, *, xp: ModuleType, **parameters: Any) -> dict[str, Any]:
        current = self.current(voltage, xp=xp, **parameters)
        return {"g": current / parameters["g"], "a": current * xp.abs(voltage), "b": current * voltage**2}

    def coordinate(self, voltage: Any, *, xp: ModuleType) -> Any:
        return voltage

    def coordinate_inverse(self, coordinate: Any, *, xp: ModuleType) -> Any:
        return coordinate

    def guess(self, voltage: Any, current: Any) -> dict[str, Any]:
        g = np.nanmedian(current / voltage, axis=-1)
        return {"g": g, "a": np.zeros_like(g), "b": np.zeros_like(g)}


def fitted(
    gamma: np.ndarray, ln_r: np.ndarray, *, voltage: np.ndarray = MANY, noise: float = 0.01,
    device: Sequence[str] | np.ndarray | None = None, seed: int = 0,
) -> CurveFits:  # fmt: skip
    """Return the fits of Poole-Frenkel curves with the given exponents and ln R."""
    generator = np.random.default_rng(seed)
    clean = poole_frenkel(voltage, np.exp(-ln_r - gamma * np.sqrt(V_REF))[:, None], gamma[:, None])
    current = clean * (1 + noise * generator.standard_normal(clean.shape))
    names = np.array([f"d{k}" for k in range(len(gamma))]) if device is None else np.asarray(device)
    node = iv_dataset(np.tile(voltage, (len(gamma), 1)), current, device=names, state="hrs")
    return fit_curves(PF, select(node, "hrs", "positive"), float(voltage.max()), V_REF)


def gammas(
    spread: float, seed: int, n: int = 60, intercept: float = -0.6, slope: float = 0.2
) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(1000 + seed)
    ln_r = 13.0 + 0.8 * generator.standard_normal(n)
    return intercept + slope * ln_r + spread * generator.standard_normal(n), ln_r


def lines(spread: float, seeds: int, **how: Any) -> list[Line]:
    identity = ("log", "identity")
    return [fit_line(PF, fitted(*gammas(spread, seed), seed=seed, **how), V_REF, identity) for seed in range(seeds)]


@pytest.mark.parametrize(("voltage", "noise"), [(FIVE, 0.03), (MANY, 0.01)], ids=["five points", "25 points"])
def test_the_true_line_and_covariance(voltage: np.ndarray, noise: float) -> None:
    """Over 30 data sets of 60 curves; the estimation error of gamma from five points is 1.3 times its spread.

    Variances are unbiased within 4 standard errors of their mean, and their stated errors are their spread within 40 %
    (30 data sets give it to 13 %; the stated one is the large-sample formula). Lines: pulls of unit width within 40 %.
    """
    truth = 0.07
    found = lines(truth, 30, voltage=voltage, noise=noise)
    variance = np.array([line.covariance[1, 1] for line in found])
    stated = np.array([line.covariance_stderr[1, 1] for line in found])
    assert abs(variance.mean() - truth**2) < 4 * variance.std() / np.sqrt(30)
    assert stated.mean() == pytest.approx(variance.std(), rel=0.4)
    for name, true in (("intercept", -0.6), ("slope", 0.2)):
        pulls = np.array([(getattr(line, name)[1] - true) / getattr(line, f"{name}_stderr")[1] for line in found])
        assert abs(pulls.mean()) < 4 / np.sqrt(30)
        assert pulls.std() == pytest.approx(1.0, abs=0.4)


def test_estimation_error_is_not_spread() -> None:
    """Equal devices: half the estimates are at zero, and all are far below the error of the single fits."""
    found = lines(0.0, 20, voltage=FIVE, noise=0.03)
    error = np.mean(fitted(*gammas(0.0, 0), voltage=FIVE, noise=0.03).fit.stderr[:, 1] ** 2)
    variance = np.array([line.covariance[1, 1] for line in found])
    assert variance.mean() < 0.15 * error
    assert variance.max() < 0.5 * error
    assert np.median(variance) < 0.1 * error


def test_exact_curves_of_equal_devices_have_no_spread() -> None:
    line = fit_line(PF, fitted(*gammas(0.0, 1), noise=0.0), V_REF)
    assert line.covariance[1, 1] < 1e-10
    if line.transforms[1] == "identity":
        np.testing.assert_allclose([line.intercept[1], line.slope[1]], [-0.6, 0.2], atol=1e-5)
    assert np.isfinite(line.covariance_stderr).all()


@pytest.mark.parametrize("shape", ["lognormal", "normal", "around zero"])
def test_the_transform_is_the_one_under_which_the_spread_is_normal(shape: str) -> None:
    generator = np.random.default_rng(6)
    ln_r = 13.0 + 0.5 * generator.standard_normal(200)
    deviate = generator.standard_normal(200)
    gamma = {"lognormal": 2.0 * np.exp(0.35 * deviate), "normal": 2.0 + 0.5 * deviate, "around zero": 0.1 * deviate}[
        shape
    ]
    line = fit_line(PF, fitted(gamma, ln_r), V_REF)
    assert line.transforms == ("log", "log" if shape == "lognormal" else "identity")
    truth = {"lognormal": 0.35, "normal": 0.5, "around zero": 0.1}[shape]
    assert np.sqrt(line.covariance[1, 1]) == pytest.approx(truth, rel=0.2)  # 200 devices: 5 %, four times that


def test_cycles_of_one_device_are_alike() -> None:
    """12 devices of 6 cycles: the lines are those of 12 devices, and so are their errors, not those of 72 curves.

    The reference is the regression of the 12 true values, slope by slope: the curves' noise of 1 % moves it little. If
    cycles counted as devices, the errors would be 0.4 of that.
    """
    found, truth = [], []
    for seed in range(30):
        generator = np.random.default_rng(seed)
        device = np.repeat(np.arange(12), 6)
        ln_r, gamma = 13.0 + 0.8 * generator.standard_normal(12), 2.0 + 0.3 * generator.standard_normal(12)
        fits = fitted(gamma[device], ln_r[device], device=[f"d{k}" for k in device], seed=seed)
        found.append(fit_line(PF, fits, V_REF, ("log", "identity")))
        x = ln_r - ln_r.mean()
        slope = (x @ gamma) / (x @ x)
        variance = np.square(gamma - gamma.mean() - slope * x).sum() / 10
        truth.append((slope, np.sqrt(variance / (x @ x)), np.sqrt(variance)))
    slope, stderr, spread = np.array(truth).T
    difference = np.array([line.slope[1] for line in found]) - slope
    assert np.median(np.abs(difference)) < 0.1 * np.median(stderr)
    np.testing.assert_allclose(np.median([line.slope_stderr[1] for line in found] / stderr), 1.0, atol=0.05)
    np.testing.assert_allclose(np.median([line.spread[1] for line in found] / spread), 1.0, atol=0.05)
    inside = [line.slope_bound[1, 0] < 0 < line.slope_bound[1, 1] for line in found]
    assert np.mean(inside) > 0.83  # 95 % less 3 standard errors of 4 %


@pytest.mark.parametrize("transform", ["log", "identity"])
def test_the_scale_keeps_the_resistance(transform: str) -> None:
    """ln c + gamma sqrt(V_ref) = -ln R: the covariance is of rank one, and along the line only ln R changes."""
    gamma, ln_r = gammas(0.2, 3, n=80)
    line = fit_line(PF, fitted(gamma, ln_r), V_REF, ("log", transform))
    centre = line.intercept[1] + line.slope[1] * ln_r.mean()
    at = np.exp(centre) if transform == "log" else centre
    per_t = np.sqrt(V_REF) * (at if transform == "log" else 1.0)  # d(gamma sqrt(V_ref)) / dt
    direction = np.array([-per_t, 1.0])
    expected = line.covariance[1, 1] * np.outer(direction, direction)
    np.testing.assert_allclose(line.covariance, expected, rtol=2e-2)
    assert np.linalg.matrix_rank(line.covariance, tol=1e-9 * line.covariance[1, 1], hermitian=True) == 1
    if transform == "identity":
        root = np.sqrt(V_REF)
        assert abs(line.intercept[0] + root * line.intercept[1]) < 0.1 * line.intercept_stderr[0]
        assert abs(line.slope[0] + root * line.slope[1] + 1) < 0.1 * line.slope_stderr[0]
        np.testing.assert_allclose(line.intercept_stderr[0], root * line.intercept_stderr[1], rtol=1e-6)


def test_the_rank_one_relation_of_the_published_device() -> None:
    """delta ln c = (gamma sqrt(0.1) / 2) delta ln(d eps): at gamma = 1.95, s2 [[0.095, 0.308], [0.308, 1]].

    ln(d eps) = const - 2 ln gamma. The figures have two to three digits; the median device is at 1.95 within 2 %.
    """
    generator = np.random.default_rng(12)
    ln_r = 13.5 + 0.5 * generator.standard_normal(300)
    s2 = 0.31
    gamma = 1.95 * np.exp(-0.5 * np.sqrt(s2) * generator.standard_normal(300))
    line = fit_line(PF, fitted(gamma, ln_r), V_REF, ("log", "log"))
    to_d_eps = np.diag([1.0, -2.0])
    covariance = to_d_eps @ line.covariance @ to_d_eps
    found = covariance[1, 1]
    assert found == pytest.approx(s2, abs=4 * np.sqrt(2 / 298) * s2)
    np.testing.assert_allclose(covariance / found, [[0.095, 0.308], [0.308, 1.0]], rtol=0.06)


def test_two_shape_parameters() -> None:
    """A correlated pair: covariance within 4 of its standard errors, lines too, and R fixed in every direction."""
    law, n = Quadratic(), 150
    generator = np.random.default_rng(21)
    truth = np.array([[0.09, -0.06], [-0.06, 0.16]])
    ln_r = 12.0 + 0.6 * generator.standard_normal(n)
    shape = np.array([1.5, -0.5]) + generator.multivariate_normal([0, 0], truth, n)
    a, b = shape.T
    g = np.exp(-ln_r - a * V_REF - b * V_REF**2)
    voltage = np.tile(np.round(np.arange(0.04, 1.0001, 0.04), 6), (n, 1))
    clean = law.current(voltage, xp=np, g=g[:, None], a=a[:, None], b=b[:, None])
    current = clean * (1 + 0.02 * generator.standard_normal(clean.shape))
    node = iv_dataset(voltage, current, device=np.array([f"d{k}" for k in range(n)]), state="hrs")
    fits = fit_curves(law, select(node, "hrs", "positive"), 1.0, V_REF)
    line = fit_line(law, fits, V_REF, ("log", "identity", "identity"))
    assert (np.abs(line.covariance[1:, 1:] - truth) < 4 * line.covariance_stderr[1:, 1:]).all()
    assert (np.abs(line.slope[1:]) < 4 * line.slope_stderr[1:]).all()
    constraint = np.array([1.0, V_REF, V_REF**2])
    np.testing.assert_allclose(line.covariance @ constraint, 0.0, atol=1e-9)
    assert (np.linalg.eigvalsh(line.covariance) > -1e-12).all()


def test_failed_curves_are_left_out() -> None:
    gamma, ln_r = gammas(0.2, 2)
    whole = fit_line(PF, fitted(gamma, ln_r), V_REF, ("log", "identity"))
    voltage = np.tile(MANY, (62, 1))
    fits = fitted(gamma, ln_r)
    current = np.concatenate([fits.curves.current, np.full((2, 25), np.nan)])
    node = iv_dataset(voltage, current, device=np.array([f"d{k}" for k in range(62)]), state="hrs")
    more = fit_curves(PF, select(node, "hrs", "positive"), 0.5, V_REF)
    assert more.ok.sum() == 60
    again = fit_line(PF, more, V_REF, ("log", "identity"))
    np.testing.assert_allclose(again.intercept, whole.intercept, rtol=1e-9)
    np.testing.assert_allclose(again.covariance, whole.covariance, rtol=1e-6)


def test_a_law_without_shape_is_a_line_by_itself() -> None:
    """Ohmic: ln g = -ln R, without spread."""
    ohmic = iv_model("ohmic")
    _, ln_r = gammas(0.0, 0)
    current = MANY * np.exp(-ln_r)[:, None]
    node = iv_dataset(np.tile(MANY, (60, 1)), current, device=np.array([f"d{k}" for k in range(60)]), state="hrs")
    line = fit_line(ohmic, fit_curves(ohmic, select(node, "hrs", "positive"), 0.5, V_REF), V_REF)
    np.testing.assert_array_equal([line.intercept[0], line.slope[0], line.covariance[0, 0]], [0.0, -1.0, 0.0])


@pytest.mark.parametrize("spread", [0.3, 0.05])
def test_intervals_of_eight_devices_cover(spread: float) -> None:
    """Of 100 populations of 8 devices 95 % hold the truth, within 3 binomial standard errors of 2.2 %."""
    inside = np.zeros(3)
    for seed in range(100):
        line = fit_line(PF, fitted(*gammas(spread, seed, n=8), seed=seed, noise=0.02), V_REF, ("log", "identity"))
        low, high = line.value_bound[1]
        truth = -0.6 + 0.2 * line.centre
        inside += [
            line.slope_bound[1, 0] < 0.2 < line.slope_bound[1, 1],
            low < truth < high,
            line.spread_bound[1, 0] < spread < line.spread_bound[1, 1],
        ]
    assert (inside / 100 > 0.95 - 0.066).all()


def test_the_joint_covariance_is_that_of_the_stated_errors() -> None:
    line = fit_line(PF, fitted(*gammas(0.2, 1)), V_REF, ("log", "identity"))
    pairs = np.stack([line.intercept_stderr, line.slope_stderr], axis=1).ravel()
    np.testing.assert_allclose(np.sqrt(np.diag(line.line_covariance)), pairs, rtol=1e-9)
    contrast = np.array([0.0, 0.0, 1.0, line.centre])
    variance = contrast @ line.line_covariance @ contrast
    assert np.sqrt(variance) == pytest.approx(line.value_stderr[1], rel=1e-6)
    assert line.value[1] == pytest.approx(line.intercept[1] + line.slope[1] * line.centre, rel=1e-9)


def test_cycles_that_follow_another_slope_do_not_bend_the_population() -> None:
    """Between devices gamma rises with ln R, from cycle to cycle it falls: the line is that of the population."""
    generator = np.random.default_rng(8)
    device = np.repeat(np.arange(40), 6)
    mean, cycle = 0.8 * generator.standard_normal(40)[device], 0.15 * generator.standard_normal(240)
    gamma = 2.0 + 0.4 * mean - 1.0 * cycle + 0.2 * generator.standard_normal(40)[device]
    line = fit_line(PF, fitted(gamma, 13 + mean + cycle, device=[f"d{k}" for k in device]), V_REF, ("log", "identity"))
    share = 0.64 / (0.64 + 0.0225)
    assert line.slope_bound[1, 0] < share * 0.4 - (1 - share) * 1.0 < line.slope_bound[1, 1]
    assert line.spread_bound[1, 0] < np.sqrt(0.04 + 1.4**2 * 0.64 * 0.0225 / (0.64 + 0.0225)) < line.spread_bound[1, 1]


def test_curves_at_a_bound_are_left_out_and_said() -> None:
    class Flagged:
        def __init__(self, fit: Any, flags: np.ndarray) -> None:
            self.fit, self.at_bound = fit, flags

        def __getattr__(self, name: str) -> Any:
            return getattr(self.fit, name)

    fits = fitted(*gammas(0.2, 4))
    flags = np.zeros((60, 2), dtype=bool)
    flags[:5, 1] = True
    warnings: list[str] = []
    fit: Any = Flagged(fits.fit, flags)
    flagged = replace(fits, fit=fit)
    line = fit_lines(PF, {"hrs": flagged}, V_REF, warnings)["hrs"]
    assert (line.n_curves, line.n_at_bound) == (55, 5)
    assert "5 of 60 fitted curves have a parameter at its bound" in warnings[0]
    flags[:] = True
    assert fit_lines(PF, {"hrs": flagged}, V_REF, [])["hrs"].n_curves == 60


def test_a_bounded_parameter_is_drawn_inside_its_bounds() -> None:
    """Exponents clearly positive, with a spread that would take draws below zero: logarithms, whatever is likelier."""

    parameters = (PF.parameters[0], replace(PF.parameters[1], lower=0.0))
    positive: Any = type("Positive", (type(PF),), {"parameters": parameters})()
    generator = np.random.default_rng(2)
    ln_r = 13 + 0.5 * generator.standard_normal(60)
    fits = fitted(generator.uniform(0.6, 3.0, 60), ln_r)
    assert fit_line(PF, fits, V_REF).transforms[1] == "identity"
    line = fit_lines(positive, {"hrs": fits}, V_REF, [])["hrs"]
    assert line.transforms[1] == "log"


def test_one_resistance_has_no_slope() -> None:
    gamma, _ = gammas(0.2, 5)
    line = fit_line(PF, fitted(gamma, np.full(60, 13.0), noise=0.0), V_REF, ("log", "identity"))
    assert np.isfinite(line.value_bound).all()
    assert np.isfinite(line.covariance).all()
