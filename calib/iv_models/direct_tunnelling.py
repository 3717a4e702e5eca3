"""Direct tunnelling through a rectangular barrier, after Simmons."""

import math
from types import ModuleType
from typing import NamedTuple

import numpy as np
from scipy.constants import electron_mass, elementary_charge, hbar

from calib.iv_models import _guess
from calib.iv_models.base import Array, IVModel, Parameter, StartGrid

_SMALL = 1e-5  # kappa V^2 below which the law is its first two terms, exact to 1e-12
_ROOT_2 = math.sqrt(2.0)


def _expression() -> str:
    """Return the law as text, from the parts that `_terms` names."""
    z = "max(sqrt(kappa)*abs(V), 1e-12)"
    u, held_by_tau = f"(tau*{z}/2)", f"min({z}/2, 0.5/max(tau, 1e-9))"
    held, beyond_by_tau = f"min({u}, 0.5)", f"({z}/2 - {held_by_tau})"
    below, above = f"sqrt(1 - {held})", f"sqrt(1 + {u})"
    total, further = f"({below} + {above})", f"(1.4142135623730951 - tau)*{beyond_by_tau}"
    mean = (
        f"2*({held_by_tau}*({u} + {held})/({total}*(1 + {below})*(1 + {above})) - {beyond_by_tau}/(1 + {above}))"
        f" + {further}"
    )
    half = f"2*({z}/2 + {held_by_tau})/{total} - asinh(({u} + {held})/(2*{below}*{above})) + {further}"
    return f"g*V*{below}*{above}*exp({mean})*sinh({half})/({z}*(1 - tau/2))"


