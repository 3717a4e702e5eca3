"""Figures of results: error and energy per chip, power per layer, what is trained and tested on what, training curves.

Every run has one colour in all of them; networks trained as if devices were ideal have the colour of 'ideal'.
"""

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from calib.figure_style import COLOURS, CYCLE, DOUBLE, figure, legend_above, log_scale, plain
from calib.outcomes import Outcome

_ROW = 8.5
_LONGEST_LABEL = 30
_RUN_COLOURS = (COLOURS["aware"], *(colour for colour in CYCLE if colour not in (COLOURS["aware"], COLOURS["ideal"])))
MATRIX_CAPTION = (
    "Median error of networks (rows) on devices (columns), in per cent; darker is worse, the frame is the lowest on "
    "each device."
)
TRAINING_CAPTION = (
    "Training: error on the validation images, median over repeated draws of devices and over networks (line with "
    "points) and the range of all draws (band); error on the training images (dotted)."
)
_SHADES = ("#1A1A1A", "#7F7F7F", "#C4C4C4", "#0072B2", "#56B4E9", "#009E73")


def run_colours(found: Sequence[Outcome]) -> dict[str, str]:
    """Return one colour for each run, by label."""
    labels = dict.fromkeys(item.label for item in found)
    ideal = {item.label for item in found if item.ideal}
    return colours_of(labels, ideal)


def colours_of(labels: Collection[str], ideal: Collection[str] = ()) -> dict[str, str]:
    """Return one colour for each label; those that are ideal have the colour of 'ideal'."""
    others = [label for label in labels if label not in ideal]
    colours = {label: _RUN_COLOURS[index % len(_RUN_COLOURS)] for index, label in enumerate(others)}
    return {label: colours.get(label, COLOURS["ideal"]) for label in labels}


def distribution_figures(found: Sequence[Outcome]) -> list[tuple[str, str, Figure]]:
    """Return the figures of error, energy and power as (key, caption, figure)."""
    return [
        (
            "error",
            "Error on the test images. Each point is one chip (one network with one draw of its devices); the box "
            "holds the middle half of the chips, the whiskers 5 to 95 %, the line is the median.",
            error_figure(found),
        ),
        (
            "energy",
            "Energy of one inference, devices only: mean over the test images for each chip, as above.",
            energy_figure(found),
        ),
        ("power", "Power dissipated in the devices of each layer, mean over chips and inputs.", power_figure(found)),
    ]


def error_figure(found: Sequence[Outcome]) -> Figure:
    """Draw the error of every chip, one row for each run and device."""
    return _per_chip(found, lambda item: 100 * item.error, "error (%)")


def energy_figure(found: Sequence[Outcome]) -> Figure:
    """Draw the energy per inference of every chip."""
    return _per_chip(found, lambda item: item.energy, "energy per inference (J)", engineering=True)


def _per_chip(
    found: Sequence[Outcome], values_of: Callable[[Outcome], np.ndarray], label: str, *, engineering: bool = False
) -> Figure:
    colours = run_colours(found)
    generator = np.random.default_rng(0)  # jitter
    with figure(DOUBLE, 20 + _ROW * len(found)) as drawing:
        axes = drawing.add_subplot()
        largest, smallest = 0.0, np.inf
        for row, item in enumerate(found):
            values = values_of(item).ravel()
            largest, smallest = max(largest, float(values.max())), min(smallest, float(values.min()))
            _strip(axes, row, values, colours[item.label], generator)
        _rows(axes, found)
        axes.set_xlabel(label)
        if engineering and smallest > 0 and largest > 20 * smallest:
            log_scale(axes, "x")
        else:
            axes.set_xlim(left=0)
            if engineering:
                axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    return drawing


def _strip(axes: Axes, row: int, values: np.ndarray, colour: str, generator: np.random.Generator) -> None:
    height = 0.28
    jitter = row + generator.uniform(-height, height, len(values))
    axes.plot(values, jitter, "o", color=colour, ms=2.2, alpha=0.5, mew=0)
    if len(values) < 3:
        return
    low, first, middle, third, high = np.quantile(values, (0.05, 0.25, 0.5, 0.75, 0.95))
    axes.fill_between([first, third], row - height, row + height, facecolor="none", edgecolor=COLOURS["fitted"], lw=0.7)
    axes.hlines([row, row], [low, third], [first, high], color=COLOURS["fitted"], lw=0.7)
    axes.vlines(middle, row - height, row + height, color=COLOURS["fitted"], lw=1.6)


def _rows(axes: Axes, found: Sequence[Outcome]) -> None:
    axes.set_yticks(range(len(found)), [row_label(item) for item in found])
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)


