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

from calib import device_model, runs, schedules, vision
from calib.averaging import AveragedNetwork, Averaging
from calib.crossbar import tile_outputs
from calib.crossbar.array import Array
from calib.crossbar.calibration import calibrate
from calib.crossbar.devices import Devices, generator
from calib.crossbar.layers import Encoded, MemristiveLinear, memristive_layers
from calib.crossbar.mapping import mapping as mapping_of
from calib.errors import OptionError
from calib.evaluation import chip_performance
from calib.learned_scale import LearnedScale
from calib.moment_step import Inputs, MomentStep, moments_of, prepared
from calib.moments import Moments
from calib.networks import own_random_numbers
from calib.runs import Run, TrainingOptions
from calib.training_checks import LEARNING_RATES, check, check_network, layer_sizes
from calib.training_step import step
from calib.vision import ImageData

VALIDATION_FRACTION = 0.2
DEFAULT_STEPS, LEAST_EPOCHS = 5_000, 20
CALIBRATION_IMAGES, _CALIBRATED_AT_ONCE = 512, 128
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
    array: str | Array = "",
    network: str = "",
    momentum: float = 0.0,
    warm_up: float = 0.0,
    draws: int = 1,
    average: str = "",
    energy_weight: float = 0.0,
    clip_gradient: float | None = None,
    patience: int | None = None,
    scale: str = "largest",
    variation: str = "devices",
    bias: str = "line",
    hidden_voltage: float | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Run:
    """Train networks on a device model.

    Hidden layers are sigmoid, the output is softmax with cross-entropy; or the network is yours. A fifth of the
    training images is kept for validation, which is repeated over fresh chips after the first, every
    `validation_every`-th and the last epoch; the median error decides the checkpoint that is kept (Joksas et al., Adv.
    Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784). The same options give the same numbers on the same machine,
    interrupted or not.

    A step minimises, over a batch and D = `draws` draws of all devices,

        L = (1/D) sum_d [cross-entropy_d + energy_weight P_d / P_full] + l1 sum |w|

    with P_d the mean power sum |V| |I| over the images in the drawn devices, all layers together, and P_full that of
    usual devices that are all at G_on and at their layer's input voltage. P follows from the currents of the drawn
    devices with their law, and its gradient is exact.

    Where a range is to come from data (an ADC with adc_range=calibrated or a share; the inputs of a network of yours),
    it is set at the start of each epoch from the first 512 images of the epoch, see `calib.nn.calibrate`, and then
    stays for the epoch and its validation. A layer's inputs are then clipped at the largest seen.

    Parameters
    ----------
    device : device model: a tree, a path or a bundled name. With `resume` it may be left out.
    output : run folder, see `calib.runs`.
    dataset : name or path for `calib.vision.load`, or images.
    data_folder : see `calib.vision.load`.
    layers : sizes, inputs first; default: features, 25, classes.
    mapping : text of `calib.crossbar.mapping.mapping`: 'double', 'lowest', 'bit-slicing:slices=4,bits=2' and so on.
    l1 : factor of sum |w| over all weights of all layers, and over biases that are devices, added to the mean
        cross-entropy.
    ideal : train as if devices were ideal, in the same conductance range, so as to evaluate on real ones. The array
        stays as it is given.
    epochs : passes over the training images; default: as many as make 5000 steps, at least 20.
    optimizer : 'adam' or 'sgd'.
    learning_rate : the largest; default 0.01.
    schedule : 'constant', 'cosine' or 'one-cycle', see `calib.schedules`.
    batch_size : images a step, each step with devices of its own.
    input_voltage : voltage [V] of x = 1 at the first layer, and at all others without `hidden_voltage`.
    extrapolate : accept an input voltage beyond the validity of the device model.
    seed : of everything that is drawn.
    networks : how many to train, differing in all that is drawn but the validation split.
    validation_every, validation_repeats : see above.
    array : text of `Array.from_options`, such as 'rows=128,columns=64,word_segment=0.35,adc_bits=8,adc_range=array',
        or an array; default: an ideal one of any size.
    network : 'module:function' that makes the network instead of `layers`, see `calib.networks`.
    momentum : of SGD: v <- momentum v + gradient, w <- w - rate v.
    warm_up : fraction of the training over which the learning rate rises from 0, see `calib.schedules`.
    draws : D, draws of the devices a step.
    average : 'exponential:0.998' or 'tail:0.25' keeps and validates an average of the weights, see `calib.averaging`.
    energy_weight : see above. Not for arrays with line resistance.
    clip_gradient : c; a gradient g of all weights together becomes g min(1, c / |g|).
    patience : stop at the first validation that comes at least so many epochs after the best one.
    scale : 'largest': the largest weight of a layer is at G_on; 'learned': the scale of a layer is trained and the
        learning rate is in units of the conductance range, see `calib.learned_scale`.
    variation : 'devices': all images of a batch see the same newly drawn devices; 'moments': every image sees currents
        drawn from the mean and variance of the devices' currents, and P is its mean over devices, see
        `calib.moments`. For networks of fully connected layers. Validation always draws devices.
    bias : 'line': a bias is a pair of devices on a word line of its own that is at the input voltage for every image;
        'digital': biases are numbers that are added after the converters.
    hidden_voltage : voltage [V] of x = 1 from the second layer on, bias lines too, at most the input voltage: where the
        law's spread grows with the voltage, hidden layers may be read at a lower one, see docs/pareto.md. For `layers`.
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
        "layers": layer_sizes(layers, network, data),
        "mapping": mapping_of(mapping).text,
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
        "array": runs.array_text(array),
        "network": network,
        "momentum": momentum,
        "warm_up": warm_up,
        "draws": draws,
        "average": average,
        "energy_weight": energy_weight,
        "clip_gradient": clip_gradient,
        "patience": patience,
        "scale": scale,
        "variation": variation,
        "bias": bias,
        "hidden_voltage": hidden_voltage,
    }
    tree = device_model.open_device(device) if isinstance(device, str | Path) else device
    if resume:
        return resume_run(output, given=given, device=tree, data=data, progress=progress)
    if tree is None:
        raise OptionError("no device model was given; give a path, a bundled name ('calib models list') or a tree")
    options = TrainingOptions(**given)
    check(options, data)
    devices = Devices.from_model(tree, input_voltage=input_voltage, extrapolate=extrapolate)
    check_network(options, devices.ideal() if ideal else devices, data)
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
    same = {"array": runs.array_text, "mapping": lambda given: mapping_of(given).text}
    for name, asked in (given or {}).items():
        stored, value = getattr(run.options, name), same[name](asked) if name in same else asked
        if value != stored and name != "dataset":
            raise OptionError(
                f"the run '{output}' has {name} = {stored}, but {value} was given; leave the option out, or start "
                "another run"
            )
    if device is not None and device_model.identity(device) != run.record["device"]["sha256"]:
        raise OptionError(f"the run '{output}' was trained on another device model; leave it out, or start another run")
    return _train_all(run, run.data(data, data_folder), progress)


def _train_all(run: Run, data: ImageData, progress: Progress | None) -> Run:
    parts = [
        (torch.tensor(data.train_images[rows]), torch.tensor(data.train_labels[rows]))
        for rows in split(run.options.seed, data)
    ]
    images: torch.Tensor | Inputs = parts[0][0]
    moments = None
    if run.options.variation == "moments":
        devices = run.devices()
        first = run.new_network(0, devices.ideal() if run.options.ideal else devices)
        moments = moments_of(first)
        images = prepared(moments, first, parts[0][0])
    for network in range(run.options.networks):
        _train_network(run, network, (images, parts[0][1]), parts[1], moments, progress)
    return run


def split(seed: int, data: ImageData) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows of the training images that are trained on, and of those that validate.

    Raises
    ------
    OptionError
        When there are too few.
    """
    order = torch.randperm(len(data.train_images), generator=generator(seed, "split")).numpy()
    held = round(VALIDATION_FRACTION * len(order))
    if not 0 < held < len(order):
        raise OptionError(f"'{data.name}' has {len(order)} training images; expected at least 5, a fifth validates")
    return np.sort(order[held:]), np.sort(order[:held])


