"""Measurement -> DeviceModel: which curves, which law, which window, and every characteristic that the data support."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import device_model, validation
from calib.errors import FitError, OptionError
from calib.files import stem_of
from calib.fit_options import FitOptions
from calib.fitting import conductance, curves, iv_node, population, programming, stuck
from calib.fitting.reads import reads_nodes
from calib.iv_models import IVModel, iv_model, names

RESIDUAL_THRESHOLD = 0.10
"""Relative residual (root mean square of a curve, median over curves) above which the fit is called coarse."""
SIMPLER_LAW_THRESHOLD = 0.03
"""A simpler law is taken when its currents differ from the best law's by less than this, or than the noise."""


class _Report:
    """Sentences that the fit leaves for whoever reads the model."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.assumptions: list[str] = []


def populations(measurement: xr.DataTree) -> list[str]:
    """Return the names of a measurement's populations; data of one that is not named are the population ''."""
    found: dict[str, None] = {}
    for node in ("iv", "reads"):
        if node in measurement.children and "population" in measurement[node].coords:
            found.update(dict.fromkeys(measurement[node].coords["population"].values.astype(str).tolist()))
        elif node in measurement.children:
            found[""] = None
    return list(found)


def fit(
    measurement: xr.DataTree,
    *,
    name: str | None = None,
    citation: str | None = None,
    technology: str = "",
    **options: Any,
) -> xr.DataTree:
    """Fit a device model to one population of a measurement.

    Parameters
    ----------
    measurement : from `calib.read`.
    name, citation, technology : attributes of the model; by default what the measurement states.
    **options : the fields of `FitOptions`.

    Returns
    -------
    xarray.DataTree
        The device model; save it with `calib.save_device`. What could not be fitted is said in its warnings.

    Raises
    ------
    FitError
        When the data support no characteristic at all, or all devices are stuck.
    OptionError
        When an option cannot be used with these data, or the measurement holds several populations and none is named.
    """
    chosen = FitOptions(**options)
    part, label = _population(measurement, chosen.population)
    report = _Report()
    if "iv" in part:
        if "reads" in part:
            report.warnings.append("the conductance reads beside the sweeps were not used; fit them on their own")
        fitted, held = part["iv"], None
        if chosen.holdout:
            kept, held = validation.split_devices(part["iv"], chosen.holdout)
            fitted = part["iv"].isel(sweep=np.flatnonzero(kept))
            report.warnings.append(
                f"{chosen.holdout:.0%} of the devices were held out for validation; this is the model of the others"
            )
        nodes = _fit_iv(fitted, chosen, report)
        if held is not None:
            _validate(nodes, part["iv"].isel(sweep=np.flatnonzero(held)), report)
    else:
        if chosen.holdout:
            raise OptionError("--holdout takes I-V sweeps, but the measurement holds conductance reads; leave it out")
        nodes = reads_nodes(
            part["reads"], reference_voltage=chosen.reference_voltage, stuck_rule=chosen.stuck_rule,
            warnings=report.warnings,
        )  # fmt: skip
    root = measurement.attrs
    sources = json.loads(root.get("sources", "[]"))
    return device_model.build(
        nodes,
        name=name or label or root.get("sample") or _stem(sources),
        citation=citation if citation is not None else root.get("citation", ""),
        technology=technology,
        license=root.get("license", ""),
        assumptions=report.assumptions,
        warnings=report.warnings,
        options=asdict(chosen),
        sources=[{"name": s["name"], "sha256": s["sha256"]} for s in sources],
    )


def _validate(nodes: dict[str, xr.Dataset], iv: xr.Dataset, report: _Report) -> None:
    """Add the validation node: the model against the devices that were held out."""
    if "iv" not in nodes:
        raise FitError(f"--holdout: there is no I-V law to validate: {'; '.join(report.warnings)}")
    nodes["validation"] = validation.validation_node(device_model.build(nodes, name="held out"), iv)


def _stem(sources: list[dict[str, str]]) -> str:
    return stem_of(Path(sources[0]["name"])) if sources else "device"