class DirectTunnelling(IVModel):
    """Direct tunnelling at low and intermediate voltage, |V| < phi.

    Simmons' formula for a rectangular barrier of height phi [V] and thickness d between equal electrodes (J. G.
    Simmons, J. Appl. Phys. 34, 1793 (1963), doi 10.1063/1.1702682, equation 26),

        I ~ (phi - V/2) exp(-B sqrt(phi - V/2)) - (phi + V/2) exp(-B sqrt(phi + V/2)),    B = 2 d sqrt(2 m e) / hbar,

    has the exponent alpha = B sqrt(phi) at no voltage and the conductance g at vanishing voltage, which needs no area:

        I = g phi / (alpha/2 - 1) [ (1 - u) exp(alpha (1 - sqrt(1 - u))) - (1 + u) exp(alpha (1 - sqrt(1 + u))) ],

    u = V / (2 phi). Up to moderate voltage only alpha / phi matters, I ~ sinh(alpha V / (4 phi)); phi itself shows as
    |V| nears it. calib therefore fits

        kappa = (alpha / (4 phi))^2,    tau = 4 / alpha,

    the curvature, which every curve determines, and what distinguishes the barrier from the hyperbolic sine (tau = 0,
    kappa the same). Both that law and Ohm's, kappa = 0, are regular points; in phi and alpha they lie at infinity.
    phi = 1 / (tau sqrt(kappa)), alpha and d follow (`derived`). tau is at most 1/2, alpha at least 8: beyond (films
    under about 0.8 nm at 1 V) the shape of a curve turns back, so that two values of tau fit alike, and at alpha = 2
    the formula's conductance vanishes. The shape differs little from the hyperbolic sine's while |V| < phi: in curves
    with 1 % noise that end below phi, tau is known roughly if at all, and phi with it.

    The formula ends at |V| = phi, where the barrier becomes a triangle: beyond, the first term goes on with the
    logarithmic slope that it has there, so that current and slope are continuous and finite, but Fowler-Nordheim's law
    is the one to use. The image force is not in it.
    """

    name = "direct-tunnelling"
    title = "direct tunnelling (Simmons)"
    parameters = (
        Parameter("g", "S", "conductance at vanishing voltage", lower=0.0, transform="log", typical=(1e-8, 1e-4)),
        Parameter("kappa", "1/V^2", "curvature (alpha/(4 phi))^2, barrier phi", 0.0, 1e6, typical=(0.5, 4.0)),
        Parameter("tau", "1", "4/alpha, alpha the tunnelling exponent at no voltage", 0.0, 0.5, typical=(0.15, 0.45)),
    )
    scale = "g"
    correlated = "kappa and tau, where curves end well below phi"
    odd = True
    expression = _expression()
    series_allowed = True
    start = StartGrid.product(
        {"kappa": -2.0},
        valley="tau",
        kappa=[0.0, *np.geomspace(0.1, 1500, 28)],
        tau=(0.0, 0.06, 0.13, 0.2, 0.3, 0.4, 0.5),
    )
    formula = (
        "g*phi/(alpha/2 - 1)*((1 - u)*exp(alpha*(1 - sqrt(1 - u))) - (1 + u)*exp(alpha*(1 - sqrt(1 + u)))), "
        "u = V/(2*phi), alpha = 4/tau, phi = 1/(tau*sqrt(kappa))"
    )
    latex = (
        r"I = \frac{g\,\varphi}{\alpha/2 - 1}\left[(1-u)\,e^{\alpha(1-\sqrt{1-u})}"
        r" - (1+u)\,e^{\alpha(1-\sqrt{1+u})}\right],\quad u = V/2\varphi,\ \alpha = 4/\tau,"
        r"\ \varphi = 1/(\tau\sqrt{\kappa})"
    )
    source = "J. G. Simmons, J. Appl. Phys. 34, 1793 (1963), doi 10.1063/1.1702682"

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        tau, x = parameters["tau"], parameters["kappa"] * voltage * voltage
        small = x < _SMALL
        t = _terms(xp.sqrt(xp.where(small, 1.0, x)), tau, xp)
        ratio = t.below * t.above * xp.exp(t.mean) * xp.sinh(t.half) / (t.z * (1 - tau / 2))
        return parameters["g"] * voltage * xp.where(small, 1 + x * _curvature(tau), ratio)

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        if xp is not np or np.size(voltage) not in np.shape(voltage):  # the other way pays for one sweep of many curves
            return _jacobian(voltage, xp=xp, **parameters)
        g, kappa, tau = parameters["g"], parameters["kappa"], parameters["tau"]
        root = np.sqrt(kappa + 0 * (g + tau))
        z = root * np.abs(voltage)
        special = (z < _SMALL**0.5) | (tau * z >= 1)
        at = np.nonzero(special)
        if 8 * len(at[0]) > special.size:
            return _jacobian(voltage, xp=xp, **parameters)
        if len(at[0]):
            z[at] = 1.0
            root = np.where(root > 0, root, 1.0)
        found = _jacobian_below_the_barrier(voltage, z, root, g, tau)
        if len(at[0]):
            values = {name: _picked(value, at) for name, value in parameters.items()}
            for name, value in _jacobian(_picked(voltage, at), xp=np, **values).items():
                found[name][at] = value
        return found

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        tau, x = parameters["tau"], parameters["kappa"] * voltage * voltage
        small = x < _SMALL
        t = _terms(xp.sqrt(xp.where(small, 1.0, x)), tau, xp)
        size, growth = t.below * t.above * xp.exp(t.mean), xp.exp(t.half)
        steep = _by_z(t, size * growth, size / growth, tau) / (2 - tau)
        return parameters["g"] * xp.where(small, 1 + 3 * x * _curvature(tau), steep)

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        return voltage

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return coordinate

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Take the best candidate of `start`, refine it."""
        return _guess.from_grid(self, voltage, current)

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        kappa, tau = parameters["kappa"], parameters["tau"]
        if not (kappa > 0 and tau > 0):
            return {}
        phi, alpha = 1 / (tau * math.sqrt(kappa)), 4 / tau
        thickness = alpha * hbar / (2 * math.sqrt(2 * electron_mass * elementary_charge * phi))
        return {
            "phi": (phi, "V", "height of the barrier"),
            "alpha": (alpha, "1", "exponent 2 d sqrt(2 m e phi)/hbar at no voltage"),
            "thickness": (thickness, "m", "thickness d of the barrier, for the free electron's mass"),
        }


def _jacobian(voltage: Array, *, xp: ModuleType, g: Array, kappa: Array, tau: Array) -> dict[str, Array]:
    """Return the derivatives of the current by the parameters, everywhere."""
    square = voltage * voltage
    x = kappa * square
    small = x < _SMALL
    t = _terms(xp.sqrt(xp.where(small, 1.0, x)), tau, xp)
    size, growth = t.below * t.above * xp.exp(t.mean), xp.exp(t.half)
    first, second = size * growth, size / growth
    unit = 1 / (2 * t.z * (1 - tau / 2))
    ratio = 2 * size * xp.sinh(t.half) * unit
    by_z = _by_z(t, first, second, tau) * unit - ratio / t.z
    by_tau = _by_tau(t, first, second, xp) * unit + ratio / (2 - tau)
    series = _curvature(tau)
    return {
        "g": voltage * xp.where(small, 1 + x * series, ratio) + 0 * g,
        "kappa": g * voltage * square * xp.where(small, series, by_z / (2 * t.z)),
        "tau": g * voltage * xp.where(small, x * _curvature_slope(tau), by_tau),
    }


def _picked(array: np.ndarray, at: tuple[np.ndarray, ...]) -> np.ndarray:
    """Return elements of what an array is broadcast to."""
    index = at[len(at) - np.ndim(array) :]
    return np.asarray(array)[tuple(i if n > 1 else 0 for i, n in zip(index, np.shape(array), strict=True))]


def _jacobian_below_the_barrier(
    voltage: np.ndarray, z: np.ndarray, root: np.ndarray, g: np.ndarray, tau: np.ndarray
) -> dict[str, Array]:
    """Return the same derivatives where z = root |V| is not small and u < 1/2, with less work.

    The terms of the formula are (1 - u) exp(2 z / (1 + sqrt(1 - u))) and (1 + u) exp(-2 z / (1 + sqrt(1 + u))).
    """
    u = (0.5 * tau) * z
    rest, more = 1 - u, np.add(1, u, out=u)
    below, above = np.sqrt(rest), np.sqrt(more)
    first, second = z / (1 + below), z / (1 + above)  # half of the exponents
    bent_first, bent_second = first * first, second * second
    bent_first /= below
    bent_second /= above
    first += first
    second *= -2
    np.exp(first, out=first)
    np.exp(second, out=second)
    bent_first *= rest
    bent_second *= more
    bent_first -= z
    bent_second += z
    bent_first *= first
    bent_second *= second
    bent_first -= bent_second  # twice the derivative of the terms' difference by tau
    below -= 0.5 * tau
    above -= 0.5 * tau
    below *= first
    above *= second
    below += above  # its derivative by z
    first *= rest
    second *= more
    first -= second
    unit = 1 / (2 - tau)
    scale = np.sign(voltage) * (unit / root)  # V / z, and the law's factor
    ratio = first * scale  # I / g
    below *= scale
    below -= ratio / z
    below *= np.abs(voltage) * (0.5 * g / root)
    bent_first *= scale * (0.5 * g)
    bent_first += ratio * (unit * g)
    return {"g": ratio + 0 * g, "kappa": below, "tau": bent_first}


class _Terms(NamedTuple):
    """What the two terms of Simmons' formula share; z = sqrt(kappa) |V|, u = tau z / 2 = |V| / (2 phi)."""

    z: Array
    u: Array
    held: Array  # min(u, 1/2)
    held_by_tau: Array
    beyond_by_tau: Array  # (u - held) / tau
    below: Array  # sqrt(1 - held)
    above: Array  # sqrt(1 + u)
    mean: Array  # of the logarithms of the two terms, less ln(below above)
    half: Array  # half of their difference


