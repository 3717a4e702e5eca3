"""What a nonideality is."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import torch
import xarray as xr

from calib.errors import OptionError
from calib.iv_models import IVModel

Z_MAX = 4.0
"""Normal deviates beyond this many standard deviations are clipped: no device model is fitted to that far a tail."""
_LEAST_SHARE = 1e-6  # keeps the square root's gradient finite where a share is interpolated to 0 or 1


@dataclass(frozen=True)
class Conditions:
    """What has happened to devices since they were programmed.

    Attributes
    ----------
    time : [s] since programming.
    reads : readings of each device since programming.
    temperature : [K] at which they are kept, None for that of the measurement.
    compensate : whether the outputs are corrected for drift by reference columns.

    Raises
    ------
    OptionError
        When a value is not possible.
    """

    time: float = 0.0
    reads: int = 0
    temperature: float | None = None
    compensate: bool = False

    def __post_init__(self) -> None:
        if not (math.isfinite(self.time) and self.time >= 0):
            raise OptionError(f"the time since programming is {self.time} s; expected 0 or more")
        if not (math.isfinite(self.reads) and self.reads >= 0):
            raise OptionError(f"the number of readings since programming is {self.reads}; expected 0 or more")
        if self.temperature is not None and not (math.isfinite(self.temperature) and self.temperature > 0):
            raise OptionError(f"the temperature is {self.temperature} K; expected more than 0, or None")


AS_PROGRAMMED = Conditions()
"""No time has passed and nothing was read."""


class Nonideality(ABC):
    """An effect that makes a device differ from the conductance that was asked for.

    A member is final and immutable. Randomness comes only from the generators that are passed: the same generator
    state gives the same devices.
    """

    name: ClassVar[str]
    stage: ClassVar[str]
    redraw: ClassVar[str]
    """'chip' where a device keeps its draw for its life, 'read' where each reading draws anew."""
    precedence: ClassVar[int] = 0
    """Which of several members of a stage `nonidealities.from_device` takes: the largest; a negative one if asked."""

    @classmethod
    @abstractmethod
    def from_device(cls, tree: xr.DataTree, conditions: Conditions = AS_PROGRAMMED) -> Self | None:
        """Return the effect as a device model has it, or None where the model lacks that characteristic.

        Parameters
        ----------
        tree : the device model.
        conditions : what has happened to the devices since they were programmed.
        """

    @abstractmethod
    def ideal(self) -> Self:
        """Return the limit in which the effect does nothing."""

    @abstractmethod
    def describe(self) -> str:
        """Return the effect and its size in a few words."""


class ConductanceNonideality(Nonideality):
    """A nonideality that changes conductances."""

    @property
    @abstractmethod
    def is_ideal(self) -> bool:
        """Whether it does nothing, so that devices need no draw of it."""

    @abstractmethod
    def conductance(
        self,
        conductance: torch.Tensor,
        generator: torch.Generator,
        device_generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Return the conductances [S] after the effect, same shape, differentiable by those given.

        Parameters
        ----------
        conductance : (..., group, word_line, bit_line) [S].
        generator : draws what differs each time that a device is programmed.
        device_generator : draws what a device keeps when it is programmed again; `generator` where it is not given.
        """


class ReadNonideality(Nonideality):
    """A nonideality of the stage 'read': the current of a device fluctuates from one reading to the next.

    The current of device (i, j) at a reading is I_ij (1 + sigma_ij z + d_ij), z ~ N(0, 1) and d the telegraph noise:
    a (1 - p) with probability p, -a p otherwise, so that its mean is 0.
    """

    @property
    @abstractmethod
    def is_ideal(self) -> bool:
        """Whether nothing fluctuates, so that readings need no noise."""

    @abstractmethod
    def relative_spread(
        self,
        conductance: torch.Tensor,
        generator: torch.Generator | None = None,
        telegraph: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """Return the standard deviation of I / I of the normal part, same shape, differentiable by the conductance.

        Parameters
        ----------
        conductance : [S] of each device.
        generator : draws each device's own level; without it every device has the level of the root mean square.
        telegraph : what `telegraph` drew for the same devices, whose jumps are no part of the normal one.
        """

    @abstractmethod
    def telegraph(
        self, conductance: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the telegraph noise that the devices of a chip keep, None where there is none.

        Returns
        -------
        amplitude : distance a of the two levels over the mean conductance, same shape, 0 where a device has one level.
        occupancy : probability p of the upper level, same shape.
        """


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
        self, ln_r: torch.Tensor, deviates: torch.Tensor, covered: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the only shape parameter and its derivative by ln R, both without graph; None if there are more.

        Only laws whose scale is solved from R have it. `covered`: ln R is known to lie where the law was fitted.
        """

    @abstractmethod
    def clipped(self, conductance: torch.Tensor, deviates: torch.Tensor) -> int:
        """Return how many devices lie outside of the range that the device model was fitted to."""

    @abstractmethod
    def extremes(self, spread: float = Z_MAX) -> list[dict[str, float]]:
        """Return shape parameters that span those of all devices within `spread` standard deviations."""


def deviate(
    conductance: torch.Tensor,
    generator: torch.Generator,
    device_generator: torch.Generator | None = None,
    share: torch.Tensor | float | None = None,
) -> torch.Tensor:
    """Return standard normal deviates, same shape, clipped at `Z_MAX`.

    With a `device_generator` and a `share` they are sqrt(share) z_device + sqrt(1 - share) z, z_device drawn from the
    former: the share of the variance that devices keep when they are programmed again. Otherwise they are one draw.

    Parameters
    ----------
    conductance : what shape, type and device are taken from.
    share : 0 to 1, None where it is not known.
    """
    z = torch.empty_like(conductance, requires_grad=False).normal_(generator=generator).clamp_(-Z_MAX, Z_MAX)
    if device_generator is None or share is None:
        return z
    kept = torch.empty_like(z).normal_(generator=device_generator).clamp_(-Z_MAX, Z_MAX)
    if not isinstance(share, torch.Tensor):
        return math.sqrt(share) * kept + math.sqrt(1 - share) * z
    share = share.clamp(_LEAST_SHARE, 1 - _LEAST_SHARE)
    return torch.sqrt(share) * kept + torch.sqrt(1 - share) * z


def interpolate(x: torch.Tensor, knots: Sequence[float], values: Sequence[float]) -> torch.Tensor | float:
    """Return values at ascending `knots` interpolated linearly at `x`, constant outside; a number where all agree."""
    if len(set(values)) == 1:
        return values[0]
    total = torch.full_like(x, values[0])
    for i in range(len(values) - 1):
        low, high = knots[i : i + 2]
        weight = ((x - low) / (high - low)).clamp(0.0, 1.0)
        total = total + (values[i + 1] - values[i]) * weight
    return total
