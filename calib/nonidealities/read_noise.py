"""Read noise: fluctuation of a device's current from one reading to the next, two-level telegraph noise among it."""

import math
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from calib.errors import OptionError
from calib.nonidealities.base import AS_PROGRAMMED, Z_MAX, Conditions, ReadNonideality

_DEEPEST = 0.99
"""The lower level of telegraph noise is held at 1 % of the mean conductance or more."""


@dataclass(frozen=True)
class Telegraph:
    """Two-level noise of a population of devices.

    Attributes
    ----------
    probability : that a device has it.
    ln_amplitude, ln_amplitude_std : mean and standard deviation of ln a, a = distance of the levels over the mean G.
    ln_dwell_ratio, ln_dwell_ratio_std : of ln of the mean dwell in the upper level over that in the lower one.
    """

    probability: float
    ln_amplitude: float
    ln_amplitude_std: float = 0.0
    ln_dwell_ratio: float = 0.0
    ln_dwell_ratio_std: float = 0.0


class ReadNoise(ReadNonideality):
    """The relative noise of a device is level (G / G_ref)^exponent exp(spread z), z ~ N(0, 1) of each device.

    Every reading draws anew, independently of the one before: readings of a test set are taken to lie farther apart
    than the noise is correlated. The level counts all fluctuations of a trace of readings about its drift, telegraph
    noise included; a device that is drawn to have telegraph noise keeps the rest, sigma^2 - a^2 p (1 - p), as its
    normal part, 0 where the jumps alone are more. The conductance is held to the range of the data.

    Parameters
    ----------
    level : relative standard deviation at the reference conductance, the geometric mean over devices.
    reference_conductance : G_ref [S].
    exponent : of the relative noise against G.
    spread : standard deviation of its logarithm between devices.
    telegraph_noise : None where no device has it.
    g_min, g_max : [S] range of the conductances that it was measured at.
    """

    name = "read-noise"
    stage = "read"
    redraw = "read"

    def __init__(
        self,
        level: float,
        reference_conductance: float = 1e-6,
        exponent: float = 0.0,
        spread: float = 0.0,
        telegraph_noise: Telegraph | None = None,
        g_min: float = 0.0,
        g_max: float = math.inf,
    ) -> None:
        self.level, self.exponent, self.spread = float(level), float(exponent), float(spread)
        self.reference_conductance = float(reference_conductance)
        self.telegraph_noise = telegraph_noise
        self.g_min, self.g_max = float(g_min), float(g_max)
        if not (self.level >= 0 and self.spread >= 0 and self.reference_conductance > 0 and self.g_min <= self.g_max):
            raise OptionError(
                "read noise needs a level >= 0, a spread >= 0, a reference conductance > 0 S and a range; found "
                f"{level}, {spread}, {reference_conductance}, {g_min} to {g_max}"
            )
        if telegraph_noise is not None and not 0 <= telegraph_noise.probability <= 1:
            raise OptionError(f"the probability of telegraph noise is {telegraph_noise.probability}; expected 0 to 1")

    @classmethod
    def from_device(cls, tree: xr.DataTree, conditions: Conditions = AS_PROGRAMMED) -> "ReadNoise | None":
        if "read_noise" not in tree.children:
            return None
        node = tree["read_noise"].to_dataset()
        ends = {"g_min": "ln_g_min", "g_max": "ln_g_max"}
        return cls(
            float(np.exp(node["ln_noise"])),
            float(node.attrs["reference_conductance"]),
            _known(node, "noise_exponent"),
            _known(node, "noise_spread"),
            _telegraph(node),
            **{key: float(np.exp(node[name])) for key, name in ends.items() if name in node},
        )

    @property
    def is_ideal(self) -> bool:
        return not self.level and (self.telegraph_noise is None or not self.telegraph_noise.probability)

    def ideal(self) -> "ReadNoise":
        return ReadNoise(0.0, self.reference_conductance)

    def describe(self) -> str:
        if self.is_ideal:
            return "no read noise"
        jumps = self.telegraph_noise
        telegraph = f", telegraph noise in {100 * jumps.probability:.3g} % of devices" if jumps is not None else ""
        return f"read noise of {100 * self.level:.3g} % at {self.reference_conductance:.3g} S{telegraph}"

    def relative_spread(
        self,
        conductance: torch.Tensor,
        generator: torch.Generator | None = None,
        telegraph: tuple[torch.Tensor, torch.Tensor] | None = None,
    ) -> torch.Tensor:
        held = conductance.clamp(self.g_min, self.g_max)
        sigma = self.level * torch.exp(self.exponent * torch.log(held / self.reference_conductance))
        if self.spread and generator is not None:
            z = torch.empty_like(conductance, requires_grad=False).normal_(generator=generator).clamp_(-Z_MAX, Z_MAX)
            sigma = sigma * torch.exp(self.spread * z)
        elif self.spread:
            sigma = sigma * math.exp(self.spread**2)
        if telegraph is None:
            return sigma
        amplitude, occupancy = telegraph
        jumps = amplitude.square() * occupancy * (1 - occupancy)
        has = jumps > 0
        rest = torch.where(has, sigma.square() - jumps, 1.0)  # 1: no square root at 0 in the branch not taken
        return torch.where(has, torch.sqrt(rest.clamp(min=torch.finfo(sigma.dtype).tiny)), sigma)

    def telegraph(
        self, conductance: torch.Tensor, generator: torch.Generator
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        if self.telegraph_noise is None or not self.telegraph_noise.probability:
            return None
        noise = self.telegraph_noise
        with torch.no_grad():
            uniform = torch.empty_like(conductance, requires_grad=False).uniform_(generator=generator)
            z = torch.empty((2, *conductance.shape), dtype=conductance.dtype, device=conductance.device)
            z.normal_(generator=generator).clamp_(-Z_MAX, Z_MAX)
            amplitude = torch.exp(noise.ln_amplitude + noise.ln_amplitude_std * z[0])
            occupancy = torch.sigmoid(noise.ln_dwell_ratio + noise.ln_dwell_ratio_std * z[1])
            amplitude = torch.minimum(amplitude, _DEEPEST / occupancy)
            amplitude = torch.where(uniform < noise.probability, amplitude, 0.0)
        return amplitude, occupancy


def _known(node: xr.Dataset, name: str) -> float:
    """Return a number of the node, 0 where it is missing or not known."""
    value = float(node[name]) if name in node else 0.0
    return value if math.isfinite(value) else 0.0


def _telegraph(node: xr.Dataset) -> Telegraph | None:
    probability = _known(node, "telegraph_probability")
    if not probability or not math.isfinite(float(node["telegraph_ln_amplitude_mean"])):
        return None
    names = ("ln_amplitude_mean", "ln_amplitude_std", "ln_dwell_ratio_mean", "ln_dwell_ratio_std")
    return Telegraph(probability, *(_known(node, f"telegraph_{name}") for name in names))


member = ReadNoise
