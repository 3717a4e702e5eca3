"""The batched fit against lmfit, its statuses, and the honesty of its standard errors."""

import tracemalloc
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.errors import FitError, OptionError
from calib.fitting import least_squares, variable_projection
from calib.fitting.least_squares import BatchFit, fit_batch, fit_blocks, fit_single
from calib.iv_models import IVModel, Parameter, iv_model
from tests.fitting.curve_sets import curves
from tests.synthetic import poole_frenkel

PF = iv_model("poole-frenkel")
OHMIC = iv_model("ohmic")
VOLTAGE = np.linspace(0.02, 0.5, 25)


class Cubic(IVModel):
    """I = g V (1 + a V^2): a law that is no factor times an exponential, with a linear shape parameter."""

    name = "cubic"
    title = "cubic"
    parameters = (Parameter("g", "S", "slope at zero", lower=0.0, transform="log"), Parameter("a", "V^-2", "curvature"))
    scale = "g"
    odd = True
    expression = "g*V*(1 + a*V**2)"
    latex = "-"
    source = "-"

    def current(self, voltage: Any, *, xp: ModuleType, **parameters: Any) -> Any:
        return parameters["g"] * voltage * (1 + parameters["a"] * voltage**2)

    def jacobian(self, voltage: Any, *, xp: ModuleType, **parameters: Any) -> dict[str, Any]:
        return {"g": voltage * (1 + parameters["a"] * voltage**2), "a": parameters["g"] * voltage**3}

    def coordinate(self, voltage: Any, *, xp: ModuleType) -> Any:
        return voltage

    def coordinate_inverse(self, coordinate: Any, *, xp: ModuleType) -> Any:
        return coordinate

    def guess(self, voltage: Any, current: Any) -> dict[str, Any]:
        g = np.nanmedian(current / voltage, axis=-1)
        return {"g": g, "a": np.zeros_like(g)}


