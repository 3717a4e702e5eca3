"""Figures of error budgets and of requirements."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from calib.figure_style import COLOURS, DOUBLE, figure, legend_above, plain

_ROW = 9.0
_BAR = 0.36


def budget_figure(found: xr.Dataset) -> Figure:
    """Draw what each effect costs in accuracy and in energy: without it, and alone, with 95 % intervals."""
    effects = [str(effect) for effect in found["effect"].values]
    energy = float(found["energy"].mean())
    with figure(DOUBLE, 26 + _ROW * len(effects)) as drawing:
        left, right = drawing.subplots(1, 2, sharey=True)
        _bars(left, found, ("cost_removed", "cost_alone"), 100.0)
        _bars(right, found, ("energy_removed", "energy_alone_change"), 100.0 / energy if energy else 1.0)
        left.set_yticks(range(len(effects)), [plain(effect) for effect in effects])
        left.set_ylim(len(effects) - 0.4, -0.6)
        left.set_xlabel("cost (percentage points of accuracy)")
        right.set_xlabel("energy that it adds (% of that with all)")
        for axes in (left, right):
            axes.axvline(0, color=COLOURS["fitted"], lw=0.6)
            axes.grid(visible=False, axis="y")
            axes.tick_params(axis="y", length=0)
        legend_above(left)
    return drawing


def _bars(axes: Axes, found: xr.Dataset, names: tuple[str, str], factor: float) -> None:
    rows = np.arange(found.sizes["effect"])
    looks = (("taken away", COLOURS["lrs"], -1), ("alone", COLOURS["ideal"], 1))
    for name, (label, colour, side) in zip(names, looks, strict=True):
        value, bound = factor * found[name].values, factor * found[f"{name}_bound"].values
        half = np.nan_to_num(np.abs(bound - value[:, None]))
        axes.barh(
            rows + side * _BAR / 2, value, _BAR, xerr=half.T, color=colour, label=label,
            error_kw={"elinewidth": 0.7, "ecolor": COLOURS["fitted"]},
        )  # fmt: skip


def requirements_figure(found: xr.Dataset) -> Figure:
    """Draw the loss of accuracy against the size of each effect, its isotonic fit, and where it is the one allowed."""
    effects = found["effect"].values
    allowed = 100 * float(found.attrs["allowed_loss"])
    lines = (len(effects) + 1) // 2
    with figure(DOUBLE, 8 + 48 * lines) as drawing:
        for number, effect in enumerate(effects):
            _curve(drawing.add_subplot(lines, 2, number + 1), found.sel(effect=effect), allowed)
        drawing.supylabel("loss of accuracy (points)", size=8)
    return drawing


def _curve(axes: Axes, one: xr.Dataset, allowed: float) -> None:
    known = one["size_value"].values > 0  # NaN fills up
    size = one["size_value"].values[known]
    loss, bound = 100 * one["loss"].values[known], 100 * one["loss_bound"].values[known]
    axes.fill_between(size, bound[:, 0], bound[:, 1], color=COLOURS["lrs"], alpha=0.18, lw=0)
    axes.plot(size, loss, "o", color=COLOURS["lrs"], ms=3)
    axes.plot(size, 100 * one["loss_isotonic"].values[known], color=COLOURS["lrs"])
    axes.axhline(allowed, color=COLOURS["fitted"], lw=0.7, ls="--")
    crossing = float(one["crossing"])
    if np.isfinite(crossing):
        low, high = (min(float(end), 2 * size[-1]) for end in one["crossing_bound"].values)
        axes.axvspan(low, high, color=COLOURS["stuck"], alpha=0.2, lw=0)
        axes.axvline(crossing, color=COLOURS["stuck"])
    present = float(one["present"])
    if size[0] <= present <= size[-1]:
        axes.axvline(present, color=COLOURS["all"], ls=":")
    axes.set_xscale("log")
    axes.set_xlim(size[0] / 1.2, size[-1] * 1.2)
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if size[-1] > 30 * size[0] else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(min(-0.2 * allowed, float(loss.min())), max(3 * allowed, 1.05 * float(loss.max())))
    unit = {"1": "", "ohm": " (Ω)"}[str(one["unit"].values)]
    axes.set_xlabel(plain(f"{one['effect'].values}: {one['quantity'].values}{unit}"))
