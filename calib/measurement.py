"""The Measurement: raw data in SI units, one node per kind of experiment, with its provenance.

A Measurement is an `xarray.DataTree` whose root has no dimensions and whose nodes are flat siblings:

========  =======================  ==========================================================================
node      dims                     variables
========  =======================  ==========================================================================
iv        sweep, point             voltage [V], current [A], flag; time [s] where known
reads     trace, sample            conductance [S]; voltage, current, time where known
writes    write                    target_low, target_high, achieved [S], success, attempts, n_set, n_reset, n_read
pulses    sequence, pulse, read    conductance [S] or [1]; amplitude [V], width [s], count, read_voltage [V]
extra     any                      columns that no other node holds
========  =======================  ==========================================================================

Every variable has ``units`` and ``long_name``; shorter sweeps are padded with NaN at their end. Attributes are str,
int or float (structures are one JSON string) so that saving and opening give an identical tree; CF's ``flag_masks``,
an integer array, is the only exception.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from calib.errors import ReadError
from calib.files import atomic_write, check_hdf5_size
from calib.measurement_contract import (
    FLAGS,
    MISSING,
    NODES,
    PLACE,
    ROOT_TEXTS,
    SCHEMA,
    attributes_of,
    check,
    labels_for,
)

__all__ = [
    "FLAGS",
    "NODES",
    "SCHEMA",
    "Measurement",
    "Trace",
    "attributes_of",
    "build",
    "check",
    "extra_node",
    "iv_dataset",
    "iv_node",
    "merge",
    "notes_of",
    "open_measurement",
    "padded",
    "pulses_node",
    "reads_node",
    "save",
    "with_notes",
    "writes_node",
]

Measurement = xr.DataTree


@dataclass(frozen=True)
class Trace:
    """A current-voltage trace as it was recorded, in SI units, before it is split into branches.

    Attributes
    ----------
    voltage, current : (point,) [V], [A]; points where either is NaN are left out by `iv_node`.
    time : (point,) [s], or None.
    device, cycle, population, state : labels; cycle counts from 0, -1 when unknown.
    compliance, temperature, series_resistance, gate_voltage : [A], [K], [ohm], [V]; NaN when unknown.
    place : any of row, column, die, wafer.
    """

    voltage: NDArray[np.float64]
    current: NDArray[np.float64]
    device: str
    time: NDArray[np.float64] | None = None
    cycle: int = -1
    population: str = ""
    state: str = ""
    compliance: float = np.nan
    temperature: float = np.nan
    series_resistance: float = np.nan
    gate_voltage: float = np.nan
    place: Mapping[str, Any] = field(default_factory=dict)


def iv_node(traces: Sequence[Trace], questions: Iterable[str] = (), notes: Iterable[str] = ()) -> xr.Dataset:
    """Build the node iv from whole traces (one sweep each, not yet split into branches; see `calib.sweeps`)."""
    finite = [np.isfinite(t.voltage) & np.isfinite(t.current) for t in traces]
    lone = sum(int((np.isfinite(t.voltage) != np.isfinite(t.current)).sum()) for t in traces)
    if lone:
        notes = [*notes, f"{lone} points have a voltage or a current, but not both, and are left out"]
    columns = {"voltage": [t.voltage[ok] for t, ok in zip(traces, finite, strict=True)]}
    columns["current"] = [t.current[ok] for t, ok in zip(traces, finite, strict=True)]
    if any(t.time is not None for t in traces):
        columns["time"] = [
            np.full(int(ok.sum()), np.nan) if t.time is None else t.time[ok]
            for t, ok in zip(traces, finite, strict=True)
        ]
    scalars = ("device", "cycle", "population", "state", "compliance", "temperature", "series_resistance")
    labels: dict[str, Any] = {name: [getattr(t, name) for t in traces] for name in (*scalars, "gate_voltage")}
    for name, kind in PLACE.items():
        if any(name in t.place for t in traces):
            labels[name] = [t.place.get(name, MISSING[kind]) for t in traces]
    return iv_dataset({name: padded(rows) for name, rows in columns.items()}, labels, questions, notes)


def iv_dataset(
    variables: Mapping[str, NDArray[Any]],
    labels: Mapping[str, Any],
    questions: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> xr.Dataset:
    """Build the node iv from padded arrays (sweep, point): voltage, current and, where known, time and flag."""
    shape = variables["voltage"].shape
    data = {name: (("sweep", "point"), values, attributes_of(name)) for name, values in variables.items()}
    if "flag" not in data:
        data["flag"] = (("sweep", "point"), np.zeros(shape, dtype=np.int32), attributes_of("flag"))
    node = xr.Dataset(data, coords=labels_for("iv", shape[0], labels))
    node.attrs = {"questions": json.dumps(list(questions)), "notes": json.dumps(list(notes)), "split": 0}
    return node


def reads_node(
    variables: Mapping[str, NDArray[Any]],
    labels: Mapping[str, Any],
    questions: Iterable[str] = (),
    notes: Iterable[str] = (),
) -> xr.Dataset:
    """Build the node reads from padded arrays (trace, sample): conductance [S] and what else is known."""
    node = _labelled("reads", variables, labels)
    node.attrs = {"questions": json.dumps(list(questions)), "notes": json.dumps(list(notes))}
    return node


def writes_node(variables: Mapping[str, ArrayLike], labels: Mapping[str, Any]) -> xr.Dataset:
    """Build the node writes; the open ends of a target range are 0 and inf [S]."""
    return _labelled("writes", variables, labels)


def pulses_node(
    variables: Mapping[str, ArrayLike], labels: Mapping[str, Any], conductance_unit: str = "S"
) -> xr.Dataset:
    """Build the node pulses; `conductance_unit` is '1' for normalised data."""
    node = _labelled("pulses", variables, labels)
    node["conductance"].attrs["units"] = conductance_unit
    return node


def extra_node(columns: Mapping[str, tuple[NDArray[Any], str, str]], table: str) -> xr.Dataset:
    """Build the node extra from columns {name: (values, unit, header text)} of one table (a file or a sheet)."""
    size = len(next(iter(columns.values()))[0])
    data = {
        name: (("record",), values, {"units": unit, "long_name": header})
        for name, (values, unit, header) in columns.items()
    }
    coords = {
        "table": (("record",), np.full(size, table), {"units": "1", "long_name": "file or sheet"}),
        "index": (("record",), np.arange(size), {"units": "1", "long_name": "row of the table, from 0"}),
    }
    return xr.Dataset(data, coords=coords)


def build(nodes: Mapping[str, xr.Dataset], sources: Sequence[Mapping[str, str]] = (), **texts: str) -> Measurement:
    """Return a Measurement of nodes and their sources (name, sha256, reader, why; `calib.read` adds them otherwise).

    `texts` may give instrument, sample, citation and license.
    """
    attrs: dict[str, Any] = {"schema": SCHEMA, **{name: str(texts.get(name, "")) for name in ROOT_TEXTS}}
    attrs["sources"] = json.dumps([dict(source) for source in sources], ensure_ascii=False)
    root = xr.Dataset(attrs=attrs)
    return xr.DataTree.from_dict({"/": root, **{f"/{name}": node for name, node in nodes.items()}})


def notes_of(node: xr.DataTree | xr.Dataset, key: str = "notes") -> list[str]:
    """Return the list of sentences in the attribute notes or questions of a node."""
    return json.loads(node.attrs.get(key, "[]"))


def with_notes(node: xr.Dataset, notes: Sequence[str], key: str = "notes") -> xr.Dataset:
    """Return a node whose attribute notes (or questions) holds these sentences."""
    return node.assign_attrs({key: json.dumps(list(notes), ensure_ascii=False)})


def merge(measurements: Sequence[Measurement]) -> Measurement:
    """Join Measurements: sweeps, traces, writes... one after the other; a device keeps its name and its source."""
    if not measurements:
        raise ReadError("nothing to merge: give at least one measurement")
    sources: list[dict[str, str]] = []
    collected: dict[str, list[xr.Dataset]] = {}
    for tree in measurements:
        for name, child in tree.children.items():
            node = child.to_dataset(inherit=False)
            if "source" in node.coords:
                node = node.assign_coords(source=node["source"] + len(sources))
                node["source"].attrs = attributes_of("source")
            collected.setdefault(name, []).append(node)
        sources += json.loads(tree.attrs["sources"])
    texts = {name: _joined(tree.attrs.get(name, "") for tree in measurements) for name in ROOT_TEXTS}
    return build({name: _concatenate(name, nodes) for name, nodes in collected.items()}, sources, **texts)


def save(tree: Measurement, path: str | Path) -> None:
    """Write a Measurement to netCDF-4 atomically; opening it again gives an identical tree."""
    check(tree)
    with atomic_write(path) as temporary:
        tree.to_netcdf(temporary, engine="h5netcdf")


def open_measurement(path: str | Path) -> Measurement:
    """Open a Measurement written by `save`, load it, and check it.

    Raises
    ------
    ReadError
        When the file is missing, is no netCDF-4 file or does not conform.
    """
    path = Path(path)
    if not path.is_file():
        raise ReadError(f"'{path}' does not exist; give the path of a measurement saved by calib")
    try:
        check_hdf5_size(path)
        with xr.open_datatree(path, engine="h5netcdf", decode_times=False) as opened:
            tree = opened.load()
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise ReadError(f"'{path}' cannot be opened as netCDF-4: {error}; it may be truncated") from error
    nodes = {name: _native(child.to_dataset(inherit=False)) for name, child in tree.children.items()}
    root = xr.Dataset(attrs=_plain_attributes(tree.attrs))
    result = xr.DataTree.from_dict({"/": root, **{f"/{name}": node for name, node in nodes.items()}})
    try:
        check(result)
    except ReadError as error:
        raise ReadError(f"'{path}': {error}") from error
    return result


def padded(rows: Sequence[NDArray[Any]], fill: Any = np.nan) -> NDArray[Any]:
    """Return rows of unequal length as one array (row, point), padded at the end."""
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    dtype = rows[0].dtype if rows and not isinstance(fill, float) else np.float64
    result = np.full((len(rows), int(lengths.max(initial=0))), fill, dtype=dtype)
    if lengths.sum():
        result[np.arange(result.shape[1]) < lengths[:, None]] = np.concatenate(rows)
    return result


def _labelled(node: str, variables: Mapping[str, Any], labels: Mapping[str, Any]) -> xr.Dataset:
    spec = NODES[node]
    data = {}
    for name, values in variables.items():
        dims = spec.optional.get(name, spec.dims)
        data[name] = (dims, np.asarray(values), attributes_of(name))
    size = np.asarray(variables[spec.required[0]]).shape[0]
    return xr.Dataset(data, coords=labels_for(node, size, labels))


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(dict.fromkeys(text for text in texts if text))


def _concatenate(name: str, nodes: Sequence[xr.Dataset]) -> xr.Dataset:
    if len(nodes) == 1:
        return nodes[0]
    spec = NODES[name]
    first = spec.dims[0] if spec.dims else "record"
    widest = {dim: max(node.sizes.get(dim, 0) for node in nodes) for dim in spec.dims[1:]}
    names = dict.fromkeys(str(key) for node in nodes for key in node.variables)
    data: dict[str, Any] = {}
    for key in names:
        model = next(node[key] for node in nodes if key in node.variables)
        units = {str(node[key].attrs.get("units")) for node in nodes if key in node.variables}
        if len(units) > 1 and name != "extra":
            raise ReadError(
                f"the files give {key} of the node {name} in {' and in '.join(sorted(units))}, which cannot be joined; "
                "read them one by one"
            )
        parts = [_part(node, key, model, first, widest) for node in nodes]
        data[key] = (model.dims, np.concatenate(parts), model.attrs)
    coords = {key: data.pop(key) for key in names if any(key in node.coords for node in nodes)}
    result = xr.Dataset(data, coords=coords)
    result.attrs = dict(nodes[0].attrs)
    for key in ("questions", "notes"):
        if any(key in node.attrs for node in nodes):
            sentences = dict.fromkeys(sentence for node in nodes for sentence in notes_of(node, key))
            result.attrs[key] = json.dumps(list(sentences))
    return result


def _part(node: xr.Dataset, key: str, model: xr.DataArray, first: str, widest: Mapping[str, int]) -> NDArray[Any]:
    fill = MISSING.get(model.dtype.kind, 0)
    if key == "flag" or key == "offset":
        fill = 0
    shape = tuple(
        node.sizes[first] if dim == first else widest.get(str(dim), node.sizes.get(dim, 0)) for dim in model.dims
    )
    if key not in node.variables:
        return np.full(shape, fill, dtype=model.dtype)
    values = node[key].values
    pad = [(0, target - have) for target, have in zip(shape, values.shape, strict=True)]
    if not any(after for _, after in pad):
        return values
    return np.pad(values.astype(float) if values.dtype.kind == "f" else values, pad, constant_values=fill)


def _native(node: xr.Dataset) -> xr.Dataset:
    def convert(variable: xr.Variable) -> tuple[Any, ...]:
        values = variable.values
        if values.dtype.kind in "OT":
            values = values.astype(str)
        return variable.dims, values, _plain_attributes(variable.attrs)

    coords = {name: convert(node.variables[name]) for name in node.coords}
    data = {name: convert(node.variables[name]) for name in node.data_vars}
    return xr.Dataset(data, coords=coords, attrs=_plain_attributes(node.attrs))


def _plain_attributes(attrs: Mapping[Any, Any]) -> dict[str, Any]:
    return {
        str(key): value.item() if isinstance(value, np.generic) else value
        for key, value in attrs.items()
        if not str(key).startswith("_Netcdf4")
    }
