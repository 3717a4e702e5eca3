"""The folder of a training run: what was asked for, the device model, checkpoints and histories.

=========================== ====================================================================================
run.json                    options, seed, versions, names and hashes of device model and data set; of a network of
                            the user the hash of its file
device.nc                   copy of the device model, so that a run needs nothing else but its data set
network-0/checkpoint.pt     weights, their average, best weights, optimiser state and history after the last
                            whole epoch
network-0/history.csv       one line an epoch
=========================== ====================================================================================

Random numbers of an epoch follow from (seed, network, epoch) alone, so that a checkpoint holds no generator.
"""

import json
import pickle  # noqa: TID251 - for its error alone
import platform
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from calib import __version__, device_model, files, networks, vision
from calib.crossbar.array import Array
from calib.crossbar.devices import Devices
from calib.crossbar.layers import memristive_layers
from calib.errors import ModelError, OptionError
from calib.vision import ImageData

SCHEMA = "calib-run/1"
HISTORY = (
    "epoch",
    "learning_rate",
    "train_loss",
    "train_error",
    "line_residual",
    "validation_loss_median",
    "validation_error_median",
    "validation_error_low",
    "validation_error_high",
)
"""Columns of history.csv; low and high are the smallest and largest of the repeats, empty in epochs without;
the residual is that of nonlinear devices on lines with resistance, see `calib.crossbar.tile_outputs.take_residual`."""


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides a run, besides the device model and the images; see `calib.training.train`.

    `array` is text of `Array.from_options` ('' is ideal), `network` names a function of the user ('' is fully connected
    layers of the sizes `layers`, which are empty otherwise). Runs from before an option was there have its default.
    """

    dataset: str | None
    layers: tuple[int, ...]
    mapping: str
    l1: float
    ideal: bool
    epochs: int
    optimizer: str
    learning_rate: float
    schedule: str
    batch_size: int
    input_voltage: float
    extrapolate: bool
    seed: int
    networks: int
    validation_every: int
    validation_repeats: int
    array: str = ""
    network: str = ""
    momentum: float = 0.0
    warm_up: float = 0.0
    draws: int = 1
    average: str = ""
    energy_weight: float = 0.0
    clip_gradient: float | None = None
    patience: int | None = None
    scale: str = "largest"
    variation: str = "devices"
    bias: str = "line"
    hidden_voltage: float | None = None

    @property
    def architecture(self) -> str:
        """The network in a word: sizes such as '784-25-10', or module:function."""
        return self.network or "-".join(map(str, self.layers))


def array_text(array: "str | Array") -> str:
    """Return an array as text, the same for the same array; '' is ideal.

    Raises
    ------
    OptionError
        When the text cannot be used.
    """
    given = Array.from_options(array)
    return "" if given == Array() else ",".join(f"{key}={value}" for key, value in given.to_options().items())


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    python = platform.python_version()
    return {"calib": __version__, "torch": torch.__version__, "numpy": np.__version__, "python": python}


@dataclass(frozen=True, eq=False)
class Run:
    """A training run on disk.

    Attributes
    ----------
    path : its folder.
    options : what was asked for.
    device : the device model it was trained on.
    record : content of run.json.
    """

    path: Path
    options: TrainingOptions
    device: xr.DataTree
    record: dict[str, Any]

    def folder(self, network: int) -> Path:
        """Return the folder of a network."""
        return self.path / f"network-{network}"

    def devices(self, tree: xr.DataTree | None = None, *, extrapolate: bool = False) -> Devices:
        """Return the devices of a model (default: that of the run) at the run's input voltage."""
        return Devices.from_model(
            self.device if tree is None else tree,
            input_voltage=self.options.input_voltage,
            extrapolate=extrapolate or self.options.extrapolate,
        )

    def array(self) -> Array:
        """Return the array that the networks were trained on."""
        return Array.from_options(self.options.array)

    def new_network(self, network: int, devices: Devices) -> nn.Sequential:
        """Return a network with its first weights, on the array of the run.

        Raises
        ------
        OptionError
            When a network of the user cannot be made, or its file is not the one of the training.
        """
        o, key = self.options, (self.options.seed, network)
        if not o.network:
            hardware = (self.array(), o.bias, o.hidden_voltage)
            return networks.build_network(o.layers, o.mapping, devices, key, *hardware)
        recorded = self.record["network"]
        if networks.source_hash(o.network) != recorded["sha256"]:
            raise OptionError(
                f"the file of the network {o.network} is not the one that the run '{self.path}' was trained with (SHA-"
                f"256 {recorded['sha256'][:12]}); restore it, or train again"
            )
        sizes = (tuple(recorded["image_shape"]), recorded["n_classes"])
        return networks.build_own_network(o.network, *sizes, o.mapping, devices, key, self.array(), o.bias)

    def network(self, network: int, devices: Devices, array: Array | None = None) -> nn.Sequential:
        """Return a trained network, at its best checkpoint, on the given devices.

        Parameters
        ----------
        network : its number.
        devices : what its layers are made of.
        array : default: that of the run; the converters of another one are not calibrated yet.

        Raises
        ------
        ModelError
            When it is not trained yet, or its weights do not fit.
        """
        state = self.checkpoint(network)
        if state is None:
            raise ModelError(f"network {network} of the run '{self.path}' has no checkpoint yet; train it first")
        result = self.new_network(network, devices)
        try:
            result.load_state_dict(state["best"])
        except RuntimeError as error:
            reason = " ".join(str(error).split())
            raise ModelError(f"the weights of the run '{self.path}' do not fit its network: {reason}") from error
        if array is not None:
            for layer in memristive_layers(result):
                layer.set_array(array)
        return result.eval()

    def checkpoint(self, network: int) -> dict[str, Any] | None:
        """Return the last checkpoint of a network, None if there is none.

        Raises
        ------
        ModelError
            When the file is damaged or of something else.
        """
        path = self.folder(network) / "checkpoint.pt"
        if not path.exists():
            return None
        try:
            state = torch.load(path, weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
            raise ModelError(f"'{path}' cannot be read as a checkpoint; it is damaged; train again") from error
        if not isinstance(state, dict) or "best" not in state or "history" not in state:
            raise ModelError(f"'{path}' is no checkpoint of calib; expected the weights and history of a network")
        return state

    def history(self, network: int) -> list[dict[str, float]]:
        """Return the history of a network, one dictionary an epoch."""
        state = self.checkpoint(network)
        return [] if state is None else state["history"]

    def data(self, data: ImageData | None = None, data_folder: str | Path | None = None) -> ImageData:
        """Return the images that the run was trained on, loaded again (from another place, if given) or checked.

        Raises
        ------
        OptionError
            When the content differs, or only Python can give it.
        """
        recorded = self.record["data"]
        if data is None and self.options.dataset is None:
            raise OptionError(
                f"the run '{self.path}' was trained on images '{recorded['name']}' given from Python; give them again"
            )
        if data is None:
            name = str(self.options.dataset)
            moved = data_folder is not None and name not in vision.names()
            data = vision.load(str(data_folder)) if moved else vision.load(name, data_folder=data_folder)
        if data.sha256 != recorded["sha256"]:
            raise OptionError(
                f"the run '{self.path}' was trained on '{recorded['name']}' with SHA-256 {recorded['sha256'][:12]}, "
                f"but '{data.name}' has {data.sha256[:12]}; give the same images"
            )
        return data


def create_run(path: Path, options: TrainingOptions, device: xr.DataTree, data: ImageData) -> Run:
    """Make a new run folder.

    Raises
    ------
    OptionError
        When the folder exists and is not empty.
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise OptionError(f"'{path}' exists already; continue it with --resume (resume=True), or give another folder")
    record = {
        "schema": SCHEMA,
        "options": asdict(options),
        "versions": versions(),
        "device": {"name": device.attrs.get("name", ""), "sha256": device_model.identity(device)},
        "data": {"name": data.name, "source": data.source, "sha256": data.sha256},
    }
    if options.network:
        record["network"] = {
            "sha256": networks.source_hash(options.network),
            "image_shape": list(data.image_shape),
            "n_classes": data.n_classes,
        }
    device_model.save(device, path / "device.nc")
    files.write_text(path / "run.json", json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return open_run(path)


def open_run(path: str | Path) -> Run:
    """Open a run folder.

    Raises
    ------
    ModelError
        When it is no run of calib, or its device model is not the one that it names.
    """
    path = Path(path)
    try:
        record = json.loads((path / "run.json").read_text(encoding="utf-8"))
        if record.get("schema") != SCHEMA:
            raise ModelError(f"'{path}' has the schema '{record.get('schema')}'; this calib reads '{SCHEMA}'")
        values = record["options"]
        expected = {field.name: field.default is MISSING for field in fields(TrainingOptions)}
        wrong = [name for name in values if name not in expected]
        wrong += [name for name, needed in expected.items() if needed and name not in values]
        if wrong:
            raise ModelError(f"run.json of '{path}' has other options than expected: {sorted(wrong)}")
        options = TrainingOptions(**{**values, "layers": tuple(values["layers"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"'{path}' is no run of calib: run.json cannot be used ({error}); give a folder that "
                         "'calib train' made") from error  # fmt: skip
    device = device_model.open_device(path / "device.nc")
    if device_model.identity(device) != record["device"]["sha256"]:
        raise ModelError(f"device.nc of the run '{path}' is not the one it was trained on; restore it, or train again")
    return Run(path, options, device, record)


def _cell(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.9g}"


def write_checkpoint(run: Run, network: int, state: dict[str, Any]) -> None:
    """Write a checkpoint and the history, atomically."""
    folder = run.folder(network)
    with files.atomic_write(folder / "checkpoint.pt") as temporary:
        torch.save(state, temporary)
    lines = [",".join(HISTORY)]
    for row in state["history"]:
        lines.append(",".join(_cell(row.get(key, np.nan)) for key in HISTORY))
    files.write_text(folder / "history.csv", "\n".join(lines) + "\n")
