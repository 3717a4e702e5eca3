"""The population law: the parameters of a conduction law given ln R, with estimation error kept apart from spread.

After Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784: for curve k with resistance R_k,

    t_k = a + b ln R_k + u_k + e_k,    u_k ~ N(0, Sigma),    e_k ~ N(0, E_k),

where t are the law's shape parameters (or their logarithms), u is the spread of the devices and e the estimation
error of the curve's fit, whose covariance E_k is known from the fit. Sigma is found by restricted maximum likelihood,
so that the estimation error is not counted as spread and the two coefficients of each line cost their degrees of
freedom. Where devices were measured in several cycles, u is the sum of what a device keeps and what changes with the
cycle, so that cycles do not count as devices (`calib.fitting.mixed_model`).
"""

from dataclasses import dataclass

import numpy as np

from calib.fitting.curves import CurveFits, ln_r_gradient
from calib.fitting.parameter_line import Responses, ShapeFit, regress
from calib.iv_models import IVModel

MINIMUM_CURVES = 4
"""Fewer curves than this do not give a line in ln R with a spread about it."""
_POSITIVE_SIGMAS = 3.0
_LEAST_FREE = 0.2
"""Part of the curves that must be free of bounds for a line to be fitted to these alone."""
_WIDEST_DRAW = 4.0
"""Draws reach this many standard deviations from the line; there a parameter must still be inside its law's bounds."""


@dataclass(frozen=True)
class Line:
    """t = intercept + slope ln(R / Ohm) with covariance about it; arrays over the law's parameters, scale included.

    Attributes
    ----------
    transforms : 'log' or 'identity' per parameter: t = transform(theta).
    centre : mean ln(R / Ohm) of the curves, at which `value` is the line's value.
    intercept, slope, value, spread : (parameter,), each with `_stderr` and `_bound` (parameter, 2), the ends of a 95 %
        interval: Student's t for the lines, chi-square for the spread.
    covariance, covariance_stderr : (parameter, parameter) of the devices about the line.
    line_covariance : (2 parameter, 2 parameter) of the estimates intercept, slope of each parameter in turn.
    log_likelihood : restricted, of the shape parameters themselves.
    n_curves, n_at_bound : curves that the line is fitted to, and those left out because a parameter is at its bound.
    fitted : the fit of the shape parameters with ln R counted from `centre`; None for a law without any.
    """

    transforms: tuple[str, ...]
    centre: float
    intercept: np.ndarray
    intercept_stderr: np.ndarray
    intercept_bound: np.ndarray
    slope: np.ndarray
    slope_stderr: np.ndarray
    slope_bound: np.ndarray
    value: np.ndarray
    value_stderr: np.ndarray
    value_bound: np.ndarray
    covariance: np.ndarray
    covariance_stderr: np.ndarray
    spread: np.ndarray
    spread_stderr: np.ndarray
    spread_bound: np.ndarray
    line_covariance: np.ndarray
    log_likelihood: float
    n_curves: int
    n_at_bound: int
    fitted: ShapeFit | None = None


def fit_lines(
    law: IVModel, states: dict[str, CurveFits], reference_voltage: float, warnings: list[str] | None = None
) -> dict[str, Line]:
    """Regress the law's parameters on ln R in every state, in coordinates that all states share.

    Each shape parameter is regressed as it is or as its logarithm, whichever makes the curves of all states together
    more likely; as a logarithm only where every estimate is clearly positive, and never as it is where draws from the
    line would leave the law's bounds but those of the logarithm would not.
    """
    said = [] if warnings is None else warnings
    if not law.shape:
        return {state: _scale_only(law, fits) for state, fits in states.items()}
    used = {state: usable(law, fits) for state, fits in states.items()}
    transforms = choose_transforms(law, states, used, reference_voltage)
    lines = {state: fit_used(law, fits, used[state], reference_voltage, transforms) for state, fits in states.items()}
    for state, fits in states.items():
        _say_bounds(law, state, fits, used[state], lines[state], said)
    return lines


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
    return fit_used(law, fits, usable(law, fits), reference_voltage, transforms)


