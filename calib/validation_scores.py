"""How well draws of a model describe measured values: coverage, interval score, distances, and the same by chance.

The predictive distribution of a value is that of devices drawn from many draws of the model, so that it holds both the
spread of the devices and what the fit leaves uncertain. Two questions have a null each. Coverage is compared with that
of a perfect model: as many devices, with as many cycles, are drawn from the predictive distribution itself. Distances
are compared with those of devices that all come from one draw of the model: the measured devices, too, come from one
true population, which the fit knows only so well.
"""

from dataclasses import dataclass, field

import numpy as np

LEVELS = (0.5, 0.9)
REPLICATES = 400
"""Draws of a null; a p-value is known to 1 / (REPLICATES + 1)."""
MAXIMUM_POOL = 20_000
"""Drawn values, in order, by which a distribution function is held; more are thinned evenly."""


@dataclass(frozen=True)
class Groups:
    """Which values belong to which device.

    Attributes
    ----------
    device : (value,) index of the device.
    cycle : (value,) number of the value within its device, from 0.
    """

    device: np.ndarray
    cycle: np.ndarray

    @property
    def n_devices(self) -> int:
        """Number of devices."""
        return int(self.device.max()) + 1

    @property
    def n_cycles(self) -> int:
        """Largest number of values of a device."""
        return int(self.cycle.max()) + 1


def groups_of(devices: np.ndarray) -> Groups:
    """Number the devices, and the values of each."""
    _, index = np.unique(devices, return_inverse=True)
    order = np.argsort(index, kind="stable")
    counts = np.bincount(index)
    cycle = np.empty(len(index), dtype=np.int64)
    cycle[order] = np.concatenate([np.arange(count) for count in counts])
    return Groups(index, cycle)


@dataclass(frozen=True)
class Comparison:
    """Measured values of one quantity against draws of the model.

    Attributes
    ----------
    quantity : in words, with its unit.
    state : resistance state or level, '' where there is none.
    at : where it was measured, in words (a voltage, a time).
    coverage : (level,) fraction of the values in the central predictive interval.
    coverage_bound : (level, 2) 95 % interval of it for a perfect model.
    score : (level,) mean interval score.
    ks, wasserstein : distances of the distributions; wasserstein in the unit of the quantity.
    ks_p, wasserstein_p : fraction of draws from the model that are at least as far away.
    n_devices, n_values : sample size.
    reference_score : (level,) mean interval score of the fitted devices' empirical quantiles, NaN where not known.
    """

    quantity: str
    state: str
    at: str
    coverage: np.ndarray
    coverage_bound: np.ndarray
    score: np.ndarray
    ks: float
    ks_p: float
    wasserstein: float
    wasserstein_p: float
    n_devices: int
    n_values: int
    reference_score: np.ndarray = field(default_factory=lambda: np.full(len(LEVELS), np.nan))


def interval_score(x: np.ndarray, low: np.ndarray, high: np.ndarray, level: float) -> np.ndarray:
    """Return (u - l) + 2 / alpha (l - x) [x < l] + 2 / alpha (x - u) [x > u], alpha = 1 - level; small is good.

    Source: T. Gneiting, A. E. Raftery, J. Am. Stat. Assoc. 102, 359 (2007), doi 10.1198/016214506000001437, eq. 43.
    """
    return high - low + 2 / (1 - level) * (np.maximum(low - x, 0.0) + np.maximum(x - high, 0.0))


