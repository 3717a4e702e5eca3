"""Switching voltages, endurance and yield: tables, numbers and figures."""

import json
import math
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from calib import maps
from calib.characteristics.base import Z_95, Estimate, Section
from calib.formatting import format_interval, format_number, format_percent, format_quantity, plural

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

name = "switching"
node = "switching"

_YIELDS = (
    ("formed", "n_formed", "n_form_devices", "devices that were formed"),
    ("switched", "n_switched", "n_devices", "devices that switched at least once"),
    ("all_cycles", "n_all_cycles", "n_devices", "devices that switched in all cycles"),
    ("failed", "n_failed", "n_devices", "devices that switched and then stopped"),
)
_LAW_LABELS = {"weibull": "Weibull", "normal": "normal"}
_STATES = {"lrs": "low-resistance state (lrs)", "hrs": "high-resistance state (hrs)"}
_MAPPED = (("v_set", "set voltage (V)"), ("v_reset", "reset voltage (V)"), ("ln_r_hrs", "R of hrs (Ω)"),
           ("ln_r_lrs", "R of lrs (Ω)"))  # fmt: skip
MINIMUM_MAP = 16
_FEW = 0.05  # p-value under which a law is said not to fit


def sections(node: xr.Dataset, tree: xr.DataTree) -> list[Section]:
    """Return the voltages, the yield, the endurance and what was found of rows and columns."""
    found = []
    if "operation" in node:
        found.append(_voltage_section(node))
        spread = _spread_section(node)
        found += [spread] if spread.rows else []
    found.append(_yield_section(node))
    if "trend" in node:
        found.append(_endurance_section(node))
    if "place_sentence" in node:
        rows = tuple((str(sentence),) for sentence in node["place_sentence"].values)
        note = "permutation tests within columns (rows) of the devices' medians"
        found.append(Section("Rows and columns", ("statement",), rows, (note,)))
    return found


def _operations(node: xr.Dataset) -> list[str]:
    return [str(value) for value in node["operation"].values] if "operation" in node else []


def _voltage_section(node: xr.Dataset) -> Section:
    rows = []
    for k, operation in enumerate(_operations(node)):
        low, middle, high = node["voltage_quantile"].values[k]
        first, last = node["voltage_quantile_bound"].values[k, 1]
        count = f"{int(node['n_events'][k])} of {plural(int(node['n_loops'][k]), 'loop')}"
        rows.append((
            operation, format_quantity(middle, "V"), format_interval(first, last, "V"),
            format_interval(low, high, "V"), count, str(int(node["n_censored"][k])),
            f"{int(node['n_not_switched'][k])} of {int(node['n_tried'][k])}",
        ))  # fmt: skip
    columns = ("operation", "median |V|", "its 95 % interval", "5 to 95 %", "events", "beyond the sweep",
               "devices without event")  # fmt: skip
    notes = [str(node.attrs.get("polarity", ""))]
    rules = json.loads(node.attrs.get("rules", "{}"))
    for operation, counts in json.loads(node.attrs.get("rule_counts", "{}")).items():
        said = [f"{count} {rule}" for rule, count in counts.items()]
        notes.append(f"{operation}: {', '.join(said)}")
    used = {rule for counts in json.loads(node.attrs.get("rule_counts", "{}")).values() for rule in counts}
    notes += [f"{rule}: {meaning}" for rule, meaning in rules.items() if rule in used]
    return Section("Switching voltages", columns, tuple(rows), tuple(note for note in notes if note))


