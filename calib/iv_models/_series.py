"""A series resistance around a conduction law."""

import functools
from types import ModuleType
from typing import Any

import numpy as np

from calib.iv_models import _guess
from calib.iv_models.base import Array, IVModel, Parameter

SUFFIX = "+series"
LARGEST_SHARE = 0.95
"""Of a device's resistance that its series resistance can have when devices are drawn."""
_END = 60.0  # of y = ln(v / (V - v)): the drop over either part is below rounding there
_ITERATIONS = 60


class WithSeries(IVModel):
    """A law in series with a resistance: I = I_law(v), v = V - I r_series.

    The voltage v over the law lies between 0 and V and is unique where the law's current grows with the voltage. In
    y = ln(v / (V - v)) the equation reads

        y + ln( r_series I_law(v) / v ) = 0,

    exactly linear for an ohmic law and nearly so for power laws and exponentials, and its left side grows with y.
    Newton's method solves it within a bracket that bisection keeps, for all points at once. A last linear step

        I = i + s (V - v - r_series i) / (1 + r_series s),    i = I_law(v), s = dI_law/dv, v and s held,

    removes what is left and carries the derivatives of the implicit function: in torch, automatic differentiation
    gives the exact gradient (the first one; not the second).

    The scale is no factor of the current here. R = V_ref / I(V_ref) leaves V_ref (1 - r_series / R) over the law, so
    the anchor has a closed form for R > r_series. A resistance R <= r_series is impossible: the anchor is NaN there,
    and `admissible` holds drawn devices to r_series <= 0.95 R.

    `expression` is the text of the law alone, as a function of the voltage over it; a circuit puts the resistance
    named `series` in series with it.
    """

    scale_is_factor = False
    series = "r_series"
    correlated = "the series resistance and the law's own bending, where little of the voltage drops over it"

    def __init__(self, law: IVModel) -> None:
        self.law = law
        self.name = law.name + SUFFIX
        self.title = f"{law.title} with a series resistance"
        meaning = "resistance in series with the law"
        resistance = Parameter(self.series, "ohm", meaning, lower=0.0, transform="log", typical=(10.0, 1e4))
        self.parameters = (*law.parameters, resistance)
        self.scale = law.scale
        self.odd = law.odd
        self.expression = law.expression
        self.formula = law.formula
        self.latex = law.latex + r",\quad V \to V - I\,r_\mathrm{series}"
        self.source = law.source

    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        v, r, inner = self._solved(voltage, xp, parameters)
        slope = self.law.slope(v, xp=xp, **_held(inner))
        current = self.law.current(v, xp=xp, **inner)
        return current + slope * (voltage - v - r * current) / (1 + _held({"r": r})["r"] * slope)

    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        v, r, inner = self._solved(voltage, xp, parameters)
        slope = self.law.slope(v, xp=xp, **inner)
        share = 1 / (1 + r * slope)
        columns = {name: column * share for name, column in self.law.jacobian(v, xp=xp, **inner).items()}
        current = self.law.current(v, xp=xp, **inner)
        return {**columns, self.series: -current * slope * share}

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        v, r, inner = self._solved(voltage, xp, parameters)
        slope = self.law.slope(v, xp=xp, **inner)
        return slope / (1 + r * slope)

    def inner_voltage(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        """Return the voltage [V] over the law, without a graph of derivatives."""
        return self._solved(voltage, xp, parameters)[0]

    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        return self.law.coordinate(voltage, xp=xp)

    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        return self.law.coordinate_inverse(coordinate, xp=xp)

    def anchor(self, resistance: Array, reference_voltage: float, *, xp: ModuleType, **shape: Array) -> Array:
        """Return the scale that makes I(V_ref) = V_ref / R exact; NaN where R <= r_series."""
        inner = {name: value for name, value in shape.items() if name != self.series}
        left = resistance - shape[self.series]
        possible = left > 0
        left = xp.where(possible, left, 1.0)
        scale = self.law.anchor(left, reference_voltage * left / resistance, xp=xp, **inner)
        return xp.where(possible, scale, float("nan"))

    def admissible(self, resistance: Array, *, xp: ModuleType, **shape: Array) -> dict[str, Array]:
        """Return the shape parameters with r_series held to 0.95 R."""
        most = LARGEST_SHARE * resistance
        series = shape[self.series]
        return {**shape, self.series: xp.where(series < most, series, most)}

    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Take the best of the law's candidates and of some shares of the series resistance, refine it."""
        return _guess.series_from_grid(self, self.law, self.series, voltage, current)

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        inner = {name: value for name, value in parameters.items() if name != self.series}
        return self.law.derived(temperature, **inner)

    def _solved(
        self, voltage: Array, xp: ModuleType, parameters: dict[str, Array]
    ) -> tuple[Array, Array, dict[str, Array]]:
        """Return the voltage over the law (held), the series resistance and the law's own parameters."""
        inner = {name: value for name, value in parameters.items() if name != self.series}
        held = _held({"voltage": voltage, "r": parameters[self.series], **inner})
        v, r = held.pop("voltage"), held.pop("r")
        return inner_voltage(self.law, v, r, held, xp), parameters[self.series], inner


def _held(values: dict[str, Any]) -> dict[str, Any]:
    """Return values without what carries derivatives: torch's graph, or an imaginary step."""
    return {name: v.detach() if hasattr(v, "detach") else np.real(v) for name, v in values.items()}


def inner_voltage(law: IVModel, voltage: Array, r: Array, parameters: dict[str, Array], xp: ModuleType) -> Array:
    """Return v in V = v + r I(v)."""
    shape = voltage * 0 + r * 0
    for value in parameters.values():
        shape = shape + value * 0
    full = voltage + shape
    applied = xp.where(full == 0, 1.0, full)
    tolerance = 0.1 * float(xp.finfo(shape.dtype).eps) ** 0.5  # Newton's next error, and the last step's, is its square
    with np.errstate(all="ignore"):
        low, high, y = shape - _END, shape + _END, shape
        for _ in range(_ITERATIONS):
            share = 1 / (1 + xp.exp(-y))
            v = applied * share
            conductance = law.current(v, xp=xp, **parameters) / v
            value = y + xp.log(r * conductance)
            low, high = xp.where(value < 0, y, low), xp.where(value < 0, high, y)
            growth = share + (1 - share) * law.slope(v, xp=xp, **parameters) / conductance
            newton = y - value / growth
            inside = (newton >= low) & (newton <= high)
            step = xp.where(inside, newton, 0.5 * (low + high))
            moved = xp.abs(step - y)
            y = step
            if not bool((moved * (1 - share) > tolerance).any()):
                break
    return full * (1 / (1 + xp.exp(-y)))


@functools.cache
def with_series(law: IVModel) -> WithSeries:
    """Return the law with a series resistance."""
    return WithSeries(law)
