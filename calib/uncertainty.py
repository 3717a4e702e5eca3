"""What chips, trained networks and the limited knowledge of the device each add to the spread of error and energy."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr

from calib import __version__, device_model, files, runs
from calib.characteristics import members
from calib.energy import READ_TIME, energy_per_inference
from calib.errors import CalibError, OptionError
from calib.evaluation import chip_performance
from calib.runs import Run
from calib.sampling import sample_model
from calib.variance_split import COMPONENTS, split_variance
from calib.vision import ImageData

SCHEMA = "calib-uncertainty/1"
QUANTITIES = {
    "error": ("1", "fraction of test images classified wrongly"),
    "energy_per_inference": ("J", "energy of one inference, devices only"),
}
MEANINGS = {
    "chip": "chip to chip",
    "network": "network to network",
    "model": "not known about the device",
    "interaction": "networks that differ in how they bear a device",
}
_ALWAYS = ("iv", "conductance", "programming", "stuck")  # nodes that `sample_model` draws itself
_NOT_USED = ("switching", "cycles", "selection")  # how devices switch: nothing that a programmed crossbar computes with
_DIMS = ("network", "model", "chip")
_CHECKED = 4.0  # times as many devices, in the check of the 1/n law


def uncertainty(
    run: str | Path | Run | Sequence[str | Path | Run],
    device: str | Path | xr.DataTree | None = None,
    *,
    models: int = 20,
    chips: int = 10,
    seed: int = 0,
    characteristics: bool = False,
    check: bool = False,
    data: ImageData | None = None,
    data_folder: str | Path | None = None,
    read_time: float = READ_TIME,
    extrapolate: bool = False,
    output: str | Path | None = None,
    progress: Callable[..., Any] | None = None,
) -> xr.Dataset:
    """Split the variance of error and energy into chips, networks and what is not known about the device.

    The device model is drawn `models` times within its parameter uncertainty (`calib.sample_model`); on each draw
    `chips` chips of each trained network are evaluated. Every network and draw has chips of its own, so that the
    split is that of crossed random effects with nested chips (`calib.variance_split`).

    Weights are mapped onto the conductance range of the drawn model: whoever programs the chips is taken to know the
    range of their devices. Numbers of the model whose uncertainty is not known stay as they are (`not_drawn`).

    Parameters
    ----------
    run : run folders with layers of the same sizes; two networks or more tell networks from devices.
    device : device model; default: that of the first run.
    models : draws of the device model, 2 or more.
    chips : chips of each network and draw, 2 or more.
    seed : of the draws and the chips.
    characteristics : repeat with one characteristic (a node of the model) drawn at a time and the others held.
    check : repeat with the same draws brought half way to the fitted model, as four times as many devices would: where
        the standard deviation 'model' is halved, its 1 / sqrt(n) holds.
    data, data_folder, read_time, extrapolate : see `calib.evaluate`.
    output : file to write the result to, netCDF-4.
    progress : called with (n=1, text) after each network and draw.

    Returns
    -------
    xarray.Dataset
        `error` and `energy_per_inference` (network, model, chip); `variance` with `variance_unbiased`, `variance_low`
        and `variance_high` (quantity, component), 95 %, in the squared units of the quantity; `nominal` (quantity,
        network) the mean on the fitted model; with `characteristics` the variances of 'model' for each; with `check`
        `check_ratio` (quantity).

    Raises
    ------
    OptionError
        When an option cannot be used, or the model has nothing that could be drawn.
    """
    opened = [item if isinstance(item, Run) else runs.open_run(item) for item in _listed(run)]
    _check(opened, models, chips, read_time)
    parent = opened[0].device if device is None else _opened(device)
    draws = [drawn_model(parent, _model_seed(seed, index)) for index in range(models)]
    names = drawn_names(parent, draws)
    if not names:
        raise OptionError(
            f"no number of the device model '{parent.attrs.get('name', '')}' has a known uncertainty, so that nothing "
            "can be drawn; give a model that was fitted to measurements ('calib fit')"
        )
    study = _Study(opened, chips, seed, data, data_folder, read_time, extrapolate, progress)
    found = study.values(draws)
    result = _dataset(found, study, seed)
    result["nominal"] = (("quantity", "network"), np.array([v.mean((1, 2)) for v in study.values([parent]).values()]))
    if characteristics:
        parts = {name: study.values([only(parent, draw, name) for draw in draws], name) for name in names}
        result = _with_characteristics(result, parts, seed)
    if check:
        closer = study.values([shrunk(parent, draw, _CHECKED) for draw in draws], "four times the devices")
        result["check_ratio"] = ("quantity", [_ratio(found[key], closer[key], seed) for key in QUANTITIES])
    result.attrs = _attributes(opened, parent, draws, names, study, seed)
    if output is not None:
        files.write_netcdf(result, output)
    return result


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _opened(device: Any) -> xr.DataTree:
    if isinstance(device, str) and device == "ideal":
        raise OptionError("the device is 'ideal', of which nothing is uncertain; give a device model")
    return device if isinstance(device, xr.DataTree) else device_model.open_device(device)


def _model_seed(seed: int, index: int) -> int:
    return int(np.random.SeedSequence([seed, index]).generate_state(1, np.uint64)[0] >> np.uint64(1))


def _check(opened: list[Run], models: int, chips: int, read_time: float) -> None:
    if not opened:
        raise OptionError("no run was given; give folders that 'calib train' made")
    if models < 2 or chips < 2 or not read_time > 0:
        raise OptionError(
            f"{models} device models, {chips} chips and a read time of {read_time} s were asked for; expected at least "
            "2, 2 and more than 0"
        )
    sizes = {item.options.layers for item in opened}
    if len(sizes) > 1:
        listed = ", ".join("-".join(map(str, size)) for size in sorted(sizes))
        raise OptionError(f"the runs have layers of different sizes ({listed}); give them one after the other")


class _Study:
    """The networks of runs, whose chips are evaluated on device models."""

    def __init__(
        self,
        opened: list[Run],
        chips: int,
        seed: int,
        data: ImageData | None,
        data_folder: str | Path | None,
        read_time: float,
        extrapolate: bool,
        progress: Callable[..., Any] | None,
    ) -> None:
        self.opened, self.chips, self.seed = opened, chips, seed
        self.read_time, self.extrapolate, self.progress = read_time, extrapolate, progress
        self.images = [data if data is not None else item.data(None, data_folder) for item in opened]
        self.names = [
            f"{item.path.resolve().name}/{index}" for item in opened for index in range(item.options.networks)
        ]

    def values(self, trees: Sequence[xr.DataTree], text: str = "") -> dict[str, np.ndarray]:
        """Return each quantity (network, model, chip) on device models."""
        rows = []
        for item, images in zip(self.opened, self.images, strict=True):
            test = torch.tensor(images.test_images), torch.tensor(images.test_labels)
            made = [self._devices(item, tree, index) for index, tree in enumerate(trees)]
            for index in range(item.options.networks):
                row = []
                for model, devices in enumerate(made):
                    seed = f"{self.seed}/{len(rows)}/{model}"
                    network = item.network(index, devices)
                    row.append(chip_performance(network, *test, seed=seed, chips=range(self.chips)))
                    if self.progress is not None:
                        self.progress(1, f"{self.names[len(rows)]} {text}".rstrip())
                rows.append(row)
        power = np.array([[cell.power for cell in row] for row in rows])
        accuracy = np.array([[cell.accuracy for cell in row] for row in rows], dtype=float)
        return {"error": 1 - accuracy, "energy_per_inference": energy_per_inference(power, self.read_time)}

    def _devices(self, item: Run, tree: xr.DataTree, index: int) -> Any:
        try:
            return item.devices(tree, extrapolate=self.extrapolate)
        except CalibError as error:
            raise OptionError(f"draw {index} of the device model cannot be used: {error}") from error


def drawn_model(parent: xr.DataTree, seed: int) -> xr.DataTree:
    """Draw a device model with which crossbars can be computed, see `calib.sample_model`.

    Where no stuck device was measured, it is not known at which conductance one would be stuck: the probability, which
    the measurement bounds but does not give, is then held and is listed among the numbers that were not drawn.
    """
    draw = sample_model(parent, seed)
    if "stuck" in draw.children and not draw["stuck"].to_dataset()["conductance"].size:
        known = json.loads(draw.attrs["draw"])
        known["not_drawn"].append("stuck/probability: no stuck device was measured")
        draw = only(draw, parent, "stuck")
        draw.attrs["draw"] = json.dumps(known, sort_keys=True)
    return draw


def drawn_names(parent: xr.DataTree, draws: Sequence[xr.DataTree]) -> list[str]:
    """Return the nodes that crossbars depend on and of which the draws differ from the model."""
    known = [name for name in (*_ALWAYS, *(member.node for member in members(parent))) if name not in _NOT_USED]
    return [
        name
        for name in dict.fromkeys(known)
        if name in parent.children
        and any(not draw[name].to_dataset().equals(parent[name].to_dataset()) for draw in draws)
    ]


def only(parent: xr.DataTree, draw: xr.DataTree, name: str) -> xr.DataTree:
    """Return the model with one node as in a draw."""
    nodes = {f"/{key}": parent[key].to_dataset() for key in draw.children if key in parent.children}
    result = xr.DataTree.from_dict({**nodes, f"/{name}": draw[name].to_dataset()})
    result.attrs = dict(parent.attrs)
    return result


def shrunk(parent: xr.DataTree, draw: xr.DataTree, factor: float) -> xr.DataTree:
    """Return a draw as `factor` times as many devices would give it: each number's deviation over sqrt(factor).

    Numbers, quantile functions and covariances are moved along the straight line between model and draw, which keeps
    probabilities, orders and positive definite matrices; what is no number stays as it was drawn.
    """
    share = 1 / np.sqrt(factor)
    nodes = {}
    for name in draw.children:
        old, new = parent[name].to_dataset(), draw[name].to_dataset()
        changed = {}
        for key in new.data_vars:
            if new[key].dtype.kind == "f" and key in old and old[key].shape == new[key].shape:
                start, end = np.asarray(old[key].values, dtype=float), new[key].values
                both = np.isfinite(start) & np.isfinite(end)
                moved = np.where(both, start, 0) * (1 - share) + np.where(both, end, 0) * share
                changed[key] = new[key].copy(data=np.where(both, moved, end))
        nodes[f"/{name}"] = new.assign(changed)
    result = xr.DataTree.from_dict(nodes)
    result.attrs = dict(draw.attrs)
    return result


def devices_measured(parent: xr.DataTree, names: Sequence[str]) -> dict[str, int | None]:
    """Return for each node how many devices it was fitted to (the fewest of its states), None where it does not say."""
    found: dict[str, int | None] = {}
    for name in names:
        node = parent[name].to_dataset()
        known = [int(np.min(node[key].values)) for key in ("n_devices", "n_g_off", "n_g_on") if key in node]
        found[name] = min(known) if known and min(known) > 0 else None
    return found


def _ratio(full: np.ndarray, closer: np.ndarray, seed: int) -> float:
    before, after = (split_variance(values, seed)["model"].unbiased for values in (full, closer))
    return float(np.sqrt(after / before)) if before > 0 and after > 0 else float("nan")


def _dataset(found: dict[str, np.ndarray], study: _Study, seed: int) -> xr.Dataset:
    variables: dict[str, Any] = {
        key: (_DIMS, values, {"units": QUANTITIES[key][0], "long_name": QUANTITIES[key][1]})
        for key, values in found.items()
    }
    splits = [split_variance(values, seed) for values in found.values()]
    for name, key in (("variance", "variance"), ("variance_unbiased", "unbiased"), ("variance_low", "low"),
                      ("variance_high", "high")):  # fmt: skip
        table = np.array([[asdict(split[component])[key] for component in COMPONENTS] for split in splits])
        variables[name] = (("quantity", "component"), table)
    shape = next(iter(found.values())).shape
    coordinates = {
        "network": study.names,
        "model": np.arange(shape[1]),
        "chip": np.arange(shape[2]),
        "quantity": list(found),
        "component": list(COMPONENTS),
    }
    return xr.Dataset(variables, coords=coordinates)


def _with_characteristics(result: xr.Dataset, parts: dict[str, dict[str, np.ndarray]], seed: int) -> xr.Dataset:
    """Add the variance 'model' that each characteristic causes by itself."""
    splits = [[split_variance(values[key], seed)["model"] for values in parts.values()] for key in QUANTITIES]
    found = result.assign_coords(characteristic=list(parts))
    for name, key in (("variance", "variance"), ("variance_low", "low"), ("variance_high", "high")):
        table = np.array([[asdict(component)[key] for component in row] for row in splits])
        found[f"characteristic_{name}"] = (("quantity", "characteristic"), table)
    return found


def _attributes(
    opened: list[Run], parent: xr.DataTree, draws: list[xr.DataTree], names: list[str], study: _Study, seed: int
) -> dict[str, Any]:
    kept = json.loads(draws[0].attrs["draw"])["not_drawn"]
    return {
        "schema": SCHEMA,
        "calib_version": __version__,
        "device": str(parent.attrs.get("name", "")),
        "device_hash": device_model.identity(parent),
        "drawn": json.dumps(names),
        "not_drawn": json.dumps(kept, ensure_ascii=False),
        "devices_measured": json.dumps(devices_measured(parent, names), sort_keys=True),
        "options": json.dumps(
            {
                "models": len(draws),
                "chips": study.chips,
                "read_time": study.read_time,
                "extrapolate": study.extrapolate,
            }
        ),
        "seed": int(seed),
        "versions": json.dumps(runs.versions(), sort_keys=True),
        "training": json.dumps([item.record for item in opened], sort_keys=True, ensure_ascii=False),
    }


def more_devices(result: xr.Dataset, factor: float = 2.0) -> dict[str, int | None]:
    """Return how many more devices of each characteristic divide the standard deviation 'model' by `factor`.

    The uncertainty of a fitted number falls as 1 / sqrt(n) of its devices, and so does what it causes in error and
    energy as long as these respond linearly (`check` says whether they do): n (factor^2 - 1) more are needed, of every
    characteristic that counts. None where the model does not say n.

    Raises
    ------
    OptionError
        When the factor is not more than 1.
    """
    if not factor > 1:
        raise OptionError(f"the standard deviation is to be divided by {factor}; expected more than 1")
    measured = json.loads(result.attrs["devices_measured"])
    return {name: None if n is None else int(np.ceil(round(n * (factor**2 - 1), 6))) for name, n in measured.items()}
