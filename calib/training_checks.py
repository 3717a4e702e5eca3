"""Checks of training options, before anything is written."""

import itertools
import math
from collections.abc import Sequence

import torch

from calib.averaging import Averaging
from calib.crossbar.array import Array
from calib.crossbar.calibration import calibrate, ideal_passes
from calib.crossbar.devices import Devices
from calib.crossbar.layers import BIASES, memristive_layers
from calib.crossbar.mapping import mapping
from calib.errors import OptionError
from calib.learned_scale import SCALES
from calib.moment_step import moments_of
from calib.networks import build_network, build_own_network, own_random_numbers
from calib.runs import TrainingOptions
from calib.schedules import SCHEDULES
from calib.training_step import drawn_pass
from calib.vision import ImageData

LEARNING_RATES = {"adam": 0.01, "sgd": 0.01}
"""Default learning rate of each optimiser."""
VARIATIONS = ("devices", "moments")
"""What a step of a training sees of the devices' spread, see `calib.train`."""
HIDDEN_UNITS = 25


def layer_sizes(layers: Sequence[int] | None, network: str, data: ImageData) -> tuple[int, ...]:
    """Return the sizes of fully connected layers; none for a network of the user.

    Raises
    ------
    OptionError
        When both were given.
    """
    if network and layers:
        raise OptionError(f"layers and the network {network} were both given; give one of them")
    if network:
        return ()
    return tuple(layers) if layers else (data.n_features, HIDDEN_UNITS, data.n_classes)


def check(options: TrainingOptions, data: ImageData) -> None:
    """Check all options and raise their problems together."""
    o, problems = options, []
    for name, value, known in (
        ("optimizer", o.optimizer, tuple(LEARNING_RATES)),
        ("schedule", o.schedule, SCHEDULES),
        ("scale", o.scale, SCALES),
        ("variation", o.variation, VARIATIONS),
        ("bias", o.bias, BIASES),
    ):
        if value not in known:
            problems.append(f"{name} is '{value}'; expected one of {', '.join(known)}")
    sizes = o.layers
    if not o.network and (
        len(sizes) < 2 or sizes[0] != data.n_features or sizes[-1] < data.n_classes or min(sizes) < 1
    ):
        problems.append(
            f"layers are {'-'.join(map(str, sizes))}; '{data.name}' needs {data.n_features} first and at least "
            f"{data.n_classes} last"
        )
    problems += _number_problems(o)
    try:
        Averaging.from_text(o.average)
        placed, array = mapping(o.mapping), Array.from_options(o.array)
        for n_in, n_out in itertools.pairwise(sizes):
            array.tiles(n_in + (o.bias == "line"), placed.bit_lines(n_out), placed.groups)
    except OptionError as error:
        problems.append(str(error))
    if o.energy_weight and {"line resistance", "drivers"} & set(Array.from_options(o.array).effects):
        problems.append(
            f"energy_weight is {o.energy_weight} on an array with line, driver or sense resistance, whose power has no "
            "gradient here; leave one of them out"
        )
    if o.scale == "learned" and not problems and mapping(o.mapping).clip is not None:
        problems.append(
            f"scale is learned for the mapping {o.mapping}, whose clip sets the scale; leave one of them out"
        )
    if problems:
        raise OptionError("; ".join(problems))


def _number_problems(o: TrainingOptions) -> list[str]:
    """Return which numbers are out of their range, or do not go with other options."""
    problems = []
    for name in ("epochs", "batch_size", "networks", "validation_every", "validation_repeats", "draws", "patience"):
        value = getattr(o, name)
        if value is not None and value < 1:
            problems.append(f"{name} is {value}; expected at least 1")
    if not (o.learning_rate and o.learning_rate > 0):
        problems.append(f"learning_rate is {o.learning_rate}; expected more than 0")
    for name in ("l1", "energy_weight"):
        if not 0 <= getattr(o, name) < math.inf:
            problems.append(f"{name} is {getattr(o, name)}; expected 0 or more")
    for name in ("momentum", "warm_up"):
        if not 0 <= getattr(o, name) < 1:
            problems.append(f"{name} is {getattr(o, name)}; expected 0 or more and less than 1")
    if o.hidden_voltage is not None and o.network:
        problems.append(f"hidden_voltage is {o.hidden_voltage:g} V; it is for fully connected layers (--layers)")
    if o.hidden_voltage is not None and not 0 < o.hidden_voltage <= o.input_voltage:
        problems.append(
            f"hidden_voltage is {o.hidden_voltage:g} V; expected more than 0, and at most the input voltage of "
            f"{o.input_voltage:g} V"
        )
    if o.momentum and o.optimizer != "sgd":
        problems.append(f"momentum is {o.momentum} for {o.optimizer}; it is an option of sgd")
    if o.clip_gradient is not None and not o.clip_gradient > 0:
        problems.append(f"clip_gradient is {o.clip_gradient}; expected more than 0")
    return problems


def check_network(options: TrainingOptions, devices: Devices, data: ImageData) -> None:
    """Check that the network of the user gives an output of each class, and its energy, before anything is written.

    And that the currents of the devices have moments, where the training asks for them.
    """
    if options.variation == "moments":
        if options.network:
            raise OptionError(
                "variation 'moments' is for fully connected layers (--layers); train a network of your own with "
                "variation 'devices'"
            )
        hardware = (Array.from_options(options.array), options.bias, options.hidden_voltage)
        moments_of(build_network(options.layers, options.mapping, devices, (0,), *hardware))
    if not options.network:
        return
    o, array = options, Array.from_options(options.array)
    model = build_own_network(o.network, data.image_shape, data.n_classes, o.mapping, devices, (0,), array, o.bias)
    layers = memristive_layers(model)
    images = torch.tensor(data.train_images[:2])
    with ideal_passes({str(i): layer for i, layer in enumerate(layers)}), torch.no_grad():
        found = model.eval()(images)
    if not isinstance(found, torch.Tensor) or found.dim() != 2 or found.shape[1] < data.n_classes:
        shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        raise OptionError(
            f"the network {o.network} gives {shape} of 2 images; expected (2, classes) with at least {data.n_classes} "
            f"classes of '{data.name}'"
        )
    if options.energy_weight:
        calibrate(model, images)
        with own_random_numbers(options.seed):
            drawn_pass(model, layers, images, torch.zeros(2, dtype=torch.int64), wants_power=True)
