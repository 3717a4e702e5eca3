"""Schottky emission."""

import math
from types import ModuleType

import numpy as np
from scipy.constants import Boltzmann, elementary_charge

from calib.iv_models import _guess
from calib.iv_models.base import Array, IVModel, Parameter, StartGrid


class Schottky(IVModel):
    """Schottky emission, I = sgn(V) i_s exp(beta sqrt|V|) (1 - exp(-|V| / v_t)).

    Thermionic emission over a barrier that the image force lowers with the field (W. Schottky, Z. Phys. 14, 63
    (1923), doi 10.1007/BF01340034; S. M. Sze, K. K. Ng, Physics of Semiconductor Devices, 3rd ed., Wiley 2007,
    doi 10.1002/0470068329, chapter 3). With the film's thickness d and its permittivity eps at optical frequencies

        i_s = area A* T^2 exp(-e phi / k T),    beta = (e / k T) sqrt( e / (4 pi d eps) ).

    The exponential alone would give a current at 0 V. The factor 1 - exp(-|V| / v_t) is the emission in the opposite
    direction, which detailed balance requires: electrons that go back meet a barrier that is higher by the voltage.
    For one barrier v_t = k T / e; where only a share of the voltage drops over the barrier, v_t = n k T / e. Assumed
    are thus one kind of barrier at both electrodes (the law is odd), the voltage dropping over the film evenly, and
    small tunnelling. No temperature is assumed: v_t is a parameter.

    In its usual regime, |V| >> v_t, i_s and beta are well determined and v_t is not, for it has no influence any more;
    points below 3 v_t determine it. i_s rather than the conductance i_s / v_t is the scale for that reason. With
    v_t large the law approaches Poole-Frenkel's; there is no ohmic limit within the bounds.
    """

    name = "schottky"
    title = "Schottky emission"
    parameters = (
        Parameter("i_s", "A", "emission current at zero field", lower=0.0, transform="log", typical=(1e-9, 1e-5)),
        Parameter("beta", "V^-1/2", "barrier-lowering exponent (e/kT) sqrt(e/(4 pi d eps))", typical=(1.0, 8.0)),
        Parameter("v_t", "V", "thermal voltage n k T/e of the emission", 1e-3, 0.5, "log", (0.025, 0.1)),
    )
    scale = "i_s"
    odd = True
    expression = "2*i_s*exp(beta*sqrt(abs(V)))*tanh(V/(2*v_t))/(1 + tanh(abs(V)/(2*v_t)))"
    series_allowed = True
    start = StartGrid.product({"beta": -0.5, "v_t": 1.0}, beta=np.linspace(-3, 24, 19), v_t=np.geomspace(4e-3, 0.6, 8))
    formula = "sgn(V)*i_s*exp(beta*sqrt(abs(V)))*(1 - exp(-abs(V)/v_t))"
    latex = r"I = \mathrm{sgn}(V)\,i_\mathrm{s} \exp\left(\beta\sqrt{|V|}\right)\left(1 - e^{-|V|/v_\mathrm{t}}\right)"
    source = "W. Schottky, Z. Phys. 14, 63 (1923), doi 10.1007/BF01340034"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        size = xp.abs(voltage)
        net = -xp.expm1(-size / parameters["v_t"])
        return parameters["i_s"] * xp.sign(voltage) * xp.exp(parameters["beta"] * xp.sqrt(size)) * net

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        size = xp.abs(voltage)
        root, x = xp.sqrt(size), size / parameters["v_t"]
        emission = xp.sign(voltage) * xp.exp(parameters["beta"] * root)
        per_scale = -emission * xp.expm1(-x)
        by_v_t = -parameters["i_s"] * emission * xp.exp(-x) * x / parameters["v_t"]
        return {"i_s": per_scale + 0 * parameters["i_s"], "beta": parameters["i_s"] * per_scale * root, "v_t": by_v_t}

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        size = xp.abs(voltage)
        root, x = xp.sqrt(size), size / parameters["v_t"]
        lowering = -parameters["beta"] * xp.expm1(-x) / (2 * root + 1e-18)
        return parameters["i_s"] * xp.exp(parameters["beta"] * root) * (lowering + xp.exp(-x) / parameters["v_t"])

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        return xp.sqrt(voltage)

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return coordinate**2

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Take the best candidate of `start`, refine it."""
        return _guess.from_grid(self, voltage, current)

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        if temperature is None:
            return {}
        thermal = Boltzmann * temperature / elementary_charge
        found = {
            "ideality": (parameters["v_t"] / thermal, "1", f"n = e v_t / (k T) at {temperature:g} K"),
        }
        if parameters["beta"] > 0:
            value = elementary_charge / (4 * math.pi) / (thermal * parameters["beta"]) ** 2
            found["d_eps"] = (value, "F", f"thickness times permittivity at {temperature:g} K")
        return found


member = Schottky()