def _train_network(
    run: Run,
    network: int,
    train_part: "tuple[torch.Tensor | Inputs, torch.Tensor]",
    validation_part: Part,
    moments: tuple[Moments, ...] | None,
    progress: Progress | None,
) -> None:
    options, devices = run.options, run.devices()
    model = run.new_network(network, devices.ideal() if options.ideal else devices)
    averaging = Averaging.from_text(options.average)
    average = None if averaging is None else AveragedNetwork(model, averaging)
    optimizer = _optimizer(options, model)
    state = run.checkpoint(network)
    if state is None:
        state = {"epoch": 0, "best": {}, "best_error": math.inf, "best_epoch": 0, "history": []}
    else:
        model.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        if average is not None:
            average.load(state["average"])
    while state["epoch"] < options.epochs and not stopped(options, state):
        epoch = state["epoch"] + 1
        row = {
            "epoch": float(epoch),
            **_epoch(options, network, epoch, model, optimizer, train_part, average, moments),
        }
        kept = model if average is None else average.network
        row |= _validate(options, network, epoch, kept, validation_part)
        if row["validation_error_median"] < state["best_error"]:
            state |= {
                "best": copy.deepcopy(kept.state_dict()),
                "best_error": row["validation_error_median"],
                "best_epoch": epoch,
            }
        state |= {"epoch": epoch, "network": model.state_dict(), "optimizer": optimizer.state_dict()}
        if average is not None:
            state["average"] = average.state()
        state["history"].append(row)
        runs.write_checkpoint(run, network, state)
        if progress is not None:
            progress(network, row)


