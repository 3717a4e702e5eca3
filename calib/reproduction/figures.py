"""Figures of a reproduction: errors of all draws, efficiency against error, the matrix of trainings and set-ups."""

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from calib.figure_style import COLOURS, DOUBLE, figure, legend_above, log_scale, plain
from calib.reproduction.experiments import EXPERIMENTS, MATRIX_SETUPS, MATRIX_TRAININGS, SETUPS, TRAININGS, Cell
from calib.reproduction.published import PUBLISHED
from calib.reproduction.results import has, is_mnist, matrix

_WAYS = {"batch": (COLOURS["c2c"], "new devices every 100 images"), "chip": (COLOURS["aware"], "fixed chips")}
_ROW = 11.0
_HALF = {1: 0.26, 2: 0.17}
Drawn = tuple[str, str, Figure]


def figures(found: xr.Dataset, experiments: Sequence[str]) -> list[Drawn]:
    """Return the figures of some experiments as (key, caption, figure)."""
    drawn: list[Drawn] = []
    for name in experiments:
        cells = [cell for cell in EXPERIMENTS[name].cells if has(found, cell)]
        if name == "matrix" or not cells:
            continue
        caption = (
            f"{EXPERIMENTS[name].title}: error on the test images. Each point is a draw of devices of a trained "
            "network; the box holds the middle half, the whiskers 5 to 95 %, the line is the median"
        )
        if is_mnist(found) and any(cell in PUBLISHED for cell in cells):
            caption += "; the black mark is the published number or range"
        drawn.append((f"error-{name}", f"{caption}.", error_figure(found, cells)))
        if name == "siox":
            caption = (
                "Efficiency against error: each point is a draw of devices (devices only, no periphery)"
                + ("; black diamonds are published." if is_mnist(found) else ".")
            )  # fmt: skip
            drawn.append(("efficiency", caption, efficiency_figure(found, cells)))
    if "matrix" in experiments:
        for way in found["redraw"].values.astype(str):
            caption = f"Median error (%) of networks trained on the row and tested on the column, {_WAYS[way][1]}."
            drawn.append((f"matrix-{way}", caption, matrix_figure(found, way)))
    return drawn


def error_figure(found: xr.Dataset, cells: Sequence[Cell]) -> Figure:
    """Draw the errors of all draws as boxes, one row for each cell, one box for each way of drawing."""
    ways = found["redraw"].values.astype(str)
    half = _HALF[len(ways)]
    generator = np.random.default_rng(0)  # jitter
    with figure(DOUBLE, 24 + _ROW * len(cells)) as drawing:
        axes = drawing.add_subplot()
        for place, cell in enumerate(cells):
            for index, way in enumerate(ways):
                values = 100 * found["error"].sel(redraw=way, training=cell[0], setup=cell[1]).values.ravel()
                at = place + (index - (len(ways) - 1) / 2) * 2.3 * half
                _box(axes, at, half, values, _WAYS[way][0], generator, _WAYS[way][1] if place == 0 else "")
            if is_mnist(found) and cell in PUBLISHED:
                low, high = (100 * end for end in PUBLISHED[cell].error)
                axes.fill_betweenx([place - 0.45, place + 0.45], low - 0.03, high + 0.03, color="black", alpha=0.25)
                axes.vlines([low, high], place - 0.45, place + 0.45, color="black", lw=1.2)
        axes.set_yticks(range(len(cells)), [_label(cell) for cell in cells])
        axes.set_ylim(len(cells) - 0.4, -0.6)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("error (%)")
        axes.set_xlim(left=0)
        legend_above(axes)
    return drawing


def _box(
    axes: Axes, at: float, half: float, values: np.ndarray, colour: str, generator: np.random.Generator, label: str
) -> None:
    jitter = at + generator.uniform(-half, half, len(values))
    axes.plot(values, jitter, "o", color=colour, ms=2.0, alpha=0.55, mew=0, label=label or None)
    low, first, middle, third, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
    axes.fill_between([first, third], at - half, at + half, facecolor="none", edgecolor=COLOURS["fitted"], lw=0.7)
    axes.hlines([at, at], [low, third], [first, high], color=COLOURS["fitted"], lw=0.7)
    axes.vlines(middle, at - half, at + half, color=COLOURS["fitted"], lw=1.6)


