"""Switching voltages, endurance and yield of a population of devices."""

import json
from typing import Any

import numpy as np
import xarray as xr

from calib.fitting import endurance
from calib.fitting.conductance import read_at
from calib.fitting.cycle_table import CycleTable, table_of_loops, table_of_reads
from calib.fitting.device_medians import with_devices
from calib.fitting.intervals import binomial_interval, quantile_interval
from calib.fitting.loops import OPERATIONS, RULES, Loops, find_loops
from calib.fitting.programming import variance_components
from calib.fitting.switching_distribution import (
    LAWS,
    Events,
    bootstrap_by_device,
    fit_law,
    rank_correlation,
)

QUANTILES = (0.05, 0.5, 0.95)
SEED = 1
MAXIMUM_EVENTS = 4000
MAXIMUM_CYCLES = 300
AT_END = 0.999
"""An event at this part of its sweep's largest |V| lies at its end: the device may not have switched to its end."""
CLOSED_RATIO = 2.0
"""The window is closed where R_hrs / R_lrs falls to this."""
_PAIRS = {"set": ("v_set", "ln_r_hrs"), "reset": ("v_reset", "ln_r_lrs")}
_ONE = {"units": "1"}
_VOLT = {"units": "V"}


def switching_node(
    iv: xr.Dataset | None,
    warnings: list[str],
    *,
    reads: xr.Dataset | None = None,
    reference_voltage: float = 0.1,
    generator: np.random.Generator | None = None,
) -> xr.Dataset | None:
    """Return the switching node: voltages from loops of sweeps, endurance and yield from loops or from reads.

    Parameters
    ----------
    iv : node iv of a Measurement, split into branches; None where there are no sweeps.
    warnings : sentences are appended.
    reads : node reads, used where there are no loops; its state and cycle are needed.
    reference_voltage : [V] at which resistances are read.
    generator : for bootstrap and permutation tests; a fixed one by default.

    Returns
    -------
    xarray.Dataset
        None where no loop and no cycle of reads was measured.
    """
    generator = np.random.default_rng(SEED) if generator is None else generator
    loops = find_loops(iv) if iv is not None else None
    data: dict[str, Any] = {}
    attrs: dict[str, Any] = {}
    if iv is not None and loops is not None and len(loops):
        table: CycleTable | None = table_of_loops(iv, loops, reference_voltage)
        data |= _voltages(iv, loops, table, warnings, generator)
        data |= _correlations(table, generator)
        attrs = _loop_attrs(loops)
        _truncated(iv, loops, warnings)
    else:
        loops, table = None, table_of_reads(reads) if reads is not None else None
        if table is None or not len(table.device):
            warnings.append(
                "switching: not found, because no sweep closes a loop in which a device was to be set or reset, and no "
                "reads name both states in numbered cycles"
            )
            return None
    data |= _yield(table, loops, warnings) | _endurance(table, warnings)
    node = xr.Dataset(data, coords=_coords(data), attrs=attrs | _statements(table, loops))
    place = iv if loops is not None else reads
    return with_devices(node, table, loops, place, warnings, generator)


def _coords(data: dict[str, Any]) -> dict[str, Any]:
    dims = {
        dim for variable in data.values() for dim in ([variable[0]] if isinstance(variable[0], str) else variable[0])
    }
    known = {"bound": ["low", "high"], "quantile": list(QUANTILES), "law": list(LAWS), "state": ["lrs", "hrs"]}
    return {name: (name, values) for name, values in known.items() if name in dims}


def _loop_attrs(loops: Loops) -> dict[str, Any]:
    used = {}
    for name in _operations(loops):
        rule, count = np.unique(loops.rule[loops.of(name)], return_counts=True)
        used[name] = {str(r) or "not switched": int(c) for r, c in zip(rule, count, strict=True)}
    signs = {name: int(np.sign(loops.polarity[loops.of(name)].sum())) for name in _operations(loops)}
    kind = "bipolar" if signs.get("set", 0) * signs.get("reset", 0) < 0 else "unipolar"
    text = ", ".join(f"{name} at {'positive' if sign >= 0 else 'negative'} voltage" for name, sign in signs.items())
    both = {"set", "reset"} <= set(signs)
    return {
        "rules": json.dumps(RULES),
        "rule_counts": json.dumps(used),
        "polarity": f"{text} ({kind})" if both else text,
    }


