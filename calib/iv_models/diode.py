"""A diode with ideality: asymmetric conduction over a barrier."""

from types import ModuleType

import numpy as np
from scipy.constants import Boltzmann, elementary_charge

from calib.iv_models import _guess
from calib.iv_models.base import Array, IVModel, Parameter, StartGrid


class Diode(IVModel):
    """A diode, I = i_s exp(V / v_f) (1 - exp(-n V / v_f)) = i_s [exp(V / v_f) - exp(-(n - 1) V / v_f)].

    Thermionic emission over a barrier whose height changes with the voltage (E. H. Rhoderick, IEE Proc. I 129, 1
    (1982), doi 10.1049/ip-i-1.1982.0001): v_f = n k T / e, n being the ideality. Both directions are there: for n = 1
    the reverse current saturates at i_s, the ideal diode I = i_s (exp(V / v_f) - 1); for n > 1 it grows with the slope
    voltage v_f / (n - 1); n = 2 is the hyperbolic sine, I = 2 i_s sinh(V / v_f); for n > 2 the reverse direction
    conducts better. No temperature is assumed: v_f and n are parameters, and k T / e = v_f / n is the check.

    v_f and i_s are determined by forward currents beyond v_f. n is determined by reverse currents, or by currents below
    v_f / n; a curve of forward currents beyond that says nothing about n. Ohm's law is v_f -> infinity.
    """

    name = "diode"
    title = "diode"
    parameters = (
        Parameter("i_s", "A", "saturation current", lower=0.0, transform="log", typical=(1e-10, 1e-6)),
        Parameter("v_f", "V", "slope voltage n k T/e of the forward exponential", 1e-3, 1e3, "log", (0.06, 0.3)),
        Parameter("n", "1", "ideality; 1 saturates in reverse, 2 is symmetric", 1.0, 100.0, typical=(1.05, 1.8)),
    )
    scale = "i_s"
    odd = False
    expression = "2*i_s*exp((1 - n/2)*V/v_f)*sinh(n*V/(2*v_f))"
    series_allowed = True
    start = StartGrid.product({"v_f": 1.0}, v_f=1 / np.geomspace(0.25, 60, 18), n=(1.0, 1.1, 1.3, 1.7, 2.5, 5.0))
    formula = "i_s*(exp(V/v_f) - exp(-(n - 1)*V/v_f))"
    latex = r"I = i_\mathrm{s}\left[e^{V/v_\mathrm{f}} - e^{-(n-1)V/v_\mathrm{f}}\right]"
    source = "E. H. Rhoderick, IEE Proc. I 129, 1 (1982), doi 10.1049/ip-i-1.1982.0001"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        x = voltage / parameters["v_f"]
        half = 0.5 * parameters["n"]
        return 2 * parameters["i_s"] * xp.exp((1 - half) * x) * xp.sinh(half * x)

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        i_s, v_f, n = parameters["i_s"], parameters["v_f"], parameters["n"]
        x = voltage / v_f
        forward, back = xp.exp(x), xp.exp((1 - n) * x)
        by_v_f = (-i_s / v_f) * x * (forward + (n - 1) * back)
        return {"i_s": forward - back + 0 * i_s, "v_f": by_v_f, "n": i_s * x * back}

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        x, n = voltage / parameters["v_f"], parameters["n"]
        return parameters["i_s"] / parameters["v_f"] * (xp.exp(x) + (n - 1) * xp.exp(-(n - 1) * x))

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        return voltage

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return coordinate

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Take the best candidate of `start`, refine it."""
        return _guess.from_grid(self, voltage, current)

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        found = {"v_t": (parameters["v_f"] / parameters["n"], "V", "thermal voltage v_f/n; k T/e if emission prevails")}
        if temperature is not None:
            ratio = parameters["v_f"] * elementary_charge / (Boltzmann * temperature)
            found["ideality"] = (ratio, "1", f"e v_f / (k T) at {temperature:g} K; equals n if emission prevails")
        return found


member = Diode()
