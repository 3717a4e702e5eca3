"""Fits that start on nodes: they end where fits of all points do, for every law and every kind of sweep."""

from typing import Any

import numpy as np
import pytest

from calib.fitting import least_squares, reduced_curves
from calib.fitting.curve_data import CurveData, prepare
from calib.fitting.curve_problem import CurveProblem, LawColumns
from calib.fitting.least_squares import BatchFit, fit_batch
from calib.fitting.normal_equations import Summed, evaluate_all
from calib.fitting.reduced_curves import ReducedCurves
from calib.fitting.sweep_candidates import sweep_candidates
from calib.iv_models import iv_model, names
from tests.fitting.curve_sets import curves

N = 600
LAWS = [name for name in names() if iv_model(name).start is not None and name not in ("fowler-nordheim",)]
LAWS = [name for name in LAWS if name not in ("poole-frenkel", "power-law", "ohmic")]  # those go by projection


def on_points(monkeypatch: pytest.MonkeyPatch, law: Any, *data: np.ndarray) -> BatchFit:
    """Fit as if the curves were few."""
    with monkeypatch.context() as patch:
        patch.setattr(reduced_curves, "LEAST_CURVES", 10**9)
        return fit_batch(law, *data, threads=1)


def on_nodes(data: CurveData, name: str) -> tuple[ReducedCurves, np.ndarray]:
    """Return the curves on the nodes, and the candidates."""
    law = iv_model(name)
    sweep = sweep_candidates(law, np.ascontiguousarray(data.voltage).tobytes())
    assert sweep is not None
    best = sweep.nearest(data)[0]
    return reduced_curves._reduced(law, sweep, data, best), sweep.starts[best]


def assert_same(fit: BatchFit, other: BatchFit, least: float = 0.97) -> None:
    """Compare fits: nearly all minima are the same, with estimates and errors; at most 1 in 100 is higher."""
    assert (fit.ok == other.ok).mean() > 0.98
    ok = fit.ok & other.ok
    same = ok & (np.abs(fit.cost - other.cost) <= 1e-6 * fit.cost)
    assert same.sum() > least * ok.sum()
    assert (ok & ~same & (fit.cost > other.cost + 0.1)).sum() <= 0.01 * ok.sum()
    np.testing.assert_array_equal(fit.at_bound[same], other.at_bound[same])
    np.testing.assert_array_equal(fit.flags[same], other.flags[same])
    spread = np.sqrt(np.einsum("cii->ci", other.covariance[same]))
    off = np.abs(fit.internal[same] - other.internal[same])
    assert (off <= 2e-4 * spread + 1e-6 * np.abs(other.internal[same])).all()
    usual = same & (fit.condition < 1e4)
    np.testing.assert_allclose(fit.stderr[usual], other.stderr[usual], rtol=2e-3)


