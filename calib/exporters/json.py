"""JSON: the whole device model, without loss, for programs in any language.

The document is strict JSON: numbers that JSON lacks are the strings 'NaN', 'Infinity' and '-Infinity' among a
variable's values, and {"number": "NaN"} and so on among attributes, which may be text.

    {"format": "calib-device-model-json/1", "identity": <SHA-256>, "attributes": {...},
     "nodes": {<node>: {"attributes": {...}, "dimensions": {<name>: <size>},
                        "variables": {<name>: {"dimensions": [...], "type": "f8", "coordinate": false,
                                               "attributes": {...}, "values": [...]}}}}}

`values` is nested as the dimensions are; a number without dimensions is plain. Types are those of `TYPES`. The JSON
Schema of the document is in `calib.model_schema`. Control characters and those that turn the direction of text are
written as escapes, so that an editor shows what the text holds.
"""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from calib import __version__
from calib.device_model import check, identity
from calib.errors import ModelError
from calib.exporters._text import escape_hidden
from calib.exporters.base import Exporter

FORMAT = "calib-device-model-json/1"
TYPES = ("f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "text")
_NUMBERS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_VOLATILE = ("created", "calib_version")


class Json(Exporter):
    """Lossless JSON; `from_json` turns it into the device model again."""

    name = "json"
    suffix = ".json"
    carries = "the whole device model, without loss"

    def omits(self, device_model: xr.DataTree) -> list[str]:
        return ["when and by which version of calib the model was made (equal models give equal files)"]

    def contents(self, device_model: xr.DataTree) -> dict[str, str]:
        return {self.file_name(device_model): to_json(device_model)}


def to_json(device_model: xr.DataTree) -> str:
    """Return a device model as JSON text."""
    document = {
        "format": FORMAT,
        "identity": identity(device_model),
        "attributes": _attributes({k: v for k, v in device_model.attrs.items() if k not in _VOLATILE}),
        "nodes": {str(name): _node(node.to_dataset()) for name, node in device_model.children.items()},
    }
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return escape_hidden(text) + "\n"


def from_json(source: str | Path) -> xr.DataTree:
    """Return the device model of a JSON file, or of JSON text that starts with a brace.

    Raises
    ------
    ModelError
        When the file cannot be read, is no such JSON, is of a newer format, or was changed since it was written.
    """
    text, where = _text_of(source)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{where} is no JSON: {error}; export it again with 'calib card --format json'") from error
    found = document.get("format") if isinstance(document, dict) else None
    if found != FORMAT:
        raise ModelError(f"{where} has format {found!r}; expected '{FORMAT}', as 'calib card --format json' writes it")
    try:
        nodes = {f"/{_plain_name(name)}": _dataset(node) for name, node in document["nodes"].items()}
        tree = xr.DataTree.from_dict(nodes)
        tree.attrs = {**_values_of(document["attributes"]), "calib_version": __version__, "created": ""}
        stated = document["identity"]
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(f"{where} does not hold a device model ({reason}); export it again") from error
    check(tree)
    if identity(tree) != stated:
        raise ModelError(
            f"{where} was changed after it was written: its identity is {identity(tree)[:12]}..., it states "
            f"{str(stated)[:12]}...; export it again"
        )
    return tree


def _text_of(source: str | Path) -> tuple[str, str]:
    if isinstance(source, str) and source.lstrip().startswith("{"):
        return source, "the text"
    try:
        return Path(source).read_text(encoding="utf-8"), f"'{source}'"
    except (OSError, UnicodeDecodeError) as error:
        remedy = "give a file made by 'calib card --format json'"
        raise ModelError(f"'{source}' cannot be read: {error}; {remedy}") from error


def _node(node: xr.Dataset) -> dict[str, Any]:
    return {
        "attributes": _attributes(node.attrs),
        "dimensions": {str(name): int(size) for name, size in node.sizes.items()},
        "variables": {str(name): _variable(node, str(name)) for name in node.variables},
    }


def _variable(node: xr.Dataset, name: str) -> dict[str, Any]:
    variable = node[name].variable
    kind = variable.dtype.kind
    number = kind in "fiu"
    values = variable.values if number else variable.values.astype(str)
    return {
        "dimensions": [str(dim) for dim in variable.dims],
        "type": f"{kind}{variable.dtype.itemsize}" if number else "text",
        "coordinate": name in node.coords,
        "attributes": _attributes(variable.attrs),
        "values": _plain(values.tolist()),
    }


def _attributes(attrs: dict[Any, Any]) -> dict[str, Any]:
    return {str(key): _attribute(value.item() if hasattr(value, "item") else value) for key, value in attrs.items()}


def _attribute(value: Any) -> Any:
    encoded = _plain(value)
    return encoded if isinstance(value, str) or not isinstance(encoded, str) else {"number": encoded}


def _plain(value: Any) -> Any:
    """Return nested lists with the numbers that JSON lacks as text."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


def _plain_name(name: str) -> str:
    if not name or "/" in name:
        raise ValueError(f"'{name}' is no name of a node")
    return name


def _dataset(node: dict[str, Any]) -> xr.Dataset:
    data, coords = {}, {}
    for name, variable in node["variables"].items():
        values = variable["values"]
        if variable["type"] not in TYPES:
            raise ValueError(f"'{name}' has type {variable['type']!r}, expected one of {', '.join(TYPES)}")
        if variable["type"] == "text":
            array = np.array(values, dtype=str)
        else:
            array = np.array(_numbers(values), dtype=variable["type"])
        shape = tuple(node["dimensions"][dim] for dim in variable["dimensions"])
        item = (tuple(variable["dimensions"]), array.reshape(shape), _values_of(variable["attributes"]))
        (coords if variable["coordinate"] else data)[name] = item
    return xr.Dataset(data, coords=coords, attrs=_values_of(node["attributes"]))


def _numbers(value: Any) -> Any:
    if isinstance(value, list):
        return [_numbers(item) for item in value]
    return _NUMBERS[value] if isinstance(value, str) else value


def _values_of(attrs: dict[str, Any]) -> dict[str, Any]:
    return {key: _NUMBERS[value["number"]] if isinstance(value, dict) else value for key, value in attrs.items()}


member = Json()
