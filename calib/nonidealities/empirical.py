"""Spread of the programmed resistance with the measured form of its distribution."""

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from calib.errors import OptionError
from calib.nonidealities._quantile_table import QuantileTable
from calib.nonidealities.base import AS_PROGRAMMED, Conditions, ConductanceNonideality, deviate, interpolate
from calib.nonidealities.lognormal import programming_spread

_FEWEST = 5
"""Quantiles from which on a table tells the form of a distribution."""


class Empirical(ConductanceNonideality):
    """Programming leaves R exp(sigma r(z) - c) instead of R, r having the distribution of measured residuals.

    r is the quantile function of the standardised residuals of ln R in a state, a function of z ~ N(0, 1), with mean 0
    and standard deviation 1; c = ln E[exp(sigma r)] keeps the mean of R. Between the resistances of two states
    sigma r(z) - c is interpolated linearly in R, constant outside. With normal residuals this is the lognormal spread,
    whose place it takes; `nonidealities.from_device` takes it where it is asked for (`prefer=("empirical",)`).
    Drawn once per chip; the share between devices as in the lognormal spread.

    Parameters
    ----------
    resistance : resistances [Ohm] of the states, all different.
    sigma : standard deviation of ln R in each.
    probability : (state, quantile) or (quantile,) ascending between 0 and 1, both not included.
    residual : (state, quantile) residuals of ln R, of any mean and standard deviation > 0.
    share : of the variance between devices, in each state; None where it is not known.
    """

    name = "empirical"
    stage = "program"
    redraw = "chip"
    precedence = -1

    def __init__(
        self,
        resistance: Sequence[float],
        sigma: Sequence[float],
        probability: np.ndarray,
        residual: np.ndarray,
        share: Sequence[float] | None = None,
    ) -> None:
        r, s = np.asarray(resistance, dtype=float), np.asarray(sigma, dtype=float)
        order = np.argsort(r)
        if r.shape != s.shape or r.ndim != 1 or not len(r) or not ((r > 0) & (s >= 0)).all():
            raise OptionError(f"empirical spread needs R > 0 and sigma >= 0; found R = {resistance}, sigma = {sigma}")
        self.resistance, self.sigma = tuple(r[order].tolist()), tuple(s[order].tolist())
        self.share = None if share is None else tuple(np.asarray(share, dtype=float)[order].tolist())
        residual = np.atleast_2d(np.asarray(residual, dtype=float))
        probability = np.broadcast_to(np.asarray(probability, dtype=float), residual.shape)[order]
        residual = residual[order]
        raw = QuantileTable(self.resistance, probability, residual)
        mean = raw.means()
        std = np.sqrt(raw.means(np.square) - mean**2)
        if not (std > 0).all():
            raise OptionError("empirical spread needs residuals that differ in every state")
        scaled = (residual - mean[:, None]) * (s[order] / std)[:, None]
        level = np.log(QuantileTable(self.resistance, probability, scaled).means(np.exp))
        self.probability, self.residual = probability, residual
        self.table = QuantileTable(self.resistance, probability, scaled - level[:, None])

    @classmethod
    def from_device(cls, tree: xr.DataTree, conditions: Conditions = AS_PROGRAMMED) -> "Empirical | None":
        """Take sigma from the node programming, and the form from the quantiles of ln R in the node iv."""
        found = programming_spread(tree)
        if found is None or "iv" not in tree.children:
            return None
        states, resistance, sigma, share = found
        iv = tree["iv"].to_dataset()
        if not set(states) <= set(iv["state"].values.astype(str)) or iv.sizes["quantile"] < _FEWEST:
            return None
        iv = iv.sel(state=states)
        half = 0.5 / np.maximum(iv["n_curves"].values, iv.sizes["quantile"])[:, None]  # half a curve beyond the ends
        probability = half + (1 - 2 * half) * iv["quantile"].values
        residual = iv["ln_r_quantile"].values
        if not np.isfinite(residual).all() or not (np.ptp(residual, axis=1) > 0).all():
            return None
        return cls(resistance, sigma, probability, residual, share)

    @property
    def is_ideal(self) -> bool:
        return not any(self.sigma)

    def ideal(self) -> "Empirical":
        return Empirical(self.resistance, (0.0,) * len(self.sigma), self.probability, self.residual)

    def describe(self) -> str:
        values = ", ".join(f"{s:.3g} at {r:.3g} Ohm" for r, s in zip(self.resistance, self.sigma, strict=True))
        return f"spread of R with the measured distribution, sigma {values}"

    def conductance(
        self,
        conductance: torch.Tensor,
        generator: torch.Generator,
        device_generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        if not any(self.sigma):
            return conductance
        resistance = 1 / conductance
        share = None if self.share is None else interpolate(resistance, self.resistance, self.share)
        z = deviate(conductance, generator, device_generator, share)
        return conductance * torch.exp(-self.table.at(resistance, z))


member = Empirical
