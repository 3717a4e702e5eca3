"""Every number of a device model on one list, each with its interval, unit, sample size, method and validity.

The list is what the data sheet's first table and `calib show --json` hold.
"""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from calib import plugins
from calib.characteristics.base import NAN, Z_95, Estimate, bounds, scalar, with_error
from calib.device_model import ShapeLaw, shape_law
from calib.formatting import format_interval, format_quantity, plural
from calib.iv_models import iv_model

MEANINGS = {
    "iv": "I-V law: how the current depends on the voltage, and how that varies with resistance and between devices",
    "selection": "choice of the law: how the conduction laws compare on the curves, and how far these bend",
    "conductance": "conductance range: between which conductances the device is programmed",
    "activation": "activation: how the conductance of a state changes with temperature",
    "levels": "levels: how many conductances can be told apart",
    "programming": "programming spread: how far the resistance lands from where it was meant to",
    "writes": "writes: how often a write hits its target range, and how exactly",
    "switching": "switching: at which voltages the device sets and resets, and how long it endures",
    "cycles": "cycles: how resistances and switching voltages follow one another from cycle to cycle",
    "stuck": "stuck devices: how many do not switch, and at which conductance they stay",
    "retention": "retention: how the conductance drifts with time",
    "read_noise": "read noise: how the current differs from one read to the next",
    "pulse": "pulse response: how the conductance changes from pulse to pulse",
    "validation": "validation: whether the model predicts measurements that it was not fitted to",
}
"""What each characteristic of a device model says, by the name of its node; its order is that of tables."""
MEMBER = ("node", "sections", "estimates", "key_numbers", "figures", "resample")


def estimates(tree: xr.DataTree) -> list[Estimate]:
    """Return all numbers of a device model, characteristic by characteristic."""
    found: list[Estimate] = []
    for name, list_of in (("iv", _iv), ("conductance", _conductance), ("programming", _programming), ("stuck", _stuck)):
        if name in tree.children:
            found += list_of(tree[name].to_dataset(), tree)
    for member in members(tree):
        found += member.estimates(tree[member.node].to_dataset(), tree)
    return found


def members(tree: xr.DataTree) -> list[Any]:
    """Return the members of the family whose node the device model has, in the order of `MEANINGS`."""
    known = plugins.names(__name__)
    wanted = [node.replace("_", "-") for node in MEANINGS if node in tree.children]
    return [plugins.load(__name__, name, MEMBER) for name in wanted if name in known]


def absent(tree: xr.DataTree) -> list[str]:
    """Return in words which characteristics the device model lacks."""
    return [meaning for name, meaning in MEANINGS.items() if name not in tree.children]


def median_resistance(node: xr.Dataset, state: str) -> float:
    """Return the median of R [Ohm] of a state from its quantiles."""
    return math.exp(quantile(node, state, 0.5))


def quantile(node: xr.Dataset, state: str, q: float) -> float:
    """Return a quantile of ln(R / Ohm) of a state."""
    row = node["ln_r_quantile"].sel(state=state).values
    return float(np.interp(q, node["quantile"].values, row))


def typical_parameters(tree: xr.DataTree, state: str, ln_r: float) -> dict[str, float]:
    """Return the law's parameters of a device of resistance exp(ln_r) that lies on its state's line.

    The scale is solved so that I(V_ref) = V_ref / R, or taken from its own line in the paper's form.
    """
    law: ShapeLaw = shape_law(tree, state)
    model = iv_model(law.iv_model)
    t, _ = law.at(np.array(ln_r))
    values = {
        name: float(np.exp(t[k]) if law.transforms[k] == "log" else t[k]) for k, name in enumerate(law.parameters)
    }
    if law.form == "anchored":
        limits = {name: (model.parameter(name).lower, model.parameter(name).upper) for name in model.shape}
        shape = {name: float(np.clip(values[name], *limits[name])) for name in model.shape}
        shape = model.admissible(np.exp(ln_r), xp=np, **shape)
        values |= {name: float(value) for name, value in shape.items()}
        values[model.scale] = float(model.anchor(np.exp(ln_r), law.reference_voltage, xp=np, **shape))
    return values


def sample_size(node: xr.Dataset, state: str) -> str:
    """Return '36 curves of 12 devices', or that a published model does not say."""
    curves, devices = scalar(node, "n_curves", state=state), scalar(node, "n_devices", state=state)
    if not curves > 0:
        return "sample size not stated"
    return f"{plural(int(curves), 'curve')} of {plural(int(devices), 'device')}"


