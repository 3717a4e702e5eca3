"""Networks that are trained: fully connected ones by their sizes, and any torch module that a function of yours makes.

A network of yours is named `module:function`. The module is looked for where Python looks for modules, and then in the
current folder; importing it runs its code, so name only what you trust. A run remembers the name and the hash of the
file: evaluating or continuing it imports the module again, so open such runs only from those you trust. The function is
called by the names of its parameters:

=============== ========================================================================================================
parameter       value
=============== ========================================================================================================
n_features      number of inputs: the network gets images (batch, feature)
image_shape     shape of an image, (channel, height, width): the network gets images (batch, channel, height, width).
                Grey images have one channel; images with the channels last are turned around
n_classes       number of classes
=============== ========================================================================================================

It has n_classes and one of the others, and returns a torch.nn.Module that gives (batch, n_classes) before any softmax.
`calib.nn.convert` puts its layers on devices.
"""

import contextlib
import importlib
import inspect
import itertools
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import nn

from calib import files
from calib.crossbar.array import Array
from calib.crossbar.convert import convert
from calib.crossbar.devices import Devices, generator
from calib.crossbar.layers import MemristiveLinear
from calib.errors import OptionError

_EXAMPLE = "for example my_networks:make with 'def make(n_features, n_classes)' in my_networks.py"


def build_network(
    layers: tuple[int, ...],
    mapping: str,
    devices: Devices,
    key: tuple[int | str, ...],
    array: Array | None = None,
    bias: str = "line",
    hidden_voltage: float | None = None,
) -> nn.Sequential:
    """Return memristive layers of the given sizes with sigmoids between them.

    Parameters
    ----------
    layers : sizes, inputs first.
    mapping, devices, array, bias : see `MemristiveLinear`.
    key : draws the first weights.
    hidden_voltage : [V] of x = 1 from the second layer on, bias lines too; default: the devices' input voltage.
    """
    parts: list[nn.Module] = []
    for index, (n_in, n_out) in enumerate(itertools.pairwise(layers)):
        if parts:
            parts.append(nn.Sigmoid())
        own = devices.at(hidden_voltage) if parts and hidden_voltage is not None else devices
        first = generator(*key, "first", index)
        parts.append(MemristiveLinear(n_in, n_out, own, mapping=mapping, array=array, bias=bias, first=first))
    return nn.Sequential(*parts)


def build_own_network(
    network: str,
    image_shape: tuple[int, ...],
    n_classes: int,
    mapping: str,
    devices: Devices,
    key: tuple[int | str, ...],
    array: Array | None = None,
    bias: str = "line",
) -> nn.Sequential:
    """Return the network of a function of the user, with its layers on devices.

    Parameters
    ----------
    network : module:function.
    image_shape : of the data set's images.
    key : draws the first weights: the function runs with torch's random numbers seeded from it.
    bias : see `calib.crossbar.convert.convert`.

    Raises
    ------
    OptionError
        When the function cannot be found or called, or returns no module, or one without a layer for devices.
    """
    function, names = _function(network)
    shape = channels_first(image_shape)
    values = {"n_features": _product(image_shape), "image_shape": shape, "n_classes": n_classes}
    with own_random_numbers(*key, "first", 0):
        module = function(**{name: values[name] for name in names})
        if not isinstance(module, nn.Module):
            found = type(module).__name__
            raise OptionError(f"the function of --network {network} returned {found}; expected a torch.nn.Module")
        converted = convert(module, devices, mapping=mapping, array=array, bias=bias)
    if "image_shape" in names:
        return nn.Sequential(Images(tuple(image_shape)), converted)
    return nn.Sequential(converted)


class Images(nn.Module):
    """Flat images (batch, feature) to (batch, channel, height, width)."""

    def __init__(self, image_shape: tuple[int, ...]) -> None:
        super().__init__()
        self.image_shape = image_shape

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return images in their shape."""
        images = x.unflatten(-1, self.image_shape)
        if len(self.image_shape) == 2:
            return images.unsqueeze(-3)
        return images.movedim(-1, -3) if _channels_last(self.image_shape) else images

    def extra_repr(self) -> str:
        """Return what the layer's line shows."""
        return f"{self.image_shape}"


def channels_first(image_shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape (channel, height, width) of images of a data set's shape; other shapes as they are."""
    if len(image_shape) == 2:
        return (1, *image_shape)
    if _channels_last(image_shape):
        return (image_shape[2], *image_shape[:2])
    return tuple(image_shape)


def _channels_last(image_shape: tuple[int, ...]) -> bool:
    return len(image_shape) == 3 and image_shape[2] in (1, 3, 4) and image_shape[0] not in (1, 3, 4)


def source_hash(network: str) -> str:
    """Return the SHA-256 of the file that holds the function of a network.

    Raises
    ------
    OptionError
        When it cannot be found.
    """
    function, _ = _function(network)
    path = inspect.getsourcefile(inspect.unwrap(function))
    if path is None or not Path(path).is_file():
        raise OptionError(f"the function of --network {network} is in no file of Python; expected one")
    return files.sha256_of(Path(path))


@contextlib.contextmanager
def own_random_numbers(*key: int | str) -> Iterator[None]:
    """Seed torch's random numbers from a key inside the block, and restore them after it."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(generator(*key).get_state())
        yield


def _function(network: str) -> tuple[Callable[..., object], list[str]]:
    """Return the function and the names of the parameters that it is called with."""
    module_name, colon, function_name = network.partition(":")
    if not (colon and function_name.isidentifier() and all(p.isidentifier() for p in module_name.split("."))):
        raise OptionError(f"network is '{network}'; expected module:function, {_EXAMPLE}")
    function = getattr(_module(module_name, network), function_name, None)
    if not callable(function):
        raise OptionError(f"the module '{module_name}' has no function '{function_name}'; expected one, {_EXAMPLE}")
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError) as error:
        raise OptionError(f"the parameters of '{network}' cannot be read; expected a function, {_EXAMPLE}") from error
    known = {"n_features", "image_shape", "n_classes"}
    needed = {p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}
    names = [p.name for p in parameters if p.name in known and p.kind is not p.POSITIONAL_ONLY]
    inputs = {"n_features", "image_shape"} & set(names)
    if needed - set(names) or "n_classes" not in names or len(inputs) != 1:
        raise OptionError(
            f"the function of --network {network} has the parameters {inspect.signature(function)}; expected n_classes "
            "and one of n_features (flat images) and image_shape (channel, height, width), others with defaults"
        )
    return function, names


def _module(name: str, network: str):
    """Import a module; the current folder is looked at last."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        importlib.invalidate_caches()
        return importlib.import_module(name)
    except (ImportError, SyntaxError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name.split(".")[0]:
            raise OptionError(
                f"network is '{network}', but there is no module '{name}' where Python looks for modules or in the "
                "current folder; start in the folder that holds it, or set PYTHONPATH"
            ) from error
        raise OptionError(f"network is '{network}', but the module '{name}' cannot be imported: {error}") from error
    finally:
        sys.path.remove(folder)


def _product(shape: tuple[int, ...]) -> int:
    result = 1
    for size in shape:
        result *= size
    return result
