"""Figure of a split variance: how much chips, networks and the limited knowledge of the device spread the results."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from calib.characteristics import MEANINGS
from calib.figure_style import COLOURS, DOUBLE, figure, plain

_ROW = 7.0
_LABELS = {
    "chip": "chip to chip",
    "network": "network to network",
    "model": "not known about the device",
    "interaction": "networks x device models",
}
_COLOURS = {
    "chip": COLOURS["fitted"],
    "network": COLOURS["c2c"],
    "model": COLOURS["lrs"],
    "interaction": COLOURS["all"],
}


def variance_figure(found: xr.Dataset) -> Figure:
    """Draw the standard deviation of each component of error and energy, with its 95 % interval.

    Where the result says what each characteristic of the device model leaves open, that stands below.
    """
    components = [str(name) for name in found["component"].values]
    parts = [str(name) for name in found["characteristic"].values] if "characteristic" in found.dims else []
    labels = [_LABELS.get(name, name) for name in components] + [
        f"{MEANINGS.get(name, name).partition(':')[0]} alone" for name in parts
    ]
    colours = [_COLOURS.get(name, COLOURS["all"]) for name in components] + [_COLOURS["model"]] * len(parts)
    with figure(DOUBLE, 20 + _ROW * len(labels)) as drawing:
        panels = drawing.subplots(1, 2, sharey=True)
        for axes, quantity in zip(panels, ("error", "energy_per_inference"), strict=True):
            row = found.sel(quantity=quantity)
            rows = [[row[key].values for key in ("variance", "variance_low", "variance_high")]]
            if parts:
                names = ("characteristic_variance", "characteristic_variance_low", "characteristic_variance_high")
                rows.append([row[key].values for key in names])
            spread = np.sqrt(np.concatenate(rows, axis=1))
            _points(axes, spread * (100.0 if quantity == "error" else 1.0), colours)
        panels[0].set_yticks(range(len(labels)), [plain(label) for label in labels])
        panels[0].set_ylim(len(labels) - 0.4, -0.6)
        panels[0].set_xlabel("spread of the error (points)")
        panels[1].set_xlabel("spread of the energy per inference (J)")
        panels[1].xaxis.set_major_formatter(EngFormatter(sep=""))
    return drawing


def _points(axes: Axes, spread: np.ndarray, colours: list[str]) -> None:
    """Draw values, lower and upper ends (3, row); an end beyond four times the largest value leaves the axes."""
    value, low, high = spread
    for position, colour in enumerate(colours):
        if np.isfinite(value[position]):
            axes.hlines(position, low[position], high[position], color=colour, lw=1.4)
            axes.plot(value[position], position, "o", color=colour, ms=4.5)
    known = value[np.isfinite(value)]
    top = np.nanmax(high) if np.isfinite(high).any() else 1.0
    largest = min(float(top), 4 * float(known.max())) if known.size and known.max() > 0 else float(top)
    axes.set_xlim(0, 1.05 * largest if largest > 0 else 1)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