def stopped(options: TrainingOptions, state: dict[str, Any]) -> bool:
    """Return whether patience is at its end: at a validation, so many epochs after the best one."""
    if options.patience is None or not state["history"] or math.isnan(state["history"][-1]["validation_error_median"]):
        return False
    return state["epoch"] - state["best_epoch"] >= options.patience


def _optimizer(options: TrainingOptions, model: nn.Module) -> torch.optim.Optimizer:
    def make(parameters: list[torch.Tensor]) -> torch.optim.Optimizer:
        if options.optimizer == "adam":
            return torch.optim.Adam(parameters, lr=options.learning_rate, fused=True)
        return torch.optim.SGD(parameters, lr=options.learning_rate, momentum=options.momentum, fused=True)

    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if options.scale == "learned":
        return LearnedScale(trained, memristive_layers(model), make)  # type: ignore[return-value]
    return make(list(trained))


def _epoch(
    options: TrainingOptions,
    network: int,
    epoch: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    part: "tuple[torch.Tensor | Inputs, torch.Tensor]",
    average: AveragedNetwork | None = None,
    moments: tuple[Moments, ...] | None = None,
) -> dict[str, float]:
    """Train for one epoch; all random numbers follow from (seed, network, epoch)."""
    images, labels = part
    layers = memristive_layers(model)
    order = torch.randperm(len(images), generator=generator(options.seed, network, "order", epoch))
    if options.network or any(layer.array.adc is not None and layer.array.adc.calibrated for layer in layers):
        _give_generators(layers, options.seed, network, "calibration", epoch)
        assert isinstance(images, torch.Tensor)
        calibrate(model, iter(images[order[:CALIBRATION_IMAGES]].split(_CALIBRATED_AT_ONCE)))
    model.train()
    _give_generators(layers, options.seed, network, "devices", epoch)
    make_step, inputs = _step_on(options, network, epoch, model, images, moments)
    batches = order.split(options.batch_size)
    loss_sum, wrong = torch.zeros(()), torch.zeros((), dtype=torch.int64)
    tile_outputs.take_residual(layers)
    recipe = (options.l1, options.draws, options.energy_weight, options.clip_gradient)
    with own_random_numbers(options.seed, network, "modules", epoch):
        for index, rows in enumerate(batches):
            rate = _learning_rate(options, (epoch - 1 + index / len(batches)) / options.epochs)
            for group in optimizer.param_groups:
                group["lr"] = rate
            loss, logits, target = make_step(model, layers, optimizer, inputs[rows], labels[rows], *recipe)
            loss_sum += loss * len(rows)
            wrong += (logits.argmax(1) != target).sum()
            if average is not None:
                average.update(model, (epoch - 1 + (index + 1) / len(batches)) / options.epochs)
    if average is not None:
        average.follow(model)
    return {
        "learning_rate": optimizer.param_groups[0]["lr"],
        "train_loss": float(loss_sum) / len(images),
        "train_error": int(wrong) / (len(images) * options.draws),
        "line_residual": tile_outputs.take_residual(layers),
    }


def _step_on(
    options: TrainingOptions,
    network: int,
    epoch: int,
    model: nn.Module,
    images: "torch.Tensor | Inputs",
    moments: tuple[Moments, ...] | None,
) -> tuple[Callable[..., Any], Any]:
    """Return what makes a step, and the images as it takes them."""
    if moments is not None:
        return MomentStep(moments, generator(options.seed, network, "moments", epoch)), images
    assert isinstance(images, torch.Tensor)
    return step, encoded(model, images, bool(options.energy_weight))


def _give_generators(layers: list[MemristiveLinear], seed: int, network: int, purpose: str, epoch: int) -> None:
    for index, layer in enumerate(layers):
        layer.generator = generator(seed, network, purpose, epoch, index)


def encoded(model: nn.Module, images: torch.Tensor, power: bool = False) -> torch.Tensor | Encoded:
    """Return images as what the first layer multiplies with devices, where that is the same at each step and fits.

    Parameters
    ----------
    power : whether the power of each step is to be known.
    """
    first = model[0] if isinstance(model, nn.Sequential) else None
    if not (isinstance(first, MemristiveLinear) and first.by_product and images.dim() == 2):
        return images
    if power and not first.one_phase:
        return images
    if len(images) * first.plan.size * first.word_lines > _MOST_ENCODED:
        return images
    with torch.no_grad():
        parts = [first.encode(part, power) for part in images.split(_ENCODED_AT_ONCE)]
    voltages = [part.voltage for part in parts if part.voltage is not None]
    return Encoded(torch.cat([part.basis for part in parts]), torch.cat(voltages) if power else None)


def _learning_rate(options: TrainingOptions, fraction: float) -> float:
    """Return the learning rate after a fraction of the training."""
    return options.learning_rate * schedules.factor(options.schedule, fraction, options.warm_up)


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
