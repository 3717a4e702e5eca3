"""Many small symmetric systems at once: arrays (row, column, curve), so that each operation runs over all curves."""

import numpy as np


def scaled(normal: np.ndarray, norm: np.ndarray) -> np.ndarray:
    """Return a normal matrix (k, k, n) in units of the columns' norms (k, n)."""
    return normal / (norm[:, None] * norm[None])


def diagonal(matrix: np.ndarray) -> np.ndarray:
    """Return the diagonals (k, n) of matrices (k, k, n)."""
    return np.stack([matrix[i, i] for i in range(len(matrix))])


def cholesky(matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the lower factor L, L L^T = matrix, and the smallest squared pivot; pivots are kept off zero.

    Parameters
    ----------
    matrix : (k, k, n) symmetric, of order one on the diagonal.

    Returns
    -------
    factor : (k, k, n), the diagonal holds 1 / L_ii.
    pivot : (n,) smallest squared pivot, a measure of how close the matrix is to singular.
    """
    k = len(matrix)
    factor = np.zeros_like(matrix)
    pivot = np.full(matrix.shape[2], np.inf)
    for j in range(k):
        square = matrix[j, j].copy()
        for m in range(j):
            square -= factor[j, m] * factor[j, m]
        np.minimum(pivot, square, out=pivot)
        inverse = 1 / np.sqrt(np.maximum(square, 1e-30))
        factor[j, j] = inverse
        for i in range(j + 1, k):
            below = matrix[i, j].copy()
            for m in range(j):
                below -= factor[i, m] * factor[j, m]
            factor[i, j] = below * inverse
    return factor, pivot


def solve_cholesky(factor: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Solve L L^T x = right (k, n) with the factor that `cholesky` returns."""
    k = len(factor)
    x = right.copy()
    for i in range(k):
        for m in range(i):
            x[i] -= factor[i, m] * x[m]
        x[i] *= factor[i, i]
    for i in reversed(range(k)):
        for m in range(i + 1, k):
            x[i] -= factor[m, i] * x[m]
        x[i] *= factor[i, i]
    return x


def inverse_from_cholesky(factor: np.ndarray) -> np.ndarray:
    """Return the inverse (k, k, n) of the matrix whose factor this is."""
    k = len(factor)
    lower = np.zeros_like(factor)  # the inverse of L
    for j in range(k):
        lower[j, j] = factor[j, j]
        for i in range(j + 1, k):
            total = factor[i, j] * lower[j, j]
            for m in range(j + 1, i):
                total += factor[i, m] * lower[m, j]
            lower[i, j] = -total * factor[i, i]
    inverse = np.empty_like(factor)
    for i in range(k):
        for j in range(i, k):
            total = lower[j, i] * lower[j, j]
            for m in range(j + 1, k):
                total += lower[m, i] * lower[m, j]
            inverse[i, j] = inverse[j, i] = total
    return inverse


def condition_number(matrix: np.ndarray, inverse: np.ndarray) -> np.ndarray:
    """Return the condition number (n,) of scaled normal matrices (unit diagonal) from their inverses.

    For two parameters of correlation r it is (1 + |r|) / (1 - |r|), exactly. For more, the product of the Frobenius
    norms, which is between the condition number in the 2-norm and k times that.
    """
    k = len(matrix)
    if k == 1:
        return np.ones(matrix.shape[2])
    if k == 2:
        r = np.abs(matrix[0, 1])
        return (1 + r) / np.maximum(1 - r, 1e-300)
    return np.sqrt(np.square(matrix).sum((0, 1)) * np.square(inverse).sum((0, 1)))
