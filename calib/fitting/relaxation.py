"""Relaxation after programming: how the conductances of a population shift and broaden with time."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from calib.fitting.traces import Traces, at_times, time_groups

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
BROADENING = ("power", "logarithmic")
MEANINGS = {
    "power": "sigma^2 = first * t^(2 second), t in s; first in S^2",
    "logarithmic": "sigma^2 = first + second ln(t / t1), t1 the first time; both in S^2",
}
SHIFTS = {
    "power": "mean = first * t^second, t in s; first in S",
    "logarithmic": "mean = first + second ln(t / 1 s); both in S",
}
TRACES_PER_RANGE = 50
MOST_RANGES = 8
FEWEST = 5
"""Traces that a mean and a spread at one time take."""


@dataclass(frozen=True)
class Relaxation:
    """Shift G(t) - G(first read) of a population by conductance range and time, and its laws.

    Attributes
    ----------
    edges : (range, 2) conductance [S] of the first reads.
    centre : (range,) median first read [S].
    time : (time,) [s].
    n : (range, time).
    mean, mean_stderr, std, std_stderr : (range, time) [S].
    quantile : (range, time, quantile) [S].
    law, shift_law : 'power' or 'logarithmic', of sigma^2 and of the mean, or '' where the times are too few.
    broadening, broadening_covariance : (range, 2) coefficients of the law of sigma^2, (range, 2, 2).
    misfit : (range,) sum of squared deviations of ln sigma in standard errors, per degree of freedom.
    criterion : (law,) AIC of both laws over all ranges.
    shift, shift_covariance : (range, 2), (range, 2, 2) coefficients of the law of the mean.
    first, values, member : (trace,) first read, (trace, time) shift [S], (trace,) range.
    """

    edges: np.ndarray
    centre: np.ndarray
    time: np.ndarray
    n: np.ndarray
    mean: np.ndarray
    mean_stderr: np.ndarray
    std: np.ndarray
    std_stderr: np.ndarray
    quantile: np.ndarray
    law: str
    shift_law: str
    broadening: np.ndarray
    broadening_covariance: np.ndarray
    misfit: np.ndarray
    criterion: np.ndarray
    shift: np.ndarray
    shift_covariance: np.ndarray
    first: np.ndarray
    values: np.ndarray
    member: np.ndarray

    def outside(
        self, horizon: float, thresholds: tuple[float, ...], broadening: np.ndarray, shift: np.ndarray
    ) -> np.ndarray:
        """Return the fraction of traces whose relative change exceeds each threshold at a time [s].

        The shifts measured at the nearest time are moved and widened by the laws, m(t) + s(t) / s(t_k) (x - m(t_k)), so
        that their distribution keeps its form.
        """
        m, s = self.shift_at(horizon, shift), self.sigma(horizon, broadening)
        out, total = np.zeros(len(thresholds)), 0
        for k in range(len(self.centre)):
            known = np.flatnonzero(np.isfinite(self.std[k]))
            if not np.isfinite(m[k] + s[k]) or not len(known):
                continue
            column = known[np.argmin(np.abs(np.log(self.time[known] / horizon)))]
            x, first = self.values[self.member == k, column], self.first[self.member == k]
            scaled = m[k] + s[k] / self.std[k, column] * (x - self.mean[k, column])
            change = np.abs(scaled / first)[np.isfinite(x)]
            out += [(change > threshold).sum() for threshold in thresholds]
            total += len(change)
        return out / max(total, 1)

    def sigma(self, time: float, coefficients: np.ndarray | None = None) -> np.ndarray:
        """Return (range,) the standard deviation [S] of the shift at a time [s]."""
        c = self.broadening if coefficients is None else coefficients
        return np.sqrt(np.maximum(_variance(self.law, c[..., 0], c[..., 1], time, self.time[0]), 0.0))

    def shift_at(self, time: float, coefficients: np.ndarray | None = None) -> np.ndarray:
        """Return (range,) the mean shift [S] at a time [s]."""
        c = self.shift if coefficients is None else coefficients
        return _mean(self.shift_law, c[..., 0], c[..., 1], time)


def relaxation(traces: Traces) -> Relaxation | None:
    """Return the shift and broadening of timed traces, None where fewer than `FEWEST` share a time.

    Traces are divided by their first read into ranges of equal number, at most eight, of at least fifty each. A trace
    enters each time with the mean of its reads nearest to it. The standard error of a standard deviation s of n values
    with kurtosis k is s sqrt((k - 1) / (4 n)).
    """
    centres = time_groups(traces.time)
    first = traces.g[:, 0]
    if not len(centres) or len(first) < FEWEST:
        return None
    values = at_times(traces, centres)
    values[traces.time[:, 0] > 0, 0] = np.nan  # the first read is the reference: its own shift says nothing
    shift = values - first[:, None]
    n_ranges = int(np.clip(len(first) // TRACES_PER_RANGE, 1, MOST_RANGES))
    edges = np.unique(np.quantile(first, np.linspace(0, 1, n_ranges + 1)))
    edges = edges if len(edges) > 1 else np.repeat(edges, 2)
    member = np.clip(np.searchsorted(edges, first, side="right") - 1, 0, len(edges) - 2)
    edges = np.append(edges[np.unique(member)], edges[-1])  # first reads that are equal leave ranges empty
    n_ranges = len(edges) - 1
    member = np.clip(np.searchsorted(edges, first, side="right") - 1, 0, n_ranges - 1)
    shape = (n_ranges, len(centres))
    n = np.zeros(shape, dtype=np.int64)
    mean, mean_stderr, std, std_stderr = (np.full(shape, np.nan) for _ in range(4))
    quantile = np.full((*shape, len(QUANTILES)), np.nan)
    for place in np.ndindex(shape):
        x = shift[member == place[0], place[1]]
        x = x[np.isfinite(x)]
        n[place] = len(x)
        if len(x) < FEWEST or not x.std() > 0:
            continue
        mean[place], std[place] = x.mean(), x.std(ddof=1)
        mean_stderr[place] = std[place] / np.sqrt(len(x))
        kurtosis = max(float(np.mean((x - x.mean()) ** 4) / x.var() ** 2), 3.0 if len(x) < 20 else 1.2)
        std_stderr[place] = std[place] * np.sqrt((kurtosis - 1) / (4 * len(x)))
        quantile[place] = np.quantile(x, QUANTILES)
    kept = np.isfinite(std).any(axis=0)
    if not kept.any():
        return None
    n, mean, mean_stderr, std, std_stderr = (table[:, kept] for table in (n, mean, mean_stderr, std, std_stderr))
    laws = _laws(centres[kept], mean, mean_stderr, std, std_stderr)
    middle = np.array([np.median(first[member == k]) if (member == k).any() else np.nan for k in range(n_ranges)])
    limits = np.stack([edges[:-1], edges[1:]], axis=1)
    return Relaxation(
        edges=limits, centre=middle, time=centres[kept], n=n, mean=mean, mean_stderr=mean_stderr, std=std,
        std_stderr=std_stderr, quantile=quantile[:, kept], first=first, values=shift[:, kept], member=member, **laws,
    )  # fmt: skip


def _variance(law: str, first, second, time, start: float):
    if law == "power":
        return first * time ** (2 * second)
    return first + second * np.log(time / start)


def _mean(law: str, first, second, time):
    return first * time**second if law == "power" else first + second * np.log(time)


_Fit = tuple[np.ndarray, np.ndarray, float, float]


def _laws(
    time: np.ndarray, mean: np.ndarray, mean_stderr: np.ndarray, std: np.ndarray, std_stderr: np.ndarray
) -> dict[str, Any]:
    """Return the better laws of broadening and of the mean shift, by AIC over all ranges, with their coefficients."""
    ranges = range(len(std))
    wide = {law: [_broadening(law, time, std[k], std_stderr[k]) for k in ranges] for law in BROADENING}
    moved = {law: [_shift(law, time, mean[k], mean_stderr[k]) for k in ranges] for law in BROADENING}
    law, criterion = _better(wide)
    shift_law, _ = _better(moved)
    width, shift = wide[law or "power"], moved[shift_law or "logarithmic"]
    return {
        "law": law, "shift_law": shift_law, "criterion": criterion,
        "broadening": np.array([fit[0] for fit in width]),
        "broadening_covariance": np.array([fit[1] for fit in width]),
        "misfit": np.array([fit[2] for fit in width]),
        "shift": np.array([fit[0] for fit in shift]),
        "shift_covariance": np.array([fit[1] for fit in shift]),
    }  # fmt: skip


def _better(fits: dict[str, list[_Fit]]) -> tuple[str, np.ndarray]:
    """Return the law of the smallest AIC summed over the ranges that all laws fit, '' where there is none."""
    table = np.array([[fit[3] for fit in fits[law]] for law in BROADENING])
    both = np.isfinite(table).all(axis=0)
    if not both.any():
        return "", np.full(len(BROADENING), np.nan)
    criterion = table[:, both].sum(axis=1)
    return BROADENING[int(np.argmin(criterion))], criterion


def _nothing() -> _Fit:
    return np.full(2, np.nan), np.full((2, 2), np.nan), np.nan, np.nan


def _shift(law: str, time: np.ndarray, mean: np.ndarray, stderr: np.ndarray) -> _Fit:
    """Return the coefficients of the mean shift, their covariance, the misfit per degree of freedom and AIC."""
    ok = np.isfinite(mean) & (stderr > 0)
    if ok.sum() < 3:
        return _nothing()
    t, m, w = time[ok], mean[ok], 1 / stderr[ok]
    scale = float(np.abs(m).max()) or 1.0

    def residual(u: np.ndarray) -> np.ndarray:
        return w * (scale * _mean(law, u[0], u[1], t / t[-1]) - m)

    start = [m[-1] / scale, 0.2] if law == "power" else [m[-1] / scale, (m[-1] - m[0]) / scale / np.log(t[-1] / t[0])]
    bounds = ([-np.inf, -2.0], [np.inf, 2.0]) if law == "power" else ([-np.inf] * 2, [np.inf] * 2)
    fit = least_squares(residual, start, bounds=bounds)
    chi2, freedom = float(2 * fit.cost), int(ok.sum()) - 2
    covariance = np.linalg.pinv(fit.jac.T @ fit.jac) * max(chi2 / freedom, 1.0)
    first, second = fit.x
    log = np.log(t[-1])
    if law == "power":  # from t / t_last to t in s
        factor = scale * t[-1] ** -second
        own, change = np.array([factor * first, second]), np.array([[factor, -factor * first * log], [0.0, 1.0]])
    else:
        own = scale * np.array([first - second * log, second])
        change = scale * np.array([[1.0, -log], [0.0, 1.0]])
    return own, change @ covariance @ change.T, chi2 / freedom, chi2 + 4


def _broadening(law: str, time: np.ndarray, std: np.ndarray, stderr: np.ndarray) -> _Fit:
    """Return the coefficients of sigma^2(t), their covariance, the misfit per degree of freedom and AIC."""
    ok = np.isfinite(std) & (stderr > 0)
    if ok.sum() < 3:
        return _nothing()
    t, s, weight = time[ok], np.log(std[ok]), std[ok] / stderr[ok]
    scale = float(std[ok][0] ** 2)

    def residual(u: np.ndarray) -> np.ndarray:
        variance = _variance(law, scale * np.exp(u[0]), u[1] if law == "power" else scale * u[1], t, time[0])
        return weight * (0.5 * np.log(np.maximum(variance, 1e-12 * scale)) - s)

    slope = float(np.polyfit(np.log(t), s, 1)[0]) if law == "power" else float(
        (std[ok][-1] ** 2 / scale - 1) / max(np.log(t[-1] / time[0]), 1e-3)
    )  # fmt: skip
    fit = least_squares(residual, [0.0, slope], x_scale=[1.0, max(abs(slope), 0.01)])
    chi2 = float(2 * fit.cost)
    freedom = int(ok.sum()) - 2
    u = np.linalg.pinv(fit.jac.T @ fit.jac) * max(chi2 / freedom, 1.0)
    to_own = np.diag([scale * np.exp(fit.x[0]), 1.0 if law == "power" else scale])
    own = np.array([scale * np.exp(fit.x[0]), fit.x[1] * (1.0 if law == "power" else scale)])
    return own, to_own @ u @ to_own, chi2 / freedom, chi2 + 4
