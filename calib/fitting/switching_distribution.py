"""Weibull and normal distributions of switching voltages, by maximum likelihood with censored and stepped values."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import special, stats

LAWS = ("weibull", "normal")
N_BOOTSTRAP = 199
MAXIMUM_TESTED = 2000
_ITERATIONS = 80
_SAME = 1e-9  # relative difference under which two voltages are the same set-point


@dataclass(frozen=True)
class Events:
    """Values of which each is known to lie in an interval.

    Attributes
    ----------
    low, high : (event,) [V]; equal where the value is known, high infinite where it is only known to exceed `low`.
    group : (event,) the device.
    end : (event,) [V] beyond which a value would not have been seen.
    """

    low: np.ndarray
    high: np.ndarray
    group: np.ndarray
    end: np.ndarray

    def __len__(self) -> int:
        return len(self.low)


@dataclass(frozen=True)
class LawFit:
    """A fitted law.

    Attributes
    ----------
    law : weibull, F = 1 - exp(-(V / scale)^shape), or normal, F = Phi((V - mean) / standard deviation).
    location, spread : of ln V (smallest extreme value: ln scale and 1 / shape), or of V (mean, standard deviation).
    covariance : (2, 2) of (location, ln spread), grouped by device where there are several.
    log_likelihood : at the optimum.
    distance : Kolmogorov-Smirnov distance of the data.
    p_value : part of the data sets drawn from the fitted law, of the same size, steps and devices, whose distance is
        as large after they were fitted in the same way.
    """

    law: str
    location: float
    spread: float
    covariance: np.ndarray
    log_likelihood: float
    distance: float
    p_value: float


def fit_law(events: Events, law: str, generator: np.random.Generator, share_d2d: float = 0.0) -> LawFit:
    """Fit a law to switching voltages and test it.

    A value seen in a step of the sweep contributes ln(F(high) - F(low)), one that did not come within the sweep
    ln(1 - F(low)), and one known exactly ln f (J. F. Lawless, Statistical Models and Methods for Lifetime Data, 2nd
    ed., section 2.2). The covariance is J^-1 K J^-1, J the observed information and K the sum over devices of the
    outer products of their scores (H. White, Econometrica 50, 1 (1982), doi 10.2307/1912526), so that the cycles of a
    device are not taken for independent; with fewer than five devices it is J^-1.

    Parameters
    ----------
    share_d2d : part of the variance that lies between devices; the data sets of the test are drawn with it.
    """
    low, high = _transformed(law, events.low), _transformed(law, events.high)
    theta, log_likelihood = maximise(law, low[None], high[None])
    covariance = _covariance(law, low, high, theta[0], events.group)
    location, spread = float(theta[0, 0]), float(np.exp(theta[0, 1]))
    some = _thinned(events)
    observed = float(_distance(law, some.high[None], theta, some.end.min())[0])
    simulated = _drawn(law, some, location, spread, share_d2d, generator)
    refitted, _ = maximise(law, _transformed(law, simulated[0]), _transformed(law, simulated[1]), theta[0], 1e-5)
    distances = _distance(law, simulated[1], refitted, some.end.min())
    p_value = float((1 + (distances >= observed).sum()) / (1 + len(distances)))
    return LawFit(law, location, spread, covariance, float(log_likelihood[0]), observed, p_value)


def maximise(
    law: str, low: np.ndarray, high: np.ndarray, start: np.ndarray | None = None, tolerance: float = 1e-10
) -> tuple[np.ndarray, np.ndarray]:
    """Return the (location, ln spread) of every data set, (set, 2), and its log likelihood, (set,).

    Scoring with the outer product of the observations' gradients (E. K. Berndt et al., Annals of Economic and Social
    Measurement 3, 653 (1974)), steps halved until the likelihood grows; sets leave as they converge.

    Parameters
    ----------
    low, high : (set, event) in the law's own variable, ln V or V; -inf and inf for open ends.
    start : (2,) to begin with; from the moments by default.
    tolerance : gain of the log likelihood at which a set has converged.
    """
    theta = _moments(low, high) if start is None else np.tile(start, (len(low), 1))
    value, gradient = _likelihood(law, low, high, theta)
    active = np.arange(len(theta))
    for _ in range(_ITERATIONS):
        part, now, slope = theta[active], value[active], gradient[active]
        information = slope.swapaxes(1, 2) @ slope + 1e-10 * np.eye(2)
        step = np.linalg.solve(information, slope.sum(axis=1)[..., None])[..., 0]
        limit = 2 * np.exp(part[:, 1])
        step = np.stack([np.clip(step[:, 0], -limit, limit), np.clip(step[:, 1], -1.0, 1.0)], axis=1)
        scale, worse = np.ones(len(active)), np.zeros(len(active), dtype=bool)
        new, new_gradient, trial = now, slope, part
        for _ in range(12):
            trial = part + scale[:, None] * step
            new, new_gradient = _likelihood(law, low[active], high[active], trial)
            worse = ~(new >= now - 1e-12)
            if not worse.any():
                break
            scale[worse] /= 2
        kept = ~worse
        theta[active[kept]], value[active[kept]] = trial[kept], new[kept]
        gradient[active[kept]] = new_gradient[kept]
        active = active[kept & (new - now > tolerance)]
        if not len(active):
            break
    return theta, value


def _moments(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return starting values: the mean and ln of the standard deviation of the middles, (set, 2)."""
    bounded = np.isfinite(high) & np.isfinite(low)
    width = np.zeros_like(low)
    width[bounded] = high[bounded] - low[bounded]
    middle = np.where(np.isfinite(low), low, high) + np.where(np.isfinite(low), width / 2, 0.0)
    spread = np.maximum(middle.std(axis=1), 1e-9 * np.maximum(np.abs(middle).max(axis=1), 1e-300))
    return np.stack([middle.mean(axis=1), np.log(np.maximum(spread, 0.1 * width.max(axis=1)))], axis=1)


