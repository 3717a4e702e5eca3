"""Canonical quantities and the only unit conversion of calib.

Inside calib everything is SI. Readers convert with `to_si`; reports format; nobody else touches units.
Unit names are pint's (https://pint.readthedocs.io), with the spellings that instruments write accepted as well.
"""

import functools
import re
from typing import Any, NamedTuple

import numpy as np

from calib.errors import UnitError


class Quantity(NamedTuple):
    """SI unit and long name of a canonical variable."""

    unit: str
    long_name: str


QUANTITIES: dict[str, Quantity] = {
    "voltage": Quantity("V", "voltage"),
    "current": Quantity("A", "current"),
    "time": Quantity("s", "time"),
    "conductance": Quantity("S", "conductance"),
    "resistance": Quantity("ohm", "resistance"),
    "temperature": Quantity("K", "temperature"),
    "compliance": Quantity("A", "compliance current"),
    "series_resistance": Quantity("ohm", "series resistance"),
    "gate_voltage": Quantity("V", "gate voltage"),
    "switching_voltage": Quantity("V", "voltage at which a switching event is first seen"),
    "noise_floor": Quantity("A", "noise floor of the instrument"),
    "offset": Quantity("A", "current offset"),
    "offset_stderr": Quantity("A", "standard error of the current offset"),
    "power": Quantity("W", "power"),
    "energy": Quantity("J", "energy"),
    "width": Quantity("s", "pulse width"),
    "amplitude": Quantity("V", "pulse amplitude"),
    "read_voltage": Quantity("V", "read voltage"),
    "target": Quantity("S", "target conductance"),
}

_SPELLINGS = {
    "ohms": "ohm", "Ohms": "ohm", "Ohm": "ohm", "OHM": "ohm",
    "kOhm": "kohm", "MOhm": "Mohm", "kΩ": "kohm", "MΩ": "Mohm", "GΩ": "Gohm", "volts": "V", "Volts": "V",
    "Volt": "V", "amps": "A", "Amps": "A", "Amp": "A", "amp": "A", "AMP": "A", "sec": "s", "secs": "s",
    "C": "degC", "°C": "degC", "oC": "degC", "deg C": "degC", "1": "dimensionless", "": "dimensionless",
}  # fmt: skip
_LONGEST = 60  # characters of a unit
_TOWER = re.compile(r"(?:\*\*|\^)[^*^]*(?:\*\*|\^)\s*[-+(]*\d|\d{4}")  # powers of powers take for ever to evaluate
_HEADER = re.compile(r"^\s*(?P<name>.*?)\s*(?:[(\[{]\s*(?P<unit>[^)\]}]*?)\s*[)\]}])?\s*$")


@functools.cache
def _registry() -> Any:
    import pint

    registry: Any = pint.UnitRegistry(cache_folder=None, on_redefinition="ignore")
    return registry


def normalise(unit: str) -> str:
    """Return a unit in pint's spelling (micro signs, ohm symbols and common words replaced)."""
    unit = unit.strip().replace("µ", "u").replace("μ", "u")
    return _SPELLINGS.get(unit, unit.replace("Ω", "ohm").replace("Ω", "ohm").replace("²", "**2"))


@functools.lru_cache(4096)
def is_unit(text: str) -> bool:
    """Say whether `text` is the name of a unit."""
    import pint

    if len(text) > _LONGEST or _TOWER.search(text):
        return False
    try:
        _registry().parse_units(normalise(text))
    except (
        pint.errors.PintError,
        ArithmeticError,
        ValueError,
        TypeError,
        AttributeError,
        AssertionError,
        SyntaxError,
        KeyError,
    ):
        return False
    except Exception as error:  # pint lets tokenizer errors through, whose class depends on the Python version
        if type(error).__module__.startswith(("tokenize", "pint")):
            return False
        raise
    return True


@functools.lru_cache(4096)
def factor(unit: str, quantity: str) -> float:
    """Return what a value in `unit` is multiplied with to be in the SI unit of `quantity`.

    Raises
    ------
    UnitError
        When the unit is unknown, has another dimension, or has an offset (temperatures: use `to_si`).
    """
    return float(to_si(1.0, unit, quantity) - to_si(0.0, unit, quantity))


def to_si(values: Any, unit: str, quantity: str) -> Any:
    """Convert `values` from `unit` to the SI unit of the canonical `quantity`.

    Raises
    ------
    UnitError
        When the unit is unknown or cannot be a unit of that quantity.
    """
    import pint

    if quantity not in QUANTITIES:
        raise UnitError(f"'{quantity}' is no quantity of calib; known are {', '.join(QUANTITIES)}")
    target = QUANTITIES[quantity].unit
    if not is_unit(unit):
        raise UnitError(f"'{unit}' is no unit for {quantity}; expected one like {target}, m{target} or u{target}")
    registry = _registry()
    source = registry.parse_units(normalise(unit))
    if source == registry.parse_units(target):
        return np.asarray(values, dtype=float)[()]
    try:
        return registry.Quantity(np.asarray(values, dtype=float), source).to(target).magnitude[()]
    except pint.DimensionalityError as error:
        raise UnitError(
            f"{quantity} cannot be in '{unit}'; expected a unit of {QUANTITIES[quantity].long_name} such as {target}"
        ) from error


def parse_header(text: str) -> tuple[str, str | None]:
    """Split a column header into its name and its unit, if it states one.

    ``Current (uA)`` is ``("Current", "uA")``, ``I [nA]`` is ``("I", "nA")``, ``V1`` is ``("V1", None)``; text in
    brackets that is no unit stays in the name.
    """
    match = _HEADER.match(text)
    if match is None:
        return text.strip(), None
    name, unit = match["name"], match["unit"]
    if unit and any(map(str.isalpha, unit)) and is_unit(unit):
        return name.strip(), unit.strip()
    return text.strip(), None
