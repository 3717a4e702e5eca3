"""What every characteristic's presentation must hold to, over every bundled model that has the node."""

import numpy as np
import pytest
import xarray as xr

from calib import characteristics, data_folder, device_model
from tests.contracts.characteristic_contract import check_estimates

TREES = {name: device_model.open_device(name) for name in data_folder.bundled_model_names()}
CASES = [
    pytest.param(member, tree, id=f"{member.node}-{name}")
    for name, tree in TREES.items()
    for member in characteristics.members(tree)
]


def node_of(member, tree: xr.DataTree) -> xr.Dataset:
    return tree[member.node].to_dataset()


def test_every_member_is_tried():
    shown = {case.values[0].name for case in CASES}
    known = set(characteristics.plugins.names("calib.characteristics"))
    assert known - shown == {"activation"}  # no published measurement here has several temperatures


@pytest.mark.parametrize(("member", "tree"), CASES)
def test_sections_are_tables_of_text(member, tree):
    found = member.sections(node_of(member, tree), tree)
    assert found
    for section in found:
        assert section.title
        for cells in section.rows:
            assert len(cells) == len(section.columns)
            assert all(isinstance(cell, str) and "nan" not in cell.lower().split() for cell in cells)


@pytest.mark.parametrize(("member", "tree"), CASES)
def test_every_estimate_is_a_number_inside_its_interval_with_a_sample_size(member, tree):
    check_estimates(member.estimates(node_of(member, tree), tree))


@pytest.mark.parametrize(("member", "tree"), CASES)
def test_key_numbers_are_few_and_are_text(member, tree):
    found = member.key_numbers(node_of(member, tree), tree)
    assert len(found) <= 2
    assert all(len(row) == 3 and all(isinstance(cell, str) for cell in row) for row in found)


@pytest.mark.parametrize(("member", "tree"), CASES)
def test_uncertainties_that_are_not_known_are_not_shown(member, tree):
    node = node_of(member, tree)
    uncertain = [key for key in node if str(key).endswith(("_bound", "_stderr")) and node[key].dtype.kind == "f"]
    node = node.assign({key: node[key].copy(data=np.full(node[key].shape, np.nan)) for key in uncertain})
    texts = [cell for row in member.key_numbers(node, tree) for cell in row]
    texts += [cell for section in member.sections(node, tree) for row in section.rows for cell in row]
    assert not any("nan" in text.lower().split() for text in texts)
    assert not any(np.isinf([item.low, item.high]).any() for item in member.estimates(node, tree))


@pytest.mark.parametrize(("member", "tree"), CASES)
def test_a_draw_is_a_node_of_the_same_form_and_the_same_for_a_seed(member, tree):
    node = node_of(member, tree)
    first, again, other = (member.resample(node, np.random.default_rng(seed)) for seed in (0, 0, 1))
    xr.testing.assert_identical(first, again)
    assert set(first.variables) == set(node.variables)
    assert {key: first[key].dims for key in first} == {key: node[key].dims for key in node}
    nodes = {str(key): child.to_dataset() for key, child in tree.children.items()}
    for drawn in (first, other):
        device_model.build({**nodes, member.node: drawn}, name="a draw")
