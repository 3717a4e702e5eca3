"""Conductance traces as arrays: times since the first read, groups of like times, bins of log time, drift removed."""

import math
from dataclasses import dataclass

import numpy as np
import xarray as xr

CLOCK_TIME = 1e8
"""[s] Times beyond this (three years) are those of a clock, not times since programming."""
EVEN_SAMPLING = 0.2
"""Sampling is even when the 5 and 95 % quantiles of its intervals lie within this fraction of the median."""
LONG_TRACE = 60
"""A trace of more samples is averaged in bins of log time before a drift law is fitted."""
BINS_PER_DECADE = 8


@dataclass(frozen=True)
class Traces:
    """Reads as arrays, each trace sorted by time, what is missing at the end.

    Attributes
    ----------
    g : (trace, sample) conductance [S], NaN where none was read.
    time : (trace, sample) [s]; NaN where not known.
    device : (trace,) text.
    origin : what time 0 is, in words; '' where no times are known.
    """

    g: np.ndarray
    time: np.ndarray
    device: np.ndarray
    origin: str

    @property
    def timed(self) -> np.ndarray:
        """Return (trace,) whether all reads of a trace have a time, and those differ."""
        seen = np.isfinite(self.g)
        known = ~(seen & ~np.isfinite(self.time)).any(axis=1) & (seen.sum(axis=1) > 1)
        low = np.min(np.where(np.isfinite(self.time), self.time, np.inf), axis=1, initial=np.inf)
        high = np.max(np.where(np.isfinite(self.time), self.time, -np.inf), axis=1, initial=-np.inf)
        return known & (high > low)

    @property
    def count(self) -> np.ndarray:
        """Return (trace,) the number of reads."""
        return np.isfinite(self.g).sum(axis=1)


def traces_of(reads: xr.Dataset) -> Traces:
    """Return the traces of a reads node; times of a clock are counted from each trace's first read."""
    g = np.where(np.isfinite(reads["conductance"].values), reads["conductance"].values, np.nan)
    time = reads["time"].values.astype(float) if "time" in reads else np.full(g.shape, np.nan)
    time = np.where(np.isfinite(g), time, np.nan)
    key = np.where(np.isfinite(g), np.where(np.isfinite(time), time, -np.inf), np.inf)
    if (key[:, 1:] < key[:, :-1]).any():
        order = np.argsort(key, axis=1, kind="stable")
        g, time = np.take_along_axis(g, order, axis=1), np.take_along_axis(time, order, axis=1)
    origin = ""
    if np.isfinite(time).any():
        first = np.min(np.where(np.isfinite(time), time, np.inf), axis=1, keepdims=True)
        clock = np.isfinite(first) & ((first > CLOCK_TIME) | (first < 0))
        time = np.where(clock, time - first, time)
        origin = "the first read of each trace" if clock.any() else "as given in the file"
        if not clock.any() and float(first[np.isfinite(first)].min()) == 0:
            origin = "as given in the file, whose first read is at 0 s"
    return Traces(g, time, reads["device"].values.astype(str), origin)


def sampling_interval(time: np.ndarray) -> float:
    """Return the interval [s] of an evenly sampled trace, NaN where times are unknown or uneven."""
    steps = np.diff(time[np.isfinite(time)])
    if len(steps) < 2:
        return math.nan
    low, middle, high = np.quantile(steps, [0.05, 0.5, 0.95])
    even = middle > 0 and low >= (1 - EVEN_SAMPLING) * middle and high <= (1 + EVEN_SAMPLING) * middle
    return float(middle) if even else math.nan


def time_groups(time: np.ndarray, *, gap: float = 0.25, width: float = 1.0) -> np.ndarray:
    """Return the centres [s] of the groups into which positive times fall.

    Two neighbouring times farther apart than `gap` decades are of different groups; a group wider than `width` decades
    is cut into pieces of half a decade.
    """
    logs = np.sort(np.log10(time[np.isfinite(time) & (time > 0)]))
    if not len(logs):
        return np.zeros(0)
    centres = []
    for part in np.split(logs, np.flatnonzero(np.diff(logs) > gap) + 1):
        if part[-1] - part[0] <= width:
            centres.append(float(np.median(part)))
            continue
        edges = np.arange(part[0], part[-1] + 0.5, 0.5)
        pieces = np.split(part, np.searchsorted(part, edges[1:-1]))
        centres += [float(np.median(piece)) for piece in pieces if len(piece)]
    return 10.0 ** np.array(centres)


def at_times(traces: Traces, centres: np.ndarray) -> np.ndarray:
    """Return (trace, group) each trace's mean conductance [S] over its reads nearest to each centre, NaN without."""
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log10(np.where(traces.time > 0, traces.time, np.nan))
    edges = (np.log10(centres[1:]) + np.log10(centres[:-1])) / 2
    group = np.searchsorted(edges, np.nan_to_num(logs, nan=-np.inf))
    valid = np.isfinite(logs) & np.isfinite(traces.g)
    index = (np.arange(len(traces.g))[:, None] * len(centres) + group)[valid]
    size = len(traces.g) * len(centres)
    count = np.bincount(index, minlength=size)
    total = np.bincount(index, traces.g[valid], minlength=size)
    mean = np.divide(total, count, out=np.full(size, np.nan), where=count > 0)
    return mean.reshape(len(traces.g), len(centres))


def log_binned(time: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of positive-time samples in bins of log time: (mean time [s], mean value), in order."""
    keep = np.isfinite(values) & np.isfinite(time) & (time > 0)
    t, v = time[keep], values[keep]
    if len(t) <= LONG_TRACE:
        return t, v
    bins = np.floor(np.log10(t / t[0]) * BINS_PER_DECADE).astype(int)
    _, start, count = np.unique(bins, return_index=True, return_counts=True)
    mean_log = np.add.reduceat(np.log(t), start) / count
    return np.exp(mean_log), np.add.reduceat(v, start) / count


def drift_removed(values: np.ndarray) -> tuple[np.ndarray, float]:
    """Return a trace less its drift, and its mean; the drift is a constant, a logarithm and a line in the read number.

    The three terms are fitted by least squares, so a residual of n reads has n - 3 degrees of freedom.
    """
    n = len(values)
    mean = float(values.mean())
    k = np.arange(n, dtype=float)
    basis = np.stack([np.ones(n), k / max(n - 1, 1), np.log1p(k)], axis=1)
    q, _ = np.linalg.qr(basis)
    centred = values - mean
    return centred - q @ (q.T @ centred), mean


def correlation_reads(residual: np.ndarray) -> float:
    """Return how many reads one independent read is worth: 1 + 2 sum of the autocorrelation up to its first zero."""
    n = len(residual)
    x = residual - residual.mean()
    power = float(x @ x)
    if n < 4 or power <= 0:
        return 1.0
    size = 1 << (2 * n - 1).bit_length()
    spectrum = np.fft.rfft(x, size)
    correlation = np.fft.irfft(np.abs(spectrum) ** 2, size)[:n] / power
    negative = np.flatnonzero(correlation <= 0)
    end = int(negative[0]) if len(negative) else n
    return float(np.clip(1 + 2 * correlation[1:end].sum(), 1.0, n / 2))
