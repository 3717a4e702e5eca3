"""What a conduction law is."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

Array = Any  # numpy.ndarray or torch.Tensor: a law is written with functions that both have


@dataclass(frozen=True)
class Parameter:
    """A parameter of a conduction law.

    Attributes
    ----------
    name : the argument of `IVModel.current`.
    unit : its SI unit.
    meaning : one line for tables and data sheets.
    lower, upper : bounds that physics sets.
    transform : 'log' where the parameter is positive over decades (fitted as its logarithm), else 'identity'.
    """

    name: str
    unit: str
    meaning: str
    lower: float = float("-inf")
    upper: float = float("inf")
    transform: str = "identity"


class IVModel(ABC):
    """A conduction law I(V; parameters), with one parameter, the scale, as a factor.

    A member holds only its own mathematics. `current` and `jacobian` use functions that numpy and torch share, taken
    from the module `xp`; all arguments broadcast. The same equation as text is `expression`.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    parameters: ClassVar[tuple[Parameter, ...]]
    scale: ClassVar[str]
    """Name of the parameter that is a factor of the current and that the reference voltage fixes."""
    odd: ClassVar[bool]
    """Whether I(-V) = -I(V)."""
    expression: ClassVar[str]
    """The law as text, for SPICE and Verilog-A: V is the voltage, parameters stand by name."""
    latex: ClassVar[str]
    source: ClassVar[str]

    @property
    def parameter_names(self) -> tuple[str, ...]:
        """Names of all parameters, the scale first."""
        return tuple(parameter.name for parameter in self.parameters)

    @property
    def shape(self) -> tuple[str, ...]:
        """Names of the parameters other than the scale."""
        return tuple(name for name in self.parameter_names if name != self.scale)

    def parameter(self, name: str) -> Parameter:
        """Return the description of a parameter."""
        return next(parameter for parameter in self.parameters if parameter.name == name)

    @abstractmethod
    def current(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        """Return the current [A] at `voltage` [V]."""

    @abstractmethod
    def jacobian(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> dict[str, Array]:
        """Return the derivative of the current by each parameter, by name."""

    @abstractmethod
    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        """Return the variable s(|V|) in which ln(I / V) is smooth, for `voltage` >= 0."""

    @abstractmethod
    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        """Return the voltage >= 0 that `coordinate` maps to s."""

    @abstractmethod
    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Return starting values for curves (curve, point); NaN marks points that are not there."""

    def anchor(self, resistance: Array, reference_voltage: float, *, xp: ModuleType, **shape: Array) -> Array:
        """Return the scale that makes I(V_ref) = V_ref / R exact for the given shape parameters.

        Because the scale is a factor, scale = (V_ref / R) / I(V_ref; scale = 1, shape).
        """
        one = resistance * 0 + 1
        unit_current = self.current(one * reference_voltage, xp=xp, **{self.scale: one, **shape})
        return reference_voltage / (resistance * unit_current)

    def resistance(self, reference_voltage: float, *, xp: ModuleType, **parameters: Array) -> Array:
        """Return R = V_ref / I(V_ref) [Ohm]."""
        one = parameters[self.scale] * 0 + 1
        return reference_voltage / self.current(one * reference_voltage, xp=xp, **parameters)

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        """Return further quantities that the parameters stand for: name -> (value, unit, meaning)."""
        return {}


def exponential_parameter(law: IVModel) -> str | None:
    """Return the name of gamma if a law is I = scale V exp(gamma s), s its coordinate; found by evaluating it."""
    if len(law.shape) != 1 or not law.odd:
        return None
    (name,) = law.shape
    v, gamma = np.array([0.013, 0.2, 0.71])[:, None], np.array([-1.3, 0.0, 0.4, 3.1])
    current = law.current(v, xp=np, **{law.scale: np.ones(1), name: gamma})
    expected = v * np.exp(gamma * law.coordinate(v, xp=np))
    return name if np.allclose(current, expected, rtol=1e-12, atol=0) else None
