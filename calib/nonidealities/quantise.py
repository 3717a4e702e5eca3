"""Discrete conductance levels."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from calib.errors import OptionError
from calib.nonidealities.base import AS_PROGRAMMED, Conditions, ConductanceNonideality

_PROGRAMMED = ("target", "level")
"""What tells levels that devices were programmed to; set and reset states, or single traces, are none."""


class Quantise(ConductanceNonideality):
    """A device is programmed to the nearest of a few levels.

    Nearest in G, or in ln R, where the border between two levels is their geometric mean. The gradient is that of the
    identity (straight through: Y. Bengio, N. Leonard, A. Courville, arXiv:1308.3432, 2013).

    Parameters
    ----------
    levels : conductances [S] > 0; none for a device that can be set to any conductance.
    nearest : 'G' or 'ln R', in which the nearest level is sought.
    """

    name = "quantise"
    stage = "quantise"
    redraw = "chip"

    def __init__(self, levels: Sequence[float], nearest: str = "G") -> None:
        self.levels = tuple(sorted(set(map(float, levels))))
        if not all(level > 0 and np.isfinite(level) for level in self.levels):
            raise OptionError(f"levels must be conductances > 0 S; found {list(levels)}")
        self.nearest = _known(nearest)
        values = np.asarray(self.levels)
        borders = np.sqrt(values[1:] * values[:-1]) if nearest == "ln R" else (values[1:] + values[:-1]) / 2
        self._borders = tuple(borders.tolist())

    @classmethod
    def from_device(cls, tree: xr.DataTree, conditions: Conditions = AS_PROGRAMMED) -> "Quantise | None":
        """Take the mean conductances of the levels that devices were programmed to (node levels)."""
        if "levels" not in tree.children:
            return None
        node = tree["levels"].to_dataset()
        if str(node.attrs.get("told_by", "")) not in _PROGRAMMED:
            return None
        mean = node["mean"].values
        mean = mean[np.isfinite(mean) & (mean > 0)]
        return cls(mean.tolist()) if len(mean) > 1 else None

    @classmethod
    def even(cls, count: int, g_off: float, g_on: float, spacing: str = "G") -> "Quantise":
        """Return `count` levels from `g_off` to `g_on` [S], equally far apart in G or in ln R, nearest in the same."""
        if count < 2 or not 0 < g_off < g_on:
            raise OptionError(f"{count} levels from {g_off} S to {g_on} S; expected 2 or more, and 0 < G_off < G_on")
        if _known(spacing) == "ln R":
            levels = np.exp(np.linspace(np.log(g_off), np.log(g_on), count))
        else:
            levels = np.linspace(g_off, g_on, count)
        levels[[0, -1]] = g_off, g_on
        return cls(levels.tolist(), spacing)

    @property
    def is_ideal(self) -> bool:
        return not self.levels

    def ideal(self) -> "Quantise":
        return Quantise((), self.nearest)

    def describe(self) -> str:
        if not self.levels:
            return "any conductance"
        return f"{len(self.levels)} levels from {self.levels[0]:.3g} S to {self.levels[-1]:.3g} S"

    def conductance(
        self,
        conductance: torch.Tensor,
        generator: torch.Generator,
        device_generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        if not self.levels:
            return conductance
        return _Nearest.apply(conductance, self.levels, self._borders)  # type: ignore[return-value]


class _Nearest(torch.autograd.Function):
    """The nearest level, with the gradient of the identity."""

    generate_vmap_rule = True

    @staticmethod
    def forward(conductance: torch.Tensor, levels: tuple[float, ...], borders: tuple[float, ...]) -> torch.Tensor:
        like = {"dtype": conductance.dtype, "device": conductance.device}
        return torch.tensor(levels, **like)[torch.bucketize(conductance, torch.tensor(borders, **like))]

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        """Nothing is needed for the gradient."""

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0], None, None


def _known(spacing: str) -> str:
    if spacing not in ("G", "ln R"):
        raise OptionError(f"levels are spaced in 'G' or 'ln R'; found '{spacing}'")
    return spacing


member = Quantise
