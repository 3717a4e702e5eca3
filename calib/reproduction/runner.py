"""Trains every network once and tests it on its set-ups; what is finished is not repeated.

======================================== =====================================================================
reproduction.json                        settings and images that every part of the folder belongs to
runs/TRAINING/                           a run folder as `calib train` makes it
evaluations/REDRAW/TRAINING/SETUP.json   error, energy and efficiency of every draw, and what they are of
results.nc                               error, energy and efficiency of all of them
table.csv, report.html, figures/         ours beside the published numbers
======================================== =====================================================================
"""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from calib import device_model, evaluation, files, runs, vision
from calib.errors import ModelError, OptionError
from calib.reproduction import cifar, results, side_by_side
from calib.reproduction.devices import device
from calib.reproduction.experiments import HIDDEN_UNITS, TRAININGS, Cell, Experiment, Training, cells_of, chosen
from calib.reproduction.settings import PAPER, Recipe, Settings
from calib.runs import Run
from calib.training import train
from calib.vision import ImageData

SCHEMA = "calib-reproduction/1"
REDRAWS = {"batch": ("batch",), "chip": ("chip",), "both": ("batch", "chip")}
"""Ways to draw devices in tests, the published one first, see `calib.evaluation.chip_performance`."""
Progress = Callable[[int, str], None]


def reproduce(
    output: str | Path,
    *,
    settings: Settings = PAPER,
    redraw: str = "both",
    data: str | Path | None = None,
    only: Sequence[str] | None = None,
    jobs: int = 1,
    progress: Progress | None = None,
) -> xr.Dataset:
    """Run experiments of Joksas et al. (2022) and write results, table, figures and report.

    A folder that holds part of it already is continued: whole epochs and whole evaluations are kept, and the numbers
    are those of a call that was never interrupted. Each training and its evaluations run on one thread, so that the
    numbers do not depend on `jobs`.

    Parameters
    ----------
    output : folder.
    settings : how much is trained and drawn.
    redraw : 'batch' (as published), 'chip' (a chip keeps its devices) or 'both'.
    data : folder with MNIST, see `calib.vision.load`, and with CIFAR-10, see `calib.reproduction.cifar.find`; or other
        images, an .npz file, to try the chain.
    only : names of experiments; default: all. CIFAR-10 is downloaded where it is named and absent.
    jobs : trainings side by side, each in a process of its own, see `calib.reproduction.side_by_side.run`.
    progress : called with (n, text) after each n epochs, and with n = 1 after each evaluation.

    Returns
    -------
    xarray.Dataset
        Content of results.nc, see `calib.reproduction.results.gather`.

    Raises
    ------
    OptionError
        When an option cannot be used, or the folder belongs to other settings or images.
    """
    if redraw not in REDRAWS:
        raise OptionError(f"redraw is '{redraw}'; expected one of {', '.join(REDRAWS)}")
    if jobs < 1:
        raise OptionError(f"jobs is {jobs}; expected at least 1")
    experiments = present(only, data)
    cells = cells_of(experiments)
    folder = Path(output)
    load_images.cache_clear()
    images = load_images("mnist", data).images
    _claim(folder, settings, images)
    trainings = dict.fromkeys(training for training, _ in cells)
    work = [(folder, name, _setups(cells, name), REDRAWS[redraw], settings, data) for name in trainings]
    side_by_side.run(_train_and_evaluate, work, jobs, progress or (lambda n, text: None))
    names = [item.name for item in experiments]
    found = results.gather(folder, cells, REDRAWS[redraw], settings, images)
    found.attrs["experiments"] = ",".join(names)
    found.attrs["left_out"] = cifar.ABSENT if cifar.find(data) is None else ""
    files.write_netcdf(found, folder / "results.nc")
    from calib.reproduction.report import write_report

    write_report(found, folder, names)
    return found


@dataclass(frozen=True, eq=False)
class Source:
    """Images, and how `calib.training.train` is given them: dataset and data_folder."""

    images: ImageData
    dataset: str | ImageData
    folder: str | Path | None


def _setups(cells: Sequence[Cell], training: str) -> tuple[str, ...]:
    return tuple(setup for name, setup in cells if name == training)


