"""Turning the layers of a network into memristive ones."""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

import torch
import xarray as xr
from torch import nn
from torch.nn.utils import parametrize, prune, remove_spectral_norm, remove_weight_norm
from torch.nn.utils.spectral_norm import SpectralNorm
from torch.nn.utils.weight_norm import WeightNorm

from calib.crossbar import calibration
from calib.crossbar import mapping as mappings
from calib.crossbar.array import Array
from calib.crossbar.attention import MemristiveMultiheadAttention
from calib.crossbar.convolution import MemristiveConv1d, MemristiveConv2d, MemristiveConv3d
from calib.crossbar.crossbars import separate_draws, set_signed_weights
from calib.crossbar.devices import TOLERANCE, Devices, open_devices
from calib.crossbar.layers import BIASES, MemristiveLinear, memristive_layers
from calib.crossbar.recurrent import (
    MemristiveGRU,
    MemristiveGRUCell,
    MemristiveLSTM,
    MemristiveLSTMCell,
    MemristiveRNN,
    MemristiveRNNCell,
)
from calib.crossbar.summary import CONVERTIBLE, form_of
from calib.errors import OptionError

Choice = str | type[nn.Module]

_HOOKS = (
    "_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called", "_backward_pre_hooks", "_backward_hooks",
)  # fmt: skip


def convert(
    module: nn.Module,
    device: "str | xr.DataTree | Devices",
    *,
    mapping: str | mappings.Mapping = "double",
    array: Array | None = None,
    bias: str = "line",
    include: Choice | Iterable[Choice] | None = None,
    exclude: Choice | Iterable[Choice] = (),
    input_voltage: float = 0.5,
    extrapolate: bool = False,
    tolerance: float = TOLERANCE,
    calibrate: Any = None,
    quantile: float = 1.0,
) -> nn.Module:
    """Return a copy of a network with its layers on memristive devices.

    Fully connected, convolutional and recurrent layers and the projections of attention become memristive; everything
    else is kept, and `summary` lists it. Kept are weights, biases, what is frozen, hooks of both passes, training or
    evaluation mode, dtype and device. A layer that is used in several places stays one layer. Layers that
    share all their weights share them afterwards as well, on crossbars of their own; a weight shared with anything else
    is shared no longer. Parametrizations, weight and spectral norm and pruning of a converted layer are replaced by the
    weights that they give. The layers' notes in `summary` say both. Layers that are memristive already keep their
    mapping and are given the new devices, and the array if one is given.

    Parameters
    ----------
    module : the network; it is not changed.
    device : device model (a tree, a path or a bundled name), or devices made of one.
    mapping, array : see `MemristiveLinear`.
    bias : 'line' or 'digital', of layers that have one.
    include, exclude : layers by name or by type. A name is one of `module.named_modules()`, with wildcards as in file
        names; a layer inside of what is named is meant as well. The default includes all.
    input_voltage : k_V [V], the voltage of a full-scale input.
    extrapolate, tolerance : see `Devices.from_model`.
    calibrate : inputs to set the layers' full scales with, see `calib.nn.calibrate`; None leaves them at 1.
    quantile : of the inputs in that calibration.

    Raises
    ------
    OptionError
        When no layer is chosen, a choice matches nothing, weights are not there yet or cannot be taken over, or the
        input voltage is beyond the device model's validity.
    """
    if bias not in BIASES:
        raise OptionError(f"the bias is '{bias}'; expected 'line' or 'digital'")
    opened = {"input_voltage": input_voltage, "extrapolate": extrapolate, "tolerance": tolerance}
    devices = device if isinstance(device, Devices) else open_devices(device, **opened)
    given = mappings.mapping(mapping)
    result = _copy(module)
    chosen = _chosen(result, include, exclude)
    options = {"mapping": given, "array": array, "bias": bias}
    work = _Conversion(devices, options, chosen, _owners(result), _twins(result, chosen))
    result = work.replace(result)
    _forbid_fused_kernels(result)
    separate_draws(result)
    if calibrate is not None:
        calibration.calibrate(result, calibrate, quantile=quantile)
    return result


def _copy(module: nn.Module) -> nn.Module:
    """Return a deep copy; weights that old-style norms compute are no leaves, which torch does not copy by itself."""
    computed: dict[int, Any] = {}
    for part in module.modules():
        for value in (*part.__dict__.values(), *part.buffers(recurse=False)):
            if isinstance(value, torch.Tensor) and not value.is_leaf:
                computed[id(value)] = value.detach().clone()
    return copy.deepcopy(module, computed)


