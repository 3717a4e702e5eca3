"""csv: one table for every set of numbers of a characteristic, units in the header, the identity in the first line.

Numbers that have a dimension in common (a state, a level, a trace) are columns of one table, which begins with the
coordinates; numbers without dimensions are rows of name, value, unit. `pandas.read_csv(path, skiprows=1)` reads each.
Numbers have all their digits.
"""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from calib.device_model import identity
from calib.exporters._text import visible
from calib.exporters.base import Exporter, slug

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


class Csv(Exporter):
    """Plain tables."""

    name = "csv"
    suffix = ".csv"
    carries = "every number of every characteristic, as tables for spreadsheets and programs"

    def omits(self, device_model: xr.DataTree) -> list[str]:
        return ["what the attributes of single variables say besides their unit (calib card --format json has them)"]

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        stem = slug(str(device_model.attrs.get("name", "")))
        first = f"# device model {identity(device_model)}\n"
        rows = [("name", "value"), *((key, _cell(value)) for key, value in sorted(device_model.attrs.items())
                                     if key not in ("created", "calib_version"))]  # fmt: skip
        files = {f"{stem}.csv": first + _text(rows)}
        for node in device_model.children:
            for part, table in tables(device_model[node].to_dataset()).items():
                files[".".join([stem, slug(str(node)), *([part] if part else []), "csv"])] = first + _text(table)
        return files


def tables(node: xr.Dataset) -> dict[str, list[tuple[Any, ...]]]:
    """Return the tables of a node by their dimensions, '' for what has none; the first row is the header.

    The ends of intervals (dimension bound) stand beside the number that they belong to, as columns low and high.
    """
    groups: dict[tuple[str, ...], list[str]] = {}
    for name in sorted(map(str, node.data_vars)):
        groups.setdefault(_rows_of(node, name), []).append(name)
    used = {dim for dims in groups for dim in dims} | ({"bound"} if _has_ends(node) else set())
    groups |= {(str(dim),): [] for dim in node.sizes if str(dim) not in used}
    found: dict[str, list[tuple[Any, ...]]] = {}
    single = groups.pop((), [])
    if single or node.attrs:
        rows = [tuple(_single(node, name)) for name in single]
        rows += [(name, _cell(node.attrs[name]), "", "", "") for name in sorted(map(str, node.attrs))]
        found[""] = [("name", "value", "low", "high", "unit"), *rows]
    for dims, names in groups.items():
        found["-".join(slug(dim) for dim in dims)] = _long(node, dims, names)
    return found


def _has_ends(node: xr.Dataset) -> bool:
    return "bound" in node.coords and list(map(str, node["bound"].values)) == ["low", "high"]


def _rows_of(node: xr.Dataset, name: str) -> tuple[str, ...]:
    dims = tuple(map(str, node[name].dims))
    return dims[:-1] if dims[-1:] == ("bound",) and _has_ends(node) else dims


def _single(node: xr.Dataset, name: str) -> list[str]:
    """Return name, value, low, high, unit of what has no dimension but bound."""
    values = node[name].values
    ends = [_cell(value) for value in values] if values.ndim else []
    return [name, "" if ends else _cell(values[()]), *(ends or ["", ""]), str(node[name].attrs.get("units", ""))]


def _long(node: xr.Dataset, dims: Sequence[str], names: list[str]) -> list[tuple[Any, ...]]:
    """Return a table with one row for every element."""
    shape = tuple(node.sizes[dim] for dim in dims)
    header, columns = [], []
    for axis, dim in enumerate(dims):
        extra = [str(name) for name in node.coords if node[name].dims == (dim,) and name != dim]
        for key in (dim, *extra):
            values = node[key].values if key in node.coords else np.arange(node.sizes[dim])
            index = [1] * len(dims)
            index[axis] = -1
            columns.append(np.broadcast_to(values.reshape(index), shape).ravel())
            header.append(_named(node, key) if key in node.coords else key)
    for name in names:
        ends = tuple(map(str, node[name].dims)) != tuple(dims)
        for k, end in enumerate(("low", "high") if ends else ("",)):
            columns.append(node[name].values[..., k].ravel() if ends else node[name].values.ravel())
            header.append(_named(node, name, end))
    rows = zip(*([_cell(value) for value in column.tolist()] for column in columns), strict=True)
    return [tuple(header), *rows]


def _named(node: xr.Dataset, name: str, end: str = "") -> str:
    unit = str(node[name].attrs.get("units", ""))
    name = f"{name.removesuffix('_bound')} {end}" if end else name
    return f"{name} [{unit}]" if unit and unit != "1" else name


def _cell(value: Any) -> str:
    """Return a number with all its digits, or text that no spreadsheet takes for a formula: it then begins with '."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(value)
    text = visible(str(value))
    return f"'{text}" if isinstance(value, str) and text.startswith(_FORMULA) else text


def _text(rows: Sequence[Sequence[Any]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


member = Csv()