def choose_transforms(
    law: IVModel, states: dict[str, CurveFits], used: dict[str, np.ndarray], reference_voltage: float
) -> tuple[str, ...]:
    """Return for each parameter whether its logarithm or itself is regressed on ln R, the same in all states."""
    names, chosen = law.parameter_names, []
    for column, parameter in enumerate(law.parameters):
        if parameter.transform == "log" or parameter.name == law.scale:
            chosen.append("log" if parameter.name != law.scale or parameter.transform == "log" else "identity")
            continue
        values = np.concatenate([fits.fit.values[used[state]][:, column] for state, fits in states.items()])
        stderr = np.concatenate([fits.fit.stderr[used[state]][:, column] for state, fits in states.items()])
        clear = (values > _POSITIVE_SIGMAS * np.nan_to_num(stderr)).all()
        bounded = parameter.lower >= 0
        if not clear and not (bounded and (values > 0).all()):
            chosen.append("identity")
            continue
        likelihood, inside = {}, {}
        for transform in ("identity", "log"):
            wanted = tuple(transform if name == parameter.name else "identity" for name in names)
            fitted = [
                _alone(law, fits, used[state], reference_voltage, wanted, column) for state, fits in states.items()
            ]
            likelihood[transform] = sum(item[0] for item in fitted)
            inside[transform] = all(item[1] for item in fitted)
        as_log = clear and likelihood["log"] > likelihood["identity"]
        if not inside["identity"] and (inside["log"] or bounded):
            as_log = True
        elif inside["identity"] and not inside["log"]:
            as_log = False
        chosen.append("log" if as_log else "identity")
    return tuple(chosen)


def _alone(
    law: IVModel, fits: CurveFits, used: np.ndarray, v_ref: float, transforms: tuple[str, ...], column: int
) -> tuple[float, bool]:
    """Return a parameter's log likelihood by itself, and whether draws from its line stay inside the law's bounds."""
    data = responses(law, fits, used, v_ref, transforms)
    fitted = regress(data, [column], float(data.x.mean()))
    likelihood = fitted.mixed.log_likelihood - float(_log_jacobian(law, fits, used, transforms)[:, column].sum())
    ends = np.array([data.x.min(), data.x.max()]) - data.x.mean()
    centre = fitted.value[0] + fitted.slope[0] * ends
    half = _WIDEST_DRAW * float(np.sqrt(fitted.total[0, 0]))
    low, high = float(centre.min()) - half, float(centre.max()) + half
    low, high = (np.exp([low, high]) if transforms[column] == "log" else np.array([low, high])).tolist()
    parameter = law.parameters[column]
    return likelihood, bool(parameter.lower <= low and high <= parameter.upper)


def measurable(law: IVModel, fits: CurveFits) -> np.ndarray:
    """Return which curves have estimates that a line can be fitted to: finite, and positive where they must be."""
    positive = [parameter.transform == "log" for parameter in law.parameters]
    return fits.ok & np.isfinite(fits.fit.values).all(1) & (fits.fit.values[:, positive] > 0).all(1)


def usable(law: IVModel, fits: CurveFits) -> np.ndarray:
    """Return which curves a line is fitted to: without those with a parameter at its bound, unless few are left."""
    ok = measurable(law, fits)
    at_bound = getattr(fits.fit, "at_bound", None)
    if at_bound is None:
        return ok
    flagged = np.asarray(at_bound, dtype=bool).reshape(len(ok), -1).any(1)
    free = ok & ~flagged
    return free if free.sum() >= max(MINIMUM_CURVES, _LEAST_FREE * ok.sum()) else ok


