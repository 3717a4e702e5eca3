"""Medians of each device with its row and column, and whether rows and columns differ."""

from typing import Any

import numpy as np
import xarray as xr

from calib import maps
from calib.fitting.cycle_table import FEATURES, CycleTable
from calib.fitting.endurance import failures
from calib.fitting.loops import Loops

MAXIMUM_DEVICES = 4096
MINIMUM_PLACED = 16
"""Devices with a known row and column from which on rows and columns are compared."""


def with_devices(
    node: xr.Dataset, table: CycleTable, loops: Loops | None, place: xr.Dataset | None, warnings: list[str],
    generator: np.random.Generator,
) -> xr.Dataset:  # fmt: skip
    """Return the switching node with a table of its devices: medians, counts, place; the first 4096 of them.

    Where rows and columns are known, they are compared for every quantity (`maps.place_effects`).
    """
    labels, index = np.unique(table.device, return_inverse=True)
    row, column = places(labels, place)
    data: dict[str, Any] = {}
    medians = {name: _medians(values, index, len(labels)) for name, values in table.values.items()}
    failed, _ = failures(table)
    who = table if loops is None else loops
    position = np.searchsorted(labels, who.device)
    measured = np.bincount(position, minlength=len(labels))
    switched = np.bincount(position, who.switched, len(labels))
    if (row >= 0).sum() >= MINIMUM_PLACED:
        data |= _effects(medians | {"share_switched": switched / measured}, row, column, warnings, generator)
    keep = slice(0, MAXIMUM_DEVICES)
    one = {"units": "1"}
    data |= {
        "device": ("device", labels[keep].astype(str)),
        "device_row": ("device", row[keep], {**one, "long_name": "row (-1 not known)"}),
        "device_column": ("device", column[keep], {**one, "long_name": "column (-1 not known)"}),
        "device_n_loops": ("device", measured[keep], one),
        "device_n_switched": ("device", switched[keep].astype(np.int64), one),
        "device_failure_cycle": ("device", failed[keep], {**one, "long_name": "cycle of failure (-1 none)"}),
    }
    for name, values in medians.items():
        long_name, unit = FEATURES[name]
        data[f"device_{name}"] = ("device", values[keep], {"units": unit, "long_name": f"median {long_name}"})
    return node.assign(data)


def places(labels: np.ndarray, node: xr.Dataset | None) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column of each device as a Measurement's node states them, -1 where it does not."""
    row, column = np.full(len(labels), -1, dtype=np.int64), np.full(len(labels), -1, dtype=np.int64)
    if node is None or not {"row", "column"} <= set(node.coords):
        return row, column
    device = node["device"].values.astype(str)
    at = np.minimum(np.searchsorted(labels, device), len(labels) - 1)
    known = labels[at] == device
    row[at[known]], column[at[known]] = node["row"].values[known], node["column"].values[known]
    return row, column


def _medians(values: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """Return the median of each group, NaN where it has none."""
    usable = np.flatnonzero(np.isfinite(values))
    result = np.full(count, np.nan)
    order = usable[np.lexsort([values[usable], index[usable]])]
    size = np.bincount(index[order], minlength=count)
    first = np.cumsum(size) - size
    some = size > 0
    low, high = first[some] + (size[some] - 1) // 2, first[some] + size[some] // 2
    result[some] = (values[order][low] + values[order][high]) / 2
    return result


def _effects(
    quantities: dict[str, np.ndarray], row: np.ndarray, column: np.ndarray, warnings: list[str],
    generator: np.random.Generator,
) -> dict[str, Any]:  # fmt: skip
    names, p, sigma, sentences = [], [], [], []
    for name, values in quantities.items():
        table = maps.grid(row, column, values)
        if min(table.shape) < 2 or not np.nanstd(table.values) > 0:
            continue
        found = maps.place_effects(table, generator)
        names.append(name)
        p.append([found.p_row, found.p_column])
        sigma.append([found.sigma_row, found.sigma_column, found.sigma_rest])
        long_name = FEATURES[name][0] if name in FEATURES else "share of cycles in which the device switched"
        sentences.append(found.sentence(long_name))
    if not names:
        return {}
    warnings += [f"map: {text}" for text in sentences if "differ more than chance (p <" in text]
    one = {"units": "1"}
    return {
        "place_quantity": ("place_quantity", np.array(names, dtype=str)),
        "place_p": (("place_quantity", "line"), p, {**one, "long_name": "p-value that lines do not differ"}),
        "place_sigma": (
            ("place_quantity", "part"), sigma,
            {**one, "long_name": "standard deviation of rows, columns and the rest, in the quantity's unit"},
        ),
        "line": ("line", np.array(["row", "column"])),
        "part": ("part", np.array(["row", "column", "rest"])),
        "place_sentence": ("place_quantity", np.array(sentences, dtype=str)),
    }  # fmt: skip
