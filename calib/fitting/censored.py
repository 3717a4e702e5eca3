"""Spread of ln R where some resistances are above what the instrument can measure: a censored normal distribution.

A resistance at the instrument's noise floor is only known to be larger than some limit. Leaving such values out makes
the state look less resistive and narrower than it is; here they enter the likelihood with the probability of lying
above their limit (J. Tobin, Econometrica 26, 24 (1958), doi 10.2307/1907382), the value of a device being common to its
cycles:

    L = prod_d integral phi(a; 0, sigma_d2d) prod_k f_k(a) da,
    f_k = phi(x_k; mu + a, sigma_c2c) where measured,  1 - Phi((limit_k - mu - a) / sigma_c2c) where censored.
"""

import numpy as np
from scipy import stats
from scipy.optimize import minimize
from scipy.special import log_ndtr, logsumexp

from calib.fitting.variance_components import LEVEL, NAN, NO_BOUND, VarianceComponents

MINIMUM_MEASURED = 10
MAXIMUM_SHARE = 0.5
"""Values that must be measured, and the share that may be censored; beyond, the form of the distribution decides."""
_NODES = 161  # of the integral over a device, at +-6 standard deviations


def enough(censored: np.ndarray) -> bool:
    """Say whether the values that were measured determine a censored normal distribution."""
    return bool((~censored).sum() >= MINIMUM_MEASURED and censored.mean() <= MAXIMUM_SHARE)


def censored_components(
    values: np.ndarray, devices: np.ndarray, censored: np.ndarray, error_variance: float = 0.0
) -> VarianceComponents:
    """Return mean and spread of values some of which are only known to be larger than stated, by maximum likelihood.

    The variance between devices is multiplied with n / (n - 1), n devices, for the mean that is estimated with it.
    Intervals are Student's t on the logarithms of the spreads (on the mean itself), with one degree of freedom less
    than there are devices (than measured values, for one device or one cycle each).

    Parameters
    ----------
    values : (n,) ln R, the limit where censored.
    devices : (n,) the device of each value.
    censored : (n,) whether the value is only known to be larger.
    error_variance : mean variance of the measured values' estimation error, taken off the cycle-to-cycle variance.
    """
    data = _Data(np.asarray(values, dtype=float), devices, np.asarray(censored, dtype=bool))
    seen = data.values[~data.censored]
    start = np.array([data.values.mean(), np.log(max(seen.std(), 1e-6)), 0.0])
    if data.separated:
        start[1:] -= 0.35
    else:
        start = start[:2]
    scale = np.array([max(seen.std(), 1e-6), 1.0, 1.0])[: len(start)]
    options = {"xatol": 1e-7, "fatol": 1e-9, "maxiter": 4000}
    if data.separated:
        start[2] = start[1]
    best = minimize(lambda u: -data.log_likelihood(start + u * scale), np.zeros(len(start)), method="Nelder-Mead",
                    options=options)  # fmt: skip
    theta = start + best.x * scale
    return _with_errors(data, theta, scale, error_variance)


class _Data:
    """Values by device: sums of the measured ones, and the limits of the others."""

    def __init__(self, values: np.ndarray, devices: np.ndarray, censored: np.ndarray) -> None:
        labels, index = np.unique(devices, return_inverse=True)
        self.values, self.censored, self.index = values, censored, index
        self.n_devices = len(labels)
        self.separated = 1 < len(labels) < len(values)
        seen = ~censored
        self.count = np.bincount(index[seen], minlength=len(labels)).astype(float)
        total = np.bincount(index[seen], values[seen], minlength=len(labels))
        self.mean = total / np.maximum(self.count, 1)
        self.squares = np.bincount(index[seen], np.square(values[seen] - self.mean[index[seen]]), minlength=len(labels))

    def log_likelihood(self, theta: np.ndarray) -> float:
        """Return the log likelihood of (mu, ln sigma) or (mu, ln sigma_d2d, ln sigma_c2c)."""
        if not self.separated:
            mu, sigma = theta[0], float(np.exp(np.clip(theta[1], -60, 60)))
            z = (self.values - mu) / sigma
            return float(np.where(self.censored, log_ndtr(-z), -0.5 * z**2 - np.log(sigma) - _HALF_LOG_2PI).sum())
        mu, outer, inner = theta[0], *np.exp(np.clip(theta[1:], -60, 60))
        limit = self.values[self.censored]
        owner = self.index[self.censored]
        centre, width = self._window(mu, outer, inner)
        a = centre[:, None] + width[:, None] * _GRID  # (device, node)
        log_f = -0.5 * (self.squares[:, None] + self.count[:, None] * np.square(self.mean[:, None] - mu - a)) / inner**2
        log_f -= self.count[:, None] * (np.log(inner) + _HALF_LOG_2PI)
        np.add.at(log_f, owner, log_ndtr((mu + a[owner] - limit[:, None]) / inner))
        log_f -= 0.5 * np.square(a / outer) + np.log(outer) + _HALF_LOG_2PI
        return float((logsumexp(log_f, axis=1) + np.log(width * (_GRID[1] - _GRID[0]))).sum())

    def _window(self, mu: float, outer: float, inner: float) -> tuple[np.ndarray, np.ndarray]:
        """Return where each device's value is looked for: about what its measured cycles say, or anywhere."""
        precision = self.count / inner**2 + 1 / outer**2
        centre = self.count * (self.mean - mu) / inner**2 / precision
        width = 1 / np.sqrt(precision)
        has_limit = np.bincount(self.index[self.censored], minlength=self.n_devices) > 0
        return np.where(has_limit, centre + 0.5 * width, centre), np.where(has_limit, 1.4 * width, width)


