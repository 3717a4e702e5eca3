"""Chapters of a report on evaluations: error and energy, training curves, and who does what on which device."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from calib.formatting import UNKNOWN, format_interval, format_number, format_quantity, plural
from calib.outcomes import Outcome, chip_range, median_interval, reference_of
from calib.report_parts import PERCENT, Chapter, Part, Table, joined

SUMMARY_COLUMNS = (
    "networks", "trained on", "evaluated on", "median error", "95 % interval of the median", "5 to 95 % of chips",
    "energy per inference", "TOPs/W", "error / ideally trained", "energy / ideally trained", "chips",
)  # fmt: skip
History = Mapping[str, np.ndarray]


def evaluation_chapters(found: Sequence[Outcome], datasets: Sequence[xr.Dataset]) -> list[Chapter]:
    """Return the chapters that evaluations give; none without outcomes, no matrix where there is nothing to cross."""
    if not found:
        return []
    chapters = [Chapter("evaluation", "Accuracy and energy", (_evaluation_part(found, datasets),))]
    if len({item.label for item in found}) > 1 and len({item.device for item in found}) > 1:
        chapters.append(Chapter("matrix", "Trained on, tested on", (_matrix_part(found),)))
    return chapters


def lead(found: Sequence[Outcome]) -> str:
    """Return the outcome in one or two sentences."""
    best = found[best_of(found)]
    devices = list(dict.fromkeys(item.device for item in found))
    text = (
        f"{plural(len({item.label for item in found}), 'training run')}, evaluated on {joined(devices)}. The lowest "
        f"median error {'' if best.device == 'ideal' else 'on nonideal devices '}is "
        f"{_percent(float(np.median(best.error)))}, of {best.label} on {best.device}"
    )
    reference = reference_of(best, found)
    if reference is not None:
        text += f"; networks trained as if devices were ideal have {_percent(float(np.median(reference.error)))} there"
    return f"{text}."


def summary_rows(found: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return one row for each run and device; the columns are `SUMMARY_COLUMNS`."""
    rows = []
    for item in found:
        reference = reference_of(item, found)
        rows.append((
            item.label,
            item.trained_on,
            item.device,
            _percent(float(np.median(item.error))),
            percent_interval(median_interval(item.error)),
            percent_interval(chip_range(item.error)) if item.error.shape[1] > 1 else UNKNOWN,
            format_quantity(float(item.energy.mean()), "J"),
            format_number(item.mean_efficiency),
            "reference" if item.ideal else _ratio(item, reference, lambda one: float(np.median(one.error))),
            "reference" if item.ideal else _ratio(item, reference, lambda one: float(one.energy.mean())),
            f"{item.error.shape[0]} x {item.error.shape[1]}",
        ))  # fmt: skip
    return rows


def _percent(fraction: float) -> str:
    return f"{PERCENT * fraction:.2f} %"


def percent_interval(ends: tuple[float, float]) -> str:
    """Return an interval of fractions in per cent."""
    low, high = ends
    return UNKNOWN if math.isnan(low) else f"{PERCENT * low:.2f} to {PERCENT * high:.2f} %"


def _ratio(item: Outcome, reference: Outcome | None, value: Any) -> str:
    if reference is None or not value(reference) > 0:
        return ""
    return format_number(value(item) / value(reference))


def best_of(found: Sequence[Outcome]) -> int:
    """Return the position of the lowest median error, on nonideal devices if there are any."""
    real = [index for index, item in enumerate(found) if item.device != "ideal"] or range(len(found))
    return min(real, key=lambda index: float(np.median(found[index].error)))


def _evaluation_part(found: Sequence[Outcome], datasets: Sequence[xr.Dataset]) -> Part:
    from calib.result_figures import distribution_figures

    caption = f"Error and energy of {plural(len({item.label for item in found}), 'run')}"
    table = Table(caption, SUMMARY_COLUMNS, summary_rows(found), best_of(found) if len(found) > 1 else -1, wide=True)
    notes = [
        "Error: fraction of test images that are classified wrongly. The unit of every interval is the chip: one "
        "network with one draw of all its devices.",
        "95 % interval of the median: bootstrap over networks and chips. 5 to 95 % of chips: what single chips do.",
        "Energy and TOPs/W count the devices alone, without converters and other periphery; TOPs/W is at the mean "
        "power.",
    ]
    if any(reference_of(item, found) is not None for item in found):
        notes.append(
            "Ideally trained: networks that were trained as if devices were ideal, evaluated on the same device."
        )
    protocols = dict.fromkeys(str(dataset.attrs["protocol"]) for dataset in datasets)
    return Part(
        "", (lead(found), *_energy_sentence(found)), tuple(distribution_figures(found)),
        (table, *_other_energies(datasets)), (*notes, *protocols), tuple(_warnings(found)),
    )  # fmt: skip


def _other_energies(datasets: Sequence[xr.Dataset]) -> tuple[Table, ...]:
    """Return the energy of conversions and of programming, where it was asked for."""
    rows = []
    for data in datasets:
        kinds = [name for name in ("energy_periphery", "energy_programming") if name in data]
        for network in data["network"].values if kinds else ():
            for device in data["device"].values:
                cell = data.sel(network=network, device=device)
                texts = [_joules(cell, name) if name in kinds else "" for name in _OTHER_ENERGIES]
                rows.append((str(network), str(device), *texts))
    columns = ("network", "device", *_OTHER_ENERGIES.values())
    return (Table("Energy apart from that of the devices", columns, rows),) if rows else ()


