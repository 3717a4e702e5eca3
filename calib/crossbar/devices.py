"""What a layer needs of a device model, and where its random numbers come from."""

import functools
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import torch
import xarray as xr

from calib import device_model, nonidealities
from calib.crossbar.multiply import Collocation
from calib.crossbar.nodes import MOST_WORD_LINES, BitLines, collocation
from calib.crossbar.random_streams import generator as generator
from calib.device_model import ShapeLaw
from calib.errors import ModelError, OptionError
from calib.nonidealities.base import (
    AS_PROGRAMMED,
    Conditions,
    ConductanceNonideality,
    Conduction,
    Nonideality,
    ReadNonideality,
)
from calib.nonidealities.iv import IV

if TYPE_CHECKING:
    from calib.crossbar.exponential import Pairs

TOLERANCE = 1e-4
"""Default error of a bit line's current, relative to its sum of |I|, from interpolation of the law."""


@dataclass(frozen=True, eq=False)
class Devices:
    """The devices that a layer is made of.

    Attributes
    ----------
    name : of the device model.
    g_off, g_on : conductance range [S].
    input_voltage : k_V [V], the voltage that x = 1 becomes.
    stages : nonidealities that change conductances, in the order of their stages.
    conduction : the law of the current.
    read : noise of readings, None without.
    tolerance : error of bit lines from interpolation of the law.
    plans : nodes that were chosen, by word lines.
    pairs : what layers are drawn with in one computation, by what it follows from.
    others : the same devices at other input voltages, see `at`.
    """

    name: str
    g_off: float
    g_on: float
    input_voltage: float
    stages: tuple[ConductanceNonideality, ...]
    conduction: Conduction
    read: ReadNonideality | None = None
    tolerance: float = TOLERANCE
    plans: dict[int, Collocation] = field(default_factory=dict, repr=False)
    pairs: dict[tuple, "Pairs | None"] = field(default_factory=dict, repr=False, init=False)
    others: "dict[float, Devices]" = field(default_factory=dict, repr=False, init=False)

    @classmethod
    def from_model(
        cls,
        tree: xr.DataTree,
        *,
        input_voltage: float = 0.5,
        extrapolate: bool = False,
        tolerance: float = TOLERANCE,
        effects: Iterable[Nonideality] | None = None,
        conditions: Conditions = AS_PROGRAMMED,
    ) -> "Devices":
        """Return the devices of a device model.

        Parameters
        ----------
        tree : the device model.
        input_voltage : k_V [V].
        extrapolate : accept a k_V beyond the range of |V| that the I-V law was fitted to.
        tolerance : of the interpolation of the law, see `calib.crossbar.nodes.collocation`.
        effects : nonidealities to use instead of those of the model.
        conditions : time, readings and temperature since programming, and whether drift is compensated.

        Raises
        ------
        ModelError
            When the model has no conductance range.
        OptionError
            When k_V is not positive or lies beyond the validity of the law.
        """
        name = str(tree.attrs.get("name", "")) or "device"
        if "conductance" not in tree.children:
            raise ModelError(
                f"the device model '{name}' has no conductance range (node 'conductance'), which weights need; "
                "fit it from measurements of more than one conductance"
            )
        node = tree["conductance"].to_dataset()
        found = nonidealities.from_device(tree, conditions) if effects is None else nonidealities.order(effects)
        stages = tuple(m for m in found if isinstance(m, ConductanceNonideality))
        laws = [m for m in found if isinstance(m, Conduction)]
        conduction = laws[0] if laws else ohmic()
        _check_voltage(input_voltage, conduction.v_max, name, extrapolate)
        return cls(
            name=name,
            g_off=float(node["g_off"]),
            g_on=float(node["g_on"]),
            input_voltage=float(input_voltage),
            stages=stages,
            conduction=conduction,
            read=next((m for m in found if isinstance(m, ReadNonideality) and not m.is_ideal), None),
            tolerance=tolerance,
        )

    def ideal(self) -> "Devices":
        """Return devices of the same conductance range without any nonideality."""
        return replace(self, name="ideal", stages=(), conduction=self.conduction.ideal(), read=None, plans={})

    def at(self, input_voltage: float) -> "Devices":
        """Return the same devices read at a lower voltage [V] of x = 1.

        Raises
        ------
        OptionError
            When it is not positive or above that of these devices, up to which their law is known to hold.
        """
        if not 0 < input_voltage <= self.input_voltage:
            raise OptionError(
                f"the voltage is {input_voltage:g} V; expected more than 0, and at most the input voltage of "
                f"{self.input_voltage:g} V"
            )
        if input_voltage == self.input_voltage:
            return self
        if input_voltage not in self.others:
            self.others[input_voltage] = replace(self, input_voltage=float(input_voltage), plans={})
        return self.others[input_voltage]

    def plan(self, word_lines: int) -> Collocation:
        """Return the nodes on which the law is evaluated in an array of so many word lines."""
        lines = min(word_lines, MOST_WORD_LINES)
        if lines not in self.plans:
            array = BitLines(self.g_off, self.g_on, lines)
            self.plans[lines] = collocation(self.conduction, self.input_voltage, self.tolerance, array)
        return self.plans[lines]

    @functools.cached_property
    def full_current(self) -> float:
        """Current [A] of the usual device at G_on and at the input voltage."""
        g = torch.full((1,), self.g_on, dtype=torch.float64)
        deviates = torch.zeros_like(self.conduction.deviates((1,), torch.Generator(), g.dtype))
        voltage = torch.full((1,), self.input_voltage, dtype=torch.float64)
        return float(self.conduction.law.current(voltage, xp=torch, **self.conduction.parameters(g, deviates)))

    def effects(self) -> tuple[Nonideality, ...]:
        """Return all nonidealities in the order of their stages."""
        return (*self.stages, *((self.read,) if self.read is not None else ()), self.conduction)

    @property
    def is_ideal(self) -> bool:
        """Whether every chip is the same linear array."""
        return self.read is None and not self.conduction.law.shape and all(member.is_ideal for member in self.stages)


def ohmic(reference_voltage: float = 0.1) -> Conduction:
    """Return Ohm's law without spread, for models that have no I-V law."""
    import numpy as np

    one = np.zeros((1, 1))
    law = ShapeLaw("ohmic", "anchored", reference_voltage, ("g",), ("log",), np.zeros(1), one, one - 1, one[None],
                   -np.inf, np.inf, 0.0, np.inf)  # fmt: skip
    return IV(law)


def _check_voltage(input_voltage: float, v_max: float, name: str, extrapolate: bool) -> None:
    if not input_voltage > 0:
        raise OptionError(f"the input voltage is {input_voltage} V; expected more than 0")
    if input_voltage > v_max * (1 + 1e-6) and not extrapolate:
        raise OptionError(
            f"the input voltage {input_voltage:g} V is beyond the {v_max:g} V up to which the I-V law of '{name}' was "
            f"fitted; give an input voltage of at most {v_max:g} V, or extrapolate (--extrapolate)"
        )


def open_devices(device: "str | xr.DataTree | Devices", **options: object) -> Devices:
    """Return the devices of a model given as a tree, a path or a bundled name."""
    if isinstance(device, Devices):
        return device
    tree = device if isinstance(device, xr.DataTree) else device_model.open_device(device)
    return Devices.from_model(tree, **options)  # type: ignore[arg-type]
