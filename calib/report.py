"""Results -> one HTML page: what each network does on each device, chip by chip, and where the numbers come from."""

import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import files
from calib.device_model import attribute, identity, open_device
from calib.errors import OptionError
from calib.formatting import UNKNOWN, format_number, format_quantity, plural
from calib.outcomes import Outcome, chip_range, median_interval, outcomes, reference_of

_PERCENT = 100.0
SUMMARY_COLUMNS = (
    "networks", "trained on", "evaluated on", "median error", "95 % interval of the median", "5 to 95 % of chips",
    "energy per inference", "TOPs/W", "error / ideally trained", "energy / ideally trained", "chips",
)  # fmt: skip
_FLAGS = {"ideal": "--ideal", "extrapolate": "--extrapolate"}
_OPTION_ORDER = (
    "network", "mapping", "array", "l1", "energy_weight", "epochs", "optimizer", "momentum", "learning_rate",
    "schedule", "warm_up", "batch_size", "draws", "average", "clip_gradient", "patience", "input_voltage", "seed",
    "networks", "validation_every", "validation_repeats",
)  # fmt: skip

_UNSAID = {"energy_weight": 0.0, "momentum": 0.0, "warm_up": 0.0, "draws": 1}
"""Values that need not be said."""


def report(
    results: Sequence[str | Path | xr.Dataset] | str | Path | xr.Dataset,
    output: str | Path,
    *,
    devices: Sequence[str | Path | xr.DataTree] = (),
) -> Path:
    """Write an HTML report of results and return its path.

    Equal results give an equal report: it holds no time and no path.

    Parameters
    ----------
    results : files that `calib.evaluate` made, or what it returned.
    output : the report, one self-contained file.
    devices : device models of which an excerpt is shown; bundled ones among those evaluated are found by themselves.

    Raises
    ------
    ModelError
        When a file is no results file.
    OptionError
        When there are no results, or a device model is not one that they were evaluated on.
    """
    from calib.evaluation import open_results

    listed = [results] if isinstance(results, str | Path | xr.Dataset) else list(results)
    if not listed:
        raise OptionError("no results were given; give files that 'calib evaluate' made")
    datasets = [item if isinstance(item, xr.Dataset) else open_results(item) for item in listed]
    names = [Path(item).name if isinstance(item, str | Path) else "" for item in listed]
    hashes = ["" if isinstance(item, xr.Dataset) else files.sha256_of(item) for item in listed]
    text = _page(datasets, names, hashes, _devices(datasets, devices), Path(output).name)
    files.write_text(output, text)
    return Path(output)


def _devices(datasets: Sequence[xr.Dataset], given: Sequence[str | Path | xr.DataTree]) -> list[xr.DataTree]:
    """Return the device models to show: those given, and bundled ones that were evaluated."""
    from calib import data_folder

    evaluated: dict[str, None] = {}
    for dataset in datasets:
        for sha256 in json.loads(dataset.attrs.get("device_hashes", "{}")).values():
            evaluated.update(dict.fromkeys(sha256.split()))
    found: dict[str, xr.DataTree] = {}
    for item in given:
        tree = item if isinstance(item, xr.DataTree) else open_device(item)
        if identity(tree) not in evaluated:
            raise OptionError(
                f"the device model '{tree.attrs.get('name', '')}' ({identity(tree)[:12]}) is not one that the results "
                f"were evaluated on ({', '.join(sha256[:12] for sha256 in evaluated) or 'none'}); leave it out"
            )
        found[identity(tree)] = tree
    bundled = set(data_folder.bundled_model_names())
    for name in {str(name).split(", ")[0] for dataset in datasets for name in dataset["device"].values} & bundled:
        tree = open_device(name)
        if identity(tree) in evaluated:
            found.setdefault(identity(tree), tree)
    return [found[sha256] for sha256 in evaluated if sha256 in found]