@pytest.mark.parametrize("name", LAWS)
def test_fits_end_where_those_of_all_points_do(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    law = iv_model(name)
    _, voltage, current, sigma = curves(law, N, 60, 0.01, seed=4)
    fit = fit_batch(law, voltage, current, sigma, threads=1)
    assert_same(fit, on_points(monkeypatch, law, voltage, current, sigma))


@pytest.mark.parametrize("sweep", ["from zero", "there and back", "both signs", "a third of a volt"])
@pytest.mark.parametrize("name", ["schottky", "space-charge-limited"])
def test_any_sweep_will_do(name: str, sweep: str, monkeypatch: pytest.MonkeyPatch) -> None:
    up = np.linspace(0, 1, 61)
    row = {
        "from zero": up, "there and back": np.concatenate([up, up[::-1]]),
        "both signs": np.linspace(-1, 1, 90), "a third of a volt": up[1:] / 3,
    }[sweep]  # fmt: skip
    law, generator = iv_model(name), np.random.default_rng(5)
    truth = curves(law, N, 60, 0.01, seed=4)[0]
    clean = np.broadcast_to(law.current(row, xp=np, **truth), (N, len(row)))
    sigma = 0.01 * np.abs(clean) + 1e-5 * np.abs(clean).max(1, keepdims=True)
    data = (np.broadcast_to(row, clean.shape), clean + sigma * generator.standard_normal(clean.shape), sigma)
    fit = fit_batch(law, *data, threads=1)
    assert_same(fit, on_points(monkeypatch, law, *data), least=0.95)


@pytest.mark.parametrize("name", LAWS)
def test_sums_over_nodes_are_those_over_points(name: str) -> None:
    """Gradient and normal matrix at the truth, in units of the standard errors: to 1 % of a standard error."""
    law = iv_model(name)
    truth, voltage, current, sigma = curves(law, N, 100, 0.01, seed=6)
    data = prepare(voltage, current, sigma)
    problem, _ = on_nodes(data, name)
    u = np.stack([np.log(truth[p.name][:, 0]) if p.transform == "log" else truth[p.name][:, 0] for p in law.parameters])
    found = evaluate_all(problem, u.copy(), slice(0, N))
    expected = evaluate_all(CurveProblem(law, data, False, True), u.copy(), slice(0, N))
    size = np.sqrt(np.einsum("iin->in", expected.matrix))
    assert np.quantile(np.abs(found.gradient - expected.gradient) / size, 0.95) < 1e-2
    difference = np.abs(found.matrix - expected.matrix) / (size[:, None] * size[None])
    assert np.quantile(difference, 0.95) < 1e-4
    assert np.quantile(np.abs(found.cost - expected.cost), 0.95) < 1e-1


@pytest.mark.parametrize("name", LAWS)
def test_second_derivatives_are_those_of_the_points(name: str) -> None:
    """J^T J and the curvature add up to the slope of the gradient, by central differences over all points."""
    law = iv_model(name)
    _, voltage, current, sigma = curves(law, N, 100, 0.01, seed=6)
    data = prepare(voltage, current, sigma)
    problem, _ = on_nodes(data, name)
    start = reduced_curves.start(law, data, 0.1)
    assert start is not None
    u = start.u.T.copy()
    points = CurveProblem(law, data, False, False)
    matrix = evaluate_all(points, u.copy(), slice(0, N)).matrix
    found = problem.curvature(u, slice(0, N))
    size = np.sqrt(np.einsum("iin->in", matrix))
    for a, p in enumerate(law.parameters):
        if p.name == law.scale:
            assert not found[a].any()
            continue
        h = 1e-5
        moved = [u.copy(), u.copy()]
        moved[0][a] += h
        moved[1][a] -= h
        gradients = [evaluate_all(points, at, slice(0, N)).gradient for at in moved]
        slope = (gradients[0] - gradients[1]) / (2 * h) - matrix[a]
        for b, q in enumerate(law.parameters):
            if q.name != law.scale:
                off = np.abs(found[a, b] - slope[b]) / (size[a] * size[b])
                assert np.quantile(off, 0.9) < 1e-3


def test_the_lowest_of_two_minima_is_found() -> None:
    """Direct tunnelling has two in tau: no fit from the truth, or from either end of tau, ends lower by 0.1."""
    law = iv_model("direct-tunnelling")
    truth, voltage, current, sigma = curves(law, N, 60, 0.01, seed=7)
    fit = fit_batch(law, voltage, current, sigma, threads=1)
    own = {name: value[:, 0] for name, value in truth.items()}
    for start in (own, {**own, "tau": np.full(N, 0.02)}, {**own, "tau": np.full(N, 0.48)}):
        other = fit_batch(law, voltage, current, sigma, x0=start, threads=1)
        both = fit.ok & other.ok
        assert both.sum() > 0.99 * N
        assert (fit.cost[both] - other.cost[both] < 0.1).mean() > 0.995


def test_other_curves_and_laws_are_left_to_all_points() -> None:
    law = iv_model("schottky")
    _, voltage, current, sigma = curves(law, N, 60, 0.01, seed=8)
    gap = current.copy()
    gap[3, 5] = np.nan
    own = voltage * np.linspace(0.9, 1.0, N)[:, None]
    few = [array[: reduced_curves.LEAST_CURVES - 1] for array in (voltage, current, sigma)]
    for data in ((voltage, gap, sigma), (own, current, sigma), few, (0 * voltage, current, sigma)):
        assert reduced_curves.start(law, prepare(*data), 0.1) is None
    series = iv_model("schottky+series")
    assert not LawColumns(series).projects
    assert reduced_curves.start(series, prepare(voltage, current, sigma), 0.1) is None


def test_curves_that_are_no_such_device_do_not_spoil_the_others() -> None:
    """Noise, zeros and the wrong sign among good curves: the good ones are fitted as they are alone."""
    law = iv_model("quantum-point-contact")
    _, voltage, current, sigma = curves(law, N, 60, 0.01, seed=9)
    spoiled = current.copy()
    spoiled[::10] *= -1
    spoiled[1::10] = np.random.default_rng(1).standard_normal(spoiled[1::10].shape) * sigma[1::10]
    spoiled[2::10] = 0.0
    fit = fit_batch(law, voltage, spoiled, sigma, threads=1)
    alone = fit_batch(law, voltage, current, sigma, threads=1)
    good = np.arange(N) % 10 > 2
    assert (fit.status[good] == alone.status[good]).all()
    np.testing.assert_allclose(fit.values[good], alone.values[good], rtol=1e-9)
    assert (fit.status[2::10] == "every current is zero").all()
    assert np.isnan(fit.values[~fit.ok]).all()


def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    law = iv_model("diode")
    _, voltage, current, sigma = curves(law, 3 * N, 60, 0.01, seed=10)
    whole = fit_batch(law, voltage, current, sigma, threads=1)
    monkeypatch.setattr(least_squares, "BLOCK", N * 60)
    parts = fit_batch(law, voltage, current, sigma, threads=2)
    np.testing.assert_allclose(parts.values, whole.values, rtol=1e-9)
    np.testing.assert_allclose(parts.covariance, whole.covariance, rtol=1e-6)


def test_only_summed_problems_know_their_second_derivatives() -> None:
    assert issubclass(ReducedCurves, Summed)
    with pytest.raises(TypeError, match="abstract"):
        Summed()  # type: ignore[abstract]
