"""Read disturb: readings change the conductance that is read."""

import math

import torch
import xarray as xr

from calib.errors import OptionError
from calib.nonidealities.base import AS_PROGRAMMED, Conditions, ConductanceNonideality, deviate

_NODE = "read_disturb"


class Disturb(ConductanceNonideality):
    """After N readings a device has gone part of the way from G to an end: G + x (G_end - G).

        x = 1 - exp(-exp(spread z) (rate (N - threshold))^exponent) for N > threshold, else 0,   z ~ N(0, 1).

    While x is small this is a power law in the number of readings, (rate N)^exponent; in the end it saturates at
    G_end: the course that is measured where reading goes in the direction of set or of reset (W. Shim, Y. Luo, J. Seo,
    S. Yu, IRPS 2020, doi 10.1109/IRPS45951.2020.9129252: growth of the filament, then saturation; P. Yao et al.,
    Nature 577, 641 (2020), doi 10.1038/s41586-020-1942-4, extended data figure 7: 10^6 readings). The form, a
    stretched exponential, is calib's choice between those two limits; rate, exponent and threshold hold for one read
    voltage and pulse. z belongs to the device and stays when it is programmed again.

    Parameters
    ----------
    reads : number of readings N.
    towards : G_end [S].
    rate : [1 / reading]; 1 / rate readings after the threshold a usual device has gone 63 % of the way.
    exponent : > 0.
    threshold : readings that change nothing.
    spread : standard deviation between devices of ln(-ln(1 - x)).
    """

    name = "disturb"
    stage = "disturb"
    redraw = "chip"

    def __init__(
        self,
        reads: float,
        towards: float,
        rate: float,
        exponent: float = 1.0,
        threshold: float = 0.0,
        spread: float = 0.0,
    ) -> None:
        values = (reads, towards, rate, exponent, threshold, spread)
        self.reads, self.towards, self.rate, self.exponent, self.threshold, self.spread = map(float, values)
        if not (all(map(math.isfinite, map(float, values))) and min(values) >= 0 and towards > 0 and exponent > 0):
            raise OptionError(
                "read disturb needs a conductance towards which it goes > 0 S, an exponent > 0, and readings, rate, "
                f"threshold and spread >= 0; found towards = {towards}, exponent = {exponent}, reads = {reads}, "
                f"rate = {rate}, threshold = {threshold}, spread = {spread}"
            )

    @classmethod
    def from_device(cls, tree: xr.DataTree, conditions: Conditions = AS_PROGRAMMED) -> "Disturb | None":
        """Take the scalars of a node read_disturb: towards, rate, exponent, and threshold and spread if there."""
        if _NODE not in tree.children:
            return None
        node = tree[_NODE].to_dataset()
        given = {name: float(node[name]) for name in ("exponent", "threshold", "spread") if name in node}
        return cls(conditions.reads, float(node["towards"]), float(node["rate"]), **given)

    @property
    def is_ideal(self) -> bool:
        return not self.reads

    def ideal(self) -> "Disturb":
        return Disturb(0, self.towards, self.rate, self.exponent, self.threshold, self.spread)

    def describe(self) -> str:
        return f"{self.reads:g} readings, towards {self.towards:.3g} S at {self.rate:.3g} per reading"

    def conductance(
        self,
        conductance: torch.Tensor,
        generator: torch.Generator,
        device_generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        effective = self.rate * (self.reads - self.threshold)
        if not effective > 0:
            return conductance
        way: torch.Tensor | float = effective**self.exponent
        if not self.spread:
            return conductance + (self.towards - conductance) * -math.expm1(-way)
        z = deviate(conductance, generator if device_generator is None else device_generator)
        return conductance + (self.towards - conductance) * -torch.expm1(-way * torch.exp(self.spread * z))


member = Disturb
