"""One line through the shape parameters of a state's curves against ln R, whose errors go together.

Where devices were measured in several cycles, the parameters may follow ln R differently between devices and from cycle
to cycle of one. The line is that of the population: E[t | ln R] of one cycle of one device, whose slope is that between
devices and that within them weighted with the variances of ln R that they belong to.
"""

from dataclasses import dataclass

import numpy as np

from calib.fitting.mixed_model import MixedFit, fit_mixed

_SEPARATE_SLOPES = 5
"""Devices from which on the slopes between and within devices are told apart."""
_NEGLIGIBLE = 0.01
"""Part of the variance of ln R below which a slope of its own would decide nothing."""


@dataclass(frozen=True)
class Responses:
    """The shape parameters of a state's curves as a line's responses: what is regressed on what, with which error.

    Attributes
    ----------
    t : (curve, parameter) all parameters, transformed.
    x : (curve,) ln(R / Ohm).
    error : (curve, parameter, parameter) estimation covariance in the fitted coordinates.
    chain : (curve, parameter) derivative of t by the fitted coordinates.
    gradient : (curve, parameter) derivative of ln R by the fitted coordinates.
    device : (curve,) labels.
    """

    t: np.ndarray
    x: np.ndarray
    error: np.ndarray
    chain: np.ndarray
    gradient: np.ndarray
    device: np.ndarray

    def calibrated(self, shape: list[int]) -> "Calibrated":
        """Return what a line is fitted to once the error of ln R itself is allowed for.

        ln R is read from the same fit as the shape: its error delta goes with that of t, and where the cycles of a
        device hardly differ it is most of what ln R varies by. Given the measured x, a device's true ln R lies at
        m + lambda (x - m), lambda = tau^2 / (tau^2 + delta^2), where m is the device's mean (that of all curves where
        devices do not repeat) and tau^2 the variance about it, and the error of t is expected at
        Cov(e, delta) (x - m) / (tau^2 + delta^2) (R. J. Carroll et al., Measurement Error in Nonlinear Models, 2nd
        ed., 2006, chapter 4).
        """
        chain = self.chain[:, shape]
        error = np.einsum("ci,cij,cj->cij", chain, self.error[:, shape][:, :, shape], chain)
        delta = np.einsum("ci,cij,cj->c", self.gradient, self.error, self.gradient)
        shared = np.einsum("ci,cij,cj->ci", chain, self.error[:, shape], self.gradient)
        own = fit_mixed(self.x[:, None], np.ones((len(self.x), 1)), delta[:, None, None], self.device)
        tau = float(own.within[0, 0])
        mean = np.full(len(self.x), self.x.mean())
        if own.separated:
            _, index = np.unique(self.device, return_inverse=True)
            mean = (np.bincount(index, self.x) / np.bincount(index))[index]
        variance = np.maximum(tau + delta, 1e-300)
        weight = np.where(delta > 0, tau / variance, 1.0)
        return Calibrated(
            t=self.t[:, shape] - shared * ((self.x - mean) / variance)[:, None],
            x=mean + weight * (self.x - mean), mean=mean, own=own,
            error=error, shared=shared, delta=delta, weight=weight, variance=variance,
        )  # fmt: skip


@dataclass(frozen=True)
class Calibrated:
    """Responses and regressor with the error of ln R allowed for."""

    t: np.ndarray
    x: np.ndarray
    mean: np.ndarray
    own: MixedFit
    error: np.ndarray
    shared: np.ndarray
    delta: np.ndarray
    weight: np.ndarray
    variance: np.ndarray

    def error_about(self, slope: np.ndarray) -> np.ndarray:
        """Return the covariance of t about the line by estimation, given the measured ln R, (curve, shape, shape)."""
        cross = np.einsum("i,cj->cij", slope, self.shared * self.weight[:, None])
        square = np.einsum("ci,cj,c->cij", self.shared, self.shared, 1 / self.variance)
        own = (self.weight * self.delta)[:, None, None] * np.outer(slope, slope)
        return self.error + own - cross - cross.transpose(0, 2, 1) - square


