"""Draws from the generative model of switching: resistances and switching voltages, cycle after cycle, of many devices.

The node cycles of a device model holds everything that is needed; nothing is fitted here.
"""

import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import xarray as xr

BLOCK = 4096
"""Devices that are stepped through their cycles together, so that they stay in the processor's cache."""
GRID_END = 5.0
N_GRID = 401
"""The quantile tables hold the values at `N_GRID` equally spaced normal scores from -GRID_END to GRID_END."""
_DOUBLINGS = 20


def score_grid() -> np.ndarray:
    """Return the normal scores at which the quantile tables are given, (grid,)."""
    return np.linspace(-GRID_END, GRID_END, N_GRID)


def sample_cycles(
    node: xr.Dataset, n_devices: int, n_cycles: int, generator: np.random.Generator, *, threads: int | None = None
) -> np.ndarray:
    """Draw the features of `n_devices` devices in `n_cycles` successive cycles each.

    With scores u = m + w, m ~ N(0, B) once per device and w_t = sum_i A_i w_(t-i) + e_t, e ~ N(0, S), started from the
    stationary distribution, a feature is the table's value at its score: x_k = Q_k(u_k), where Q_k is the class's
    quantile function in normal scores (linear between the points of the table). Device, cycle and feature are drawn in
    float32. The draws depend on the generator alone, not on the number of threads.

    Parameters
    ----------
    node : cycles node of a device model.
    generator : drawn from once; blocks of devices have streams of their own.
    threads : by default as many as there are processors, four at most.

    Returns
    -------
    numpy.ndarray
        (device, cycle, feature) float32; features in the order and the units of node['feature'] (ln(R / Ohm), V).
    """
    law = _Law(node)
    size = len(law.table)
    result = np.empty((n_cycles, size, n_devices), dtype=np.float32)
    starts = range(0, n_devices, BLOCK)
    seeds = generator.integers(0, 2**63, size=(len(starts), 2), dtype=np.uint64)

    def block(k: int) -> None:
        start = starts[k]
        law.fill(result[:, :, start : start + BLOCK], np.random.Generator(np.random.SFC64([*map(int, seeds[k])])))

    workers = min(threads or min(os.cpu_count() or 1, 4), max(len(starts), 1))
    if workers <= 1:
        for k in range(len(starts)):
            block(k)
    else:
        with ThreadPoolExecutor(workers) as pool:
            list(pool.map(block, range(len(starts))))
    return result.transpose(2, 0, 1)


class _Law:
    """The arrays of a cycles node, ready for stepping."""

    def __init__(self, node: xr.Dataset) -> None:
        self.order = int(node.attrs["order"])
        self.coefficients = node["memory"].values[: self.order].astype(np.float32)  # (lag, feature, feature)
        self.innovation = _root(node["innovation"].values)
        self.between = _root(node["between"].values)
        self.start = _root(block_covariance(node["memory"].values[: self.order], node["innovation"].values))
        tables = node["table"].values.astype(np.float32)  # (class, feature, grid)
        self.table = np.ascontiguousarray(tables.transpose(1, 0, 2))
        self.weight = node["class_weight"].values / float(node["class_weight"].sum())
        flat = self.table.reshape(-1)
        self.value = flat
        self.rise = np.append(np.diff(flat), np.float32(0.0))
        self.has_between = bool(np.abs(self.between).max(initial=0.0) > 0)

    def fill(self, result: np.ndarray, generator: np.random.Generator) -> None:
        """Fill (cycle, feature, device) with successive cycles."""
        n_cycles, size, count = result.shape
        normals = _Normals(generator)
        offset = self._offsets(size, count, generator)
        fixed = self.between @ normals.draw(size, count) if self.has_between else None
        depth = max(self.order, 1)
        first = self.start @ normals.draw(depth * size, count)
        past = [first[lag * size : (lag + 1) * size] for lag in range(depth)]  # the latest first
        score, low = (np.empty((size, count), dtype=np.float32) for _ in range(2))
        place = np.empty((size, count), dtype=np.intp)
        for cycle in range(n_cycles):
            if cycle < depth:
                step = past[depth - 1 - cycle]
            else:
                step = self.innovation @ normals.draw(size, count)
                for lag in range(self.order):
                    step += self.coefficients[lag] @ past[lag]
                past = [step, *past[: depth - 1]] if self.order else past
            np.add(step, 0.0 if fixed is None else fixed, out=score)
            self._look_up(score, low, place, offset, result[cycle])

    def _offsets(self, size: int, count: int, generator: np.random.Generator) -> np.ndarray:
        classes, n_grid = self.table.shape[1:]
        base = (np.arange(size) * classes * n_grid)[:, None]
        if classes == 1:
            return base
        chosen = np.searchsorted(np.cumsum(self.weight)[:-1], generator.random(count), side="right")
        return base + chosen * n_grid

    def _look_up(
        self, score: np.ndarray, low: np.ndarray, place: np.ndarray, offset: np.ndarray, result: np.ndarray
    ) -> None:
        """Interpolate the tables at the scores; `score`, `low` and `place` are overwritten."""
        n_grid = self.table.shape[2]
        score *= np.float32((n_grid - 1) / (2 * GRID_END))
        score += np.float32((n_grid - 1) / 2)
        np.clip(score, 0.0, np.float32((n_grid - 1) * (1 - 1e-6)), out=score)
        np.copyto(place, score, casting="unsafe")
        np.copyto(low, place, casting="unsafe")
        score -= low
        place += offset
        np.take(self.rise, place, out=low, mode="clip")
        score *= low
        np.take(self.value, place, out=low, mode="clip")
        np.add(score, low, out=result)


