"""Measurement -> DeviceModel: which curves, which law, which window, and every characteristic that the data support."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import device_model, validation
from calib.errors import FitError, OptionError
from calib.files import stem_of
from calib.fit_kinds import nodes_of_cycles, nodes_of_pulses, nodes_of_reads, nodes_of_writes
from calib.fit_options import FitOptions
from calib.fitting import conductance, curves, iv_node, population, programming, regimes, selection, stuck
from calib.fitting.doubts import say_doubts
from calib.iv_models import IVModel

KINDS = {"iv": "sweep", "reads": "trace", "writes": "write", "pulses": "sequence"}
"""Kinds of experiment that a device model can be fitted to, and the dimension of each."""


class _Report:
    """Sentences that the fit leaves for whoever reads the model."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.assumptions: list[str] = []


def populations(measurement: xr.DataTree) -> list[str]:
    """Return the names of a measurement's populations.

    Data of no named population belong to each of those that there are; where none is named, they are the population ''.
    """
    found: dict[str, None] = {}
    for kind in KINDS:
        if kind in measurement.children and "population" in measurement[kind].coords:
            found.update(dict.fromkeys(measurement[kind].coords["population"].values.astype(str).tolist()))
        elif kind in measurement.children:
            found[""] = None
    named = [label for label in found if label]
    return named or list(found)


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
    kept, held = _hold_out(part, chosen, report)
    nodes = _nodes_of(kept, chosen, report)
    if held:
        built = device_model.build(nodes, name="held out")
        nodes["validation"] = validation.validate_nodes(built, held, fitted=kept)
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


def _hold_out(
    part: dict[str, xr.Dataset], options: FitOptions, report: _Report
) -> tuple[dict[str, xr.Dataset], dict[str, xr.Dataset]]:
    """Split sweeps and reads by device into those to fit and those to validate with; nothing without --holdout."""
    if not options.holdout:
        return part, {}
    kept, held = dict(part), {}
    for kind, dim in (("iv", "sweep"), ("reads", "trace")):
        if kind in part:
            fitted, apart = validation.split_devices(part[kind], options.holdout)
            kept[kind] = part[kind].isel({dim: np.flatnonzero(fitted)})
            held[kind] = part[kind].isel({dim: np.flatnonzero(apart)})
    if not held:
        raise OptionError(
            f"--holdout takes I-V sweeps or conductance reads, but the measurement holds {' and '.join(part)}; "
            "leave it out"
        )
    report.warnings.append(
        f"{options.holdout:.0%} of the devices were held out for validation; this is the model of the others"
    )
    return kept, held


def _nodes_of(part: dict[str, xr.Dataset], options: FitOptions, report: _Report) -> dict[str, xr.Dataset]:
    """Fit every kind of experiment; one that gives nothing is said, unless it is the only one."""
    fits: dict[str, Callable[[], dict[str, xr.Dataset]]] = {
        "iv": lambda: _fit_iv(part["iv"], options, report),
        "reads": lambda: nodes_of_reads(part["reads"], options, report.warnings, sweeps="iv" in part),
        "writes": lambda: nodes_of_writes(part["writes"], options, report.warnings),
        "pulses": lambda: nodes_of_pulses(part["pulses"], report.warnings),
    }
    nodes: dict[str, xr.Dataset] = {}
    for kind in part:
        try:
            nodes = {**fits[kind](), **nodes}
        except FitError as error:
            if len(part) == 1:
                raise
            report.warnings.append(f"{kind}: nothing was fitted: {error}")
    if {"iv", "reads"} & set(part):
        nodes |= nodes_of_cycles(part.get("iv"), part.get("reads"), options, report.warnings)
    if not nodes:
        raise FitError(
            f"the measurement holds {' and '.join(part)}, which support no characteristic: {'; '.join(report.warnings)}"
        )
    return nodes


def _stem(sources: list[dict[str, str]]) -> str:
    return stem_of(Path(sources[0]["name"])) if sources else "device"


