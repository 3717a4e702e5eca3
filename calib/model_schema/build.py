"""Write the JSON Schema of device models from their contract: ``python -m calib.model_schema.build``."""

import json
from pathlib import Path
from typing import Any

from calib.device_model import SCHEMA
from calib.exporters.json import FORMAT, TYPES
from calib.model_contract import REQUIRED, REQUIRED_ATTRS, TEXT
from calib.model_schema import FILE

_LISTS = ("assumptions", "warnings", "sources")
_DIMENSIONS = 5
"""Variables of more dimensions are not checked for the nesting of their values."""
_LIMITS: dict[tuple[str, str], dict[str, float]] = {
    ("conductance", "g_off"): {"exclusiveMinimum": 0},
    ("conductance", "g_on"): {"exclusiveMinimum": 0},
    ("stuck", "probability"): {"minimum": 0, "maximum": 1},
}
"""Ranges of single numbers."""


def build() -> dict[str, Any]:
    """Return the schema."""
    nodes = {name: _named_node(name) for name in REQUIRED}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:calib-memristor:calib-device-model-json:1",
        "title": FORMAT,
        "description": (
            "A device model of calib: measured characteristics of memristive devices with their uncertainties, in SI "
            "units. Numbers that JSON lacks are the strings NaN, Infinity and -Infinity among values, and an object "
            "with the key 'number' among attributes."
        ),
        "type": "object",
        "required": ["format", "identity", "attributes", "nodes"],
        "additionalProperties": False,
        "properties": {
            "format": {"const": FORMAT},
            "identity": {
                "description": "SHA-256 of the model's content without the time and the version that made it",
                "type": "string",
                "pattern": "^[0-9a-f]{64}$",
            },
            "attributes": {"$ref": "#/$defs/model_attributes"},
            "nodes": {
                "description": "one node a characteristic; what is absent was not measured",
                "type": "object",
                "minProperties": 1,
                "propertyNames": {"pattern": "^[^/]+$"},
                "properties": nodes,
                "additionalProperties": {"$ref": "#/$defs/node"},
            },
        },
        "$defs": _definitions(),
    }


def _named_node(name: str) -> dict[str, Any]:
    """Return what a known characteristic must hold besides what every node is."""
    variables = {variable: _named_variable(name, variable) for variable in REQUIRED[name]}
    properties: dict[str, Any] = {"variables": {"required": sorted(variables), "properties": variables}}
    if name in REQUIRED_ATTRS:
        properties["attributes"] = {"required": sorted(REQUIRED_ATTRS[name])}
    return {"allOf": [{"$ref": "#/$defs/node"}, {"properties": properties}]}


def _named_variable(node: str, variable: str) -> dict[str, Any]:
    kind: dict[str, Any] = {"const": "text"} if variable in TEXT else {"$ref": "#/$defs/number_type"}
    found: dict[str, Any] = {"dimensions": {"const": list(REQUIRED[node][variable])}, "type": kind}
    if (node, variable) in _LIMITS:
        found["values"] = {"type": "number", **_LIMITS[node, variable]}
    return {"properties": found}


def _definitions() -> dict[str, Any]:
    numbers = [kind for kind in TYPES if kind != "text"]
    singles: dict[str, dict[str, Any]] = {
        "number": {"type": ["number", "string"], "pattern": "^(NaN|Infinity|-Infinity)$"},  # the pattern is of texts
        "text": {"type": "string"},
    }
    return {
        "number_type": {"description": "kind and bytes of a number", "enum": numbers},
        "special": {"description": "a number that JSON lacks", "enum": ["NaN", "Infinity", "-Infinity"]},
        **{f"{kind}_0": single for kind, single in singles.items()},
        **{f"{kind}_1": {"type": "array", "items": single} for kind, single in singles.items()},
        **{
            f"{kind}_{depth}": {"type": "array", "items": {"$ref": f"#/$defs/{kind}_{depth - 1}"}}
            for kind in singles
            for depth in range(2, _DIMENSIONS + 1)
        },
        "attribute": {
            "anyOf": [
                {"type": ["string", "number"]},
                {
                    "type": "object",
                    "required": ["number"],
                    "additionalProperties": False,
                    "properties": {"number": {"$ref": "#/$defs/special"}},
                },
            ]
        },
        "attributes": {"type": "object", "additionalProperties": {"$ref": "#/$defs/attribute"}},
        "model_attributes": _model_attributes(),
        "variable": _variable(),
        "node": _node(),
    }


def _model_attributes() -> dict[str, Any]:
    listed = {"type": "string", "contentMediaType": "application/json"}
    return {
        "description": "assumptions, warnings and sources are JSON lists as text, options a JSON object as text",
        "allOf": [{"$ref": "#/$defs/attributes"}],
        "required": ["schema", "name", "citation", "assumptions", "warnings", "options", "sources"],
        "properties": {
            "schema": {"const": SCHEMA},
            **{key: {"type": "string"} for key in ("name", "technology", "citation", "license")},
            **{key: {**listed, "pattern": r"^\s*\["} for key in _LISTS},
            "options": {**listed, "pattern": r"^\s*\{"},
        },
    }


def _variable() -> dict[str, Any]:
    nesting = [
        {
            "if": {
                "properties": {
                    "type": {"const": "text"} if kind == "text" else {"$ref": "#/$defs/number_type"},
                    "dimensions": {"minItems": depth, "maxItems": depth},
                }
            },
            "then": {"properties": {"values": {"$ref": f"#/$defs/{kind}_{depth}"}}},
        }
        for kind in ("number", "text")
        for depth in range(_DIMENSIONS + 1)
    ]
    return {
        "type": "object",
        "required": ["dimensions", "type", "coordinate", "attributes", "values"],
        "additionalProperties": False,
        "properties": {
            "dimensions": {"type": "array", "items": {"type": "string"}},
            "type": {"enum": list(TYPES)},
            "coordinate": {"type": "boolean"},
            "attributes": {"$ref": "#/$defs/attributes"},
            "values": {"description": "nested as the dimensions are; a number without dimensions is plain"},
        },
        "allOf": nesting,
    }


def _node() -> dict[str, Any]:
    states_units = {
        "if": {"properties": {"type": {"$ref": "#/$defs/number_type"}, "coordinate": {"const": False}}},
        "then": {"properties": {"attributes": {"required": ["units"]}}},
    }
    return {
        "type": "object",
        "required": ["attributes", "dimensions", "variables"],
        "additionalProperties": False,
        "properties": {
            "attributes": {"$ref": "#/$defs/attributes"},
            "dimensions": {"type": "object", "additionalProperties": {"type": "integer", "minimum": 0}},
            "variables": {
                "type": "object",
                "patternProperties": {"": {"$ref": "#/$defs/variable"}, "^(?!n_)": states_units},
            },
        },
    }


def text() -> str:
    """Return the schema as its file holds it."""
    return json.dumps(build(), indent=1, sort_keys=True) + "\n"


if __name__ == "__main__":
    (Path(__file__).parent / FILE).write_text(text(), encoding="utf-8")
