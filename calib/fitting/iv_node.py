"""The iv and examples nodes of a device model, put together from fits."""

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import xarray as xr

from calib.fitting import curves, population, regimes
from calib.fitting.variance_components import variance_components
from calib.iv_models import IVModel

QUANTILE_LEVELS = np.linspace(0.0, 1.0, 101)
TRANSITION = 0.05
"""Half-width in ln R over which the law goes over from one regime's line to the other's."""
MAXIMUM_EXAMPLES = 12
MAXIMUM_EXAMPLE_POINTS = 120


def only(part: curves.CurveFits, keep: np.ndarray) -> curves.CurveFits:
    """Return the fits of some of the curves."""
    n = len(keep)

    def rows(of: Any) -> Any:
        arrays = {f.name: getattr(of, f.name) for f in fields(of)}
        return replace(of, **{k: v[keep] for k, v in arrays.items() if isinstance(v, np.ndarray) and len(v) == n})

    return replace(rows(part), curves=rows(part.curves), fit=rows(part.fit))


def too_few(law: IVModel, fits: dict[str, curves.CurveFits]) -> str:
    """Say that there are too few curves for a device model, and what the curves themselves give."""
    found = sum(int(part.ok.sum()) for part in fits.values())
    devices = len({name for part in fits.values() for name in part.curves.device})
    part = max(fits.values(), key=lambda fitted: int(fitted.ok.sum()))
    own = ""
    if part.ok.any():
        k = int(np.flatnonzero(part.ok)[0])
        values = zip(part.fit.names, part.fit.values[k], part.fit.stderr[k], strict=True)
        own = f"; the first curve by itself gives {', '.join(f'{n} = {v:.4g} +- {e:.2g}' for n, v, e in values)}"
    return (
        f"{found} curves of {devices} device(s) could be fitted ({law.name}), too few for a device model; expected at "
        f"least {population.MINIMUM_CURVES} of one state, or both states of several devices; measure more devices or "
        f"cycles{own}"
    )