def _population(measurement: xr.DataTree, wanted: str | None) -> tuple[dict[str, xr.Dataset], str]:
    found = populations(measurement)
    if not found:
        kinds = ", ".join(map(str, measurement.children)) or "nothing"
        raise FitError(
            f"the measurement holds {kinds}; a device model needs I-V sweeps or conductance reads; "
            "see what was found with 'calib inspect'"
        )
    if wanted is None and len(found) > 1:
        listed = ", ".join(f"'{label}'" for label in found)
        raise OptionError(
            f"the measurement holds {len(found)} populations that are not pooled: {listed}; choose one (--population)"
        )
    label = found[0] if wanted is None else wanted
    if label not in found:
        listed = ", ".join(f"'{item}'" for item in found)
        raise OptionError(f"there is no population '{label}' in the measurement; it holds {listed}")
    parts: dict[str, xr.Dataset] = {}
    for key, dim in (("iv", "sweep"), ("reads", "trace")):
        if key not in measurement.children:
            continue
        node = measurement[key].to_dataset()
        here = (
            node["population"].values == label if "population" in node.coords else np.full(node.sizes[dim], not label)
        )
        if here.any():
            parts[key] = node.isel({dim: np.flatnonzero(here)})
    return parts, label


def _fit_iv(node: xr.Dataset, options: FitOptions, report: _Report) -> dict[str, xr.Dataset]:
    polarity = "negative" if options.reference_voltage < 0 else "positive"
    node = node.assign_coords(state=("sweep", np.where(node["state"].values == "", "all", node["state"].values)))
    states = _states(node, polarity)
    if not states:
        other = "positive" if polarity == "negative" else "negative"
        raise FitError(
            f"there is no {polarity} branch among {node.sizes['sweep']} sweeps; give a reference voltage of the other "
            f"sign (--reference-voltage), which takes the {other} branches"
        )
    _temperature(node, options, report)
    selected = {state: curves.select(node, state, polarity) for state in states}
    law, v_max = _law_and_window(selected, options, report)
    v_ref = abs(options.reference_voltage)
    fits = {state: curves.fit_curves(law, part, v_max[state], v_ref) for state, part in selected.items()}
    _coarse_fits(law, fits, report)
    _excluded_points(selected, report)
    reads = {state: _ln_r_with_reads(node, fits[state], polarity, options, report) for state in states}
    ln_r = {state: values for state, (values, _) in reads.items()}
    censored = {state: mask for state, (_, mask) in reads.items()}
    nodes: dict[str, xr.Dataset] = {}
    live = _add_stuck(nodes, fits, ln_r, options, report)
    _add_population(nodes, law, fits, iv_node.by_level(fits, ln_r, live), options, node, polarity, report)
    _add_conductance(nodes, node, fits, ln_r, live, options, report)
    _add_programming(nodes, fits, ln_r, {s: live[s] & ~censored[s] for s in live}, report)
    if not nodes:
        raise FitError(iv_node.too_few(law, fits))
    nodes["examples"] = iv_node.examples_node(node, states, polarity, max(v_max.values()))
    return nodes


def _states(node: xr.Dataset, polarity: str) -> list[str]:
    present = [str(s) for s in np.unique(node["state"].values[node["polarity"].values == polarity])]
    first = [state for state in device_model.STATE_ORDER if state in present]
    if first and "all" in present:
        present.remove("all")
    return [*first, *(state for state in present if state not in first)]


def _temperature(node: xr.Dataset, options: FitOptions, report: _Report) -> None:
    if options.temperature is not None:
        return
    stated = node["temperature"].values if "temperature" in node.coords else np.array([np.nan])
    if not np.isfinite(stated).any():
        report.warnings.append(
            "no temperature is known, so quantities that need one (d epsilon of Poole-Frenkel) are not given; "
            "state it with --temperature"
        )


def _law_and_window(
    selected: dict[str, curves.Curves], options: FitOptions, report: _Report
) -> tuple[IVModel, dict[str, float]]:
    """Choose the law, and per state the window in which it is fitted."""
    wanted = names() if options.iv_model == "auto" else [options.iv_model]
    laws = sorted((iv_model(name) for name in wanted), key=lambda law: len(law.parameters))
    best = laws[-1]
    v_max: dict[str, float] = {}
    for state, part in selected.items():
        if options.v_max is not None:
            v_max[state] = options.v_max
            continue
        v_max[state], misfit = curves.supported_window(best, part)
        if misfit > curves.MISFIT_THRESHOLD:
            report.warnings.append(
                f"state '{state}': {best.name} misses the curves by {misfit:.1%} even in the smallest window "
                f"(to {v_max[state]:g} V); another law would serve it better"
            )
    for law in laws[:-1]:
        differences = {s: _difference(law, best, part, v_max[s]) for s, part in selected.items()}
        if all(difference <= max(noise, SIMPLER_LAW_THRESHOLD) for difference, noise in differences.values()):
            listed = ", ".join(f"{100 * d:.2g} % ({s})" for s, (d, _) in differences.items())
            report.warnings.append(
                f"{law.name} was taken: {best.name} differs from it by {listed} over the window, less than the larger "
                f"of the noise and {SIMPLER_LAW_THRESHOLD:.0%}"
            )
            return law, v_max
    return best, v_max