class _Normals:
    """Standard normal float32 numbers, in pairs from uniform ones, sqrt(-2 ln u) (cos, sin)(2 pi v).

    Vectorised this takes a third of the time of the generator's own method (G. E. P. Box, M. E. Muller, Annals of
    Mathematical Statistics 29, 610 (1958), doi 10.1214/aoms/1177706645). With 24 bits the largest is 5.8.
    """

    def __init__(self, generator: np.random.Generator) -> None:
        self.generator = generator
        self.shape = (0, 0)

    def draw(self, size: int, count: int) -> np.ndarray:
        """Return (size, count) numbers; the array is used again by the next call of the same shape."""
        if self.shape != (size, count):
            self.shape, half = (size, count), (size * count + 1) // 2
            self.radius, self.angle = (np.empty(half, dtype=np.float32) for _ in range(2))
            self.result = np.empty((2, half), dtype=np.float32)
        radius, angle = self.radius, self.angle
        self.generator.random(dtype=np.float32, out=radius)
        np.subtract(np.float32(1.0), radius, out=radius)  # in (0, 1]
        np.log(radius, out=radius)
        radius *= np.float32(-2.0)
        np.sqrt(radius, out=radius)
        self.generator.random(dtype=np.float32, out=angle)
        angle *= np.float32(2 * np.pi)
        np.cos(angle, out=self.result[0])
        np.sin(angle, out=self.result[1])
        self.result *= radius
        return self.result.reshape(-1)[: size * count].reshape(size, count)


def block_covariance(coefficients: np.ndarray, innovation: np.ndarray, depth: int | None = None) -> np.ndarray:
    """Return the stationary covariance of `depth` successive states of a vector autoregression, the latest first.

    The companion form's covariance solves X = F X F^T + Q (H. Luetkepohl, New Introduction to Multiple Time Series
    Analysis, 2005, equation 2.1.39). Leading dimensions are those of several processes.

    Parameters
    ----------
    coefficients : (..., lag, feature, feature).
    innovation : (..., feature, feature).
    depth : number of states; the order by default (one at order 0).
    """
    order, size = coefficients.shape[-3], innovation.shape[-1]
    shape = np.broadcast_shapes(coefficients.shape[:-3], innovation.shape[:-2])
    part = size * (depth or max(order, 1))
    lags = max(order, 1, depth or 1)
    full = size * lags
    source = np.zeros((*shape, full, full))
    source[..., :size, :size] = innovation
    power = _companion(coefficients, lags, shape)
    solution = source
    for _ in range(_DOUBLINGS if lags > 1 or order else 0):  # X = sum_k F^k Q F^kT, the number of terms doubled
        added = power @ solution @ power.swapaxes(-1, -2)
        solution = solution + added
        if np.abs(added).max() <= 1e-13 * np.abs(solution).max():
            break
        power = power @ power
    solution = solution[..., :part, :part]
    return (solution + solution.swapaxes(-1, -2)) / 2


def spectral_radius(coefficients: np.ndarray) -> np.ndarray:
    """Return the largest modulus of the companion matrix's eigenvalues, (...); the process is stationary under 1."""
    order, shape = coefficients.shape[-3], coefficients.shape[:-3]
    if order == 0:
        return np.zeros(shape)
    return np.abs(np.linalg.eigvals(_companion(coefficients, order, shape))).max(axis=-1)


def _companion(coefficients: np.ndarray, lags: int, shape: tuple[int, ...]) -> np.ndarray:
    """Return the companion matrix (..., lags feature, lags feature), the latest state first."""
    order, size = coefficients.shape[-3], coefficients.shape[-1]
    result = np.zeros((*shape, size * lags, size * lags))
    for lag in range(order):
        result[..., :size, lag * size : (lag + 1) * size] = coefficients[..., lag, :, :]
    result[..., size:, :-size] = np.eye(size * (lags - 1))
    return result


def _root(covariance: np.ndarray) -> np.ndarray:
    """Return a square root of a covariance, singular ones included, float32."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)