@dataclass
class _Conversion:
    """A conversion under way.

    Attributes
    ----------
    devices, options : of all layers.
    chosen : names of the modules to convert, by id.
    owners : names of the modules that have each parameter, by the parameter's id.
    twins : names of the chosen modules by type and ids of all their parameters.
    made : results by the id of what was replaced.
    sources : what was replaced, so that ids stay unique.
    by_weights : first results by the same keys.
    """

    devices: Devices
    options: dict[str, Any]
    chosen: dict[int, str]
    owners: dict[int, list[str]]
    twins: dict[tuple, list[str]]
    made: dict[int, nn.Module] = field(default_factory=dict)
    sources: list[nn.Module] = field(default_factory=list)
    by_weights: dict[tuple, nn.Module] = field(default_factory=dict)

    def replace(self, module: nn.Module) -> nn.Module:
        """Return the module with what is chosen replaced."""
        if id(module) in self.made:
            return self.made[id(module)]
        result = self._converted(module) if id(module) in self.chosen else module
        self.made[id(module)] = result
        self.sources.append(module)
        if result is not module or isinstance(module, CONVERTIBLE):
            return result
        for name, child in list(module._modules.items()):
            if child is not None:
                module._modules[name] = self.replace(child)
        return module

    def _converted(self, module: nn.Module) -> nn.Module:
        if isinstance(module, MemristiveLinear):
            module.devices = self.devices
            if self.options["array"] is not None:
                module.set_array(self.options["array"])
            return module
        name, key, kind = self.chosen[id(module)], _key(module), form_of(module)
        assert kind is not None
        twins = [n for n in self.twins[key] if n != name]
        owners = [n for p in module.parameters() for n in self.owners[id(p)]]
        tied = [n for n in owners if name and n not in (name, *twins) and not n.startswith(f"{name}.")]
        notes = _plain_weights(module, name)
        with torch.no_grad():
            result = _FORMS[kind](module, self.devices, **self.options)
        result.to(next(module.parameters()).device)
        if twins:
            _share(result, self.by_weights.setdefault(key, result))
            notes.append(f"shares its weights with {_names(twins)}, on a crossbar of its own")
        elif tied:
            notes.append(f"weights that it shared with {_names(tied)} are copies of its own now")
        return _taken_over(result, module, notes)


def _linear(layer: Any, devices: Devices, *, bias: str, **options: Any) -> nn.Module:
    place = None if layer.bias is None else bias
    dtype = layer.weight.dtype
    result = MemristiveLinear(layer.in_features, layer.out_features, devices, bias=place, dtype=dtype, **options)
    set_signed_weights(result, layer.weight, layer.bias)
    return result


_FORMS: dict[type[nn.Module], Callable[..., nn.Module]] = {
    nn.Linear: _linear,
    nn.Conv1d: MemristiveConv1d.from_torch,
    nn.Conv2d: MemristiveConv2d.from_torch,
    nn.Conv3d: MemristiveConv3d.from_torch,
    nn.RNN: MemristiveRNN.from_torch,
    nn.LSTM: MemristiveLSTM.from_torch,
    nn.GRU: MemristiveGRU.from_torch,
    nn.RNNCell: MemristiveRNNCell.from_torch,
    nn.LSTMCell: MemristiveLSTMCell.from_torch,
    nn.GRUCell: MemristiveGRUCell.from_torch,
    nn.MultiheadAttention: MemristiveMultiheadAttention.from_torch,
}


def _taken_over(result: nn.Module, module: nn.Module, notes: list[str]) -> nn.Module:
    """Return the new layer with the old one's mode, hooks and whether it is trained."""
    trained = any(p.requires_grad for p in module.parameters())
    if not trained:
        result.requires_grad_(False)
    for name in _HOOKS:
        getattr(result, name).update(getattr(module, name))
    result._is_full_backward_hook = module._is_full_backward_hook
    result.conversion_notes = tuple(notes)  # type: ignore[assignment]
    return result.train(module.training)


def _share(result: nn.Module, twin: nn.Module) -> None:
    """Let a layer use the parameters of another one of the same form."""
    for name, parameter in twin.named_parameters():
        path, _, last = name.rpartition(".")
        setattr(result.get_submodule(path), last, parameter)


def _forbid_fused_kernels(network: nn.Module) -> None:
    """Keep torch's encoders from their fused kernels, which read the weights of layers instead of calling them."""
    for module in network.modules():
        if isinstance(module, nn.TransformerEncoderLayer) and memristive_layers(module):
            module.activation_relu_or_gelu = 0
        if isinstance(module, nn.TransformerEncoder) and memristive_layers(module):
            module.use_nested_tensor = False


def _plain_weights(module: nn.Module, name: str) -> list[str]:
    """Replace what computes a layer's weights by the weights; return what was replaced, as sentences."""
    notes = []
    for part in module.modules():
        if isinstance(part, parametrize.ParametrizationList) or not isinstance(part, CONVERTIBLE):
            continue
        if parametrize.is_parametrized(part):
            notes += _without_parametrizations(part)
        for hook in list(part._forward_pre_hooks.values()):
            if isinstance(hook, WeightNorm):
                remove_weight_norm(part, hook.name)
                notes.append(f"the weight norm of {hook.name} is replaced by the weights that it gave")
            elif isinstance(hook, SpectralNorm):
                remove_spectral_norm(part, hook.name)
                notes.append(f"the spectral norm of {hook.name} is replaced by the weights that it gave")
            elif isinstance(hook, prune.BasePruningMethod):
                tensor = hook._tensor_name
                prune.remove(part, tensor)
                notes.append(f"pruned {tensor} is kept, zeros are trained again")
        _check_weights(part, name)
    return notes


