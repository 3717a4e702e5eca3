"""Laws of drift of single conductance traces, fitted to many traces at once."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq
from scipy.special import digamma, polygamma

from calib.fitting.traces import Traces, log_binned

LAWS = ("constant", "power", "logarithmic", "aged-power", "exponential")
MEANINGS = {
    "constant": "G = G0",
    "power": "G = G0 (t / t0)^-nu",
    "logarithmic": "G = G0 (1 - s ln(t / t0))",
    "aged-power": "G = G0 (1 + t / a)^-nu",
    "exponential": "ln G = c + d exp(-t / tau)",
}
N_PARAMETERS = {"constant": 1, "power": 2, "logarithmic": 2, "aged-power": 3, "exponential": 3}
"""Parameters of each law; the residual variance is one more."""
MINIMUM_TIMES = 3
FEW_FREEDOM = 8
"""From this number of degrees of freedom on the fit is robust, and the correlation of its residuals is counted."""
FEWEST_ALIKE = 8
"""Traces from which residual variances are averaged."""
N_GRID = 24
_HUBER = 1.345


@dataclass(frozen=True)
class DriftFits:
    """Per trace: the power law's exponent with its variance, and how well each law describes the trace.

    Attributes
    ----------
    ln_g : ln of the conductance [S] at `reference_time` on the fitted power law; NaN where the trace has no fit.
    exponent, variance : nu of G = G0 (t / t0)^-nu and the variance of its estimate.
    residual : standard deviation of ln G about the power law.
    n_times : times that the fit rests on (bins of log time for long traces).
    first, last : [s] smallest and largest positive time.
    aicc : (trace, law).
    reference_time : t0 [s], the median of the traces' first positive times.
    status : 'ok' or a sentence.
    """

    ln_g: np.ndarray
    exponent: np.ndarray
    variance: np.ndarray
    residual: np.ndarray
    n_times: np.ndarray
    first: np.ndarray
    last: np.ndarray
    aicc: np.ndarray
    reference_time: float
    status: np.ndarray

    @property
    def ok(self) -> np.ndarray:
        """Return (trace,) whether the trace has a drift exponent."""
        return np.isfinite(self.exponent)


def drift_fits(traces: Traces) -> DriftFits:
    """Fit the laws of drift to every trace by least squares of ln G on its positive times.

    A trace of many reads is averaged in bins of log time first, so that each decade counts alike. With eight or more
    times the power law is fitted with Huber's weights, with the variance that these have (P. J. Huber, Robust
    Statistics, 1981, section 7.6, doi 10.1002/0471725250), multiplied by (1 + r) / (1 - r), r being the
    correlation of neighbouring residuals. The residual variance s_i^2 is then averaged with s_0^2(G), that of traces
    of like conductance, (d_0 s_0^2 + f_i s_i^2) / (d_0 + f_i).
    """
    times, values, status = _arrays(traces)
    seen = np.isfinite(values)
    n = seen.sum(axis=1)
    fitted = n >= MINIMUM_TIMES
    first = np.min(np.where(seen, times, np.inf), axis=1, initial=np.inf)
    last = np.max(np.where(seen, times, -np.inf), axis=1, initial=-np.inf)
    fitted &= last > first
    reference = float(np.median(first[fitted])) if fitted.any() else float("nan")
    status[(status == "ok") & ~fitted] = f"fewer than {MINIMUM_TIMES} different times after 0 s"
    size = len(n)
    nan = np.full(size, np.nan)
    result = {key: nan.copy() for key in ("ln_g", "exponent", "variance", "residual")}
    aicc = np.full((size, len(LAWS)), np.nan)
    if fitted.any():
        rows = np.flatnonzero(fitted)
        t, y = times[rows], values[rows]
        with np.errstate(invalid="ignore"):
            x = np.log(t / reference)
        intercept, slope, residual, variance = _power(x, y)
        result["ln_g"][rows], result["exponent"][rows] = intercept, -slope
        result["residual"][rows], result["variance"][rows] = residual, variance
        aicc[rows] = _criteria(t, x, y, first[rows], last[rows])
    return DriftFits(
        **result, n_times=n, first=np.where(np.isfinite(first), first, np.nan),
        last=np.where(np.isfinite(last), last, np.nan), aicc=aicc, reference_time=reference, status=status,
    )  # fmt: skip


def _arrays(traces: Traces) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (trace, time) times and ln G, NaN where there is none, and a status of each trace."""
    status = np.full(len(traces.g), "ok", dtype="<U60")
    timed = traces.timed
    status[~timed] = "its times are not known"
    positive = ~(traces.g <= 0).any(axis=1)
    status[timed & ~positive] = "a conductance is not positive"
    valid = (timed & positive)[:, None] & np.isfinite(traces.g) & (traces.time > 0)
    if not valid.any() or valid.sum(axis=1).max() <= 60:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(valid, traces.time, np.nan), np.where(valid, np.log(traces.g), np.nan), status
    parts = [log_binned(t[keep], np.log(g[keep])) for t, g, keep in zip(traces.time, traces.g, valid, strict=True)]
    width = max(len(t) for t, _ in parts)
    times, values = np.full((len(parts), width), np.nan), np.full((len(parts), width), np.nan)
    for row, (t, v) in enumerate(parts):
        times[row, : len(t)], values[row, : len(t)] = t, v
    return times, values, status


