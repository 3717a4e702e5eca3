"""Figures of device models: the measured curves, the law, its population, and what limits it.

Every function returns a `matplotlib.figure.Figure` (no global state) or None where the model lacks what it shows.
"""

import math
import re
from collections.abc import Callable

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from calib import characteristics, sampling
from calib.device_model import shape_law
from calib.figure_style import COLOURS, MARKERS, colour_of, figure, legend_above, log_scale, plain
from calib.iv_models import iv_model
from calib.validation_figures import validation_figures

SEED = 20220501
N_DRAWS = 2000
BAND = (0.05, 0.95)
"""Quantiles between which bands are drawn."""


def device_figures(tree: xr.DataTree) -> list[tuple[str, str, Figure]]:
    """Return the figures that a device model supports as (key, caption, figure)."""
    found: list[tuple[str, str, Figure]] = []
    for key, caption, draw in _DEVICE_FIGURES:
        drawing = draw(tree)
        if drawing is not None:
            text = LAW_CAPTION if key == "iv" and "examples" not in tree.children else caption
            found.append((key, text, drawing))
    if "iv" in tree.children:
        for name in iv_model(str(tree["iv"].attrs["iv_model"])).shape:
            drawing = parameter_figure(tree, name)
            if drawing is not None:
                caption = (
                    f"Parameter {name} of each measured curve against its resistance, with the line that the model "
                    "holds and the band in which 95 % of devices lie."
                )
                found.insert(1, (f"parameter-{name}", caption, drawing))
    for member in characteristics.members(tree):
        found += member.figures(tree[member.node].to_dataset(), tree)
    if "validation" in tree.children:
        found += validation_figures(tree["validation"].to_dataset())
    return found


def iv_figure(tree: xr.DataTree) -> Figure | None:
    """Draw measured curves, the law at the median resistance, and the band of devices drawn from the population."""
    if "iv" not in tree.children and "examples" not in tree.children:
        return None
    with figure() as drawing:
        axes = drawing.add_subplot()
        if "examples" in tree.children:
            _examples(axes, tree["examples"].to_dataset())
        if "iv" in tree.children:
            node = tree["iv"].to_dataset()
            for state in map(str, node["state"].values):
                _law_and_band(axes, tree, node, state)
            axes.axvline(float(node.attrs["v_max"]), color=COLOURS["fitted"], lw=0.6, ls=":")
        log_scale(axes, "y")
        axes.set_xlabel("|V| (V)")
        axes.set_ylabel("|I| (A)")
        axes.margins(x=0.02)
        legend_above(axes, by_label=True)
    return drawing


def _examples(axes: Axes, node: xr.Dataset) -> None:
    named: set[str] = set()
    states = node["example_state"].values.astype(str)
    for row, state in enumerate(states):
        voltage, current = np.abs(node["voltage"].values[row]), np.abs(node["current"].values[row])
        shown = np.isfinite(voltage) & (current > 0)
        label = f"{plain(state)}, measured" if state not in named else None
        named.add(state)
        axes.plot(voltage[shown], current[shown], color=colour_of(state), lw=0.5, alpha=0.6, label=label)


def _law_and_band(axes: Axes, tree: xr.DataTree, node: xr.Dataset, state: str) -> None:
    model = iv_model(str(node.attrs["iv_model"]))
    end = characteristics.scalar(node, "v_max_state", state=state)
    end = end if math.isfinite(end) else float(node.attrs["v_max"])
    start = max(float(node.attrs["v_min"]), 0.01 * end)
    voltage = np.linspace(start, end, 60)
    _, drawn = sampling.sample_devices(tree, state, N_DRAWS, SEED)
    currents = model.current(voltage, xp=np, **{name: value[:, None] for name, value in drawn.items()})
    low, high = np.quantile(np.abs(currents), BAND, axis=0)
    axes.fill_between(voltage, low, high, color=colour_of(state), alpha=0.18, lw=0, label=f"{plain(state)}, 90 % band")
    typical = characteristics.typical_parameters(tree, state, characteristics.quantile(node, state, 0.5))
    style = "-" if state == "lrs" else "--"
    axes.plot(
        voltage, np.abs(model.current(voltage, xp=np, **typical)), style, color=COLOURS["fitted"], lw=1.0,
        label=f"{plain(state)}, law",
    )  # fmt: skip


