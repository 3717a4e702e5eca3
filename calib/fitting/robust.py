"""Robust losses: how much a residual of r standard deviations costs, and what that means for standard errors.

With z = (r / C)^2 and C the `f_scale`, the cost is sum_i C^2 rho(z_i), twice that of `scipy.optimize.least_squares`,
whose definitions of rho these are:

    linear    rho = z                                     soft_l1   rho = 2 (sqrt(1 + z) - 1)
    huber     rho = z, or 2 sqrt(z) - 1 where z > 1       cauchy    rho = ln(1 + z)

The influence of a point is psi(r) = rho'(z) r and its slope psi'(r) = rho'(z) + 2 z rho''(z); both are those of least
squares, r and 1, for small r.

Standard errors are those of an M-estimate (P. J. Huber, Robust Statistics, Wiley 1981, section 7.6, eq. 6.5, doi
10.1002/0471725250): covariance = v (J^T J)^-1 with

    v = K^2 (sum psi^2 / (n - p)) / mean(psi')^2,    K = 1 + (p / n) var(psi') / mean(psi')^2,

which is s^2 (J^T J)^-1 for the linear loss. It holds for independent residuals of one distribution, symmetric about
zero, normal or not. Where the standard deviations of the points are taken as known, v is that of a normal distribution
of standard deviation one, E[psi^2] / E[psi']^2, which is 1 for the linear loss.
"""

from collections.abc import Callable

import numpy as np

from calib.errors import OptionError

Rho = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray, np.ndarray]]


def _linear(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return z, np.ones_like(z), np.zeros_like(z)


def _soft_l1(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    root = np.sqrt(1 + z)
    return 2 * z / (root + 1), 1 / root, -0.5 / root**3


def _huber(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inside = z <= 1
    root = np.sqrt(np.where(inside, 1.0, z))
    return np.where(inside, z, 2 * root - 1), 1 / root, np.where(inside, 0.0, -0.5 / root**3)


def _cauchy(z: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    inverse = 1 / (1 + z)
    return np.log1p(z), inverse, -inverse * inverse


LOSSES: dict[str, Rho] = {"linear": _linear, "soft_l1": _soft_l1, "huber": _huber, "cauchy": _cauchy}
"""rho, rho' and rho'' by name."""
LEAST_CURVATURE = 0.01
"""Smallest curvature of the cost that a point counts with, relative to rho'; it is negative for outliers."""


def check_loss(loss: str, f_scale: float) -> None:
    """Refuse a loss that does not exist, or a scale that is not positive.

    Raises
    ------
    OptionError
        When either is wrong.
    """
    if loss not in LOSSES:
        raise OptionError(f"there is no loss '{loss}'; choose one of {', '.join(LOSSES)}")
    if not (np.isfinite(f_scale) and f_scale > 0):
        raise OptionError(
            f"f_scale is {f_scale}; give a positive number: the residual in sigmas from which on it is soft"
        )


def cost_influence_curvature(
    residual: np.ndarray, loss: str, f_scale: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return C^2 rho(z), psi(r) and psi'(r) of residuals r in units of their standard deviation; same shape."""
    z = np.square(residual / f_scale)
    rho, first, second = LOSSES[loss](z)
    return f_scale**2 * rho, first * residual, first + 2 * z * second


def variance_factor(
    residual: np.ndarray, used: np.ndarray, n_free: np.ndarray, loss: str, f_scale: float
) -> np.ndarray:
    """Return Huber's v, (curve,), from the residuals (curve, point) of the points `used`, and n - p.

    NaN where no degree of freedom is left or where the points' influence has no slope on average.
    """
    _, psi, slope = cost_influence_curvature(residual, loss, f_scale)
    n = used.sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(used, slope, 0.0).sum(1) / n
        variance = np.where(used, (slope - mean[:, None]) ** 2, 0.0).sum(1) / n
        k = 1 + (n - n_free) / n * variance / mean**2
        v = k**2 * np.where(used, psi**2, 0.0).sum(1) / n_free / mean**2
    return np.where((n_free > 0) & (mean > 0), v, np.nan)


def normal_variance_factor(loss: str, f_scale: float) -> float:
    """Return E[psi^2] / E[psi']^2 of a normal distribution of standard deviation one."""
    r = np.linspace(-12, 12, 24_001)
    _, psi, slope = cost_influence_curvature(r, loss, f_scale)
    weight = np.exp(-0.5 * r * r)
    weight /= weight.sum()
    return float((weight * psi**2).sum() / (weight * slope).sum() ** 2)
