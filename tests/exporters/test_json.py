import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from calib import device_model
from calib.device_model import identity
from calib.errors import ModelError
from calib.exporters.json import FORMAT, from_json, to_json
from tests.device_trees import full_device, part_of_device
from tests.exporters import hostile


def test_json_and_back_is_the_same_model() -> None:
    tree = full_device(created="", calib_version=device_model.__version__)
    xr.testing.assert_identical(from_json(to_json(tree)), tree)


def test_json_of_the_model_of_json_is_the_same_text() -> None:
    text = to_json(full_device())
    assert to_json(from_json(text)) == text


def test_it_survives_netcdf(tmp_path: Path) -> None:
    device_model.save(full_device(), tmp_path / "device.nc")
    assert to_json(device_model.open_device(tmp_path / "device.nc")) == to_json(full_device())


def test_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "card.json"
    path.write_text(to_json(full_device()), encoding="utf-8")
    assert identity(from_json(path)) == identity(full_device())


def test_it_is_strict_json_with_numbers_that_json_lacks() -> None:
    tree = part_of_device("conductance", name="NaN")
    node = tree["conductance"].to_dataset()
    node["g_off_bound"] = ("bound", [np.nan, -np.inf], {"units": "S"})
    node["g_on_bound"] = ("bound", [1e-300, np.inf], {"units": "S"})
    node.attrs["reference_voltage"] = float("nan")
    tree["conductance"] = xr.DataTree(node)
    text = to_json(tree)
    found = json.loads(text, parse_constant=lambda token: pytest.fail(f"{token} is no JSON"))
    values = found["nodes"]["conductance"]["variables"]
    assert values["g_off_bound"]["values"] == ["NaN", "-Infinity"]
    assert values["g_on_bound"]["values"] == [1e-300, "Infinity"]
    again = from_json(text)
    assert again.attrs["name"] == "NaN"
    assert np.isnan(again["conductance"].attrs["reference_voltage"])
    assert to_json(again) == text


def test_numbers_keep_their_last_bit_and_their_type() -> None:
    tree = part_of_device("conductance")
    node = tree["conductance"].to_dataset()
    node["g_off"] = ((), np.nextafter(1e-6, 1), {"units": "S"})
    node["n_small"] = ((), np.int32(7))
    node["empty"] = (("nothing",), np.zeros(0), {"units": "1"})
    tree["conductance"] = xr.DataTree(node)
    again = from_json(to_json(tree))["conductance"].to_dataset()
    assert float(again["g_off"]) == np.nextafter(1e-6, 1)
    assert again["n_small"].dtype == np.int32
    assert again["empty"].shape == (0,)


def edited(**changes: object) -> str:
    document = json.loads(to_json(full_device()))
    return json.dumps({**document, **changes})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "the text is no JSON"),
        ("{}", f"the text has format None; expected '{FORMAT}'"),
        (edited(format="calib-device-model-json/9"), "has format 'calib-device-model-json/9'"),
        (edited(nodes={"iv": {}}), "does not hold a device model"),
        (edited(nodes=[]), "does not hold a device model"),
        (edited(identity="0" * 64), "was changed after it was written"),
    ],
)
def test_foreign_and_changed_text_is_refused(text: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        from_json(text)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="none.json' cannot be read"):
        from_json(tmp_path / "none.json")


@pytest.mark.parametrize("key", hostile.TEXTS)
def test_text_of_the_user_comes_back_and_hides_nothing(key: str) -> None:
    tree = hostile.device(hostile.TEXTS[key])
    text = to_json(tree)
    assert not any(mark in text for mark in hostile.HIDDEN)
    assert json.loads(text)["attributes"]["name"] == hostile.TEXTS[key]
    assert from_json(text).attrs["name"] == hostile.TEXTS[key]
    assert to_json(from_json(text)) == text


def changed_variable(**changes: object) -> str:
    document = json.loads(to_json(full_device()))
    document["nodes"]["conductance"]["variables"]["g_on"] |= changes
    return json.dumps(document)


@pytest.mark.parametrize(
    "text",
    [
        changed_variable(type="O"),
        changed_variable(type="M8[s]"),
        changed_variable(type="i4", values=10**30),
        changed_variable(values={"a": 1}),
        changed_variable(values="much"),
        changed_variable(dimensions=["nowhere"]),
        edited(nodes={"a/b": {"attributes": {}, "dimensions": {}, "variables": {}}}),
    ],
)
def test_values_that_are_no_numbers_are_refused(text: str) -> None:
    with pytest.raises(ModelError, match="does not hold a device model"):
        from_json(text)


def test_nesting_without_end_is_refused() -> None:
    with pytest.raises(ModelError, match="is no JSON"):
        from_json('{"a":' + "[" * 200_000)
