"""The population law: the parameters of a conduction law given ln R, with estimation error kept apart from spread.

After Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784: for curve k with resistance R_k,

    t_k = a + b ln R_k + u_k + e_k,    u_k ~ N(0, Sigma),    e_k ~ N(0, E_k),

where t are the law's shape parameters (or their logarithms), u is the spread of the devices and e the estimation
error of the curve's fit, whose covariance E_k is known from the fit. Sigma is found by restricted maximum likelihood
(H. D. Patterson, R. Thompson, Biometrika 58, 545 (1971), doi 10.1093/biomet/58.3.545), so that the estimation error
is not counted as spread and the two coefficients of each line cost their degrees of freedom.
"""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize

from calib.fitting.curves import CurveFits, ln_r_gradient
from calib.iv_models import IVModel

MINIMUM_CURVES = 4
"""Fewer curves than this do not give a line in ln R with a spread about it."""
_POSITIVE_SIGMAS = 3.0


@dataclass(frozen=True)
class Line:
    """t = intercept + slope ln(R / Ohm) with covariance about it; arrays over the law's parameters, scale included."""

    transforms: tuple[str, ...]
    intercept: np.ndarray
    intercept_stderr: np.ndarray
    slope: np.ndarray
    slope_stderr: np.ndarray
    covariance: np.ndarray
    covariance_stderr: np.ndarray
    log_likelihood: float


def fit_lines(law: IVModel, states: dict[str, CurveFits], reference_voltage: float) -> dict[str, Line]:
    """Regress the law's parameters on ln R in every state, in coordinates that all states share.

    The shape parameters are regressed as they are or as logarithms, whichever makes the curves of all states together
    more likely; logarithms only where every estimate is clearly positive.
    """
    if not law.shape:
        return {state: _scale_only(law) for state in states}
    candidates = [tuple(parameter.transform for parameter in law.parameters)]
    columns = [law.parameter_names.index(name) for name in law.shape]
    if all(
        (fits.fit.values[fits.ok][:, columns] > _POSITIVE_SIGMAS * fits.fit.stderr[fits.ok][:, columns]).all()
        for fits in states.values()
    ):
        candidates.append(tuple("log" for _ in law.parameters))
    choices = [
        {state: fit_line(law, fits, reference_voltage, candidate) for state, fits in states.items()}
        for candidate in candidates
    ]
    return max(choices, key=lambda lines: sum(line.log_likelihood for line in lines.values()))


def fit_line(
    law: IVModel, fits: CurveFits, reference_voltage: float, transforms: tuple[str, ...] | None = None
) -> Line:
    """Regress the law's parameters on ln R over the curves of one state that were fitted.

    Parameters
    ----------
    transforms : 'log' or 'identity' per parameter; by default the choice of `fit_lines` for this state alone.
    """
    if transforms is None:
        return fit_lines(law, {fits.curves.state: fits}, reference_voltage)[fits.curves.state]
    return _fit(law, fits, fits.ok, reference_voltage, transforms)


def _scale_only(law: IVModel) -> Line:
    """A law without shape parameters: ln(scale) = ln V_ref - ln f(V_ref) - ln R exactly (R = V_ref / I(V_ref))."""
    scale = law.anchor(np.ones(1), 1.0, xp=np)
    zero = np.zeros(1)
    return Line(("log",), np.log(scale), zero, -np.ones(1), zero, np.zeros((1, 1)), np.zeros((1, 1)), 0.0)