def by_level(
    fits: dict[str, curves.CurveFits], ln_r: dict[str, np.ndarray], live: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Return per state the curves that its population law is fitted to.

    These are the curves of devices that switch, and of stuck devices those that lie nearest, in ln R, to the centre of
    the state that they are labelled with: a device stuck on is a low-resistance device in each of its cycles, and would
    bend the law of the high-resistance state.
    """
    centres = {state: float(np.nanmedian(ln_r[state][live[state]])) for state in fits if live[state].any()}
    chosen = {}
    for state in fits:
        distance = np.stack([np.abs(ln_r[state] - centre) for centre in centres.values()])
        nearest = np.array(list(centres))[np.argmin(np.nan_to_num(distance, nan=np.inf), axis=0)]
        chosen[state] = live[state] | (nearest == state)
    return chosen


def iv_node(
    law: IVModel, usable: dict[str, curves.CurveFits], fits: dict[str, curves.CurveFits],
    lines: dict[str, population.Line], *, form: str,
    reference_voltage: float, polarity: str, split: list[regimes.Regimes] | None = None,
) -> xr.Dataset:  # fmt: skip
    """Return the iv node: the population law of every state and the table of its curves' fits."""
    states = list(usable)
    one = {"units": "1"}
    ln_r = {s: usable[s].ln_r for s in states}
    n = np.array([len(v) for v in ln_r.values()])
    n_devices = np.array([len(np.unique(usable[s].curves.device)) for s in states])
    data = _line_table([lines[s] for s in states]) | _resistance_table(usable)
    data |= {
        "ln_r_quantile": (("state", "quantile"), np.stack([np.quantile(v, QUANTILE_LEVELS) for v in ln_r.values()]),
                          {**one, "long_name": "quantile of ln(R / Ohm)"}),
        "ln_r_min": ("state", [float(v.min()) for v in ln_r.values()], one),
        "ln_r_max": ("state", [float(v.max()) for v in ln_r.values()], one),
        "n_curves": ("state", n, {"units": "1"}),
        "n_devices": ("state", n_devices, {"units": "1"}),
        "v_max_state": ("state", [usable[s].v_max for s in states], {"units": "V", "long_name": "end of the window"}),
        "rms": ("state", [float(np.median(usable[s].relative_rms)) for s in states],
                {**one, "long_name": "median over curves of the relative residual's root mean square"}),
    }  # fmt: skip
    data |= _curve_table(law, fits) | _regime_table(split or [])
    names = list(law.parameter_names)
    pairs = [f"{name}_{part}" for name in names for part in ("intercept", "slope")]
    coords = {"state": states, "parameter": names, "parameter_other": names, "line": pairs, "line_other": pairs,
              "quantile": QUANTILE_LEVELS, "bound": ["low", "high"]}  # fmt: skip
    attrs = {
        "iv_model": law.name,
        "form": form,
        "expression": law.expression,
        "reference_voltage": reference_voltage,
        "v_min": max(part.v_min for part in usable.values()),
        "v_max": min(part.v_max for part in usable.values()),
        "polarity": polarity,
        "method": "least squares per curve; restricted maximum likelihood over curves, devices that repeat as such",
        "interval_method": "lines: Student's t with Satterthwaite's degrees of freedom; spreads: chi-square",
    }
    return xr.Dataset(data, coords=coords, attrs=attrs)


def _line_table(lines: list[population.Line]) -> dict[str, Any]:
    """Return the lines of the states with their errors and intervals."""
    sp, spp = ("state", "parameter"), ("state", "parameter", "parameter_other")
    spb = (*sp, "bound")
    one = {"units": "1"}

    def stacked(attribute: str) -> np.ndarray:
        return np.stack([getattr(line, attribute) for line in lines])

    table: dict[str, Any] = {"transform": (sp, np.array([line.transforms for line in lines], dtype=str))}
    for name, long_name in (
        ("intercept", "value of the line at ln(R / Ohm) = 0"),
        ("slope", "slope of the line per unit of ln R"),
        ("value", "value of the line at the centre of the state"),
        ("spread", "standard deviation of the devices about the line"),
    ):
        key = "value_at_centre" if name == "value" else name
        table[key] = (sp, stacked(name), {**one, "long_name": long_name})
        table[f"{key}_stderr"] = (sp, stacked(f"{name}_stderr"), {**one, "long_name": f"standard error: {long_name}"})
        table[f"{key}_bound"] = (spb, stacked(f"{name}_bound"), {**one, "long_name": f"95 % interval: {long_name}"})
    return table | {
        "centre": ("state", [line.centre for line in lines], {**one, "long_name": "mean ln(R / Ohm) of the curves"}),
        "covariance": (spp, stacked("covariance"), {**one, "long_name": "covariance of the devices about the line"}),
        "covariance_stderr": (spp, stacked("covariance_stderr"), one),
        "covariance_bound": (spb, np.square(stacked("spread_bound")),
                             {**one, "long_name": "95 % interval of the covariance's diagonal"}),
        "line_covariance": (("state", "line", "line_other"), stacked("line_covariance"),
                            {**one, "long_name": "covariance of the estimated intercepts and slopes"}),
        "n_at_bound": ("state", [line.n_at_bound for line in lines],
                       {**one, "long_name": "curves with a parameter at its bound, not in the line"}),
    }  # fmt: skip


def _resistance_table(usable: dict[str, curves.CurveFits]) -> dict[str, Any]:
    """Return mean and spread of ln R per state; cycles of a device do not count as devices."""
    one = {"units": "1"}
    parts = [
        variance_components(part.ln_r, part.curves.device, float(np.mean(part.ln_r_stderr**2)))
        for part in usable.values()
    ]
    both = ("state", "bound")
    return {
        "ln_r_mean": ("state", [part.mean for part in parts], {**one, "long_name": "mean of ln(R / Ohm)"}),
        "ln_r_mean_stderr": ("state", [part.mean_stderr for part in parts], one),
        "ln_r_mean_bound": (both, [part.mean_bound for part in parts], {**one, "long_name": "95 % interval"}),
        "ln_r_std": ("state", [part.total for part in parts],
                     {**one, "long_name": "standard deviation of ln R, estimation error removed"}),
        "ln_r_std_stderr": ("state", [part.total_stderr for part in parts], one),
        "ln_r_std_bound": (both, [part.total_bound for part in parts], {**one, "long_name": "95 % interval"}),
    }  # fmt: skip


def _regime_table(split: list[regimes.Regimes]) -> dict[str, Any]:
    """Return the lines of states whose parameters change at a break in ln R, as anchor points of their law.

    Each line has two: the mean ln R of its curves and, `TRANSITION` from the break, the end of its validity; between
    the two lines' ends the law is interpolated.
    """
    rows: list[tuple[regimes.Regimes, population.Line, float]] = []
    for found in split:
        for line, sign in zip(found.lines, (-1, 1), strict=True):
            end = found.ln_r_break + sign * TRANSITION
            centres = {end} | ({line.centre} if sign * (line.centre - end) > 0 else set())
            rows += [(found, line, centre) for centre in sorted(centres)]
    if not rows:
        return {}
    one, sp = {"units": "1"}, ("segment", "parameter")
    lines = [line for _, line, _ in rows]
    table: dict[str, Any] = {
        "regime_state": ("segment", np.array([found.state for found, _, _ in rows], dtype=str)),
        "regime_centre": ("segment", [centre for _, _, centre in rows],
                          {**one, "long_name": "ln(R / Ohm) at which the segment's line holds by itself"}),
        "regime_break": ("segment", [found.ln_r_break for found, _, _ in rows],
                         {**one, "long_name": "ln(R / Ohm) at which the line changes"}),
        "regime_bic_drop": ("segment", [found.bic_drop for found, _, _ in rows],
                            {**one, "long_name": "by how much BIC is lower with two lines"}),
        "regime_p": ("segment", [found.p_value for found, _, _ in rows],
                     {**one, "long_name": "p value of one line, by bootstrap"}),
        "n_regime_curves": ("segment", [line.n_curves for line in lines], one),
    }  # fmt: skip
    for name in ("intercept", "slope"):
        for suffix in ("", "_stderr"):
            table[f"regime_{name}{suffix}"] = (sp, np.stack([getattr(line, name + suffix) for line in lines]), one)
    covariance = np.stack([line.covariance for line in lines])
    return table | {"regime_covariance": ((*sp, "parameter_other"), covariance, one)}


def _curve_table(law: IVModel, fits: dict[str, curves.CurveFits]) -> dict[str, Any]:
    """Return the per-curve fits of all states, failed ones included with their status."""
    parts = list(fits.values())

    def joined(get: Any) -> np.ndarray:
        return np.concatenate([np.asarray(get(part)) for part in parts])

    one, cp = {"units": "1"}, ("curve", "parameter")
    units = json.dumps({parameter.name: parameter.unit for parameter in law.parameters})
    return {
        "curve_device": ("curve", joined(lambda p: p.curves.device).astype(str)),
        "curve_cycle": ("curve", joined(lambda p: p.curves.cycle), one),
        "curve_state": ("curve", np.repeat(list(fits), [len(p.curves) for p in parts]).astype(str)),
        "curve_status": ("curve", joined(lambda p: p.fit.status).astype(str)),
        "curve_ln_r": ("curve", joined(lambda p: p.ln_r), one),
        "curve_ln_r_stderr": ("curve", joined(lambda p: p.ln_r_stderr), one),
        "curve_parameter": (cp, joined(lambda p: p.fit.values), {"units": units}),
        "curve_parameter_stderr": (cp, joined(lambda p: p.fit.stderr), {"units": units}),
        "curve_rms": ("curve", joined(lambda p: p.relative_rms), one),
        "curve_offset": ("curve", joined(lambda p: p.fit.offset), {"units": "A"}),
        "curve_n_points": ("curve", joined(lambda p: p.fit.n_points), one),
    }


def examples_node(node: xr.Dataset, states: list[str], polarity: str, v_max: float) -> xr.Dataset:
    """Return a few measured branches a state, spread over the conductances seen, thinned for figures."""
    chosen: list[int] = []
    for state in states:
        rows = np.flatnonzero((node["state"].values == state) & (node["polarity"].values == polarity))
        level = np.nanmedian(np.abs(node["current"].values[rows]), axis=1)
        order = rows[np.argsort(level)]
        chosen += list(order[np.unique(np.linspace(0, len(order) - 1, MAXIMUM_EXAMPLES).round().astype(int))])
    part = node.isel(sweep=chosen)
    inside = np.isfinite(part["voltage"].values) & (np.abs(part["voltage"].values) <= 2 * v_max)
    longest = int(inside.sum(1).max(initial=0))
    step = max(1, -(-longest // MAXIMUM_EXAMPLE_POINTS))
    width = -(-longest // step)
    voltage, current = np.full((len(chosen), width), np.nan), np.full((len(chosen), width), np.nan)
    for row, keep in enumerate(inside):
        picked = np.flatnonzero(keep)[::step]
        voltage[row, : len(picked)] = part["voltage"].values[row, picked]
        current[row, : len(picked)] = part["current"].values[row, picked]
    return xr.Dataset(
        {
            "voltage": (("example", "point"), voltage, {"units": "V", "long_name": "voltage"}),
            "current": (("example", "point"), current, {"units": "A", "long_name": "current"}),
            "example_state": ("example", part["state"].values.astype(str)),
            "example_device": ("example", part["device"].values.astype(str)),
        }
    )
