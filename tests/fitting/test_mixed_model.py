"""The model of devices that repeat: gradient, likelihood, components and intervals against other computations."""

import numpy as np
import pytest

from calib.fitting.mixed_model import fit_mixed
from calib.fitting.variance_components import variance_components


def population(
    counts: np.ndarray, generator: np.random.Generator, *, d: int = 1, between: float = 0.5, within: float = 0.3,
    error: float = 0.0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Return responses 2 + 0.5 x, regressors, known errors and devices; x varies mostly between devices."""
    device = np.repeat(np.arange(len(counts)), counts)
    n = len(device)
    x = generator.standard_normal(len(counts))[device] + 0.3 * generator.standard_normal(n)
    e = error * generator.uniform(0.5, 1.5, n)
    t = (
        2.0
        + 0.5 * x[:, None]
        + between * generator.standard_normal((len(counts), d))[device]
        + within * generator.standard_normal((n, d))
        + np.sqrt(e)[:, None] * generator.standard_normal((n, d))
    )
    return t, np.stack([np.ones(n), x - x.mean()], axis=1), e[:, None, None] * np.eye(d), device


def dense_likelihood(
    t: np.ndarray, z: np.ndarray, e: np.ndarray, device: np.ndarray, within: np.ndarray, between: np.ndarray
) -> float:
    """Return the restricted log likelihood with full matrices."""
    n, d = t.shape
    same = (device[:, None] == device).astype(float)
    v = np.kron(np.eye(n), within) + np.kron(same, between)
    for k in range(n):
        v[k * d : (k + 1) * d, k * d : (k + 1) * d] += e[k]
    x = np.concatenate([np.kron(np.eye(d), row) for row in z])
    inverse = np.linalg.inv(v)
    information = x.T @ inverse @ x
    residual = t.ravel() - x @ np.linalg.solve(information, x.T @ inverse @ t.ravel())
    terms = np.linalg.slogdet(v)[1] + np.linalg.slogdet(information)[1] + residual @ inverse @ residual
    return -0.5 * float(terms + n * d * np.log(2 * np.pi))


@pytest.mark.parametrize("d", [1, 2])
def test_it_is_the_maximum_of_the_restricted_likelihood(d: int) -> None:
    """The value is that of full matrices, and no neighbour has a larger one."""
    data = population(np.array([1, 3, 2, 5, 4, 2]), np.random.default_rng(3), d=d, error=0.02)
    found = fit_mixed(*data)
    best = dense_likelihood(*data, found.within, found.between)
    assert found.log_likelihood == pytest.approx(best, abs=1e-6)
    for part in (0, 1):
        for i, j in zip(*np.tril_indices(d), strict=True):
            for step in (1e-3, -1e-3):
                moved = [found.within.copy(), found.between.copy()]
                moved[part][i, j] += step
                moved[part][j, i] = moved[part][i, j]
                if np.linalg.eigvalsh(moved[part]).min() > 0:
                    assert dense_likelihood(*data, *moved) < best + 1e-9


def test_components_are_those_of_the_one_way_model() -> None:
    values, _, _, device = population(np.array([1, 2, 9, 4, 4, 1, 7, 3]), np.random.default_rng(5))
    found = fit_mixed(values, np.ones((len(values), 1)), np.zeros((len(values), 1, 1)), device)
    expected = variance_components(values[:, 0], device)
    assert np.sqrt(found.between[0, 0]) == pytest.approx(expected.d2d, rel=1e-4)
    assert np.sqrt(found.within[0, 0]) == pytest.approx(expected.c2c, rel=1e-4)


def test_the_information_is_that_of_full_matrices() -> None:
    values, _, _, device = population(np.array([1, 2, 9, 4, 4, 1, 7, 3]), np.random.default_rng(5))
    n = len(values)
    found = fit_mixed(values, np.ones((n, 1)), np.zeros((n, 1, 1)), device)
    same = (device[:, None] == device).astype(float)
    inverse = np.linalg.inv(found.within[0, 0] * np.eye(n) + found.between[0, 0] * same)
    p = inverse - np.outer(inverse.sum(1), inverse.sum(1)) / inverse.sum()
    information = [[0.5 * np.trace(p @ a @ p @ b) for a in (np.eye(n), same)] for b in (np.eye(n), same)]
    np.testing.assert_allclose(found.theta_covariance, np.linalg.inv(information), rtol=1e-3)


def test_independent_values_have_the_degrees_of_freedom_of_a_regression() -> None:
    t, z, e, device = population(np.ones(8, dtype=int), np.random.default_rng(1))
    found = fit_mixed(t, z, e, device)
    assert not found.separated
    residual = t[:, 0] - z @ np.linalg.lstsq(z, t[:, 0], rcond=None)[0]
    assert found.total[0, 0] == pytest.approx(residual @ residual / 6, rel=1e-5)
    for contrast in np.eye(2):
        assert found.degrees_of_freedom(contrast) == pytest.approx(6, rel=1e-2)
    sigma, _, low, high = found.spread(np.ones(1))
    np.testing.assert_allclose([low / sigma, high / sigma], [np.sqrt(6 / 14.4494), np.sqrt(6 / 1.23734)], rtol=1e-3)


@pytest.mark.parametrize(
    ("counts", "between", "within", "error"),
    [([1] * 8, 0.5, 0.0, 0.1), ([5] * 8, 0.5, 0.2, 0.02), ([1, 2, 9] * 4, 0.5, 0.3, 0.05)],
    ids=["8 devices once", "8 devices 5 times", "12 devices unbalanced"],
)
def test_intervals_of_small_populations_cover(counts: list[int], between: float, within: float, error: float) -> None:
    """Of 80 populations 95 % hold the truth, within 3 binomial standard errors of 2.4 %."""
    generator = np.random.default_rng(11)
    truth = np.hypot(between, within)
    inside = np.zeros(3)
    for _ in range(80):
        found = fit_mixed(*population(np.array(counts), generator, between=between, within=within, error=error))
        slope, spread = found.estimate(np.array([0.0, 1.0])), found.spread(np.ones(1))
        inside += [slope[2] < 0.5 < slope[3], spread[2] < truth, truth < spread[3]]
    assert inside[0] / 80 > 0.95 - 0.073
    assert (inside[1:] / 80 > 0.975 - 0.053).all()


def test_four_responses_of_thousands_of_values() -> None:
    """Four shape parameters, ten covariances each: the truth within 5 of its errors."""
    data = population(np.full(800, 3), np.random.default_rng(2), d=4, error=0.05)
    found = fit_mixed(*data)
    error = np.sqrt(np.diag(found.total_covariance())).reshape(4, 4)
    assert (np.abs(found.total - (0.5**2 + 0.3**2) * np.eye(4)) < 5 * error).all()
    assert (np.linalg.eigvalsh(found.within) > 0).all()


@pytest.mark.parametrize("within", [0.0, 1e-8])
def test_no_spread_at_all(within: float) -> None:
    found = fit_mixed(*population(np.full(10, 3), np.random.default_rng(1), between=0.0, within=within))
    assert found.total[0, 0] < 1e-12
    np.testing.assert_allclose(found.coefficients, [[found.coefficients[0, 0], 0.5]], rtol=1e-5)
    assert np.isfinite(found.spread(np.ones(1))).all()


@pytest.mark.parametrize("value", [0.0, 3.0])
def test_a_response_that_is_the_same_everywhere(value: float) -> None:
    """A parameter at its bound on all curves beside one that varies."""
    t, z, _, device = population(np.full(12, 2), np.random.default_rng(4))
    both = np.column_stack([t[:, 0], np.full(len(t), value)])
    found = fit_mixed(both, z, np.zeros((len(t), 2, 2)), device)
    assert np.isfinite(found.covariance).all()
    np.testing.assert_allclose(found.coefficients[1], [value, 0.0], atol=1e-8)
    assert found.total[1, 1] < 1e-16
    alone = fit_mixed(t, z, np.zeros((len(t), 1, 1)), device)
    assert found.total[0, 0] == pytest.approx(alone.total[0, 0], rel=1e-6)