def _difference(simple: IVModel, best: IVModel, part: curves.Curves, v_max: float) -> tuple[float, float]:
    """Return how far the currents of two fitted laws are apart, and the noise, both relative, median over curves."""
    _, current = curves.in_window(part, v_max)
    fits = [curves.fit_window(law, part, v_max) for law in (simple, best)]
    difference = np.abs(fits[0][1] - fits[1][1])  # residuals are relative to the same measured current
    clear = np.isfinite(difference) & (np.abs(current) > 0.2 * np.nan_to_num(np.abs(current)).max(1, keepdims=True))
    residual = np.abs(fits[1][1][clear])
    if not clear.any():
        return 0.0, 0.0
    return float(np.quantile(difference[clear], 0.75)), 1.4826 * float(np.median(residual))


def _coarse_fits(law: IVModel, fits: dict[str, curves.CurveFits], report: _Report) -> None:
    for state, part in fits.items():
        residual = float(np.median(part.relative_rms[part.ok])) if part.ok.any() else 0.0
        if residual > RESIDUAL_THRESHOLD:
            report.warnings.append(
                f"state '{state}': the curves scatter by {residual:.0%} about {law.name} in its window (median over "
                "curves); they are noisy there, or follow another law"
            )


def _excluded_points(selected: dict[str, curves.Curves], report: _Report) -> None:
    for state, part in selected.items():
        if part.n_excluded:
            listed = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in part.n_excluded.items())
            report.warnings.append(f"state '{state}': points left out of the fits: {listed}")


def _ln_r_with_reads(
    node: xr.Dataset, fits: curves.CurveFits, polarity: str, options: FitOptions, report: _Report
) -> tuple[np.ndarray, np.ndarray]:
    """Return ln R of every curve, and where it is censored.

    It is that of the fitted law, or of the measured point where the law could not be fitted; a measured point under the
    instrument's noise floor only says that R is large.
    """
    rows = (node["state"].values == fits.curves.state) & (node["polarity"].values == polarity)
    part = node.isel(sweep=np.flatnonzero(rows))
    measured, censored = conductance.read_at(part, options.reference_voltage)
    with np.errstate(invalid="ignore", divide="ignore"):
        fallback = -np.log(np.where(measured > 0, measured, np.nan))
    failed = ~fits.ok
    if failed.any():
        example = str(fits.fit.status[failed][0])
        report.warnings.append(
            f"state '{fits.curves.state}': {int(failed.sum())} of {len(failed)} curves could not be fitted (first: "
            f"{example}); their resistance is the measured one where there is one, "
            f"{int((failed & censored).sum())} of them at the noise floor, which the programming spread leaves out"
        )
    return np.where(failed, fallback, fits.ln_r), failed & censored


