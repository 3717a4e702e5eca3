"""Figures of results: error and energy per chip, power per layer, training curves.

Every run has one colour in all of them; networks trained as if devices were ideal have the colour of 'ideal'.
"""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, MaxNLocator

from calib.figure_style import COLOURS, CYCLE, DOUBLE, figure, legend_above, log_scale, plain
from calib.outcomes import Outcome

_ROW = 8.5
_LONGEST_LABEL = 30
_RUN_COLOURS = (COLOURS["aware"], *(colour for colour in CYCLE if colour not in (COLOURS["aware"], COLOURS["ideal"])))
_SHADES = ("#1A1A1A", "#7F7F7F", "#C4C4C4", "#0072B2", "#56B4E9", "#009E73")


def run_colours(found: Sequence[Outcome]) -> dict[str, str]:
    """Return one colour for each run, by label."""
    labels = dict.fromkeys(item.label for item in found)
    ideal = {item.label for item in found if item.ideal}
    others = [label for label in labels if label not in ideal]
    colours = {label: _RUN_COLOURS[index % len(_RUN_COLOURS)] for index, label in enumerate(others)}
    return {label: COLOURS["ideal"] if label in ideal else colours[label] for label in labels}


def result_figures(found: Sequence[Outcome]) -> list[tuple[str, str, Figure]]:
    """Return all figures of some outcomes as (key, caption, figure)."""
    drawn = [
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
    training = training_figure(found)
    if training is not None:
        caption = (
            "Training: error on the validation images, median over repeated draws of devices and over networks (line "
            "with points) and the range of all draws (band); error on the training images (dotted)."
        )
        drawn.append(("training", caption, training))
    return drawn


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


def training_figure(found: Sequence[Outcome]) -> Figure | None:
    """Draw validation and training error against the epoch, one colour for each run; None without a history."""
    runs = {item.label: item for item in reversed(found)}
    runs = {label: runs[label] for label in dict.fromkeys(item.label for item in found)}
    if not all("validation_error_median" in item.history for item in runs.values()):
        return None
    colours = run_colours(found)
    with figure(DOUBLE, 70) as drawing:
        axes = drawing.add_subplot()
        for label, item in runs.items():
            _curves(axes, item, colours[label], label)
        axes.set_xlabel("epoch")
        axes.set_ylabel("error (%)")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        legend_above(axes)
    return drawing


def _curves(axes: Axes, item: Outcome, colour: str, label: str) -> None:
    median = item.history["validation_error_median"]
    checked = np.isfinite(median).any(axis=0)
    epoch = np.arange(1, median.shape[1] + 1)
    if checked.any():
        low, high = item.history["validation_error_low"], item.history["validation_error_high"]
        axes.fill_between(
            epoch[checked], 100 * np.nanmin(low[:, checked], axis=0), 100 * np.nanmax(high[:, checked], axis=0),
            color=colour, alpha=0.18, lw=0,
        )  # fmt: skip
        line = 100 * np.nanmedian(median[:, checked], axis=0)
        axes.plot(epoch[checked], line, "o-", color=colour, ms=3, label=plain(_short(label)))
    train = item.history.get("train_error")
    if train is not None and np.isfinite(train).any():
        known = np.isfinite(train).any(axis=0)
        axes.plot(epoch[known], 100 * np.nanmedian(train[:, known], axis=0), ":", color=colour, lw=1.0)
