"""Devices that do not switch."""

from collections.abc import Sequence

import torch
import xarray as xr

from calib.errors import OptionError
from calib.nonidealities.base import AS_PROGRAMMED, Conditions, ConductanceNonideality


class Stuck(ConductanceNonideality):
    """Each device is stuck with a probability, at a conductance that does not depend on the one asked for.

    The stuck conductance is drawn from the kernel density of the measured ones: a mixture, of equal parts, of normals
    of width `bandwidth` about `values`, truncated to G > 0 with reflection, so that a draw is |value + bandwidth z|.
    Bandwidth 0 takes the values themselves: one value is 'stuck at'. Drawn once per chip, and kept when the chip is
    programmed again. Rule and kernel of Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784.

    Parameters
    ----------
    probability : of being stuck.
    values : conductances [S] > 0.
    bandwidth : standard deviation of the kernel [S].
    """

    name = "stuck"
    stage = "stuck"
    redraw = "chip"

    def __init__(self, probability: float, values: Sequence[float], bandwidth: float = 0.0) -> None:
        self.probability = float(probability)
        self.values = tuple(map(float, values))
        self.bandwidth = float(bandwidth)
        if not 0 <= self.probability <= 1:
            raise OptionError(f"the probability of stuck devices is {probability}; expected 0 to 1")
        if self.probability and not self.values:
            raise OptionError("stuck devices need at least one conductance; give values > 0 in siemens")
        if self.bandwidth < 0 or any(not value > 0 for value in self.values):
            raise OptionError(f"stuck devices need conductances > 0 and bandwidth >= 0; found {values}, {bandwidth}")

    @classmethod
    def from_device(cls, tree: xr.DataTree, conditions: Conditions = AS_PROGRAMMED) -> "Stuck | None":
        if "stuck" not in tree.children:
            return None
        node = tree["stuck"].to_dataset()
        values = [value for value in node["conductance"].values.tolist() if value > 0]
        bandwidth = float(node["bandwidth"])
        probability = float(node["probability"])
        if not values:
            return cls(0.0, ()) if probability == 0 else cls(probability, values, bandwidth)
        return cls(probability, values, bandwidth if bandwidth > 0 else 0.0)

    @classmethod
    def at_off(cls, tree: xr.DataTree, probability: float) -> "Stuck":
        """Return devices stuck at G_off of a device model."""
        return cls(probability, (float(tree["conductance"].to_dataset()["g_off"]),))

    @classmethod
    def at_on(cls, tree: xr.DataTree, probability: float) -> "Stuck":
        """Return devices stuck at G_on of a device model."""
        return cls(probability, (float(tree["conductance"].to_dataset()["g_on"]),))

    @property
    def is_ideal(self) -> bool:
        return not self.probability

    def ideal(self) -> "Stuck":
        return Stuck(0.0, self.values, self.bandwidth)

    def describe(self) -> str:
        where = f"at {self.values[0]:.3g} S" if len(self.values) == 1 else f"at {len(self.values)} measured values"
        spread = f", kernel of {self.bandwidth:.3g} S" if self.bandwidth else ""
        return f"{100 * self.probability:.3g} % stuck {where}{spread}" if self.probability else "no stuck devices"

    def sample(self, count: int, generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        """Return `count` stuck conductances [S]."""
        centres = torch.tensor(self.values, dtype=dtype, device=generator.device)
        chosen = torch.randint(len(self.values), (count,), generator=generator, device=generator.device)
        values = centres[chosen]
        if self.bandwidth:
            noise = torch.empty_like(values).normal_(generator=generator)
            values = (values + self.bandwidth * noise).abs().clamp_(min=torch.finfo(dtype).tiny)
        return values

    def conductance(
        self,
        conductance: torch.Tensor,
        generator: torch.Generator,
        device_generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        if not self.probability:
            return conductance
        generator = generator if device_generator is None else device_generator
        uniform = torch.empty_like(conductance, requires_grad=False).uniform_(generator=generator)
        (where,) = torch.nonzero(uniform.flatten() < self.probability, as_tuple=True)
        values = self.sample(len(where), generator, conductance.dtype)
        return conductance.flatten().index_put((where,), values).view(conductance.shape)


member = Stuck
