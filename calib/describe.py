"""A device model in words and tables: the same sections for the terminal, the data sheet and the report."""

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np
import xarray as xr

from calib import characteristics as c
from calib.characteristics.base import Section
from calib.device_model import attribute, identity
from calib.formatting import (
    UNKNOWN,
    format_estimate,
    format_interval,
    format_percent,
    format_quantity,
    plural,
    spelled,
)
from calib.iv_models import iv_model
from calib.state_names import state_name
from calib.validation_tables import comparison_section, validation_json, validation_section

FORMS = {
    "anchored": "anchored: the shape is drawn given ln R, the scale is solved so that I(V_ref) = V_ref / R",
    "paper": "paper: all parameters are drawn given ln R (Joksas et al. 2022)",
}
PLAIN_SECTIONS = ("Warnings", "Assumptions", "Not in this model")
"""Sections that are lists of sentences, which documents show in their own way."""


def describe(tree: xr.DataTree) -> list[Section]:
    """Return what a device model holds, section by section, what it lacks included."""
    sections = [model_section(tree)]
    if "iv" in tree.children:
        node = tree["iv"].to_dataset()
        sections += [law_section(tree, node, state) for state in _states(node)]
        sections.append(resistance_section(node))
    if "conductance" in tree.children:
        sections += conductance_sections(tree["conductance"].to_dataset())
    if "programming" in tree.children:
        sections.append(programming_section(tree["programming"].to_dataset()))
    if "stuck" in tree.children:
        sections.append(stuck_section(tree["stuck"].to_dataset()))
    for member in c.members(tree):
        sections += member.sections(tree[member.node].to_dataset(), tree)
    if "validation" in tree.children:
        node = tree["validation"].to_dataset()
        sections += [section for section in (validation_section(node), comparison_section(node)) if section]
    for title, key in (("Warnings", "warnings"), ("Assumptions", "assumptions")):
        sentences = attribute(tree, key)
        if sentences:
            sections.append(Section(title, ("statement",), tuple((str(s),) for s in sentences)))
    lacking = [sentence.partition(": ") for sentence in c.absent(tree)]
    if lacking:
        rows = tuple((name, meaning) for name, _, meaning in lacking)
        sections.append(Section("Not in this model", ("characteristic", "what it would say"), rows))
    return sections


def _states(node: xr.Dataset) -> list[str]:
    return [str(state) for state in node["state"].values]


def model_section(tree: xr.DataTree) -> Section:
    """Return name, law, voltages, temperature and sources."""
    rows = [("name", str(tree.attrs.get("name", "")))]
    rows += [(key, str(tree.attrs[key])) for key in ("technology", "citation", "license") if tree.attrs.get(key)]
    if "iv" in tree.children:
        rows += _law_rows(tree["iv"].to_dataset())
    elif "conductance" in tree.children and "reference_voltage" in tree["conductance"].attrs:
        rows.append(("reference voltage", f"{float(tree['conductance'].attrs['reference_voltage']):g} V"))
    sources = attribute(tree, "sources")
    rows += [("source", f"{s.get('name', '')} (sha256 {str(s.get('sha256', ''))[:12]})") for s in sources[:5]]
    if len(sources) > 5:
        rows.append(("", f"and {plural(len(sources) - 5, 'more file')}"))
    rows += [("identity", identity(tree)[:16]), ("made", _made(tree))]
    return Section("Model", ("property", "value"), tuple(row for row in rows if row[1]))


def _made(tree: xr.DataTree) -> str:
    created = str(tree.attrs.get("created", ""))
    return f"by calib {tree.attrs.get('calib_version', '')}" + (f", {created}" if created else "")


def _law_rows(node: xr.Dataset) -> list[tuple[str, str]]:
    model = iv_model(str(node.attrs["iv_model"]))
    temperature = node.attrs.get("temperature")
    polarity = str(node.attrs.get("polarity", ""))
    return [
        ("I-V law", f"{model.title}, {model.equation}"),
        ("form", FORMS.get(str(node.attrs["form"]), str(node.attrs["form"]))),
        ("reference voltage", f"{float(node.attrs['reference_voltage']):g} V, at which R = V / I is defined"),
        ("polarity", f"fitted on the {polarity} branches" if polarity else ""),
        ("valid for", c.window(node)),
        ("temperature", f"{float(temperature):g} K" if temperature is not None else "not known"),
    ]


