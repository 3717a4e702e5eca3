"""The folder of a training run: what was asked for, the device model, checkpoints and histories.

=========================== ====================================================================================
run.json                    options, seed, versions, device model's name and hash, data set's name and hash
device.nc                   copy of the device model, so that a run needs nothing else but its data set
network-0/checkpoint.pt     weights, best weights, optimiser state and history after the last whole epoch
network-0/history.csv       one line an epoch
=========================== ====================================================================================

Random numbers of an epoch follow from (seed, network, epoch) alone, so that a checkpoint holds no generator.
"""

import itertools
import json
import pickle  # noqa: TID251 - for its error alone
import platform
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from calib import __version__, device_model, files, vision
from calib.crossbar.devices import Devices, generator
from calib.crossbar.layers import MemristiveLinear
from calib.errors import ModelError, OptionError
from calib.vision import ImageData

SCHEMA = "calib-run/1"
HISTORY = (
    "epoch",
    "learning_rate",
    "train_loss",
    "train_error",
    "validation_loss_median",
    "validation_error_median",
    "validation_error_low",
    "validation_error_high",
)
"""Columns of history.csv; low and high are the smallest and largest of the repeats, empty in epochs without."""


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides a run, besides the device model and the images; see `calib.training.train`."""

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


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    python = platform.python_version()
    return {"calib": __version__, "torch": torch.__version__, "numpy": np.__version__, "python": python}


def build_network(layers: tuple[int, ...], mapping: str, devices: Devices, key: tuple[int | str, ...]) -> nn.Sequential:
    """Return memristive layers of the given sizes with sigmoids between them; `key` draws the first weights."""
    parts: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(itertools.pairwise(layers)):
        if parts:
            parts.append(nn.Sigmoid())
        first = generator(*key, "first", index)
        parts.append(MemristiveLinear(n_in, n_out, devices, mapping=mapping, first=first))
    return nn.Sequential(*parts)


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

    def new_network(self, network: int, devices: Devices) -> nn.Sequential:
        """Return a network with its first weights."""
        return build_network(self.options.layers, self.options.mapping, devices, (self.options.seed, network))

    def network(self, network: int, devices: Devices) -> nn.Sequential:
        """Return a trained network, at its best checkpoint, on the given devices."""
        state = self.checkpoint(network)
        if state is None:
            raise ModelError(f"network {network} of the run '{self.path}' has no checkpoint yet; train it first")
        result = self.new_network(network, devices)
        result.load_state_dict(state["best"])
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
        expected = {field.name for field in fields(TrainingOptions)}
        if set(values) != expected:
            raise ModelError(f"run.json of '{path}' has other options than expected: {sorted(set(values) ^ expected)}")
        options = TrainingOptions(**{**values, "layers": tuple(values["layers"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"'{path}' is no run of calib: run.json cannot be used ({error}); give a folder that "
                         "'calib train' made") from error  # fmt: skip
    device = device_model.open_device(path / "device.nc")
    if device_model.identity(device) != record["device"]["sha256"]:
        raise ModelError(f"device.nc of the run '{path}' is not the one it was trained on; restore it, or train again")
    return Run(path, options, device, record)


def write_checkpoint(run: Run, network: int, state: dict[str, Any]) -> None:
    """Write a checkpoint and the history, atomically."""
    folder = run.folder(network)
    with files.atomic_write(folder / "checkpoint.pt") as temporary:
        torch.save(state, temporary)
    lines = [",".join(HISTORY)]
    for row in state["history"]:
        lines.append(",".join("" if np.isnan(row[key]) else f"{row[key]:.9g}" for key in HISTORY))
    files.write_text(folder / "history.csv", "\n".join(lines) + "\n")
