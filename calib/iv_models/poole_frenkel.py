"""Poole-Frenkel emission."""

import math
from types import ModuleType

import numpy as np
from scipy.constants import Boltzmann, elementary_charge

from calib.iv_models.base import Array, IVModel, Parameter, StartGrid


class PooleFrenkel(IVModel):
    """Poole-Frenkel emission, I = c V exp(gamma sqrt|V|).

    Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784, write the exponent with the product of
    the film's thickness d and its permittivity epsilon:

        I = sgn(V) c |V| exp( (e / k T) sqrt( e |V| / (pi d epsilon) ) ),

    so that gamma = (e / k T) sqrt( e / (pi d epsilon) ). calib fits gamma: it needs no temperature, is defined where
    a curve bends the other way (gamma < 0), and its estimate is close to normal. `d_epsilon` gives the product for a
    stated temperature.
    """

    name = "poole-frenkel"
    title = "Poole-Frenkel emission"
    parameters = (
        Parameter("c", "S", "conductance at vanishing voltage", lower=0.0, transform="log", typical=(1e-7, 1e-3)),
        Parameter("gamma", "V^-1/2", "field-lowering exponent (e/kT) sqrt(e/(pi d eps))", typical=(-0.5, 4.0)),
    )
    scale = "c"
    odd = True
    expression = "c*V*exp(gamma*sqrt(abs(V)))"
    series_allowed = True
    start = StartGrid.product({"gamma": -0.5}, gamma=np.linspace(-3, 24, 55))
    latex = r"I = c\,V \exp\left(\gamma \sqrt{|V|}\right)"
    source = "J. Frenkel, Phys. Rev. 54, 647 (1938), doi 10.1103/PhysRev.54.647"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        return parameters["c"] * voltage * xp.exp(parameters["gamma"] * xp.sqrt(xp.abs(voltage)))

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        root = xp.sqrt(xp.abs(voltage))
        per_scale = voltage * xp.exp(parameters["gamma"] * root)
        return {"c": per_scale + 0 * parameters["c"], "gamma": parameters["c"] * per_scale * root}

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        exponent = parameters["gamma"] * xp.sqrt(xp.abs(voltage))
        return parameters["c"] * xp.exp(exponent) * (1 + 0.5 * exponent)

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        return xp.sqrt(voltage)

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return coordinate**2

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Regress ln(I / V) on sqrt|V|, each point with equal weight."""
        usable = np.isfinite(voltage) & np.isfinite(current) & (voltage != 0)
        ratio = np.where(usable, current / np.where(usable, voltage, 1.0), 0.0)
        usable &= ratio > 0
        weight = usable.astype(float)
        y = np.log(np.where(usable, ratio, 1.0))
        x = np.sqrt(np.abs(np.where(usable, voltage, 0.0)))
        count = np.maximum(weight.sum(-1), 1.0)
        x_mean, y_mean = (weight * x).sum(-1) / count, (weight * y).sum(-1) / count
        dx = x - x_mean[..., None]
        variance = (weight * dx**2).sum(-1)
        slope = (weight * dx * y).sum(-1) / np.where(variance > 0, variance, 1.0)
        return {"c": np.exp(np.clip(y_mean - slope * x_mean, -80, 40)), "gamma": np.clip(slope, -40, 40)}

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        if temperature is None or not parameters["gamma"] > 0:
            return {}
        value = d_epsilon(parameters["gamma"], temperature)
        return {"d_eps": (value, "F", f"thickness times permittivity at {temperature:g} K")}


def d_epsilon(gamma: float, temperature: float) -> float:
    """Return d epsilon [F] = (e / pi) (e / (k T gamma))^2 from gamma [V^-1/2] > 0 and T [K]."""
    return elementary_charge / math.pi * (elementary_charge / (Boltzmann * temperature * gamma)) ** 2


def gamma_of(d_eps: float, temperature: float) -> float:
    """Return gamma [V^-1/2] = (e / k T) sqrt(e / (pi d epsilon)) from d epsilon [F] and T [K]."""
    return elementary_charge / (Boltzmann * temperature) * math.sqrt(elementary_charge / (math.pi * d_eps))


member = PooleFrenkel()
