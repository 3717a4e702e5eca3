"""Differences of means over networks and chips that two results share, in part or not at all."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

from calib import paired
from calib.paired import LEVEL, Mean


@dataclass(frozen=True)
class _Variance:
    """An estimate of the variance of a mean and its degrees of freedom; 0 and infinite where there is none."""

    value: float = 0.0
    freedom: float = math.inf

    def __add__(self, other: "_Variance") -> "_Variance":
        """Add independent estimates; degrees of freedom after Satterthwaite."""
        total = self.value + other.value
        spread = self.value**2 / self.freedom + other.value**2 / other.freedom
        return _Variance(total, total**2 / spread if spread > 0 else math.inf)


def difference(a: np.ndarray, b: np.ndarray, *, networks: bool, chips: bool) -> Mean:
    """Return the mean of b less that of a with its 95 % interval.

    With x_nc = m + a_n + b_c + e_nc on each side, the variance of the difference has a part of networks, a part of
    chips and the rest. What both sides share is taken as differences network by network, or chip by chip, so that what
    is the same on both sides drops out; what they do not share is added from both. The means over chips and over
    networks both hold the rest, which is counted once:

        V = V_e + max(V_networks - V_e, 0) + max(V_chips - V_e, 0)

    with degrees of freedom after F. E. Satterthwaite (Biometrics Bulletin 2, 110 (1946), doi 10.2307/3002019). Where
    all is shared this is `calib.paired.mean` of the differences. A single network on a side has no part of networks:
    the interval is then for that network; likewise a single chip.

    Parameters
    ----------
    a, b : (network, chip).
    networks : whether the networks are the same ones, in the same order; a and b then have as many.
    chips : whether chips of one number are drawn from the same random numbers; further ones of the longer side are left
        out.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if chips:
        common = min(a.shape[1], b.shape[1])
        a, b = a[:, :common], b[:, :common]
    if networks and chips:
        return paired.mean(b - a)
    centre = float(b.mean() - a.mean())
    sides = (a, b)
    rest = sum((_rest(side) for side in sides), _Variance())
    by_network = _of_means([s.mean(1) for s in sides], networks)
    by_chip = _of_means([s.mean(0) for s in sides], chips)
    parts = [(1.0, by_network), (1.0, by_chip), (-1.0, rest)]
    if by_network.value <= rest.value:
        parts = [(1.0, by_chip)]
    elif by_chip.value <= rest.value:
        parts = [(1.0, by_network)]
    total = sum(sign * part.value for sign, part in parts)
    if any(side.size < 2 for side in sides):
        return Mean(centre, math.nan)
    if not total > 0:
        return Mean(centre, 0.0)
    spread = sum(part.value**2 / part.freedom for _, part in parts)
    freedom = total**2 / spread if spread > 0 else math.inf
    quantile = stats.t.ppf(0.5 + LEVEL / 2, freedom) if math.isfinite(freedom) else stats.norm.ppf(0.5 + LEVEL / 2)
    return Mean(centre, float(quantile) * math.sqrt(total), freedom)


def probability(mean: Mean) -> float:
    """Return the probability of so large a mean, of either sign, where the true one is 0; NaN where it is not known."""
    if math.isnan(mean.half):
        return math.nan
    if mean.half == 0:
        return 1.0 if mean.value == 0 else 0.0
    if math.isfinite(mean.freedom):
        error = mean.half / float(stats.t.ppf(0.5 + LEVEL / 2, mean.freedom))
        return float(2 * stats.t.sf(abs(mean.value) / error, mean.freedom))
    error = mean.half / float(stats.norm.ppf(0.5 + LEVEL / 2))
    return float(2 * stats.norm.sf(abs(mean.value) / error))


def holm(values: list[float]) -> list[float]:
    """Return probabilities of all tests together, after S. Holm (Scandinavian Journal of Statistics 6, 65 (1979)).

    NaN stays NaN and is no test.
    """
    known = sorted((value, k) for k, value in enumerate(values) if not math.isnan(value))
    found, largest = [math.nan] * len(values), 0.0
    for rank, (value, k) in enumerate(known):
        largest = max(largest, min((len(known) - rank) * value, 1.0))
        found[k] = largest
    return found


def _of_means(sides: list[np.ndarray], shared: bool) -> _Variance:
    """Return the variance of the difference of means over networks, or over chips, that are shared or not."""
    samples = [sides[1] - sides[0]] if shared else sides
    known = [_Variance(float(s.var(ddof=1)) / len(s), len(s) - 1) for s in samples if len(s) > 1]
    return sum(known, _Variance())


def _rest(values: np.ndarray) -> _Variance:
    """Return what neither networks nor chips explain, as part of the variance of the mean."""
    networks, chips = values.shape
    if networks < 2 or chips < 2:
        return _Variance()
    left = values - values.mean(1, keepdims=True) - values.mean(0, keepdims=True) + values.mean()
    freedom = (networks - 1) * (chips - 1)
    return _Variance(float(np.square(left).sum()) / freedom / values.size, freedom)