def _fit(law: IVModel, fits: CurveFits, ok: np.ndarray, v_ref: float, transforms: tuple[str, ...]) -> Line:
    names = law.parameter_names
    shape = [names.index(name) for name in law.shape]
    values = fits.fit.values[ok]
    is_log = np.array([parameter.transform == "log" for parameter in law.parameters])
    wants_log = np.array([transform == "log" for transform in transforms])
    t = np.where(wants_log, np.log(np.where(values > 0, values, np.nan)), values)
    dt_du = np.where(wants_log, np.where(is_log, 1.0, 1.0 / values), np.where(is_log, values, 1.0))
    x = fits.ln_r[ok]
    error = _pooled_covariance(fits, ok)
    gradient = ln_r_gradient(law, fits.fit, v_ref)[ok]
    clusters = fits.curves.device[ok]

    slope = np.zeros(len(shape))
    for _ in range(3):  # the error of ln R enters through the slope
        a = dt_du[:, shape, None] * np.eye(len(names))[shape] - slope[:, None] * gradient[:, None, :]
        e = np.einsum("cij,cjk,clk->cil", a, error, a)
        sigma, likelihood = _reml(t[:, shape], x, e)
        beta, beta_covariance = _generalised_least_squares(t[:, shape], x, sigma + e, clusters)
        slope = beta[:, 1]
    jacobian = np.where(wants_log & ~is_log, np.log(np.abs(np.where(values != 0, values, 1.0))), 0.0)[:, shape].sum()
    return _with_scale(law, fits, ok, v_ref, transforms, t, x, beta, beta_covariance, sigma, e, likelihood - jacobian)


def _pooled_covariance(fits: CurveFits, ok: np.ndarray) -> np.ndarray:
    """Return each curve's estimation covariance with the noise variance pooled over curves.

    Five points leave two degrees of freedom: a curve's own s^2 says little, that of all curves together is known.
    """
    free = fits.fit.n_free[ok]
    variance = fits.fit.cost[ok] / np.maximum(free, 1)
    weight = 10.0  # prior degrees of freedom with which a curve's own variance is drawn to the pooled one
    pooled = np.sum(variance * free) / np.sum(free)
    shrunk = (free * variance + weight * pooled) / (free + weight)
    return fits.fit.unscaled[ok] * shrunk[:, None, None]


