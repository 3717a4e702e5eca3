"""The front of error against energy: networks trained with different weights of the energy in the loss."""

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import __version__, device_model, evaluation, files, paired, runs, training, vision
from calib.effects import Hardware
from calib.energy import READ_TIME, efficiency, synapses
from calib.errors import ModelError, OptionError
from calib.runs import Run
from calib.vision import ImageData

SCHEMA = "calib-pareto/1"
WEIGHTS = (10.0, 25.0, 40.0)
"""Default weights of the energy in the loss."""
RECIPE: Mapping[str, Any] = {
    "mapping": "lowest",
    "scale": "learned",
    "variation": "moments",
    "hidden_voltage": 0.1,
    "learning_rate": 0.03,
    "schedule": "cosine",
    "warm_up": 0.02,
    "batch_size": 128,
    "epochs": 20,
    "validation_repeats": 5,
}
"""Options of `calib.train` that a front is trained with unless others are given, see `recipe_with`; docs/pareto.md says
what each does."""
FILE, PART = "front.nc", "evaluation.nc"
_RESAMPLES = 2000
_SETS = ("", "validation_")
Progress = Callable[[int, str], None]


def pareto(
    device: str | Path | xr.DataTree | None = None,
    *,
    output: str | Path,
    dataset: str | Path | ImageData = "digits",
    data_folder: str | Path | None = None,
    weights: Sequence[float] = WEIGHTS,
    networks: int = 5,
    chips: int = 25,
    seed: int = 0,
    read_time: float = READ_TIME,
    progress: Progress | None = None,
    **recipe: Any,
) -> xr.Dataset:
    """Train and evaluate networks at each of several weights of the energy in the loss.

    For each weight lambda `networks` networks are trained that minimise cross-entropy + lambda P / P_full (see
    `calib.train`), and evaluated on `chips` chips that stay fixed over all images, the same for each network and
    weight: once on the images that training kept for validation, and with other chips on the test images. What is
    chosen, a checkpoint or a weight, is chosen on validation alone.

    The folder holds a run of `calib.train` for each weight, and what was found. The same call on the same folder goes
    on where it was stopped, and adds weights that are new.

    Parameters
    ----------
    device : device model: a tree, a path or a bundled name.
    output : folder of the front.
    dataset, data_folder : see `calib.train`.
    weights : lambda of each point of the front.
    networks : of each weight.
    chips : of each network.
    seed : of everything that is drawn.
    read_time : t_read [s], during which an inference dissipates power.
    progress : called with (n, text), n steps of `steps` further.
    recipe : options of `calib.train` in place of those of `RECIPE`, see `recipe_with`.

    Returns
    -------
    xarray.Dataset
        Dimensions weight, network, chip and bound; see `summarised`. Written to front.nc too.

    Raises
    ------
    OptionError
        When an option cannot be used, or the folder is that of another front.
    """
    evaluation.check_numbers(chips, read_time)
    options = recipe_with(recipe)
    _check(weights, networks, options)
    data = dataset if isinstance(dataset, ImageData) else vision.load(dataset, data_folder=data_folder)
    tree = device_model.open_device(device) if isinstance(device, str | Path) else device
    if tree is None:
        raise OptionError("no device model was given; give a path, a bundled name ('calib models list') or a tree")
    given = {"dataset": data if isinstance(dataset, ImageData) else str(dataset), "data_folder": data_folder}
    parts = []
    for weight in sorted(weights):
        run = _trained(tree, given, data, Path(output), weight, networks, seed, options, progress)
        parts.append(_evaluated(run, data, chips, seed, read_time, progress))
    whole = xr.concat(parts, "weight", combine_attrs="drop").assign_coords(weight=sorted(weights))
    whole.attrs = {"synapses": parts[0].attrs["synapses"], "read_time": read_time}
    found = summarised(whole, seed)
    found.attrs |= {
        "schema": SCHEMA,
        "calib_version": __version__,
        "device": str(tree.attrs.get("name", "")),
        "device_sha256": device_model.identity(tree),
        "data": json.dumps({"name": data.name, "sha256": data.sha256}, sort_keys=True),
        "options": json.dumps({**dataclasses.asdict(run.options), "energy_weight": None}, sort_keys=True),
        "versions": json.dumps(runs.versions(), sort_keys=True),
        "network": run.options.architecture,
    }
    files.write_netcdf(found, Path(output) / FILE)
    return found