def _label(cell: Cell) -> str:
    """Return a cell in words; what was trained on the set-up itself is named by its way of training alone."""
    training, setup = TRAININGS[cell[0]], SETUPS[cell[1]]
    own = training.setup == setup.name and not training.ideal
    return plain(f"{training.title.rpartition(', ')[2] if own else training.title}\non {setup.title}")


def efficiency_figure(found: xr.Dataset, cells: Sequence[Cell]) -> Figure:
    """Draw efficiency against error of every draw, of the last way of drawing."""
    way = str(found["redraw"].values[-1])
    colours = {"standard": COLOURS["ideal"], "low": COLOURS["lrs"], "low-l1": COLOURS["d2d"],
               "high": COLOURS["c2c"], "high-l1": COLOURS["hrs"]}  # fmt: skip
    markers = {"siox-low": "s", "siox-high": "o"}
    cells = [cell for cell in cells if cell[1] in markers]
    with figure(DOUBLE, 85) as drawing:
        axes = drawing.add_subplot()
        for cell in cells:
            part = found.sel(redraw=way, training=cell[0], setup=cell[1])
            axes.plot(
                100 * part["error"].values.ravel(), part["efficiency_tops_per_watt"].values.ravel(), markers[cell[1]],
                color=colours[cell[0]], ms=3, alpha=0.6, mew=0, label=_label(cell).replace("\n", " "),
            )  # fmt: skip
        if is_mnist(found):
            known = [(PUBLISHED[cell], cell) for cell in cells if cell in PUBLISHED]
            known = [(item.error, item.efficiency) for item, _ in known if item.efficiency is not None]
            axes.plot([50 * sum(error) for error, _ in known], [value for _, value in known], "D", color="black", ms=4,
                      mfc="none", label="published")  # fmt: skip
        axes.set_xlabel("error (%)")
        axes.set_ylabel("efficiency (TOPs/W)")
        axes.set_xlim(left=0)
        log_scale(axes, "y")
        axes.margins(y=0.08)
        legend_above(axes)
    return drawing


def matrix_figure(found: xr.Dataset, way: str) -> Figure:
    """Draw the median errors of all trainings on all set-ups as a heat map with numbers."""
    values = 100 * matrix(found, way, MATRIX_TRAININGS, MATRIX_SETUPS)
    trained_on = [MATRIX_SETUPS.index("ideal" if TRAININGS[n].ideal else TRAININGS[n].setup) for n in MATRIX_TRAININGS]
    with figure(DOUBLE, 40 + 6.5 * len(MATRIX_TRAININGS)) as drawing:
        axes = drawing.add_subplot()
        image = axes.imshow(np.log10(np.maximum(values, 0.1)), aspect="auto", cmap="cividis_r")
        middle = float(np.mean(image.get_clim()))
        for (line, column), value in np.ndenumerate(values):
            dark = np.log10(max(value, 0.1)) > middle
            axes.text(column, line, f"{value:.1f}", ha="center", va="center", fontsize=7,
                      color="white" if dark else "black",
                      fontweight="bold" if trained_on[line] == column else "normal")  # fmt: skip
        columns = [SETUPS[name].title.replace(", ", ",\n").replace(" (", "\n(") for name in MATRIX_SETUPS]
        axes.set_xticks(range(len(MATRIX_SETUPS)), [plain(title) for title in columns], rotation=40, ha="right")
        axes.set_yticks(range(len(MATRIX_TRAININGS)), [plain(TRAININGS[name].title) for name in MATRIX_TRAININGS])
        axes.grid(visible=False)
        axes.set_title("median error (%): trained on the row, tested on the column; bold: both the same", loc="left")
    return drawing
