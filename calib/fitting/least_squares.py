"""Nonlinear least squares of a conduction law: all curves at once, or one curve with lmfit.

For a curve of points (V_i, I_i) with standard deviations sigma_i the weighted cost

    chi^2(theta, I_0) = sum_i ( (I(V_i; theta) + I_0 - I_i) / sigma_i )^2

is minimised by Levenberg-Marquardt with Marquardt's scaling (D. W. Marquardt, J. SIAM 11, 431 (1963),
doi 10.1137/0111030), in coordinates u where positive parameters are logarithms. I_0 is a constant offset of the
instrument, an optional nuisance. Where the law is an exponential of its coordinate and there is no offset, the scale is
eliminated and the same minimum is found by variable projection (`calib.fitting.projection`). The covariance of the
estimates is s^2 (J^T J)^-1 with s^2 = chi^2 / (n - p), as in `scipy.optimize.curve_fit(absolute_sigma=False)` and
lmfit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from calib.errors import FitError
from calib.fitting import projection
from calib.iv_models.base import IVModel, exponential_parameter

BLOCK = 2048  # curves per block: what a block needs stays in the cache
MAXIMUM_ITERATIONS = 100
TOLERANCE = 1e-12  # relative decrease of the cost, and length of a step relative to the estimates' scale squared
UNDETERMINED = 1.0
"""Standard error of the logarithm of a positive parameter from which on it counts as not determined."""
OK = "ok"


@dataclass(frozen=True)
class BatchFit:
    """What a batched fit returns; the first dimension is the curve.

    Attributes
    ----------
    names : names of the law's parameters, in order.
    values, stderr : (curve, parameter) estimates and standard errors in SI units; NaN where the fit failed.
    internal : (curve, parameter) estimates in the fitted coordinates (logarithm of positive parameters).
    covariance : (curve, parameter, parameter) covariance of `internal`, scaled with the curve's own s^2.
    unscaled : the same with s = 1: multiply with a pooled s^2.
    offset, offset_stderr : (curve,) [A] the nuisance I_0; 0 and NaN when not fitted.
    cost : (curve,) chi^2 at the estimate.
    rms : (curve,) root mean square of (fit - measured) / sigma.
    n_points, n_free : (curve,) points used, and points less parameters.
    condition : (curve,) condition number of the scaled normal matrix.
    status : (curve,) 'ok' or a sentence that says why there is no estimate, or why it is doubtful.
    """

    names: tuple[str, ...]
    values: np.ndarray
    stderr: np.ndarray
    internal: np.ndarray
    covariance: np.ndarray
    unscaled: np.ndarray
    offset: np.ndarray
    offset_stderr: np.ndarray
    cost: np.ndarray
    rms: np.ndarray
    n_points: np.ndarray
    n_free: np.ndarray
    condition: np.ndarray
    status: np.ndarray

    @property
    def ok(self) -> np.ndarray:
        """(curve,) whether the fit succeeded."""
        return self.status == OK


def fit_batch(
    law: IVModel, voltage: np.ndarray, current: np.ndarray, sigma: np.ndarray, *, fit_offset: bool = False
) -> BatchFit:
    """Fit a law to many curves at once.

    Parameters
    ----------
    law : the conduction law.
    voltage, current, sigma : (curve, point) [V], [A], [A]; a point with a NaN, or sigma that is not positive and
        finite, is not used.
    fit_offset : fit a constant current offset besides the law.

    Returns
    -------
    BatchFit
        A curve that cannot be fitted has a status that says why, and NaN estimates; nothing is raised.

    Raises
    ------
    FitError
        When the arrays differ in shape.
    """
    voltage, current, sigma = (np.atleast_2d(np.asarray(a, dtype=float)) for a in (voltage, current, sigma))
    if not voltage.shape == current.shape == sigma.shape:
        raise FitError(
            f"voltage has shape {voltage.shape}, current {current.shape} and sigma {sigma.shape}; expected the same"
        )
    blocks = [
        _fit_block(
            law,
            voltage[start : start + BLOCK],
            current[start : start + BLOCK],
            sigma[start : start + BLOCK],
            fit_offset,
        )
        for start in range(0, max(len(voltage), 1), BLOCK)
    ]
    return _assemble(law, blocks, fit_offset)


@dataclass
class _Problem:
    """A block of curves in the solver's coordinates: currents are divided by `unit`, the curve's largest."""

    law: IVModel
    voltage: np.ndarray
    current: np.ndarray
    weight: np.ndarray
    unit: np.ndarray
    is_log: np.ndarray
    fit_offset: bool

    def at(self, rows: np.ndarray) -> "_Problem":
        return _Problem(
            self.law, self.voltage[rows], self.current[rows], self.weight[rows], self.unit[rows],
            self.is_log, self.fit_offset,
        )  # fmt: skip

    def parameters(self, u: np.ndarray) -> dict[str, np.ndarray]:
        n = len(self.law.parameter_names)
        values = np.where(self.is_log, np.exp(np.clip(u[:, :n], -300, 300)), u[:, :n])
        return {name: values[:, k, None] for k, name in enumerate(self.law.parameter_names)}

    def residual(self, u: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            current = self.law.current(self.voltage, xp=np, **self.parameters(u)) / self.unit[:, None]
            if self.fit_offset:
                current = current + u[:, -1, None]
            return self.weight * (current - self.current / self.unit[:, None])

    def jacobian(self, u: np.ndarray) -> np.ndarray:
        values = self.parameters(u)
        with np.errstate(over="ignore", invalid="ignore"):
            partial = self.law.jacobian(self.voltage, xp=np, **values)
        columns = []
        for k, name in enumerate(self.law.parameter_names):
            chain = values[name] if self.is_log[k] else 1.0
            columns.append(self.weight * partial[name] * chain / self.unit[:, None])
        if self.fit_offset:
            columns.append(self.weight)
        return np.stack(columns, axis=-1)


def _fit_block(
    law: IVModel, voltage: np.ndarray, current: np.ndarray, sigma: np.ndarray, fit_offset: bool
) -> dict[str, np.ndarray]:
    usable = np.isfinite(voltage) & np.isfinite(current) & np.isfinite(sigma) & (sigma > 0)
    voltage, current = np.where(usable, voltage, 0.0), np.where(usable, current, 0.0)
    n_points = usable.sum(1)
    enough = n_points > len(law.parameters) + fit_offset
    if not fit_offset and _projects(law):
        weight = np.where(usable, 1 / np.where(usable, sigma, 1.0), 0.0)
        found = _project(law, voltage, current, weight, enough)
        left = np.flatnonzero(enough & ~found["converged"])
        if len(left):
            again = _iterate(law, voltage[left], current[left], sigma[left], usable[left], fit_offset)
            for key, values in again.items():
                found[key][left] = values
        return {"n_points": n_points, **found}
    return {"n_points": n_points, **_iterate(law, voltage, current, sigma, usable, fit_offset)}


def _projects(law: IVModel) -> bool:
    """Say whether the scale can be eliminated: I = scale V exp(gamma s), fitted as (ln scale, gamma)."""
    name = exponential_parameter(law)
    if name is None:
        return False
    return law.parameter(name).transform == "identity" and law.parameter(law.scale).transform == "log"


def _project(
    law: IVModel, voltage: np.ndarray, current: np.ndarray, weight: np.ndarray, enough: np.ndarray
) -> dict[str, np.ndarray]:
    """Fit by variable projection; curves that do not converge so are left to `_iterate`."""
    size = projection.BLOCK
    parts = [
        projection.fit_block(law, voltage[k : k + size], current[k : k + size], weight[k : k + size])
        for k in range(0, max(len(voltage), 1), size)
    ]
    scale, gamma, cost, converged, normal = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("scale", "gamma", "cost", "converged", "normal")
    )
    order = [law.parameter_names.index(law.scale), law.parameter_names.index(law.shape[0])]
    u = np.empty((len(gamma), 2))
    unscaled = np.empty((len(gamma), 2, 2))
    with np.errstate(all="ignore"):
        u[:, order[0]], u[:, order[1]] = np.log(scale), gamma
        a, b, d = normal[:, 0, 0], normal[:, 0, 1], normal[:, 1, 1]
        determinant = a * d - b * b
        correlation = np.abs(b) / np.sqrt(a * d)
        condition = (1 + correlation) / (1 - correlation)
        for (i, j), value in (((0, 0), d), ((0, 1), -b), ((1, 0), -b), ((1, 1), a)):
            unscaled[:, order[i], order[j]] = value / determinant
    good = enough & converged & (determinant > 0)
    condition = np.where(good, condition, np.inf)
    return {"u": u, "converged": good, "unit": np.ones(len(u)), "cost": cost, "condition": condition,
            "unscaled": unscaled}  # fmt: skip


def _iterate(
    law: IVModel, voltage: np.ndarray, current: np.ndarray, sigma: np.ndarray, usable: np.ndarray, fit_offset: bool
) -> dict[str, np.ndarray]:
    """Fit all parameters together by Levenberg-Marquardt."""
    unit = np.max(np.abs(current), axis=1, initial=0.0)
    unit = np.where(unit > 0, unit, 1.0)
    is_log = np.array([parameter.transform == "log" for parameter in law.parameters])
    weight = np.where(usable, unit[:, None] / np.where(usable, sigma, 1.0), 0.0)
    problem = _Problem(law, voltage, current, weight, unit, is_log, fit_offset)
    guess = law.guess(np.where(usable, voltage, np.nan), np.where(usable, current, np.nan))
    u = np.stack(
        [np.log(guess[n]) if log else guess[n] for n, log in zip(law.parameter_names, is_log, strict=True)], -1
    )
    if fit_offset:
        u = np.concatenate([u, np.zeros((len(u), 1))], axis=1)
    converged = np.zeros(len(u), dtype=bool)
    rows = np.flatnonzero(usable.sum(1) > u.shape[1])
    u[rows], converged[rows] = _levenberg_marquardt(problem.at(rows), u[rows])
    return {"u": u, "converged": converged, "unit": unit, **_statistics(problem, u, rows)}


def _levenberg_marquardt(problem: _Problem, u: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Minimise every curve's cost; curves leave as they converge."""
    u = u.copy()
    converged = np.zeros(len(u), dtype=bool)
    active = np.arange(len(u))
    damping = np.full(len(u), 1e-3)
    cost = np.square(problem.residual(u)).sum(1)
    for _ in range(MAXIMUM_ITERATIONS):
        if not len(active):
            break
        part = problem.at(active)
        residual, jacobian = part.residual(u[active]), part.jacobian(u[active])
        step, length = _step(jacobian, residual, damping[active])
        trial = u[active] + step
        trial_cost = np.square(part.residual(trial)).sum(1)
        better = trial_cost <= cost[active]
        done = better & (cost[active] - trial_cost <= TOLERANCE * cost[active]) & (length <= TOLERANCE**0.5)
        stuck = ~better & (damping[active] > 1e12)
        u[active] = np.where(better[:, None], trial, u[active])
        cost[active] = np.where(better, trial_cost, cost[active])
        damping[active] = np.where(better, np.maximum(damping[active] / 30, 1e-15), damping[active] * 10)
        small = ~better & (length <= TOLERANCE**0.5)  # rounding, not the model, keeps the cost from falling
        converged[active] = done | small
        active = active[~(done | small | stuck)]
    return u, converged