def _statements(table: CycleTable, loops: Loops | None) -> dict[str, Any]:
    read = f"{table.read_voltage:g} V" if np.isfinite(table.read_voltage) else "the voltage of the reads"
    switched = (
        "a loop has switched when its branches differ by a factor 1.5 or more (median over the voltages)"
        if loops is not None
        else "a device has switched in a cycle when its resistances differ by a factor 1.5 or more"
    )
    return {
        "statement": f"voltages are magnitudes; resistances are read at {read}; {switched}; a device that never "
        "did (per operation) has no voltage and is counted apart; a loop that did not switch although the device was "
        "in the state to be left, and did in other cycles, counts as a voltage beyond the end of its sweep, "
        "as does an event in the last step of its sweep; standard errors "
        "and intervals take the devices, not their cycles, for independent where there are five devices or more",
        "read_voltage": float(table.read_voltage),
        "closed_ratio": CLOSED_RATIO,
        "failed_cycles": endurance.FAILED_CYCLES,
        "method": "maximum likelihood (Weibull, normal; values in steps of the sweep, censored beyond its end); "
        "restricted maximum likelihood for the parts of the spread; exact binomial intervals",
        "source": "loops" if loops is not None else "reads",
    }


def _operations(loops: Loops) -> list[str]:
    return [name for name in OPERATIONS if (loops.operation == name).any()]


def _voltages(
    iv: xr.Dataset, loops: Loops, table: CycleTable, warnings: list[str], generator: np.random.Generator
) -> dict[str, Any]:
    """Return the distributions of the switching voltages per operation, and the single events."""
    names = _operations(loops)
    key = np.char.add(np.char.add(loops.operation, " "), loops.device)
    ever = np.isin(key, np.unique(key[loops.switched]))
    censored = ever & ~loops.switched & _was_before(iv, loops, table)
    rows = [_distribution(loops, name, censored, generator) for name in names]
    units = {"n": {"units": "1"}, "p": _ONE, "s": _ONE}
    data: dict[str, Any] = {"operation": ("operation", np.array(names, dtype=str))}
    for key, (dims, _, attributes) in rows[0].items():
        values = np.stack([np.asarray(row[key][1]) for row in rows])
        data[key] = (("operation", *dims), values, attributes or units["n"])
    data["polarity"] = ("operation", [int(np.sign(loops.polarity[loops.of(n)].sum())) for n in names], _ONE)
    for name, row in zip(names, rows, strict=True):
        never = int(row["n_not_switched"][1])
        if never:
            warnings.append(
                f"{name} voltage: {never} of {int(row['n_tried'][1])} devices did not switch in any of their {name} "
                "loops; they have no voltage and are counted apart"
            )
    return data | _events(loops)


def _was_before(iv: xr.Dataset, loops: Loops, table: CycleTable) -> np.ndarray:
    """Say for every loop whether the device was in the state that the operation leaves, (loop,)."""
    result = np.ones(len(loops), dtype=bool)
    known = {s: table.values[f"ln_r_{s}"][np.isfinite(table.values[f"ln_r_{s}"])] for s in ("lrs", "hrs")}
    if not (np.isfinite(table.read_voltage) and all(map(len, known.values()))):
        return result
    centres = {s: float(np.median(values)) for s, values in known.items()}
    for sign in (1, -1):
        here = np.flatnonzero((loops.polarity == sign) & ~loops.switched)
        if not len(here):
            continue
        g, _ = read_at(iv.isel(sweep=loops.up[here]), sign * table.read_voltage)
        with np.errstate(divide="ignore", invalid="ignore"):
            ln_r = np.where(g > 0, -np.log(g), np.inf)
        high = np.abs(ln_r - centres["hrs"]) < np.abs(ln_r - centres["lrs"])
        high |= ~np.isfinite(ln_r) | (loops.operation[here] == "form")
        result[here] = np.where(loops.operation[here] == "reset", ~high, high)
    return result