def _population(measurement: xr.DataTree, wanted: str | None) -> tuple[dict[str, xr.Dataset], str]:
    found = populations(measurement)
    if not found:
        kinds = ", ".join(map(str, measurement.children)) or "nothing"
        raise FitError(
            f"the measurement holds {kinds}; a device model needs I-V sweeps, conductance reads, writes or pulses; "
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
    for kind, dim in KINDS.items():
        if kind not in measurement.children:
            continue
        node = measurement[kind].to_dataset()
        of = node["population"].values.astype(str) if "population" in node.coords else np.full(node.sizes[dim], "")
        here = (of == label) | (of == "")
        if here.any():
            parts[kind] = node.isel({dim: np.flatnonzero(here)})
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
    chosen = selection.choose(
        selected, iv_model_name=options.iv_model, v_max=options.v_max, reference_voltage=options.reference_voltage,
        warnings=report.warnings,
    )  # fmt: skip
    law, v_max = chosen.law, chosen.v_max
    v_ref = abs(options.reference_voltage)
    fits = {state: curves.fit_curves(law, part, v_max[state], v_ref) for state, part in selected.items()}
    say_doubts(law, fits, v_ref, report.warnings)
    _excluded_points(selected, report)
    reads = {state: _ln_r_with_reads(node, fits[state], polarity, options, report) for state in states}
    ln_r = {state: values for state, (values, _) in reads.items()}
    censored = {state: mask for state, (_, mask) in reads.items()}
    ln_r = {s: conductance.at_floor(ln_r[s], censored[s], fits[s].curves.floor, v_ref) for s in states}
    nodes: dict[str, xr.Dataset] = {}
    live = _add_stuck(nodes, fits, ln_r, censored, options, report)
    _add_population(nodes, law, fits, iv_node.by_level(fits, ln_r, live), options, node, polarity, report)
    _add_conductance(nodes, node, fits, ln_r, live, censored, options, report)
    _add_programming(nodes, fits, ln_r, live, censored, report)
    if not nodes:
        raise FitError(iv_node.too_few(law, fits))
    if chosen.node is not None:
        nodes["selection"] = chosen.node
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
            f"{int((failed & censored).sum())} of them at the noise floor, which the programming spread takes as "
            "larger than the floor allows to measure"
        )
    return np.where(failed, fallback, fits.ln_r), failed & censored


