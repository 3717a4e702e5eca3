"""Slope of the noise spectrum of conductance traces: S(f) = A / f^alpha + white noise."""

from dataclasses import dataclass

import numpy as np
from scipy import signal
from scipy.optimize import least_squares

MINIMUM_READS = 256
SEGMENTS = 8
BINS_PER_DECADE = 8
LOWEST = 2
"""The lowest frequencies of a segment, which the removal of its mean and line distorts, are not used."""


@dataclass(frozen=True)
class Spectrum:
    """Spectral density of the relative conductance fluctuation, and its law.

    Attributes
    ----------
    frequency, density : (bin,) in Hz and 1/Hz, or per read where the interval is not known.
    alpha, alpha_stderr : exponent of the coloured part.
    level : density of the coloured part at the lowest bin.
    white : density of the white part, 0 where none is needed.
    misfit : chi^2 per degree of freedom.
    """

    frequency: np.ndarray
    density: np.ndarray
    alpha: float
    alpha_stderr: float
    level: float
    white: float
    misfit: float


def spectrum(relative: np.ndarray, interval: float) -> Spectrum | None:
    """Return the spectrum of an evenly read trace of relative fluctuations, None where it is too short.

    Welch's estimate with Hann windows of an eighth of the trace, half overlapping, each less its own line (P. D. Welch,
    IEEE Trans. Audio Electroacoust. 15, 70 (1967), doi 10.1109/TAU.1967.1161901), is averaged in bins of log frequency.
    ln S is fitted with A / f^alpha and with A / f^alpha + W by weighted least squares; the smaller AICc decides. The
    variance of ln S of a bin is one over the number of independent values in it.

    Parameters
    ----------
    relative : (n,) fluctuation divided by the mean, without drift.
    interval : [s] between reads, or 1 where it is not known.
    """
    n = len(relative)
    if n < MINIMUM_READS or not relative.std() > 0:
        return None
    length = 2 * n // (SEGMENTS + 1)
    f, density = signal.welch(relative, 1 / interval, window="hann", nperseg=length, detrend="linear")
    f, density = f[LOWEST:-1], density[LOWEST:-1]
    bins = np.floor(np.log10(f / f[0]) * BINS_PER_DECADE + 1e-9).astype(int)
    _, start, count = np.unique(bins, return_index=True, return_counts=True)
    mean = np.add.reduceat(density, start) / count
    centre = np.exp(np.add.reduceat(np.log(f), start) / count)
    averages = 0.53 * SEGMENTS * np.maximum(count / 1.5, 1.0)  # Hann: half overlap is worth 0.53, a line is 1.5 wide
    use = mean > 0
    if use.sum() < 5:
        return None
    return _fitted(centre[use], mean[use], averages[use])


def _fitted(f: np.ndarray, density: np.ndarray, averages: np.ndarray) -> Spectrum:
    x, y, weight = np.log(f / f[0]), np.log(density), np.sqrt(averages)

    def coloured(u: np.ndarray) -> np.ndarray:
        return weight * (u[0] - u[1] * x - y)

    def with_white(u: np.ndarray) -> np.ndarray:
        return weight * (np.logaddexp(u[0] - u[1] * x, u[2]) - y)

    plain = least_squares(coloured, [y[0], 1.0])
    fits = [plain, least_squares(with_white, [y[0], max(float(plain.x[1]), 0.5), float(y[-3:].mean())])]
    n = len(x)
    criteria = [
        2 * fit.cost + 2 * k + 2 * k * (k + 1) / max(n - k - 1, 1e-9) for fit, k in zip(fits, (2, 3), strict=True)
    ]
    best = fits[int(np.argmin(criteria))]
    freedom = n - len(best.x)
    misfit = 2 * best.cost / freedom
    covariance = np.linalg.pinv(best.jac.T @ best.jac) * max(misfit, 1.0)
    white = float(np.exp(best.x[2])) if len(best.x) == 3 else 0.0
    return Spectrum(
        f, density, float(best.x[1]), float(np.sqrt(covariance[1, 1])), float(np.exp(best.x[0])), white, float(misfit)
    )
