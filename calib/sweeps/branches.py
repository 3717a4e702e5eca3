"""Cut traces into monotonic branches of |V| of one polarity, and number their cycles."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from calib.sweeps.rules import SweepRules

_QUARTILE = 0.3186  # lower quartile of |N(0, 1)|


@dataclass(frozen=True)
class Branches:
    """The branches of all traces as padded arrays.

    Attributes
    ----------
    index : (branch, point) position of each point in its trace, -1 for padding.
    trace : (branch,) trace that it is cut from.
    order : (branch,) its position there.
    cycle : (branch,) cycle within the trace, from 0.
    polarity, direction : (branch,) +1 or -1; direction is +1 where |V| grows.
    """

    index: NDArray[np.int64]
    trace: NDArray[np.int64]
    order: NDArray[np.int64]
    cycle: NDArray[np.int64]
    polarity: NDArray[np.int64]
    direction: NDArray[np.int64]


def tolerance(voltage: NDArray[np.float64], rules: SweepRules) -> float:
    """Return the reversal of the voltage [V] that noise alone may make.

    sigma = q / (0.3186 sqrt(6)), q being the lower quartile of |V[k+1] - 2 V[k] + V[k-1]|, which is zero for a regular
    staircase however many corners it has (down to three points a ramp).
    """
    span = float(np.ptp(voltage))
    if len(voltage) < rules.turn_points:
        return rules.zero_range * span
    sigma = float(np.quantile(np.abs(np.diff(voltage, 2)), 0.25)) / (_QUARTILE * np.sqrt(6.0))
    irregular = sigma > rules.turn_irregular * float(np.median(np.abs(np.diff(voltage))))
    smallest = rules.turn_measured if irregular else rules.zero_range
    return float(np.clip(rules.turn_noise * sigma, smallest * span, rules.turn_largest * span))


def cut(voltage: NDArray[np.float64], rules: SweepRules | None = None) -> NDArray[np.int64]:
    """Return where branches start in a trace, 0 first.

    A branch ends at a turning point of the voltage and where it changes sign. Of points that repeat the voltage of the
    turning point, or zero between two polarities, the first half (and the middle one) ends the branch before.

    Parameters
    ----------
    voltage : (point,) [V], finite.
    """
    rules = rules or SweepRules()
    if len(voltage) < 2:
        return np.zeros(min(len(voltage), 1), dtype=np.int64)
    smallest = rules.zero_range * float(np.ptp(voltage))
    noise = tolerance(voltage, rules)
    starts = {0, *_turns(voltage, noise, smallest), *_crossings(voltage, noise)}
    return np.array(sorted(start for start in starts if start < len(voltage)), dtype=np.int64)


def cut_all(voltages: Sequence[NDArray[np.float64]], rules: SweepRules) -> Branches:
    """Cut traces into branches; every point of every trace lies in exactly one branch."""
    pieces: list[NDArray[np.int64]] = []
    columns: dict[str, list[int]] = {name: [] for name in ("trace", "order", "cycle", "polarity", "direction")}
    for trace, voltage in enumerate(voltages):
        starts = cut(voltage, rules)
        stops = np.append(starts[1:], len(voltage))
        polarity, direction = _describe(voltage, starts, stops)
        pieces += [np.arange(start, stop) for start, stop in zip(starts, stops, strict=True)]
        columns["trace"] += [trace] * len(starts)
        columns["order"] += range(len(starts))
        columns["cycle"] += _cycles(polarity, direction)
        columns["polarity"] += polarity
        columns["direction"] += direction
    lengths = np.array([len(piece) for piece in pieces])
    index = np.full((len(pieces), int(lengths.max(initial=0))), -1, dtype=np.int64)
    index[np.arange(index.shape[1]) < lengths[:, None]] = np.concatenate(pieces)
    return Branches(index, **{name: np.array(values, dtype=np.int64) for name, values in columns.items()})


def _turns(voltage: NDArray[np.float64], noise: float, smallest: float) -> list[int]:
    """Return where a branch starts after each turning point: extremes between which the voltage moves beyond noise."""
    step = np.diff(voltage)
    moving = np.flatnonzero(np.abs(step) > smallest)
    if not len(moving):
        return []
    sign = np.sign(step[moving])
    changed = np.flatnonzero(sign[1:] != sign[:-1])
    # an extreme is the plateau from the end of one movement to the beginning of the opposite one
    first, last = moving[changed] + 1, moving[changed + 1]
    starts = []
    high = low = float(voltage[0])
    trend, at = 0, (0, 0)
    for begin, end, value in [*zip(first, last, voltage[first], strict=True), (-1, -1, float(voltage[-1]))]:
        reversal = value < high - noise if trend > 0 else value > low + noise if trend < 0 else False
        if reversal:
            starts.append(_middle(*at))
            trend = -trend
            high = low = value
            at = (begin, end)
        elif trend == 0 and abs(value - (low if value > high - (high - low) / 2 else high)) > noise:
            trend = 1 if value - low > high - value else -1
            at, high, low = (begin, end), value, value
        elif (trend > 0 and value >= high) or (trend < 0 and value <= low):
            at, high, low = (begin, end), value, value
        elif trend == 0:
            high, low = max(high, value), min(low, value)
    return starts


def _crossings(voltage: NDArray[np.float64], smallest: float) -> list[int]:
    """Return where a branch starts after the voltage has changed its sign."""
    sign = np.where(np.abs(voltage) <= smallest, 0, np.sign(voltage))
    filled = np.flatnonzero(sign)
    changed = np.flatnonzero(sign[filled[1:]] != sign[filled[:-1]])
    before, after = filled[changed], filled[changed + 1]
    return [b + 1 if a == b + 1 else _middle(b + 1, a - 1) for b, a in zip(before, after, strict=True)]


def _middle(begin: int, end: int) -> int:
    return int(begin) + (int(end) - int(begin) + 2) // 2


def _describe(
    voltage: NDArray[np.float64], starts: NDArray[np.int64], stops: NDArray[np.int64]
) -> tuple[list[int], list[int]]:
    polarity: list[int] = []
    direction: list[int] = []
    for start, stop in zip(starts, stops, strict=True):
        part = voltage[start:stop]
        extreme = part[np.argmax(np.abs(part))]
        following = voltage[stop] if stop < len(voltage) else 0.0
        polarity.append(-1 if (extreme or following or (polarity[-1] if polarity else 1)) < 0 else 1)
        change = abs(part[-1]) - abs(part[0])
        if change == 0:
            previous = direction[-1] if direction and polarity[-2] == polarity[-1] else -1
            change = -previous
        direction.append(1 if change > 0 else -1)
    return polarity, direction


def _cycles(polarity: Sequence[int], direction: Sequence[int]) -> list[int]:
    """Number cycles: a new one begins when a branch like the first one of the current cycle comes again."""
    cycles: list[int] = []
    first: tuple[int, int] | None = None
    current = 0
    for kind in zip(polarity, direction, strict=True):
        if first is None:
            first = kind
        elif kind == first:
            current += 1
        cycles.append(current)
    return cycles
