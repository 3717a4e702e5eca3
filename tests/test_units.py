"""Unit conversion and column headers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib import units
from calib.errors import UnitError


@pytest.mark.parametrize(
    ("value", "unit", "quantity", "expected"),
    [
        (1.0, "uA", "current", 1e-6),
        (1.0, "µA", "current", 1e-6),  # MICRO SIGN, as instruments write it
        (1.0, "μA", "current", 1e-6),  # GREEK SMALL LETTER MU
        (2.0, "mV", "voltage", 2e-3),
        (2.0, "Volts", "voltage", 2.0),
        (5.0, "kOhm", "resistance", 5e3),
        (5.0, "MΩ", "resistance", 5e6),
        (3.0, "uS", "conductance", 3e-6),
        (10.0, "ns", "time", 1e-8),
        (25.0, "C", "temperature", 298.15),
        (25.0, "°C", "temperature", 298.15),
        (300.0, "K", "temperature", 300.0),
    ],
)
def test_to_si(value: float, unit: str, quantity: str, expected: float) -> None:
    assert units.to_si(value, unit, quantity) == pytest.approx(expected, rel=1e-12)


def test_arrays_are_converted_element_by_element() -> None:
    converted = units.to_si(np.array([1.0, np.nan, -2.0]), "nA", "current")
    np.testing.assert_allclose(converted, [1e-9, np.nan, -2e-9], rtol=1e-12)


def test_the_si_unit_changes_no_bit() -> None:
    values = np.random.default_rng(0).normal(size=100)
    assert np.array_equal(units.to_si(values, "A", "current"), values)


@given(st.floats(-1e6, 1e6), st.sampled_from(["pA", "nA", "uA", "mA", "A", "kA"]))
def test_factor_is_the_whole_conversion(value: float, unit: str) -> None:
    assert units.to_si(value, unit, "current") == pytest.approx(
        value * units.factor(unit, "current"), rel=1e-12, abs=1e-300
    )


@pytest.mark.parametrize("unit", ["V", "ohm", "s", "uS"])
def test_wrong_dimension_is_refused(unit: str) -> None:
    with pytest.raises(UnitError, match=f"current cannot be in '{unit}'; expected a unit of current such as A"):
        units.to_si(1.0, unit, "current")


@pytest.mark.parametrize("unit", ["blorp", "u A xyz", "(", "1 +"])
def test_unknown_unit_is_refused(unit: str) -> None:
    with pytest.raises(UnitError, match="is no unit for current; expected one like A, mA or uA"):
        units.to_si(1.0, unit, "current")


def test_unknown_quantity_lists_the_known_ones() -> None:
    with pytest.raises(UnitError, match="'curent' is no quantity of calib; known are voltage, current"):
        units.to_si(1.0, "A", "curent")


@pytest.mark.parametrize("quantity", units.QUANTITIES)
def test_every_quantity_has_a_unit_that_is_one(quantity: str) -> None:
    unit, long_name = units.QUANTITIES[quantity]
    assert units.is_unit(unit)
    assert units.to_si(1.5, unit, quantity) == 1.5
    assert long_name


@pytest.mark.parametrize(
    ("header", "name", "unit"),
    [
        ("Current (uA)", "Current", "uA"),
        ("I [nA]", "I", "nA"),
        ("  Voltage {V} ", "Voltage", "V"),
        ("V1", "V1", None),
        ("Time", "Time", None),
        ("R (kΩ)", "R", "kΩ"),
        ("I (forward)", "I (forward)", None),
        ("run (1)", "run (1)", None),
        ("", "", None),
    ],
)
def test_parse_header(header: str, name: str, unit: str | None) -> None:
    assert units.parse_header(header) == (name, unit)


@given(st.text(max_size=30))
def test_parse_header_accepts_any_text(text: str) -> None:
    name, unit = units.parse_header(text)
    assert isinstance(name, str)
    assert unit is None or units.is_unit(unit)


@pytest.mark.parametrize("text", ["9**9**9", "V**9**9**9", "1/0", "(2^9)^9^9", "m" * 1000, "V^99999"])
def test_text_that_would_take_for_ever_to_evaluate_is_no_unit(text) -> None:
    assert not units.is_unit(text)


@pytest.mark.parametrize("text", ["V", "uA", "kg*m**2*s**-2", "m^-2", "S/m", "A/V", "oC"])
def test_usual_units_stay_units(text) -> None:
    assert units.is_unit(text)
