"""What a nonideality is."""

from abc import ABC, abstractmethod
from typing import ClassVar, Self

import torch
import xarray as xr

from calib.iv_models import IVModel

Z_MAX = 4.0
"""Normal deviates beyond this many standard deviations are clipped: no device model is fitted to that far a tail."""


class Nonideality(ABC):
    """An effect that makes a device differ from the conductance that was asked for.

    A member is final and immutable. Randomness comes only from the generators that are passed: the same generator
    state gives the same devices.
    """

    name: ClassVar[str]
    stage: ClassVar[str]
    redraw: ClassVar[str]
    """'chip' where a device keeps its draw for its life, 'read' where each reading draws anew."""

    @classmethod
    @abstractmethod
    def from_device(cls, tree: xr.DataTree) -> Self | None:
        """Return the effect as a device model has it, or None where the model lacks that characteristic."""

    @abstractmethod
    def ideal(self) -> Self:
        """Return the limit in which the effect does nothing."""

    @abstractmethod
    def describe(self) -> str:
        """Return the effect and its size in a few words."""


class ConductanceNonideality(Nonideality):
    """A nonideality that changes conductances."""

    @abstractmethod
    def conductance(self, conductance: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Return the conductances [S] after the effect, same shape, differentiable by those given."""


class Conduction(Nonideality):
    """A nonideality of the stage 'conduction': the law by which a device of a given conductance passes current."""

    law: IVModel
    reference_voltage: float
    v_max: float

    @abstractmethod
    def deviates(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        """Return the standard normal deviates (deviate, *shape) that devices of a chip keep, not yet clipped."""

    @abstractmethod
    def parameters(self, conductance: torch.Tensor, deviates: torch.Tensor) -> dict[str, torch.Tensor]:
        """Return the law's parameters of each device of `conductance` = 1/R [S], R = V_ref / I(V_ref)."""

    @abstractmethod
    def shape_with_slope(
        self, conductance: torch.Tensor, deviates: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the only shape parameter and its derivative by ln R, both without graph; None if there are more.

        Only laws whose scale is solved from R have it.
        """

    @abstractmethod
    def clipped(self, conductance: torch.Tensor, deviates: torch.Tensor) -> int:
        """Return how many devices lie outside of the range that the device model was fitted to."""

    @abstractmethod
    def extremes(self, spread: float = Z_MAX) -> list[dict[str, float]]:
        """Return shape parameters that span those of all devices within `spread` standard deviations."""
