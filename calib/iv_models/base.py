"""What a conduction law is."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable
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
    typical : range in which memristive devices are usually found; tests draw from it, documents show it.
    """

    name: str
    unit: str
    meaning: str
    lower: float = float("-inf")
    upper: float = float("inf")
    transform: str = "identity"
    typical: tuple[float, float] = (float("nan"), float("nan"))


@dataclass(frozen=True, eq=False)
class StartGrid:
    """Shapes among which a guess looks for the best (`calib.iv_models._guess`).

    Attributes
    ----------
    shapes : name of each shape parameter -> its values (candidate,) for curves whose largest voltage is 1 V.
    powers : name -> power of the largest voltage with which the values grow; 0 where it is not named.
    valley : the shape along which a curve's cost lies in a bent valley, or has several minima; empty where there is
        none. The fit of many curves then looks at the whole valley first.
    """

    shapes: dict[str, np.ndarray]
    powers: dict[str, float]
    valley: str = ""

    @classmethod
    def product(cls, powers: dict[str, float], valley: str = "", **axes: Iterable[float]) -> "StartGrid":
        """Return the grid of all combinations of the axes' values."""
        columns = np.array(list(itertools.product(*axes.values())), dtype=float).T
        return cls(dict(zip(axes, columns, strict=True)), powers, valley)


class IVModel(ABC):
    """A conduction law I(V; parameters), with one parameter, the scale, that I(V_ref) fixes.

    A member holds only its own mathematics. `current` and `jacobian` use functions that numpy and torch share, taken
    from the module `xp`; all arguments broadcast. The same equation as text is `expression`.
    """

    name: str
    title: str
    parameters: tuple[Parameter, ...]
    scale: str
    """Name of the parameter that the reference voltage fixes; a factor of the current where `scale_is_factor`."""
    scale_is_factor: ClassVar[bool] = True
    """Whether the current is proportional to the scale; with a series resistance it is not."""
    odd: bool
    """Whether I(-V) = -I(V)."""
    expression: str
    """The law as text, for SPICE and Verilog-A: V is the voltage, parameters stand by name.

    Where `series` names a parameter, V is the voltage that is left after the drop over that resistance.
    """
    formula: str = ""
    """The law as people write it, where `expression` is written to be safe at every voltage and so hard to read."""
    series: ClassVar[str] = ""
    """Name of the parameter [Ohm] that a circuit puts in series with `expression`; empty for a plain law."""
    series_allowed: ClassVar[bool] = False
    """Whether a series resistance is physical and can be told apart from the law; needs `slope` and `start`."""
    no_series_because: ClassVar[str] = "its file does not say that one can be told apart from it"
    """Why not, where `series_allowed` is False."""
    start: ClassVar[StartGrid | None] = None
    """Where a guess begins; laws that allow a series resistance have it."""
    correlated: ClassVar[str] = ""
    """Which parameters a usual curve hardly tells apart, and when; tests then judge a guess by its curve alone."""
    latex: str
    source: str

    @property
    def equation(self) -> str:
        """The law as a sentence's part: 'I = ...', with what V is where a resistance is in series."""
        inside = f", V the voltage less the drop I {self.series}" if self.series else ""
        return f"I = {self.formula or self.expression}{inside}"

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

    def slope(self, voltage: Array, *, xp: ModuleType, **parameters: Array) -> Array:
        """Return dI/dV [S], finite at 0 V; laws that allow a series resistance have it."""
        raise NotImplementedError(f"the law '{self.name}' does not give dI/dV")

    @abstractmethod
    def coordinate(self, voltage: Array, *, xp: ModuleType) -> Array:
        """Return the variable s(|V|), s(0) = 0, in which the ratio of two devices' I is smooth, for `voltage` >= 0."""

    @abstractmethod
    def coordinate_inverse(self, coordinate: Array, *, xp: ModuleType) -> Array:
        """Return the voltage >= 0 that `coordinate` maps to s."""

    @abstractmethod
    def guess(self, voltage: Array, current: Array) -> dict[str, Array]:
        """Return starting values for curves (curve, point); NaN marks points that are not there."""

    def anchor(self, resistance: Array, reference_voltage: float, *, xp: ModuleType, **shape: Array) -> Array:
        """Return the scale that makes I(V_ref) = V_ref / R exact for the given shape parameters.

        Where the scale is a factor, scale = (V_ref / R) / I(V_ref; scale = 1, shape).
        """
        one = resistance * 0 + 1
        unit_current = self.current(one * reference_voltage, xp=xp, **{self.scale: one, **shape})
        return reference_voltage / (resistance * unit_current)

    def resistance(self, reference_voltage: float, *, xp: ModuleType, **parameters: Array) -> Array:
        """Return R = V_ref / I(V_ref) [Ohm]."""
        one = parameters[self.scale] * 0 + 1
        return reference_voltage / self.current(one * reference_voltage, xp=xp, **parameters)

    def admissible(self, resistance: Array, *, xp: ModuleType, **shape: Array) -> dict[str, Array]:
        """Return the shape parameters that a drawn device of `resistance` [Ohm] can have; the others as they are."""
        return shape

    def derived(self, temperature: float | None, **parameters: float) -> dict[str, tuple[float, str, str]]:
        """Return further quantities that the parameters stand for: name -> (value, unit, meaning)."""
        return {}


def exponential_parameter(law: IVModel) -> str | None:
    """Return the name of gamma if a law is I = scale V exp(gamma s), s its coordinate; found by evaluating it."""
    if len(law.shape) != 1 or not law.odd or not law.scale_is_factor:
        return None
    (name,) = law.shape
    bounds = law.parameter(name)
    v, gamma = np.array([0.013, 0.2, 0.71])[:, None], np.clip([-1.3, 0.0, 0.4, 3.1], bounds.lower, bounds.upper)
    current = law.current(v, xp=np, **{law.scale: np.ones(1), name: gamma})
    expected = v * np.exp(gamma * law.coordinate(v, xp=np))
    return name if np.allclose(current, expected, rtol=1e-12, atol=0) else None
