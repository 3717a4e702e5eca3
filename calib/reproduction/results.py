"""All evaluations as one data set, and the rows of the table that it gives."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import __version__, evaluation, runs
from calib.errors import ModelError
from calib.outcomes import median_interval
from calib.reproduction.experiments import COVARIANCE_SETUPS, EXPERIMENTS, SETUPS, TRAININGS, Cell
from calib.reproduction.published import PUBLISHED, SOURCE, Published
from calib.reproduction.settings import Settings
from calib.vision import ImageData

SCHEMA = "calib-reproduction-results/1"
VARIABLES = {
    "error": ("1", "fraction of test images classified wrongly"),
    "energy_per_inference": ("J", "energy of one inference, devices only"),
    "efficiency_tops_per_watt": ("1e12 s^-1 W^-1", "operations per second and watt, devices only"),
}
_DIMS = ("redraw", "training", "setup", "network", "chip")
OTHER_RECIPES = {"standard-other": "the other recipe", "standard-long": "the long recipe"}
BANDED = ("standard", *OTHER_RECIPES, "high", "high-l1")
"""Trainings that are also tested over the band of s2."""


def gather(
    folder: Path, cells: Sequence[Cell], ways: Sequence[str], settings: Settings, images: ImageData
) -> xr.Dataset:
    """Return error, energy and efficiency (redraw, training, setup, network, chip), NaN where nothing was asked for."""
    from calib.reproduction.runner import evaluation_path, read_evaluation

    trainings = [name for name in TRAININGS if any(cell[0] == name for cell in cells)]
    setups = [name for name in SETUPS if any(cell[1] == name for cell in cells)]
    shape = (len(ways), len(trainings), len(setups), settings.networks, settings.chips)
    values = {name: np.full(shape, np.nan) for name in VARIABLES}
    for place, way in enumerate(ways):
        for cell in cells:
            one = read_evaluation(evaluation_path(folder, cell, way))
            at = (place, trainings.index(cell[0]), setups.index(cell[1]))
            for name, array in values.items():
                array[at] = one[name]
    variables = {
        name: (_DIMS, array, {"units": VARIABLES[name][0], "long_name": VARIABLES[name][1]})
        for name, array in values.items()
    }
    coordinates = {
        "redraw": list(ways),
        "training": trainings,
        "setup": setups,
        "network": np.arange(settings.networks),
        "chip": np.arange(settings.chips),
    }
    attributes = {
        "schema": SCHEMA,
        "calib_version": __version__,
        "source": SOURCE,
        "settings": json.dumps(settings.record(), sort_keys=True),
        "data": json.dumps({"name": images.name, "source": images.source, "sha256": images.sha256}, sort_keys=True),
        "versions": json.dumps(runs.versions(), sort_keys=True),
        "protocol": f"{settings.networks} trained network(s), {settings.chips} draw(s) of devices each. 'batch': new "
        f"devices for every {evaluation.PAPER_BATCH} test images, as published; 'chip': a chip keeps its devices.",
    }
    return xr.Dataset(variables, coords=coordinates, attrs=attributes)


def open_reproduction(path: str | Path) -> xr.Dataset:
    """Open results.nc of a reproduction.

    Raises
    ------
    ModelError
        When it is something else.
    """
    from calib import files

    found = files.open_netcdf(path, "file of reproduced results", "make it again with 'calib reproduce'").to_dataset()
    if found.attrs.get("schema") != SCHEMA or not set(VARIABLES) <= set(found.data_vars):
        raise ModelError(
            f"'{path}' has the schema '{found.attrs.get('schema', '')}'; expected '{SCHEMA}', which "
            "'calib reproduce' writes"
        )
    return found


@dataclass(frozen=True)
class Row:
    """Ours of a cell in one way of drawing, beside the published number.

    Attributes
    ----------
    experiment, training, setup, redraw : names.
    error : median fraction over networks and chips; `interval` its 95 % bootstrap interval; `low` and `high` 5 and
        95 % of the draws.
    efficiency : at the mean power [1e12 s^-1 W^-1].
    energy : mean per inference [J].
    published : None where the paper's number is not known here.
    difference : ours minus the nearer end of the published range, as a fraction; 0 inside; NaN without.
    """

    experiment: str
    training: str
    setup: str
    redraw: str
    error: float
    interval: tuple[float, float]
    low: float
    high: float
    efficiency: float
    energy: float
    published: Published | None
    difference: float

    @property
    def cell(self) -> Cell:
        """Training and set-up."""
        return self.training, self.setup


def rows(found: xr.Dataset, experiments: Sequence[str]) -> list[Row]:
    """Return the rows of all experiments but the matrix, in their order; those that were not evaluated are left out."""
    listed = []
    for name in experiments:
        if name == "matrix":
            continue
        for cell in EXPERIMENTS[name].cells:
            for way in found["redraw"].values.astype(str):
                if has(found, cell):
                    listed.append(row(found, name, cell, way))
    return listed


def has(found: xr.Dataset, cell: Cell) -> bool:
    """Return whether a cell was evaluated."""
    if cell[0] not in found["training"].values or cell[1] not in found["setup"].values:
        return False
    return bool(np.isfinite(found["error"].sel(training=cell[0], setup=cell[1])).all())


def row(found: xr.Dataset, experiment: str, cell: Cell, way: str) -> Row:
    """Return the row of a cell."""
    part = found.sel(redraw=way, training=cell[0], setup=cell[1])
    error = part["error"].transpose("network", "chip").values
    median = float(np.median(error))
    published = PUBLISHED.get(cell) if is_mnist(found) else None
    difference = math.nan
    if published is not None:
        difference = median - min(max(median, published.error[0]), published.error[1])
    return Row(
        experiment=experiment,
        training=cell[0],
        setup=cell[1],
        redraw=way,
        error=median,
        interval=median_interval(error),
        low=float(np.quantile(error, 0.05)),
        high=float(np.quantile(error, 0.95)),
        efficiency=float(1 / (1 / part["efficiency_tops_per_watt"]).mean()),
        energy=float(part["energy_per_inference"].mean()),
        published=published,
        difference=difference,
    )


def is_mnist(found: xr.Dataset) -> bool:
    """Return whether the images are those of the paper."""
    return json.loads(found.attrs["data"])["name"] == "mnist"


def band(found: xr.Dataset, training: str, way: str) -> tuple[float, float] | None:
    """Return the smallest and largest median error over the band of s2, None where it was not evaluated."""
    cells = [(training, setup) for setup in COVARIANCE_SETUPS]
    if not all(has(found, cell) for cell in cells):
        return None
    medians = [row(found, "covariance", cell, way).error for cell in cells]
    return min(medians), max(medians)


def matrix(found: xr.Dataset, way: str, trainings: Sequence[str], setups: Sequence[str]) -> np.ndarray:
    """Return median errors (training, setup)."""
    part = found["error"].sel(redraw=way, training=list(trainings), setup=list(setups))
    return part.median(("network", "chip")).transpose("training", "setup").values


def plain_rows(listed: Sequence[Row]) -> list[dict[str, Any]]:
    """Return rows as plain values, for JSON."""
    return [
        {
            "experiment": item.experiment,
            "training": item.training,
            "setup": item.setup,
            "redraw": item.redraw,
            "error_median": item.error,
            "error_median_low": item.interval[0],
            "error_median_high": item.interval[1],
            "error_low": item.low,
            "error_high": item.high,
            "efficiency_tops_per_watt": item.efficiency,
            "energy_per_inference_joule": item.energy,
            "published_error_low": item.published.error[0] if item.published else None,
            "published_error_high": item.published.error[1] if item.published else None,
            "published_efficiency_tops_per_watt": item.published.efficiency if item.published else None,
            "error_difference": None if math.isnan(item.difference) else item.difference,
            "calibrated": bool(item.published and item.published.calibrated),
            "assumed": SETUPS[item.setup].assumed,
        }
        for item in listed
    ]
