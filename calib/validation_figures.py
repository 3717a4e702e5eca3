"""Figures of a validation: coverage against voltage, probability transforms, and quantiles measured against drawn."""

from textwrap import fill

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from calib.figure_style import COLOURS, DOUBLE, MARKERS, colour_of, figure, legend_above, log_scale, plain


def validation_figures(node: xr.Dataset) -> list[tuple[str, str, Figure]]:
    """Return the figures that a validation node supports as (key, caption, figure)."""
    found = []
    if "coverage_voltage" in node:
        found.append((
            "coverage",
            "Fraction of the measured currents inside the central 90 % (filled) and 50 % (open) predictive interval at "
            "each voltage; lines: nominal; bands: 95 % interval of a perfect model with as many devices.",
            coverage_figure(node),
        ))  # fmt: skip
    if "pit" in node:
        found.append((
            "pit",
            "Where measured currents lie in the predictive distribution: even for a model that is right, humps in the "
            "middle for one that is too wide, at the ends for one that is too narrow, a slope for one that is off.",
            pit_figure(node),
        ))  # fmt: skip
    if "qq_measured" in node:
        found.append((
            "quantiles",
            "Quantiles of the measured current against those drawn from the model, near the reference voltage; bands: "
            "95 % interval of samples of the model with as many devices and cycles.",
            quantile_figure(node),
        ))  # fmt: skip
    if node.sizes.get("comparison"):
        found.append((
            "comparisons",
            "Coverage of the 90 % predictive interval of every quantity that was compared, with the 95 % interval of a "
            "perfect model; filled where no distance is beyond chance (p of 0.05 for each).",
            comparison_figure(node),
        ))  # fmt: skip
    return found


def whole_figure(node: xr.Dataset) -> Figure:
    """Draw coverage, probability transforms and quantiles side by side; without curves, the comparisons."""
    if "coverage_voltage" not in node:
        return comparison_figure(node)
    with figure(DOUBLE, 62.0) as drawing:
        left, middle, right = drawing.subplots(1, 3)
        _coverage(left, node)
        _pit(middle, node)
        _quantiles(right, node)
    return drawing


def coverage_figure(node: xr.Dataset) -> Figure:
    """Draw coverage against voltage."""
    with figure() as drawing:
        _coverage(drawing.add_subplot(), node)
    return drawing


def _coverage(axes, node: xr.Dataset) -> None:
    voltage = node["voltage"].values
    for level, filled in ((0.9, True), (0.5, False)):
        axes.axhline(100 * level, color=COLOURS["fitted"], lw=0.6, ls="-" if filled else "--")
        for state in map(str, node["state"].values):
            here = node.sel(level=level, state=state)
            values = 100 * here["coverage_voltage"].values
            seen = np.isfinite(values)
            colour = colour_of(state)
            low, high = 100 * here["coverage_voltage_bound"].values[seen].T
            axes.fill_between(voltage[seen], low, high, color=colour, alpha=0.12, lw=0)
            axes.plot(
                voltage[seen], values[seen], MARKERS.get(state, "D"), color=colour, ms=3, mew=0.7, ls="-", lw=0.6,
                mfc=colour if filled else "none", label=f"{plain(state)}, {100 * level:g} %",
            )  # fmt: skip
    axes.set_ylim(0, 102)
    axes.set_xlabel("|V| (V)")
    axes.set_ylabel("points inside (%)")
    legend_above(axes)


def pit_figure(node: xr.Dataset) -> Figure:
    """Draw the histogram of the probability transforms."""
    with figure() as drawing:
        _pit(drawing.add_subplot(), node)
    return drawing


def _pit(axes, node: xr.Dataset) -> None:
    edges = np.linspace(0.0, 1.0, node.sizes["bin"] + 1)
    for state in map(str, node["state"].values):
        density = node["pit"].sel(state=state).values * node.sizes["bin"]
        axes.stairs(density, edges, color=colour_of(state), lw=1.1, label=plain(state))
    axes.axhline(1.0, color=COLOURS["fitted"], lw=0.6)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("probability under the model")
    axes.set_ylabel("density of the points")
    legend_above(axes)


def quantile_figure(node: xr.Dataset) -> Figure:
    """Draw measured against drawn quantiles of the current."""
    with figure() as drawing:
        _quantiles(drawing.add_subplot(), node)
    return drawing


def _quantiles(axes, node: xr.Dataset) -> None:
    for state in map(str, node["state"].values):
        here = node.sel(state=state)
        model, measured = here["qq_model"].values, here["qq_measured"].values
        colour, voltage = colour_of(state), float(here["qq_voltage"])
        axes.fill_between(model, *here["qq_bound"].values.T, color=colour, alpha=0.15, lw=0)
        label = f"{plain(state)}, {voltage:.3g} V"
        axes.plot(model, measured, MARKERS.get(state, "D"), color=colour, ms=2.5, mew=0, ls="none", label=label)
    every = np.concatenate([node["qq_model"].values.ravel(), node["qq_measured"].values.ravel()])
    ends = [float(every.min()), float(every.max())]
    axes.plot(ends, ends, color=COLOURS["fitted"], lw=0.6)
    log_scale(axes, "x")
    log_scale(axes, "y")
    axes.set_xlabel("I drawn (A)")
    axes.set_ylabel("I measured (A)")
    legend_above(axes)


def comparison_figure(node: xr.Dataset) -> Figure:
    """Draw the coverage of every quantity that was compared."""
    count = node.sizes["comparison"]
    here = node.sel(level=0.9)
    labels = [
        fill(" ".join(part for part in (plain(str(quantity)), plain(str(state)), plain(str(at))) if part), 24)
        for quantity, state, at in zip(
            node["comparison_quantity"].values, node["comparison_state"].values, node["comparison_at"].values,
            strict=True,
        )
    ]  # fmt: skip
    with figure(DOUBLE, 22.0 + 6.5 * count) as drawing:
        axes = drawing.add_subplot()
        axes.axvline(90, color=COLOURS["fitted"], lw=0.6)
        for k in range(count):
            low, high = 100 * here["comparison_coverage_bound"].values[k]
            colour = colour_of(str(node["comparison_state"].values[k]) or "all")
            chance = min(float(node["ks_p"].values[k]), float(node["wasserstein_p"].values[k])) >= 0.05
            axes.plot([low, high], [k, k], color=colour, lw=4, alpha=0.25, solid_capstyle="butt")
            axes.plot(
                100 * here["comparison_coverage"].values[k], k, "o", color=colour, ms=4, mew=0.8,
                mfc=colour if chance else "none",
            )  # fmt: skip
        axes.set_yticks(range(count), labels, fontsize=6.5)
        axes.set_ylim(count - 0.5, -0.5)
        axes.set_xlim(right=101)
        axes.set_xlabel("inside the 90 % predictive interval (%)")
        drawing.canvas.draw()  # the labels' width is known to the layout from then on
    return drawing