def recipe_with(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a front: `RECIPE`, with what was given in its place, and without what does not go with it.

    Hidden layers are at the input voltage where that is lower than the recipe's voltage; a network of the user is
    trained on drawn devices, all at the input voltage.
    """
    options = dict(RECIPE)
    if given.get("network"):
        options |= {"variation": "devices", "hidden_voltage": None}
    elif given.get("input_voltage", math.inf) < RECIPE["hidden_voltage"]:
        options["hidden_voltage"] = None
    return {**options, **given}


def _check(weights: Sequence[float], networks: int, options: Mapping[str, Any]) -> None:
    if not weights or len(set(weights)) < len(weights) or not all(0 <= weight < float("inf") for weight in weights):
        raise OptionError(f"the weights of the energy are {list(weights)}; expected different numbers, 0 or more")
    if networks < 1:
        raise OptionError(f"networks is {networks}; expected at least 1")
    fixed = sorted({"energy_weight", "resume", "output", "ideal", "l1"} & set(options))
    if fixed:
        raise OptionError(f"a front sets {', '.join(fixed)} itself; leave them out")


def folder_of(output: Path, weight: float) -> Path:
    """Return the folder of the run of a weight."""
    return output / f"weight-{weight:g}"


def steps(weights: Sequence[float], networks: int, epochs: int) -> int:
    """Return the steps of progress: epochs of each network, and two evaluations."""
    return len(weights) * networks * (epochs + 2)


def _trained(
    tree: xr.DataTree,
    given: Mapping[str, Any],
    data: ImageData,
    output: Path,
    weight: float,
    networks: int,
    seed: int,
    options: Mapping[str, Any],
    progress: Progress | None,
) -> Run:
    """Train the networks of a weight, or what is missing of them."""
    folder = folder_of(output, weight)
    started = (folder / "run.json").exists()

    def told(network: int, row: Mapping[str, float]) -> None:
        if progress is not None:
            progress(1, f"weight {weight:g} network {network} epoch {row['epoch']:.0f} loss {row['train_loss']:.4f}")

    if started and progress is not None:
        opened = runs.open_run(folder)
        known = [opened.checkpoint(network) for network in range(opened.options.networks)]
        progress(sum(state["epoch"] for state in known if state is not None), f"weight {weight:g} so far")
    return training.train(
        tree, output=folder, **given, energy_weight=float(weight), networks=networks, seed=seed, resume=started,
        progress=told, **options,
    )  # fmt: skip


def _evaluated(
    run: Run, data: ImageData, chips: int, seed: int, read_time: float, progress: Progress | None
) -> xr.Dataset:
    """Return errors and energies (network, chip) of a run on validation and test images, as found before or anew."""
    path, key = run.path / PART, {"chips": chips, "seed": seed, "read_time": read_time}
    steps = [run.checkpoint(network) for network in range(run.options.networks)]
    key["epochs"] = str([state["epoch"] for state in steps if state is not None])
    if path.exists():
        known = files.open_netcdf(path, "evaluation", f"delete '{path}'").to_dataset()
        if all(known.attrs.get(name) == value for name, value in key.items()):
            if progress is not None:
                progress(2 * run.options.networks, f"{run.path.name} was evaluated")
            return known
    variables: dict[str, Any] = {}
    for prefix, images, chip_seed in (("", data, seed), ("validation_", validation_images(run, data), seed + 1)):
        hardware = Hardware(run.devices(), run.array())
        text = f"{run.path.name} on {prefix.rstrip('_') or 'test'} images"
        error, energy = evaluation.error_and_energy(
            run, hardware, images, seed=chip_seed, chips=chips, read_time=read_time,
            advance=None if progress is None else lambda network, text=text: progress(1, f"{text}, network {network}"),
        )  # fmt: skip
        variables[f"{prefix}error"] = (("network", "chip"), error)
        variables[f"{prefix}energy"] = (("network", "chip"), energy)
    found = xr.Dataset(variables, attrs={**key, "synapses": synapses(run.network(0, run.devices()))})
    files.write_netcdf(found, path)
    return found


def validation_images(run: Run, data: ImageData) -> ImageData:
    """Return the images with those in the place of the test images that the training of a run kept for validation."""
    _, rows = training.split(run.options.seed, data)
    return dataclasses.replace(data, test_images=data.train_images[rows], test_labels=data.train_labels[rows])


def summarised(found: xr.Dataset, seed: int = 0) -> xr.Dataset:
    """Return errors and energies (weight, network, chip) with their summary for each weight.

    Added, of the test images and, with the prefix validation_, of those kept for validation:

    error_median and its bound : median over networks and chips, with the 95 % interval of 2000 bootstrap samples in
        which networks and chips are drawn anew, crossed (A. B. Owen, Ann. Appl. Stat. 1, 386 (2007), doi
        10.1214/07-AOAS122).
    error_mean and its bound : mean with the interval of `calib.paired.mean`.
    efficiency and its bound [1e12 / (s W)] : 2 N / energy, of the mean energy and its interval; infinite where that
        reaches 0.

    and on_front: whether no other weight has, on the validation images, a median error as low and an efficiency as
    high, one of them better.
    """
    count, read_time = int(found.attrs["synapses"]), float(found.attrs["read_time"])
    new: dict[str, Any] = {}
    for prefix in _SETS:
        error, energy = found[f"{prefix}error"].values, found[f"{prefix}energy"].values
        means, spent = [paired.mean(each) for each in error], [paired.mean(each) for each in energy]
        new[f"{prefix}error_median"] = ("weight", np.median(error, axis=(1, 2)), {"units": "1"})
        bounds = [median_bound(each, seed) for each in error]
        new[f"{prefix}error_median_bound"] = (("weight", "bound"), bounds, {"units": "1"})
        new[f"{prefix}error_mean"] = ("weight", [m.value for m in means], {"units": "1"})
        new[f"{prefix}error_mean_bound"] = (("weight", "bound"), [[m.low, m.high] for m in means], {"units": "1"})
        ends = np.array([[m.value, m.high, m.low] for m in spent])
        with np.errstate(divide="ignore"):  # an interval of the energy from few chips may reach 0
            rate = efficiency(np.maximum(ends, 0)[..., None] / read_time, count, read_time)
        attrs = {"units": "1e12 s-1 W-1", "long_name": "operations per second and watt"}
        new[f"{prefix}efficiency"] = ("weight", rate[:, 0], attrs)
        new[f"{prefix}efficiency_bound"] = (("weight", "bound"), rate[:, 1:], attrs)
    result = found.assign(new).assign_coords(bound=["low", "high"])
    for prefix in _SETS:
        result[f"{prefix}error"].attrs["units"], result[f"{prefix}energy"].attrs["units"] = "1", "J"
    points = np.stack([result["validation_error_median"], -result["validation_efficiency"]], axis=1)
    result["on_front"] = ("weight", not_dominated(points))
    return result


def median_bound(values: np.ndarray, seed: int = 0) -> list[float]:
    """Return the 95 % interval of the median of values (network, chip), by a crossed bootstrap."""
    draw = np.random.default_rng([seed, 0x9A8E])
    networks, chips = values.shape
    rows = draw.integers(networks, size=(_RESAMPLES, networks, 1))
    columns = draw.integers(chips, size=(_RESAMPLES, 1, chips))
    medians = np.median(values[rows, columns], axis=(1, 2))
    tail = 0.5 - paired.LEVEL / 2
    return [float(end) for end in np.quantile(medians, (tail, 1 - tail))]


def not_dominated(points: np.ndarray) -> np.ndarray:
    """Return which points (point, quantity) no other one beats: as small in every quantity and smaller in one."""
    as_small = (points[None] <= points[:, None]).all(-1)  # (point, other)
    smaller = (points[None] < points[:, None]).any(-1)
    return np.logical_not(np.logical_and(as_small, smaller).any(axis=-1))


def open_front(path: str | Path) -> xr.Dataset:
    """Open a front: its folder or its file.

    Raises
    ------
    ModelError
        When it is damaged or no front of calib.
    """
    path = Path(path) / FILE if Path(path).is_dir() else Path(path)
    found = files.open_netcdf(path, "front", "make it again with 'calib pareto'").to_dataset()
    if found.attrs.get("schema") != SCHEMA:
        raise ModelError(
            f"'{path}' is no front: found schema '{found.attrs.get('schema', '')}', expected '{SCHEMA}'; use 'calib "
            "pareto'"
        )
    return found


def rows(found: xr.Dataset) -> list[dict[str, Any]]:
    """Return the front as plain values, one dictionary for each weight; errors in percent, efficiencies in TOPs/W."""
    result = []
    for weight in found["weight"].values:
        one = found.sel(weight=weight)
        row: dict[str, Any] = {"weight": float(weight), "on_front": bool(one["on_front"])}
        for prefix in ("", "validation_"):
            for name, factor in (("error_median", 100), ("error_mean", 100), ("efficiency", 1)):
                low, high = one[f"{prefix}{name}_bound"].values
                key = f"{prefix}{name}" + ("_percent" if factor == 100 else "_tops_per_watt")
                row[key] = factor * float(one[f"{prefix}{name}"])
                row |= {f"{key}_low": factor * float(low), f"{key}_high": factor * float(high)}
        row["energy_joule"] = float(one["energy"].mean())
        result.append(row)
    return result


def best(found: xr.Dataset, least_efficiency: float) -> float | None:
    """Return the weight of least median error, on validation, of those as efficient as asked; None without one."""
    enough = found["validation_efficiency"].values >= least_efficiency
    if not enough.any():
        return None
    error = np.where(enough, found["validation_error_median"].values, np.inf)
    return float(found["weight"].values[int(error.argmin())])
