"""The hyperbolic sine: hopping over barriers that the field lowers."""

import math
from types import ModuleType

import numpy as np
from scipy.constants import Boltzmann, elementary_charge

from calib.iv_models import _guess
from calib.iv_models._functions import sinhc
from calib.iv_models.base import Array, IVModel, Parameter, StartGrid


class HyperbolicSine(IVModel):
    """The hyperbolic sine, I = g v_0 sinh(V / v_0), with kappa = 1 / v_0^2.

    Carriers hop over barriers that the field lowers on one side and raises on the other (N. F. Mott, R. W. Gurney,
    Electronic Processes in Ionic Crystals, Oxford 1940; R. M. Hill, Philos. Mag. 23, 59 (1971),
    doi 10.1080/14786437108216365): with hops of length a in a film of thickness d, half of the energy e a V / d helps,

        v_0 = 2 k T d / (e a).

    Other barriers that are passed in both directions give the same form at moderate voltage.

    calib fits the curvature kappa: I = g V (1 + kappa V^2 / 6 + ...), so that Ohm's law, kappa = 0, is a regular
    point, where v_0 would be infinite, and nearly ohmic curves have an unbiased estimate with a finite error. For
    kappa < 0, where no hopping is meant but noise may lead, the law continues as I = g v_0 asinh(V / v_0) with
    v_0 = 1 / sqrt(-kappa), which bends down as much: current and jacobian are continuous at kappa = 0.
    """

    name = "hyperbolic-sine"
    title = "hyperbolic sine"
    parameters = (
        Parameter("g", "S", "conductance at vanishing voltage", lower=0.0, transform="log", typical=(1e-7, 1e-3)),
        Parameter("kappa", "1/V^2", "curvature 1/v_0^2 of the hyperbolic sine", -1e6, 1e6, typical=(1.0, 60.0)),
    )
    scale = "g"
    odd = True
    expression = (
        "g*asinh(sqrt(max(-kappa, 1e-60))*sinh(sqrt(max(kappa, 1e-30))*V)/sqrt(max(kappa, 1e-30)))"
        "/sqrt(max(-kappa, 1e-60))"
    )
    series_allowed = True
    start = StartGrid.product({"kappa": -2.0}, kappa=[*-np.geomspace(10, 0.1, 6), 0.0, *np.geomspace(0.1, 1500, 50)])
    formula = "g*v_0*sinh(V/v_0), v_0 = 1/sqrt(kappa)"
    latex = r"I = g\,v_0 \sinh\left(V/v_0\right),\quad \kappa = 1/v_0^2"
    source = "N. F. Mott, R. W. Gurney, Electronic Processes in Ionic Crystals, Oxford 1940"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        return parameters["g"] * voltage * sinhc(parameters["kappa"] * voltage**2, xp=xp)[0]

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        square = voltage * voltage
        value, slope = sinhc(parameters["kappa"] * square, xp=xp)
        return {"g": voltage * value + 0 * parameters["g"], "kappa": parameters["g"] * voltage * square * slope}

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        x = parameters["kappa"] * voltage * voltage
        value, slope = sinhc(x, xp=xp)
        return parameters["g"] * (value + 2 * x * slope)

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        return voltage

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return coordinate

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Take the best candidate of `start`, refine it."""
        return _guess.from_grid(self, voltage, current)

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        if not parameters["kappa"] > 0:
            return {}
        v_0 = 1 / math.sqrt(parameters["kappa"])
        found = {"v_0": (v_0, "V", "voltage scale of the hyperbolic sine")}
        if temperature is not None:
            share = 2 * Boltzmann * temperature / (elementary_charge * v_0)
            found["hop"] = (share, "1", f"hopping distance over thickness at {temperature:g} K")
        return found


member = HyperbolicSine()