def _say_bounds(law: IVModel, state: str, fits: CurveFits, used: np.ndarray, line: Line, warnings: list[str]) -> None:
    """Say which curves were left out for a parameter at its bound, and which parameters are drawn beyond theirs."""
    left = int((fits.ok & ~used).sum())
    if left:
        warnings.append(
            f"state '{state}': {left} of {int(fits.ok.sum())} fitted curves have a parameter at its bound and are "
            "not in the line of the parameters against ln R"
        )
    ends = fits.ln_r[used]
    ends = np.array([ends.min(), ends.max()])
    for column, parameter in enumerate(law.parameters):
        if parameter.name == law.scale or line.transforms[column] == "log":
            continue
        centre = line.intercept[column] + line.slope[column] * ends
        half = _WIDEST_DRAW * line.spread[column]
        rounding = 1e-9 * max(float(np.abs(centre).max()), 1e-3)
        if centre.min() - half < parameter.lower - rounding or centre.max() + half > parameter.upper + rounding:
            warnings.append(
                f"state '{state}': the line and spread of {parameter.name} reach beyond the bounds of the law "
                f"({parameter.lower:g} to {parameter.upper:g}); devices drawn there are set to the bound"
            )


def _scale_only(law: IVModel, fits: CurveFits) -> Line:
    """A law without shape parameters: ln(scale) = ln V_ref - ln f(V_ref) - ln R exactly (R = V_ref / I(V_ref))."""
    scale = np.log(law.anchor(np.ones(1), 1.0, xp=np))
    zero, none = np.zeros(1), np.zeros((1, 1))
    centre = float(fits.ln_r[fits.ok].mean())

    def exact(value: np.ndarray) -> np.ndarray:
        return np.stack([value, value], axis=1)

    return Line(
        transforms=("log",), centre=centre, intercept=scale, intercept_stderr=zero, intercept_bound=exact(scale),
        slope=-np.ones(1), slope_stderr=zero, slope_bound=exact(-np.ones(1)), value=scale - centre, value_stderr=zero,
        value_bound=exact(scale - centre), covariance=none, covariance_stderr=none, spread=zero, spread_stderr=zero,
        spread_bound=exact(zero), line_covariance=np.zeros((2, 2)), log_likelihood=0.0, n_curves=int(fits.ok.sum()),
        n_at_bound=0,
    )  # fmt: skip


def responses(law: IVModel, fits: CurveFits, used: np.ndarray, v_ref: float, transforms: tuple[str, ...]) -> Responses:
    """Return the transformed parameters of the curves `used`, their errors and ln R."""
    values = fits.fit.values[used]
    is_log = np.array([parameter.transform == "log" for parameter in law.parameters])
    wants_log = np.array([transform == "log" for transform in transforms])
    positive = np.where(values > 0, values, np.finfo(float).tiny)
    t = np.where(wants_log, np.log(positive), values)
    chain = np.where(wants_log, np.where(is_log, 1.0, 1.0 / positive), np.where(is_log, values, 1.0))
    return Responses(
        t=t, x=fits.ln_r[used], error=_pooled_covariance(fits, used), chain=chain,
        gradient=ln_r_gradient(law, fits.fit, v_ref)[used], device=fits.curves.device[used],
    )  # fmt: skip


def fit_used(law: IVModel, fits: CurveFits, used: np.ndarray, v_ref: float, transforms: tuple[str, ...]) -> Line:
    """Return the line of the curves `used`, in the given transforms."""
    shape = [law.parameter_names.index(name) for name in law.shape]
    data = responses(law, fits, used, v_ref, transforms)
    centre = float(data.x.mean())
    fitted = regress(data, shape, centre)
    jacobian = float(_log_jacobian(law, fits, used, transforms)[:, shape].sum())
    left = int((fits.ok & ~used).sum())
    return line_of(law, v_ref, transforms, data, fitted, centre, fitted.mixed.log_likelihood - jacobian, left)


def _log_jacobian(law: IVModel, fits: CurveFits, used: np.ndarray, transforms: tuple[str, ...]) -> np.ndarray:
    """Return ln |d theta / d t| of the parameters that are regressed as logarithms, (curve, parameter)."""
    values = fits.fit.values[used]
    wants_log = np.array([transform == "log" for transform in transforms])
    return np.where(wants_log, np.log(np.abs(np.where(values != 0, values, 1.0))), 0.0)


def _pooled_covariance(fits: CurveFits, ok: np.ndarray) -> np.ndarray:
    """Return each curve's estimation covariance with the noise variance pooled over curves.

    Five points leave two degrees of freedom: a curve's own s^2 says little, that of all curves together is known.
    """
    free = fits.fit.n_free[ok]
    variance = fits.fit.cost[ok] / np.maximum(free, 1)
    weight = 10.0  # prior degrees of freedom with which a curve's own variance is drawn to the pooled one
    pooled = np.sum(variance * free) / max(np.sum(free), 1)
    shrunk = (free * variance + weight * pooled) / (free + weight)
    return np.nan_to_num(fits.fit.unscaled[ok]) * shrunk[:, None, None]