def _reml(t: np.ndarray, x: np.ndarray, e: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the restricted maximum-likelihood estimate of Sigma (d, d) and the maximum log likelihood."""
    d = t.shape[1]
    rows, columns = np.tril_indices(d)
    ordinary = t - np.stack([np.polyval(np.polyfit(x, t[:, j], 1), x) for j in range(d)], axis=1)
    scale = np.maximum(ordinary.std(0), 1e-12)

    def sigma_of(theta: np.ndarray) -> np.ndarray:
        factor = np.zeros((d, d))
        factor[rows, columns] = theta
        factor *= scale[:, None]
        return factor @ factor.T

    def objective(theta: np.ndarray) -> float:
        return -_restricted_likelihood(t, x, sigma_of(theta) + e + 1e-12 * np.diag(scale**2))

    starts = [np.eye(d)[rows, columns] * factor for factor in (1.0, 0.3, 0.03)]
    tolerances = {"xatol": 1e-6, "fatol": 1e-9, "maxiter": 4000}
    results = [minimize(objective, start, method="Nelder-Mead", options=tolerances) for start in starts]
    best = min(results, key=lambda result: result.fun)
    return sigma_of(best.x), -float(best.fun)


def _restricted_likelihood(t: np.ndarray, x: np.ndarray, v: np.ndarray) -> float:
    inverse = np.linalg.inv(v)
    sign, log_determinant = np.linalg.slogdet(v)
    if (sign <= 0).any():
        return -np.inf
    beta, information = _solve(t, x, inverse)
    residual = t - beta[:, 0] - x[:, None] * beta[:, 1]
    quadratic = np.einsum("ci,cij,cj->", residual, inverse, residual)
    return -0.5 * (log_determinant.sum() + quadratic + np.linalg.slogdet(information)[1])


def _solve(t: np.ndarray, x: np.ndarray, inverse: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return beta (d, 2) = (intercept, slope) per parameter, and the information matrix (2d, 2d)."""
    d = t.shape[1]
    design = np.stack([np.ones_like(x), x], axis=1)
    information = np.einsum("cij,ca,cb->iajb", inverse, design, design).reshape(2 * d, 2 * d)
    right = np.einsum("cij,cj,ca->ia", inverse, t, design).reshape(2 * d)
    return np.linalg.solve(information, right).reshape(d, 2), information


def _generalised_least_squares(
    t: np.ndarray, x: np.ndarray, v: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return beta (d, 2) and its covariance (2d, 2d), robust to cycles of one device being alike."""
    inverse = np.linalg.inv(v)
    beta, information = _solve(t, x, inverse)
    bread = np.linalg.inv(information)
    labels, index = np.unique(clusters, return_inverse=True)
    groups = len(labels)
    if groups == len(x) or groups < MINIMUM_CURVES:
        return beta, bread
    residual = t - beta[:, 0] - x[:, None] * beta[:, 1]
    design = np.stack([np.ones_like(x), x], axis=1)
    score = np.einsum("cij,cj,ca->cia", inverse, residual, design).reshape(len(x), -1)
    summed = np.zeros((groups, score.shape[1]))
    np.add.at(summed, index, score)
    return beta, bread @ (summed.T @ summed) @ bread * groups / (groups - 1)


def _with_scale(
    law: IVModel, fits: CurveFits, ok: np.ndarray, v_ref: float, transforms: tuple[str, ...], t: np.ndarray,
    x: np.ndarray, beta: np.ndarray, beta_covariance: np.ndarray, sigma: np.ndarray, e: np.ndarray, likelihood: float,
) -> Line:  # fmt: skip
    """Add the scale's line: R is a function of the parameters, so the scale follows from ln R and the shape."""
    names = law.parameter_names
    shape, scale = [names.index(name) for name in law.shape], names.index(law.scale)
    centre = beta[:, 0] + beta[:, 1] * x.mean()
    gradient = _scale_gradient(law, v_ref, transforms, centre)
    n = len(names)
    intercept, slope = np.empty(n), np.empty(n)
    intercept_stderr, slope_stderr = np.empty(n), np.empty(n)
    errors = np.sqrt(np.maximum(np.diag(beta_covariance), 0.0)).reshape(-1, 2)
    intercept[shape], slope[shape] = beta.T
    intercept_stderr[shape], slope_stderr[shape] = errors.T
    weight = 1 / np.sqrt(np.einsum("cii->c", sigma + e) / len(shape))
    slope[scale], intercept[scale] = np.polyfit(x, t[:, scale], 1, w=weight)
    blocks = beta_covariance.reshape(len(shape), 2, len(shape), 2)
    intercept_stderr[scale] = np.sqrt(max(gradient @ blocks[:, 0, :, 0] @ gradient, 0.0))
    slope_stderr[scale] = np.sqrt(max(gradient @ blocks[:, 1, :, 1] @ gradient, 0.0))
    lift = np.zeros((n, len(shape)))
    lift[shape] = np.eye(len(shape))
    lift[scale] = gradient
    covariance = lift @ sigma @ lift.T
    total = lift @ (sigma + e.mean(0)) @ lift.T
    free = max(len(x) - 2, 1)
    variance = (np.outer(np.diag(total), np.diag(total)) + total**2) / free
    return Line(transforms, intercept, intercept_stderr, slope, slope_stderr, covariance, np.sqrt(variance), likelihood)


def _scale_gradient(law: IVModel, v_ref: float, transforms: tuple[str, ...], centre: np.ndarray) -> np.ndarray:
    """Return d ln(scale) / d t at fixed R, by central differences of the anchor about the shape's centre."""
    is_log = [transforms[law.parameter_names.index(name)] == "log" for name in law.shape]

    def ln_scale(t: np.ndarray) -> float:
        values = {name: np.exp(v) if log else v for name, v, log in zip(law.shape, t, is_log, strict=True)}
        return float(np.log(law.anchor(np.float64(1.0), v_ref, xp=np, **values)))

    step = 1e-5
    eye = np.eye(len(centre)) * step
    return np.array([(ln_scale(centre + row) - ln_scale(centre - row)) / (2 * step) for row in eye])
