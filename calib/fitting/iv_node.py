"""The iv and examples nodes of a device model, put together from fits."""

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import xarray as xr

from calib.fitting import curves, population
from calib.iv_models import IVModel

QUANTILE_LEVELS = np.linspace(0.0, 1.0, 101)
MAXIMUM_EXAMPLES = 12
MAXIMUM_EXAMPLE_POINTS = 120


def only(part: curves.CurveFits, keep: np.ndarray) -> curves.CurveFits:
    """Return the fits of some of the curves."""
    fit = replace(part.fit, **{f.name: getattr(part.fit, f.name)[keep] for f in fields(part.fit) if f.name != "names"})
    c = part.curves
    few = replace(
        c, device=c.device[keep], cycle=c.cycle[keep], voltage=c.voltage[keep], current=c.current[keep],
        floor=c.floor[keep],
    )  # fmt: skip
    return replace(
        part, curves=few, fit=fit, ln_r=part.ln_r[keep], ln_r_stderr=part.ln_r_stderr[keep],
        relative_rms=part.relative_rms[keep],
    )  # fmt: skip


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
    reference_voltage: float, polarity: str,
) -> xr.Dataset:  # fmt: skip
    """Return the iv node: the population law of every state and the table of its curves' fits."""
    states = list(usable)
    sp, spp = ("state", "parameter"), ("state", "parameter", "parameter_other")
    one = {"units": "1"}

    def stacked(attribute: str) -> np.ndarray:
        return np.stack([getattr(lines[state], attribute) for state in states])

    ln_r = {s: usable[s].ln_r for s in states}
    spread = [float(np.sqrt(max(v.var(ddof=1) - np.mean(usable[s].ln_r_stderr ** 2), 0.0))) for s, v in ln_r.items()]
    n = np.array([len(v) for v in ln_r.values()])
    n_devices = np.array([len(np.unique(usable[s].curves.device)) for s in states])
    raw = np.array([v.std(ddof=1) for v in ln_r.values()])
    data: dict[str, Any] = {
        "transform": (sp, np.array([lines[s].transforms for s in states], dtype=str)),
        "intercept": (sp, stacked("intercept"), {**one, "long_name": "value of the line at ln(R / Ohm) = 0"}),
        "intercept_stderr": (sp, stacked("intercept_stderr"), one),
        "slope": (sp, stacked("slope"), {**one, "long_name": "slope of the line per unit of ln R"}),
        "slope_stderr": (sp, stacked("slope_stderr"), one),
        "covariance": (spp, stacked("covariance"), {**one, "long_name": "covariance of the devices about the line"}),
        "covariance_stderr": (spp, stacked("covariance_stderr"), one),
        "ln_r_quantile": (("state", "quantile"), np.stack([np.quantile(v, QUANTILE_LEVELS) for v in ln_r.values()]),
                          {**one, "long_name": "quantile of ln(R / Ohm)"}),
        "ln_r_mean": ("state", [float(v.mean()) for v in ln_r.values()], {**one, "long_name": "mean of ln(R / Ohm)"}),
        "ln_r_mean_stderr": ("state", raw / np.sqrt(n_devices), one),
        "ln_r_std": ("state", spread, {**one, "long_name": "standard deviation of ln R, estimation error removed"}),
        "ln_r_std_stderr": ("state", raw / np.sqrt(2 * np.maximum(n_devices - 1, 1)), one),
        "ln_r_min": ("state", [float(v.min()) for v in ln_r.values()], one),
        "ln_r_max": ("state", [float(v.max()) for v in ln_r.values()], one),
        "n_curves": ("state", n, {"units": "1"}),
        "n_devices": ("state", n_devices, {"units": "1"}),
        "v_max_state": ("state", [usable[s].v_max for s in states], {"units": "V", "long_name": "end of the window"}),
        "rms": ("state", [float(np.median(usable[s].relative_rms)) for s in states],
                {**one, "long_name": "median over curves of the relative residual's root mean square"}),
    }  # fmt: skip
    data |= _curve_table(law, fits)
    coords = {"state": states, "parameter": list(law.parameter_names), "parameter_other": list(law.parameter_names),
              "quantile": QUANTILE_LEVELS}  # fmt: skip
    attrs = {
        "iv_model": law.name,
        "form": form,
        "expression": law.expression,
        "reference_voltage": reference_voltage,
        "v_min": max(part.v_min for part in usable.values()),
        "v_max": min(part.v_max for part in usable.values()),
        "polarity": polarity,
        "method": "Levenberg-Marquardt per curve, restricted maximum likelihood over curves",
    }
    return xr.Dataset(data, coords=coords, attrs=attrs)


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
