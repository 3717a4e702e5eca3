"""Activation: how the conductance of a state changes with temperature."""

import math
import sys
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from calib.characteristics.base import Estimate, Section, bounds, scalar
from calib.formatting import format_estimate, format_interval, format_number, plural

if TYPE_CHECKING:
    from matplotlib.figure import Figure

name = "activation"
node = "activation"
_BOLTZMANN_EV = 8.617333262e-5  # eV/K, exact quotient of the SI constants to ten digits


def sections(node: xr.Dataset, tree: xr.DataTree) -> list[Section]:
    """Return the activation energy per state."""
    rows = []
    for state in map(str, node["state"].values):
        here = node.sel(state=state)
        spread, p = float(here["activation_energy_std"]), float(here["linearity_p"])
        rows.append((
            state, f"{format_estimate(float(here['activation_energy']), float(here['activation_energy_stderr']))} eV",
            f"{format_interval(*bounds(here, 'activation_energy_bound'))} eV",
            f"{format_number(spread)} eV" if math.isfinite(spread) else "", _linearity(p), _sample(here),
        ))  # fmt: skip
    columns = ("state", "activation energy", "95 % interval", "spread over devices", "straight line", "sample")
    low, high = float(node["temperature"].min()), float(node["temperature"].max())
    notes = [f"{low:.0f} to {high:.0f} K; {node.attrs['statement']}", str(node.attrs["method"])]
    return [Section("Activation", columns, tuple(rows), tuple(notes))]


def _linearity(p: float) -> str:
    if not math.isfinite(p):
        return "not tested"
    return f"p = {p:.2g}" if p >= 1e-4 else "p < 0.0001"


def _sample(here: xr.Dataset) -> str:
    values, devices = plural(int(here["n_values"]), "value"), plural(int(here["n_devices"]), "device")
    return f"{values} of {devices} at {plural(int(here['n_temperatures']), 'temperature')}"


def estimates(node: xr.Dataset, tree: xr.DataTree) -> list[Estimate]:
    """Return the activation energy of every state."""
    found = []
    low_t, high_t = float(node["temperature"].min()), float(node["temperature"].max())
    for state in map(str, node["state"].values):
        here = node.sel(state=state)
        low, high = bounds(here, "activation_energy_bound")
        found.append(
            Estimate(
                "activation", state, "activation_energy", "activation energy", float(here["activation_energy"]), "eV",
                stderr=scalar(here, "activation_energy_stderr"), low=low, high=high,
                interval="95 % confidence" if math.isfinite(low) else "", n=_sample(here),
                method=str(node.attrs["method"]), validity=f"{low_t:.0f} to {high_t:.0f} K",
            )
        )  # fmt: skip
    return found


def key_numbers(node: xr.Dataset, tree: xr.DataTree) -> list[tuple[str, str, str]]:
    """Return the activation energies."""
    values = " / ".join(format_number(value) for value in node["activation_energy"].values)
    return [("Activation energy", f"{values} eV", " / ".join(map(str, node["state"].values)))]


def figures(node: xr.Dataset, tree: xr.DataTree) -> "list[tuple[str, str, Figure]]":
    """Draw the conductances against 1000 / T with the fitted lines."""
    from calib.figure_style import COLOURS, MARKERS, colour_of, figure, legend_above, log_scale, plain

    temperature = node["temperature"].values
    with figure() as drawing:
        axes = drawing.add_subplot()
        grid = np.linspace(temperature.min(), temperature.max(), 40)
        for state in map(str, node["state"].values):
            here = node.sel(state=state)
            axes.plot(1000 / temperature, here["g_median"].values, MARKERS.get(state, "D"), color=colour_of(state),
                      label=f"{plain(state)}, measured")  # fmt: skip
            line = np.exp(float(here["ln_g_prefactor"]) - float(here["activation_energy"]) / (_BOLTZMANN_EV * grid))
            axes.plot(1000 / grid, line, color=COLOURS["fitted"], lw=1.0, ls="-" if state == "lrs" else "--",
                      label=f"{plain(state)}, line")  # fmt: skip
        log_scale(axes, "y")
        axes.set_xlabel("1000 / T (1/K)")
        axes.set_ylabel("conductance (S)")
        legend_above(axes)
    caption = (
        "Median conductance of each state against the inverse temperature, with the line of its activation energy."
    )
    return [("activation", caption, drawing)]


def resample(node: xr.Dataset, generator: np.random.Generator) -> xr.Dataset:
    """Draw the activation energies within their standard errors; the conductance at the mean 1/T stays."""
    drawn = node.copy(deep=True)
    stderr = np.nan_to_num(node["activation_energy_stderr"].values, nan=0.0)
    change = stderr * generator.standard_normal(len(stderr))
    weights = node["n_at_temperature"].values
    x = 1 / (_BOLTZMANN_EV * node["temperature"].values)
    centre = (weights * x).sum(1) / np.maximum(weights.sum(1), 1)
    drawn["activation_energy"] = node["activation_energy"] + change
    drawn["ln_g_prefactor"] = node["ln_g_prefactor"] + change * centre
    return drawn.assign({key: drawn[key].assign_attrs(node[key].attrs) for key in drawn.data_vars})


member = sys.modules[__name__]
