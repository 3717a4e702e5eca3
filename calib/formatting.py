"""How values are written for people: uncertainties, SI prefixes, intervals, small lists.

The text is plain ASCII ('2.06 +- 0.05', '7.8 uS', '128 kOhm'), so that it survives any terminal; `typographic` turns
it into '2.06 ± 0.05', '7.8 µS', '128 kΩ' for documents.
"""

import math
import re

UNKNOWN = "unknown"
_PREFIXES = {-18: "a", -15: "f", -12: "p", -9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T"}
_PREFIXED_UNITS = ("S", "Ohm", "A", "W", "J", "s", "F", "V")
_SPELLINGS = {"ohm": "Ohm", "1": "", "": ""}
_DIGITS = 3
_NEGLIGIBLE = 1e-9
_NUMBER_UNIT = re.compile(r"(?<=\d) ([afpnumkMGT]?)(S|Ohm|A|W|J|s|F|V|m)(?![A-Za-z0-9])")


def format_number(value: float, digits: int = _DIGITS) -> str:
    """Return a number with some significant digits, without an exponent between 1e-3 and 1e6."""
    value = float(value)
    if not math.isfinite(value):
        return UNKNOWN if math.isnan(value) else ("infinite" if value > 0 else "-infinite")
    if value == 0:
        return "0"
    rounded = float(f"{value:.{digits - 1}e}")
    exponent = math.floor(math.log10(abs(rounded)))
    if -3 <= exponent < 6:
        return f"{rounded:.{max(digits - 1 - exponent, 0)}f}"
    mantissa, _, power = f"{rounded:.{digits - 1}e}".partition("e")
    return f"{mantissa}e{int(power)}"


def format_estimate(value: float, stderr: float = math.nan) -> str:
    """Return a value with its standard error, both to the error's digits: '2.06 +- 0.05'.

    The error keeps one digit, two where the first is a 1. A value whose error is unknown or negligible has three.
    """
    value, stderr = float(value), float(stderr)
    if not math.isfinite(value):
        return format_number(value)
    if not (math.isfinite(stderr) and stderr > _NEGLIGIBLE * abs(value)):
        return format_number(value)
    decimals = _error_decimals(stderr)
    largest = max(abs(value), stderr)
    if largest >= 1e6 or largest < 1e-3:
        power = math.floor(math.log10(largest))
        return f"({format_estimate(value / 10**power, stderr / 10**power)})e{power}"
    places = max(decimals, 0)
    return f"{round(value, decimals):.{places}f} +- {round(stderr, decimals):.{places}f}"


def _error_decimals(stderr: float) -> int:
    """Return to how many decimals an error is given, from one digit, or two where the first is a 1."""
    exponent = math.floor(math.log10(float(f"{stderr:.0e}")))
    first = round(stderr / 10**exponent)
    return -exponent + (1 if first == 1 else 0)


def format_quantity(value: float, unit: str, stderr: float = math.nan) -> str:
    """Return a value with its SI unit, prefixed where that is usual: '7.80 uS', '128 +- 4 kOhm', '0.100 V'."""
    unit = spelled(unit)
    factor, prefix = _prefix(abs(float(value)), unit)
    text = format_estimate(value / factor, stderr / factor)
    return f"{text} {prefix}{unit}".rstrip() if text != UNKNOWN else UNKNOWN


def format_interval(low: float, high: float, unit: str = "1") -> str:
    """Return '3.1 to 4.4 kOhm'; an end that the data do not give is said to be open."""
    low, high, unit = float(low), float(high), spelled(unit)
    if math.isnan(low) and math.isnan(high):
        return UNKNOWN
    if math.isnan(low):
        return f"up to {format_quantity(high, unit)} (lower end not known)"
    if math.isnan(high):
        return f"from {format_quantity(low, unit)} (upper end not known)"
    factor, prefix = _prefix(max(abs(low), abs(high)), unit)
    if low != 0 and abs(low / factor) < 0.01:
        return f"{format_quantity(low, unit)} to {format_quantity(high, unit)}"
    return f"{format_number(low / factor)} to {format_number(high / factor)} {prefix}{unit}".rstrip()


def format_percent(fraction: float, stderr: float = math.nan) -> str:
    """Return a fraction as a percentage: '7.1 %'."""
    return f"{format_estimate(100 * fraction, 100 * stderr)} %" if math.isfinite(fraction) else UNKNOWN


def spelled(unit: str) -> str:
    """Return a unit as it is printed: 'ohm' as 'Ohm', '1' as nothing."""
    return _SPELLINGS.get(unit, unit)


def plural(count: int, noun: str) -> str:
    """Return '1 device' or '12 devices'."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def typographic(text: str) -> str:
    """Return text of this module with the signs that print has: ± for '+-', µ and Ω in units after numbers."""

    def unit(match: re.Match[str]) -> str:
        prefix = "µ" if match[1] == "u" else match[1]
        return f"\N{NO-BREAK SPACE}{prefix}{'Ω' if match[2] == 'Ohm' else match[2]}"

    return _NUMBER_UNIT.sub(unit, text.replace(" +- ", " ± "))


def _prefix(magnitude: float, unit: str) -> tuple[float, str]:
    if unit not in _PREFIXED_UNITS or not math.isfinite(magnitude) or magnitude == 0:
        return 1.0, ""
    if unit == "V" and 1e-2 <= magnitude < 1e3:
        return 1.0, ""
    rounded = float(f"{magnitude:.{_DIGITS - 1}e}")
    power = 3 * math.floor(math.log10(rounded) / 3)
    power = min(max(power, min(_PREFIXES)), max(_PREFIXES))
    return 10.0**power, _PREFIXES[power]
