"""A comparison as tables for the terminal, as JSON, as CSV, and as an HTML page."""

import csv
import io
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from calib import characteristics as c
from calib import model_diff
from calib.characteristics.base import Section
from calib.comparison_result import Compared, Comparison, RunDifference
from calib.device_model import identity
from calib.exporters._text import one_line
from calib.formatting import format_number, format_quantity
from calib.iv_models import iv_model
from calib.outcomes import chip_range, median_interval
from calib.paired import Mean
from calib.report_devices import interval_text, law_caption, main_estimates

_PERCENT = 100.0
DIFFERENCE_COLUMNS = (
    "of", "from", "mean error, points", "more than the intervals", "mean energy", "more than the intervals", "compared",
)  # fmt: skip
RUN_COLUMNS = (
    "run", "device", "median error", "95 % interval", "5 to 95 % of chips", "loss against ideal devices",
    "energy per inference", "TOPs/W", "chips",
)  # fmt: skip


def sections(found: Comparison) -> list[Section]:
    """Return a comparison as tables; what there is none of is left out."""
    made = []
    if found.runs:
        made.append(Section("Runs", RUN_COLUMNS, tuple(_run_row(run) for run in found.runs), _run_notes(found)))
    if found.differences:
        rows = tuple(_difference_row(one, found.level) for one in found.differences)
        notes = (*sentences(found), *_difference_notes(found))
        made.append(Section("Differences of the runs", DIFFERENCE_COLUMNS, rows, notes))
    if found.devices:
        made.append(device_section(found.devices))
    for one in found.model_diffs:
        changed = model_diff.sections(one, every=False)[0]
        names = [one_line(model["name"]) for model in one.models]
        notes = (f"{one.statement[0].upper()}{one.statement[1:]}.", *one.warnings)
        made.append(Section(f"{names[1]} (b) against {names[0]} (a)", changed.columns, changed.rows, notes))
    return made


def _run_row(run: Compared) -> tuple[str, ...]:
    item = run.outcome
    low, high = chip_range(item.error)
    return (
        one_line(item.label),
        one_line(item.device),
        f"{_PERCENT * float(np.median(item.error)):.2f} %",
        _ends(*median_interval(item.error)),
        _ends(low, high) if item.chips > 1 else "",
        "" if math.isnan(run.loss.value) else f"{_points(run.loss)} points",
        format_quantity(float(item.energy.mean()), "J"),
        format_number(item.mean_efficiency),
        f"{item.error.shape[0]} x {item.error.shape[1]}",
    )


def _run_notes(found: Comparison) -> tuple[str, ...]:
    notes = ["Interval of the median: bootstrap over networks and chips; energy and TOPs/W are those of devices alone."]
    if any(not math.isnan(run.loss.value) for run in found.runs):
        notes.append(
            "Loss: mean error less that of the same networks on ideal devices; +- is the 95 % interval over networks "
            "and chips."
        )
    return tuple(notes)


def _ends(low: float, high: float) -> str:
    return "" if math.isnan(low) else f"{_PERCENT * low:.2f} to {_PERCENT * high:.2f} %"


def _points(mean: Mean) -> str:
    """Return a difference of fractions in points, '-3.1 +- 0.4'."""
    from calib.budget import points

    text = points(_PERCENT * abs(mean.value), _PERCENT * mean.half)
    return f"-{text}" if mean.value < 0 and text.partition(" ")[0].strip("0.") else text


def _difference_row(one: RunDifference, level: float) -> tuple[str, ...]:
    words = {True: "yes", False: "no", None: "not known"}
    half = one.energy.half
    energy = format_quantity(one.energy.value, "J", half if half == half else math.nan)
    return (
        one_line(one.b), one_line(one.a), _points(one.error), words[one.told("error", level)],
        f"{energy} ({_PERCENT * one.energy_share:+.3g} %)", words[one.told("energy", level)], one.how,
    )  # fmt: skip