def _without_parametrizations(part: nn.Module) -> list[str]:
    """Give a layer the weights that its parametrizations compute as parameters; return sentences that say it.

    torch.nn.utils.parametrize.remove_parametrizations would change the class, which the copied layer still has.
    """
    computed = {name: getattr(part, name).detach().clone() for name in part.parametrizations}  # type: ignore[union-attr]
    trained = any(p.requires_grad for p in part.parametrizations.parameters())  # type: ignore[union-attr]
    part.__class__ = type(part).__bases__[0]  # torch makes a class of its own for each parametrized module
    del part._modules["parametrizations"]
    for name, value in computed.items():
        part._parameters[name] = nn.Parameter(value, requires_grad=trained)
    return [f"the parametrization of {name} is replaced by the weights that it gave" for name in computed]


def _check_weights(part: nn.Module, name: str) -> None:
    weights = {
        n: v for n, v in part.__dict__.items() if isinstance(v, torch.Tensor) and n.startswith(("weight", "bias"))
    }
    if weights:
        raise OptionError(
            f"{', '.join(sorted(weights))} of the layer '{name}' is computed by something else than a parameter; make "
            "it a parameter before the conversion, or exclude the layer"
        )
    for tensor, value in part.named_parameters(recurse=False):
        if nn.parameter.is_lazy(value):
            raise OptionError(f"the layer '{name}' has no weights yet; pass a batch through the network first")
        if not value.is_floating_point():
            raise OptionError(
                f"{tensor} of the layer '{name}' is of {value.dtype}; expected real floating-point weights"
            )


def _owners(module: nn.Module) -> dict[int, list[str]]:
    """Return the names of the modules that have each parameter."""
    found: dict[int, list[str]] = {}
    for name, part in module.named_modules():
        for parameter in part._parameters.values():
            if parameter is not None:
                found.setdefault(id(parameter), []).append(name)
    return found


def _twins(module: nn.Module, chosen: dict[int, str]) -> dict[tuple, list[str]]:
    """Return the names of the chosen modules by type and ids of all their parameters."""
    found: dict[tuple, list[str]] = {}
    for part in module.modules():
        if id(part) in chosen:
            found.setdefault(_key(part), []).append(chosen[id(part)])
    return found


def _key(module: nn.Module) -> tuple:
    return form_of(module), *(id(p) for p in module.parameters())


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in dict.fromkeys(names))


def _chosen(module: nn.Module, include: Any, exclude: Any) -> dict[int, str]:
    """Return the first names of the modules that are to be converted, by id."""
    names: dict[int, list[str]] = {}
    parts: dict[int, nn.Module] = {}
    for name, part in module.named_modules(remove_duplicate=False):
        names.setdefault(id(part), []).append(name)
        parts[id(part)] = part
    wholes = [part for part in parts.values() if isinstance(part, CONVERTIBLE)]
    inside = {id(inner) for part in wholes for inner in part.modules() if inner is not part}
    candidates = {
        i for i, part in parts.items()
        if i not in inside and (isinstance(part, MemristiveLinear) or form_of(part) is not None)
    }  # fmt: skip
    if not candidates:
        kinds = ", ".join(kind.__name__ for kind in CONVERTIBLE)
        raise OptionError(
            f"the network {type(module).__name__} has no linear layer or other one that could be memristive ({kinds})"
        )
    problems: list[str] = []
    found = set(candidates)
    if include is not None:
        found = set()
        for choice in _choices(include):
            here = _matched(choice, parts, names) & candidates
            if not here:
                problems.append(f"include={_said(choice)} matches no layer that could be memristive")
            found |= here
    found_any = bool(found)
    for choice in _choices(exclude):
        here = _matched(choice, parts, names)
        if not here:
            problems.append(f"exclude={_said(choice)} matches nothing")
        found -= here
    if not problems and not found:
        problems.append("everything that could be memristive is excluded" if found_any else "include is empty")
    if problems:
        known = ", ".join(f"'{names[i][0]}' ({type(parts[i]).__name__})" for i in parts if i in candidates)
        raise OptionError(f"{'; '.join(problems)}; the layers that could be are {known}")
    return {i: names[i][0] for i in parts if i in found}


def _choices(given: Any) -> list[Choice]:
    return [given] if isinstance(given, str | type) else list(given)


def _said(choice: Choice) -> str:
    return choice.__name__ if isinstance(choice, type) else f"'{choice}'"


def _matched(choice: Choice, parts: dict[int, nn.Module], names: dict[int, list[str]]) -> set[int]:
    """Return the modules that a choice means: those of a name or type, and what is inside of them."""
    if isinstance(choice, type):
        found = {i for i, part in parts.items() if isinstance(part, choice)}
    else:
        found = {i for i, several in names.items() if any(fnmatchcase(name, choice) for name in several)}
    return {id(inner) for i in found for inner in parts[i].modules()}