def probability_transform(x: np.ndarray, sorted_pool: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return F(x) under the predictive distribution; ties (values at a noise floor) are spread evenly."""
    below = np.searchsorted(sorted_pool, x, side="left")
    upto = np.searchsorted(sorted_pool, x, side="right")
    return (below + (upto - below + 1) * generator.random(np.shape(x))) / (len(sorted_pool) + 1)


def thinned_pool(ordered: np.ndarray) -> np.ndarray:
    """Return at most `MAXIMUM_POOL` of sorted values (along the first dimension), evenly spaced in rank."""
    n = len(ordered)
    if n <= MAXIMUM_POOL:
        return ordered
    return ordered[((np.arange(MAXIMUM_POOL) + 0.5) / MAXIMUM_POOL * n).astype(int)]


def replicate_indices(
    shape: tuple[int, int], groups: Groups, generator: np.random.Generator, *, one_model: bool
) -> np.ndarray:
    """Return (replicate, device) indices into drawn devices (model x device) for samples like the measured one.

    Parameters
    ----------
    shape : numbers of models and of devices of each.
    one_model : whether the devices of a replicate come from one draw of the model.
    """
    models, devices = shape
    if not one_model:
        return generator.integers(models * devices, size=(REPLICATES, groups.n_devices))
    own = np.argsort(generator.random((REPLICATES, devices)), axis=1)[:, : groups.n_devices]
    if devices < groups.n_devices:
        own = generator.integers(devices, size=(REPLICATES, groups.n_devices))
    return (np.arange(REPLICATES) % models)[:, None] * devices + own


def kolmogorov_smirnov(u: np.ndarray) -> np.ndarray:
    """Return max |F_n(x) - F(x)| from probability transforms (..., value)."""
    n = u.shape[-1]
    u = np.sort(u, axis=-1)
    rank = np.arange(n)
    return np.maximum((rank + 1) / n - u, u - rank / n).max(axis=-1)


def wasserstein(x: np.ndarray, sorted_pool: np.ndarray) -> np.ndarray:
    """Return the Wasserstein-1 distance of samples (..., value) from the predictive distribution."""
    n = x.shape[-1]
    expected = np.interp((np.arange(n) + 0.5) / n, (np.arange(len(sorted_pool)) + 0.5) / len(sorted_pool), sorted_pool)
    return np.abs(np.sort(x, axis=-1) - expected).mean(axis=-1)


def compare(
    quantity: str, state: str, at: str, x: np.ndarray, devices: np.ndarray, pool: np.ndarray,
    generator: np.random.Generator, fitted: np.ndarray | None = None,
) -> Comparison:  # fmt: skip
    """Compare measured values of one quantity with draws.

    Parameters
    ----------
    x : (value,) measured.
    devices : (value,) the device of each.
    pool : (model, device, cycle) drawn, as many cycles as any device has values.
    fitted : values of the devices that the model was fitted to, whose quantiles are the reference of the score.
    """
    groups = groups_of(devices)
    flat = pool.reshape(-1, pool.shape[2])
    every = thinned_pool(np.sort(pool, axis=None))
    coverage, bound, score = np.zeros(len(LEVELS)), np.zeros((len(LEVELS), 2)), np.zeros(len(LEVELS))
    reference = np.full(len(LEVELS), np.nan)
    mixed = replicate_indices((pool.shape[0], pool.shape[1]), groups, generator, one_model=False)
    for k, level in enumerate(LEVELS):
        low, high = np.quantile(every, [(1 - level) / 2, (1 + level) / 2])
        coverage[k] = np.mean((x >= low) & (x <= high))
        score[k] = np.mean(interval_score(x, low, high, level))
        if fitted is not None and len(fitted):
            ends = np.quantile(fitted, [(1 - level) / 2, (1 + level) / 2])
            reference[k] = np.mean(interval_score(x, ends[0], ends[1], level))
        inside = (flat >= low) & (flat <= high)
        bound[k] = np.quantile(inside[mixed[:, groups.device], groups.cycle].mean(1), [0.025, 0.975])
    single = replicate_indices((pool.shape[0], pool.shape[1]), groups, generator, one_model=True)
    ks, ks_p, distance, distance_p = distances(x, flat[single[:, groups.device], groups.cycle], every, generator)
    return Comparison(
        quantity, state, at, coverage, bound, score, ks, ks_p, distance, distance_p, groups.n_devices, len(x),
        reference,
    )  # fmt: skip


def distances(
    x: np.ndarray, replicates: np.ndarray, sorted_pool: np.ndarray, generator: np.random.Generator
) -> tuple[float, float, float, float]:
    """Return the two distances of a sample from the predictive distribution, each with its p-value."""
    far = float(kolmogorov_smirnov(probability_transform(x, sorted_pool, generator)))
    chance = kolmogorov_smirnov(probability_transform(replicates, sorted_pool, generator))
    moved = float(wasserstein(x, sorted_pool))
    moved_chance = wasserstein(replicates, sorted_pool)
    return far, p_value(far, chance), moved, p_value(moved, moved_chance)


def p_value(statistic: float, chance: np.ndarray) -> float:
    """Return (1 + number of replicates at least as far) / (1 + number of replicates)."""
    return float((1 + np.count_nonzero(chance >= statistic)) / (1 + len(chance)))
