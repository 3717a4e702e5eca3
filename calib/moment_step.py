"""A step of a training in which every image sees currents of its own, drawn from the moments of those of the devices.

The output of a layer is

    y = (mu + sqrt(s) z) / (k_V k_G),   z ~ N(0, 1) for every image and output,

with mu the sum over word lines and groups of factor times mean current, s that of factor^2 times variance, see
`calib.moments`. The power sum |V| |I| is its expectation over the devices, without noise; that of the first layer is
the mean over all training images.
"""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from calib.crossbar.layers import MemristiveLinear, memristive_layers
from calib.errors import OptionError
from calib.moments import Moments
from calib.training_step import Pass, descend

_MOST_NUMBERS = 2**28  # of images that are prepared once, 4 bytes each
_AT_ONCE = 4096
_LEAST_VARIANCE = 1e-12  # of the squared unit of current: keeps the square root's gradient finite


@dataclass(frozen=True)
class Inputs:
    """What the moments of a layer take of its inputs, word lines with that of the bias.

    Attributes
    ----------
    mean, variance : (image, term word_line) a_r and b_r.
    least_variance : (image, 1) sum over word lines of v_0.
    power : (term word_line,) mean of x a_r over the images; of rows that are taken, that over all images.
    least_power : mean over the images of the sum over word lines of x m_0; in the same way.
    """

    mean: torch.Tensor
    variance: torch.Tensor
    least_variance: torch.Tensor
    power: torch.Tensor
    least_power: torch.Tensor

    def __len__(self) -> int:
        return len(self.mean)

    def __getitem__(self, rows: torch.Tensor) -> "Inputs":
        return Inputs(self.mean[rows], self.variance[rows], self.least_variance[rows], self.power, self.least_power)

    @classmethod
    def of(cls, layer: MemristiveLinear, moments: Moments, x: torch.Tensor) -> "Inputs":
        """Return them for inputs (image, in) of a layer."""
        x = layer._lines(layer.fractions(x))
        size, sign = x.abs(), x.sign()
        mean, variance = moments.mean.of_inputs(size), moments.variance.of_inputs(size)
        return cls(
            mean=(mean[1:] * sign).movedim(0, 1).flatten(1),
            variance=variance[1:].movedim(0, 1).flatten(1),
            least_variance=variance[0].sum(-1, keepdim=True),
            power=torch.einsum("tbi,bi->ti", mean[1:], size).flatten() / len(x),
            least_power=(size * mean[0]).sum() / len(x),
        )

    @classmethod
    def joined(cls, parts: "list[Inputs]") -> "Inputs":
        """Return the inputs of several parts of the images as one."""
        count = sum(len(part) for part in parts)
        whole = [torch.cat([getattr(part, name) for part in parts]) for name in ("mean", "variance", "least_variance")]
        means = [sum(getattr(part, name) * (len(part) / count) for part in parts) for name in ("power", "least_power")]
        return cls(*whole, *means)  # type: ignore[arg-type]