def _line(x: np.ndarray, y: np.ndarray, w: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return intercept, slope and weighted sum of squares about the mean of x, of each row; weights 0 where missing."""
    x, y = np.where(w > 0, x, 0.0), np.where(w > 0, y, 0.0)
    total = np.maximum(w.sum(axis=1), 1e-300)
    mx, my = (w * x).sum(axis=1) / total, (w * y).sum(axis=1) / total
    dx = np.where(w > 0, x - mx[:, None], 0.0)
    sxx = (w * dx**2).sum(axis=1)
    slope = np.divide((w * dx * (y - my[:, None])).sum(axis=1), sxx, out=np.zeros_like(sxx), where=sxx > 0)
    return my - slope * mx, slope, sxx


def _residuals(x: np.ndarray, y: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return y - a - b x of each row, 0 where there is no value."""
    r = y - a[:, None] - b[:, None] * x
    return np.where(np.isfinite(r), r, 0.0)


def _power(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return intercept, slope, residual standard deviation and variance of the slope of each row."""
    seen = np.isfinite(y)
    n = seen.sum(axis=1)
    w = seen.astype(float)
    many = n - 2 >= FEW_FREEDOM
    a, b, sxx = _line(x, y, w)
    for _ in range(8 if many.any() else 0):
        r = _residuals(x, y, a, b)
        scale = 1.4826 * np.nanmedian(np.where(seen, np.abs(r), np.nan), axis=1)
        far = np.abs(r) / np.maximum(_HUBER * scale, 1e-300)[:, None]
        w = np.where(seen, np.where(many[:, None], 1 / np.maximum(far, 1.0), 1.0), 0.0)
        a, b, sxx = _line(x, y, w)
    r = _residuals(x, y, a, b)
    freedom = np.maximum(n - 2, 1)
    _, _, sxx = _line(x, y, seen.astype(float))
    whole = np.where(many, ((w >= 1) & seen).sum(axis=1) / np.maximum(n, 1), 1.0)  # reads that keep their weight
    s2 = np.square(w * r).sum(axis=1) / freedom / np.maximum(whole, 0.3) ** 2
    correlation = (r[:, 1:] * r[:, :-1]).sum(axis=1) / np.maximum((r**2).sum(axis=1), 1e-300)
    correlation = np.where(many, np.clip(correlation, 0.0, 0.9), 0.0)
    inflated = s2 * (1 + correlation) / (1 - correlation)
    # the estimated correlation makes a variance as uncertain as one of a third of the freedom
    variance = _moderated(inflated, np.where(many, freedom / 3, freedom), a)
    return a, b, np.sqrt(s2), variance / np.maximum(sxx, 1e-300)


def _moderated(s2: np.ndarray, freedom: np.ndarray, ln_g: np.ndarray) -> np.ndarray:
    """Return residual variances averaged with those of traces of like conductance.

    s_0^2(G) is a parabola of ln s^2 in ln G; its weight d_0 is what the scatter of ln s_i^2 about it, less the
    trigamma(f_i / 2) of estimation, leaves: traces that are alike share one variance, others keep their own
    (G. K. Smyth, Stat. Appl. Genet. Mol. Biol. 3, 3 (2004), doi 10.2202/1544-6115.1027).
    """
    use = (s2 > 0) & np.isfinite(ln_g)
    if use.sum() < FEWEST_ALIKE:
        return s2
    log = np.log(s2[use]) - (digamma(freedom[use] / 2) - np.log(freedom[use] / 2))
    centre, width = ln_g[use].mean(), max(float(ln_g[use].std()), 1e-12)
    order = 2 if len(np.unique(ln_g[use])) > 2 * FEWEST_ALIKE else 0
    law = np.polynomial.polynomial.polyfit((ln_g[use] - centre) / width, log, order)
    fitted = np.polynomial.polynomial.polyval((ln_g - centre) / width, law)
    scatter = float(np.square(log - fitted[use]).sum()) / (int(use.sum()) - order - 1)
    excess = scatter - float(polygamma(1, freedom[use] / 2).mean())
    if excess <= 1e-3:
        return np.exp(fitted)
    prior = 2 * float(brentq(lambda half: float(polygamma(1, half)) - excess, 1e-3, 1e4, full_output=True)[0])
    bias = float(digamma(prior / 2) - np.log(prior / 2))
    return (prior * np.exp(fitted + bias) + freedom * s2) / (prior + freedom)


def _criteria(t: np.ndarray, x: np.ndarray, y: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return (trace, law) AICc of the least-squares fits of ln G."""
    seen = np.isfinite(y)
    w = seen.astype(float)
    n = seen.sum(axis=1).astype(float)
    zero = np.zeros(len(n))
    mean = np.nansum(np.where(seen, y, 0.0), axis=1) / n
    squares = {"constant": np.square(_residuals(x, y, mean, zero)).sum(axis=1)}
    a, b, _ = _line(x, y, w)
    squares["power"] = np.square(_residuals(x, y, a, b)).sum(axis=1)
    relative = np.exp(np.where(seen, y, 0.0) - mean[:, None])
    a, b, _ = _line(x, relative, w)
    line = a[:, None] + b[:, None] * np.where(seen, x, 0.0)
    r = np.where(seen & (line > 0), y - mean[:, None] - np.log(np.where(line > 0, line, 1.0)), 0.0)
    squares["logarithmic"] = np.where((line > 0).all(axis=1), np.square(r).sum(axis=1), np.inf)
    for name in ("aged-power", "exponential"):
        best = np.full(len(n), np.inf)
        for step in np.linspace(0.0, 1.0, N_GRID):
            tau = np.exp((1 - step) * np.log(first / 3) + step * np.log(3 * last))[:, None]
            basis = np.log1p(t / tau) if name == "aged-power" else np.exp(-t / tau)
            a, b, _ = _line(basis, y, w)
            best = np.minimum(best, np.square(_residuals(basis, y, a, b)).sum(axis=1))
        squares[name] = best
    floor = 1e-24 * n
    result = np.full((len(n), len(LAWS)), np.inf)
    for column, name in enumerate(LAWS):
        k = N_PARAMETERS[name] + 1
        room = n - k - 1
        with np.errstate(divide="ignore", invalid="ignore"):
            value = n * np.log(np.maximum(squares[name], floor) / n) + 2 * k + 2 * k * (k + 1) / room
        result[:, column] = np.where(room > 0, value, np.inf)
    return result