def _distribution(loops: Loops, name: str, censored: np.ndarray, generator: np.random.Generator) -> dict[str, Any]:
    """Return quantiles, laws and parts of the spread of one operation: name -> (dims, values, attributes)."""
    rows = loops.of(name)
    done = rows[loops.switched[rows] & np.isfinite(loops.voltage[rows])]
    open_ended = rows[censored[rows]]
    labels = np.unique(loops.device[rows])
    v, device = loops.voltage[done], loops.device[done]
    quantile, bound = np.full(len(QUANTILES), np.nan), np.full((len(QUANTILES), 2), np.nan)
    if len(v):
        quantile = np.quantile(v, QUANTILES)
        bound = _quantile_bounds(v, device, generator)
    parts = variance_components(v, device)
    number = {name: ((), value, None) for name, value in {
        "n_loops": len(rows), "n_events": len(v), "n_censored": len(open_ended), "n_tried": len(labels),
        "n_not_switched": len(labels) - len(np.unique(loops.device[rows[loops.switched[rows]]])),
        "n_at_end": int((v >= AT_END * loops.reach[done]).sum()),
    }.items()}  # fmt: skip
    fits = _laws(loops, done, open_ended, parts, generator)
    result: dict[str, Any] = {
        "voltage_quantile": (("quantile",), quantile, {**_VOLT, "long_name": "quantile of the switching voltage"}),
        "voltage_quantile_bound": (("quantile", "bound"), bound, {**_VOLT, "long_name": "its 95 % interval"}),
        "voltage_d2d": ((), parts.d2d, {**_VOLT, "long_name": "standard deviation between devices"}),
        "voltage_d2d_stderr": ((), parts.d2d_stderr, _VOLT),
        "voltage_c2c": ((), parts.c2c, {**_VOLT, "long_name": "standard deviation between the cycles of a device"}),
        "voltage_c2c_stderr": ((), parts.c2c_stderr, _VOLT),
        "voltage_sigma": ((), parts.total, {**_VOLT, "long_name": "standard deviation, one device in one cycle"}),
        "voltage_sigma_stderr": ((), parts.total_stderr, _VOLT),
        "resolution": ((), float(np.median(loops.resolution[done])) if len(v) else np.nan,
                       {**_VOLT, "long_name": "step of the sweep at the events"}),
    }  # fmt: skip
    return result | fits | number


