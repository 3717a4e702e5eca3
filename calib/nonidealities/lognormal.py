"""Lognormal spread of the programmed resistance."""

from collections.abc import Sequence

import torch
import xarray as xr

from calib.errors import OptionError
from calib.nonidealities.base import Z_MAX, ConductanceNonideality


class Lognormal(ConductanceNonideality):
    """Programming leaves R exp(sigma z - sigma^2 / 2) instead of R, z ~ N(0, 1): the mean of R is kept.

    sigma, the standard deviation of ln R, is interpolated linearly in R between its values at the given resistances
    and constant outside (Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784). Drawn once per chip.

    Parameters
    ----------
    resistance : resistances [Ohm] at which sigma is known, all different.
    sigma : standard deviation of ln R at each.
    """

    name = "lognormal"
    stage = "program"
    redraw = "chip"

    def __init__(self, resistance: Sequence[float], sigma: Sequence[float]) -> None:
        pairs = sorted(zip(map(float, resistance), map(float, sigma), strict=True))
        self.resistance = tuple(pair[0] for pair in pairs)
        self.sigma = tuple(pair[1] for pair in pairs)
        if not pairs or min(self.sigma) < 0 or min(self.resistance) <= 0:
            raise OptionError(f"lognormal spread needs R > 0 and sigma >= 0; found R = {resistance}, sigma = {sigma}")
        if len(set(self.resistance)) < len(pairs):
            raise OptionError(f"lognormal spread needs different resistances; found R = {resistance}")

    @classmethod
    def from_device(cls, tree: xr.DataTree) -> "Lognormal | None":
        if "programming" not in tree.children:
            return None
        node = tree["programming"].to_dataset()
        return cls(node["r_median"].values.tolist(), node["sigma"].values.tolist())

    def ideal(self) -> "Lognormal":
        return Lognormal(self.resistance, (0.0,) * len(self.sigma))

    def describe(self) -> str:
        values = ", ".join(f"{s:.3g} at {r:.3g} Ohm" for r, s in zip(self.resistance, self.sigma, strict=True))
        return f"lognormal spread of R, sigma {values}"

    def spread(self, resistance: torch.Tensor) -> torch.Tensor | float:
        """Return sigma of ln R at `resistance` [Ohm]."""
        if len(set(self.sigma)) == 1:
            return self.sigma[0]
        sigma = torch.full_like(resistance, self.sigma[0])
        for i in range(len(self.sigma) - 1):
            low, high = self.resistance[i : i + 2]
            weight = ((resistance - low) / (high - low)).clamp(0.0, 1.0)
            sigma = sigma + (self.sigma[i + 1] - self.sigma[i]) * weight
        return sigma

    def conductance(self, conductance: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        if not any(self.sigma):
            return conductance
        sigma = self.spread(1 / conductance)
        z = torch.empty_like(conductance, requires_grad=False).normal_(generator=generator).clamp_(-Z_MAX, Z_MAX)
        return conductance * torch.exp(sigma * (0.5 * sigma - z))


member = Lognormal