def law_section(tree: xr.DataTree, node: xr.Dataset, state: str) -> Section:
    """Return each parameter's line in ln R, the spread about it, and its value at the state's median resistance."""
    model = iv_model(str(node.attrs["iv_model"]))
    ln_r = c.quantile(node, state, 0.5)
    typical = c.typical_parameters(tree, state, ln_r)
    rows = []
    for name in model.parameter_names:
        pick = {"state": state, "parameter": name}
        log = str(node["transform"].sel(pick).values) == "log"

        def number(key: str, pick: dict[str, str] = pick) -> str:
            return format_estimate(c.scalar(node, key, **pick), c.scalar(node, f"{key}_stderr", **pick))

        unit = model.parameter(name).unit
        rows.append((
            f"ln({name} / {spelled(unit)})" if log and spelled(unit) else f"ln {name}" if log else name,
            "" if log else spelled(unit), number("intercept"), number("slope"),
            *((number("value_at_centre"),) if "value_at_centre" in node else ()),
            _with_interval(node, "spread", *c.spread(node, state, name), **pick), format_quantity(typical[name], unit),
            model.parameter(name).meaning,
        ))  # fmt: skip
    centre = math.exp(c.scalar(node, "centre", state=state)) if "centre" in node else c.NAN
    columns = (
        "parameter", "unit", "intercept", "slope per ln R",
        *((f"at {format_quantity(centre, 'ohm')}",) if "value_at_centre" in node else ()),
        "spread (95 %)", "at the median R", "meaning",
    )  # fmt: skip
    return Section(
        f"I-V law: {state_name(state)}", columns, tuple(rows), tuple(_law_notes(node, model, state, typical))
    )


def _with_interval(node: xr.Dataset, key: str, value: float, stderr: float, **pick: str) -> str:
    """Return a value with its 95 % interval where the node holds one, else with its standard error."""
    if f"{key}_bound" not in node or not math.isfinite(value):
        return format_estimate(value, stderr)
    low, high = c.interval_of(node, key, **pick)
    return (
        f"{format_estimate(value)} ({format_interval(low, high)})"
        if math.isfinite(low + high)
        else (format_estimate(value, stderr))
    )


def _regime_notes(node: xr.Dataset, model: Any, state: str) -> list[str]:
    """Say where the line of a state changes, and how."""
    if "regime_state" not in node:
        return []
    here = node.isel(segment=np.flatnonzero(node["regime_state"].values.astype(str) == state))
    if not here.sizes["segment"]:
        return []
    slopes = ", ".join(
        f"{name} {format_estimate(float(here['regime_slope'].values[0, k]))} below and "
        f"{format_estimate(float(here['regime_slope'].values[-1, k]))} above"
        for k, name in enumerate(map(str, node["parameter"].values))
        if name != model.scale
    )
    return [
        f"the line changes at R = {format_quantity(math.exp(float(here['regime_break'][0])), 'ohm')}: slope per ln R "
        f"of {slopes} ({int(here['n_regime_curves'][0])} and {int(here['n_regime_curves'][-1])} curves, BIC lower by "
        f"{float(here['regime_bic_drop'][0]):.0f})"
    ]


def _law_notes(node: xr.Dataset, model: Any, state: str, typical: dict[str, float]) -> list[str]:
    notes = [f"{c.sample_size(node, state)}, fitted over {c.window(node, state)}"]
    rms = c.scalar(node, "rms", state=state)
    if math.isfinite(rms):
        notes[0] += f", residual {format_percent(rms)} rms (median over curves)"
    notes += _regime_notes(node, model, state)
    left = c.scalar(node, "n_at_bound", state=state)
    if left > 0:
        notes.append(f"{plural(int(left), 'curve')} with a parameter at its bound not in the line")
    failed = _failed(node, state)
    if failed:
        notes.append(failed)
    temperature = node.attrs.get("temperature")
    for key, (value, unit, meaning) in model.derived(temperature, **typical).items():
        notes.append(f"{key} = {format_quantity(value, unit)} at the median R: {meaning}")
    if node.attrs["form"] == "anchored" and model.shape:
        notes.append(
            f"{model.scale} is solved from R (anchored form); its line is a summary of the curves and is not drawn from"
        )
    return notes


