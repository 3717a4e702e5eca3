"""Lognormal spread of the programmed resistance."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from calib.errors import OptionError
from calib.nonidealities.base import AS_PROGRAMMED, Conditions, ConductanceNonideality, deviate, interpolate


class Lognormal(ConductanceNonideality):
    """Programming leaves R exp(sigma z - sigma^2 / 2) instead of R, z ~ N(0, 1): the mean of R is kept.

    sigma, the standard deviation of ln R, is interpolated linearly in R between its values at the given resistances
    and constant outside (Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784). Drawn once per chip.
    Where it is known which share of sigma^2 lies between devices, that part is drawn from the device generator, if one
    is given, and so stays when a chip is programmed again; the rest is that between cycles. Without the share
    everything is drawn anew.

    Parameters
    ----------
    resistance : resistances [Ohm] at which sigma is known, all different.
    sigma : standard deviation of ln R at each.
    share : sigma_d2d^2 / (sigma_d2d^2 + sigma_c2c^2) at each, None where it is not known; interpolated as sigma is.
    """

    name = "lognormal"
    stage = "program"
    redraw = "chip"

    def __init__(
        self, resistance: Sequence[float], sigma: Sequence[float], share: Sequence[float] | None = None
    ) -> None:
        shares = [0.0] * len(sigma) if share is None else list(share)
        rows = sorted(zip(map(float, resistance), map(float, sigma), map(float, shares), strict=True))
        self.resistance = tuple(row[0] for row in rows)
        self.sigma = tuple(row[1] for row in rows)
        self.share = None if share is None else tuple(row[2] for row in rows)
        if not rows or not min(self.sigma) >= 0 or not min(self.resistance) > 0:
            raise OptionError(f"lognormal spread needs R > 0 and sigma >= 0; found R = {resistance}, sigma = {sigma}")
        if len(set(self.resistance)) < len(rows):
            raise OptionError(f"lognormal spread needs different resistances; found R = {resistance}")
        if self.share is not None and not all(0 <= part <= 1 for part in self.share):
            raise OptionError(f"the share of the variance between devices is {share}; expected 0 to 1")

    @classmethod
    def from_device(cls, tree: xr.DataTree, conditions: Conditions = AS_PROGRAMMED) -> "Lognormal | None":
        found = programming_spread(tree)
        return None if found is None else cls(*found[1:])

    @property
    def is_ideal(self) -> bool:
        return not any(self.sigma)

    def ideal(self) -> "Lognormal":
        return Lognormal(self.resistance, (0.0,) * len(self.sigma))

    def describe(self) -> str:
        values = ", ".join(f"{s:.3g} at {r:.3g} Ohm" for r, s in zip(self.resistance, self.sigma, strict=True))
        between = "" if self.share is None else ", device-to-device and cycle-to-cycle apart"
        return f"lognormal spread of R, sigma {values}{between}"

    def spread(self, resistance: torch.Tensor) -> torch.Tensor | float:
        """Return sigma of ln R at `resistance` [Ohm]."""
        return interpolate(resistance, self.resistance, self.sigma)

    def conductance(
        self,
        conductance: torch.Tensor,
        generator: torch.Generator,
        device_generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        if not any(self.sigma):
            return conductance
        resistance = 1 / conductance
        sigma = self.spread(resistance)
        share = None if self.share is None else interpolate(resistance, self.resistance, self.share)
        z = deviate(conductance, generator, device_generator, share)
        return conductance * torch.exp(sigma * (0.5 * sigma - z))


def programming_spread(tree: xr.DataTree) -> tuple[list[str], list[float], list[float], list[float] | None] | None:
    """Return states, resistances, sigma, and the share between devices where it is known, of the node programming.

    None where the model has no such node or knows sigma in no state.
    """
    if "programming" not in tree.children:
        return None
    node = tree["programming"].to_dataset()
    known = np.isfinite(node["sigma"].values) & np.isfinite(node["r_median"].values)
    if not known.any():
        return None
    node = node.isel(state=np.flatnonzero(known))
    between, within = node["sigma_d2d"].values ** 2, node["sigma_c2c"].values ** 2
    total = between + within
    share = (between / total).tolist() if (total > 0).all() else None
    states = node["state"].values.astype(str).tolist()
    return states, node["r_median"].values.tolist(), node["sigma"].values.tolist(), share


member = Lognormal
