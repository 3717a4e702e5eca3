import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calib import formatting


@pytest.mark.parametrize(
    ("value", "stderr", "expected"),
    [
        (2.0612, 0.0506, "2.06 +- 0.05"),
        (0.999, 0.0096, "0.999 +- 0.010"),
        (-37.1, 0.4, "-37.1 +- 0.4"),
        (12345.0, 12.0, "12345 +- 12"),
        (3.4e-16, 2e-17, "(3.4 +- 0.2)e-16"),
        (0.0, 0.1, "0.00 +- 0.10"),
        (1.0, math.nan, "1.00"),
        (1.0, 0.0, "1.00"),
        (math.nan, 1.0, "unknown"),
        (math.inf, 1.0, "infinite"),
    ],
)
def test_estimate(value: float, stderr: float, expected: str) -> None:
    assert formatting.format_estimate(value, stderr) == expected


@pytest.mark.parametrize(
    ("value", "unit", "stderr", "expected"),
    [
        (7.8e-6, "S", math.nan, "7.80 uS"),
        (128e3, "ohm", 4e3, "128 +- 4 kOhm"),
        (999.7, "ohm", math.nan, "1.00 kOhm"),
        (0.1, "V", math.nan, "0.100 V"),
        (2.06, "V^-1/2", 0.05, "2.06 +- 0.05 V^-1/2"),
        (0.0, "S", math.nan, "0 S"),
        (0.36, "1", 0.08, "0.36 +- 0.08"),
        (math.nan, "S", math.nan, "unknown"),
    ],
)
def test_quantity(value: float, unit: str, stderr: float, expected: str) -> None:
    assert formatting.format_quantity(value, unit, stderr) == expected


@pytest.mark.parametrize(
    ("low", "high", "unit", "expected"),
    [
        (3100, 4400, "ohm", "3.10 to 4.40 kOhm"),
        (1e3, 5e6, "ohm", "1.00 kOhm to 5.00 MOhm"),
        (math.nan, 3e-6, "S", "up to 3.00 uS (lower end not known)"),
        (3e-6, math.nan, "S", "from 3.00 uS (upper end not known)"),
        (math.nan, math.nan, "S", "unknown"),
        (0, 0.3, "1", "0 to 0.300"),
    ],
)
def test_interval(low: float, high: float, unit: str, expected: str) -> None:
    assert formatting.format_interval(low, high, unit) == expected


@given(st.floats(-1e8, 1e8), st.floats(1e-30, 1e30))
def test_an_estimate_reads_back_within_its_error(ratio: float, stderr: float) -> None:
    value = ratio * stderr
    text = formatting.format_estimate(value, stderr)
    body, _, power = text.strip("(").partition(")e")
    centre = float(body.partition(" +- ")[0]) * 10.0 ** int(power or 0)
    assert centre == pytest.approx(value, abs=0.5 * stderr, rel=1e-9)


@given(st.floats(1e-17, 1e13), st.sampled_from(["S", "ohm", "A", "W", "J"]))
def test_a_prefixed_quantity_reads_back(value: float, unit: str) -> None:
    prefixes = {"a": 1e-18, "f": 1e-15, "p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9,
                "T": 1e12}  # fmt: skip
    number, _, printed = formatting.format_quantity(value, unit).partition(" ")
    prefix = printed.removesuffix(formatting.spelled(unit))
    assert float(number) * prefixes.get(prefix, 1.0) == pytest.approx(value, rel=6e-3)


def test_typographic_signs_follow_numbers_only() -> None:
    assert formatting.typographic("128 +- 4 kOhm, 7.8 uS") == "128 ± 4\N{NO-BREAK SPACE}kΩ, 7.8\N{NO-BREAK SPACE}µS"
    assert formatting.typographic("the Ohm device uS") == "the Ohm device uS"


def test_percent_and_plural() -> None:
    assert formatting.format_percent(0.0712) == "7.12 %"
    assert formatting.format_percent(math.nan) == "unknown"
    assert (formatting.plural(1, "device"), formatting.plural(2, "device")) == ("1 device", "2 devices")
