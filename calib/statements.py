"""What files state in words: device, cycle, temperature and compliance in preambles, labels, sheet and file names."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from calib.columns import NAME_MAP, normalised
from calib.errors import OptionError
from calib.table_layout import BLANKS
from calib.units import is_unit, parse_header, to_si

_KEYS = ("cycle", "device", "temperature", "compliance", "gate_voltage", "series_resistance")
_IN_TEXT = re.compile(r"(?<![\d.])(-?\d{1,3}(?:\.\d+)?)\s?(?:°|º|o|deg\.?\s?)C(?![A-Za-z0-9])")
_KELVIN = re.compile(r"(?:^|[_\s(,=-])(\d{1,3}(?:\.\d+)?)\s?K(?=$|[_\s),.-])")
_LABEL = re.compile(r"\s*([A-Za-z][A-Za-z _]*?)\s*[:=#]?\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*")
_SHORT = {"d": "device", "m": "device", "mem": "device", "sample": "device"}  # as in D3
_PLAUSIBLE_KELVIN = (4.0, 4.2, 77.0)  # besides 200 to 500; '100K' is rather a number of cycles


@dataclass
class Statements:
    """Values stated for a table or for one pair of its columns.

    Attributes
    ----------
    values : canonical key -> text, the first statement of each.
    temperatures : (kelvin, where it stands) for each statement.
    """

    values: dict[str, str] = field(default_factory=dict)
    temperatures: list[tuple[float, str]] = field(default_factory=list)

    def cycle(self) -> int | None:
        """Return the stated number of the cycle."""
        match = re.search(r"\d+", self.values.get("cycle", ""))
        return int(match[0]) if match else None

    def si(self, key: str, unit: str | None = None) -> float:
        """Return a stated quantity in SI, NaN when it is not stated as a number."""
        match = re.fullmatch(r"\s*(-?[\d.]+(?:[eE][-+]?\d+)?)\s*([^\d\s].*)?", self.values.get(key, ""))
        if match is None or (match[2] and not is_unit(match[2])):
            return np.nan
        return float(to_si(float(match[1]), match[2], key)) if match[2] else _scaled(float(match[1]), unit, key)


def collect(rows: Iterable[Sequence[str]], temperature_unit: str | None = None) -> Statements:
    """Collect what rows of cells state: 'key, value', 'key: value', 'key 3', and rows of Name over rows of Value."""
    found = Statements()
    pending: str | None = None
    for row in rows:
        cells = [cell.strip() for cell in row if cell.strip().lower() not in BLANKS]
        key, value = _key_value(cells)
        if key.lower() == "name" and value:
            pending = value
            continue
        if key.lower() == "value" and pending:
            key, pending = pending, None
        name, unit = parse_header(key)
        role = _key_role(name)
        if role == "device" and re.fullmatch(r"\d+", value):
            value = f"{key}{value}" if len(key) == 1 else value
        if role and value:
            found.values.setdefault(role, f"{value} {unit}" if unit and re.fullmatch(r"[-+\d.eE]+", value) else value)
        if role == "temperature" and value:
            kelvin = _kelvin(value, unit or temperature_unit)
            if np.isfinite(kelvin):
                found.temperatures.append((kelvin, f"'{key}' {value}"))
        else:
            found.temperatures += [(t, f"'{text}' in {key or 'a line'}") for t, text in _in_text(value or key)]
    return found


def in_name(name: str, what: str) -> list[tuple[float, str]]:
    """Return the temperatures [K] stated in the name of a file or a sheet."""
    return [(kelvin, f"'{text}' in the {what}") for kelvin, text in _in_text(name)]


def one_temperature(stated: Sequence[tuple[float, str]]) -> tuple[float, str | None]:
    """Return the temperature [K] that the statements agree on, or NaN and what they say instead."""
    values = np.array([kelvin for kelvin, _ in stated])
    if not len(values):
        return np.nan, None
    if np.ptp(values) <= 0.5:
        return float(values[0]), None
    by_value = {round(kelvin, 2): where for kelvin, where in reversed(stated)}
    return np.nan, " and ".join(f"{where} ({kelvin:g} K)" for kelvin, where in sorted(by_value.items()))


def kelvin(given: float | str | None) -> float:
    """Return a temperature [K] given in kelvin or as text with a unit ('85 degC'); NaN for None.

    Raises
    ------
    OptionError
        When the text is no temperature.
    """
    if given is None:
        return np.nan
    match = re.fullmatch(r"\s*([-+]?[\d.]+(?:[eE][-+]?\d+)?)\s*(\S.*)?", str(given))
    if match is None:
        raise OptionError(f"--temperature '{given}': expected kelvin, or a number with a unit such as '85 degC'")
    return float(to_si(float(match[1]), match[2].strip(), "temperature")) if match[2] else float(match[1])


def _key_value(cells: Sequence[str]) -> tuple[str, str]:
    if len(cells) >= 2:
        return cells[0].rstrip(":="), cells[1]
    if not cells:
        return "", ""
    match = _LABEL.fullmatch(cells[0])
    if match:
        return match[1], match[2]
    key, separator, value = re.sub(r"\s*[:=]\s*", "\0", cells[0], count=1).partition("\0")
    return (key, value) if separator else (cells[0], "")


def _key_role(key: str) -> str | None:
    text = _SHORT.get(normalised(key), normalised(key))
    return next((role for role in _KEYS if re.fullmatch(NAME_MAP[role], text)), None)


def _kelvin(value: str, unit: str | None) -> float:
    match = re.fullmatch(r"\s*(-?[\d.]+)\s*(\S.*)?", value)
    if match is None:
        return np.nan
    unit = match[2] or unit
    if unit and is_unit(unit):
        return float(to_si(float(match[1]), unit, "temperature"))
    amount = float(match[1])
    return amount if amount >= 200 else amount + 273.15


def _in_text(text: str) -> list[tuple[float, str]]:
    found = [(float(m[1]) + 273.15, m[0].strip()) for m in _IN_TEXT.finditer(text)]
    for match in _KELVIN.finditer(text):
        kelvin = float(match[1])
        if 200 <= kelvin <= 500 or kelvin in _PLAUSIBLE_KELVIN:
            found.append((kelvin, match[0].strip("_ (,=-")))
    return found


def _scaled(value: float, unit: str | None, quantity: str) -> float:
    return float(to_si(value, unit, quantity)) if unit else value