def _failed(node: xr.Dataset, state: str) -> str:
    if "curve_status" not in node:
        return ""
    here = node["curve_state"].values.astype(str) == state
    status = node["curve_status"].values.astype(str)[here]
    bad = status[status != "ok"]
    return f"{len(bad)} of {plural(len(status), 'curve')} could not be fitted (first: {bad[0]})" if len(bad) else ""


def resistance_section(node: xr.Dataset) -> Section:
    """Return the distribution of R per state."""
    rows = []
    for state in _states(node):
        q05, q50, q95 = (math.exp(c.quantile(node, state, q)) for q in (0.05, 0.5, 0.95))
        sigma = c.scalar(node, "ln_r_std", state=state), c.scalar(node, "ln_r_std_stderr", state=state)
        mean = c.scalar(node, "ln_r_mean", state=state)
        low, high = c.interval_of(node, "ln_r_mean", state=state)
        interval = format_interval(math.exp(low), math.exp(high), "ohm")
        rows.append((
            state_name(state), format_quantity(q50, "ohm"), format_interval(q05, q95, "ohm"),
            format_quantity(math.exp(mean), "ohm"), interval, _with_interval(node, "ln_r_std", *sigma, state=state),
            c.sample_size(node, state),
        ))  # fmt: skip
    columns = ("state", "median", "5 to 95 %", "geometric mean", "its 95 % interval", "spread of ln R", "sample")
    note = f"R = V / I of the fitted law at {abs(float(node.attrs['reference_voltage'])):g} V"
    return Section("Resistance", columns, tuple(rows), (note,))


def conductance_sections(node: xr.Dataset) -> list[Section]:
    """Return the range, and the table per state and read voltage where there is one."""
    rows = []
    for key, label in (("g_off", "off state, G_off"), ("g_on", "on state, G_on")):
        interval = format_interval(*c.bounds(node, f"{key}_bound"), "S")
        value = float(node[key])
        rows.append((label, format_quantity(value, "S"), interval, format_quantity(1 / value, "ohm")))
    notes = [f"on/off ratio {format_estimate(float(node['g_on']) / float(node['g_off']))}"]
    notes += [f"rule: {node.attrs['rule']}"] if node.attrs.get("rule") else []
    columns = ("", "conductance", "95 % interval", "as resistance")
    sections = [Section("Conductance range", columns, tuple(rows), tuple(notes))]
    if "median" in node and "read_voltage" in node.dims:
        sections.append(_conductance_table(node))
    return sections


def _conductance_table(node: xr.Dataset) -> Section:
    rows = []
    for state in _states(node):
        for voltage in node["read_voltage"].values:
            here = node.sel(state=state, read_voltage=voltage)
            if "n" in here and int(here["n"]) == 0:
                continue
            low = high = c.NAN
            if "g_quantile" in here:
                low, high = np.interp((0.05, 0.95), here["quantile"].values, here["g_quantile"].values)
            values = [float(here["minimum"]), low, float(here["median"]), high, float(here["maximum"])]
            interval = (format_interval(*c.bounds(here, "median_bound"), "S"),) if "median_bound" in node else ()
            shown = [format_quantity(value, "S") for value in values]
            rows.append((
                state_name(state), f"{float(voltage):g} V", *shown[:3], *interval, *shown[3:],
                *(str(int(here[key])) if key in here else UNKNOWN for key in ("n", "n_censored")),
            ))  # fmt: skip
    between = ("its 95 % interval",) if "median_bound" in node else ()
    columns = (
        "state", "read at", "smallest", "5 %", "median", *between, "95 %", "largest", "reads", "at the noise floor"
    )  # fmt: skip
    return Section("Conductance as measured", columns, tuple(rows), ("reads of all devices, stuck ones included",))


