"""What a characteristic of a device model looks like: its numbers, and its tables.

A member of the family `calib.characteristics` is one file, named after the node that it describes. It has

    name       the file's name, with hyphens (`read-noise`)
    node       the node's name (`read_noise`)
    sections(node, tree) -> list[Section]                    tables for the terminal, the data sheet and the report
    estimates(node, tree) -> list[Estimate]                  every number with its interval
    key_numbers(node, tree) -> list[tuple[str, str, str]]    at most two main numbers: label, value, remark
    figures(node, tree) -> list[tuple[str, str, Figure]]     key, caption, drawing (imports matplotlib lazily)
    resample(node, generator) -> Dataset                     the node with its numbers drawn within their uncertainty
"""

import math
from dataclasses import dataclass, replace

import xarray as xr

NAN = math.nan
Z_95 = 1.959963984540054
"""Half-width of the normal 95 % interval in standard errors."""


@dataclass(frozen=True)
class Section:
    """A titled table with remarks; all cells are text.

    Attributes
    ----------
    title : heading.
    columns : names of the columns.
    rows : as many cells each as there are columns.
    notes : sentences under the table.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Estimate:
    """One number of a device model.

    Attributes
    ----------
    characteristic : node of the device model.
    state : resistance state, '' where the number belongs to the device as a whole.
    quantity : key of the number, unique within its characteristic and state.
    label : the quantity in words.
    value : in `unit`.
    stderr : standard error, NaN where none is known.
    low, high : ends of the 95 % interval of the value (`interval` says of what kind), NaN where not known.
    unit : SI.
    n : sample size in words.
    method : how it was found.
    validity : where it holds.
    """

    characteristic: str
    state: str
    quantity: str
    label: str
    value: float
    unit: str
    stderr: float = NAN
    low: float = NAN
    high: float = NAN
    interval: str = ""
    n: str = ""
    method: str = ""
    validity: str = ""


def scalar(node: xr.Dataset, name: str, **selection: str) -> float:
    """Return one number of a node, NaN where the node does not hold it."""
    if name not in node:
        return NAN
    value = node[name].sel(selection) if selection else node[name]
    return float(value)


def bounds(node: xr.Dataset, name: str) -> tuple[float, float]:
    """Return the ends of an interval, NaN where the node does not hold it."""
    if name not in node:
        return NAN, NAN
    low, high = node[name].values
    return float(low), float(high)


def with_error(estimate: Estimate) -> Estimate:
    """Return the estimate with the normal 95 % interval of its standard error, where it has one."""
    if not math.isfinite(estimate.stderr):
        return estimate
    half = Z_95 * estimate.stderr
    return replace(estimate, low=estimate.value - half, high=estimate.value + half, interval="95 % confidence")


def known(estimates: list[Estimate]) -> list[Estimate]:
    """Return the estimates whose value is known."""
    return [estimate for estimate in estimates if math.isfinite(estimate.value)]