def _per_device(fits: dict[str, curves.CurveFits], ln_r: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return the device of every conductance, and the conductances."""
    device = np.concatenate([fits[state].curves.device for state in fits])
    g = np.exp(-np.concatenate([ln_r[s] for s in fits]))
    keep = np.isfinite(g)
    return device[keep], g[keep]


def _add_stuck(
    nodes: dict[str, xr.Dataset], fits: dict[str, curves.CurveFits], ln_r: dict[str, np.ndarray], options: FitOptions,
    report: _Report,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Add the stuck node where set and reset were measured; return per state which curves are of live devices."""
    everyone = {state: np.ones(len(part.curves), dtype=bool) for state, part in fits.items()}
    if not {"lrs", "hrs"} <= set(fits):
        report.warnings.append(
            "stuck devices: not found, because no sweep opens a loop between two states: the sweeps only read, or no "
            "device switches"
            if set(fits) == {"all"}
            else "stuck devices: not found, because no set and reset cycles were measured"
        )
        return everyone
    device, g = _per_device(fits, ln_r)
    labels, index = np.unique(device, return_inverse=True)
    if len(labels) < 2:
        report.warnings.append("stuck devices: not found, because one device was measured; several are needed")
        return everyone
    low, high = np.full(len(labels), np.inf), np.zeros(len(labels))
    np.minimum.at(low, index, g)
    np.maximum.at(high, index, g)
    mean = np.bincount(index, g) / np.bincount(index)
    nodes["stuck"] = stuck.stuck_node(labels, low, high, mean, options.stuck_rule)
    dead = set(labels[stuck.is_stuck(low, high, options.stuck_rule)])
    if dead:
        some = f"{', '.join(sorted(dead)[:5])}{', ...' if len(dead) > 5 else ''}"
        report.warnings.append(
            f"{len(dead)} stuck of {len(labels)} devices ({some}): their curves are in the I-V law of the state at "
            "whose level they lie, but not in the conductance range and the programming spread"
        )
    return {state: ~np.isin(part.curves.device, list(dead)) for state, part in fits.items()}


def _add_population(
    nodes: dict[str, xr.Dataset], law: IVModel, fits: dict[str, curves.CurveFits], live: dict[str, np.ndarray],
    options: FitOptions, node: xr.Dataset, polarity: str, report: _Report,
) -> None:  # fmt: skip
    usable = {}
    for state, part in fits.items():
        kept = iv_node.only(part, part.ok & live[state])
        if len(kept.curves) < population.MINIMUM_CURVES:
            report.warnings.append(
                f"state '{state}': no population law, because {len(kept.curves)} curves could be fitted and at least "
                f"{population.MINIMUM_CURVES} are needed"
            )
            continue
        usable[state] = kept
    if not usable:
        return
    lines = population.fit_lines(law, usable, abs(options.reference_voltage))
    nodes["iv"] = iv_node.iv_node(
        law, usable, fits, lines, form=options.form, reference_voltage=options.reference_voltage, polarity=polarity
    )
    temperature = options.temperature
    if temperature is None and "temperature" in node.coords:
        stated = np.unique(node["temperature"].values[np.isfinite(node["temperature"].values)])
        temperature = float(stated[0]) if len(stated) == 1 else None
    if temperature is not None:
        nodes["iv"].attrs["temperature"] = temperature


def _add_conductance(
    nodes: dict[str, xr.Dataset], node: xr.Dataset, fits: dict[str, curves.CurveFits], ln_r: dict[str, np.ndarray],
    live: dict[str, np.ndarray], options: FitOptions, report: _Report,
) -> None:  # fmt: skip
    voltages = conductance.read_voltages(node, options.reference_voltage)
    states = list(fits)
    tables = conductance.state_tables(node, states, voltages)
    medians = {}
    for state, part in fits.items():
        keep = live[state] & np.isfinite(ln_r[state])
        device = part.curves.device[keep]
        g = np.exp(-ln_r[state][keep])
        medians[state] = {name: float(np.median(g[device == name])) for name in np.unique(device)}
    if {"lrs", "hrs"} <= set(medians):
        shared = sorted(set(medians["lrs"]) & set(medians["hrs"]))
        low = np.array([medians["hrs"][d] for d in shared])
        high = np.array([medians["lrs"][d] for d in shared])
        rule = "median over devices of each device's median conductance in its high- and low-resistance state"
    else:
        values = np.array([g for state in medians.values() for g in state.values()])
        low, high = (np.quantile(values, [q]) if len(values) else values for q in (0.05, 0.95))
        rule = "5 and 95 % quantiles of the conductances of all devices (no set and reset states were measured)"
    if not len(low) or not np.median(low) < np.median(high):
        why = "its two states do not differ" if len(medians) > 1 else "one device in one state has no range"
        report.warnings.append(f"conductance range: not found, because {why}")
        return
    nodes["conductance"] = xr.Dataset(
        {**conductance.range_of(low, high), **tables},
        coords={"state": states, "read_voltage": ("read_voltage", voltages, {"units": "V"}),
                "quantile": list(conductance.QUANTILES), "bound": ["low", "high"]},
        attrs={"reference_voltage": options.reference_voltage, "rule": rule},
    )  # fmt: skip


def _add_programming(
    nodes: dict[str, xr.Dataset], fits: dict[str, curves.CurveFits], ln_r: dict[str, np.ndarray],
    live: dict[str, np.ndarray], report: _Report,
) -> None:  # fmt: skip
    states: dict[str, tuple[np.ndarray, np.ndarray, float]] = {}
    for state, part in fits.items():
        keep = live[state] & np.isfinite(ln_r[state])
        if keep.sum() < 2:
            report.warnings.append(f"programming spread of state '{state}': not found, because it takes two curves")
            continue
        error = float(np.nanmean(np.nan_to_num(part.ln_r_stderr[keep]) ** 2))
        states[state] = (ln_r[state][keep], part.curves.device[keep], error)
    if not {"lrs", "hrs"} & set(fits):
        report.warnings.append("programming spread: not found, because no programmed states were measured")
        return
    if not states:
        return
    nodes["programming"] = programming.programming_node(states)
    for state, (values, devices, _) in states.items():
        n = len(np.unique(devices))
        if n == len(values):
            report.warnings.append(
                f"programming spread of state '{state}': device-to-device and cycle-to-cycle are not separated, "
                "because each device was measured in one cycle"
            )
        elif n == 1:
            report.warnings.append(
                f"programming spread of state '{state}': cycle-to-cycle only, because one device was measured"
            )