def _difference_notes(found: Comparison) -> tuple[str, ...]:
    count = 2 * len(found.differences)
    return (
        "+-: 95 % interval of the difference of the means (t, degrees of freedom after Satterthwaite). More than the "
        f"intervals: tested at {_PERCENT * found.level:g} % for all {count} comparisons together (Holm).",
        "Test images are taken as given.",
    )


def sentences(found: Comparison) -> tuple[str, ...]:
    """Return what differs between the runs, in words."""
    return tuple(_sentence(one, found.level) for one in found.differences)


def _sentence(one: RunDifference, level: float) -> str:
    a, b = one_line(one.a), one_line(one.b)
    share = f"{_PERCENT * abs(one.energy_share):.3g} % {'more' if one.energy_share > 0 else 'less'} energy"
    energy = one.told("energy", level)
    if one.told("error", level):
        points = _points(Mean(abs(one.error.value), one.error.half))
        text = f"{b} has {points} points {'more' if one.error.value > 0 else 'less'} error than {a}"
        return f"{text}, and takes {share}." if energy else f"{text}."
    text = f"{b} and {a} have errors that cannot be told apart ({_points(one.error)} points)"
    return f"{text}; the former takes {share}." if energy else f"{text}."


def device_section(trees: Sequence[xr.DataTree]) -> Section:
    """Return the main characteristics of device models, one column for each."""
    columns = [_device_cells(tree) for tree in trees]
    keys = dict.fromkeys(key for column in columns for key in column if key != "identity")
    rows = tuple((key, *(one_line(column.get(key, "")) for column in columns)) for key in (*keys, "identity"))
    names = tuple(one_line(str(tree.attrs.get("name", "")) or identity(tree)[:12]) for tree in trees)
    return Section("Devices", ("quantity", *names), rows, ("In brackets: 95 % interval. Empty: not measured.",))


def _device_cells(tree: xr.DataTree) -> dict[str, str]:
    """Return a device model's characteristics in words, by quantity."""
    cells = {"technology": str(tree.attrs.get("technology", ""))}
    if "iv" in tree.children:
        node = tree["iv"].to_dataset()
        cells |= {"I-V law": iv_model(str(node.attrs["iv_model"])).title, "fitted for": c.window(node)}
    if "conductance" in tree.children:
        node = tree["conductance"].to_dataset()
        cells["G_on / G_off"] = format_number(float(node["g_on"]) / float(node["g_off"]))
    for item in main_estimates(tree):
        ends = interval_text(item)
        label = (
            item.quantity.replace("_value_at_centre", " at the mean R") if "at_centre" in item.quantity else item.label
        )
        key = f"{label}{f', {item.state}' if item.state else ''}"
        cells[key] = format_quantity(item.value, item.unit) + (f" ({ends})" if ends else "")
    for member in c.members(tree):
        for label, value, remark in member.key_numbers(tree[member.node].to_dataset(), tree):
            cells[label] = value + (f" ({remark.removeprefix('95 %: ')})" if remark else "")
    return {**cells, "identity": identity(tree)[:16]}


