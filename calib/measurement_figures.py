"""A small picture of a Measurement: what was read, one panel per kind of experiment."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from calib.errors import OptionError
from calib.figure_style import _STYLE, COLOURS, CYCLE, figure, legend_above, log_scale, plain, to_svg
from calib.files import atomic_write, write_text
from calib.measurement import Measurement

_PANEL = 58.0  # mm
_MOST_LINES = 60  # of one colour
_MOST_RANGES = 8
_LOG_FROM = 30.0  # ratio of largest to smallest from which an axis is logarithmic
_DPI = 200
_POLARITIES = {"potentiation": "lrs", "depression": "hrs", "positive": "lrs", "negative": "hrs"}
_STATES = {"lrs": "LRS", "hrs": "HRS", "": "no state"}


def save_figure(tree: Measurement, path: str | Path) -> None:
    """Draw a Measurement and write it as .png or .svg.

    Raises
    ------
    OptionError
        When the suffix is another, or nothing can be drawn.
    """
    path = Path(path)
    drawing = measurement_figure(tree)
    if drawing is None:
        raise OptionError("--plot: what was read holds nothing that can be drawn; it has extra columns only")
    if path.suffix.lower() == ".svg":
        write_text(path, to_svg(drawing, path.name, "What was read from the measurement files"))
    elif path.suffix.lower() == ".png":
        with atomic_write(path) as temporary, rc_context(_STYLE):
            drawing.savefig(temporary, format="png", dpi=_DPI)
    else:
        raise OptionError(f"--plot '{path}': expected the name of a .png or .svg file")


def measurement_figure(tree: Measurement) -> Figure | None:
    """Return the picture, one column wide: a panel for each of iv, reads, writes and pulses that there is."""
    panels = [name for name in _PANELS if name in tree.children]
    if not panels:
        return None
    with figure(height=_PANEL * len(panels)) as drawing:
        for axes, name in zip(np.atleast_1d(drawing.subplots(len(panels))), panels, strict=True):
            _PANELS[name](axes, tree[name].to_dataset())
            legend_above(axes)
    return drawing


def _sweeps(axes: Axes, node: xr.Dataset) -> None:
    voltage, current, states = node["voltage"].values, np.abs(node["current"].values), node["state"].values
    for index, state in enumerate(_in_order(states)):
        colour = COLOURS.get(state or "all") or CYCLE[index % len(CYCLE)]
        label: str | None = _STATES.get(state, f"state {plain(state)}")
        for row in _some(np.flatnonzero(states == state)):
            shown = np.isfinite(voltage[row]) & (current[row] > 0)
            mark = {"marker": "o", "ms": 1.5} if shown.sum() == 1 else {}
            axes.plot(voltage[row][shown], current[row][shown], color=colour, lw=0.6, alpha=0.6, label=label, **mark)
            label = None
    log_scale(axes, "y")
    axes.set_xlabel("V (V)")
    axes.set_ylabel("|I| (A)")


def _reads(axes: Axes, node: xr.Dataset) -> None:
    conductance = node["conductance"].values
    if conductance.shape[1] == 1 or np.isfinite(conductance).sum(axis=1).max() == 1:
        single = np.nanmax(np.where(np.isfinite(conductance), conductance, -np.inf), axis=1)
        if {"row", "column"} <= set(node.coords) and len(set(node["state"].values.tolist())) == 1 and len(single) > 3:
            _map(axes, node, single)
        else:
            _distributions(axes, single, node["state"].values)
        return
    timed = "time" in node and np.isfinite(node["time"].values).any()
    x = node["time"].values if timed else np.broadcast_to(np.arange(1.0, conductance.shape[1] + 1), conductance.shape)
    keys = node["state"].values if any(node["state"].values) else node["level"].values
    found = _in_order(keys)
    named = len(found) <= _MOST_RANGES and any(found)
    for index, key in enumerate(found):
        colour = COLOURS.get(key) or (CYCLE[index % len(CYCLE)] if len(found) > 1 else COLOURS["all"])
        label = _STATES.get(key, f"level {plain(key)}") if named else None
        for row in _some(np.flatnonzero(keys == key), max(2, _MOST_LINES // len(found))):
            shown = np.isfinite(x[row]) & np.isfinite(conductance[row])
            order = np.argsort(x[row][shown], kind="stable")
            axes.plot(
                x[row][shown][order], conductance[row][shown][order], color=colour, lw=0.6, alpha=0.7, label=label
            )
            label = None
    _log_where_wide(axes, conductance, "y")
    axes.set_xlabel("time (s)" if timed else "read")
    axes.set_ylabel("conductance (S)")
    if timed and np.nanmin(x) > 1e8:
        axes.set_xlabel("time (s, as recorded)")


def _map(axes: Axes, node: xr.Dataset, conductance: NDArray[np.float64]) -> None:
    row, column = node["row"].values, node["column"].values
    grid = np.full((int(np.ptp(row)) + 1, int(np.ptp(column)) + 1), np.nan)
    if grid.size > 1 << 22:
        _distributions(axes, conductance, node["state"].values)
        return
    grid[row - row.min(), column - column.min()] = conductance
    extent = (column.min() - 0.5, column.max() + 0.5, row.max() + 0.5, row.min() - 0.5)
    image = axes.imshow(grid, extent=extent, aspect="auto", cmap="viridis", interpolation="nearest")
    axes.grid(visible=False)
    from matplotlib.ticker import EngFormatter

    bar = axes.get_figure().colorbar(image, ax=axes, format=EngFormatter(sep=""))  # type: ignore[union-attr]
    bar.set_label("conductance (S)")
    axes.set_xlabel("column")
    axes.set_ylabel("row")


def _distributions(axes: Axes, conductance: NDArray[np.float64], states: NDArray[Any]) -> None:
    positive = np.isfinite(conductance) & (conductance > 0)
    for index, state in enumerate(_in_order(states)):
        values = np.sort(conductance[positive & (states == state)])
        colour = COLOURS.get(state or "all") or CYCLE[index % len(CYCLE)]
        axes.plot(values, _percent(len(values)), color=colour, label=_STATES.get(state, plain(state)))
    _log_where_wide(axes, conductance[positive], "x")
    axes.set_xlabel("conductance (S)")
    axes.set_ylabel("devices below (%)")


def _writes(axes: Axes, node: xr.Dataset) -> None:
    low, high, achieved = (node[name].values for name in ("target_low", "target_high", "achieved"))
    ranges = np.unique(np.stack([low, high], axis=1), axis=0)
    ranges = ranges[~np.isnan(ranges).any(axis=1)]
    ok = np.isfinite(achieved) & (achieved > 0)
    if len(ranges) > _MOST_RANGES or not len(ranges):
        middle = np.where(np.isfinite(high), (low + high) / 2, low)
        chosen = _some(np.flatnonzero(ok & (middle > 0)), 4000)
        axes.plot(middle[chosen], achieved[chosen], ".", ms=1.5, color=COLOURS["all"], label="writes")
        _log_where_wide(axes, middle[chosen], "x")
        _log_where_wide(axes, achieved[chosen], "y")
        axes.set_xlabel("middle of the target range (S)")
        axes.set_ylabel("achieved (S)")
        return
    for index, (start, end) in enumerate(ranges):
        here = np.sort(achieved[ok & (low == start) & (high == end)])
        colour = CYCLE[index % len(CYCLE)]
        axes.plot(here, _percent(len(here)), color=colour)
    log_scale_of(axes, achieved[ok], "x")
    left, right = axes.get_xlim()
    for index, (start, end) in enumerate(ranges):
        label = "target ranges, shaded" if index == 0 else None
        axes.axvspan(max(start, left), min(end, right), color=CYCLE[index % len(CYCLE)], alpha=0.18, lw=0, label=label)
    axes.set_xlim(left, right)
    axes.set_xlabel("achieved conductance (S)")
    axes.set_ylabel("writes below (%)")


def _pulses(axes: Axes, node: xr.Dataset) -> None:
    readings = node["conductance"].values
    counts = np.isfinite(readings).sum(axis=2)
    mean = np.where(counts > 0, np.nansum(readings, axis=2) / np.maximum(counts, 1), np.nan)
    polarity = node["polarity"].values
    for index, key in enumerate(_in_order(polarity)):
        colour = COLOURS.get(_POLARITIES.get(key, key or "all")) or CYCLE[index % len(CYCLE)]
        label: str | None = plain(key) or None
        for row in _some(np.flatnonzero(polarity == key)):
            shown = np.isfinite(mean[row])
            number = np.flatnonzero(shown) + 1
            style = {"marker": "o", "ms": 2.0} if shown.sum() < 40 and len(polarity) <= 6 else {}
            axes.plot(number, mean[row][shown], color=colour, lw=0.7, alpha=0.6, label=label, **style)
            label = None
    normalised = node["conductance"].attrs["units"] == "1"
    _log_where_wide(axes, mean, "y")
    axes.set_xlabel("pulse")
    axes.set_ylabel("conductance (normalised)" if normalised else "conductance (S)")


def _log_where_wide(axes: Axes, values: NDArray[np.float64], direction: str) -> None:
    """Make an axis logarithmic where all values are positive and far apart; with prefixed labels else."""
    finite = values[np.isfinite(values)]
    if len(finite) and finite.min() > 0 and finite.max() > _LOG_FROM * finite.min():
        log_scale(axes, direction)
    elif len(finite) and np.abs(finite).max() < 0.01:
        from matplotlib.ticker import EngFormatter

        (axes.xaxis if direction == "x" else axes.yaxis).set_major_formatter(EngFormatter(sep=""))


def log_scale_of(axes: Axes, values: NDArray[np.float64], direction: str) -> None:
    """Make an axis logarithmic over its positive values."""
    if len(values) and values.max() > 0:
        log_scale(axes, direction)


def _percent(count: int) -> NDArray[np.float64]:
    return 100.0 * (np.arange(count) + 0.5) / max(count, 1)


def _some(rows: NDArray[np.int64], most: int = _MOST_LINES) -> NDArray[np.int64]:
    """Return at most so many rows, spread evenly."""
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).astype(np.int64)]


def _in_order(keys: NDArray[Any]) -> list[str]:
    return [str(key) for key in dict.fromkeys(keys.tolist())]


_PANELS: dict[str, Callable[[Axes, xr.Dataset], None]] = {
    "iv": _sweeps,
    "reads": _reads,
    "writes": _writes,
    "pulses": _pulses,
}
