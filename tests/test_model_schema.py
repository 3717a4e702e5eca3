import copy
import functools
import json
from collections.abc import Callable
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from calib import data_folder, model_schema
from calib.device_model import open_device
from calib.exporters.json import FORMAT, from_json, to_json
from calib.model_schema import build
from tests.contracts.exporter_contract import HOSTILE_NAMES, VARIANTS, bare_device
from tests.device_trees import full_device, part_of_device


@functools.cache
def validator() -> Draft202012Validator:
    return Draft202012Validator(model_schema.schema())


def faults(found: Any) -> list[str]:
    """Return what the schema finds wrong in a document."""
    return [f"{error.json_path}: {error.message}" for error in validator().iter_errors(found)]


@functools.cache
def document() -> str:
    return to_json(full_device())


def test_it_is_a_schema_of_its_draft() -> None:
    Draft202012Validator.check_schema(model_schema.schema())
    assert model_schema.schema()["$schema"].endswith("draft/2020-12/schema")


def test_the_file_is_that_of_the_contract() -> None:
    assert model_schema.text() == build.text(), "run: python -m calib.model_schema.build"


def test_its_name_and_content_carry_the_version_of_the_format() -> None:
    assert f"{FORMAT.replace('/', '-')}.schema.json" == model_schema.FILE
    assert model_schema.schema()["properties"]["format"]["const"] == FORMAT
    assert FORMAT.rpartition("/")[2] == model_schema.schema()["$id"].rpartition(":")[2]


@pytest.mark.parametrize("name", data_folder.bundled_model_names())
def test_every_bundled_model_validates_and_comes_back_the_same(name: str) -> None:
    text = to_json(open_device(name))
    assert faults(json.loads(text)) == []
    assert to_json(from_json(text)) == text


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_subset_of_characteristics_validates(variant: str) -> None:
    device = part_of_device(*VARIANTS[variant]) if VARIANTS[variant] else full_device()
    assert faults(json.loads(to_json(device))) == []


@pytest.mark.parametrize("name", HOSTILE_NAMES)
def test_any_name_validates(name: str) -> None:
    assert faults(json.loads(to_json(bare_device(name=name)))) == []


def without(*path: str) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        for key in path[:-1]:
            found = found[key]
        del found[path[-1]]

    return change


def putting(value: object, *path: str) -> Callable[[dict[str, Any]], None]:
    def change(found: dict[str, Any]) -> None:
        for key in path[:-1]:
            found = found[key]
        found[path[-1]] = value

    return change


IV = ("nodes", "iv", "variables")
RANGE = ("nodes", "conductance", "variables", "g_on")


@pytest.mark.parametrize(
    "change",
    [
        without("format"),
        without("identity"),
        without("nodes"),
        without("attributes", "name"),
        without("attributes", "sources"),
        without(*IV, "slope"),
        without(*IV, "slope", "values"),
        without(*IV, "slope", "dimensions"),
        without(*IV, "slope", "type"),
        without(*IV, "slope", "attributes", "units"),
        without("nodes", "iv", "attributes", "iv_model"),
        without("nodes", "iv", "dimensions"),
        without(*RANGE),
        putting("calib-device-model-json/2", "format"),
        putting("0" * 63, "identity"),
        putting("G" * 64, "identity"),
        putting({}, "nodes"),
        putting([], "nodes"),
        putting("calib-device-model/9", "attributes", "schema"),
        putting("no list", "attributes", "warnings"),
        putting("[]", "attributes", "options"),
        putting({"number": "none"}, "attributes", "name"),
        putting(None, "attributes", "name"),
        putting({"a": 1}, "attributes", "more"),
        putting(1, "more"),
        putting("more", *RANGE, "more"),
        putting("f16", *RANGE, "type"),
        putting("text", *RANGE, "type"),
        putting("1e-6", *RANGE, "values"),
        putting(None, *RANGE, "values"),
        putting(0.0, *RANGE, "values"),
        putting(-1e-6, *RANGE, "values"),
        putting([1e-6], *RANGE, "values"),
        putting(["bound"], *RANGE, "dimensions"),
        putting(1, *RANGE, "coordinate"),
        putting(1.5, "nodes", "stuck", "variables", "probability", "values"),
        putting([1.0, 2.0], *IV, "slope", "values"),
        putting([["a"]], *IV, "slope", "values"),
        putting(["parameter", "state"], *IV, "slope", "dimensions"),
        putting([1, 2], *IV, "state", "values"),
        putting("f8", *IV, "state", "type"),
        putting(-1, "nodes", "iv", "dimensions", "state"),
        putting(1.5, "nodes", "iv", "dimensions", "state"),
        putting({}, "nodes", "iv"),
        putting({"attributes": {}, "dimensions": {}, "variables": {}}, "nodes", "a/b"),
    ],
)
def test_a_changed_document_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    found = json.loads(document())
    changed = copy.deepcopy(found)
    change(changed)
    assert changed != found
    assert faults(changed)


def test_a_node_that_is_not_known_yet_is_allowed() -> None:
    found = json.loads(document())
    found["nodes"]["something new"] = {"attributes": {}, "dimensions": {}, "variables": {}}
    assert faults(found) == []
