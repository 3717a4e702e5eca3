"""Marquardt's step of many problems at once, stopped at bounds."""

import numpy as np

from calib.fitting import small_matrices


def bounded_step(
    matrix: np.ndarray, gradient: np.ndarray, damping: np.ndarray, room: tuple[np.ndarray, np.ndarray] | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Solve (matrix + damping) step = -gradient with the parameters that meet a bound held there.

    Returns the step, which parameters are held, and the smallest pivot.
    """
    k = len(matrix)
    damped = matrix.copy()
    for i in range(k):
        damped[i, i] += damping
    held = np.zeros(gradient.shape, dtype=bool)
    if room is not None:
        held = ((room[0] >= 0) & (gradient > 0)) | ((room[1] <= 0) & (gradient < 0))
    factor, pivot = small_matrices.cholesky(damped)
    step = -small_matrices.solve_cholesky(factor, gradient)
    if room is None:
        return step, held, pivot
    some = np.flatnonzero(held.any(0) | ((step < room[0]) | (step > room[1])).any(0))
    if len(some):
        part = (damped[:, :, some], gradient[:, some], (room[0][:, some], room[1][:, some]), held[:, some])
        step[:, some], held[:, some], pivot[some] = _held_step(*part)
    return step, held, pivot


def _held_step(
    damped: np.ndarray, gradient: np.ndarray, room: tuple[np.ndarray, np.ndarray], held: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the step of problems that have a parameter at a bound, or would cross one."""
    k = len(damped)
    step, pivot = np.zeros(gradient.shape), np.ones(gradient.shape[1])
    for _ in range(k + 1):
        free = ~held
        right = np.where(held, step, -gradient - np.einsum("ijn,jn->in", damped, np.where(held, step, 0.0)))
        part = np.where(free[:, None] & free[None], damped, np.eye(k)[:, :, None])
        factor, pivot = small_matrices.cholesky(part)
        step = np.where(held, step, small_matrices.solve_cholesky(factor, right))
        part_inside = np.where(step < 0, room[0], room[1]) / step  # of the step, until it meets the bound
        part_inside = np.where(free & ((step < room[0]) | (step > room[1])), part_inside, np.inf)
        first = part_inside.argmin(0)
        some = np.flatnonzero(np.isfinite(part_inside.min(0)))
        if not len(some):
            break
        held[first[some], some] = True
        step = np.where(held, np.clip(step, *room), 0.0)
    return step, held, pivot