def row_label(item: Outcome) -> str:
    """Return 'run on device', shortened where it is long."""
    parts = (_short(item.label), _short(item.device))
    return plain(f"{parts[0]}\non {parts[1]}")


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL - 1]}…"


def power_figure(found: Sequence[Outcome]) -> Figure:
    """Draw the mean power of each layer, stacked."""
    layers = max(item.power.shape[-1] for item in found)
    with figure(DOUBLE, 26 + _ROW * len(found)) as drawing:
        axes = drawing.add_subplot()
        left = np.zeros(len(found))
        for layer in range(layers):
            watts = np.array([
                item.power[..., layer].mean() if layer < item.power.shape[-1] else 0.0 for item in found
            ])  # fmt: skip
            axes.barh(range(len(found)), watts, 0.6, left=left, color=_SHADES[layer % len(_SHADES)],
                      label=f"layer {layer + 1}")  # fmt: skip
            left += watts
        _rows(axes, found)
        axes.set_xlabel("power (W)")
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
        legend_above(axes)
    return drawing


def matrix_figure(found: Sequence[Outcome]) -> Figure:
    """Draw the median error of every run on every device as a table of shades; white where nothing was evaluated."""
    labels, devices = (list(dict.fromkeys(each)) for each in zip(*((i.label, i.device) for i in found), strict=True))
    error = np.full((len(labels), len(devices)), np.nan)
    for item in found:
        error[labels.index(item.label), devices.index(item.device)] = 100 * np.median(item.error)
    with figure(DOUBLE, 26 + _ROW * len(labels)) as drawing:
        axes = drawing.add_subplot()
        shown = np.ma.masked_invalid(error)
        axes.pcolormesh(
            np.arange(len(devices) + 1) - 0.5, np.arange(len(labels) + 1) - 0.5, shown, cmap="Blues", vmin=0,
            vmax=float(shown.max()) * 1.25 or 1,
        )  # fmt: skip
        axes.invert_yaxis()
        for (row, column), value in np.ndenumerate(error):
            if np.isfinite(value):
                colour = "#FFFFFF" if value > 0.7 * float(shown.max()) else COLOURS["fitted"]
                axes.text(column, row, f"{value:.1f} %", ha="center", va="center", color=colour)
        for column in range(len(devices)):
            x = np.array([-0.5, 0.5, 0.5, -0.5, -0.5]) * 0.95 + column
            y = np.array([-0.5, -0.5, 0.5, 0.5, -0.5]) * 0.86 + int(np.nanargmin(error[:, column]))
            axes.plot(x, y, color="#FFFFFF", lw=3.2)
            axes.plot(x, y, color=COLOURS["hrs"], lw=1.6)
        axes.set_xticks(range(len(devices)), [plain(_short(device)) for device in devices])
        axes.set_yticks(range(len(labels)), [plain(_short(label)) for label in labels])
        axes.set_xlabel("tested on")
        axes.set_ylabel("networks of")
        axes.grid(visible=False)
        axes.tick_params(length=0)
    return drawing


def training_figure(found: Sequence[Outcome]) -> Figure | None:
    """Draw validation and training error against the epoch, one colour for each run; None without a history."""
    return curves_figure({item.label: item.history for item in found}, run_colours(found))


def curves_figure(histories: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, str]) -> Figure | None:
    """Draw validation and training error of runs against the epoch; None where no run has a history.

    Parameters
    ----------
    histories : of each run, column -> (network, epoch).
    colours : of the runs.
    """
    known = {label: history for label, history in histories.items() if "validation_error_median" in history}
    if not known:
        return None
    with figure(DOUBLE, 70) as drawing:
        axes = drawing.add_subplot()
        for label, history in known.items():
            _curves(axes, history, colours[label], label)
        axes.set_xlabel("epoch")
        axes.set_ylabel("error (%)")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_above(axes)
    return drawing


def _curves(axes: Axes, history: Mapping[str, np.ndarray], colour: str, label: str) -> None:
    median = history["validation_error_median"]
    checked = np.isfinite(median).any(axis=0)
    epoch = np.arange(1, median.shape[1] + 1)
    if checked.any():
        low, high = history["validation_error_low"], history["validation_error_high"]
        axes.fill_between(
            epoch[checked], 100 * np.nanmin(low[:, checked], axis=0), 100 * np.nanmax(high[:, checked], axis=0),
            color=colour, alpha=0.18, lw=0,
        )  # fmt: skip
        line = 100 * np.nanmedian(median[:, checked], axis=0)
        axes.plot(epoch[checked], line, "o-", color=colour, ms=3, label=plain(_short(label)))
    train = history.get("train_error")
    if train is not None and np.isfinite(train).any():
        known = np.isfinite(train).any(axis=0)
        axes.plot(epoch[known], 100 * np.nanmedian(train[:, known], axis=0), ":", color=colour, lw=1.0)