def noisy(c: float, gamma: float, noise: float, seed: int, offset: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Return a curve (point,) and its true standard deviations."""
    clean = poole_frenkel(VOLTAGE, c, gamma)
    sigma = noise * clean
    return clean + offset + sigma * np.random.default_rng(seed).standard_normal(len(VOLTAGE)), sigma


def parameters_and_errors(fit: BatchFit, row: int, offset: bool) -> tuple[np.ndarray, np.ndarray]:
    if not offset:
        return fit.values[row], fit.stderr[row]
    return np.append(fit.values[row], fit.offset[row]), np.append(fit.stderr[row], fit.offset_stderr[row])


@settings(derandomize=True, max_examples=12, deadline=None, database=None)
@given(
    ln_c=st.floats(-20, -5), gamma=st.floats(-1, 5), noise=st.floats(1e-3, 0.1), seed=st.integers(0, 99),
    offset=st.booleans(),
)  # fmt: skip
def test_agrees_with_lmfit(ln_c: float, gamma: float, noise: float, seed: int, offset: bool) -> None:
    """Same minimum (1e-6 of a standard error's size) and same errors; lmfit differentiates numerically, hence 1e-4."""
    current, sigma = noisy(np.exp(ln_c), gamma, noise, seed)
    current = current + (0.03 * current[-1] if offset else 0.0)
    fit = fit_batch(PF, VOLTAGE[None], current[None], sigma[None], fit_offset=offset)
    assert fit.status[0] == "ok"
    reference = fit_single(PF, VOLTAGE, current, sigma, fit_offset=offset)
    names = [*PF.parameter_names, *(["offset"] if offset else [])]
    values, errors = parameters_and_errors(fit, 0, offset)
    expected = np.array([reference.params[name].value for name in names])
    stderr = np.array([reference.params[name].stderr for name in names])
    assert (np.abs(values - expected) <= 1e-6 * np.abs(expected) + 1e-6 * stderr).all()
    np.testing.assert_allclose(errors, stderr, rtol=1e-4)
    assert fit.cost[0] == pytest.approx(reference.chisqr, rel=1e-9)
    assert fit.n_free[0] == reference.nfree


@pytest.mark.parametrize(
    ("law", "truth"), [(OHMIC, {"g": 3e-5}), (Cubic(), {"g": 2e-4, "a": 1.5})], ids=["ohmic", "cubic"]
)
def test_agrees_with_lmfit_for_other_laws(law: IVModel, truth: dict[str, float]) -> None:
    clean = law.current(VOLTAGE, xp=np, **truth)
    current = clean * (1 + 0.02 * np.random.default_rng(1).standard_normal(len(VOLTAGE)))
    fit = fit_batch(law, VOLTAGE[None], current[None], 0.02 * clean[None])
    reference = fit_single(law, VOLTAGE, current, 0.02 * clean)
    np.testing.assert_allclose(fit.values[0], [reference.params[n].value for n in law.parameter_names], rtol=1e-6)
    np.testing.assert_allclose(fit.stderr[0], [reference.params[n].stderr for n in law.parameter_names], rtol=1e-4)


def test_correlation_agrees_with_lmfit() -> None:
    current, sigma = noisy(1e-6, 2.0, 0.02, 3)
    fit = fit_batch(PF, VOLTAGE[None], current[None], sigma[None])
    reference = fit_single(PF, VOLTAGE, current, sigma)
    spread = np.sqrt(np.diag(fit.covariance[0]))
    correlation = fit.covariance[0, 0, 1] / (spread[0] * spread[1])
    assert correlation == pytest.approx(reference.params["c"].correl["gamma"], rel=1e-4)
    np.testing.assert_allclose(fit.covariance[0], fit.unscaled[0] * fit.cost[0] / fit.n_free[0], rtol=1e-12)


def test_the_size_of_the_current_does_not_matter() -> None:
    """Femtoampere and milliampere curves of the same shape have the same relative errors."""
    small, sigma_small = noisy(1e-15, 2.0, 0.02, 5)
    large, sigma_large = noisy(1e-2, 2.0, 0.02, 5)
    fit = fit_batch(PF, np.stack([VOLTAGE] * 2), np.stack([small, large]), np.stack([sigma_small, sigma_large]))
    assert fit.ok.all()
    np.testing.assert_allclose(fit.values[0, 1], fit.values[1, 1], rtol=1e-9)
    np.testing.assert_allclose(fit.stderr[0] / fit.values[0], fit.stderr[1] / fit.values[1], rtol=1e-8)


def test_exact_data_give_exact_parameters() -> None:
    c, gamma = np.logspace(-9, -3, 7), np.linspace(-2, 6, 7)
    voltage = np.tile(VOLTAGE, (7, 1))
    current = poole_frenkel(voltage, c[:, None], gamma[:, None])
    fit = fit_batch(PF, voltage, current, 0.01 * current)
    assert fit.ok.all()
    np.testing.assert_allclose(fit.values, np.stack([c, gamma], axis=1), rtol=1e-9)
    assert (fit.rms < 1e-7).all()


def test_negative_branches_fit_as_well() -> None:
    current, sigma = noisy(1e-6, 2.0, 0.02, 3)
    fit = fit_batch(PF, np.stack([VOLTAGE, -VOLTAGE]), np.stack([current, -current]), np.stack([sigma] * 2))
    np.testing.assert_allclose(fit.values[0], fit.values[1], rtol=1e-12)


@pytest.mark.parametrize("broken", ["voltage", "current", "sigma", "sigma zero", "sigma infinite"])
def test_points_that_are_not_there_are_not_used(broken: str) -> None:
    current, sigma = noisy(1e-6, 2.0, 0.02, 3)
    gaps = [0, 7, 24]
    whole = {"voltage": VOLTAGE[None].copy(), "current": current[None].copy(), "sigma": sigma[None].copy()}
    name, _, value = broken.partition(" ")
    whole[name][0, gaps] = {"": np.nan, "zero": 0.0, "infinite": np.inf}[value]
    fit = fit_batch(PF, **whole)
    kept = np.delete(np.arange(25), gaps)
    expected = fit_batch(PF, VOLTAGE[None, kept], current[None, kept], sigma[None, kept])
    assert fit.n_points[0] == 22
    np.testing.assert_allclose(fit.values, expected.values, rtol=1e-10)
    np.testing.assert_allclose(fit.covariance, expected.covariance, rtol=1e-8)


@pytest.mark.parametrize(("points", "offset", "needed"), [(0, False, 3), (2, False, 3), (3, True, 4)])
def test_too_few_points_is_a_status(points: int, offset: bool, needed: int) -> None:
    current, sigma = noisy(1e-6, 2.0, 0.02, 3)
    cut = np.where(np.arange(25) < points, current, np.nan)
    fit = fit_batch(PF, np.stack([VOLTAGE] * 2), np.stack([cut, current]), np.stack([sigma] * 2), fit_offset=offset)
    assert fit.status[0] == f"{points} usable points, at least {needed} are needed for {needed - 1} parameters"
    assert np.isnan(fit.values[0]).all()
    assert np.isnan(fit.stderr[0]).all()
    assert fit.status[1] == "ok"
    with pytest.raises(FitError, match=rf"{points} usable points, at least {needed} are needed .* of poole-frenkel"):
        fit_single(PF, VOLTAGE, cut, sigma, fit_offset=offset)


def test_as_few_points_as_possible() -> None:
    current, sigma = noisy(1e-6, 2.0, 0.02, 3)
    fit = fit_batch(PF, VOLTAGE[None, :3], current[None, :3], sigma[None, :3])
    assert fit.status[0] == "ok"
    assert fit.n_free[0] == 1
    assert np.isfinite(fit.stderr).all()


def test_what_the_points_do_not_determine_is_a_status() -> None:
    voltage = np.stack([np.full(25, 0.1), VOLTAGE])
    current = poole_frenkel(voltage, 1e-6, 2.0)
    current[0] *= 1 + 0.02 * np.random.default_rng(0).standard_normal(25)
    fit = fit_batch(PF, voltage, current, 0.01 * np.abs(current))
    assert fit.status[0].startswith("the points do not determine the parameters")
    assert np.isnan(fit.values[0]).all()
    assert np.isnan(fit.covariance[0]).all()
    assert fit.status[1] == "ok"


@pytest.mark.parametrize(
    "current",
    [np.zeros(25), -VOLTAGE * 1e-6, np.where(VOLTAGE > 0.3, 9.9e37, 1e-6), np.where(VOLTAGE[3] == VOLTAGE, 1e-6, 0.0)],
    ids=["zero", "wrong sign", "overflow of the instrument", "one spike"],
)
def test_a_curve_that_is_no_such_device_raises_nothing(current: np.ndarray) -> None:
    """Whatever the status, the neighbour is untouched and there is no estimate without the status ok."""
    good, sigma = noisy(1e-6, 2.0, 0.02, 3)
    fit = fit_batch(PF, np.stack([VOLTAGE] * 2), np.stack([current, good]), np.stack([np.full(25, 1e-9), sigma]))
    alone = fit_batch(PF, VOLTAGE[None], good[None], sigma[None])
    assert fit.status[1] == "ok"
    np.testing.assert_allclose(fit.values[1], alone.values[0], rtol=1e-10)
    vague = fit.stderr[0, 0] > 0.5 * fit.values[0, 0]  # a minimum far from the points says so itself
    assert fit.status[0] != "ok" or vague
    assert fit.status[0] == "ok" or np.isnan(fit.values[0]).all()


def test_a_fit_that_does_not_end_is_a_status(monkeypatch: pytest.MonkeyPatch) -> None:
    current, sigma = noisy(1e-6, 2.0, 0.1, 3)
    for limit in ("MAXIMUM_ITERATIONS", "_QUICK_ITERATIONS", "_OTHER_ITERATIONS"):
        monkeypatch.setattr(least_squares, limit, 1)
    monkeypatch.setattr(variable_projection, "PASSES", 0)
    fit = fit_batch(PF, VOLTAGE[None], current[None], sigma[None])
    assert fit.status[0] == "the fit did not converge in 1 iterations"
    assert np.isnan(fit.values).all()


def test_shapes_must_agree() -> None:
    with pytest.raises(FitError, match=r"voltage has shape \(1, 25\), current \(1, 24\) and sigma \(1, 25\)"):
        fit_batch(PF, VOLTAGE[None], VOLTAGE[None, :24], VOLTAGE[None])


def test_no_curves() -> None:
    empty = np.empty((0, 25))
    fit = fit_batch(PF, empty, empty, empty)
    assert fit.values.shape == (0, 2)
    assert fit.status.shape == (0,)


@pytest.mark.parametrize("offset", [False, True])
def test_curves_do_not_influence_each_other(monkeypatch: pytest.MonkeyPatch, offset: bool) -> None:
    """Another order, other neighbours and other blocks give the same estimates to rounding."""
    generator = np.random.default_rng(4)
    c, gamma = np.exp(generator.uniform(-18, -6, 60)), generator.uniform(-1, 5, 60)
    voltage = np.tile(VOLTAGE, (60, 1))
    clean = poole_frenkel(voltage, c[:, None], gamma[:, None])
    current = clean * (1 + 0.05 * generator.standard_normal(clean.shape))
    current[::7] = np.nan
    whole = fit_batch(PF, voltage, current, 0.05 * clean, fit_offset=offset)
    order = generator.permutation(60)
    monkeypatch.setattr(least_squares, "BLOCK", 7)
    shuffled = fit_batch(PF, voltage[order], current[order], 0.05 * clean[order], fit_offset=offset)
    assert list(shuffled.status) == list(whole.status[order])
    np.testing.assert_allclose(shuffled.values, whole.values[order], rtol=1e-10)
    np.testing.assert_allclose(shuffled.covariance, whole.covariance[order], rtol=1e-8)
    np.testing.assert_allclose(shuffled.offset, whole.offset[order], rtol=1e-8, atol=1e-9 * np.nanmax(clean))


@pytest.mark.parametrize("offset", [False, True])
def test_standard_errors_cover(offset: bool) -> None:
    """(estimate - truth) / stderr follows Student's t with n - p degrees of freedom.

    Its standard deviation is sqrt(nu / (nu - 2)); 3000 curves give it to 1.3 %, hence 5 % (4 sigma). The
    curvature of the law at 1 % noise is far below that.
    """
    n = 3000
    voltage = np.tile(VOLTAGE, (n, 1))
    clean = poole_frenkel(voltage, 1e-6, 2.0)
    shift = 5e-9 if offset else 0.0
    noise = 0.01 * clean * np.random.default_rng(11).standard_normal(clean.shape)
    fit = fit_batch(PF, voltage, clean + shift + noise, 0.01 * clean, fit_offset=offset)
    assert fit.ok.all()
    freedom = 25 - 2 - offset
    expected = np.sqrt(freedom / (freedom - 2))
    spread = np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
    pulls = (fit.internal - [np.log(1e-6), 2.0]) / spread
    if offset:
        pulls = np.concatenate([pulls, ((fit.offset - shift) / fit.offset_stderr)[:, None]], axis=1)
    np.testing.assert_allclose(pulls.std(0), expected, rtol=0.05)
    assert np.abs(pulls.mean(0)).max() < 4 / np.sqrt(n)
    correlation = np.corrcoef(fit.internal.T)[0, 1]
    stated = (fit.covariance[:, 0, 1] / spread[:, 0] / spread[:, 1]).mean()
    assert correlation == pytest.approx(stated, abs=0.01)


def test_the_offset_is_recovered() -> None:
    """An offset as large as the current at 0.1 V, of either sign, within 4 standard errors."""
    clean = poole_frenkel(VOLTAGE, 1e-7, 2.0)
    offset = np.array([clean[4], -clean[4], 0.0])
    generator = np.random.default_rng(2)
    current = clean * (1 + 0.01 * generator.standard_normal((3, 25))) + offset[:, None]
    fit = fit_batch(PF, np.stack([VOLTAGE] * 3), current, np.tile(0.01 * clean, (3, 1)), fit_offset=True)
    assert (np.abs(fit.offset - offset) < 4 * fit.offset_stderr).all()
    assert (fit.offset_stderr < 0.02 * clean[4]).all()
    assert (np.abs(fit.values[:, 1] - 2.0) < 4 * fit.stderr[:, 1]).all()


def test_without_an_offset_none_is_stated() -> None:
    current, sigma = noisy(1e-6, 2.0, 0.02, 3)
    fit = fit_batch(PF, VOLTAGE[None], current[None], sigma[None])
    assert fit.offset[0] == 0.0
    assert np.isnan(fit.offset_stderr[0])


def test_rms_and_cost_are_those_of_the_residuals() -> None:
    current, sigma = noisy(1e-6, 2.0, 0.02, 3)
    fit = fit_batch(PF, VOLTAGE[None], current[None], sigma[None])
    residual = (poole_frenkel(VOLTAGE, *fit.values[0]) - current) / sigma
    assert fit.cost[0] == pytest.approx(np.square(residual).sum(), rel=1e-10)
    assert fit.rms[0] == pytest.approx(np.sqrt(np.square(residual).mean()), rel=1e-10)


@pytest.mark.parametrize("name", ["poole-frenkel", "hyperbolic-sine"])
@pytest.mark.parametrize("scale", [1e-15, 1.0])
def test_curves_that_determine_nothing_have_a_sentence(name: str, scale: float) -> None:
    """Femtoampere or ampere: zeros, one point, a constant, noise of both signs; the good neighbour is fitted."""
    law = iv_model(name)
    good = scale * np.sinh(3 * VOLTAGE)
    one = np.where(np.arange(25) == 7, good, np.nan)
    noise = scale * np.random.default_rng(1).standard_normal(25)
    rows = [good, np.zeros(25), one, np.full(25, scale), noise, -good, np.full(25, np.nan), np.full(25, np.inf)]
    current = np.stack(rows)
    sigma = np.broadcast_to(0.01 * np.abs(good), current.shape)
    fit = fit_batch(law, np.tile(VOLTAGE, (len(rows), 1)), current, sigma)
    assert fit.status[0] == "ok"
    assert fit.status[1] == "every current is zero"
    assert fit.status[2].startswith("1 usable points, at least 3")
    assert all(fit.status[k].startswith("0 usable points") for k in (6, 7))
    assert all(isinstance(s, str) and s for s in fit.status)
    assert np.isnan(fit.values[~fit.ok]).all()
    assert np.isfinite(fit.values[fit.ok]).all()
    alone = fit_batch(law, VOLTAGE[None], good[None], sigma[:1])
    np.testing.assert_allclose(fit.values[0], alone.values[0], rtol=1e-9)


def test_infinite_sigmas_leave_no_points() -> None:
    current, _ = noisy(1e-6, 2.0, 0.02, 3)
    fit = fit_batch(PF, VOLTAGE[None], current[None], np.full((1, 25), np.inf))
    assert fit.status[0].startswith("0 usable points")


def test_threads_do_not_change_a_digit(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(4)
    voltage = np.tile(VOLTAGE, (400, 1))
    clean = poole_frenkel(voltage, np.exp(generator.uniform(-18, -6, (400, 1))), generator.uniform(-1, 5, (400, 1)))
    current = clean * (1 + 0.05 * generator.standard_normal(clean.shape))
    current[::9] = generator.standard_normal((45, 25))
    monkeypatch.setattr(least_squares, "BLOCK", 2000)
    for law in (PF, iv_model("hyperbolic-sine")):
        one = fit_batch(law, voltage, current, 0.05 * clean, threads=1)
        three = fit_batch(law, voltage, current, 0.05 * clean, threads=3)
        monkeypatch.setenv("CALIB_THREADS", "2")
        two = fit_batch(law, voltage, current, 0.05 * clean)
        for name in ("values", "covariance", "cost", "status", "flags"):
            np.testing.assert_array_equal(getattr(three, name), getattr(one, name))
            np.testing.assert_array_equal(getattr(two, name), getattr(one, name))


def test_a_number_of_threads_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIB_THREADS", "many")
    with pytest.raises(OptionError, match="CALIB_THREADS is 'many'; give a whole number of at least 1"):
        fit_batch(PF, VOLTAGE[None], VOLTAGE[None], VOLTAGE[None])


def stream(blocks: int, made: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yield blocks of 500 curves, noting how many were asked for."""
    for number in range(blocks):
        made.append(number)
        clean = np.tile(poole_frenkel(VOLTAGE, 1e-6, 2.0), (500, 1))
        noise = np.random.default_rng(number).standard_normal(clean.shape)
        yield np.tile(VOLTAGE, (500, 1)), clean * (1 + 0.02 * noise), 0.02 * clean


def test_curves_stream_in_bounded_memory() -> None:
    """The peak does not depend on how many blocks there are, and blocks are asked for one at a time."""

    def peak(blocks: int) -> int:
        made: list[int] = []
        tracemalloc.start()
        total = 0.0
        for count, fit in enumerate(fit_blocks(PF, stream(blocks, made), threads=1), start=1):
            assert len(made) == count
            total += fit.values[:, 1].mean()
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert total / blocks == pytest.approx(2.0, abs=0.02)
        return highest

    peak(2)  # buffers
    assert peak(60) < 1.1 * peak(4)


def test_streamed_blocks_are_those_of_the_whole() -> None:
    parts = list(stream(3, []))
    whole = fit_batch(PF, *(np.concatenate(arrays) for arrays in zip(*parts, strict=True)), threads=1)
    found = np.concatenate([fit.values for fit in fit_blocks(PF, parts)])
    np.testing.assert_allclose(found, whole.values, rtol=1e-10)


@pytest.mark.parametrize("name", ["hyperbolic-sine", "power-law"])
def test_standard_errors_of_other_laws_cover(name: str) -> None:
    """As for Poole-Frenkel: 2000 curves give the pulls' standard deviation to 1.6 %, hence 6.5 % (4 sigma)."""
    law = iv_model(name)
    truth, voltage, _, sigma = curves(law, 1, 30, 0.01, seed=6)
    clean = law.current(voltage, xp=np, **truth)
    noise = np.random.default_rng(7).standard_normal((2000, 30))
    fit = fit_batch(law, np.tile(voltage, (2000, 1)), clean + sigma * noise, np.tile(sigma, (2000, 1)))
    assert fit.ok.all()
    exact = [float(truth[p.name][0, 0]) for p in law.parameters]
    exact = [np.log(x) if p.transform == "log" else x for x, p in zip(exact, law.parameters, strict=True)]
    pulls = (fit.internal - exact) / np.sqrt(np.diagonal(fit.covariance, axis1=1, axis2=2))
    np.testing.assert_allclose(pulls.std(0), np.sqrt(28 / 26), rtol=0.065)
    assert np.abs(pulls.mean(0)).max() < 0.1


def test_projection_and_levenberg_marquardt_find_the_same_minimum() -> None:
    """Curves of unequal grids, some points missing, from 3 points up: same estimates, same standard errors."""
    rng = np.random.default_rng(5)
    n = 300
    voltage = np.sort(rng.uniform(0.01, 0.8, (n, 25)), axis=1)
    c, gamma = np.exp(rng.normal(-14, 2, n)), rng.normal(1.5, 1.5, n)
    current = PF.current(voltage, xp=np, c=c[:, None], gamma=gamma[:, None])
    sigma = rng.uniform(0.01, 0.2, (n, 1)) * current
    current = current + sigma * rng.standard_normal(current.shape)
    voltage[rng.random(voltage.shape) < 0.4] = np.nan
    projected = fit_batch(PF, voltage, current, sigma)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variable_projection, "reference", lambda law: None)
        iterated = fit_batch(PF, voltage, current, sigma)
    both = projected.ok & iterated.ok
    assert both.sum() > 0.95 * n
    assert (projected.ok == iterated.ok).mean() > 0.99
    scale = np.where(both[:, None], iterated.stderr, 1.0)
    # both stop when a step no longer matters: far below the standard error
    assert np.nanmax(np.abs(projected.values - iterated.values)[both] / scale[both]) < 1e-5
    np.testing.assert_allclose(projected.stderr[both], iterated.stderr[both], rtol=1e-5)
    np.testing.assert_allclose(projected.cost[both], iterated.cost[both], rtol=1e-9)
    np.testing.assert_allclose(projected.condition[both], iterated.condition[both], rtol=1e-4)
