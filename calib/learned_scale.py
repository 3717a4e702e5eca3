"""Digital scales of layers that are learned, with weights as shares of the conductance range.

Usually the largest weight of a layer sets its scale: it is at G_on, k_G = (G_on - G_off) / max|w|. With a learned scale
c a layer's weights are

    w = c u,   |u| <= 1,   k_G = (G_on - G_off) / c,

u the share of the conductance range, and u and ln c are trained. A step of the optimiser that takes u beyond 1 is put
back to 1, so that many devices may be at G_on and a few large weights do not press all others together at the low end
of the range; and a learning rate is in units of the conductance range, the same for every layer. c is a factor after
the converters, where y = I / (k_V k_G) has one already, and costs no power in the devices. After each step at least one
|u| is 1 (if not, all are stretched and c shrinks by as much), so that weights alone say what c is: the trained network
is one of the usual mapping.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from calib.crossbar.layers import MemristiveLinear
from calib.crossbar.mapping import Mapping

SCALES = ("largest", "learned")


@dataclass(frozen=True, eq=False)
class _Scaled(Mapping):
    """A mapping whose scale is given instead of being the largest weight."""

    inner: Any = None
    scale: Any = None

    name: ClassVar[str] = "scaled"

    @property
    def factors(self) -> tuple[float, ...]:
        return self.inner.factors

    @property
    def span(self) -> float:
        return self.inner.span

    def conductances(self, weight: torch.Tensor, g_off: float, g_on: float) -> tuple[torch.Tensor, torch.Tensor]:
        k_g = (g_on - g_off) * self.span / self.scale
        return self.inner._place(weight, k_g, g_off, g_on), k_g

    def k_g(self, weight: torch.Tensor, g_off: float, g_on: float) -> torch.Tensor:
        return (g_on - g_off) * self.span / self.scale

    def _place(self, weight: torch.Tensor, k_g: torch.Tensor, g_off: float, g_on: float) -> torch.Tensor:
        return self.inner._place(weight, k_g, g_off, g_on)


class LearnedScale:
    """An optimiser of the shares u and ln c of memristive layers, and of all other parameters of a network as they are.

    It replaces the mappings of the layers, so copies of the network that keep the usual ones are made before.

    Parameters
    ----------
    model_parameters : all parameters that are trained.
    layers : memristive layers, whose weights are written after each step.
    make : makes the optimiser of some parameters.
    """

    def __init__(
        self,
        model_parameters: Iterable[torch.nn.Parameter],
        layers: list[MemristiveLinear],
        make: Callable[[list[torch.Tensor]], torch.optim.Optimizer],
    ) -> None:
        self.layers = layers
        weights = {id(layer.weight) for layer in layers}
        scales = [_largest(layer.weight) for layer in layers]
        self.shares = [layer.weight.detach() / scale for layer, scale in zip(layers, scales, strict=True)]
        self.log_scales = [scale.log() for scale in scales]
        for share, log_scale in zip(self.shares, self.log_scales, strict=True):
            share.requires_grad_(True)
            log_scale.requires_grad_(True)
        others = [parameter for parameter in model_parameters if id(parameter) not in weights]
        self.inner = make([*self.shares, *self.log_scales, *others])
        self._write()

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of the inner optimiser, whose learning rates a schedule sets."""
        return self.inner.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        self.inner.zero_grad(set_to_none)
        for layer in self.layers:
            layer.weight.grad = layer.mapping.scale.grad = None  # type: ignore[attr-defined]

    @torch.no_grad()
    def step(self) -> None:
        """Make a step from the gradients of the layers' weights, and write new weights."""
        for layer, share, log_scale in zip(self.layers, self.shares, self.log_scales, strict=True):
            by_weight, scale = layer.weight.grad, layer.mapping.scale  # type: ignore[attr-defined]
            if by_weight is None:
                share.grad = log_scale.grad = None
                continue
            share.grad = by_weight * scale
            direct = scale.grad if scale.grad is not None else torch.zeros_like(scale)
            log_scale.grad = (by_weight * layer.weight).sum() + direct * scale
        self.inner.step()
        for layer, share, log_scale in zip(self.layers, self.shares, self.log_scales, strict=True):
            share.clamp_(0.0 if layer.mapping.inner.own_weights else -1.0, 1.0)  # type: ignore[attr-defined]
            largest = _largest(share)
            if 0 < largest < 1:
                share /= largest
                log_scale += largest.log()
        self._write()

    @torch.no_grad()
    def _write(self) -> None:
        for layer, share, log_scale in zip(self.layers, self.shares, self.log_scales, strict=True):
            scale = log_scale.exp()
            torch.mul(share, scale, out=layer.weight.data)
            inner = layer.mapping.inner if isinstance(layer.mapping, _Scaled) else layer.mapping
            layer.mapping = _Scaled(inner=inner, scale=scale.clone().requires_grad_(True))

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {
            "shares": [share.detach() for share in self.shares],
            "log_scales": [log_scale.detach() for log_scale in self.log_scales],
            "optimizer": self.inner.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what a checkpoint kept."""
        for name in ("shares", "log_scales"):
            for own, known in zip(getattr(self, name), state[name], strict=True):
                own.copy_(known)
        self.inner.load_state_dict(state["optimizer"])
        self._write()


def _largest(weight: torch.Tensor) -> torch.Tensor:
    return weight.detach().abs().max()
