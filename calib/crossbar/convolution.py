"""Convolutions on crossbars: every patch of the input is one set of voltages.

A kernel of C channels and K positions has C K word lines and a bit line pair for each output channel; the bias is one
more word line or digital. The array is read once for each output position. With groups, each group of channels has a
crossbar of its own.
"""

import contextlib
import math
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.nn import functional

from calib.crossbar import drawing
from calib.crossbar.crossbars import (
    numbered_rows,
    same_devices,
    separate_draws,
    set_signed_weights,
    signed_weights,
)
from calib.crossbar.devices import Devices
from calib.crossbar.layers import MemristiveLinear
from calib.errors import OptionError

PATCH_VALUES = 2**22
"""Most input values of the patches that are computed at once, for each crossbar."""
PADDING_MODES = ("zeros", "reflect", "replicate", "circular")

Size = int | tuple[int, ...]


class Convolution(nn.Module):
    """A convolution on crossbars, with the meaning of torch's arguments.

    y[n, o, p] = sum_(c, k) w[o, c, k] x[n, c, s p + d k] + b[o], as in torch.nn.Conv1d, 2d and 3d. Inputs are
    (batch, channel, *space) or (channel, *space), outputs (batch, out_channel, *space) or (out_channel, *space).

    Parameters
    ----------
    in_channels, out_channels, kernel_size : as in torch.
    devices : what the crossbars are made of.
    stride, padding, dilation, groups, padding_mode : as in torch; padding is a number, one for each dimension, 'same'
        or 'valid'.
    bias : 'line', 'digital' or None.
    options : mapping, array, first and dtype, see `MemristiveLinear`.

    Raises
    ------
    OptionError
        When sizes do not fit together.

    Notes
    -----
    Patches are made at most `PATCH_VALUES` values at a time, all with the same devices. That bounds the memory of an
    evaluation; while gradients are recorded, autograd keeps what it needs of all patches.
    """

    dims: ClassVar[int]
    """Number of dimensions of space."""
    digital: ClassVar[str] = "patches are cut out and results put in place"
    """What of the layer is not on the crossbar."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        devices: Devices,
        *,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: str | None = "line",
        padding_mode: str = "zeros",
        **options: Any,
    ) -> None:
        super().__init__()
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size = self._each("kernel_size", kernel_size, 1)
        self.stride = self._each("stride", stride, 1)
        self.dilation = self._each("dilation", dilation, 1)
        self.padding = padding if isinstance(padding, str) else self._each("padding", padding, 0)
        self.padding_mode = padding_mode
        self._check_sizes()
        lines = in_channels // groups * math.prod(self.kernel_size)
        self.crossbars = nn.ModuleList(
            MemristiveLinear(lines, out_channels // groups, devices, bias=bias, **options) for _ in range(groups)
        )
        separate_draws(self)

    @classmethod
    def from_torch(cls, layer: Any, devices: Devices, *, bias: str | None = "line", **options: Any) -> Self:
        """Return the memristive form of a torch.nn.Conv1d, 2d or 3d with its weights; `bias` is for one that has it."""
        names = ("stride", "padding", "dilation", "groups", "padding_mode")
        given: dict[str, Any] = {name: getattr(layer, name) for name in names}
        place = None if layer.bias is None else bias
        options = {"dtype": layer.weight.dtype, **options}
        sizes: Any = (layer.in_channels, layer.out_channels, layer.kernel_size)
        result = cls(*sizes, devices, **given, bias=place, **options)  # type: ignore[call-arg]
        result.set_signed_weights(layer.weight, layer.bias)  # type: ignore[arg-type]
        return result

    @property
    def _crossbars(self) -> list[MemristiveLinear]:
        return list(self.crossbars)  # type: ignore[arg-type]

    def extra_repr(self) -> str:
        """Return what the layer's line shows."""
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"]
        for name, usual in (("padding", (0,) * self.dims), ("dilation", (1,) * self.dims), ("groups", 1)):
            if getattr(self, name) != usual:
                parts.append(f"{name}={getattr(self, name)}")
        if self.padding_mode != "zeros":
            parts.append(f"padding_mode={self.padding_mode}")
        return ", ".join(parts)

    def signed_weights(self) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return weights (out, in / groups, *kernel) and biases (out,), as those of torch's layer."""
        weights, biases = zip(*(signed_weights(one) for one in self._crossbars), strict=True)
        shape = (self.out_channels, self.in_channels // self.groups, *self.kernel_size)
        bias = None if biases[0] is None else torch.cat(biases)
        return torch.cat(weights).reshape(shape), bias

    def set_signed_weights(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        """Take weights (out, in / groups, *kernel) and biases (out,) of torch's layer."""
        weights = weight.detach().flatten(1).chunk(self.groups)
        biases = [None] * self.groups if bias is None else bias.detach().chunk(self.groups)
        for one, w, b in zip(self._crossbars, weights, biases, strict=True):
            set_signed_weights(one, w, b)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the convolution of (batch, in_channel, *space) or (in_channel, *space)."""
        self._check_input(x)
        batched = x.dim() == self.dims + 2
        x = x if batched else x.unsqueeze(0)
        edges = self._edges()
        if any(edges):
            x = functional.pad(x, edges, mode="constant" if self.padding_mode == "zeros" else self.padding_mode)
        if all(_is_convolution(one) for one in self._crossbars):
            result = self._convolved(x)
        else:
            channels = self._windows(x).chunk(self.groups, dim=1 + self.dims)
            y = [self._products(one, part) for one, part in zip(self._crossbars, channels, strict=True)]
            result = torch.cat(y, dim=-1).movedim(-1, 1).contiguous()  # (batch, out_channel, *space)
        return result if batched else result.squeeze(0)

    def _convolved(self, x: torch.Tensor) -> torch.Tensor:
        """Return (batch, out_channel, *space) as a convolution of the basis functions of (batch, in_channel, *space).

        Basis functions of an input of 0 are 0, so that padding comes first.
        """
        ones, dtype = self._crossbars, x.dtype
        missing = [one for one in ones if one.drawn is None]
        fresh = iter(drawing.draw(missing))
        drawn = [one.drawn if one.drawn is not None else next(fresh) for one in ones]
        kind = x.device.type
        with torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else contextlib.nullcontext():
            x = x.to(ones[0].weight.dtype) if x.dtype in (torch.float16, torch.bfloat16) else x
            fractions = [one.fractions(part) for one, part in zip(ones, x.chunk(self.groups, 1), strict=True)]
            basis = torch.cat([_channels(one, part) for one, part in zip(ones, fractions, strict=True)], 1)
            kernels, lines = zip(*(self._kernel(one, d["coefficients"]) for one, d in zip(ones, drawn, strict=True)),
                                 strict=True)  # fmt: skip
            self._windows(x)  # refuses inputs that the kernel does not fit into
            y = self._convolve(basis, torch.cat(kernels), self.groups)
            if ones[0].reading.measures:
                wanted = torch.is_grad_enabled() and any(one.wants_power for one in ones)
                with torch.set_grad_enabled(wanted):
                    self._measure(fractions, drawn)
            parts = [
                one.decoded(_combined(one, part, line), d)
                for one, part, line, d in zip(ones, y.chunk(self.groups, 1), lines, drawn, strict=True)
            ]
        result = torch.cat([part.movedim(-1, 1) for part in parts], 1)
        return result.contiguous() if dtype == result.dtype else result.contiguous().to(torch.float32)

    def _convolve(self, basis: torch.Tensor, kernel: torch.Tensor, groups: int = 1) -> torch.Tensor:
        convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[self.dims]
        return convolve(basis, kernel, None, self.stride, 0, self.dilation, groups)  # type: ignore[arg-type]

    def _kernel(self, one: MemristiveLinear, coefficients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | float]:
        """Return coefficients (K word_line, column) as kernel (column, K channel, *kernel), and the bias (column,)."""
        by_line = coefficients.unflatten(0, (one.plan.size, one.word_lines))
        kernel = by_line[:, : one.in_features].unflatten(1, (-1, *self.kernel_size)).flatten(0, 1).movedim(-1, 0)
        if not one.bias_on_line:
            return kernel, 0.0
        full = one.value_basis(coefficients.new_ones((1, 1)))[0, :, 0]  # (K,)
        return kernel, full @ by_line[:, -1]

    def _measure(self, fractions: list[torch.Tensor], drawn: list[drawing.Drawn]) -> None:
        """Add P = sum |V| |I| over all positions; one phase is read."""
        for one, x, numbers in zip(self._crossbars, fractions, drawn, strict=True):
            k_v = one.devices.input_voltage
            kernel, _ = self._kernel(one, numbers["power"].unsqueeze(-1))
            basis = _channels(one, x).unflatten(1, (one.plan.size, -1)) * (k_v * x).unsqueeze(1)
            watts = self._convolve(basis.flatten(1, 2), kernel)
            if one.bias_on_line:
                full = one.value_basis(x.new_ones((1, 1)))[0, :, 0]
                line = numbers["power"].unflatten(0, (one.plan.size, one.word_lines))[:, -1]
                watts = watts + k_v * (full * line).sum()
            one.reading.add(watts.sum())
            one.reading.weights = None

    def _windows(self, x: torch.Tensor) -> torch.Tensor:
        """Return a view (batch, *out_space, in_channel, *kernel) of the patches of (batch, in_channel, *space)."""
        for axis, (size, step, gap) in enumerate(zip(self.kernel_size, self.stride, self.dilation, strict=True)):
            reach = gap * (size - 1) + 1
            if x.shape[2 + axis] < reach:
                raise OptionError(
                    f"a convolution's kernel reaches over {reach} positions of dimension {axis}, but its input has "
                    f"{x.shape[2 + axis]} with padding; give a larger input or more padding"
                )
            x = x.unfold(2 + axis, reach, step)[..., ::gap]
        return x.movedim(1, 1 + self.dims)

    def _products(self, one: MemristiveLinear, windows: torch.Tensor) -> torch.Tensor:
        """Return (batch, *out_space, out) of patches (batch, *out_space, channel, *kernel)."""
        batch, rows = windows.shape[:2]
        image = math.prod(windows.shape[1:])
        images = max(1, PATCH_VALUES // max(image, 1))
        rows_at_once = rows if image <= PATCH_VALUES else max(1, PATCH_VALUES * rows // image)
        if batch <= images and rows_at_once == rows:
            return self._product(one, windows)
        per_image = math.prod(windows.shape[1 : 1 + self.dims])
        with same_devices(one), numbered_rows(one, batch * per_image) as go_to:
            parts = []
            for image, some in zip(range(0, batch, images), windows.split(images), strict=True):
                pieces = []
                for row, part in zip(range(0, rows, rows_at_once), some.split(rows_at_once, dim=1), strict=True):
                    go_to(image * per_image + row * (per_image // rows))
                    pieces.append(self._product(one, part))
                parts.append(torch.cat(pieces, dim=1))
        return torch.cat(parts)

    def _product(self, one: MemristiveLinear, windows: torch.Tensor) -> torch.Tensor:
        space = windows.shape[: 1 + self.dims]
        return one(windows.reshape(-1, one.in_features)).unflatten(0, space)

    def _edges(self) -> list[int]:
        """Return the padding before and after each dimension, the last dimension first, as functional.pad takes it."""
        if isinstance(self.padding, tuple):
            pairs = [(p, p) for p in self.padding]
        elif self.padding == "valid":
            pairs = [(0, 0)] * self.dims
        else:
            totals = [d * (k - 1) for d, k in zip(self.dilation, self.kernel_size, strict=True)]
            pairs = [(total // 2, total - total // 2) for total in totals]
        return [n for pair in reversed(pairs) for n in pair]

    def _each(self, name: str, value: Size, least: int) -> tuple[int, ...]:
        """Return one number for each dimension."""
        values = (value,) * self.dims if isinstance(value, int) else tuple(value)
        if len(values) == 1:
            values *= self.dims
        if len(values) != self.dims or any(v < least for v in values):
            raise OptionError(
                f"a convolution's {name} is {value}; expected a number of at least {least}, or {self.dims} of them"
            )
        return values

    def _check_sizes(self) -> None:
        if self.groups < 1 or self.in_channels % self.groups or self.out_channels % self.groups:
            raise OptionError(
                f"a convolution of {self.in_channels} to {self.out_channels} channels cannot have {self.groups} "
                "groups; expected a number that divides both"
            )
        if isinstance(self.padding, str) and self.padding not in ("same", "valid"):
            raise OptionError(f"there is no padding '{self.padding}'; expected 'same', 'valid' or numbers")
        if self.padding == "same" and any(s != 1 for s in self.stride):
            raise OptionError(f"padding 'same' needs a stride of 1, not {self.stride}; give the padding in numbers")
        if self.padding_mode not in PADDING_MODES:
            raise OptionError(
                f"there is no padding mode '{self.padding_mode}'; expected one of {', '.join(PADDING_MODES)}"
            )

    def _check_input(self, x: torch.Tensor) -> None:
        if x.dim() not in (self.dims + 1, self.dims + 2) or x.shape[-1 - self.dims] != self.in_channels:
            raise OptionError(
                f"a convolution of {self.in_channels} channels in {self.dims} dimensions was given {tuple(x.shape)}; "
                "expected (batch, channel, *space) or (channel, *space)"
            )


def _is_convolution(one: MemristiveLinear) -> bool:
    """Whether the outputs of a crossbar at all positions are a convolution of basis functions of the inputs.

    Not where something watches the patches: hooks, or a calibration (`calibration.ideal_passes`).
    """
    watched = bool(one._forward_hooks or one._forward_pre_hooks) or "forward" in vars(one)
    return one.by_product and one.one_phase and not watched


def _channels(one: MemristiveLinear, x: torch.Tensor) -> torch.Tensor:
    """Return the basis functions (batch, K channel, *space) of fractions of the full scale (batch, channel, *space)."""
    basis = one.value_basis(x.flatten(1))  # (batch, K, channel space)
    return basis.unflatten(-1, x.shape[1:]).flatten(1, 2)


def _combined(one: MemristiveLinear, y: torch.Tensor, line: torch.Tensor | float) -> torch.Tensor:
    """Return (batch, *space, out) of sums of currents (batch, column, *space) and of the bias line (column,)."""
    y = y.movedim(1, -1) + line
    return one.mapping.combine(y.unsqueeze(-2)) if one.mapping.reference else y


class MemristiveConv1d(Convolution):
    """torch.nn.Conv1d on crossbars, see `Convolution`."""

    dims = 1


class MemristiveConv2d(Convolution):
    """torch.nn.Conv2d on crossbars, see `Convolution`."""

    dims = 2


class MemristiveConv3d(Convolution):
    """torch.nn.Conv3d on crossbars, see `Convolution`."""

    dims = 3