@dataclass(frozen=True)
class ShapeFit:
    """A line of the d shape parameters.

    Attributes
    ----------
    mixed : the fit behind it.
    at_centre, along : combination of its regressors that is the line's value at the centre, and its slope.
    extra : (d, d) covariance about the line because devices and cycles follow ln R differently.
    """

    mixed: MixedFit
    at_centre: np.ndarray
    along: np.ndarray
    extra: np.ndarray
    error: np.ndarray

    @property
    def value(self) -> np.ndarray:
        """(d,) the line at the centre."""
        return self.mixed.coefficients @ self.at_centre

    @property
    def slope(self) -> np.ndarray:
        """(d,) the line's slope."""
        return self.mixed.coefficients @ self.along

    @property
    def total(self) -> np.ndarray:
        """(d, d) covariance of one cycle of one device about the line."""
        return self.mixed.total + self.extra

    def spread(self, weights: np.ndarray) -> tuple[float, float, float, float]:
        """Return the standard deviation of a combination of the parameters, its standard error and interval."""
        more = float(weights @ self.extra @ weights)
        sigma, stderr, low, high = self.mixed.spread(weights)
        total = float(np.hypot(sigma, np.sqrt(more)))
        factor = sigma / total if total > 0 else 1.0
        return (
            total,
            stderr * factor if sigma > 0 else stderr,
            float(np.sqrt(low**2 + more)),
            float(np.sqrt(high**2 + more)),
        )


def regress(data: Responses, shape: list[int], centre: float) -> ShapeFit:
    """Return the line of the shape parameters on ln R - centre."""
    part = data.calibrated(shape)
    z, at_centre, along, within = _design(part, centre)
    slope = np.zeros(len(shape))
    for _ in range(4):  # the error of ln R enters through the slope
        error = part.error_about(slope)
        mixed = fit_mixed(part.t, z, error, data.device)
        new = mixed.coefficients @ within
        settled = (np.abs(new - slope) <= 1e-6 * (np.abs(new) + 1e-12)).all()
        slope = new
        if settled or not part.delta.any() or not within.any():
            break
    return ShapeFit(mixed, at_centre, along, _extra(part, mixed), error)


def _design(part: Calibrated, centre: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the regressors, and which of them are the value at the centre, the slope, and that within devices."""
    one, x = np.ones_like(part.x), part.x - centre
    if float(np.ptp(part.x)) < 1e-9:
        return one[:, None], np.ones(1), np.zeros(1), np.zeros(1)
    plain = np.array([0.0, 1.0])
    own = part.own
    outer, inner = float(own.between[0, 0]), float(own.within[0, 0])
    share = outer / max(outer + inner, 1e-300)
    if not own.separated or own.n_devices < _SEPARATE_SLOPES or share < _NEGLIGIBLE:
        return np.stack([one, x], axis=1), np.array([1.0, 0.0]), plain, plain
    if share > 1 - _NEGLIGIBLE:
        return np.stack([one, part.mean - centre], axis=1), np.array([1.0, 0.0]), plain, plain
    z = np.stack([one, part.mean - centre, part.x - part.mean], axis=1)
    return z, np.array([1.0, 0.0, 0.0]), np.array([0.0, share, 1 - share]), np.array([0.0, 0.0, 1.0])


def _extra(part: Calibrated, mixed: MixedFit) -> np.ndarray:
    """Return the covariance that a difference of the slopes leaves about the population's line, its error taken off."""
    d, q = mixed.coefficients.shape
    if q < 3:
        return np.zeros((d, d))
    outer, inner = float(part.own.between[0, 0]), float(part.own.within[0, 0])
    contrast = np.kron(np.eye(d), np.array([0.0, 1.0, -1.0]))
    difference = contrast @ mixed.coefficients.ravel()
    chi2 = float(difference @ np.linalg.pinv(contrast @ mixed.covariance @ contrast.T, hermitian=True) @ difference)
    return np.outer(difference, difference) * max(0.0, 1 - d / max(chi2, 1e-300)) * outer * inner / (outer + inner)