def _page(
    datasets: Sequence[xr.Dataset],
    names: Sequence[str],
    hashes: Sequence[str],
    devices: Sequence[xr.DataTree],
    file: str,
) -> str:
    from calib import html, result_figures

    found = outcomes(datasets)
    return html.render(
        "report.html.j2",
        lead=lead(found),
        columns=SUMMARY_COLUMNS,
        rows=summary_rows(found),
        best=_best(found),
        has_reference=any(reference_of(item, found) is not None for item in found),
        warnings=_warnings(found),
        pictures=html.pictures(result_figures.result_figures(found), "report-"),
        protocols=list(dict.fromkeys(str(dataset.attrs["protocol"]) for dataset in datasets)),
        devices=[_excerpt(tree) for tree in devices],
        option_columns=("option", *dict.fromkeys(item.label for item in found)),
        option_rows=_option_rows(found),
        commands=commands(datasets, names, file),
        provenance=_provenance(datasets, names, hashes),
    )


def lead(found: Sequence[Outcome]) -> str:
    """Return the outcome in one or two sentences."""
    best = found[_best(found)]
    devices = list(dict.fromkeys(item.device for item in found))
    text = (
        f"{plural(len({item.label for item in found}), 'training run')}, evaluated on {', '.join(devices)}. The lowest "
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
            _percent_interval(median_interval(item.error)),
            _percent_interval(chip_range(item.error)) if item.error.shape[1] > 1 else UNKNOWN,
            format_quantity(float(item.energy.mean()), "J"),
            format_number(item.mean_efficiency),
            "reference" if item.ideal else _ratio(item, reference, lambda one: float(np.median(one.error))),
            "reference" if item.ideal else _ratio(item, reference, lambda one: float(one.energy.mean())),
            f"{item.error.shape[0]} x {item.error.shape[1]}",
        ))  # fmt: skip
    return rows


def _percent(fraction: float) -> str:
    return f"{_PERCENT * fraction:.2f} %"


def _percent_interval(ends: tuple[float, float]) -> str:
    low, high = ends
    return UNKNOWN if math.isnan(low) else f"{_PERCENT * low:.2f} to {_PERCENT * high:.2f} %"


def _ratio(item: Outcome, reference: Outcome | None, value: Any) -> str:
    if reference is None or not value(reference) > 0:
        return ""
    return format_number(value(item) / value(reference))


def _best(found: Sequence[Outcome]) -> int:
    """Return the position of the lowest median error, on nonideal devices if there are any."""
    real = [index for index, item in enumerate(found) if item.device != "ideal"] or range(len(found))
    return min(real, key=lambda index: float(np.median(found[index].error)))


def _warnings(found: Sequence[Outcome]) -> list[str]:
    return [
        f"{item.label} on {item.device}: {format_number(float(item.clipped.mean()))} devices a chip (mean) lie outside "
        "of the range that the device model was fitted to; the law at the end of its range was used for them"
        for item in found
        if float(item.clipped.mean()) > 0
    ]


def _excerpt(tree: xr.DataTree) -> dict[str, Any]:
    from calib import describe, figures, html

    sha256 = identity(tree)
    drawn = figures.iv_figure(tree)
    pictures = [] if drawn is None else html.pictures([("iv", figures.IV_CAPTION, drawn)], f"{sha256}-")
    return {
        "name": str(tree.attrs.get("name", "")),
        "technology": str(tree.attrs.get("technology", "")),
        "citation": str(tree.attrs.get("citation", "")),
        "identity": sha256,
        "numbers": describe.key_numbers(tree),
        "warnings": attribute(tree, "warnings"),
        "assumptions": attribute(tree, "assumptions"),
        "pictures": pictures,
    }


