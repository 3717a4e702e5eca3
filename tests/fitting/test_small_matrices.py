"""Many small symmetric systems at once, against numpy's linear algebra."""

import numpy as np
import pytest

from calib.fitting import small_matrices


@pytest.fixture(params=[1, 2, 3, 4, 7])
def matrices(request: pytest.FixtureRequest) -> np.ndarray:
    """Scaled normal matrices (k, k, n)."""
    k = request.param
    jacobian = np.random.default_rng(k).standard_normal((20, 12, k))
    normal = (jacobian.swapaxes(1, 2) @ jacobian).transpose(1, 2, 0)
    return small_matrices.scaled(normal, np.sqrt(np.einsum("iin->in", normal)))


def test_solutions_and_inverses(matrices: np.ndarray) -> None:
    k, _, n = matrices.shape
    right = np.random.default_rng(0).standard_normal((k, n))
    factor, pivot = small_matrices.cholesky(matrices)
    plain = matrices.transpose(2, 0, 1)
    expected = np.linalg.solve(plain, right.T[..., None])[..., 0].T
    np.testing.assert_allclose(small_matrices.solve_cholesky(factor, right), expected, rtol=1e-9)
    inverse = small_matrices.inverse_from_cholesky(factor)
    np.testing.assert_allclose(inverse.transpose(2, 0, 1), np.linalg.inv(plain), rtol=1e-9, atol=1e-12)
    lower = np.linalg.cholesky(plain)
    np.testing.assert_allclose(pivot, np.diagonal(lower, axis1=1, axis2=2).min(1) ** 2, rtol=1e-9)
    condition, exact = small_matrices.condition_number(matrices, inverse), np.linalg.cond(plain)
    assert (condition >= exact * (1 - 1e-9)).all()
    assert (condition <= k * exact * (1 + 1e-9)).all()
    if k <= 2:
        np.testing.assert_allclose(condition, exact, rtol=1e-9)


def test_a_singular_matrix_shows_in_its_pivot() -> None:
    _, pivot = small_matrices.cholesky(np.ones((2, 2, 3)))
    np.testing.assert_allclose(pivot, 0.0, atol=1e-15)
