"""A generative model of switching against the data that it was fitted to: marginals, memory and correlation."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from scipy import special, stats

from calib.cycle_sampling import sample_cycles

N_SIMULATED = 200
MAXIMUM_LAG = 10
_LARGEST = 3_000_000  # states that are drawn in all


@dataclass(frozen=True)
class Checks:
    """What the data show and, from data sets of the same devices and cycles drawn from the model, what they may show.

    Attributes
    ----------
    distance, p_value : (feature,) Kolmogorov-Smirnov distance of the data from the model's marginal, and the part of
        the drawn data sets whose distance is as large.
    lag : (lag,) [cycles].
    memory, memory_bound : (feature, lag), (feature, lag, 2) autocorrelation of the scores about each device's mean, and
        the range of 95 % of the drawn data sets.
    correlation, correlation_bound : (feature, feature) and with 2 more, of the scores.
    n_simulated : number of drawn data sets.
    """

    distance: np.ndarray
    p_value: np.ndarray
    lag: np.ndarray
    memory: np.ndarray
    memory_bound: np.ndarray
    correlation: np.ndarray
    correlation_bound: np.ndarray
    n_simulated: int


def check(
    node: xr.Dataset, values: np.ndarray, limit: np.ndarray, step: np.ndarray, device: np.ndarray, cycle: np.ndarray,
    generator: np.random.Generator,
) -> Checks:  # fmt: skip
    """Draw data sets of the same shape from the model and compare.

    Parameters
    ----------
    node : cycles node.
    values : (row, feature) the data, rows sorted by device and cycle.
    limit : (feature,) above which values are censored, infinite where there are none.
    step : (feature,) of the sweep, to whose end values were rounded up; 0 where they were not.
    device, cycle : (row,).
    """
    _, number = np.unique(device, return_inverse=True)
    first = np.minimum.reduceat(cycle, np.flatnonzero(np.diff(number, prepend=-1)))
    when = cycle - first[number]
    place = when
    if int(node.attrs["order"]) == 0:  # the cycles between do not matter
        place = np.arange(len(number)) - np.flatnonzero(np.diff(number, prepend=-1))[number]
    n_devices, span = int(number.max()) + 1, int(place.max()) + 1
    repeats = int(np.clip(_LARGEST // (n_devices * span), 20, N_SIMULATED))
    drawn = np.empty((repeats, len(values), values.shape[1]), dtype=np.float32)
    for k in range(repeats):
        drawn[k] = sample_cycles(node, n_devices, span, generator, threads=1)[number, place]
    data = np.minimum(values, limit)
    drawn = _as_measured(np.minimum(drawn, limit.astype(np.float32)), values, step)
    distance, p_value = _distances(data, drawn, limit)
    lags, size = _lags(number, when), values.shape[1]
    scores, drawn_scores = _scores(data[None]), _scores(drawn)
    measured, simulated = np.zeros((size, len(lags))), np.zeros((repeats, size, len(lags)))
    for k, lag in enumerate(lags):
        measured[:, k] = _autocorrelation(scores, number, when, lag)[0]
        simulated[..., k] = _autocorrelation(drawn_scores, number, when, lag)
    correlation = _correlations(drawn_scores)
    return Checks(
        distance, p_value, np.array(lags), measured, _range(simulated), _correlations(scores)[0], _range(correlation),
        repeats,
    )  # fmt: skip


def _as_measured(drawn: np.ndarray, values: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return drawn values rounded up to the set-points of the sweep, where the data are."""
    for k in np.flatnonzero(step > 0):
        phase = float(np.median(values[:, k])) % step[k]
        drawn[..., k] = np.ceil((drawn[..., k] - phase) / step[k] - 1e-4) * step[k] + phase
    return drawn


def _range(simulated: np.ndarray) -> np.ndarray:
    if not simulated.size:
        return np.zeros((*simulated.shape[1:], 2))
    return np.moveaxis(np.nanquantile(simulated, [0.025, 0.975], axis=0), 0, -1)


def _distances(data: np.ndarray, drawn: np.ndarray, limit: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the Kolmogorov-Smirnov distances from the model's marginal and their p-values, (feature,)."""
    repeats, n, size = drawn.shape
    distance, p_value = np.zeros(size), np.zeros(size)
    for k in range(size):
        pooled = np.sort(drawn[..., k].ravel())
        pooled = pooled[:: max(1, len(pooled) // 20000)]

        def of(sample: np.ndarray, pooled: np.ndarray = pooled, end: float = float(limit[k])) -> float:
            ordered = np.sort(sample)
            grid = pooled[pooled < end]
            if not len(grid):
                return 0.0
            return float(np.abs(
                np.searchsorted(ordered, grid, "right") / n - np.searchsorted(pooled, grid, "right") / len(pooled)
            ).max())  # fmt: skip

        distance[k] = of(data[:, k].astype(np.float32))
        p_value[k] = (1 + sum(of(drawn[r, :, k]) >= distance[k] for r in range(repeats))) / (1 + repeats)
    return distance, p_value


def _scores(values: np.ndarray) -> np.ndarray:
    """Return normal scores within each data set, (set, row, feature)."""
    rank = stats.rankdata(values, axis=1)
    return special.ndtri((rank - 0.5) / values.shape[1])


def _lags(number: np.ndarray, when: np.ndarray) -> list[int]:
    """Return the lags, up to half of the usual number of cycles, at which at least twenty pairs were measured."""
    usual = int(np.median(np.bincount(number)))
    pairs = {lag: len(_pairs(number, when, lag)[0]) for lag in range(1, min(MAXIMUM_LAG, max(usual // 2, 1)) + 1)}
    return [lag for lag, count in pairs.items() if count >= 20]


def _pairs(number: np.ndarray, when: np.ndarray, lag: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of cycle pairs `lag` apart of the same device."""
    step = int(when.max()) + 1 + lag
    key = number * step + when
    later = np.searchsorted(key, key + lag)
    found = (later < len(key)) & (key[np.minimum(later, len(key) - 1)] == key + lag)
    return np.flatnonzero(found), later[found]


def _autocorrelation(scores: np.ndarray, number: np.ndarray, when: np.ndarray, lag: int) -> np.ndarray:
    """Return the autocorrelation about each device's mean, (set, feature)."""
    first = np.flatnonzero(np.diff(number, prepend=-1))
    count = np.diff(np.append(first, len(number)))
    centred = scores - (np.add.reduceat(scores, first, axis=1) / count[:, None])[:, number]
    before, after = _pairs(number, when, lag)
    square = np.square(centred).mean(axis=1)
    product = (centred[:, before] * centred[:, after]).mean(axis=1)
    return product / np.maximum(square, 1e-300)


def _correlations(scores: np.ndarray) -> np.ndarray:
    """Return the correlations of the scores, (set, feature, feature)."""
    centred = scores - scores.mean(axis=1, keepdims=True)
    covariance = np.einsum("snf,sng->sfg", centred, centred)
    spread = np.sqrt(np.einsum("sff->sf", covariance))
    return covariance / np.maximum(spread[:, :, None] * spread[:, None, :], 1e-300)
