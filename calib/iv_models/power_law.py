"""The power law, by the nonlinearity n = I(2V) / I(V)."""

import math
from types import ModuleType

import numpy as np

from calib.iv_models import _guess
from calib.iv_models.base import Array, IVModel, Parameter, StartGrid

_TINY = 1e-30  # V: keeps ln|V| finite at 0 V, where the current vanishes all the same
_KNEE = 1e-5  # V: below it the coordinate is linear in the voltage, above it logarithmic


class PowerLaw(IVModel):
    """The power law, I = g V (|V| / 1 V)^(p - 1) with p = log2(n).

    n = I(2V) / I(V) is the nonlinearity parameter that Joksas et al., Adv. Sci. 9, 2105784 (2022),
    doi 10.1002/advs.202105784, use to compare devices: n = 2 is Ohm's law, n > 2 bends upwards, n < 2 downwards. A
    power law is the law for which n is the same at every voltage. It is a description, not a mechanism.

    In the logarithms of g and n the law is nearly linear in its parameters, and n = 2 is a regular point. g is the
    conductance at 1 V, whatever range was measured; where that is far from 1 V, g and n are correlated.
    """

    name = "power-law"
    title = "power law"
    parameters = (
        Parameter("g", "S", "conductance I/V at 1 V", lower=0.0, transform="log", typical=(1e-7, 1e-3)),
        Parameter("n", "1", "nonlinearity I(2V)/I(V), 2 for a resistor", 1.0, 1e6, "log", (2.0, 8.0)),
    )
    scale = "g"
    odd = True
    expression = "g*V*pow(max(abs(V), 1e-30), log(n)/log(2) - 1)"
    series_allowed = True
    start = StartGrid.product({}, n=2 ** np.linspace(0.5, 12, 47))
    formula = "g*V*(abs(V)/1 V)^(log2(n) - 1)"
    latex = r"I = g\,V \left(|V|/1\,\mathrm{V}\right)^{\log_2 n - 1}"
    source = "D. Joksas et al., Adv. Sci. 9, 2105784 (2022), doi 10.1002/advs.202105784"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        power = xp.log(parameters["n"]) * (1 / math.log(2.0)) - 1
        return parameters["g"] * voltage * xp.exp(power * xp.log(xp.abs(voltage) + _TINY))

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        logarithm = xp.log(xp.abs(voltage) + _TINY)
        power = xp.log(parameters["n"]) * (1 / math.log(2.0)) - 1
        per_scale = voltage * xp.exp(power * logarithm)
        by_n = parameters["g"] * per_scale * logarithm / (parameters["n"] * math.log(2.0))
        return {"g": per_scale + 0 * parameters["g"], "n": by_n}

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        power = xp.log(parameters["n"]) * (1 / math.log(2.0)) - 1
        return parameters["g"] * (power + 1) * xp.exp(power * xp.log(xp.abs(voltage) + _TINY))

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        """Return ln(1 + V / 10 uV): the ratio of two power laws is an exponential of ln V."""
        return xp.log1p(voltage / _KNEE)

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return xp.expm1(coordinate) * _KNEE

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Regress ln(I / V) on ln|V|."""
        data = _guess.points(voltage, current)
        intercept, slope = _guess.line(np.log(np.abs(data.v)), data.log_ratio, data.weight)
        values = {"g": np.exp(np.clip(intercept, -200, 200)), "n": 2.0 ** np.clip(slope + 1, 0.0, 19.0)}
        return _guess.clipped(self, values)

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        return {"exponent": (math.log2(parameters["n"]), "1", "exponent p of I ~ V^p")}


member = PowerLaw()
