"""Figure of robustness: accuracy, and the yield of chips, against the strength of an attack or against time."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calib.figure_style import COLOURS, COLUMN, CYCLE, DOUBLE, figure, legend_above, log_scale
from calib.robustness import yield_above

_KNOWN = {"chip": "knows the chip", "device": "knows the device", "ideal": "knows the weights"}
_SHORT = {"noise": "size of the noise"}


def robustness_figure(result: xr.Dataset, threshold: float | None = None) -> Figure:
    """Draw the median accuracy of chips with the range of 5 to 95 %, and the yield above a threshold.

    Against time, which starts at 0, the axis is logarithmic and the accuracy as programmed is a dotted line.
    """
    panels = 1 if threshold is None else 2
    with figure(COLUMN if panels == 1 else DOUBLE, 66) as drawing:
        axes = drawing.subplots(1, panels, squeeze=False)[0]
        _accuracy(axes[0], result)
        if threshold is not None:
            _yield(axes[1], result, threshold)
        for part in axes:
            if result.attrs["attack"] == "ageing" and (result["strength"].values > 0).sum() > 1:
                log_scale(part, "x")
            unit = result["strength"].attrs["units"]
            label = _SHORT.get(result.attrs["attack"], str(result["strength"].attrs["long_name"]))
            part.set_xlabel(label if unit == "1" else f"{label} ({unit})")
            part.set_ylim(0, 104)
        if result.attrs["attack"] == "ageing":
            axes[0].set_ylim(100 * float(result["accuracy"].min()) // 10 * 10, 101)
        legend_above(axes[0])
    return drawing


def _shown(result: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Return the strengths to draw, and which they are."""
    strength = result["strength"].values
    keep = strength > 0 if result.attrs["attack"] == "ageing" and (strength > 0).any() else strength >= 0
    return strength[keep], keep


def _colour(curve: str, index: int) -> str:
    return COLOURS["ideal"] if curve == "ideal" else CYCLE[index % len(CYCLE)]


def _accuracy(axes: Axes, result: xr.Dataset) -> None:
    x, keep = _shown(result)
    for index, curve in enumerate(map(str, result["curve"].values)):
        values = 100 * result["accuracy"].sel(curve=curve).transpose("strength", ...).values.reshape(len(keep), -1)
        low, middle, high = np.quantile(values, (0.05, 0.5, 0.95), axis=1)
        colour = _colour(curve, index)
        axes.fill_between(x, low[keep], high[keep], color=colour, alpha=0.18, lw=0)
        axes.plot(x, middle[keep], "o-", color=colour, label=_KNOWN.get(curve, curve))
        if index == 0 and not keep.all():
            axes.axhline(middle[~keep][0], color=COLOURS["fitted"], ls=":", lw=0.8, label="as programmed")
    axes.set_ylabel("accuracy (%)")


def _yield(axes: Axes, result: xr.Dataset, threshold: float) -> None:
    found = yield_above(result["accuracy"], threshold)
    x, keep = _shown(result)
    for index, curve in enumerate(map(str, result["curve"].values)):
        row = found.sel(curve=curve)
        colour = _colour(curve, index)
        share, low, high = (100 * row[key].values[keep] for key in ("yield", "low", "high"))
        error = np.maximum(np.stack([share - low, high - share]), 0.0)
        axes.errorbar(x, share, error, fmt="o-", color=colour, lw=1.0, capsize=2, label=_KNOWN.get(curve, curve))
    axes.set_ylabel(f"chips of {100 * threshold:g} % or more (%)")
