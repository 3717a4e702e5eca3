"""The quantum point contact."""

import math
from types import ModuleType

import numpy as np
from scipy.constants import physical_constants

from calib.iv_models import _guess
from calib.iv_models.base import Array, IVModel, Parameter, StartGrid

G_0 = physical_constants["conductance quantum"][0]
"""2 e^2 / h [S]."""
_SMALL = 1e-5  # kappa V^2 below which the law is its first two terms, exact to 1e-11


class QuantumPointContact(IVModel):
    """A filament with a constriction, in the single-subband form of Miranda and Sune.

    Landauer's current through N equal channels whose bottleneck is a parabolic barrier of height phi [V] above the
    Fermi level, transmission 1 / (1 + exp(alpha (phi - E))), with half of the voltage dropping on each side (E.
    Miranda, C. Walczyk, C. Wenger, T. Schroeder, IEEE Electron Device Lett. 31, 609 (2010),
    doi 10.1109/LED.2010.2046310):

        I = N G_0 { V + (1/alpha) ln[ (1 + exp(alpha (phi - V/2))) / (1 + exp(alpha (phi + V/2))) ] },  G_0 = 2 e^2/h.

    calib writes the same with the transmission at the Fermi level, D = 1 / (1 + exp(alpha phi)), between 0 and 1, with
    the conductance at vanishing voltage, g = N G_0 D, and with kappa = (alpha / 2)^2; z = sqrt(kappa) V:

        I = g V / (D z) asinh( D sinh z / sqrt((1 - D)^2 + 2 D (1 - D) cosh z + D^2) ).

    D = 1 is an open channel, Ohm's law, and so is kappa = 0; D = 0 is the hyperbolic sine of the same kappa, the limit
    of a high barrier: all three are regular points, while phi and alpha become infinite or undetermined there. alpha,
    phi and N follow (`derived`). N is real: it is determined only with D.

    The general model lets a share of the voltage other than one half drop on one side, which makes the law asymmetric;
    curves of one polarity do not determine that share, so it is one half here (for asymmetric curves, see 'diode'). No
    temperature enters: transmission is taken at 0 K.
    """

    name = "quantum-point-contact"
    title = "quantum point contact"
    parameters = (
        Parameter("g", "S", "conductance at vanishing voltage", lower=0.0, transform="log", typical=(1e-6, 1e-4)),
        Parameter("kappa", "1/V^2", "(alpha/2)^2, steepness of the transmission", 0.0, 1e6, typical=(6.0, 50.0)),
        Parameter("d", "1", "transmission of a channel at the Fermi level", 1e-9, 1.0, typical=(0.02, 0.4)),
    )
    scale = "g"
    correlated = "kappa and d, where curves end below 2 phi: the law is a hyperbolic sine there"
    odd = True
    expression = (
        "g*V/(d*max(sqrt(kappa)*abs(V), 1e-12))*asinh(d*sinh(max(sqrt(kappa)*abs(V), 1e-12))"
        "/sqrt((1 - d)*(1 - d) + 2*d*(1 - d)*cosh(sqrt(kappa)*V) + d*d))"
    )
    no_series_because = "its open channels already limit the current like a resistance, 1/(N G_0), in series"
    start = StartGrid.product(
        {"kappa": -2.0},
        kappa=[0.0, *np.geomspace(0.2, 2000, 26)],
        d=(1e-9, 1e-4, 1e-3, 4e-3, 0.015, 0.05, 0.12, 0.25, 0.4, 0.6, 0.8),
    )
    formula = (
        "g/d*(V + ln((1 + exp(alpha*(phi - V/2)))/(1 + exp(alpha*(phi + V/2))))/alpha), "
        "alpha = 2*sqrt(kappa), exp(alpha*phi) = 1/d - 1"
    )
    latex = (
        r"I = N G_0 \left\{V + \frac{1}{\alpha} \ln \frac{1 + e^{\alpha(\varphi - V/2)}}"
        r"{1 + e^{\alpha(\varphi + V/2)}}\right\},\quad \kappa = \alpha^2/4,\ d = 1/(1 + e^{\alpha\varphi}),"
        r"\ g = N G_0 d"
    )
    source = "E. Miranda et al., IEEE Electron Device Lett. 31, 609 (2010), doi 10.1109/LED.2010.2046310"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        d, x = parameters["d"], parameters["kappa"] * voltage * voltage
        small = x < _SMALL
        z = xp.sqrt(xp.where(small, 1.0, x))
        opened = xp.arcsinh(d * xp.sinh(z) / xp.sqrt(_square(xp.cosh(z), d)))
        return parameters["g"] * voltage * xp.where(small, 1 + x * _curvature(d), opened / (d * z))

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        g, d, by_square = parameters["g"], parameters["d"], voltage * voltage
        x, ohmic = parameters["kappa"] * by_square, g * voltage
        small = x < _SMALL
        some = xp is not np or bool(small.any())
        z = xp.sqrt(xp.where(small, 1.0, x) if some else x)
        forward, closed = xp.exp(z), 1 - d
        backward = 1 / forward
        sinh = 0.5 * (forward - backward)
        with_backward = closed + d * backward
        square = (closed + d * forward) * with_backward
        ratio = xp.log1p(2 * d * sinh / with_backward) / (2 * d * z)
        steep = (0.5 * closed * (forward + backward) + d) / square
        by_kappa, by_d = (steep - ratio) / (2 * z * z), (sinh / (square * z) - ratio) / d
        if some:
            ratio = xp.where(small, 1 + x * _curvature(d), ratio)
            by_kappa, by_d = xp.where(small, _curvature(d), by_kappa), xp.where(small, x * (4 * d - 3) / 6, by_d)
        return {"g": voltage * ratio + 0 * g, "kappa": ohmic * by_square * by_kappa, "d": ohmic * by_d}

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        d = parameters["d"]
        cosh = xp.cosh(xp.sqrt(parameters["kappa"] * voltage * voltage))
        return parameters["g"] * ((1 - d) * cosh + d) / _square(cosh, d)

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        return voltage

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return coordinate

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Take the best candidate of `start`, refine it."""
        return _guess.from_grid(self, voltage, current)

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        alpha, d = 2 * math.sqrt(max(parameters["kappa"], 0.0)), parameters["d"]
        found = {"n_channels": (parameters["g"] / (d * G_0), "1", "number of channels N")}
        if alpha > 0:
            found["alpha"] = (alpha, "1/V", "steepness of the transmission in energy")
        if alpha > 0 and d < 1:
            found["phi"] = (math.log(1 / d - 1) / alpha, "V", "barrier of the constriction above the Fermi level")
        return found


def _square(cosh: Array, d: Array) -> Array:
    return (1 - d) * (1 - d) + d * (2 * (1 - d) * cosh + d)


def _curvature(d: Array) -> Array:
    """Return c of I = g V (1 + c kappa V^2 + ...)."""
    return (1 - d) * (1 - 2 * d) / 6


member = QuantumPointContact()