def as_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values; the keys are listed by `calib compare --help`."""
    return {
        "schema": "calib-compare/1",
        "level": found.level,
        "runs": [_run_json(run) for run in found.runs],
        "differences": [_difference_json(one, found.level) for one in found.differences],
        "devices": [_device_json(tree) for tree in found.devices],
        "device_differences": [model_diff.as_json(one) for one in found.model_diffs],
        "warnings": list(found.warnings),
    }


def _run_json(run: Compared) -> dict[str, Any]:
    item = run.outcome
    names = ("error_median_low", "error_median_high", "error_low", "error_high")
    ends = dict(zip(names, (*median_interval(item.error), *chip_range(item.error)), strict=True))
    return {
        "run": item.label,
        "device": item.device,
        "trained_on": item.trained_on,
        "error_median": float(np.median(item.error)),
        **ends,
        "error_mean": float(item.error.mean()),
        "loss_points": _PERCENT * run.loss.value,
        "loss_points_half": _PERCENT * run.loss.half,
        "energy_per_inference_joule": float(item.energy.mean()),
        "efficiency_tops_per_watt": item.mean_efficiency,
        "networks": item.error.shape[0],
        "chips": item.error.shape[1],
    }


def _difference_json(one: RunDifference, level: float) -> dict[str, Any]:
    return {
        "a": one.a,
        "b": one.b,
        "error_points": _PERCENT * one.error.value,
        "error_points_half": _PERCENT * one.error.half,
        "p_error": one.p_error,
        "error_told": one.told("error", level),
        "energy_joule": one.energy.value,
        "energy_joule_half": one.energy.half,
        "energy_share": one.energy_share,
        "p_energy": one.p_energy,
        "energy_told": one.told("energy", level),
        "how": one.how,
    }


def _device_json(tree: xr.DataTree) -> dict[str, Any]:
    keys = ("characteristic", "state", "quantity", "label", "value", "unit", "low", "high", "n")
    return {
        "name": str(tree.attrs.get("name", "")),
        "identity": identity(tree),
        "estimates": [{key: getattr(item, key) for key in keys} for item in main_estimates(tree)],
    }


def json_text(found: Comparison) -> str:
    """Return a comparison as JSON text; what is not known is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: plain(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps(plain(as_json(found)), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(found: Comparison) -> str:
    """Return a comparison as CSV, one number a line: kind, subject, quantity, value, low, high, unit.

    Empty ends are not known. Low and high are 95 % intervals, of error_chips 5 and 95 % of the chips.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(("kind", "subject", "quantity", "value", "low", "high", "unit"))
    rows: list[tuple[Any, ...]] = []
    for run in found.runs:
        item, nan = run.outcome, math.nan
        median = float(np.median(item.error))
        rows += [
            ("run", run.label, "error_median", median, *median_interval(item.error), "1"),
            ("run", run.label, "error_chips", median, *chip_range(item.error), "1"),
            ("run", run.label, "loss_against_ideal", run.loss.value, run.loss.low, run.loss.high, "1"),
            ("run", run.label, "energy_per_inference", float(item.energy.mean()), nan, nan, "J"),
            ("run", run.label, "efficiency", item.mean_efficiency, nan, nan, "1e12 s^-1 W^-1"),
        ]
    for one in found.differences:
        subject = f"{one.b} - {one.a}"
        rows += [("difference", subject, "error_mean", one.error.value, one.error.low, one.error.high, "1"),
                 ("difference", subject, "energy", one.energy.value, one.energy.low, one.energy.high, "J")]  # fmt: skip
    for tree in found.devices:
        for item in main_estimates(tree):
            name = f"{item.characteristic}/{item.state + '/' if item.state else ''}{item.quantity}"
            rows.append(("device", str(tree.attrs.get("name", "")), name, item.value, item.low, item.high, item.unit))
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return buffer.getvalue()


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    text = one_line(str(value))
    return f"'{text}" if text[:1] in ("=", "+", "-", "@") else text  # no formula of a spreadsheet


def page(found: Comparison, names: Sequence[str]) -> str:
    """Return a comparison as one HTML page.

    Parameters
    ----------
    names : of the files of results.
    """
    from calib import figures, html, result_figures

    drawn = result_figures.distribution_figures([run.outcome for run in found.runs])[:2] if found.runs else []
    curves = []
    for tree in found.devices:
        drawing = figures.iv_figure(tree)
        if drawing is not None:
            caption = f"{tree.attrs.get('name', '')}: {law_caption(tree)}"
            curves += html.pictures([("iv", caption, drawing)], f"{identity(tree)}-")
    rows = [(f"device {tree.attrs.get('name', '')}", f"identity {identity(tree)}") for tree in found.devices]
    rows += [("results", ", ".join(names))] if names else []
    return html.render(
        "compare.html.j2",
        sections=sections(found),
        pictures=html.pictures(drawn, "compare-"),
        curves=curves,
        warnings=found.warnings,
        provenance=rows,
    )