def _terms(z: Array, tau: Array, xp: ModuleType) -> _Terms:
    """Return the parts of the formula, each without the difference of near equals and regular at tau = 0."""
    u = tau * z / 2
    held_by_tau = 0.5 * xp.where(u < 0.5, z, 1 / xp.where(u < 0.5, 1.0, tau + 0 * z))
    beyond_by_tau = z / 2 - held_by_tau
    held = tau * held_by_tau
    below, above = xp.sqrt(1 - held), xp.sqrt(1 + u)
    total = below + above
    further = (_ROOT_2 - tau) * beyond_by_tau
    mean = 2 * held_by_tau * (u + held) / (total * (1 + below) * (1 + above)) - 2 * beyond_by_tau / (1 + above)
    half = 2 * (z / 2 + held_by_tau) / total - xp.arcsinh((u + held) / (2 * below * above))
    return _Terms(z, u, held, held_by_tau, beyond_by_tau, below, above, mean + further, half + further)


def _by_z(t: _Terms, first: Array, second: Array, tau: Array) -> Array:
    """Return the derivative of first - second by z."""
    return first * (1 / t.below - tau / (2 * t.below**2)) + second * (1 / t.above - tau / (2 * t.above**2))


def _by_tau(t: _Terms, first: Array, second: Array, xp: ModuleType) -> Array:
    """Return the derivative of first - second by tau."""
    inside = t.z**2 / (2 * t.below * (1 + t.below) ** 2) - t.z / (2 * t.below**2)
    outside = 4 * t.held_by_tau**2 * (_ROOT_2 - 2 / (1 + t.below)) - t.z
    by_first = xp.where(t.u < 0.5, inside, outside)
    return first * by_first - second * (t.z / (2 * t.above**2) + t.z**2 / (2 * t.above * (1 + t.above) ** 2))


def _curvature(tau: Array) -> Array:
    """Return c of I = g V (1 + c kappa V^2 + ...)."""
    return (1 - 0.75 * tau - 0.1875 * tau * tau) / (6 - 3 * tau)


def _curvature_slope(tau: Array) -> Array:
    return (-0.75 - 0.375 * tau) / (6 - 3 * tau) + 3 * (1 - 0.75 * tau - 0.1875 * tau * tau) / (6 - 3 * tau) ** 2


member = DirectTunnelling()
