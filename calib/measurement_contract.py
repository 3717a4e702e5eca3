"""The Measurement contract: nodes, dims, variables, coordinates, attributes; and the check of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr

from calib.errors import ReadError
from calib.units import QUANTITIES

SCHEMA = "calib-measurement/1"

FLAGS: dict[str, int] = {
    "compliance": 1,
    "spike": 2,
    "below_floor": 4,
    "duplicate": 8,
    "switching": 16,
    "sign_restored": 32,
    "saturated": 64,
    "offset": 128,
}
"""Bits of the variable flag (CF flag_masks and flag_meanings)."""

ROOT_TEXTS = ("instrument", "sample", "citation", "license")


@dataclass(frozen=True)
class NodeSpec:
    """What a node must and may hold; a kind is 'f' (float), 'i' (integer) or 'U' (text)."""

    dims: tuple[str, ...]
    required: tuple[str, ...]
    optional: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, str]
    label_optional: Mapping[str, str] = field(default_factory=dict)


PLACE = {"row": "i", "column": "i", "die": "U", "wafer": "U"}
NODES: dict[str, NodeSpec] = {
    "iv": NodeSpec(
        ("sweep", "point"),
        ("voltage", "current", "flag"),
        {"time": ("sweep", "point")},
        {
            "device": "U",
            "cycle": "i",
            "operation": "U",
            "state": "U",
            "direction": "U",
            "polarity": "U",
            "order": "i",
            "population": "U",
            "compliance": "f",
            "temperature": "f",
            "series_resistance": "f",
            "gate_voltage": "f",
            "noise_floor": "f",
            "offset": "f",
            "offset_stderr": "f",
            "source": "i",
        },
        {**PLACE, "switching_voltage": "f"},
    ),
    "reads": NodeSpec(
        ("trace", "sample"),
        ("conductance",),
        {name: ("trace", "sample") for name in ("voltage", "current", "time")},
        {
            "device": "U",
            "cycle": "i",
            "level": "U",
            "state": "U",
            "target": "f",
            "population": "U",
            "temperature": "f",
            "source": "i",
        },
        PLACE,
    ),
    "writes": NodeSpec(
        ("write",),
        ("target_low", "target_high", "achieved"),
        {name: ("write",) for name in ("success", "attempts", "n_set", "n_reset", "n_read")},
        {"device": "U", "cycle": "i", "state": "U", "population": "U", "temperature": "f", "source": "i"},
        PLACE,
    ),
    "pulses": NodeSpec(
        ("sequence", "pulse", "read"),
        ("conductance",),
        {name: ("sequence", "pulse") for name in ("amplitude", "width", "count", "read_voltage")},
        {"device": "U", "cycle": "i", "polarity": "U", "population": "U", "temperature": "f", "source": "i"},
        PLACE,
    ),
    "extra": NodeSpec((), (), {}, {}),
}

_LONG_NAMES = {
    "flag": "quality flags", "device": "device", "cycle": "cycle of the device, from 0 (-1 unknown)",
    "operation": "operation (set, reset, read, form)", "state": "state before any switching event",
    "direction": "whether the absolute voltage grows (up) or shrinks (down)",
    "polarity": "polarity of the voltage, or potentiation or depression",
    "order": "position of the branch in its source trace", "population": "population of devices measured alike",
    "source": "index in the root attribute sources", "row": "row", "column": "column", "die": "die", "wafer": "wafer",
    "level": "programmed level", "target_low": "lower end of the target range",
    "target_high": "upper end of the target range", "achieved": "achieved conductance", "success": "success",
    "attempts": "attempts", "n_set": "set pulses", "n_reset": "reset pulses", "n_read": "reads", "count": "pulses",
}  # fmt: skip
_UNITS = {"target_low": "S", "target_high": "S", "achieved": "S"}
MISSING: dict[str, Any] = {"U": "", "i": -1, "f": np.nan}


def attributes_of(name: str, unit: str | None = None) -> dict[str, Any]:
    """Return the attributes units and long_name of a variable of a Measurement."""
    quantity = QUANTITIES.get(name)
    default = quantity.unit if quantity else _UNITS.get(name, "1")
    long_name = _LONG_NAMES.get(name) or (quantity.long_name if quantity else name.replace("_", " "))
    attributes: dict[str, Any] = {"units": default if unit is None else unit, "long_name": long_name}
    if name == "flag":
        attributes["flag_masks"] = np.array(list(FLAGS.values()), dtype=np.int32)
        attributes["flag_meanings"] = " ".join(FLAGS)
    return attributes


def labels_for(node: str, size: int, given: Mapping[str, Any]) -> dict[str, xr.Variable]:
    """Return the coordinates of a node along its first dimension; those not given hold 'unknown'.

    Parameters
    ----------
    given : scalars or arrays of `size` by coordinate name; None is left out.
    """
    spec = NODES[node]
    allowed = {**spec.labels, **spec.label_optional}
    result = {}
    for name, kind in allowed.items():
        value = given.get(name)
        if value is None:
            if name not in spec.labels:
                continue
            value = 0 if name in ("source", "order", "offset") else MISSING[kind]
        dtype = {"U": str, "i": np.int64, "f": np.float64}[kind]
        array = np.broadcast_to(np.asarray(value, dtype=dtype), (size,)).copy()
        result[name] = xr.Variable((spec.dims[0],), array, attributes_of(name))
    return result


def check(tree: xr.DataTree) -> None:
    """Raise one ReadError that lists everything in which `tree` departs from the Measurement contract."""
    problems: list[str] = []
    if tree.attrs.get("schema") != SCHEMA:
        problems.append(f"root: schema is '{tree.attrs.get('schema')}', expected '{SCHEMA}'")
    if tree.to_dataset(inherit=False).sizes:
        problems.append("root: has dimensions; it must have none")
    problems += [f"root: attribute '{name}' is missing" for name in (*ROOT_TEXTS, "sources") if name not in tree.attrs]
    problems += _attribute_problems("root", tree.attrs)
    if not tree.children:
        problems.append("no node holds any data")
    for name, child in tree.children.items():
        if name not in NODES:
            problems.append(f"{name}: no such kind of experiment; expected one of {', '.join(NODES)}")
            continue
        if child.children:
            problems.append(f"{name}: has nodes below it; nodes are flat siblings")
        problems += _node_problems(name, child.to_dataset(inherit=False))
    if problems:
        raise ReadError("not a valid Measurement: " + "; ".join(problems))


def _attribute_problems(where: str, attrs: Mapping[Any, Any]) -> list[str]:
    return [
        f"{where}: attribute '{name}' is a {type(value).__name__}, expected str, int or float"
        for name, value in attrs.items()
        if not isinstance(value, str | int | float) and name != "flag_masks"
    ]


def _node_problems(name: str, node: xr.Dataset) -> list[str]:
    spec = NODES[name]
    problems = _attribute_problems(name, node.attrs)
    problems += [f"{name}: variable '{v}' is missing" for v in spec.required if v not in node]
    problems += [f"{name}: coordinate '{c}' is missing" for c in spec.labels if c not in node.coords]
    for key, variable in node.variables.items():
        where = f"{name}/{key}"
        problems += [f"{where}: attribute '{a}' is missing" for a in ("units", "long_name") if a not in variable.attrs]
        problems += _attribute_problems(where, variable.attrs)
        expected = _expected_dims(spec, str(key))
        if name != "extra" and expected is None:
            problems.append(f"{where}: no such variable in this node; put it in the node extra")
        elif expected is not None and variable.dims != expected:
            problems.append(f"{where}: dims are {variable.dims}, expected {expected}")
        kind = {**spec.labels, **spec.label_optional}.get(str(key))
        if kind is not None and variable.dtype.kind != kind:
            problems.append(f"{where}: dtype is {variable.dtype}, expected kind '{kind}'")
    if name == "iv" and not problems:
        problems += _sweep_problems(node)
    value = {"reads": "conductance", "pulses": "conductance", "writes": "achieved"}.get(name)
    if value is not None and not problems and not np.isfinite(node[value].values).any():
        problems.append(f"{name}/{value}: holds no finite value")
    return problems


def _expected_dims(spec: NodeSpec, key: str) -> tuple[str, ...] | None:
    if key in spec.required:
        return spec.dims
    if key in spec.optional:
        return spec.optional[key]
    if key in spec.labels or key in spec.label_optional:
        return spec.dims[:1]
    return None


def _sweep_problems(node: xr.Dataset) -> list[str]:
    problems = []
    voltage, current, flag = (node[name].values for name in ("voltage", "current", "flag"))
    finite = np.isfinite(voltage)
    if (finite != np.isfinite(current)).any() or np.isinf(voltage).any() or np.isinf(current).any():
        problems.append("iv: voltage and current must be finite at the same points and NaN elsewhere")
    if (finite[:, 1:] & ~finite[:, :-1]).any():
        problems.append("iv: NaN may only pad the end of a sweep")
    if (~finite.any(axis=1)).any():
        problems.append(f"iv: {int((~finite.any(axis=1)).sum())} sweeps hold no point")
    attrs = node["flag"].attrs
    if flag.dtype != np.int32 or attrs.get("flag_meanings") != " ".join(FLAGS):
        problems.append("iv/flag: expected int32 with calib's flag_masks and flag_meanings")
    elif not np.array_equal(attrs.get("flag_masks", ()), list(FLAGS.values())):
        problems.append("iv/flag: flag_masks does not list calib's flags")
    elif (flag & ~np.int32(sum(FLAGS.values()))).any() or flag[~finite].any():
        problems.append("iv/flag: holds bits that have no meaning, or flags where there is no point")
    return problems