def _spread_section(node: xr.Dataset) -> Section:
    rows = []
    for k, operation in enumerate(_operations(node)):
        for law in map(str, node["law"].values):
            index = list(node["law"].values).index(law)
            first, second = ("scale", "shape") if law == "weibull" else ("mean", "std")
            if not math.isfinite(float(node[f"{law}_{first}"].values[k])):
                continue
            values = []
            for part, unit in ((first, "V"), (second, "1" if second == "shape" else "V")):
                low, high = node[f"{law}_{part}_bound"].values[k]
                text = format_quantity(float(node[f"{law}_{part}"].values[k]), unit)
                values.append(f"{part} {text} ({format_interval(low, high, unit)})")
            p = float(node["law_p"].values[k, index])
            verdict = (
                "" if not math.isfinite(p) else f"p = {format_number(p, 2)}" + (", does not fit" if p < _FEW else "")
            )
            rows.append((operation, _LAW_LABELS[law], *values, verdict))
        parts = [f"{label} {format_quantity(float(node[key].values[k]), 'V', float(node[f'{key}_stderr'].values[k]))}"
                 for key, label in (("voltage_d2d", "device to device"), ("voltage_c2c", "cycle to cycle"),
                                    ("voltage_sigma", "both"))
                 if math.isfinite(float(node[key].values[k]))]  # fmt: skip
        if parts:
            rows.append((operation, "standard deviation", *(parts + [""] * 3)[:3]))
    notes = ["Kolmogorov-Smirnov distance, p-value by drawing from the fitted law"]
    for k, pair in enumerate(node["pair"].values if "pair" in node else ()):
        value, bound = float(node["correlation"].values[k]), node["correlation_bound"].values[k]
        if math.isfinite(value):
            state = "hrs" if str(pair) == "set" else "lrs"
            notes.append(
                f"rank correlation of the {pair} voltage with R of the {state} before it: {format_number(value, 2)} "
                f"({format_interval(*bound)}), {plural(int(node['n_correlation'].values[k]), 'cycle')}"
            )
    return Section(
        "Distribution of the switching voltages", ("operation", "law", "", "", "fit"), tuple(rows), tuple(notes)
    )


def _yield_section(node: xr.Dataset) -> Section:
    rows = []
    for key, part, whole, label in _YIELDS:
        if f"yield_{key}" not in node:
            continue
        bound = 100 * node[f"yield_{key}_bound"].values
        rows.append((
            label, f"{int(node[part])} of {int(node[whole])}", format_percent(float(node[f"yield_{key}"])),
            f"{format_interval(*bound)} %",
        ))  # fmt: skip
    notes = [f"{int(node['n_never'])} devices never switched"] if int(node["n_never"]) else []
    if "failure_cycle_median" in node:
        notes.append(f"median cycle at which devices stopped: {format_number(float(node['failure_cycle_median']))}")
    return Section("Yield", ("", "devices", "fraction", "exact binomial 95 % interval"), tuple(rows), tuple(notes))


def _endurance_section(node: xr.Dataset) -> Section:
    rows = [
        (_STATES[str(state)], format_number(float(node["trend"].values[k])),
         format_interval(*node["trend_bound"].values[k]), f"{int(node['n_trend'].values[k])}")
        for k, state in enumerate(node["state"].values)
    ]  # fmt: skip
    count = int(node["n_trend"].values.min())
    rows.append(("window, R of hrs over R of lrs", format_number(float(node["window_trend"])),
                 format_interval(*node["window_trend_bound"].values), str(count)))  # fmt: skip
    ratio, least = (math.exp(float(node[key])) for key in ("window_median", "window_minimum"))
    notes = [
        f"{plural(int(node['n_cycles']), 'different cycle')}, the last numbered {int(node['last_cycle'])}",
        f"window: median ratio {format_number(ratio)}, smallest {format_number(least)}",
    ]
    closing = float(node["closing_cycle"])
    if math.isfinite(closing):
        notes.append(f"at this trend the window closes near cycle {format_number(closing)}")
    return Section(
        "Endurance", ("ln R of", "slope per decade of cycles", "95 % interval", "values"), tuple(rows), tuple(notes)
    )