def _add_stuck(
    nodes: dict[str, xr.Dataset], fits: dict[str, curves.CurveFits], ln_r: dict[str, np.ndarray],
    censored: dict[str, np.ndarray], options: FitOptions, report: _Report,
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
    device = np.concatenate([part.curves.device for part in fits.values()])
    g = np.exp(-np.concatenate([ln_r[s] for s in fits]))
    limit = np.where(np.concatenate([censored[s] for s in fits]), g, np.nan)
    keep = np.isfinite(g)
    labels, low, high, mean, under = stuck.device_extremes(device[keep], g[keep], limit[keep])
    if len(labels) < 2:
        report.warnings.append("stuck devices: not found, because one device was measured; several are needed")
        return everyone
    nodes["stuck"] = stuck.stuck_node(labels, low, high, mean, options.stuck_rule, under)
    hidden = int(nodes["stuck"]["n_undecided"])
    if hidden:
        report.warnings.append(
            f"{hidden} of {len(labels)} devices go below the instrument's noise floor and were not seen to switch far "
            "enough above it: whether they are stuck is not known, and they are not counted"
        )
    dead = set(nodes["stuck"]["stuck_device"].values.astype(str))
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
        kept = iv_node.only(kept, population.measurable(law, kept))
        if len(kept.curves) < population.MINIMUM_CURVES:
            report.warnings.append(
                f"state '{state}': no population law, because {len(kept.curves)} curves could be fitted and at least "
                f"{population.MINIMUM_CURVES} are needed"
            )
            continue
        usable[state] = kept
    if not usable:
        return
    v_ref = abs(options.reference_voltage)
    lines = population.fit_lines(law, usable, v_ref, report.warnings)
    split = {state: regimes.find(law, part, v_ref, lines[state], report.warnings) for state, part in usable.items()}
    nodes["iv"] = iv_node.iv_node(
        law, usable, fits, lines, form=options.form, reference_voltage=options.reference_voltage, polarity=polarity,
        split=[found for found in split.values() if found is not None],
    )  # fmt: skip
    temperature = options.temperature
    if temperature is None and "temperature" in node.coords:
        stated = np.unique(node["temperature"].values[np.isfinite(node["temperature"].values)])
        temperature = float(stated[0]) if len(stated) == 1 else None
    if temperature is not None:
        nodes["iv"].attrs["temperature"] = temperature


def _add_conductance(
    nodes: dict[str, xr.Dataset], node: xr.Dataset, fits: dict[str, curves.CurveFits], ln_r: dict[str, np.ndarray],
    live: dict[str, np.ndarray], censored: dict[str, np.ndarray], options: FitOptions, report: _Report,
) -> None:  # fmt: skip
    voltages = conductance.read_voltages(node, options.reference_voltage)
    states = list(fits)
    tables = conductance.state_tables(node, states, voltages)
    medians: dict[str, dict[str, float]] = {}
    cycles: dict[str, np.ndarray] = {}
    for state, part in fits.items():
        keep = live[state] & np.isfinite(ln_r[state])
        device = part.curves.device[keep]
        g = cycles[state] = np.exp(-ln_r[state][keep])
        medians[state] = {name: float(np.median(g[device == name])) for name in np.unique(device)}
    q = (0.5, 0.5)
    if {"lrs", "hrs"} <= set(medians):
        shared = sorted(set(medians["lrs"]) & set(medians["hrs"]))
        low, high = (np.array([medians[state][d] for d in shared]) for state in ("hrs", "lrs"))
        rule = "median over devices of each device's median conductance in its high- and low-resistance state"
        if len(shared) == 1:
            low, high = cycles["hrs"], cycles["lrs"]
            rule = "medians of the cycles of one device in its two states; other devices may differ"
    else:
        low = high = np.array([g for state in medians.values() for g in state.values()])
        q = (0.05, 0.95)
        rule = "5 and 95 % quantiles of the conductances of all devices (no set and reset states were measured)"
    if not len(low) or not np.quantile(low, q[0]) < np.quantile(high, q[1]):
        why = "its two states do not differ" if len(medians) > 1 else "one device in one state has no range"
        report.warnings.append(f"conductance range: not found, because {why}")
        return
    nodes["conductance"] = xr.Dataset(
        {**conductance.range_of(low, high, q), **tables},
        coords={"state": states, "read_voltage": ("read_voltage", voltages, {"units": "V"}),
                "quantile": list(conductance.QUANTILES), "bound": ["low", "high"]},
        attrs={"reference_voltage": options.reference_voltage, "rule": rule},
    )  # fmt: skip
    hidden = np.concatenate([ln_r[state][censored[state]] for state in fits])
    if len(hidden) and float(nodes["conductance"]["g_off"]) <= np.exp(-np.nanmin(hidden)) * (1 + 1e-9):
        report.warnings.append("conductance range: G_off lies at the instrument's noise floor; the true one is smaller")


def _add_programming(
    nodes: dict[str, xr.Dataset], fits: dict[str, curves.CurveFits], ln_r: dict[str, np.ndarray],
    live: dict[str, np.ndarray], censored: dict[str, np.ndarray], report: _Report,
) -> None:  # fmt: skip
    states: dict[str, tuple[np.ndarray, np.ndarray, float, np.ndarray]] = {}
    for state, part in fits.items():
        keep = live[state] & np.isfinite(ln_r[state])
        seen = keep & ~censored[state]
        if seen.sum() < 2:
            report.warnings.append(f"programming spread of state '{state}': not found, because it takes two curves")
            continue
        error = float(np.nanmean(np.nan_to_num(part.ln_r_stderr[seen]) ** 2))
        states[state] = (ln_r[state][keep], part.curves.device[keep], error, censored[state][keep])
    if not {"lrs", "hrs"} & set(fits):
        report.warnings.append("programming spread: not found, because no programmed states were measured")
        return
    if not states:
        return
    nodes["programming"] = programming.programming_node(states)
    report.warnings += programming.sentences(nodes["programming"])
