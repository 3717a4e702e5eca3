"""Retention: drift and relaxation of programmed conductances, and its compensation by reference columns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr

from calib.errors import OptionError
from calib.nonidealities.base import AS_PROGRAMMED, Conditions, ConductanceNonideality, deviate, interpolate

BOLTZMANN = 1.380649e-23
"""[J/K] exact, SI."""
_LAWS = ("power", "logarithmic")
_LEAST_LEFT = 0.05
"""The mean conductance of a population is held at this share of the programmed one or more."""
_SAME_TEMPERATURE = 1.0  # [K]


@dataclass(frozen=True)
class Drift:
    """Power law of each device, G(t) = G (t / t_0)^-nu after t_0, nu ~ N(mean, std^2).

    Attributes
    ----------
    reference_time : t_0 [s], to which the programmed conductance refers.
    mean, std : (knot,) of nu.
    ln_g : (knot,) ascending ln(G / S) at which they are known; interpolated linearly between, constant outside.
    """

    reference_time: float
    mean: Sequence[float]
    std: Sequence[float]
    ln_g: Sequence[float] = (0.0,)

    def __post_init__(self) -> None:
        _check_knots("drift", self.ln_g, self.mean, self.std)
        if not (self.reference_time > 0 and min(self.std) >= 0):
            raise OptionError(
                f"drift needs a reference time > 0 s and std >= 0; found {self.reference_time}, {self.std}"
            )


@dataclass(frozen=True)
class Relaxation:
    """Shift and broadening of a population, without a law of single devices.

    mean(t) = a t^b ('power') or a + b ln(t / 1 s) ('logarithmic') of G(t) - G [S]; variance(t) = c t^(2 d) or
    c + d ln(t / t_1) [S^2].

    Attributes
    ----------
    conductance : (knot,) ascending G [S] at which the laws hold.
    first_time : t_1 [s]; before it the population is as at t_1.
    shift_law, broadening_law : 'power' or 'logarithmic'.
    shift : (knot, 2) a and b.
    broadening : (knot, 2) c and d.
    """

    conductance: Sequence[float]
    first_time: float
    shift_law: str
    shift: Sequence[Sequence[float]]
    broadening_law: str
    broadening: Sequence[Sequence[float]]

    def __post_init__(self) -> None:
        _check_knots("relaxation", self.conductance, self.shift, self.broadening)
        if not (min(self.conductance) > 0 and self.first_time > 0):
            raise OptionError(f"relaxation needs G > 0 and t_1 > 0; found {self.conductance}, {self.first_time}")
        if not {self.shift_law, self.broadening_law} <= set(_LAWS):
            raise OptionError(
                f"relaxation has laws 'power' or 'logarithmic'; found {self.shift_law}, {self.broadening_law}"
            )

    def at(self, time: float) -> tuple[list[float], list[float]]:
        """Return mean and standard deviation (knot,) of ln(G(t) / G) of the lognormal of the same mean and variance."""
        t = max(time, self.first_time)
        g, (a, b), (c, d) = np.asarray(self.conductance), np.array(self.shift).T, np.array(self.broadening).T
        shift = a * t**b if self.shift_law == "power" else a + b * math.log(t)
        variance = c * t ** (2 * d) if self.broadening_law == "power" else c + d * math.log(t / self.first_time)
        left = np.maximum(1 + shift / g, _LEAST_LEFT)
        log_variance = np.log1p(np.maximum(variance, 0.0) / np.square(g * left))
        return (np.log(left) - log_variance / 2).tolist(), np.sqrt(log_variance).tolist()


class Retention(ConductanceNonideality):
    """At a time t after programming G has become G exp(m(t) + s(t) z) (t / t_0)^-nu, nu ~ N(mean, std^2), z ~ N(0, 1).

    The exponents nu are the devices' own and are drawn from the device generator, if one is given; the relaxation m,
    s is that of one programming. Give one or the other: the spread of the measured relaxation holds that of the
    exponents as well. Drawn once per chip. At t = 0 nothing has changed, nor before t_0 where there is only drift.

    With `compensate`, outputs are to be multiplied by `compensation`: reference devices are programmed to conductances
    evenly spread over the range and drift as all others do; the factor is the mean of their conductances as programmed
    over that at t (global drift compensation: V. Joshi et al., Nat. Commun. 11, 2473 (2020), doi
    10.1038/s41467-020-16108-9). Drift that is common to all devices is undone exactly.

    Parameters
    ----------
    time : t [s] since programming.
    drift, relaxation : None where there is none.
    compensate : whether `compensation` measures a factor, or gives 1.
    references : number of reference devices.
    """

    name = "retention"
    stage = "retention"
    redraw = "chip"

    def __init__(
        self,
        time: float,
        drift: Drift | None = None,
        relaxation: Relaxation | None = None,
        compensate: bool = False,
        references: int = 64,
    ) -> None:
        if not (math.isfinite(time) and time >= 0 and references >= 1):
            raise OptionError(f"retention needs a time >= 0 s and 1 or more references; found {time}, {references}")
        self.time, self.compensate, self.references = float(time), bool(compensate), int(references)
        self.drift, self.relaxation = drift, relaxation

    @classmethod
    def from_device(cls, tree: xr.DataTree, conditions: Conditions = AS_PROGRAMMED) -> "Retention | None":
        """Take the relaxation of the population where single traces show no drift, else the drift exponents.

        Raises
        ------
        OptionError
            When a temperature is given that the model says nothing about.
        """
        if "retention" not in tree.children:
            return None
        node = tree["retention"].to_dataset()
        relaxation = None if _single_traces_drift(node) else _relaxation(node)
        drift = _drift(node, conditions) if relaxation is None else None
        if drift is None and conditions.temperature is not None and conditions.time > 0:
            _check_temperature(node, conditions.temperature)
        return cls(conditions.time, drift, relaxation, conditions.compensate)

    @property
    def compensates(self) -> bool:
        """Whether `compensation` may differ from 1."""
        return self.compensate and self.time > 0

    @property
    def is_ideal(self) -> bool:
        return not self.time and not self.compensate

    def ideal(self) -> "Retention":
        return Retention(0.0, self.drift, self.relaxation, False, self.references)

    def describe(self) -> str:
        if not self.time:
            return "no time since programming"
        parts = []
        if self.drift is not None:
            parts.append(f"drift exponent {np.mean(self.drift.mean):.3g} +- {np.mean(self.drift.std):.3g}")
        if self.relaxation is not None:
            parts.append(f"relaxation, sigma of ln G {np.mean(self.relaxation.at(self.time)[1]):.3g}")
        return f"{', '.join(parts) or 'no drift'} after {self.time:.3g} s{', compensated' * self.compensate}"

    def conductance(
        self,
        conductance: torch.Tensor,
        generator: torch.Generator,
        device_generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        if not self.time:
            return conductance
        ln_g = torch.log(conductance)
        change: torch.Tensor | float = 0.0
        if self.relaxation is not None:
            mean, std = self.relaxation.at(self.time)
            knots = np.log(self.relaxation.conductance).tolist()
            change = interpolate(ln_g, knots, mean)
            if any(std):
                change = change + interpolate(ln_g, knots, std) * deviate(conductance, generator)
        if self.drift is not None and self.time > self.drift.reference_time:
            nu = interpolate(ln_g, self.drift.ln_g, self.drift.mean)
            if any(self.drift.std):
                z = deviate(conductance, generator if device_generator is None else device_generator)
                nu = nu + interpolate(ln_g, self.drift.ln_g, self.drift.std) * z
            change = change - nu * math.log(self.time / self.drift.reference_time)
        return conductance * torch.exp(torch.as_tensor(change))

    def compensation(self, conductance_range: tuple[float, float], generator: torch.Generator) -> torch.Tensor:
        """Return the factor () by which outputs are multiplied, 1 without compensation.

        Parameters
        ----------
        conductance_range : G_off and G_on [S].
        generator : draws the reference devices of a chip.
        """
        if not self.compensates:
            return torch.ones((), dtype=torch.float64, device=generator.device)
        low, high = conductance_range
        written = torch.linspace(low, high, self.references, dtype=torch.float64, device=generator.device)
        return written.mean() / self.conductance(written, generator).mean()


def _check_knots(what: str, knots: Sequence[float], *values: Sequence) -> None:
    if not len(knots) or any(len(value) != len(knots) for value in values) or not (np.diff(knots) > 0).all():
        raise OptionError(f"{what} needs ascending knots and as many values; found {knots}, {values}")
    if not all(np.isfinite(np.asarray(value, dtype=float)).all() for value in values):
        raise OptionError(f"{what} needs finite values; found {values}")


def _single_traces_drift(node: xr.Dataset) -> bool:
    """Return whether single traces follow a law of drift rather than a constant, by AICc summed over them."""
    if "law_aicc" not in node or not int(node["n_law_traces"]):
        return False
    return str(node["law"].values[int(node["law_aicc"].values.argmin())]) != "constant"


def _relaxation(node: xr.Dataset) -> Relaxation | None:
    shift_law, broadening_law = (str(node.attrs.get(key, "")) for key in ("shift_law", "broadening_law"))
    if not (shift_law and broadening_law):
        return None
    g, shift, broadening = (node[key].values for key in ("range_conductance", "shift_law", "broadening"))
    known = np.isfinite(g) & np.isfinite(shift).all(1) & np.isfinite(broadening).all(1)
    if not known.any():
        return None
    tables = g[known], shift[known].tolist(), broadening[known].tolist()
    return Relaxation(
        tables[0].tolist(), float(node["time"].values[0]), shift_law, tables[1], broadening_law, tables[2]
    )


def _drift(node: xr.Dataset, conditions: Conditions) -> Drift:
    ln_g, mean, std = [0.0], [float(node["drift_exponent_mean"])], [float(node["drift_exponent_std"])]
    if node.sizes.get("nu_range", 1) > 1:
        names = ("range_ln_g", "range_drift_exponent_mean", "range_drift_exponent_std")
        ln_g, mean, std = (node[name].values.tolist() for name in names)
    factor = 1.0
    if conditions.temperature is not None and conditions.time > 0:
        factor = _temperature_factor(node, conditions.temperature)
    std = [value if math.isfinite(value) else 0.0 for value in std]
    return Drift(
        float(node.attrs["reference_time"]), [factor * value for value in mean], [factor * value for value in std], ln_g
    )


def _temperature_factor(node: xr.Dataset, temperature: float) -> float:
    """Return nu(T) over the mean exponent of the model, by |nu| = nu_inf exp(-E / (k_B T)) of its activation energy."""
    if "activation_energy" not in node or not math.isfinite(float(node["activation_energy"])):
        _check_temperature(node, temperature)
        return 1.0
    nu, stderr = node["temperature_drift_exponent"].values, node["temperature_drift_exponent_stderr"].values
    energy = float(node["activation_energy"]) / BOLTZMANN
    weight = np.square(nu / stderr)
    ln_infinite = np.average(np.log(np.abs(nu)) + energy / node["temperature"].values, weights=weight)
    return float(np.sign(nu[0]) * np.exp(ln_infinite - energy / temperature)) / float(node["drift_exponent_mean"])


def _check_temperature(node: xr.Dataset, temperature: float) -> None:
    stated = node.attrs.get("temperature")
    if stated is None or abs(float(stated) - temperature) > _SAME_TEMPERATURE:
        known = "does not state its temperature" if stated is None else f"was measured at {float(stated):g} K"
        raise OptionError(
            f"a temperature of {temperature:g} K was given, but the retention of the device model {known} and has no "
            "activation energy; leave the temperature out to use the drift as it was measured"
        )


member = Retention