def line_of(
    law: IVModel, v_ref: float, transforms: tuple[str, ...], data: Responses, fitted: ShapeFit, centre: float,
    likelihood: float, n_at_bound: int = 0,
) -> Line:  # fmt: skip
    """Return a state's line with its intervals from the fit of the shape parameters; the scale's line is added.

    R is a function of the parameters, so the scale follows from ln R and the shape: its errors and spread are those of
    the shape parameters along d ln(scale) / dt at fixed R.
    """
    names, mixed = law.parameter_names, fitted.mixed
    shape, scale = [names.index(name) for name in law.shape], names.index(law.scale)
    n, d = len(names), len(law.shape)
    lift = np.zeros((n, d))
    lift[shape] = np.eye(d)
    lift[scale] = _scale_gradient(law, v_ref, transforms, fitted.value, centre)
    own = _scale_line(data, scale, shape, centre, lift[scale])  # of the scale at fixed shape: about -ln R
    contrasts = {
        "intercept": (fitted.at_centre - centre * fitted.along, own[0] - centre * own[1]),
        "slope": (fitted.along, own[1]),
        "value": (fitted.at_centre, own[0]),
    }
    found: dict[str, np.ndarray] = {}
    for name, (contrast, more) in contrasts.items():
        table = np.array([mixed.estimate(np.kron(row, contrast)) for row in lift])
        table[scale, [0, 2, 3]] += more
        found[name], found[f"{name}_stderr"], found[f"{name}_bound"] = table[:, 0], table[:, 1], table[:, 2:]
    spread = np.array([fitted.spread(row) for row in lift])
    wide = np.kron(lift, lift)
    errors = np.einsum("ij,jk,ik->i", wide, mixed.total_covariance(), wide)
    pairs = np.kron(lift, np.stack([contrasts["intercept"][0], contrasts["slope"][0]]))
    return Line(
        transforms=transforms, centre=centre, **found, covariance=lift @ fitted.total @ lift.T,
        covariance_stderr=np.sqrt(np.maximum(errors, 0.0)).reshape(n, n), spread=spread[:, 0],
        spread_stderr=spread[:, 1], spread_bound=spread[:, 2:], line_covariance=pairs @ mixed.covariance @ pairs.T,
        log_likelihood=likelihood, n_curves=len(data.x), n_at_bound=n_at_bound, fitted=fitted,
    )  # fmt: skip


def _scale_line(data: Responses, scale: int, shape: list[int], centre: float, gradient: np.ndarray) -> np.ndarray:
    """Return value at the centre and slope against ln R of what the scale holds besides its share of the shape."""
    rest = data.t[:, scale] - data.t[:, shape] @ gradient
    if float(np.ptp(data.x)) < 1e-9:
        return np.array([rest.mean(), 0.0])
    return np.polyfit(data.x - centre, rest, 1)[::-1]


def _scale_gradient(
    law: IVModel, v_ref: float, transforms: tuple[str, ...], shape: np.ndarray, ln_r: float
) -> np.ndarray:
    """Return d ln(scale) / dt at fixed R, by central differences of the anchor about the line at ln R.

    0 where no scale gives that R (a series resistance above it).
    """
    is_log = [transforms[law.parameter_names.index(name)] == "log" for name in law.shape]

    def ln_scale(t: np.ndarray) -> float:
        values = {name: np.exp(v) if log else v for name, v, log in zip(law.shape, t, is_log, strict=True)}
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return float(np.log(law.anchor(np.exp(np.float64(ln_r)), v_ref, xp=np, **values)))

    step = 1e-5
    eye = np.eye(len(shape)) * step
    return np.nan_to_num(
        [(ln_scale(shape + row) - ln_scale(shape - row)) / (2 * step) for row in eye], posinf=0.0, neginf=0.0
    )