def parameter_figure(tree: xr.DataTree, name: str) -> Figure | None:
    """Draw a parameter of every curve against R, with its line and the band of 95 % of the devices."""
    node = tree["iv"].to_dataset()
    model = iv_model(str(node.attrs["iv_model"]))
    with figure() as drawing:
        axes = drawing.add_subplot()
        for state in map(str, node["state"].values):
            colour, marker = colour_of(state), MARKERS.get(state, "D")
            if "curve_parameter" in node:
                x, y, error = _curve_values(node, state, name)
                axes.errorbar(
                    np.exp(x), y, error, fmt=marker, color=colour, ms=2.5, mew=0, elinewidth=0.5, alpha=0.6,
                    label=f"{plain(state)}, curves",
                )  # fmt: skip
            ln_r, centre, low, high = _line_and_band(tree, node, state, name)
            axes.fill_between(np.exp(ln_r), low, high, color=colour, alpha=0.18, lw=0)
            axes.plot(np.exp(ln_r), centre, color=COLOURS["fitted"], lw=1.0, ls="-" if state == "lrs" else "--",
                      label=f"{plain(state)}, line")  # fmt: skip
        log_scale(axes, "x")
        axes.set_xlabel("R (Ω)")
        unit = model.parameter(name).unit
        axes.set_ylabel(f"{name} ({_superscript(unit)})" if unit != "1" else name)
        legend_above(axes)
    return drawing