_OTHER_ENERGIES = {
    "energy_periphery": "conversions of an inference",
    "energy_programming": "programming all devices once, 95 % interval",
}


def _joules(cell: xr.Dataset, name: str) -> str:
    value = float(cell[name])
    text = UNKNOWN if math.isnan(value) else format_quantity(value, "J")
    if f"{name}_bound" not in cell or math.isnan(value):
        return text
    low, high = cell[f"{name}_bound"].values
    return f"{text} ({format_interval(float(low), float(high), 'J')})"


def _energy_sentence(found: Sequence[Outcome]) -> tuple[str, ...]:
    real = [item for item in found if item.device != "ideal"] or list(found)
    if len(real) < 2:
        return ()
    least = min(real, key=lambda item: float(item.energy.mean()))
    energy = format_quantity(float(least.energy.mean()), "J")
    efficiency = format_number(least.mean_efficiency)
    return (f"The least energy is {energy} per inference ({efficiency} TOPs/W), of {least.label} on {least.device}.",)


def _warnings(found: Sequence[Outcome]) -> list[str]:
    return [
        f"{item.label} on {item.device}: {format_number(float(item.clipped.mean()))} devices a chip (mean) lie outside "
        "of the range that the device model was fitted to; the law at the end of its range was used for them"
        for item in found
        if float(item.clipped.mean()) > 0
    ]


def _matrix_part(found: Sequence[Outcome]) -> Part:
    from calib.result_figures import MATRIX_CAPTION, matrix_figure

    labels, devices = (list(dict.fromkeys(each)) for each in zip(*((i.label, i.device) for i in found), strict=True))
    cells = {(item.label, item.device): item for item in found}
    rows = []
    for label in labels:
        row = [cells.get((label, device)) for device in devices]
        trained_on = next(item.trained_on for item in row if item is not None)
        rows.append((label, trained_on, *("" if item is None else _cell(item) for item in row)))
    columns = ("networks", "trained on", *(f"tested on {device}" for device in devices))
    table = Table("Median error with its 95 % interval, by what networks were trained and tested on", columns, rows,
                  wide=len(devices) > 2)  # fmt: skip
    best = []
    for device in devices:
        there = [item for item in found if item.device == device]
        if device != "ideal" and len(there) > 1:
            item = min(there, key=lambda one: float(np.median(one.error)))
            best.append(f"{item.label} on {device} ({_percent(float(np.median(item.error)))})")
    sentences = (f"Networks of the lowest median error: {joined(best)}.",) if best else ()
    return Part("", sentences, (("matrix", MATRIX_CAPTION, matrix_figure(found)),), (table,))


def _cell(item: Outcome) -> str:
    low, high = median_interval(item.error)
    interval = "" if math.isnan(low) else f" ({PERCENT * low:.1f} to {PERCENT * high:.1f})"
    return f"{PERCENT * float(np.median(item.error)):.1f} %{interval}"


def training_chapter(histories: Mapping[str, History], unknown: Sequence[str], colours: Mapping[str, str]) -> Chapter:
    """Return the chapter of training curves.

    Parameters
    ----------
    histories : of each run, column -> (network, epoch).
    unknown : names of runs whose history is neither in the files nor in a folder beside them.
    colours : of the runs.
    """
    from calib.result_figures import TRAINING_CAPTION, curves_figure

    rows = [row for label, history in histories.items() if (row := _training_row(label, history)) is not None]
    lacking = (
        ()
        if not unknown
        else (
            f"The history of {joined(unknown)} is neither in the files of results nor in a folder of that name beside "
            "them; a folder elsewhere can be given (--run).",
        )
    )
    columns = ("networks", "epochs", "error on the training images, last epoch", "error on the validation images, last",
               "lowest", "in epoch")  # fmt: skip
    sentences = tuple(
        f"{row[0]}: the lowest median validation error, {row[4]}, was reached in epoch {row[5]} of {row[1]}."
        for row in rows
    )
    drawn = curves_figure(histories, colours) if rows else None
    figures = () if drawn is None else (("training", TRAINING_CAPTION, drawn),)
    tables = (Table("Errors in training, medians over networks", columns, rows),) if rows else ()
    return Chapter("training", "Training", (Part("", sentences, figures, tables, lacking),))


def _training_row(label: str, history: History) -> tuple[str, ...] | None:
    """Return what a run reached in training; None where its validation was not recorded."""
    median = history.get("validation_error_median")
    if median is None or not np.isfinite(median).any():
        return None
    checked = np.flatnonzero(np.isfinite(median).any(axis=0))
    line = np.nanmedian(median[:, checked], axis=0)
    lowest = int(line.argmin())
    train = history.get("train_error")
    known = np.flatnonzero(np.isfinite(train).any(axis=0)) if train is not None else []
    last = UNKNOWN if train is None or not len(known) else _percent(float(np.nanmedian(train[:, known[-1]])))
    epochs = max(int(checked[-1]), int(known[-1]) if len(known) else 0) + 1
    return (label, str(epochs), last, _percent(float(line[-1])), _percent(float(line[lowest])),
            str(int(checked[lowest]) + 1))  # fmt: skip
