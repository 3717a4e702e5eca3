"""The pulse response as tables, numbers and figures."""

import numpy as np
import pytest

from calib import device_model
from calib.characteristics import pulse
from calib.fitting.pulse import pulse_node
from tests.contracts.characteristic_contract import check_estimates
from tests.pulse_trains import population, pulses, train


@pytest.fixture(scope="module")
def tree():
    node = pulse_node(population(np.random.default_rng(0), devices=8, write=2e-8, other=1e-8), [])
    return device_model.build({"pulse": node}, name="made up")


@pytest.fixture(scope="module")
def stepped():
    generator = np.random.default_rng(1)
    part = train(generator, steps=20, other=2e-8, reads=4)
    node = pulse_node(pulses([part], [""], ["a"], amplitude=np.linspace(1, 2, 21)[None]), [])
    return device_model.build({"pulse": node}, name="made up")


@pytest.fixture(params=["full", "stepped"])
def any_tree(request, tree, stepped):
    return tree if request.param == "full" else stepped


def test_sections_are_tables_of_text(any_tree):
    sections = pulse.sections(any_tree["pulse"].to_dataset(), any_tree)
    assert [section.title for section in sections][:2] == ["Pulse response", "Pulse response: range and asymmetry"]
    for section in sections:
        assert all(len(row) == len(section.columns) for row in section.rows)
        assert all(isinstance(cell, str) and "nan" not in cell.lower() for row in section.rows for cell in row)


def test_the_tables_say_what_was_found(tree):
    first = pulse.sections(tree["pulse"].to_dataset(), tree)[0]
    rows = {row[0]: row[1:] for row in first.rows}
    assert rows["law"] == ("soft-bounds", "soft-bounds")
    assert rows["trains"] == ("8", "8")
    assert "95 %" in rows["nonlinearity (deviation from linear)"][0]
    assert rows["change per pulse at mid-range"][1].startswith("-")


def test_every_estimate_is_a_number_with_a_sample_size(any_tree):
    check_estimates(pulse.estimates(any_tree["pulse"].to_dataset(), any_tree))


def test_key_numbers(tree, stepped):
    found = pulse.key_numbers(tree["pulse"].to_dataset(), tree)
    assert [label for label, _, _ in found] == ["Pulse nonlinearity", "Number of states"]
    assert pulse.key_numbers(stepped["pulse"].to_dataset(), stepped) == []


def test_figures(tree, stepped):
    found = pulse.figures(tree["pulse"].to_dataset(), tree)
    assert [key for key, _, _ in found] == ["pulse", "pulse-population", "pulse-steps", "pulse-noise"]
    for _, caption, drawing in found:
        assert caption.endswith(".")
        (axes,) = drawing.axes
        assert "(S)" in axes.get_ylabel()
    assert pulse.figures(stepped["pulse"].to_dataset(), stepped) == []


def test_normalised_data_have_no_siemens_on_their_axes():
    part = train(np.random.default_rng(2), start=-1.0, change=2.0, other=0.05)
    node = pulse_node(pulses([part], ["potentiation"], ["a"], unit="1"), [])
    tree = device_model.build({"pulse": node}, name="made up")
    for _, _, drawing in pulse.figures(node, tree):
        assert "(S)" not in drawing.axes[0].get_ylabel()
    texts = [cell for section in pulse.sections(node, tree) for row in section.rows for cell in row]
    assert not any(text.endswith("S") for text in texts)


def test_resampling_keeps_structure_and_signs(any_tree):
    node = any_tree["pulse"].to_dataset()
    generator = np.random.default_rng(3)
    drawn = [pulse.resample(node, generator) for _ in range(60)]
    assert set(drawn[0].variables) == set(node.variables)
    assert all(drawn[0][key].attrs == node[key].attrs for key in node.variables)
    device_model.build({"pulse": drawn[0]}, name="made up")
    assert all(float(part["g_min"]) < float(part["g_max"]) for part in drawn)
    if "nonlinearity" in node:
        values = np.array([part["nonlinearity"].values for part in drawn])
        low, high = node["nonlinearity_bound"].values.T
        assert values.std(axis=0) == pytest.approx((high - low) / 3.92, rel=0.4)
        assert all((part["write_noise"] >= 0).all() for part in drawn)