_HALF_LOG_2PI = 0.5 * float(np.log(2 * np.pi))
_GRID = np.linspace(-6.0, 6.0, _NODES)


def _with_errors(data: _Data, theta: np.ndarray, scale: np.ndarray, error_variance: float) -> VarianceComponents:
    covariance = _covariance(data, theta, scale)
    stderr = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    spreads = np.exp(theta[1:])
    units = data.n_devices if data.separated else max(int((~data.censored).sum()), 2)
    spreads[0] *= np.sqrt(units / (units - 1))  # the mean is estimated from as many
    raw = float(np.square(spreads).sum())
    total = float(np.sqrt(max(raw - error_variance, 0.0)))
    share = np.square(spreads) / raw
    log_error = float(np.sqrt(max(share @ covariance[1:, 1:] @ share, 0.0))) * raw / max(total**2, 1e-300)
    df = data.n_devices - 1 if data.separated else int((~data.censored).sum()) - 1
    t = float(stats.t.ppf((1 + LEVEL) / 2, max(df, 1)))

    def component(k: int, error: float) -> tuple[float, float, tuple[float, float]]:
        sigma = float(np.sqrt(max(spreads[k] ** 2 - error, 0.0)))
        relative = float(stderr[1 + k]) * spreads[k] ** 2 / max(sigma**2, 1e-300)
        return sigma, sigma * relative, _interval(sigma, relative, t)

    separate = data.separated
    nothing = (NAN, NAN, NO_BOUND)
    d2d = component(0, 0.0) if separate else nothing
    c2c = component(1, error_variance) if separate else component(0, error_variance)
    c2c = c2c if separate or data.n_devices == 1 else nothing
    mean, half = float(theta[0]), t * float(stderr[0])
    return VarianceComponents(
        d2d=d2d[0], d2d_stderr=d2d[1], c2c=c2c[0], c2c_stderr=c2c[1], total=total, total_stderr=total * log_error,
        n_devices=data.n_devices, n_values=len(data.values), d2d_bound=d2d[2], c2c_bound=c2c[2],
        total_bound=_interval(total, log_error, t), mean=mean, mean_stderr=float(stderr[0]),
        mean_bound=(mean - half, mean + half),
    )  # fmt: skip


def _interval(sigma: float, relative: float, t: float) -> tuple[float, float]:
    factor = float(np.exp(min(t * relative, 50.0)))
    return sigma / factor, sigma * factor


def _covariance(data: _Data, theta: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return the inverse of the observed information, by central differences."""
    n = len(theta)
    step = 1e-3 * scale
    eye = np.diag(step)
    here = data.log_likelihood(theta)
    hessian = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            if i == j:
                ends = data.log_likelihood(theta + eye[i]) + data.log_likelihood(theta - eye[i])
                hessian[i, i] = (ends - 2 * here) / step[i] ** 2
                continue
            corners = [a * b * data.log_likelihood(theta + a * eye[i] + b * eye[j]) for a in (1, -1) for b in (1, -1)]
            hessian[i, j] = hessian[j, i] = sum(corners) / (4 * step[i] * step[j])
    return np.linalg.pinv(-hessian, rcond=1e-12, hermitian=True)
