"""Results and device models side by side, and whether what differs is more than the intervals.

Runs are compared by the mean error and the mean energy of their chips (`calib.comparison_means`): chip by chip where
both sides drew their chips from the same random numbers, network by network where the networks are the same. All tests
are judged together (Holm). Device models are compared by `calib.model_diff`.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import xarray as xr

from calib import files
from calib.comparison_means import difference, holm, probability
from calib.comparison_result import Compared, Comparison, RunDifference
from calib.device_model import check, identity, open_device
from calib.errors import ModelError, OptionError
from calib.model_diff import LEVEL, diff
from calib.outcomes import outcomes
from calib.paired import Mean, mean
from calib.report_devices import devices_of
from calib.report_files import ResultFile, open_result, run_folders

_NAN = Mean(math.nan, math.nan)
FORMATS = (".html", ".csv", ".json")


def compare(
    items: Sequence[str | Path | xr.Dataset | xr.DataTree],
    *,
    against: str | None = None,
    all_pairs: bool = False,
    level: float = LEVEL,
    output: str | Path | None = None,
) -> Comparison:
    """Put results and device models side by side.

    Parameters
    ----------
    items : results of `calib.evaluate` and device models: files, names of bundled models, or what was returned.
    against : 'run on device' with which the others are compared; default: the first that is not on ideal devices.
    all_pairs : compare each with each instead.
    level : probability of telling any difference where there is none, over all runs (Holm), and for each pair of device
        models (`calib.model_diff.diff`).
    output : .html, .csv or .json to write.

    Raises
    ------
    OptionError
        When there are fewer than two things to compare, or an option cannot be used.
    ModelError
        When a file is neither results nor a device model.
    """
    if not 0 < level < 1:
        raise OptionError(f"level is {level:g}; expected a probability between 0 and 1, such as {LEVEL:g}")
    if output is not None and Path(output).suffix.lower() not in FORMATS:
        raise OptionError(f"the comparison is to be '{output}'; expected a name that ends in {', '.join(FORMATS)}")
    opened, trees = _opened(items)
    runs = _compared(opened)
    distinct = {identity(tree): tree for tree in trees}
    beside = [run.device for run in run_folders(opened).values()]
    distinct |= {identity(tree): tree for tree in devices_of(opened, (), beside) if identity(tree) not in distinct}
    devices = list(distinct.values())
    if len(runs) + len(devices) < 2 or (len(devices) < 2 and len(runs) < 2):
        raise OptionError(
            f"there is one thing to compare ({', '.join([*(r.label for r in runs), *map(_name, devices)])}); give "
            "several results or device models"
        )
    found = Comparison(
        runs=tuple(runs),
        differences=tuple(_differences(runs, against, all_pairs)),
        devices=tuple(devices),
        model_diffs=tuple(diff(devices[0], other, level=level) for other in devices[1:]),
        warnings=tuple(_warnings(runs)),
        level=level,
    )
    if output is not None:
        _write(found, Path(output), [file.name or "results.nc" for file in opened])
    return found


def _write(found: Comparison, output: Path, names: Sequence[str]) -> None:
    from calib import comparison_tables

    make = {
        ".html": lambda: comparison_tables.page(found, names),
        ".csv": lambda: comparison_tables.csv_text(found),
        ".json": lambda: comparison_tables.json_text(found),
    }
    files.write_text(output, make[output.suffix.lower()]())


def _opened(items: Sequence[Any]) -> tuple[list[ResultFile], list[xr.DataTree]]:
    """Return the files of results, and the device models, among some items."""
    listed = [items] if isinstance(items, str | Path | xr.Dataset | xr.DataTree) else list(items)
    results: list[ResultFile] = []
    trees: list[xr.DataTree] = []
    for item in listed:
        if isinstance(item, xr.DataTree):
            check(item)
            trees.append(item)
        elif isinstance(item, xr.Dataset) or _holds_results(Path(item)):
            file = open_result(item)
            if file.kind.name != "evaluation":
                raise ModelError(
                    f"{file.title} holds {file.kind.name}; expected results of 'calib evaluate' or a device model "
                    "('calib report' shows all kinds of results)"
                )
            results.append(file)
        else:
            trees.append(open_device(item))
    return results, trees


def _holds_results(path: Path) -> bool:
    """Whether a path is a file of something else than a device model."""
    if not path.is_file():
        return False
    schema = files.open_netcdf(path, "file of results or device model", "make it again").attrs.get("schema", "")
    return schema != "calib-device-model/1"


def _name(tree: xr.DataTree) -> str:
    return str(tree.attrs.get("name", "")) or identity(tree)[:12]


def _compared(opened: Sequence[ResultFile]) -> list[Compared]:
    """Return every run on every device, in the order of the files."""
    found = outcomes([file.data for file in opened])
    made, left = [], list(found)
    for number, file in enumerate(opened):
        asked = file.options
        for label in file.labels:
            for device in map(str, file.data["device"].values):
                names = (label, f"{label} ({number + 1})")
                item = next(o for o in left if o.device == device and o.label in names)
                left.remove(item)
                networks = json.dumps(item.record, sort_keys=True)
                drawn = f"{int(file.data.attrs['seed'])} {asked['redraw']}"
                images = str(json.loads(file.data.attrs.get("data", "{}")).get("sha256", ""))
                made.append(Compared(item, _NAN, networks, drawn, images, float(asked["read_time"])))
    return [replace(one, loss=_loss(one, made)) for one in made]


def _loss(one: Compared, among: Sequence[Compared]) -> Mean:
    """Return the mean error less that of the same networks on ideal devices and the same images."""
    if one.outcome.device == "ideal":
        return _NAN
    for other in among:
        if (other.outcome.device, other.networks, other.images) == ("ideal", one.networks, one.images):
            return mean(one.outcome.error - other.outcome.error.mean(1, keepdims=True))
    return _NAN


def _differences(runs: Sequence[Compared], against: str | None, all_pairs: bool) -> list[RunDifference]:
    real = [run for run in runs if run.outcome.device != "ideal"] or list(runs)
    labels = [run.label for run in runs]
    if against is not None and against not in labels:
        raise OptionError(f"there is no '{against}' to compare with; expected one of {', '.join(labels) or 'no runs'}")
    if against is not None and all_pairs:
        raise OptionError("each is to be compared with each and also with one; leave out one of the two options")
    if all_pairs:
        pairs = [(a, b) for k, a in enumerate(real) for b in real[k + 1 :]]
    else:
        first = runs[labels.index(against)] if against is not None else (real[0] if real else None)
        pairs = [(first, run) for run in real if first is not None and run is not first]
    made = [_difference(a, b) for a, b in pairs]
    together = holm([p for one in made for p in (one.p_error, one.p_energy)])
    return [
        replace(one, p_error=together[2 * k], p_energy=together[2 * k + 1]) for k, one in enumerate(made)
    ]  # fmt: skip


def _difference(a: Compared, b: Compared) -> RunDifference:
    shared = {
        "networks": a.networks == b.networks and a.outcome.error.shape[0] == b.outcome.error.shape[0],
        "chips": a.chips == b.chips,
    }
    error = difference(a.outcome.error, b.outcome.error, **shared)
    energy = difference(a.outcome.energy, b.outcome.energy, **shared)
    return RunDifference(
        a.label, b.label, error, energy, energy.value / float(a.outcome.energy.mean()), _how(a, b, **shared),
        probability(error), probability(energy),
    )  # fmt: skip


def _how(a: Compared, b: Compared, *, networks: bool, chips: bool) -> str:
    """Return what was paired, in words."""
    drawn = "of the same random numbers" if a.outcome.device != b.outcome.device else "with the same devices drawn"
    parts = [
        "the same networks" if networks else "networks of separate trainings",
        f"chip by chip ({drawn})" if chips else "chips of separate draws",
    ]
    return ", ".join(parts)


def _warnings(runs: Sequence[Compared]) -> list[str]:
    """Return what makes a comparison unequal."""
    found = []
    for what, values in {
        "images": {run.images for run in runs if run.images},
        "read times, on which energy depends": {run.read_time for run in runs},
        "ways of drawing devices (--redraw)": {run.chips.split()[-1] for run in runs},
        "sizes of layers": {str(run.outcome.record["options"].get("layers")) for run in runs},
    }.items():
        if len(values) > 1:
            found.append(f"the results are of different {what}: what differs is not the doing of the devices alone")
    single = [run.label for run in runs if run.outcome.error.shape[0] == 1]
    if single and len({run.networks for run in runs}) > 1:
        found.append(
            f"a single network was trained for {', '.join(dict.fromkeys(single))}: intervals are for that network, and "
            "another training may differ by more"
        )
    clipped = [run.label for run in runs if float(run.outcome.clipped.mean()) >= 1]
    if clipped:
        found.append(f"devices outside of the range of their model are counted for {', '.join(clipped)}")
    return found