def _option_rows(found: Sequence[Outcome]) -> list[tuple[str, ...]]:
    """Return the options of every run, one row for each option; those that differ between runs come first."""
    runs = {item.label: item.record["options"] for item in reversed(found)}
    labels = list(dict.fromkeys(item.label for item in found))
    keys = sorted({key for options in runs.values() for key in options})
    rows = [(key.replace("_", " "), *(_shown(runs[label].get(key)) for label in labels)) for key in keys]
    return sorted(rows, key=lambda row: len(set(row[1:])) == 1)


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "-".join(map(str, value))
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not set" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def commands(datasets: Sequence[xr.Dataset], names: Sequence[str], file: str) -> list[str]:
    """Return the command lines that train, evaluate and report again; devices stand by their names."""
    lines: dict[str, None] = {}
    for dataset, name in zip(datasets, names, strict=True):
        runs = dict(zip(_run_labels(dataset), json.loads(dataset.attrs["training"]), strict=True))
        lines.update(dict.fromkeys(_train_command(label, record) for label, record in runs.items()))
        asked = json.loads(dataset.attrs["options"])
        parts = ["calib", "evaluate", *runs]
        for device in dict.fromkeys(str(name).split(", ")[0] for name in dataset["device"].values):
            parts += ["--device", device]
        parts += ["--chips", str(asked["chips"]), "--redraw", str(asked["redraw"])]
        parts += ["--seed", str(int(dataset.attrs.get("seed", 0))), "--read-time", f"{asked['read_time']:g}"]
        lines[shlex.join([*parts, *_conditions(asked), "-o", name or "results.nc"])] = None
    lines[shlex.join(["calib", "report", *(name or "results.nc" for name in names), "-o", file])] = None
    return list(lines)


def _conditions(asked: dict[str, Any]) -> list[str]:
    """Return the options that say what happened to the devices and on which array they are."""
    times = asked.get("time") or [0]
    parts = [
        part for time in (times if isinstance(times, list) else [times]) if time for part in ("--time", f"{time:g}")
    ]
    for key in ("reads", "temperature"):
        parts += [f"--{key}", f"{asked[key]:g}"] if asked.get(key) else []
    for key in ("array", "periphery"):
        value = asked.get(key)
        text = ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else value
        parts += [f"--{key}", str(text)] if text else []
    return [*parts, *(["--compensate"] if asked.get("compensate") else [])]


def _run_labels(dataset: xr.Dataset) -> list[str]:
    names = dataset["network"].values.astype(str)
    return list(dict.fromkeys(str(name).rpartition("/")[0] or str(name) for name in names))


def _train_command(label: str, record: dict[str, Any]) -> str:
    options = record["options"]
    parts = ["calib", "train", "--device", str(record["device"]["name"]), "-o", label]
    named = options.get("dataset")
    parts += ["--dataset", str(named)] if named else ["--data", str(record["data"]["name"])]
    parts += ["--layers", _shown(options["layers"])] if options["layers"] else []
    for key in _OPTION_ORDER:
        if options.get(key) not in (None, "") and options.get(key) != _UNSAID.get(key):
            parts += [f"--{key.replace('_', '-')}", _shown(options[key])]
    return shlex.join([*parts, *(flag for key, flag in _FLAGS.items() if options.get(key))])


def _provenance(datasets: Sequence[xr.Dataset], names: Sequence[str], hashes: Sequence[str]) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for dataset, name, sha256 in zip(datasets, names, hashes, strict=True):
        if name:
            rows.append(("results", f"{name}, sha256 {sha256}"))
        rows.append(("seed of the chips", str(int(dataset.attrs.get("seed", 0)))))
        devices = json.loads(dataset.attrs.get("device_hashes", "{}"))
        rows += [(f"device {device}", f"sha256 {value}") for device, value in devices.items()]
        for label, record in zip(_run_labels(dataset), json.loads(dataset.attrs["training"]), strict=True):
            rows.append((f"run {label}", f"seed {record['options'].get('seed')}, device {record['device']['sha256']}"))
            rows.append((f"images of {label}", f"{record['data']['name']}, sha256 {record['data'].get('sha256', '')}"))
        versions = json.loads(dataset.attrs.get("versions", "{}"))
        rows.append(("versions", ", ".join(f"{key} {value}" for key, value in versions.items())))
    return list(dict.fromkeys(rows))
