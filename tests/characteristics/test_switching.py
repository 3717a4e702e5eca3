"""The presentation of switching voltages, endurance, yield and maps."""

import numpy as np
import pytest

from calib import device_model, maps
from calib.characteristics import estimates, switching
from calib.fitting.switching import switching_node
from tests.fitting.loops_made import loops_of
from tests.fitting.test_switching import cycled_reads

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def tree():
    row, column = np.divmod(np.arange(36), 6)
    node = switching_node(loops_of(36, 4, row=row, column=column), [])
    assert node is not None
    return device_model.build({"switching": node}, name="test")


@pytest.fixture(scope="module")
def read_tree():
    node = switching_node(None, [], reads=cycled_reads())
    assert node is not None
    return device_model.build({"switching": node}, name="test")


def test_the_node_survives_the_file(tree, tmp_path):
    device_model.save(tree, tmp_path / "device.nc")
    again = device_model.open_device(tmp_path / "device.nc")
    assert again.identical(tree)
    assert device_model.identity(again) == device_model.identity(tree)


def test_tables_have_all_cells(tree, read_tree):
    for model in (tree, read_tree):
        found = switching.sections(model["switching"].to_dataset(), model)
        assert all(len(row) == len(section.columns) for section in found for row in section.rows)
        titles = [section.title for section in found]
        assert {"Yield", "Endurance"} <= set(titles)
        assert ("Switching voltages" in titles) == (model is tree)
    assert "Rows and columns" in [section.title for section in switching.sections(tree["switching"].to_dataset(), tree)]


def test_every_number_has_its_interval_and_sample(tree):
    found = [item for item in estimates(tree) if item.characteristic == "switching"]
    assert len({(item.state, item.quantity) for item in found}) == len(found) > 15
    for item in found:
        assert item.n
        assert item.low <= item.value <= item.high, item
    assert {item.unit for item in found} == {"V", "1"}


def test_key_numbers(tree, read_tree):
    (voltage, text, states), (label, share, interval) = switching.key_numbers(tree["switching"].to_dataset(), tree)
    assert (voltage, states) == ("Switching voltage, median", "set / reset")
    assert text.count("V") == 2
    assert (label, share) == ("Devices that switch", "100 %")
    assert "to 100 %" in interval
    assert len(switching.key_numbers(read_tree["switching"].to_dataset(), read_tree)) == 1


def test_figures(tree, read_tree):
    drawn = switching.figures(tree["switching"].to_dataset(), tree)
    keys = [key for key, _, _ in drawn]
    assert keys[:2] == ["switching-voltages", "endurance"]
    assert {"map-v-set", "map-ln-r-hrs"} <= set(keys)
    axes = drawn[0][2].axes[0]
    assert axes.get_xlabel().endswith("(V)")
    assert len(axes.lines) == 6  # points and two laws, of two operations
    assert [key for key, _, _ in switching.figures(read_tree["switching"].to_dataset(), read_tree)] == ["endurance"]


def test_a_map_shows_every_device_at_its_place():
    table = maps.grid(np.array([0, 1, 1]), np.array([0, 0, 1]), np.array([1e3, 1e4, 1e5]))
    drawing = maps.map_figure(table, "resistance (Ω)", logarithmic=True)
    (image,) = drawing.axes[0].images
    assert image.get_array().shape == (2, 2)
    assert np.ma.masked_invalid(image.get_array()).mask.sum() == 1
    assert maps.map_figure(table * 0 + 1, "all alike").axes[0].get_ylabel() == "row"
    assert maps.map_figure(table - 1e4, "difference", centred=True).axes[1].get_ylabel() == "difference"


def test_resampling_keeps_the_structure_and_spreads_as_the_intervals_say(tree):
    node = tree["switching"].to_dataset()
    drawn = [switching.resample(node, RNG(seed)) for seed in range(200)]
    assert all(set(item.variables) == set(node.variables) for item in drawn[:3])
    means = np.array([float(item["normal_mean"][0]) for item in drawn])
    low, high = node["normal_mean_bound"].values[0]
    assert ((means > low) & (means < high)).mean() == pytest.approx(0.95, abs=0.05)
    assert min(float(item["weibull_shape"].min()) for item in drawn) > 0
    yields = np.array([float(item["yield_switched"]) for item in drawn])
    assert 0.8 < yields.min() <= yields.max() <= 1
    xs = drawn[0]["voltage_quantile"].values
    assert (np.diff(xs, axis=1) >= 0).all()
    assert node["normal_mean"].values[0] == tree["switching"]["normal_mean"].values[0]


def test_reads_can_be_resampled(read_tree):
    node = read_tree["switching"].to_dataset()
    assert set(switching.resample(node, RNG(0)).variables) == set(node.variables)
