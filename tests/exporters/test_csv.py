"""The csv card: every number is read back as it is."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from calib.device_model import identity
from calib.exporters.csv import member, tables
from tests import simple_devices
from tests.device_trees import full_device
from tests.exporters.simulator_devices import pulsed

UNITS = {"S", "ohm", "V", "A", "K"}


def tree_of(name: str) -> xr.DataTree:
    return {"full": full_device, "pulsed": pulsed, "simple": simple_devices.everything}[name]()


@pytest.mark.parametrize("name", ["full", "pulsed", "simple"])
def test_pandas_reads_every_number_back(name, tmp_path) -> None:
    tree = tree_of(name)
    paths = {path.name: path for path in member.write(tree, tmp_path)}
    stem = min(paths, key=len).removesuffix(".csv")
    seen = 0
    for node_name in tree.children:
        node = tree[node_name].to_dataset()
        for variable in map(str, node.data_vars):
            seen += _check(node, variable, paths, f"{stem}.{str(node_name).replace('_', '-')}")
    assert seen > 10
    for path in paths.values():
        assert path.read_text(encoding="utf-8").startswith(f"# device model {identity(tree)}\n")


def _check(node: xr.Dataset, variable: str, paths: dict, stem: str) -> int:
    values = node[variable]
    dims = [str(dim) for dim in values.dims]
    ends = dims[-1:] == ["bound"]
    rows = dims[:-1] if ends else dims
    part = "-".join(dim.replace("_", "-") for dim in rows)
    table = pd.read_csv(paths[f"{stem}.{part}.csv" if part else f"{stem}.csv"], skiprows=1, keep_default_na=True)
    if not rows:
        row = table.set_index("name").loc[variable]
        found = [float(row[key]) for key in (("low", "high") if ends else ("value",))]
        np.testing.assert_array_equal(found, np.atleast_1d(values.values.astype(float)))
        return 1
    unit = str(values.attrs.get("units", ""))
    unit = f" [{unit}]" if unit not in ("", "1") else ""
    if ends:
        columns = [f"{variable.removesuffix('_bound')} {end}{unit}" for end in ("low", "high")]
    else:
        columns = [f"{variable}{unit}"]
    for k, column in enumerate(columns):
        expected = (values.values[..., k] if ends else values.values).ravel()
        if expected.dtype.kind in "fiu":
            np.testing.assert_array_equal(table[column].to_numpy(float), expected.astype(float))
        else:
            assert table[column].fillna("").tolist() == [str(value) for value in expected]
    for dim in rows:
        if dim in node.coords and node[dim].dtype.kind in "UO":
            matching = [name for name in table.columns if name == dim]
            assert len(set(table[matching[0]].fillna(""))) <= node.sizes[dim]
    return 1


def test_coordinates_stand_beside_the_numbers() -> None:
    header, *rows = tables(simple_devices.programming_node(0.2, 0.4))["state"]
    assert header[0] == "state"
    assert "r_median [ohm]" in header
    sigma = header.index("sigma")
    assert [(row[0], row[sigma]) for row in rows] == [("lrs", "0.2"), ("hrs", "0.4")]


def test_ends_of_intervals_stand_beside_their_number() -> None:
    header, *rows = tables(simple_devices.stuck_node())[""]
    assert header == ("name", "value", "low", "high", "unit")
    assert ("probability_bound", "", "0.05", "0.2", "1") in rows


def test_text_is_no_formula_and_no_new_row() -> None:
    tree = simple_devices.range_only("=HYPERLINK(1)", stuck=simple_devices.stuck_node())
    tree.attrs["citation"] = 'a "b", c\nd'
    texts = member.contents(tree)
    (first,) = (text for name, text in texts.items() if name == "hyperlink-1.csv")
    assert "name,'=HYPERLINK(1)" in first
    frame = pd.read_csv(__import__("io").StringIO(first), skiprows=1).set_index("name")
    assert frame.loc["citation", "value"] == 'a "b", c\nd'