def _curve_values(node: xr.Dataset, state: str, name: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ln R, the parameter and its error of a state's curves that were fitted within reason."""
    here = node["curve_state"].values.astype(str) == state
    column = list(map(str, node["parameter"].values)).index(name)
    x, y = node["curve_ln_r"].values[here], node["curve_parameter"].values[here, column]
    error = node["curve_parameter_stderr"].values[here, column]
    ok = np.isfinite(x) & np.isfinite(y) & (node["curve_status"].values.astype(str)[here] == "ok")
    inside = (x >= characteristics.scalar(node, "ln_r_min", state=state) - 1e-9) & (
        x <= characteristics.scalar(node, "ln_r_max", state=state) + 1e-9
    )
    ok &= inside
    return x[ok], y[ok], np.nan_to_num(error[ok])


def _line_and_band(
    tree: xr.DataTree, node: xr.Dataset, state: str, name: str
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    law = shape_law(tree, state)
    column = law.parameters.index(name)
    low, high = (characteristics.scalar(node, key, state=state) for key in ("ln_r_min", "ln_r_max"))
    ln_r = np.linspace(low, high, 40) if high > low else np.array([low - 0.05, high + 0.05])
    mean, covariance = law.at(ln_r)
    half = characteristics.Z_95 * np.sqrt(np.maximum(covariance[:, column, column], 0.0))
    rows = (mean[:, column], mean[:, column] - half, mean[:, column] + half)
    centre, below, above = (np.exp(row) if law.transforms[column] == "log" else row for row in rows)
    return ln_r, centre, below, above


def resistance_figure(tree: xr.DataTree) -> Figure | None:
    """Draw the distribution of R per state: measured quantiles and the lognormal of the same mean and spread."""
    if "iv" not in tree.children:
        return None
    from scipy.special import ndtri

    node = tree["iv"].to_dataset()
    if not bool((node["ln_r_quantile"].max("quantile") > node["ln_r_quantile"].min("quantile")).any()):
        return None
    with figure() as drawing:
        axes = drawing.add_subplot()
        q = node["quantile"].values
        shown = (q >= 0.01) & (q <= 0.99)
        for state in map(str, node["state"].values):
            row = node["ln_r_quantile"].sel(state=state).values
            origin = "measured" if int(node["n_curves"].sel(state=state)) else "as drawn"
            axes.plot(np.exp(row[shown]), 100 * q[shown], MARKERS.get(state, "D"), color=colour_of(state), ms=2.2,
                      mew=0, label=f"{plain(state)}, {origin}")  # fmt: skip
            sigma = float(node["ln_r_std"].sel(state=state))
            if sigma > 0:
                line = float(node["ln_r_mean"].sel(state=state)) + sigma * ndtri(q[shown])
                axes.plot(np.exp(line), 100 * q[shown], color=COLOURS["fitted"], ls="-" if state == "lrs" else "--",
                          lw=1.0, label=f"{plain(state)}, lognormal")  # fmt: skip
        log_scale(axes, "x")
        axes.set_xlabel("R (Ω)")
        axes.set_ylabel("curves below R (%)")
        axes.set_ylim(0, 100)
        legend_above(axes)
    return drawing


def conductance_figure(tree: xr.DataTree) -> Figure | None:
    """Draw the measured conductances per state and read voltage beside the range G_off to G_on."""
    if "conductance" not in tree.children or "g_quantile" not in tree["conductance"]:
        return None
    node = tree["conductance"].to_dataset()
    voltages = node["read_voltage"].values
    states = [str(state) for state in node["state"].values]
    with figure() as drawing:
        axes = drawing.add_subplot()
        for offset, state in enumerate(states):
            part = node["g_quantile"].sel(state=state)
            x = np.arange(len(voltages)) + 0.28 * (offset - (len(states) - 1) / 2)
            colour = colour_of(state)
            axes.vlines(x, part.isel(quantile=0), part.isel(quantile=-1), color=colour, lw=0.7)
            axes.vlines(x, part.sel(quantile=0.05), part.sel(quantile=0.95), color=colour, lw=3.0, alpha=0.5)
            axes.plot(x, part.sel(quantile=0.5), MARKERS.get(state, "D"), color=colour, label=plain(state))
        _range_lines(axes, node, horizontal=True)
        axes.set_xticks(np.arange(len(voltages)), [f"{v:.2g}" for v in voltages])
        log_scale(axes, "y")
        axes.set_xlabel("read voltage (V)")
        axes.set_ylabel("conductance (S)")
        legend_above(axes)
    return drawing


def _range_lines(axes: Axes, node: xr.Dataset, *, horizontal: bool) -> None:
    line, span = (axes.axhline, axes.axhspan) if horizontal else (axes.axvline, axes.axvspan)
    for key, label in (("g_off", "G$_{off}$"), ("g_on", "G$_{on}$")):
        low, high = characteristics.bounds(node, f"{key}_bound")
        if math.isfinite(low) and math.isfinite(high):
            span(low, high, color=COLOURS[key], alpha=0.12, lw=0)
        style = "--" if key == "g_off" else "-"
        line(float(node[key]), color=COLOURS[key], lw=0.9, ls=style, label=label)


def programming_figure(tree: xr.DataTree) -> Figure | None:
    """Draw sigma of ln R against R, total and its parts, with standard errors."""
    if "programming" not in tree.children:
        return None
    node = tree["programming"].to_dataset()
    node = node.isel(state=np.argsort(node["r_median"].values, kind="stable"))
    with figure() as drawing:
        axes = drawing.add_subplot()
        parts = (("sigma", "total", "o"), ("sigma_d2d", "d2d", "^"), ("sigma_c2c", "c2c", "v"))
        for shift, (key, name, marker) in enumerate(parts):
            value = node[key].values
            if not np.isfinite(value).any():
                continue
            error = node[f"{key}_stderr"].values if f"{key}_stderr" in node else np.zeros_like(value)
            axes.errorbar(
                node["r_median"].values * 1.06 ** (shift - 1), value, np.nan_to_num(error), color=COLOURS[name],
                marker=marker, ms=4, lw=1.0, ls="-" if name == "total" else ":", capsize=2,
                label={"total": "total", "d2d": "device to device", "c2c": "cycle to cycle"}[name],
            )  # fmt: skip
        axes.margins(x=0.2)
        log_scale(axes, "x")
        axes.set_ylim(bottom=0)
        axes.set_xlabel("median R (Ω)")
        axes.set_ylabel("σ of ln R")
        legend_above(axes)
    return drawing


def stuck_figure(tree: xr.DataTree) -> Figure | None:
    """Draw the density from which stuck conductances are drawn, the measured ones, and G_off and G_on."""
    if "stuck" not in tree.children or not tree["stuck"].sizes.get("stuck_device"):
        return None
    node = tree["stuck"].to_dataset()
    values, width = node["conductance"].values, float(node["bandwidth"])
    with figure(height=52.0) as drawing:
        axes = drawing.add_subplot()
        top = float(values.max()) + 4 * width
        if "conductance" in tree.children:
            part = tree["conductance"].to_dataset()
            _range_lines(axes, part, horizontal=False)
            top = max(top, 1.1 * float(part["g_on"]))
        if width > 0:
            g = np.linspace(0.0, top, 400)
            axes.plot(g, kernel_density(g, values, width), color=COLOURS["stuck"], lw=1.0, label="density")
            if len(values) > 1:
                low, high = density_band(g, values, width)
                axes.fill_between(g, low, high, color=COLOURS["stuck"], alpha=0.25, lw=0, label="95 % interval")
        ticks = np.stack([values, values, np.full_like(values, np.nan)], axis=1).ravel()
        height = np.tile([0.0, 0.06, np.nan], len(values))
        axes.plot(ticks, height, color=COLOURS["stuck"], lw=0.8, transform=axes.get_xaxis_transform(),
                  label="stuck devices")  # fmt: skip
        axes.set_ylim(bottom=0)
        axes.set_xlim(0, 1.05 * top)
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        axes.set_xlabel("conductance (S)")
        axes.set_ylabel("density (1/S)" if width > 0 else "")
        axes.yaxis.set_major_formatter(EngFormatter(sep=""))
        axes.yaxis.set_visible(width > 0)
        legend_above(axes)
    return drawing


def kernel_density(g: np.ndarray, centres: np.ndarray, width: float) -> np.ndarray:
    """Return the density [1/S] of a mixture of normals at `centres`, truncated to G > 0 by reflection."""
    z = (g[:, None] - centres) / width
    mirrored = (g[:, None] + centres) / width
    kernels = np.exp(-0.5 * z**2) + np.exp(-0.5 * mirrored**2)
    return kernels.sum(axis=1) / (len(centres) * width * math.sqrt(2 * math.pi))


def density_band(g: np.ndarray, centres: np.ndarray, width: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the pointwise 95 % interval of the density [1/S] that `kernel_density` estimates.

    The devices' weights are drawn from the flat Dirichlet distribution (the Bayesian bootstrap of D. B. Rubin, The
    Annals of Statistics 9, 130 (1981)); the width of the kernels stays as it is.
    """
    weights = np.random.default_rng(SEED).dirichlet(np.ones(len(centres)), N_DRAWS)  # (draw, device)
    z, mirrored = (g - centres[:, None]) / width, (g + centres[:, None]) / width
    kernels = (np.exp(-0.5 * z**2) + np.exp(-0.5 * mirrored**2)) / (width * math.sqrt(2 * math.pi))  # (device, g)
    low, high = np.quantile(weights @ kernels, (0.025, 0.975), axis=0)
    return low, high


def _superscript(unit: str) -> str:
    return re.sub(r"\^(-?[\d/]+)", r"$^{\1}$", unit)


IV_CAPTION = (
    "Measured curves (thin lines), the law at the median resistance of each state (black), and the band that holds "
    "90 % of the devices drawn from the model. The dotted line is the end of the voltages that the law was "
    "fitted to."
)
LAW_CAPTION = (
    "The law at the median resistance of each state (black), and the band that holds 90 % of the devices drawn from "
    "the model, which holds no measured curves. The dotted line is the end of the voltages that the law was fitted to."
)
_DEVICE_FIGURES: tuple[tuple[str, str, Callable[[xr.DataTree], Figure | None]], ...] = (
    (
        "iv",
        IV_CAPTION,
        iv_figure,
    ),
    (
        "resistance",
        "Distribution of the resistance per state: points as measured (or as the model draws it, where the "
        "source gives no curves), lines the lognormal of the same mean and spread.",
        resistance_figure,
    ),
    (
        "conductance",
        "Conductances as measured, stuck devices included: range (thin), 5 to 95 % (thick) and median (marker) per "
        "read voltage, with G_off and G_on and their 95 % intervals.",
        conductance_figure,
    ),
    (
        "programming",
        "Spread of ln R after programming, with standard errors.",
        programming_figure,
    ),
    (
        "stuck",
        "Conductances of the stuck devices (ticks), the density from which the model draws them with its 95 % interval "
        "(shaded; of the sample of devices, at the model's width of the kernels), and the conductance range of the "
        "working devices.",
        stuck_figure,
    ),
)