def programming_section(node: xr.Dataset) -> Section:
    """Return the lognormal spread of the programmed resistance."""

    def sigma(key: str, state: str) -> str:
        value = c.scalar(node, key, state=state)
        if not math.isfinite(value):
            return "not separated"
        return _with_interval(node, key, value, c.scalar(node, f"{key}_stderr", state=state), state=state)

    rows = []
    notes = [str(node.attrs[key]) for key in ("statement", "method") if node.attrs.get(key)]
    for state in _states(node):
        rows.append((
            state_name(state), format_quantity(c.scalar(node, "r_median", state=state), "ohm"),
            *(sigma(key, state) for key in ("sigma", "sigma_d2d", "sigma_c2c")), c.programming_size(node, state),
        ))  # fmt: skip
        if c.scalar(node, "n_censored", state=state) > 0:
            notes.append(
                f"{state}: {int(c.scalar(node, 'n_censored', state=state))} resistances lie beyond the instrument's "
                f"noise floor; without them the total is {sigma('sigma_observed', state)}"
            )
        slope = c.scalar(node, "sigma_c2c_slope", state=state)
        if math.isfinite(slope):
            low, high = c.interval_of(node, "sigma_c2c_slope", state=state)
            p = c.scalar(node, "sigma_c2c_slope_p", state=state)
            notes.append(
                f"{state}: the cycle-to-cycle sigma goes as R^s within the state, s = {format_estimate(slope)} (95 %: "
                f"{format_interval(low, high)}; p = {p:.2g} for no dependence)"
            )
    columns = ("state", "median R", "total", "device to device", "cycle to cycle", "sample")
    return Section("Programming spread (sigma of ln R)", columns, tuple(rows), tuple(notes))


def stuck_section(node: xr.Dataset) -> Section:
    """Return how many devices do not switch, by which rule, and where they are stuck."""
    k, n = int(node["n_stuck"]), int(node["n_devices"])
    assumed = bool(int(node.attrs.get("assumed", 0)))
    low, high = c.bounds(node, "probability_bound")
    rows = [
        ("probability", format_percent(float(node["probability"]))),
        ("exact 95 % interval", f"{format_interval(100 * low, 100 * high)} %" if math.isfinite(low) else UNKNOWN),
        ("stuck devices", "assumed, not counted" if assumed and not n else f"{k} of {n}"),
    ]
    where = [(label, key) for label, key in (("on", "on"), ("off", "off"), ("neither", "other"))]
    if all(f"n_stuck_{key}" in node for _, key in where) and k:
        near = [(label, int(node[f"n_stuck_{key}"])) for label, key in where]
        rows.append(("stuck near", ", ".join(f"{label} {count}" for label, count in near if count)))
        ends = [(label, c.bounds(node, f"probability_{key}_bound")) for label, key in where]
        if all(math.isfinite(sum(pair)) for _, pair in ends):
            known = [f"{label} {format_interval(100 * low, 100 * high)} %" for label, (low, high) in ends]
            rows.append(("their exact 95 % intervals", ", ".join(known)))
    if "n_undecided" in node and int(node["n_undecided"]):
        rows.append(("not known, at the noise floor", plural(int(node["n_undecided"]), "device")))
    if node.sizes.get("stuck_device"):
        g = node["conductance"].values
        between = format_interval(float(g.min()), float(g.max()), "S") if len(g) > 1 else format_quantity(g[0], "S")
        rows.append(("their conductance", between))
        rows.append(("width of the kernel density", format_quantity(float(node["bandwidth"]), "S")))
    if "n_stuck_at_threshold" in node:
        counts = zip(node["threshold"].values, node["n_stuck_at_threshold"].values, strict=True)
        rows.append(("at other thresholds", ", ".join(f"{count} at {threshold:g}" for threshold, count in counts)))
    if "n_stuck_by_other_rule" in node:
        rows.append(("by the other rule", f"{int(node['n_stuck_by_other_rule'])} of {n}"))
    notes = [f"rule: {node.attrs['rule']}"] if node.attrs.get("rule") else []
    notes += [f"other rule: {node.attrs['other_rule']}"] if node.attrs.get("other_rule") else []
    notes += ["part of this is an assumption, not a measurement: see the assumptions"] if assumed else []
    return Section("Stuck devices", ("property", "value"), tuple(rows), tuple(notes))


