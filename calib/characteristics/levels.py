"""Conductance levels: how many can be told apart, their means and spreads."""

import math
import sys
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from calib.characteristics._axes import quantity_axis
from calib.characteristics.base import Estimate, Section, known, with_error
from calib.formatting import format_interval, format_percent, format_quantity, plural
from calib.level_count import distinguishable, fitting_in, pair_error

if TYPE_CHECKING:
    from matplotlib.figure import Figure

name = "levels"
node = "levels"
MAIN_ERROR = 0.01
MOST_ROWS = 40
_CAPTIONS = {
    "levels": "Mean conductance of each level and the range between its measured 1 and 99 % quantiles, in ascending "
    "order; filled marks are a largest set that reads can tell apart at "
    f"{format_percent(MAIN_ERROR)} misread.",
    "level-spread": "Standard deviation of one read against the mean conductance of its level, its parts, and the law "
    "from which the number of levels that would fit is taken.",
    "levels-time": "Number of levels that reads at one time can tell apart, with 95 % intervals.",
}


def sections(part: xr.Dataset, tree: xr.DataTree) -> list[Section]:
    """Return how many levels can be told apart at each error, and the levels."""
    found = [_counts(part)]
    if "n_distinguishable_at" in part:
        found.append(_over_time(part))
    found.append(_levels(part))
    return found


def _counts(part: xr.Dataset) -> Section:
    rows = []
    for k, error in enumerate(part["error"].values):
        misread = float(part["misread"][k])
        rows.append((
            format_percent(float(error)), _count(part, "n_distinguishable", k), _plain(part["n_empirical"].values[k]),
            _count(part, "n_fit", k), format_percent(misread) if math.isfinite(misread) else "-",
        ))  # fmt: skip
    columns = ("misread at most", "told apart (95 %)", "by measured quantiles", "would fit (95 %)", "misread, measured")
    notes = (
        f"{plural(part.sizes['level'], 'level')} of {plural(int(part['n_reads'].sum()), 'read')}; levels told by "
        f"{part.attrs['told_by']}",
        str(part.attrs["statement"]),
        str(part.attrs["method"]),
    )
    return Section("Levels that can be told apart", columns, tuple(rows), notes)


def _plain(value: float) -> str:
    return str(int(value)) if math.isfinite(value) else "-"


def _count(part: xr.Dataset, key: str, k: int) -> str:
    value = float(part[key][k])
    if not math.isfinite(value):
        return "-"
    ends = _ends(part[f"{key}_bound"].values[k])
    return f"{math.floor(value)} ({ends})" if ends else str(math.floor(value))


def _ends(bound: np.ndarray) -> str:
    """Return the whole numbers within which an interval lies, '' where it is not known."""
    low, high = map(float, bound)
    return f"{math.floor(low)} to {math.ceil(high)}" if math.isfinite(low + high) else ""


def _over_time(part: xr.Dataset) -> Section:
    rows = []
    for k, time in enumerate(part["time"].values):
        cells = []
        for e in range(part.sizes["error"]):
            count = int(part["n_distinguishable_at"][k, e])
            ends = _ends(part["n_distinguishable_at_bound"].values[k, e])
            cells.append(f"{count} ({ends})" if ends else str(count))
        rows.append((format_quantity(float(time), "s"), *cells))
    columns = ("time", *(f"at {format_percent(float(error))}" for error in part["error"].values))
    notes = ("levels told apart by reads of different devices at that time alone, with 95 % intervals",)
    return Section("Levels told apart as time goes by", columns, tuple(rows), notes)


def _levels(part: xr.Dataset) -> Section:
    shown = np.unique(np.linspace(0, part.sizes["level"] - 1, min(part.sizes["level"], MOST_ROWS)).astype(int))
    main = _main(part)
    rows = []
    for k in shown:
        mean, std, error = (float(part[key][k]) for key in ("mean", "std", "pair_error"))
        relative = format_percent(std / mean, float(part["std_stderr"][k]) / mean) if mean > 0 else "-"
        parts = [format_percent(float(part[key][k]) / mean) if mean > 0 and math.isfinite(float(part[key][k])) else "-"
                 for key in ("std_read", "std_within", "std_between")]  # fmt: skip
        rows.append((
            str(part["level_name"].values[k]), format_quantity(mean, "S", float(part["mean_stderr"][k])), relative,
            *parts, format_percent(error) if math.isfinite(error) else "-", str(int(part["n_traces"][k])),
            str(int(part["n_reads"][k])), "yes" if int(part["selected"][k, main]) else "no",
        ))  # fmt: skip
    columns = ("level", "mean", "spread", "read", "trace", "between", "misread", "traces", "reads", "apart")
    left = part.sizes["level"] - len(shown)
    notes = (
        "spread: std of one read over the mean; of it: from read to read, over a trace, between traces",
        f"misread: as the next level; apart: in a largest set told apart at {format_percent(MAIN_ERROR)}",
        *((f"{left} more levels are in the model",) if left else ()),
    )
    return Section("Levels", columns, tuple(rows), notes)