def _train_and_evaluate(
    folder: Path,
    name: str,
    setups: Sequence[str],
    ways: Sequence[str],
    settings: Settings,
    data: str | Path | None,
    advance: Progress,
) -> None:
    """Train the networks of a training and test them on its set-ups, on one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        source = load_images(TRAININGS[name].images, data)
        run = _train(folder, TRAININGS[name], settings, source, advance)
        for way in ways:
            for setup in setups:
                _evaluate(folder, run, (name, setup), way, settings, source.images)
                advance(1, f"{name} on {setup}, {way}")
    finally:
        torch.set_num_threads(threads)


@functools.lru_cache(maxsize=2)
def load_images(kind: str, data: str | Path | None) -> Source:
    """Return the images 'mnist' (or those of an .npz file in their place) or 'cifar-10'."""
    if kind == "cifar-10":
        folder = cifar.find(data)
        assert folder is not None, "experiments without images are not run"
        return Source(vision.load("cifar-10", data_folder=folder), "cifar-10", folder)
    if data is not None and Path(data).suffix == ".npz":
        return Source(vision.load(data), str(data), None)
    return Source(vision.load("mnist", data_folder=data), "mnist", data)


def present(only: Sequence[str] | None, data: str | Path | None) -> list[Experiment]:
    """Return the chosen experiments whose images there are; those of CIFAR-10 are fetched where it is named.

    Raises
    ------
    ReadError
        When CIFAR-10 is named and cannot be downloaded.
    """
    experiments = chosen(only)
    if cifar.find(data) is None:
        if only is None or "cifar-10" not in only:
            return [item for item in experiments if item.name != "cifar-10"]
        vision.fetch("cifar-10")
    return experiments


def amount(
    settings: Settings,
    redraw: str = "both",
    only: Sequence[str] | None = None,
    data: str | Path | None = None,
) -> int:
    """Return how many epochs and evaluations a call counts in its progress."""
    cells = cells_of(present(only, data))
    names = {training for training, _ in cells}
    epochs = sum(_recipe(TRAININGS[name], settings).epochs for name in names)
    return epochs * settings.networks + len(cells) * len(REDRAWS[redraw])


def _recipe(training: Training, settings: Settings) -> Recipe:
    return {"main": settings.recipe, "other": settings.other_recipe, "long": settings.long_recipe}[training.recipe]


def _claim(folder: Path, settings: Settings, images: ImageData) -> None:
    """Write what the folder belongs to, or check that it is the same."""
    record = {
        "schema": SCHEMA,
        "settings": settings.record(),
        "data": {"name": images.name, "source": images.source, "sha256": images.sha256},
    }
    path = folder / "reproduction.json"
    if not path.exists():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OptionError(f"'{folder}' exists already and is no reproduction of calib; give another folder")
        files.write_text(path, json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        return
    try:
        known = json.loads(path.read_text(encoding="utf-8"))
        before, images_before = known["settings"], known["data"]["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"'{path}' cannot be read ({error}); give another folder") from error
    differing = [key for key, value in record["settings"].items() if before.get(key) != value]
    if differing:
        said = ", ".join(f"{key} = {before.get(key)}" for key in differing)
        raise OptionError(f"'{folder}' was begun with {said}; give the same options, or another folder")
    if images_before != images.sha256:
        raise OptionError(
            f"'{folder}' was begun with images of SHA-256 {images_before[:12]}, but '{images.name}' has "
            f"{images.sha256[:12]}; give the same images, or another folder"
        )


def _train(
    folder: Path,
    training: Training,
    settings: Settings,
    source: Source,
    advance: Progress,
) -> Run:
    """Train, continue or open the networks of a training."""
    path = folder / "runs" / training.name
    recipe = _recipe(training, settings)
    done = [0] * settings.networks
    started = (path / "run.json").exists()
    if started:
        run = runs.open_run(path)
        states = [run.checkpoint(index) for index in range(settings.networks)]
        done = [0 if state is None else state["epoch"] for state in states]
        advance(sum(done), training.name)
        if min(done) >= recipe.epochs:
            return run
    elif path.is_dir():
        for left in path.iterdir():  # of a call that ended before run.json was there
            left.unlink()
    convolutional = training.images == "cifar-10"
    standard = training.validation == "standard"
    model = device(training.setup)
    assert isinstance(model, xr.DataTree)
    return train(
        model,
        output=path,
        dataset=source.dataset,
        data_folder=source.folder,
        layers=None if convolutional else (source.images.n_features, HIDDEN_UNITS, source.images.n_classes),
        network="calib.reproduction.cifar:network" if convolutional else "",
        mapping=training.mapping,
        l1=training.l1,
        ideal=training.ideal,
        epochs=recipe.epochs,
        optimizer=recipe.optimizer,
        learning_rate=recipe.learning_rate,
        schedule=recipe.schedule,
        batch_size=settings.batch_size,
        seed=settings.seed,
        networks=settings.networks,
        validation_every=1 if standard else settings.validation_every,
        validation_repeats=1 if standard else settings.validation_repeats,
        resume=started,
        progress=lambda network, row: advance(1, _progress_text(training, network, row)),
    )


def _progress_text(training: Training, network: int, row: dict[str, float]) -> str:
    median = row["validation_error_median"]
    text = f"{training.name}, network {network}, epoch {row['epoch']:.0f}"
    if median != median:
        return text
    low, high = (100 * row[f"validation_error_{end}"] for end in ("low", "high"))
    return f"{text}: validation error {100 * median:.2f} % ({low:.2f} to {high:.2f} %)"


def _evaluate(folder: Path, run: Run, cell: Cell, way: str, settings: Settings, images: ImageData) -> None:
    """Write the numbers of a cell, unless they are there."""
    path = evaluation_path(folder, cell, way)
    model = device(cell[1])
    key = {
        "training": run.record,
        "device": model if isinstance(model, str) else device_model.identity(model),
        "redraw": way,
        "chips": settings.chips,
        "seed": settings.seed,
    }
    if path.exists() and read_evaluation(path).get("key") == json.loads(json.dumps(key)):
        return
    found = evaluation.evaluate(run, [model], chips=settings.chips, redraw=way, seed=settings.seed, data=images)
    one = found.isel(device=0)
    values = {name: one[name].transpose("network", "chip").values.tolist() for name in results.VARIABLES}
    files.write_text(path, json.dumps({"key": key, **values}, sort_keys=True) + "\n")


def evaluation_path(folder: Path, cell: Cell, way: str) -> Path:
    """Return where the numbers of a cell lie."""
    return folder / "evaluations" / way / cell[0] / f"{cell[1]}.json"


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return the numbers of a cell: each variable as (network, chip), and the key of what they are of.

    Raises
    ------
    ModelError
        When the file is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not {"key", *results.VARIABLES} <= set(found):
            raise ValueError("it lacks numbers")
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"'{path}' cannot be read ({error}); delete it, and it is made again") from error
    return found
