"""Training networks on memristive devices: new devices are drawn at every step."""

import copy
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn
from torch.nn import functional

from calib import device_model, runs, vision
from calib.crossbar import drawing
from calib.crossbar import mapping as mappings
from calib.crossbar.devices import Devices, generator
from calib.crossbar.layers import Encoded, MemristiveLinear, memristive_layers
from calib.errors import OptionError
from calib.evaluation import chip_performance
from calib.runs import Run, TrainingOptions
from calib.vision import ImageData

LEARNING_RATES = {"adam": 0.01, "sgd": 0.01}
"""Default learning rate of each optimiser; SGD has no momentum."""
SCHEDULES = ("constant", "cosine")
HIDDEN_UNITS = 25
VALIDATION_FRACTION = 0.2
DEFAULT_STEPS, LEAST_EPOCHS = 5_000, 20
_MOST_ENCODED = 2**28  # numbers, 4 bytes each
_ENCODED_AT_ONCE = 4096
Progress = Callable[[int, dict[str, float]], None]
Part = tuple[torch.Tensor, torch.Tensor]


def train(
    device: str | Path | xr.DataTree | None = None,
    *,
    output: str | Path,
    dataset: str | Path | ImageData = "digits",
    data_folder: str | Path | None = None,
    layers: Sequence[int] | None = None,
    mapping: str = "double",
    l1: float = 0.0,
    ideal: bool = False,
    epochs: int | None = None,
    optimizer: str = "adam",
    learning_rate: float | None = None,
    schedule: str = "cosine",
    batch_size: int = 64,
    input_voltage: float = 0.5,
    extrapolate: bool = False,
    seed: int = 0,
    networks: int = 1,
    validation_every: int = 20,
    validation_repeats: int = 20,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train fully connected networks on a device model.

    Hidden layers are sigmoid, the output is softmax with cross-entropy. A fifth of the training images is kept for
    validation, which is repeated over fresh chips after the first, every `validation_every`-th and the last epoch;
    the median error decides the checkpoint that is kept (Joksas et al., Adv. Sci. 9, 2105784 (2022),
    doi 10.1002/advs.202105784). The same options give the same numbers on the same machine, interrupted or not.

    Parameters
    ----------
    device : device model: a tree, a path or a bundled name. With `resume` it may be left out.
    output : run folder, see `calib.runs`.
    dataset : name or path for `calib.vision.load`, or images.
    data_folder : see `calib.vision.load`.
    layers : sizes, inputs first; default: features, 25, classes.
    mapping : 'double', 'lowest' or 'average'.
    l1 : factor of sum |w| over all weights and biases of all layers, added to the mean cross-entropy.
    ideal : train as if devices were ideal, in the same conductance range, so as to evaluate on real ones.
    epochs : passes over the training images; default: as many as make 5000 steps, at least 20.
    optimizer : 'adam' or 'sgd' (without momentum).
    learning_rate : at the start; default 0.01.
    schedule : 'constant', or 'cosine' from the learning rate to 0.
    batch_size : images a step, each step with devices of its own.
    input_voltage : voltage [V] of x = 1.
    extrapolate : accept an input voltage beyond the validity of the device model.
    seed : of everything that is drawn.
    networks : how many to train, differing in all that is drawn but the validation split.
    validation_every, validation_repeats : see above.
    resume : continue a run after its last whole epoch; options, device model and images must be those of the run.
    progress : called with (network, history row) after each epoch.

    Raises
    ------
    OptionError
        When an option cannot be used, the folder exists, or a resumed run has other options or data.
    """
    data = dataset if isinstance(dataset, ImageData) else vision.load(dataset, data_folder=data_folder)
    given = {
        "dataset": None if isinstance(dataset, ImageData) else str(dataset),
        "layers": tuple(layers) if layers else (data.n_features, HIDDEN_UNITS, data.n_classes),
        "mapping": mapping,
        "l1": l1,
        "ideal": ideal,
        "epochs": default_epochs(data, batch_size) if epochs is None else epochs,
        "optimizer": optimizer,
        "learning_rate": LEARNING_RATES.get(optimizer) if learning_rate is None else learning_rate,
        "schedule": schedule,
        "batch_size": batch_size,
        "input_voltage": input_voltage,
        "extrapolate": extrapolate,
        "seed": seed,
        "networks": networks,
        "validation_every": validation_every,
        "validation_repeats": validation_repeats,
    }
    tree = device_model.open_device(device) if isinstance(device, str | Path) else device
    if resume:
        return resume_run(output, given=given, device=tree, data=data, progress=progress)
    if tree is None:
        raise OptionError("no device model was given; give a path, a bundled name ('calib models list') or a tree")
    options = TrainingOptions(**given)
    _check(options, data)
    Devices.from_model(tree, input_voltage=input_voltage, extrapolate=extrapolate)
    run = runs.create_run(Path(output), options, tree, data)
    return _train_all(run, data, progress)


def default_epochs(data: ImageData, batch_size: int) -> int:
    """Return the epochs of 5000 steps, at least 20."""
    steps = math.ceil((1 - VALIDATION_FRACTION) * len(data.train_images) / max(batch_size, 1))
    return max(LEAST_EPOCHS, math.ceil(DEFAULT_STEPS / steps))


def resume_run(
    output: str | Path,
    *,
    given: dict[str, Any] | None = None,
    device: xr.DataTree | None = None,
    data: ImageData | None = None,
    data_folder: str | Path | None = None,
    progress: Progress | None = None,
) -> Run:
    """Continue a run after its last whole epoch; the result is that of a run that was never interrupted.

    Parameters
    ----------
    output : run folder.
    given : options that must be those of the run.
    device, data : device model and images that must be those of the run; default: its own.
    data_folder : see `calib.vision.load`.
    progress : see `train`.

    Raises
    ------
    ModelError
        When the folder is no run.
    OptionError
        When options, device model or images are not those of the run.
    """
    run = runs.open_run(output)
    for name, value in (given or {}).items():
        stored = getattr(run.options, name)
        if value != stored and name != "dataset":
            raise OptionError(
                f"the run '{output}' has {name} = {stored}, but {value} was given; leave the option out, or start "
                "another run"
            )
    if device is not None and device_model.identity(device) != run.record["device"]["sha256"]:
        raise OptionError(f"the run '{output}' was trained on another device model; leave it out, or start another run")
    return _train_all(run, run.data(data, data_folder), progress)


def _check(options: TrainingOptions, data: ImageData) -> None:
    """Check all options and raise their problems together."""
    o, problems = options, []
    for name, value, known in (
        ("mapping", o.mapping, mappings.MAPPINGS),
        ("optimizer", o.optimizer, tuple(LEARNING_RATES)),
        ("schedule", o.schedule, SCHEDULES),
    ):
        if value not in known:
            problems.append(f"{name} is '{value}'; expected one of {', '.join(known)}")
    if len(o.layers) < 2 or o.layers[0] != data.n_features or o.layers[-1] < data.n_classes or min(o.layers) < 1:
        problems.append(
            f"layers are {'-'.join(map(str, o.layers))}; '{data.name}' needs {data.n_features} first and at least "
            f"{data.n_classes} last"
        )
    for name in ("epochs", "batch_size", "networks", "validation_every", "validation_repeats"):
        if getattr(o, name) < 1:
            problems.append(f"{name} is {getattr(o, name)}; expected at least 1")
    if not (o.learning_rate and o.learning_rate > 0):
        problems.append(f"learning_rate is {o.learning_rate}; expected more than 0")
    if not o.l1 >= 0:
        problems.append(f"l1 is {o.l1}; expected 0 or more")
    if problems:
        raise OptionError("; ".join(problems))


def _train_all(run: Run, data: ImageData, progress: Progress | None) -> Run:
    split = torch.randperm(len(data.train_images), generator=generator(run.options.seed, "split")).numpy()
    held = round(VALIDATION_FRACTION * len(split))
    if not 0 < held < len(split):
        raise OptionError(f"'{data.name}' has {len(split)} training images; expected at least 5, a fifth validates")
    parts = [
        (torch.tensor(data.train_images[rows]), torch.tensor(data.train_labels[rows]))
        for rows in (np.sort(split[held:]), np.sort(split[:held]))
    ]
    for network in range(run.options.networks):
        _train_network(run, network, parts[0], parts[1], progress)
    return run


def _train_network(run: Run, network: int, train_part: Part, validation_part: Part, progress: Progress | None) -> None:
    devices = run.devices()
    model = run.new_network(network, devices.ideal() if run.options.ideal else devices)
    optimizer = _optimizer(run.options, model)
    state = run.checkpoint(network)
    if state is None:
        state = {"epoch": 0, "best": {}, "best_error": math.inf, "best_epoch": 0, "history": []}
    else:
        model.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
    for epoch in range(state["epoch"] + 1, run.options.epochs + 1):
        row = {"epoch": float(epoch), **_epoch(run.options, network, epoch, model, optimizer, train_part)}
        row |= _validate(run.options, network, epoch, model, validation_part)
        if row["validation_error_median"] < state["best_error"]:
            state |= {
                "best": copy.deepcopy(model.state_dict()),
                "best_error": row["validation_error_median"],
                "best_epoch": epoch,
            }
        state |= {"epoch": epoch, "network": model.state_dict(), "optimizer": optimizer.state_dict()}
        state["history"].append(row)
        runs.write_checkpoint(run, network, state)
        if progress is not None:
            progress(network, row)


def _optimizer(options: TrainingOptions, model: nn.Module) -> torch.optim.Optimizer:
    kind = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}[options.optimizer]
    return kind(model.parameters(), lr=options.learning_rate, fused=True)


def _epoch(
    options: TrainingOptions,
    network: int,
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    part: Part,
) -> dict[str, float]:
    """Train for one epoch; all random numbers follow from (seed, network, epoch)."""
    model.train()
    images, labels = part
    layers = memristive_layers(model)
    for index, layer in enumerate(layers):
        layer.generator = generator(options.seed, network, "devices", epoch, index)
    inputs = encoded(model, images)
    order = torch.randperm(len(images), generator=generator(options.seed, network, "order", epoch))
    batches = order.split(options.batch_size)
    loss_sum, wrong = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    for index, rows in enumerate(batches):
        rate = _learning_rate(options, (epoch - 1 + index / len(batches)) / options.epochs)
        for group in optimizer.param_groups:
            group["lr"] = rate
        loss, logits, target = step(model, layers, optimizer, inputs[rows], labels[rows], options.l1)
        loss_sum += loss * len(rows)
        wrong += (logits.argmax(1) != target).sum()
    return {
        "learning_rate": optimizer.param_groups[0]["lr"],
        "train_loss": float(loss_sum) / len(images),
        "train_error": int(wrong) / len(images),
    }


def encoded(model: nn.Module, images: torch.Tensor) -> torch.Tensor | Encoded:
    """Return images as what the first layer multiplies with devices, where that is the same at each step and fits."""
    first = model[0] if isinstance(model, nn.Sequential) else None
    if not (isinstance(first, MemristiveLinear) and first.by_product and images.dim() == 2):
        return images
    if len(images) * first.plan.size * first.word_lines > _MOST_ENCODED:
        return images
    with torch.no_grad():
        parts = [first.encode(part).basis for part in images.split(_ENCODED_AT_ONCE)]
    return Encoded(torch.cat(parts))


def step(
    model: nn.Module,
    layers: list[MemristiveLinear],
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor | Encoded,
    labels: torch.Tensor,
    l1: float = 0.0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Make one step on one batch with new devices; return cross-entropy, outputs and labels."""
    optimizer.zero_grad(set_to_none=True)
    for layer, drawn in zip(layers, drawing.draw(layers), strict=True):
        layer.drawn = drawn
    logits = model(images)
    loss = functional.cross_entropy(logits, labels)
    loss.backward()
    for layer in layers:
        layer.drawn = None
    if l1:
        for layer in layers:
            assert layer.weight.grad is not None
            layer.weight.grad.add_(layer.weight.detach().sign(), alpha=l1)
    optimizer.step()
    for layer in layers:
        layer.project()
    return loss.detach(), logits.detach(), labels


def _learning_rate(options: TrainingOptions, fraction: float) -> float:
    """Return the learning rate after a fraction of the training."""
    if options.schedule == "constant":
        return options.learning_rate
    return options.learning_rate * 0.5 * (1 + math.cos(math.pi * fraction))


def _validate(options: TrainingOptions, network: int, epoch: int, model: nn.Module, part: Part) -> dict[str, float]:
    """Return the median, least and largest error over chips; NaN in epochs without validation."""
    if epoch != 1 and epoch % options.validation_every and epoch != options.epochs:
        return dict.fromkeys(runs.HISTORY[-4:], math.nan)
    seed = f"{options.seed}/{network}/validation/{epoch}"
    chips = range(options.validation_repeats)
    found = chip_performance(model.eval(), *part, seed=seed, chips=chips, power=False)
    error = 1 - found.accuracy
    values = (np.median(found.loss), np.median(error), error.min(), error.max())
    return dict(zip(runs.HISTORY[-4:], map(float, values), strict=True))