def _main(part: xr.Dataset) -> int:
    return int(np.argmin(np.abs(part["error"].values - MAIN_ERROR)))


def estimates(part: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    """Return the counts with their intervals, and each level's mean and spread."""
    sample = f"{plural(part.sizes['level'], 'level')}, {plural(int(part['n_reads'].sum()), 'read')}"
    method = str(part.attrs["method"])
    found = []
    for k, error in enumerate(part["error"].values):
        for key, words in (("n_distinguishable", "levels told apart"), ("n_fit", "levels that would fit")):
            value = float(part[key][k])
            low, high = part[f"{key}_bound"].values[k]
            at = format_percent(float(error))
            found.append(Estimate(
                "levels", "", f"{key}_{float(error):g}", f"{words} at {at} misread", value, "1", low=float(low),
                high=float(high), interval="95 % bootstrap" if math.isfinite(low) else "", n=sample, method=method,
                validity=_validity(part),
            ))  # fmt: skip
    for k, label in enumerate(map(str, part["level_name"].values)):
        n = f"{plural(int(part['n_reads'][k]), 'read')} of {plural(int(part['n_traces'][k]), 'trace')}"
        for key, words in (("mean", "mean conductance"), ("std", "standard deviation of one read")):
            found.append(with_error(Estimate(
                "levels", label, f"level_{key}", f"{words} of level {label}", float(part[key][k]), "S",
                stderr=float(part[f"{key}_stderr"][k]), n=n, method=method, validity=_validity(part),
            )))  # fmt: skip
    return known(found)


def _validity(part: xr.Dataset) -> str:
    low, high = float(part["mean"].min()), float(part["mean"].max())
    return f"G {format_interval(low, high, 'S')}"


def key_numbers(part: xr.Dataset, tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return the number of levels told apart and the number that would fit at 1 %."""
    k = _main(part)
    at = f"at {format_percent(float(part['error'][k]))} misread"
    found = []
    for key, label, place in (
        ("n_distinguishable", "Levels told apart", f"of {part.sizes['level']}"),
        ("n_fit", "Levels that would fit", f"in {_validity(part)[2:]}"),
    ):
        count, ends = float(part[key][k]), _ends(part[f"{key}_bound"].values[k])
        if math.isfinite(count):
            remark = f"{place} {at}, 95 %: {ends}" if ends else f"{place} {at}"
            found.append((label, str(math.floor(count)), remark))
    return found


def figures(part: xr.Dataset, tree: xr.DataTree) -> "list[tuple[str, str, Figure]]":
    """Return the levels with their spreads, and how the number told apart falls with time where it is known."""
    found = [
        ("levels", _CAPTIONS["levels"], _levels_figure(part)),
        ("level-spread", _CAPTIONS["level-spread"], _spread_figure(part)),
    ]
    if "n_distinguishable_at" in part:
        found.append(("levels-time", _CAPTIONS["levels-time"], _time_figure(part)))
    return found


def _levels_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above

    with figure() as drawing:
        axes = drawing.add_subplot()
        x = np.arange(1, part.sizes["level"] + 1)
        mean = part["mean"].values
        low, high = part["g_quantile"].values[:, 0], part["g_quantile"].values[:, -1]
        positive = bool((mean > 0).all()) and float(mean.max() / max(mean.min(), 1e-300)) > 20
        floor = 0.5 * float(mean.min()) if positive else -np.inf
        axes.vlines(x, np.maximum(low, floor), high, color=COLOURS["g_on"], lw=0.8, alpha=0.6)
        chosen = part["selected"].values[:, _main(part)] > 0
        size = 3.0 if len(x) <= 64 else 1.5
        axes.plot(x[chosen], mean[chosen], "o", color=COLOURS["g_on"], ms=size, mew=0.6, label="told apart")
        axes.plot(
            x[~chosen], mean[~chosen], "o", mfc="white", mec=COLOURS["g_on"], ms=size, mew=0.6, label="not told apart"
        )
        quantity_axis(axes, "y", "conductance (S)")
        axes.set_xlabel("level, by conductance")
        legend_above(axes)
    return drawing


def _spread_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import COLOURS, figure, legend_above

    with figure() as drawing:
        axes = drawing.add_subplot()
        keep = part["mean"].values > 0
        mean = part["mean"].values[keep]
        names = (("std", "total", "o", "total"), ("std_read", "c2c", "v", "read to read"),
                 ("std_between", "d2d", "^", "between traces"))  # fmt: skip
        for key, colour, marker, label in names:
            value = part[key].values[keep]
            if np.isfinite(value).any():
                error = part["std_stderr"].values[keep] if key == "std" else None
                axes.errorbar(mean, value, error, fmt=marker, color=COLOURS[colour], ms=3, mew=0, elinewidth=0.5,
                              label=label)  # fmt: skip
        reference = float(part.attrs["reference_conductance"])
        law = part["sigma_law"].values
        if np.isfinite(law).all() and len(mean) > 1:
            g = np.geomspace(mean.min(), mean.max(), 100)
            sigma = np.exp(np.polynomial.polynomial.polyval(np.log(g / reference), law))
            axes.plot(g, sigma, color=COLOURS["fitted"], lw=1.0, label="law of the total")
        quantity_axis(axes, "x", "mean conductance (S)")
        quantity_axis(axes, "y", "standard deviation (S)")
        legend_above(axes)
    return drawing


def _time_figure(part: xr.Dataset) -> "Figure":
    from calib.figure_style import CYCLE, figure, legend_above, log_scale

    with figure(height=52.0) as drawing:
        axes = drawing.add_subplot()
        time = part["time"].values
        shown = time > 0
        for e, error in enumerate(part["error"].values):
            count = part["n_distinguishable_at"].values[shown, e]
            low, high = part["n_distinguishable_at_bound"].values[shown, e].T
            axes.errorbar(time[shown] * 1.08 ** (e - 1), count, [count - low, high - count], color=CYCLE[e], lw=0.9,
                          marker="os^"[e % 3], ms=3.5, capsize=2, label=f"{100 * error:g} % misread")  # fmt: skip
        log_scale(axes, "x")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("time (s)")
        axes.set_ylabel("levels told apart")
        legend_above(axes)
    return drawing


def resample(part: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    """Return the node with means and spreads of the levels drawn within their errors; the counts follow from them.

    A spread is drawn lognormally, so that it stays positive; the measured quantiles move and widen with their level.
    """
    drawn = part.copy(deep=True)
    relative = np.nan_to_num(part["std_stderr"].values / np.maximum(part["std"].values, 1e-300))
    std = part["std"].values * np.exp(relative * generator.standard_normal(len(relative)) - relative**2 / 2)
    mean = part["mean"].values + np.nan_to_num(part["mean_stderr"].values) * generator.standard_normal(len(std))
    scale = std / np.maximum(part["std"].values, 1e-300)
    for key in ("std_read", "std_within", "std_between"):
        drawn[key].values[:] = part[key].values * scale
    quantiles = mean[:, None] + (part["g_quantile"].values - part["mean"].values[:, None]) * scale[:, None]
    order = np.argsort(mean, kind="stable")
    drawn["g_quantile"].values[:] = quantiles
    drawn["mean"].values[:], drawn["std"].values[:] = mean, std
    chance = np.full(len(mean), np.nan)
    chance[order] = pair_error(mean[order], std[order])
    drawn["pair_error"].values[:] = chance
    errors = part["error"].values
    sets = [distinguishable(mean, std, float(error)) for error in errors]
    drawn["n_distinguishable"].values[:] = [len(chosen) for chosen in sets]
    drawn["selected"].values[:] = 0
    for k, chosen in enumerate(sets):
        drawn["selected"].values[chosen, k] = 1
    law = part["sigma_law"].values + np.nan_to_num(part["sigma_law_stderr"].values) * generator.standard_normal(
        part.sizes["power"])  # fmt: skip
    positive = mean[mean > 0]
    if np.isfinite(law).all() and len(positive) > 1:
        drawn["sigma_law"].values[:] = law
        reference = float(part.attrs["reference_conductance"])
        drawn["n_fit"].values[:] = fitting_in(positive.min(), positive.max(), law, reference, errors)
    return drawn


member = sys.modules[__name__]