def _step(jacobian: np.ndarray, residual: np.ndarray, damping: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return Marquardt's step and its length in units of the scaled problem's solution."""
    norm = np.sqrt(np.square(jacobian).sum(1))
    norm = np.where((norm > 0) & np.isfinite(norm), norm, 1.0)
    scaled = jacobian / norm[:, None, :]
    normal = np.einsum("cpi,cpj->cij", scaled, scaled)
    diagonal = np.arange(normal.shape[1])
    normal[:, diagonal, diagonal] += damping[:, None]
    gradient = np.einsum("cpi,cp->ci", scaled, residual)
    broken = ~(np.isfinite(normal).all((1, 2)) & np.isfinite(gradient).all(1))
    normal[broken] = np.eye(normal.shape[1])
    gradient[broken] = 0.0
    step = -np.linalg.solve(normal, gradient[..., None])[..., 0] / norm
    return np.clip(step, -20, 20), np.abs(step).max(1)


def _statistics(problem: _Problem, u: np.ndarray, rows: np.ndarray) -> dict[str, np.ndarray]:
    n, p = u.shape
    cost, condition = np.full(n, np.nan), np.full(n, np.inf)
    unscaled = np.full((n, p, p), np.nan)
    part = problem.at(rows)
    residual, jacobian = part.residual(u[rows]), part.jacobian(u[rows])
    cost[rows] = np.square(residual).sum(1)
    norm = np.sqrt(np.square(jacobian).sum(1))
    good = np.isfinite(norm).all(1) & (norm > 0).all(1) & np.isfinite(cost[rows])
    scaled = jacobian[good] / norm[good][:, None, :]
    normal = np.einsum("cpi,cpj->cij", scaled, scaled)
    if len(normal):
        eigenvalues, vectors = np.linalg.eigh(normal)
        smallest = np.maximum(eigenvalues[:, 0], np.finfo(float).eps * eigenvalues[:, -1])
        condition[rows[good]] = eigenvalues[:, -1] / smallest
        inverse = np.einsum("cik,ck,cjk->cij", vectors, 1 / np.maximum(eigenvalues, smallest[:, None]), vectors)
        unscaled[rows[good]] = inverse / norm[good][:, :, None] / norm[good][:, None, :]
    return {"cost": cost, "condition": condition, "unscaled": unscaled}


def _assemble(law: IVModel, blocks: list[dict[str, np.ndarray]], fit_offset: bool) -> BatchFit:
    joined = {key: np.concatenate([block[key] for block in blocks]) for key in blocks[0]}
    names = law.parameter_names
    p_all = joined["u"].shape[1]
    n_points, cost, condition = joined["n_points"], joined["cost"], joined["condition"]
    n_free = n_points - p_all
    status = np.array([OK] * len(cost), dtype=object)
    for row in np.flatnonzero(n_free < 1):
        status[row] = f"{n_points[row]} usable points, at least {p_all + 1} are needed for {p_all} parameters"
    for row in np.flatnonzero((n_free >= 1) & ~joined["converged"]):
        status[row] = f"the fit did not converge in {MAXIMUM_ITERATIONS} iterations"
    for row in np.flatnonzero((n_free >= 1) & joined["converged"] & ~(condition < 1e14)):
        status[row] = f"the points do not determine the parameters (condition number {condition[row]:.1g})"
    variance = np.where(n_free > 0, cost / np.maximum(n_free, 1), np.nan)
    is_log = np.array([parameter.transform == "log" for parameter in law.parameters])
    with np.errstate(invalid="ignore"):
        loose = np.sqrt(np.diagonal(joined["unscaled"], axis1=1, axis2=2)[:, : len(names)] * variance[:, None])
    for row in np.flatnonzero((status == OK) & (loose[:, is_log] > UNDETERMINED).any(1)):
        name = names[np.flatnonzero(is_log)[np.argmax(loose[row, is_log])]]
        status[row] = f"the points do not determine {name}: its standard error is {loose[row, is_log].max():.2g} in ln"
    failed = status != OK
    internal = np.where(failed[:, None], np.nan, joined["u"])
    unscaled = np.where(failed[:, None, None], np.nan, joined["unscaled"])
    n = len(names)
    covariance = unscaled * variance[:, None, None]
    with np.errstate(over="ignore"):
        values = np.where(is_log, np.exp(internal[:, :n]), internal[:, :n])
    spread = np.sqrt(np.maximum(np.diagonal(covariance, axis1=1, axis2=2), 0.0))
    stderr = np.where(is_log, values * spread[:, :n], spread[:, :n])
    zero = np.where(failed, np.nan, 0.0)
    return BatchFit(
        names=names, values=values, stderr=stderr, internal=internal[:, :n],
        covariance=covariance[:, :n, :n], unscaled=unscaled[:, :n, :n],
        offset=internal[:, -1] * joined["unit"] if fit_offset else zero,
        offset_stderr=spread[:, -1] * joined["unit"] if fit_offset else np.full(len(cost), np.nan),
        cost=cost, rms=np.sqrt(cost / np.maximum(n_points, 1)), n_points=n_points, n_free=n_free,
        condition=condition, status=status,
    )  # fmt: skip


def fit_single(
    law: IVModel, voltage: np.ndarray, current: np.ndarray, sigma: np.ndarray, *, fit_offset: bool = False
) -> Any:
    """Fit one curve with lmfit (bounds, confidence intervals, reports); the reference of the batched fit.

    Returns
    -------
    lmfit.minimizer.MinimizerResult
        With `params` in SI units; the offset, when fitted, is called ``offset``.

    Raises
    ------
    FitError
        When there are not more points than parameters.
    """
    import lmfit

    usable = np.isfinite(voltage) & np.isfinite(current) & np.isfinite(sigma) & (sigma > 0)
    voltage, current, sigma = voltage[usable], current[usable], sigma[usable]
    n = len(law.parameters) + fit_offset
    if len(voltage) <= n:
        raise FitError(f"{len(voltage)} usable points, at least {n + 1} are needed for {n} parameters of {law.name}")
    unit = float(np.abs(current).max()) or 1.0
    guess = law.guess(voltage[None], current[None] / unit)
    parameters = lmfit.Parameters()
    for parameter in law.parameters:
        parameters.add(parameter.name, float(guess[parameter.name][0]), min=parameter.lower, max=parameter.upper)
    if fit_offset:
        parameters.add("offset", 0.0)

    def residual(values: Any) -> np.ndarray:
        shape = {name: values[name].value for name in law.parameter_names}
        model = law.current(voltage, xp=np, **shape) + (values["offset"].value if fit_offset else 0.0)
        return (model - current / unit) * unit / sigma

    result = lmfit.minimize(residual, parameters, method="leastsq", ftol=1e-15, xtol=1e-15, gtol=1e-15)
    for name in (law.scale, *(["offset"] if fit_offset else [])):
        fitted: Any = result.params[name]  # type: ignore[union-attr]
        stderr = fitted.stderr
        fitted.set(value=fitted.value * unit)
        fitted.stderr = None if stderr is None else stderr * unit
    return result
