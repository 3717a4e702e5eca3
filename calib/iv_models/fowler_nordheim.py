"""Fowler-Nordheim tunnelling."""

import math
from types import ModuleType

import numpy as np
from scipy.constants import electron_mass, elementary_charge, hbar

from calib.iv_models import _guess
from calib.iv_models.base import Array, IVModel, Parameter, StartGrid

_TINY = 1e-18  # V: keeps 1/|V| finite at 0 V, where the current vanishes all the same


class FowlerNordheim(IVModel):
    """Fowler-Nordheim tunnelling, I = a V |V| exp(-b / |V|).

    Tunnelling through the triangular barrier that is left when the voltage exceeds the barrier's height; with a film
    of thickness d, a barrier phi [V] and the effective mass m,

        b = (4 / 3) sqrt(2 m e) phi^(3/2) d / hbar,    a ~ area e^2 / (16 pi^2 hbar phi d^2)

    (R. H. Fowler, L. Nordheim, Proc. R. Soc. A 119, 173 (1928), doi 10.1098/rspa.1928.0091; M. Lenzlinger, E. H. Snow,
    J. Appl. Phys. 40, 278 (1969), doi 10.1063/1.1657043). The image force is not in it. The law has no ohmic limit: its
    conductance vanishes at 0 V, so a fit over small voltages, where another path conducts, misses them. With b = 0 it
    is a square law, a regular point; b is therefore fitted as it is, not by its logarithm.
    """

    name = "fowler-nordheim"
    title = "Fowler-Nordheim tunnelling"
    parameters = (
        Parameter("a", "A/V^2", "current over V^2 at large voltage", lower=0.0, transform="log", typical=(1e-6, 1e-2)),
        Parameter("b", "V", "voltage of the exponent", lower=0.0, upper=1e4, typical=(0.5, 10.0)),
    )
    scale = "a"
    odd = True
    expression = "a*V*abs(V)*exp(-b/max(abs(V), 1e-18))"
    series_allowed = True
    start = StartGrid.product({"b": 1.0}, b=[0.0, *np.geomspace(0.1, 60, 29)])
    formula = "a*V*abs(V)*exp(-b/abs(V))"
    latex = r"I = a\,V|V| \exp\left(-b/|V|\right)"
    source = "R. H. Fowler, L. Nordheim, Proc. R. Soc. A 119, 173 (1928), doi 10.1098/rspa.1928.0091"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        size = xp.abs(voltage)
        return parameters["a"] * voltage * size * xp.exp(-parameters["b"] / (size + _TINY))

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        size = xp.abs(voltage)
        inverse = 1 / (size + _TINY)
        per_scale = voltage * size * xp.exp(-parameters["b"] * inverse)
        return {"a": per_scale + 0 * parameters["a"], "b": -parameters["a"] * per_scale * inverse}

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        size = xp.abs(voltage)
        exponential = xp.exp(-parameters["b"] / (size + _TINY))
        return parameters["a"] * exponential * (2 * size + parameters["b"] * (size / (size + _TINY)))

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        """Return sqrt|V|: the law vanishes at 0 V with all its derivatives, and roots widen the range below."""
        return xp.sqrt(voltage)

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return coordinate**2

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Regress ln(I / V^2) on 1 / |V|."""
        data = _guess.points(voltage, current)
        size = np.abs(data.v)
        intercept, slope = _guess.line(1 / size, data.log_ratio - np.log(size), data.weight)
        b = np.maximum(-slope, 0.0)
        intercept = np.where(slope > 0, _guess.mean(data.log_ratio - np.log(size), data.weight), intercept)
        return _guess.clipped(self, {"a": np.exp(np.clip(intercept, -200, 200)), "b": b})

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        value = 3 * parameters["b"] * hbar / (4 * math.sqrt(2 * electron_mass * elementary_charge))
        return {"phi32_thickness": (value, "V^1.5 m", "barrier^(3/2) times thickness, for the free electron's mass")}


member = FowlerNordheim()