def estimates(node: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    """Return voltages, laws, parts of the spread, yields and trends."""
    return [*_voltage_estimates(node), *_yield_estimates(node), *_trend_estimates(node)]


def _voltage_estimates(node: xr.Dataset) -> Iterator[Estimate]:
    for k, operation in enumerate(_operations(node)):
        n = f"{int(node['n_events'][k])} events of {plural(int(node['n_tried'][k]), 'device')}"
        method = ", ".join(json.loads(node.attrs.get("rule_counts", "{}")).get(operation, {}))
        for j, q in enumerate(node["quantile"].values):
            low, high = node["voltage_quantile_bound"].values[k, j]
            label = "median" if q == 0.5 else f"{100 * q:g} % quantile"
            yield Estimate(
                "switching", operation, f"voltage_q{round(100 * float(q)):02d}", f"{operation} voltage, {label}",
                float(node["voltage_quantile"].values[k, j]), "V", low=float(low), high=float(high),
                interval="95 % confidence" if math.isfinite(low + high) else "", n=n, method=method,
            )  # fmt: skip
        for key, unit in (("weibull_scale", "V"), ("weibull_shape", "1"), ("normal_mean", "V"), ("normal_std", "V")):
            value = float(node[key].values[k])
            low, high = node[f"{key}_bound"].values[k]
            if math.isfinite(value):
                yield Estimate(
                    "switching", operation, key, f"{operation} voltage, {key.replace('_', ' ')}", value, unit,
                    low=float(low), high=float(high), interval="95 % confidence", n=n,
                    method=str(node.attrs.get("method", "")),
                )  # fmt: skip
        for key, label in (("voltage_d2d", "from device to device"), ("voltage_c2c", "from cycle to cycle")):
            value, error = float(node[key].values[k]), float(node[f"{key}_stderr"].values[k])
            if math.isfinite(value):
                yield Estimate(
                    "switching", operation, key, f"{operation} voltage, standard deviation {label}", value, "V",
                    stderr=error, low=max(value - Z_95 * error, 0.0), high=value + Z_95 * error,
                    interval="95 % confidence", n=n, method="restricted maximum likelihood",
                )  # fmt: skip


def _yield_estimates(node: xr.Dataset) -> Iterator[Estimate]:
    for key, part, whole, label in _YIELDS:
        if f"yield_{key}" in node:
            low, high = node[f"yield_{key}_bound"].values
            yield Estimate(
                "switching", "", f"yield_{key}", f"fraction of {label}", float(node[f"yield_{key}"]), "1",
                low=float(low), high=float(high), interval="exact binomial 95 %",
                n=f"{int(node[part])} of {plural(int(node[whole]), 'device')}", method="count of devices",
            )  # fmt: skip


def _trend_estimates(node: xr.Dataset) -> Iterator[Estimate]:
    if "trend" not in node:
        return
    values = [(str(state), "trend", f"slope of ln R of {state} per decade of cycles", node["trend"].values[k],
               node["trend_bound"].values[k]) for k, state in enumerate(node["state"].values)]  # fmt: skip
    values.append(("", "window_trend", "slope of ln(R_hrs / R_lrs) per decade of cycles", node["window_trend"].values,
                   node["window_trend_bound"].values))  # fmt: skip
    for state, key, label, value, (low, high) in values:
        yield Estimate(
            "switching", state, key, label, float(value), "1", low=float(low), high=float(high),
            interval="95 % confidence" if math.isfinite(low + high) else "",
            n=f"{int(node['n_trend'].values.min())} values", method="least squares, own intercept for each device",
            validity=f"cycles up to {int(node['last_cycle'])}",
        )  # fmt: skip


def key_numbers(node: xr.Dataset, tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return the median voltages and the yield."""
    found = []
    operations = _operations(node)
    if operations:
        text = " / ".join(format_quantity(float(v), "V") for v in node["voltage_quantile"].values[:, 1])
        found.append(("Switching voltage, median", text, " / ".join(operations)))
    low, high = 100 * node["yield_switched_bound"].values
    found.append(("Devices that switch", format_percent(float(node["yield_switched"])),
                  f"95 %: {format_interval(low, high)} %"))  # fmt: skip
    return found


def figures(node: xr.Dataset, tree: xr.DataTree) -> "list[tuple[str, str, Figure]]":
    """Return the distribution of the voltages, the course of the resistances, and maps where places are known."""
    found = []
    if "event_voltage" in node and node.sizes["event"] >= 3:
        caption = (
            "Switching voltages on Weibull paper, where a Weibull law is a straight line: events (points), the fitted "
            "Weibull law (line) and the normal law (dotted). An event at the end of its sweep is counted, not drawn."
        )
        found.append(("switching-voltages", caption, _voltage_figure(node)))
    if "course_ln_r" in node:
        caption = "Resistance of both states against the cycle: median over the devices, and 5 to 95 % (band)."
        found.append(("endurance", caption, _endurance_figure(node)))
    placed = (
        (node["device_row"].values >= 0) & (node["device_column"].values >= 0) if "device_row" in node else np.array([])
    )
    if placed.sum() >= MINIMUM_MAP:
        for key, label in _MAPPED:
            if f"device_{key}" not in node:
                continue
            values = node[f"device_{key}"].values
            resistance = key.startswith("ln_r")
            table = maps.grid(node["device_row"].values, node["device_column"].values,
                              np.exp(values) if resistance else values)  # fmt: skip
            drawing = maps.map_figure(table, label, logarithmic=resistance)
            caption = (
                f"Median {label.partition(' (')[0]} of each device by row and column; white where none was measured."
            )
            found.append((f"map-{key.replace('_', '-')}", caption, drawing))
    return found


def _voltage_figure(node: xr.Dataset) -> "Figure":
    from calib.figure_style import colour_of, figure, legend_above

    with figure() as drawing:
        axes = drawing.add_subplot()
        operation = node["event_operation"].values.astype(str)
        marks = {"set": "o", "reset": "s", "form": "^"}
        for k, which in enumerate(_operations(node)):
            seen = (operation == which) & (node["event_at_end"].values == 0)
            v = np.sort(node["event_voltage"].values[seen])
            if len(v) < 3:
                continue
            total = int((operation == which).sum()) + int(node["n_censored"].values[k])
            shown, count = np.unique(v, return_counts=True)
            part = (np.cumsum(count) - 0.3) / (total + 0.4)  # median ranks (A. Benard)
            axes.plot(shown, _weibit(part), marks.get(which, "o"), color=colour_of(which), ms=3, mew=0,
                      label=f"{which}, {len(v)} events")  # fmt: skip
            grid = np.geomspace(0.8 * shown[0], 1.15 * shown[-1], 200)
            _law_lines(axes, node, k, grid, which)
        _weibull_axes(axes)
        legend_above(axes)
    return drawing


def _weibit(part: np.ndarray) -> np.ndarray:
    return np.log(-np.log1p(-np.clip(part, 1e-12, 1 - 1e-12)))


def _law_lines(axes: "Axes", node: xr.Dataset, k: int, grid: np.ndarray, which: str) -> None:
    from scipy.special import ndtr

    from calib.figure_style import colour_of

    scale, shape = float(node["weibull_scale"].values[k]), float(node["weibull_shape"].values[k])
    mean, spread = float(node["normal_mean"].values[k]), float(node["normal_std"].values[k])
    if math.isfinite(scale):
        axes.plot(grid, shape * np.log(grid / scale), color=colour_of(which), lw=1.0, label=f"{which}, Weibull")
        axes.plot(grid, _weibit(ndtr((grid - mean) / spread)), ":", color=colour_of(which), lw=1.0)


def _weibull_axes(axes: "Axes") -> None:
    from matplotlib.ticker import FormatStrFormatter, MaxNLocator, NullFormatter

    percents = np.array([0.1, 1.0, 5.0, 20.0, 50.0, 80.0, 95.0, 99.9])
    axes.set_yticks(_weibit(percents / 100), [f"{p:g}" for p in percents])
    axes.set_ylim(*(float(end) for end in _weibit(np.array([0.003, 0.9995]))))
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    ticks = [t for t in MaxNLocator(6).tick_values(low, high) if low <= t <= high and t > 0]
    if high / low > 6:
        ticks = [t for t in (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20) if low <= t <= high]
    axes.set_xticks(ticks)
    axes.xaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("switching voltage |V| (V)")
    axes.set_ylabel("events below |V| (%)")


def _endurance_figure(node: xr.Dataset) -> "Figure":
    from calib.figure_style import MARKERS, colour_of, figure, legend_above, log_scale

    cycle = node["course_cycle"].values + 1
    with figure(height=56.0) as drawing:
        axes = drawing.add_subplot()
        for k, state in enumerate(map(str, node["state"].values)):
            low, middle, high = np.exp(node["course_ln_r"].values[k].T)
            if len(cycle) < 30:
                axes.errorbar(cycle, middle, [middle - low, high - middle], fmt=MARKERS[state], color=colour_of(state),
                              ms=3, lw=0.8, capsize=2, label=state)  # fmt: skip
            else:
                axes.fill_between(cycle, low, high, color=colour_of(state), alpha=0.25, lw=0)
                axes.plot(cycle, middle, MARKERS[state], color=colour_of(state), ms=2.2, mew=0, label=state)
        if len(cycle) >= 30:
            log_scale(axes, "x")
            axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        low, high = axes.dataLim.intervaly
        if not high > 1.001 * low:
            axes.set_ylim(0.5 * low, 2 * high)
        log_scale(axes, "y")
        axes.set_xlabel("cycle")
        axes.set_ylabel("R (Ω)")
        legend_above(axes)
    return drawing


def resample(node: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    """Return the node with voltages, laws, yields and trends drawn within their uncertainty.

    Positive numbers are drawn with a normal logarithm, yields from the posterior of a binomial fraction under
    Jeffreys' prior; the events themselves stay.
    """
    new: dict[str, np.ndarray | float] = {}
    for key in ("weibull_scale", "weibull_shape", "normal_mean", "normal_std"):
        if key in node:
            new[key] = _positive(node[key].values, node[f"{key}_bound"].values, generator)
    if "voltage_quantile" in node:
        quantile, bound = node["voltage_quantile"].values, node["voltage_quantile_bound"].values
        ratio = _positive(quantile[:, 1], bound[:, 1], generator) / quantile[:, 1]
        new["voltage_quantile"] = quantile * ratio[:, None]
    for key in ("voltage_d2d", "voltage_c2c", "voltage_sigma"):
        if key in node:
            value, error = node[key].values, np.nan_to_num(node[f"{key}_stderr"].values)
            with np.errstate(divide="ignore", invalid="ignore"):
                relative = np.where(value > 0, error / value, 0.0)
            new[key] = value * np.exp(relative * generator.standard_normal(value.shape))
    for key, part, whole, _ in _YIELDS:
        if f"yield_{key}" in node:
            count, total = int(node[part]), int(node[whole])
            new[f"yield_{key}"] = generator.beta(count + 0.5, total - count + 0.5)
    for key in ("trend", "window_trend"):
        if key in node:
            bound = node[f"{key}_bound"].values
            error = np.nan_to_num((bound[..., 1] - bound[..., 0]) / (2 * Z_95))
            value = node[key].values
            new[key] = value + error * generator.standard_normal(np.shape(value))
    return node.assign({key: (node[key].dims, value, node[key].attrs) for key, value in new.items()})


def _positive(value: np.ndarray, bound: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Return positive values drawn with the normal logarithm that their 95 % intervals give."""
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.log(bound[..., 1] / bound[..., 0]) / (2 * Z_95)
    error = np.where(np.isfinite(error), error, 0.0)
    return value * np.exp(error * generator.standard_normal(np.shape(value)))


member = sys.modules[__name__]