def quantile_of(law: str, location: float, spread: float, q: np.ndarray) -> np.ndarray:
    """Return the voltages [V] at the probabilities q."""
    if law == "weibull":
        return np.exp(location + spread * np.log(-np.log1p(-q)))
    return location + spread * special.ndtri(q)


def _transformed(law: str, value: np.ndarray) -> np.ndarray:
    if law == "normal":
        return value
    with np.errstate(divide="ignore"):
        return np.log(np.maximum(value, 0.0))


def _likelihood(law: str, low: np.ndarray, high: np.ndarray, theta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the log likelihood (set,) and its gradient by (location, ln spread) per event, (set, event, 2)."""
    location, spread = theta[:, :1], np.exp(theta[:, 1:])
    with np.errstate(all="ignore"):
        a, b = (low - location) / spread, (high - location) / spread
        exact = low == high
        f_a, f_b = _density(law, a), _density(law, b)
        part = np.maximum(_probability(law, a, b), 1e-300)
        z = np.where(exact, a, 0.0)
        slope = -z if law == "normal" else 1 - np.exp(z)
        log_f = -0.5 * z**2 - 0.5 * np.log(2 * np.pi) if law == "normal" else z - np.exp(z)
        value = np.where(exact, log_f - theta[:, 1:], np.log(part))
        by_location = np.where(exact, -slope, -(f_b - f_a) / part) / spread
        moment = np.where(np.isfinite(b), b, 0.0) * f_b - np.where(np.isfinite(a), a, 0.0) * f_a
        by_spread = np.where(exact, -1 - z * slope, -moment / part)
    gradient = np.nan_to_num(np.stack([by_location, by_spread], axis=-1))
    total = value.sum(axis=1)
    return np.where(np.isfinite(total), total, -np.inf), gradient


def _density(law: str, z: np.ndarray) -> np.ndarray:
    if law == "normal":
        return np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi)
    return np.where(np.isfinite(z), np.exp(np.minimum(z, 700.0) - np.exp(np.minimum(z, 700.0))), 0.0)


def _probability(law: str, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return F(b) - F(a) without cancellation."""
    if law == "normal":
        upper = a > 0
        return np.where(upper, special.ndtr(-a) - special.ndtr(-b), special.ndtr(b) - special.ndtr(a))
    start, stop = np.exp(np.minimum(a, 700.0)), np.exp(np.minimum(b, 700.0))
    return np.exp(-start) * -np.expm1(-(stop - start))


def _distribution(law: str, z: np.ndarray) -> np.ndarray:
    return special.ndtr(z) if law == "normal" else -np.expm1(-np.exp(np.minimum(z, 700.0)))


def _covariance(law: str, low: np.ndarray, high: np.ndarray, theta: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the covariance of (location, ln spread)."""

    def score(at: np.ndarray) -> np.ndarray:
        return _likelihood(law, low[None], high[None], at[None])[1][0]

    step = 1e-4 * np.array([np.exp(theta[1]), 1.0])
    rows = []
    for k in range(2):
        shift = np.eye(2)[k] * step
        rows.append((score(theta + shift).sum(axis=0) - score(theta - shift).sum(axis=0)) / (2 * step[k]))
    information = -(np.array(rows) + np.array(rows).T) / 2
    if np.linalg.matrix_rank(information) < 2:
        return np.full((2, 2), np.nan)
    inverse = np.linalg.inv(information)
    _, index = np.unique(group, return_inverse=True)
    count = int(index.max()) + 1
    if count < 5:
        return inverse
    per_event = score(theta)
    sums = np.stack([np.bincount(index, per_event[:, k], count) for k in range(2)], axis=1)
    return inverse @ (sums.T @ sums) @ inverse * count / (count - 1)


def _distance(law: str, high: np.ndarray, theta: np.ndarray, end: float) -> np.ndarray:
    """Return the Kolmogorov-Smirnov distance of every data set, (set,): at the ends of the steps, where there are any.

    An event beyond the sweep counts in the number of events only, and the distance ends where the first sweep does.
    """
    ordered = np.sort(high, axis=1)
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(np.diff(ordered, axis=1), nan=0.0) > _SAME * np.abs(ordered[:, :-1])
    count = ordered.shape[1]
    z = (_transformed(law, ordered) - theta[:, :1]) / np.exp(theta[:, 1:])
    expected = _distribution(law, np.where(np.isfinite(z), z, 0.0))
    rank = np.broadcast_to(np.arange(1, count + 1), ordered.shape)
    last = np.concatenate([apart, np.ones((len(ordered), 1), dtype=bool)], axis=1)
    seen = ordered <= end * (1 + _SAME)
    above = np.where(seen & last, np.abs(rank / count - expected), 0.0)
    alone = last & np.concatenate([np.ones((len(ordered), 1), dtype=bool), last[:, :-1]], axis=1)
    below = np.where(seen & alone, np.abs((rank - 1) / count - expected), 0.0)
    tied = bool((~last[:, :-1] & seen[:, :-1]).any())
    return above.max(axis=1) if tied else np.maximum(above, below).max(axis=1)


def _drawn(
    law: str, events: Events, location: float, spread: float, share_d2d: float, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return data sets (set, event) drawn from the law, seen in the same steps and up to the same voltages."""
    _, index = np.unique(events.group, return_inverse=True)
    shape = (N_BOOTSTRAP, len(events))
    between = generator.standard_normal((N_BOOTSTRAP, int(index.max()) + 1))[:, index]
    z = np.sqrt(share_d2d) * between + np.sqrt(1 - share_d2d) * generator.standard_normal(shape)
    value = quantile_of(law, location, spread, np.clip(special.ndtr(z), 1e-15, 1 - 1e-15))
    censored = np.isinf(events.high)
    step = np.where(censored, 0.0, events.high - events.low)
    usual = float(np.median(step[~censored])) if (~censored).any() else 0.0
    step = np.where(censored, usual, step)
    with np.errstate(divide="ignore", invalid="ignore"):
        high = np.where(step > 0, np.ceil(value / step) * step, value)
    low = np.where(step > 0, high - step, value)
    beyond = high > events.end * (1 + _SAME)
    return np.where(beyond, events.end, low), np.where(beyond, np.inf, high)


def _thinned(events: Events) -> Events:
    if len(events) <= MAXIMUM_TESTED:
        return events
    chosen = np.linspace(0, len(events) - 1, MAXIMUM_TESTED).astype(int)
    return Events(events.low[chosen], events.high[chosen], events.group[chosen], events.end[chosen])


def bootstrap_by_device(
    group: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray | float], generator: np.random.Generator,
    repeats: int = 400,
) -> np.ndarray:  # fmt: skip
    """Return the ends of the 95 % percentile interval of a statistic of row indices, (2, ...), drawing whole devices.

    With fewer than five devices single rows are drawn.
    """
    labels, index = np.unique(group, return_inverse=True)
    if len(labels) < 5:
        labels, index = np.arange(len(group)), np.arange(len(group))
    order = np.argsort(index, kind="stable")
    rows = np.split(order, np.cumsum(np.bincount(index))[:-1])
    found = []
    for _ in range(repeats):
        drawn = generator.integers(0, len(labels), len(labels))
        found.append(statistic(np.concatenate([rows[k] for k in drawn])))
    return np.nanquantile(np.array(found), [0.025, 0.975], axis=0)


def rank_correlation(x: np.ndarray, y: np.ndarray) -> float:
    """Return Spearman's rank correlation, NaN where one of the two does not vary."""
    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    a, b = stats.rankdata(x), stats.rankdata(y)
    return float(np.corrcoef(a, b)[0, 1])
