"""Write outcomes as tables, numbers and figures."""

import numpy as np
import pytest

from calib import device_model, measurement
from calib.characteristics import writes as member
from calib.fitting.writes import writes_node
from tests.contracts.characteristic_contract import check_estimates
from tests.pulse_trains import writes


@pytest.fixture(scope="module")
def tree():
    return device_model.build({"writes": writes_node(writes(np.random.default_rng(0)), [])}, name="made up")


@pytest.fixture(scope="module")
def small():
    variables = {"target_low": [1e-6, 1e-6], "target_high": [2e-6, 2e-6], "achieved": [1.5e-6, 3e-6]}
    arrays = {key: np.array(value) for key, value in variables.items()}
    node = writes_node(measurement.writes_node(arrays, {"device": ["a", "b"], "cycle": [0, 0]}), [])
    return device_model.build({"writes": node}, name="made up")


@pytest.fixture(params=["many", "two"])
def any_tree(request, tree, small):
    return tree if request.param == "many" else small


def test_sections_are_tables_of_text(any_tree):
    sections = member.sections(any_tree["writes"].to_dataset(), any_tree)
    assert sections[0].title == "Writes"
    assert sections[-1].title == "Devices that were written"
    for section in sections:
        assert all(len(row) == len(section.columns) for row in section.rows)
        assert all(isinstance(cell, str) and "nan" not in cell.lower() for row in section.rows for cell in row)


def test_open_ranges_are_said_in_words(tree):
    rows = member.sections(tree["writes"].to_dataset(), tree)[0].rows
    assert [row[0] for row in rows] == ["under 10.0 uS", "40.0 to 50.0 uS", "80.0 to 90.0 uS", "over 120 uS"]


def test_every_estimate_is_a_number_with_a_sample_size(any_tree):
    check_estimates(member.estimates(any_tree["writes"].to_dataset(), any_tree))


def test_key_numbers(tree, small):
    labels = [label for label, _, _ in member.key_numbers(tree["writes"].to_dataset(), tree)]
    assert labels == ["Successful writes", "Devices that never switched"]
    assert [value for _, value, _ in member.key_numbers(small["writes"].to_dataset(), small)] == ["50.0 %"]


def test_figures(any_tree):
    node = any_tree["writes"].to_dataset()
    found = member.figures(node, any_tree)
    assert [key for key, _, _ in found][:2] == ["writes-achieved", "writes-success"]
    assert ("effort" in node) == (len(found) == 3)
    for _, caption, drawing in found:
        assert caption.endswith(".")
        assert drawing.axes[0].get_xlabel() == "target range"


def test_resampling_keeps_structure_and_bounds(any_tree):
    node = any_tree["writes"].to_dataset()
    generator = np.random.default_rng(1)
    drawn = [member.resample(node, generator) for _ in range(80)]
    assert set(drawn[0].variables) == set(node.variables)
    assert all(drawn[0][key].attrs == node[key].attrs for key in node.variables)
    device_model.build({"writes": drawn[0]}, name="made up")
    for part in drawn:
        assert ((part["success_probability"] >= 0) & (part["success_probability"] <= 1)).all()
        assert not (part["sigma"] < 0).any()
    if node.sizes["target"] > 1:
        values = np.array([part["success_probability"].values for part in drawn])
        low, high = node["success_probability_bound"].values.T
        inside = ((values > low) & (values < high)).mean(axis=0)
        assert (inside > 0.82).all()
        assert np.std([part["sigma"].values for part in drawn], axis=0) == pytest.approx(
            node["sigma_stderr"].values, rel=0.35
        )
