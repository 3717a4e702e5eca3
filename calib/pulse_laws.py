"""Laws of the pulse response.

A law says how the conductance moves while identical pulses are applied. With x = n / N the share of a train of N
pulses, G = start + change * f(x; shape), f(0) = 0, f(1) = 1:

linear            f = x                                     every step is the same
soft-bounds       f = (1 - exp(-k x)) / (1 - exp(-k))       the step is linear in G: dG/dn = (G_bound - G) / A, k = N/A
exponential-step  f = ln(1 + (exp(k) - 1) x) / k            the step is exponential in G: dG/dn ~ exp(-k G / change)
power             f = x^p                                   a power law in the number of pulses

Soft bounds are NeuroSim's update, G = B (1 - exp(-n / A)) + G_min (P.-Y. Chen, X. Peng, S. Yu, IEEE TCAD 37, 3067
(2018), doi 10.1109/TCAD.2018.2789723), and the mean of aihwkit's soft-bounds and linear-step devices (M. J. Rasch et
al., AICAS 2021, doi 10.1109/AICAS51828.2021.9458494), whose exponential-step device is the third law.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

POLARITIES = ("potentiation", "depression")
"""Directions in which pulses move a conductance."""
NEUROSIM_LABEL = 0.099
"""Deviation from linear of NeuroSim's nonlinearity label 1: in its table of the normalised A against the label (MLP
NeuroSim, formula.cpp, getParamA) the curve of A deviates by 0.099 times the label, to the table's own rounding."""

_NOISE_PARAMETERS = 3


@dataclass(frozen=True)
class PulseLaw:
    """A law of the pulse response.

    Attributes
    ----------
    name, expression : for people; the shape parameter is called `symbol`.
    bounds : of the search coordinate u of the shape; both zero where there is no shape parameter.
    shape : u -> shape parameter; `shape_slope` is its derivative.
    f : (x, u) -> f of the table above.
    """

    name: str
    expression: str
    symbol: str
    bounds: tuple[float, float]
    shape: Callable[[np.ndarray], np.ndarray]
    shape_slope: Callable[[np.ndarray], np.ndarray]
    f: Callable[[np.ndarray, np.ndarray], np.ndarray]

    @property
    def n_parameters(self) -> int:
        """Start, change, shape (where there is one), and three of the noise (a finite memory is one more)."""
        return 2 + (self.bounds[1] > self.bounds[0]) + _NOISE_PARAMETERS


def _soft_bounds(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    k = np.sinh(u)
    k = np.where(np.abs(k) < 1e-6, 1e-6, k)
    return np.expm1(-k * x) / np.expm1(-k)


def _exponential_step(x: np.ndarray, u: np.ndarray) -> np.ndarray:
    k = np.where(np.abs(u) < 1e-6, 1e-6, u)
    return np.log1p(np.expm1(k) * x) / k


def _one(u: np.ndarray) -> np.ndarray:
    return np.ones_like(u)


LAWS = {
    law.name: law
    for law in (
        PulseLaw("linear", "G = G_0 + c x", "", (0.0, 0.0), _one, np.zeros_like, lambda x, u: x + 0 * u),
        PulseLaw(
            "soft-bounds", "G = G_0 + c (1 - exp(-k x)) / (1 - exp(-k)), k = N / A", "N/A", (-3.6, 4.8), np.sinh,
            np.cosh, _soft_bounds,
        ),
        PulseLaw(
            "exponential-step", "G = G_0 + c ln(1 + (exp(k) - 1) x) / k", "k", (-6.0, 9.0), np.asarray, _one,
            _exponential_step,
        ),
        PulseLaw("power", "G = G_0 + c x^p", "p", (-2.3, 2.1), np.exp, np.exp, lambda x, u: x ** np.exp(u)),
    )
}  # fmt: skip
"""The laws that are compared, simplest first."""
