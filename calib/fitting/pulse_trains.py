"""Trains of pulses out of a Measurement's node pulses: what belongs together, and in which direction it goes."""

from dataclasses import dataclass

import numpy as np
import xarray as xr

from calib.pulse_laws import POLARITIES as POLARITIES

MINIMUM_READINGS = 10
"""A train with fewer readings has no degree of freedom left beside seven parameters and AICc."""
SAME_PULSE = 0.01
"""Amplitudes and widths of a train that differ by less than this, relative to the median, are identical pulses."""
_FEWEST = 2  # readings of a train that is listed at all
_NO_CHANGE = 1e-9
_LARGEST, _SMALLEST = 1e30, 1e-30  # beyond these a number is no conductance, and no change of one


@dataclass(frozen=True)
class Train:
    """One train of pulses of one direction.

    Attributes
    ----------
    device, cycle, polarity : where it belongs; polarity is one of `POLARITIES`, '' where G does not change.
    pulse : (reading,) number of pulses applied between the train's first reading and this one.
    conductance : (reading,) mean over repeated reads.
    read_variance : variance of one read, pooled over pulses, from repeated reads; NaN where there are none.
    read_freedom : its degrees of freedom.
    reads : mean number of reads after a pulse.
    identical : whether all pulses of the train are alike.
    drive : (reading,) V^2 t [V^2 s] of the pulses between the reading before and this one, None where not measured.
    """

    device: str
    cycle: int
    polarity: str
    pulse: np.ndarray
    conductance: np.ndarray
    read_variance: float
    read_freedom: int
    reads: float
    identical: bool
    drive: np.ndarray | None = None

    @property
    def fits(self) -> bool:
        """Whether a law of identical pulses can be fitted."""
        return self.identical and bool(self.polarity) and len(self.conductance) >= MINIMUM_READINGS


def trains_of(node: xr.Dataset) -> list[Train]:
    """Return the trains of a node pulses; a sequence whose amplitude changes sign is several trains."""
    found = []
    reads = node["conductance"].values
    pulse_numbers = _pulse_numbers(node)
    named = np.char.lower(np.char.strip(node["polarity"].values.astype(str)))
    for row in range(len(reads)):
        values = np.where(np.abs(reads[row]) < _LARGEST, reads[row], np.nan)
        seen = np.flatnonzero(np.isfinite(values).any(axis=1))
        for part in _runs(node, row, seen):
            if len(part) < _FEWEST:
                continue
            found.append(_train(node, row, part, values[part], pulse_numbers[row, part], str(named[row])))
    return found


def _pulse_numbers(node: xr.Dataset) -> np.ndarray:
    """Return how many pulses were applied up to each reading: the sum of the counts, or the readings' own numbers."""
    shape = node["conductance"].shape[:2]
    if "count" in node:
        count = node["count"].values.astype(float)
        return np.cumsum(np.where(np.isfinite(count) & (count > 0), count, 1.0), axis=1)
    return np.broadcast_to(np.arange(1.0, shape[1] + 1), shape)


def _runs(node: xr.Dataset, row: int, seen: np.ndarray) -> list[np.ndarray]:
    """Return the indices of the readings of each train: one train, or one for each sign of the amplitude."""
    if "amplitude" not in node or not len(seen):
        return [seen]
    sign = np.sign(np.nan_to_num(node["amplitude"].values[row, seen]))
    return np.split(seen, np.flatnonzero(np.diff(sign) != 0) + 1)


def _train(node: xr.Dataset, row: int, part: np.ndarray, values: np.ndarray, pulse: np.ndarray, named: str) -> Train:
    count = np.isfinite(values).sum(axis=1)
    mean = np.nanmean(values, axis=1)
    freedom = int((count - 1).sum())
    squares = float(np.nansum((values - mean[:, None]) ** 2))
    return Train(
        device=str(node["device"].values[row]),
        cycle=int(node["cycle"].values[row]),
        polarity=_polarity(mean, named),
        pulse=pulse - pulse[0],
        conductance=mean,
        read_variance=squares / freedom if freedom else float("nan"),
        read_freedom=freedom,
        reads=float(count.mean()),
        identical=all(_same(node, name, row, part) for name in ("amplitude", "width")),
        drive=_drive(node, row, part, pulse),
    )


def _drive(node: xr.Dataset, row: int, part: np.ndarray, pulse: np.ndarray) -> np.ndarray | None:
    """Return V^2 t of the pulses between two readings; pulses that were not read in between are like the next one."""
    if not {"amplitude", "width"} <= set(node):
        return None
    amplitude, width = (node[name].values[row, part].astype(float) for name in ("amplitude", "width"))
    return amplitude**2 * width * np.diff(pulse, prepend=pulse[0])


def _polarity(mean: np.ndarray, named: str) -> str:
    """Return the direction that the source states, or that of the readings: the last tenth against the first.

    Where these are alike, the second half is taken against the first.
    """
    if not np.ptp(mean) > max(_NO_CHANGE * np.abs(mean).max(), _SMALLEST):
        return ""
    if named in POLARITIES:
        return named
    few = max(1, len(mean) // 10)
    rise = float(np.median(mean[-few:]) - np.median(mean[:few]))
    half = len(mean) // 2
    rise = rise or float(mean[half:].mean() - mean[:half].mean())
    return POLARITIES[0] if rise > 0 else POLARITIES[1]


def _same(node: xr.Dataset, name: str, row: int, part: np.ndarray) -> bool:
    """Say whether a setting is the same for all pulses of a train; the first reading may be from before them."""
    if name not in node:
        return True
    values = node[name].values[row, part[1:]]
    values = values[np.isfinite(values)]
    return not len(values) or bool(np.ptp(values) <= SAME_PULSE * abs(float(np.median(values))))


@dataclass(frozen=True)
class Trains:
    """Readings of many trains, one after another.

    Attributes
    ----------
    y : (reading,) conductance after each pulse, mean over repeated reads.
    x : (reading,) share of the train's pulses that were applied, 0 at its first reading and 1 at its last.
    owner : (reading,) train of each reading, sorted from 0.
    read_variance : (train,) variance of y due to reading, from repeated reads.
    read_freedom : (train,) its degrees of freedom, 0 where readings were not repeated.
    """

    y: np.ndarray
    x: np.ndarray
    owner: np.ndarray
    read_variance: np.ndarray
    read_freedom: np.ndarray

    def take(self, rows: np.ndarray) -> "Trains":
        """Return some of the trains."""
        readings = np.isin(self.owner, rows)
        owner = np.searchsorted(rows, self.owner[readings])
        return Trains(self.y[readings], self.x[readings], owner, self.read_variance[rows], self.read_freedom[rows])

    @property
    def first(self) -> np.ndarray:
        """Index of each train's first reading."""
        return np.flatnonzero(np.diff(self.owner, prepend=-1))

    @property
    def count(self) -> np.ndarray:
        """Readings of each train."""
        return np.bincount(self.owner)


def joined(trains: list[Train]) -> Trains:
    """Return trains one after another, as the fit takes them."""
    freedom = np.array([train.read_freedom for train in trains], dtype=float)
    variance = np.array([train.read_variance / train.reads for train in trains])
    return Trains(
        y=np.concatenate([train.conductance for train in trains]),
        x=np.concatenate([train.pulse / train.pulse[-1] for train in trains]),
        owner=np.repeat(np.arange(len(trains)), [len(train.pulse) for train in trains]),
        read_variance=np.where(variance > 0, variance, np.nan),
        read_freedom=np.where(variance > 0, freedom, 0.0),
    )