@dataclass(frozen=True)
class MomentStep:
    """A step of a training on moments; called like `calib.training_step.step`.

    Attributes
    ----------
    moments : of the devices of each layer.
    noise : generator of z.
    """

    moments: tuple[Moments, ...]
    noise: torch.Generator

    def __call__(
        self,
        model: nn.Sequential,
        layers: list[MemristiveLinear],
        optimizer: torch.optim.Optimizer,
        images: "torch.Tensor | Inputs",
        labels: torch.Tensor,
        l1: float = 0.0,
        draws: int = 1,
        energy_weight: float = 0.0,
        clip_gradient: float | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Make one step on one batch; return cross-entropy, outputs and labels, those of all draws."""

        def one_pass() -> Pass:
            logits, power = self.outputs(model, images)
            return functional.cross_entropy(logits, labels), power if energy_weight else None, logits

        return descend(model, layers, optimizer, one_pass, labels, l1, draws, energy_weight, clip_gradient)

    def outputs(self, model: nn.Sequential, images: "torch.Tensor | Inputs") -> tuple[torch.Tensor, torch.Tensor]:
        """Return outputs (image, class) and the mean power [W] over the images."""
        value, power = images, torch.zeros(())
        moments = iter(self.moments)
        for part in model:
            if isinstance(part, MemristiveLinear):
                of_layer = next(moments)
                inputs = value if isinstance(value, Inputs) else Inputs.of(part, of_layer, value)
                value, own = self._layer(part, of_layer, inputs)
                power = power + own
            else:
                value = part(value)
        assert isinstance(value, torch.Tensor)
        return value, power

    def _layer(self, layer: MemristiveLinear, moments: Moments, inputs: Inputs) -> tuple[torch.Tensor, torch.Tensor]:
        devices, mapping = layer.devices, layer.mapping
        g, k_g = mapping.conductances(layer.weight, devices.g_off, devices.g_on)
        share = (g - devices.g_off) * (1 / (devices.g_on - devices.g_off))  # (group, word_line, bit_line)
        means = moments.mean.of_shares(share)  # (term, group, word_line, bit_line)
        variances = moments.variance.of_shares(share)
        squares = [factor**2 for factor in mapping.factors]
        if set(squares) != {1.0}:
            variances = variances * torch.tensor(squares, dtype=g.dtype).view(-1, 1, 1)
        mu = inputs.mean @ mapping.combine(means, dim=-3).flatten(0, 1)
        variance = torch.addmm(inputs.least_variance * sum(squares), inputs.variance, variances.sum(1).flatten(0, 1))
        z = torch.empty_like(mu, requires_grad=False).normal_(generator=self.noise)
        y = (mu + variance.clamp(min=_LEAST_VARIANCE).sqrt() * z) * (moments.unit / devices.input_voltage / k_g)
        if layer.bias is not None:
            y = y + layer.bias
        lines = mapping.groups * mapping.bit_lines(layer.out_features)
        power = inputs.least_power * lines + inputs.power @ means.sum((1, 3)).flatten()
        return y, power * (moments.unit * devices.input_voltage)


def prepared(moments: tuple[Moments, ...], model: nn.Module, images: torch.Tensor) -> "torch.Tensor | Inputs":
    """Return images as what the first layer takes of them, where that fits into memory, else as they are."""
    first = model[0] if isinstance(model, nn.Sequential) else None
    terms = moments[0].mean.terms + moments[0].variance.terms
    if not isinstance(first, MemristiveLinear) or len(images) * first.word_lines * terms > _MOST_NUMBERS:
        return images
    with torch.no_grad():
        return Inputs.joined([Inputs.of(first, moments[0], part) for part in images.split(_AT_ONCE)])


def moments_of(model: nn.Module) -> tuple[Moments, ...]:
    """Return the moments of the devices of each layer of a network of fully connected layers.

    Raises
    ------
    OptionError
        When it is another network, its array does not act as a product, or its devices' currents have no such moments.
    """
    layers = memristive_layers(model)
    parts = list(model) if isinstance(model, nn.Sequential) else []
    if not layers or layers != [part for part in parts if isinstance(part, MemristiveLinear)]:
        raise OptionError(
            "variation 'moments' is for networks of fully connected layers after one another (--layers); train others "
            "with variation 'devices'"
        )
    for layer in layers:
        if not layer.by_product or layer.mapping.reference or layer.array.input_mode == "offset":
            raise OptionError(
                "variation 'moments' is for arrays without line resistance, ADC and input mode offset, and mappings of "
                f"pairs; found the mapping '{layer.mapping.text}' and the array '{layer.array.describe()}'; train with "
                "variation 'devices'"
            )
    found = {devices: Moments.of(devices) for devices in {layer.devices for layer in layers}}
    return tuple(found[layer.devices] for layer in layers)
