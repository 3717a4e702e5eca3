"""One curve with lmfit: bounds, confidence intervals, reports, and the reference that the batched fit must agree with.

The minimum is MINPACK's (lmfit's method leastsq), with the law's own derivatives. A robust loss enters as residuals
sign(r) C sqrt(rho(r^2 / C^2)), whose squares add up to the loss. lmfit approaches a bound without reaching it; a
parameter that comes close is put on it and held, and stays there if the cost does not rise.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from calib.errors import FitError
from calib.fitting import robust
from calib.fitting.curve_data import prepare
from calib.fitting.starting_values import DOUBTFUL_CONDITION, careful_starts, quick_start
from calib.iv_models.base import IVModel

_CLOSE = 1e-2  # distance to a bound, relative to its size or one, at which a parameter is tried on it
_HOW: dict[str, Any] = {"ftol": 1e-15, "xtol": 1e-15, "gtol": 1e-15, "max_nfev": 400}
_HUGE = 1e100


def fit_single(
    law: IVModel,
    voltage: np.ndarray,
    current: np.ndarray,
    sigma: np.ndarray,
    *,
    fit_offset: bool = False,
    loss: str = "linear",
    f_scale: float = 1.0,
    absolute_sigma: bool = False,
    x0: Mapping[str, float] | None = None,
) -> Any:
    """Fit one curve with lmfit: same starting values, bounds, weights and loss as `least_squares.fit_batch`.

    Parameters
    ----------
    law : the conduction law.
    voltage, current, sigma : (point,) [V], [A], [A]; a point with a NaN, or sigma that is not positive and finite, is
        not used.
    fit_offset, loss, f_scale, absolute_sigma, x0 : as in `least_squares.fit_batch`.

    Returns
    -------
    lmfit.minimizer.MinimizerResult
        With `params` and `covar` in SI units; the offset, when fitted, is called ``offset``. A parameter at its bound
        does not vary. `residual` and `chisqr` are those of the loss.

    Raises
    ------
    FitError
        When there are not more points than parameters, or every current is zero.
    OptionError
        When there is no such loss, or f_scale is not positive.
    """
    robust.check_loss(loss, f_scale)
    data = prepare(*(np.asarray(a, dtype=float)[None] for a in (voltage, current, sigma)))
    there = data.weight[0] > 0
    n = len(law.parameters) + fit_offset
    if there.sum() <= n:
        raise FitError(f"{there.sum()} usable points, at least {n + 1} are needed for {n} parameters of {law.name}")
    if not data.current.any():
        raise FitError(f"every current is zero: there is no {law.name} to fit")
    given = {name: np.atleast_1d(np.asarray(value, dtype=float)) for name, value in (x0 or {}).items()}
    points = (data.voltage[there], data.current[0, there], data.weight[0, there])
    curve = _Curve(law, points, quick_start(law, data, given, fit_offset, loss, f_scale)[0], loss, f_scale)
    result = curve.minimise_within_bounds(not absolute_sigma)
    if curve.is_doubtful(result):
        for start in careful_starts(law, data, given, fit_offset, loss, f_scale)[::2]:
            other = _Curve(law, points, start[0], loss, f_scale)
            again = other.minimise_within_bounds(not absolute_sigma)
            if again.chisqr < result.chisqr:
                curve, result = other, again
    curve.restore_units(result)
    if loss != "linear":
        curve.set_huber_errors(result, absolute_sigma)
    return result


class _Curve:
    """One curve in units in which parameters are of order one: positive ones relative to their start."""

    def __init__(
        self, law: IVModel, points: tuple[np.ndarray, np.ndarray, np.ndarray], start: np.ndarray, loss: str,
        f_scale: float,
    ) -> None:  # fmt: skip
        self.law, self.loss, self.f_scale = law, loss, f_scale
        self.voltage, self.current, self.weight = points
        self.names = [*law.parameter_names, *(["offset"] if len(start) > len(law.parameters) else [])]
        self.units = dict.fromkeys(self.names, 1.0)
        self.start = {}
        for k, parameter in enumerate(law.parameters):
            is_log = parameter.transform == "log"
            value = float(np.exp(start[k])) if is_log else float(start[k])
            self.units[parameter.name] = value if is_log else 1.0
            self.start[parameter.name] = 1.0 if is_log else value
        if "offset" in self.units:
            self.units["offset"] = float(np.abs(self.current).max())
            self.start["offset"] = float(start[-1]) / self.units["offset"]

    def bounds(self, name: str) -> tuple[float, float]:
        """Return a parameter's bounds in this curve's units."""
        if name == "offset":
            return -np.inf, np.inf
        parameter = self.law.parameter(name)
        return parameter.lower / self.units[name], parameter.upper / self.units[name]

    def plain(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return weighted residuals and their derivatives (point, parameter), without the loss."""
        values = {name: parameters[name].value * self.units[name] for name in self.law.parameter_names}
        with np.errstate(all="ignore"):
            model = self.law.current(self.voltage, xp=np, **values)
            if "offset" in self.units:
                model = model + parameters["offset"].value * self.units["offset"]
            jacobian = self.law.jacobian(self.voltage, xp=np, **values)
            columns = [jacobian.get(name, np.ones(1)) * self.weight * self.units[name] for name in self.names]
            residual = (model - self.current) * self.weight
        return np.nan_to_num(residual, nan=_HUGE, posinf=_HUGE, neginf=-_HUGE), np.nan_to_num(np.stack(columns, 1))

    def softened(self, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
        """Return residuals whose squares are the loss, and their derivatives."""
        residual, jacobian = self.plain(parameters)
        if self.loss == "linear":
            return residual, jacobian
        cost, psi, _ = robust.cost_influence_curvature(residual, self.loss, self.f_scale)
        soft = np.sign(residual) * np.sqrt(cost)
        slope = np.where(soft == 0, 1.0, psi / np.where(soft == 0, 1.0, soft))
        return soft, jacobian * slope[:, None]

    def minimise(self, start: dict[str, float], held: dict[str, float], scale_covar: bool) -> Any:
        """Run lmfit with some parameters held."""
        import lmfit

        parameters = lmfit.Parameters()
        for name in self.names:
            low, high = self.bounds(name)
            value = held.get(name, start[name])
            if name not in held:  # on a bound lmfit's transform has no slope
                room = 1e-3 * min(1.0 + abs(value), (high - low) / 2)
                value = min(max(value, low + room), high - room)
            parameters.add(name, value, min=low, max=high, vary=name not in held)
        free = [k for k, name in enumerate(self.names) if name not in held]
        return lmfit.minimize(
            lambda p: self.softened(p)[0], parameters, method="leastsq", scale_covar=scale_covar,
            Dfun=lambda p: self.softened(p)[1][:, free], **_HOW,
        )  # fmt: skip

    def minimise_within_bounds(self, scale_covar: bool) -> Any:
        """Run lmfit, put the parameters that come close to a bound on it, and keep those that like it there."""
        held: dict[str, float] = {}
        result: Any = self.minimise(self.start, held, scale_covar)
        for _ in self.names:
            found = {name: result.params[name].value for name in self.names}
            close = {name: bound for name in self.names if name not in held for bound in self._near(name, found[name])}
            tried = [close, *({name: bound} for name, bound in close.items())] if len(close) > 1 else [close]
            for more in tried:
                if not more or len(held) + len(more) == len(self.names):
                    continue
                again: Any = self.minimise(found, {**held, **more}, scale_covar)
                if again.chisqr <= result.chisqr * (1 + 1e-10):
                    held, result = {**held, **more}, again
                    break
            else:
                break
        return result

    def _near(self, name: str, value: float) -> list[float]:
        """Return the bound that a value is close to, in a list, or none; zero is no bound of a positive parameter."""
        bounds = [bound for bound in self.bounds(name) if np.isfinite(bound)]
        if name != "offset" and self.law.parameter(name).transform == "log":
            bounds = [bound for bound in bounds if bound > 0]
        return [bound for bound in bounds if abs(value - bound) <= _CLOSE * max(abs(bound), abs(value), 1e-2)][:1]

    def is_doubtful(self, result: Any) -> bool:
        """Say whether another start may find a lower cost: at a bound, or a positive parameter not determined."""
        if len(result.var_names) < len(self.names) or getattr(result, "covar", None) is None:
            return True
        positive = [p.name for p in self.law.parameters if p.transform == "log"]
        if any(result.params[name].stderr > 0.5 * abs(result.params[name].value) for name in positive):
            return True
        spread = np.sqrt(np.diag(result.covar))
        with np.errstate(all="ignore"):
            correlation = result.covar / np.outer(spread, spread)
        return not (np.isfinite(correlation).all() and np.linalg.cond(correlation) < DOUBTFUL_CONDITION)

    def restore_units(self, result: Any) -> None:
        """Give values, bounds, standard errors and covariance their SI units."""
        for name in self.names:
            parameter, unit = result.params[name], self.units[name]
            value, stderr = parameter.value * unit, parameter.stderr
            low, high = (-np.inf, np.inf) if name == "offset" else (
                self.law.parameter(name).lower, self.law.parameter(name).upper
            )  # fmt: skip
            if not parameter.vary:
                value = low if abs(value - low) <= abs(value - high) else high
            parameter.set(value=value, min=low, max=high)
            parameter.stderr = None if stderr is None or not parameter.vary else stderr * unit
        if getattr(result, "covar", None) is not None:
            units = np.array([self.units[name] for name in result.var_names])
            result.covar = result.covar * np.outer(units, units)

    def set_huber_errors(self, result: Any, absolute_sigma: bool) -> None:
        """Replace lmfit's covariance, which knows no loss, by Huber's; see `calib.fitting.robust`."""
        free = [self.names.index(name) for name in result.var_names]
        self.units = dict.fromkeys(self.names, 1.0)  # the result is in SI units now
        residual, jacobian = self.plain(result.params)
        norm = np.linalg.norm(jacobian[:, free], axis=0)
        inverse = np.linalg.pinv(jacobian[:, free] / norm)
        v = robust.variance_factor(
            residual[None], np.ones((1, len(residual)), dtype=bool), np.array([len(residual) - len(free)]), self.loss,
            self.f_scale,
        )[0]  # fmt: skip
        if absolute_sigma:
            v = robust.normal_variance_factor(self.loss, self.f_scale)
        result.covar = v * (inverse @ inverse.T) / np.outer(norm, norm)
        stderr = np.sqrt(np.diag(result.covar))
        for i, name in enumerate(result.var_names):
            result.params[name].stderr = float(stderr[i])
            result.params[name].correl = {
                other: float(result.covar[i, j] / (stderr[i] * stderr[j]))
                for j, other in enumerate(result.var_names)
                if j != i
            }