def window(node: xr.Dataset, state: str = "") -> str:
    """Return the range of |V| in which a state's law, or that of all states, was fitted."""
    end = scalar(node, "v_max_state", state=state) if state else NAN
    end = end if math.isfinite(end) else float(node.attrs["v_max"])
    return f"|V| {float(node.attrs['v_min']):.4g} to {end:.4g} V"


def interval_of(node: xr.Dataset, name: str, **selection: str) -> tuple[float, float]:
    """Return the ends of a number's 95 % interval: those that the node holds, else the normal ones of its error."""
    if f"{name}_bound" in node:
        low, high = node[f"{name}_bound"].sel(selection).values
        return float(low), float(high)
    value, half = scalar(node, name, **selection), Z_95 * scalar(node, f"{name}_stderr", **selection)
    return value - half, value + half


def _with_bound(estimate: Estimate, node: xr.Dataset, name: str, **selection: str) -> Estimate:
    """Return the estimate with the interval that the node holds, else with the normal one of its standard error."""
    if f"{name}_bound" not in node:
        return with_error(estimate)
    low, high = interval_of(node, name, **selection)
    return replace(estimate, low=low, high=high, interval="95 % confidence") if math.isfinite(low + high) else estimate


def _iv(node: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    found = []
    for state in map(str, node["state"].values):
        found += _resistance(node, state)
        found += _lines(node, state)
        found += _derived(node, tree, state)
    return found


def _resistance(node: xr.Dataset, state: str) -> Iterator[Estimate]:
    n, where = sample_size(node, state), f"at {abs(float(node.attrs['reference_voltage'])):g} V"
    mean = scalar(node, "ln_r_mean", state=state)
    low, high = interval_of(node, "ln_r_mean", state=state)
    yield Estimate(
        "iv", state, "resistance_median", "resistance, median", median_resistance(node, state), "ohm", n=n,
        low=math.exp(quantile(node, state, 0.05)), high=math.exp(quantile(node, state, 0.95)),
        interval="5 to 95 % of the curves", method="R = V_ref / I(V_ref) of each fitted curve", validity=where,
    )  # fmt: skip
    yield Estimate(
        "iv", state, "resistance_geometric_mean", "resistance, geometric mean", math.exp(mean), "ohm", n=n,
        low=math.exp(low), high=math.exp(high), interval="95 % confidence",
        method="mean of ln R over curves, error by devices", validity=where,
    )  # fmt: skip
    yield _with_bound(
        Estimate(
            "iv", state, "ln_resistance_std", "spread of ln R", scalar(node, "ln_r_std", state=state), "1",
            stderr=scalar(node, "ln_r_std_stderr", state=state), n=n,
            method="standard deviation, estimation error removed", validity=where,
        ),
        node, "ln_r_std", state=state,
    )  # fmt: skip


def _lines(node: xr.Dataset, state: str) -> Iterator[Estimate]:
    model = iv_model(str(node.attrs["iv_model"]))
    low, high = math.exp(scalar(node, "ln_r_min", state=state)), math.exp(scalar(node, "ln_r_max", state=state))
    validity = f"R {format_interval(low, high, 'ohm')}, {window(node, state)}"
    method = str(node.attrs.get("method", ""))
    for name in model.parameter_names:
        pick = {"state": state, "parameter": name}
        log = str(node["transform"].sel(pick).values) == "log"
        symbol = f"ln {name}" if log else name
        unit = "1" if log else model.parameter(name).unit
        centre = math.exp(scalar(node, "centre", state=state)) if "centre" in node else NAN
        for key, part, label in (
            ("value_at_centre", "value_at_centre", f"{symbol} at R = {format_quantity(centre, 'ohm')}"),
            ("intercept", "intercept", f"{symbol}, intercept at R = 1 Ohm"),
            ("slope", "slope", f"{symbol}, slope per ln R"),
        ):
            if part not in node:
                continue
            yield _with_bound(
                Estimate(
                    "iv", state, f"{name}_{key}", label, scalar(node, part, **pick), unit,
                    stderr=scalar(node, f"{part}_stderr", **pick), n=sample_size(node, state), method=method,
                    validity=validity,
                ),
                node, part, **pick,
            )  # fmt: skip
        value, stderr = spread(node, state, name)
        yield _with_bound(
            Estimate(
                "iv", state, f"{name}_spread", f"{symbol}, spread of the devices about the line", value, unit,
                stderr=stderr, n=sample_size(node, state), method=method, validity=validity,
            ),
            node, "spread", **pick,
        )  # fmt: skip


def spread(node: xr.Dataset, state: str, name: str) -> tuple[float, float]:
    """Return the standard deviation of a parameter about its line, and its standard error."""
    if "spread" in node:
        pick = {"state": state, "parameter": name}
        return scalar(node, "spread", **pick), scalar(node, "spread_stderr", **pick)
    pick = {"state": state, "parameter": name, "parameter_other": name}
    variance = scalar(node, "covariance", **pick)
    error = scalar(node, "covariance_stderr", **pick)
    sigma = math.sqrt(max(variance, 0.0))
    return sigma, error / (2 * sigma) if sigma > 0 and math.isfinite(error) else NAN


def _derived(node: xr.Dataset, tree: xr.DataTree, state: str) -> Iterator[Estimate]:
    model = iv_model(str(node.attrs["iv_model"]))
    temperature = node.attrs.get("temperature")
    values = typical_parameters(tree, state, quantile(node, state, 0.5))
    for key, (value, unit, meaning) in model.derived(temperature, **values).items():
        yield Estimate(
            "iv", state, key, meaning, value, unit, n=sample_size(node, state),
            method="from the line at the median resistance", validity=f"at {float(temperature or NAN):g} K",
        )  # fmt: skip


def _conductance(node: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    voltage = node.attrs.get("reference_voltage")
    validity = f"at {abs(float(voltage)):g} V" if voltage is not None else ""
    n = ""
    if "stuck" in tree.children:
        part = tree["stuck"].to_dataset()
        n = plural(int(part["n_devices"]) - int(part["n_stuck"]), "device")
    elif "iv" in tree.children:
        count = int(tree["iv"].to_dataset()["n_devices"].max())
        n = plural(count, "device") if count else "sample size not stated"
    found = []
    for key, label in (("g_off", "conductance of the off state"), ("g_on", "conductance of the on state")):
        low, high = bounds(node, f"{key}_bound")
        found.append(
            Estimate(
                "conductance", "", key, label, float(node[key]), "S", low=low, high=high, n=n,
                interval="95 % confidence" if math.isfinite(low) or math.isfinite(high) else "",
                method=str(node.attrs.get("rule", "")), validity=validity,
            )
        )  # fmt: skip
    return found


def _programming(node: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    parts = [
        ("sigma", "programming spread, sigma of ln R, total"),
        ("sigma_d2d", "programming spread, sigma of ln R from device to device"),
        ("sigma_c2c", "programming spread, sigma of ln R from cycle to cycle"),
    ]
    more = [("sigma_c2c_slope", "d ln(sigma_c2c) / d ln R within the state")] if "sigma_c2c_slope" in node else []
    return [
        _with_bound(
            Estimate(
                "programming", state, key, label, scalar(node, key, state=state), "1",
                stderr=scalar(node, f"{key}_stderr", state=state), n=programming_size(node, state),
                method=str(node.attrs.get("method", "")),
                validity=f"about R = {format_quantity(scalar(node, 'r_median', state=state), 'ohm')}",
            ),
            node, key, state=state,
        )
        for state in map(str, node["state"].values)
        for key, label in parts + more
        if key not in dict(more) or math.isfinite(scalar(node, key, state=state))
    ]  # fmt: skip


def programming_size(node: xr.Dataset, state: str) -> str:
    """Return '33 values of 11 devices', or what of it is known."""
    devices = plural(int(scalar(node, "n_devices", state=state)), "device")
    if "n_values" in node:
        return f"{plural(int(scalar(node, 'n_values', state=state)), 'value')} of {devices}"
    return devices


def _stuck(node: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    n = int(node["n_devices"])
    parts = [("probability", "probability that a device is stuck", "n_stuck")]
    for key, words in (("on", "on"), ("off", "off"), ("other", "between on and off")):
        if f"probability_{key}" in node:
            parts.append((f"probability_{key}", f"probability that a device is stuck {words}", f"n_stuck_{key}"))
    found = []
    for key, label, count in parts:
        low, high = bounds(node, f"{key}_bound")
        found.append(
            Estimate(
                "stuck", "", key, label, float(node[key]), "1", low=low, high=high,
                interval="exact binomial 95 %" if math.isfinite(low) else "",
                n=f"{int(node[count])} of {plural(n, 'device')}", method=str(node.attrs.get("rule", "")),
                validity="an assumption in part, see there" if int(node.attrs.get("assumed", 0)) else "",
            )
        )  # fmt: skip
    return found