def _quantile_bounds(v: np.ndarray, device: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return 95 % intervals of the quantiles: order statistics where devices count once, else a bootstrap."""
    groups = len(np.unique(device))
    if groups == len(v) or groups < 5:
        return np.array([quantile_interval(v, q) for q in QUANTILES])
    return bootstrap_by_device(device, lambda rows: np.quantile(v[rows], QUANTILES), generator).T


def _laws(
    loops: Loops, done: np.ndarray, open_ended: np.ndarray, parts: Any, generator: np.random.Generator
) -> dict[str, Any]:
    """Return the Weibull and the normal law, with intervals and goodness of fit; NaN under five events."""
    nan = float("nan")
    found: dict[str, Any] = {}
    p, distance, criterion = [nan, nan], [nan, nan], [nan, nan]
    values = {"weibull_scale": (nan, nan, nan), "weibull_shape": (nan, nan, nan),
              "normal_mean": (nan, nan, nan), "normal_std": (nan, nan, nan)}  # fmt: skip
    if len(done) >= 5 and len(np.unique(loops.voltage[done])) >= 3:
        v = loops.voltage[done]
        end = np.where(v >= AT_END * loops.reach[done], np.inf, v)  # the sweep ended while the device was switching
        events = Events(
            low=np.concatenate([v - loops.resolution[done], loops.reach[open_ended]]),
            high=np.concatenate([end, np.full(len(open_ended), np.inf)]),
            group=np.concatenate([loops.device[done], loops.device[open_ended]]),
            end=np.concatenate([loops.reach[done] - loops.resolution[done], loops.reach[open_ended]]),
        )
        share = parts.d2d**2 / (parts.d2d**2 + parts.c2c**2) if np.isfinite(parts.d2d + parts.c2c) else 0.0
        for k, law in enumerate(LAWS):
            fit = fit_law(events, law, generator, share)
            p[k], distance[k], criterion[k] = fit.p_value, fit.distance, 4.0 - 2 * fit.log_likelihood
            error = np.sqrt(np.maximum(np.diag(fit.covariance), 0.0))
            width = np.exp(1.96 * error[1])
            low, high = fit.location - 1.96 * error[0], fit.location + 1.96 * error[0]
            if law == "weibull":
                values["weibull_scale"] = tuple(np.exp([fit.location, low, high]))
                values["weibull_shape"] = (1 / fit.spread, 1 / fit.spread / width, width / fit.spread)
            else:
                values["normal_mean"] = (fit.location, low, high)
                values["normal_std"] = (fit.spread, fit.spread / width, fit.spread * width)
    for key, (value, low, high) in values.items():
        unit = _ONE if key == "weibull_shape" else _VOLT
        found[key] = ((), value, {**unit, "long_name": key.replace("_", " ")})
        found[f"{key}_bound"] = (("bound",), [low, high], {**unit, "long_name": "95 % interval"})
    name = {"long_name": "p-value of the Kolmogorov-Smirnov distance (parametric bootstrap)"}
    return found | {
        "law_p": (("law",), p, {**_ONE, **name}),
        "law_distance": (("law",), distance, {**_ONE, "long_name": "Kolmogorov-Smirnov distance"}),
        "law_aic": (("law",), criterion, {**_ONE, "long_name": "Akaike's criterion (smaller is better)"}),
    }


def _events(loops: Loops) -> dict[str, Any]:
    """Return the single events, thinned evenly where there are very many."""
    rows = np.flatnonzero(np.isfinite(loops.voltage))
    if len(rows) > MAXIMUM_EVENTS:
        rows = rows[np.linspace(0, len(rows) - 1, MAXIMUM_EVENTS).astype(int)]
    return {
        "event_operation": ("event", loops.operation[rows].astype(str)),
        "event_device": ("event", loops.device[rows].astype(str)),
        "event_cycle": ("event", loops.cycle[rows], _ONE),
        "event_rule": ("event", loops.rule[rows].astype(str)),
        "event_voltage": ("event", loops.voltage[rows], {**_VOLT, "long_name": "magnitude of the switching voltage"}),
        "event_at_end": ("event", (loops.voltage[rows] >= AT_END * loops.reach[rows]).astype(np.int64), _ONE),
        "event_resolution": ("event", loops.resolution[rows], _VOLT),
        "event_voltage_abrupt": ("event", loops.abrupt[rows], _VOLT),
        "event_voltage_steepest": ("event", loops.steepest[rows], _VOLT),
        "event_voltage_half_way": ("event", loops.half_way[rows], _VOLT),
    }


def _correlations(table: CycleTable, generator: np.random.Generator) -> dict[str, Any]:
    """Return the rank correlation of a switching voltage with ln R of the state that it leaves, per operation."""
    pairs, value, bound, count = [], [], [], []
    for operation, (voltage, resistance) in _PAIRS.items():
        if voltage not in table.values:
            continue
        x, y = table.values[resistance], table.values[voltage]
        rows = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
        pairs.append(operation)
        count.append(len(rows))
        value.append(rank_correlation(x[rows], y[rows]))
        if len(rows) < 10 or not np.isfinite(value[-1]):
            bound.append([np.nan, np.nan])
            continue

        def statistic(drawn: np.ndarray, a: np.ndarray = x[rows], b: np.ndarray = y[rows]) -> float:
            return rank_correlation(a[drawn], b[drawn])

        bound.append(bootstrap_by_device(table.device[rows], statistic, generator))
    name = "Spearman's correlation of the switching voltage with ln R of the state that it leaves"
    return {
        "pair": ("pair", np.array(pairs, dtype=str)),
        "correlation": ("pair", value, {**_ONE, "long_name": name}),
        "correlation_bound": (
            ("pair", "bound"),
            np.array(bound).reshape(-1, 2),
            {**_ONE, "long_name": "95 % interval"},
        ),
        "n_correlation": ("pair", count, _ONE),
    }


def _truncated(iv: xr.Dataset, loops: Loops, warnings: list[str]) -> None:
    for name in _operations(loops):
        rows = loops.of(name)[loops.switched[loops.of(name)]]
        if not len(rows):
            continue
        share = float((loops.voltage[rows] >= AT_END * loops.reach[rows]).mean())
        if share > 0.1:
            warnings.append(
                f"{name} voltage: {share:.0%} of the events lie at the last point of their sweep, so that the device "
                "may not have switched to its end; sweep further"
            )


def _yield(table: CycleTable, loops: Loops | None, warnings: list[str]) -> dict[str, Any]:
    """Return the fractions of devices that form, switch, switch in all cycles or never, with exact intervals."""
    n = endurance.counts(table, loops)
    failed, _ = endurance.failures(table)
    if np.unique(table.device, return_counts=True)[1].max() > endurance.FAILED_CYCLES:  # else it could not be seen
        n["n_failed"] = int((failed >= 0).sum())
    data: dict[str, Any] = {key: ((), value, _ONE) for key, value in n.items()}
    fractions = {
        "switched": ("n_switched", "n_devices", "devices that switched at least once"),
        "all_cycles": ("n_all_cycles", "n_devices", "devices that switched in all cycles"),
        "failed": ("n_failed", "n_devices", "devices that switched and then stopped"),
        "formed": ("n_formed", "n_form_devices", "devices that were formed"),
    }
    for key, (part, whole, name) in fractions.items():
        if part in n:
            data[f"yield_{key}"] = ((), n[part] / max(n[whole], 1), {**_ONE, "long_name": f"fraction of {name}"})
            data[f"yield_{key}_bound"] = (
                "bound",
                list(binomial_interval(n[part], n[whole])),
                {**_ONE, "long_name": "exact binomial 95 % interval"},
            )
    if (failed >= 0).any():
        cycles = failed[failed >= 0]
        data["failure_cycle_median"] = ((), float(np.median(cycles)), {**_ONE, "long_name": "median cycle of failure"})
        warnings.append(
            f"endurance: {len(cycles)} devices stopped switching (at cycle {int(cycles.min())} to {int(cycles.max())})"
        )
    if n["n_never"]:
        warnings.append(f"yield: {n['n_never']} of {n['n_devices']} devices never switched")
    return data


def _endurance(table: CycleTable, warnings: list[str]) -> dict[str, Any]:
    """Return trends of ln R with the cycle number, the window's closure, and the course of ln R."""
    cycles = np.unique(table.cycle)
    data: dict[str, Any] = {
        "n_cycles": ((), len(cycles), _ONE),
        "last_cycle": ((), float(cycles[-1]) if len(cycles) else np.nan, _ONE),
    }
    if len(cycles) < 2:
        warnings.append("endurance: not found, because every device was measured in one cycle only")
        return data
    lines = [endurance.trend(table.values[f"ln_r_{s}"], table.device, table.cycle) for s in ("lrs", "hrs")]
    name = "slope of ln R per decade of cycles"
    data["trend"] = ("state", [line.slope for line in lines], {**_ONE, "long_name": name})
    data["trend_bound"] = (
        ("state", "bound"),
        [list(line.interval) for line in lines],
        {**_ONE, "long_name": "95 % interval"},
    )
    data["n_trend"] = ("state", [line.n_values for line in lines], _ONE)
    line, median, smallest, closes = endurance.window_closure(table, CLOSED_RATIO)
    data |= {
        "window_median": ((), median, {**_ONE, "long_name": "median of ln(R_hrs / R_lrs)"}),
        "window_minimum": ((), smallest, {**_ONE, "long_name": "smallest ln(R_hrs / R_lrs)"}),
        "window_trend": ((), line.slope, {**_ONE, "long_name": "slope of ln(R_hrs / R_lrs) per decade of cycles"}),
        "window_trend_bound": ("bound", list(line.interval), {**_ONE, "long_name": "95 % interval"}),
    }
    measured = float(cycles[-1]) + 1
    sure = line.interval[1] < 0
    data["closing_cycle"] = (
        (), closes if sure and closes <= 10 * measured else np.nan,
        {**_ONE, "long_name": "cycle at which the window closes, NaN where beyond ten times the measured cycles"},
    )  # fmt: skip
    if sure and closes <= 10 * measured:
        warnings.append(
            f"endurance: at its trend the window falls to a ratio of {CLOSED_RATIO:g} near cycle {closes:.3g}"
        )
    return data | _course(table, cycles)


def _course(table: CycleTable, cycles: np.ndarray) -> dict[str, Any]:
    """Return quantiles of ln R over the devices against the cycle number, thinned in geometric steps."""
    if len(cycles) > MAXIMUM_CYCLES:
        picks = np.unique(np.geomspace(1, len(cycles), MAXIMUM_CYCLES).round().astype(int)) - 1
        cycles = cycles[picks]
    course = np.full((2, len(cycles), len(QUANTILES)), np.nan)
    order = np.argsort(table.cycle, kind="stable")
    starts = np.searchsorted(table.cycle[order], cycles, "left")
    stops = np.searchsorted(table.cycle[order], cycles, "right")
    for row, state in enumerate(("lrs", "hrs")):
        values = table.values[f"ln_r_{state}"][order]
        for k, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            part = values[start:stop]
            part = part[np.isfinite(part)]
            if len(part):
                course[row, k] = np.quantile(part, QUANTILES)
    return {
        "course_cycle": ("course", cycles, {**_ONE, "long_name": "cycle"}),
        "course_ln_r": (("state", "course", "quantile"), course, {**_ONE, "long_name": "quantile of ln(R / Ohm)"}),
    }