def describe_json(tree: xr.DataTree) -> dict[str, Any]:
    """Return what a device model holds as plain values; the keys are listed by `calib show --help`."""
    attrs = tree.attrs
    texts = ("name", "technology", "citation", "license", "calib_version", "created")
    return {
        "schema": "calib-show/1",
        **{key: str(attrs.get(key, "")) for key in texts},
        "identity": identity(tree),
        "law": _law_json(tree["iv"].attrs) if "iv" in tree.children else None,
        "estimates": [asdict(estimate) for estimate in c.estimates(tree)],
        "conductance_table": _conductance_json(tree),
        "validation": validation_json(tree["validation"].to_dataset()) if "validation" in tree.children else None,
        "absent": c.absent(tree),
        "options": json.loads(attrs.get("options", "{}")),
        **{key: attribute(tree, key) for key in ("warnings", "assumptions", "sources")},
    }


def _law_json(attrs: dict[Any, Any]) -> dict[str, Any]:
    model = iv_model(str(attrs["iv_model"]))
    temperature = attrs.get("temperature")
    return {
        "name": model.name,
        "expression": model.expression,
        "form": str(attrs["form"]),
        **{key: float(attrs[key]) for key in ("reference_voltage", "v_min", "v_max")},
        "polarity": str(attrs.get("polarity", "")),
        "temperature": None if temperature is None else float(temperature),
    }


def _conductance_json(tree: xr.DataTree) -> list[dict[str, Any]]:
    if "conductance" not in tree.children or "median" not in tree["conductance"]:
        return []
    node = tree["conductance"].to_dataset()
    keys = [key for key in ("minimum", "median", "maximum", "n", "n_censored") if key in node]
    return [
        {
            "state": state,
            "read_voltage": float(voltage),
            **{key: node[key].sel(state=state, read_voltage=voltage).item() for key in keys},
        }
        for state in _states(node)
        for voltage in node["read_voltage"].values
    ]


def key_numbers(tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return a device model's main numbers as (label, value, remark)."""
    found = []
    if "conductance" in tree.children:
        node = tree["conductance"].to_dataset()
        for key, label in (("g_off", "Off conductance"), ("g_on", "On conductance")):
            low, high = c.bounds(node, f"{key}_bound")
            remark = f"95 %: {format_interval(low, high, 'S')}" if math.isfinite(low + high) else ""
            found.append((label, format_quantity(float(node[key]), "S"), remark))
    if "iv" in tree.children:
        node = tree["iv"].to_dataset()
        model = iv_model(str(node.attrs["iv_model"]))
        states = [str(state) for state in node["state"].values]
        for name in model.shape[:1]:
            values = {s: c.typical_parameters(tree, s, c.quantile(node, s, 0.5))[name] for s in states}
            text = " / ".join(format_quantity(value, "1") for value in values.values())
            found.append((f"{name} at the median R", f"{text} {model.parameter(name).unit}", " / ".join(states)))
    if "programming" in tree.children:
        node = tree["programming"].to_dataset()
        text = " / ".join(format_quantity(value, "1") for value in node["sigma"].values)
        found.append(("Programming spread of ln R", text, " / ".join(map(str, node["state"].values))))
    if "stuck" in tree.children:
        node = tree["stuck"].to_dataset()
        low, high = c.bounds(node, "probability_bound")
        remark = f"95 %: {format_interval(100 * low, 100 * high)} %" if math.isfinite(low + high) else ""
        found.append(("Stuck devices", format_percent(float(node["probability"])), remark))
    for member in c.members(tree):
        found += member.key_numbers(tree[member.node].to_dataset(), tree)
    return found
