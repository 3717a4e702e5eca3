"""The presentation of levels: tables, numbers, figures, and draws within the uncertainty."""

import numpy as np
import pytest

from calib import device_model
from calib.characteristics import estimates, levels
from calib.fitting.levels import levels_node
from tests.fitting.traces_made import reads_of

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def tree():
    rng = RNG(0)
    means = np.repeat(np.geomspace(1e-6, 3e-5, 6), 10)
    times = np.array([0.0, 1.0, 100.0])
    g = means[:, None] * (1 + 0.05 * (1 + np.log1p(times)) * rng.standard_normal((60, 3)))
    node = levels_node(reads_of(g, times, level=np.repeat([f"L{k}" for k in range(6)], 10)), [])
    return device_model.build({"levels": node}, name="test")


def test_the_node_survives_the_file(tree, tmp_path):
    device_model.save(tree, tmp_path / "device.nc")
    assert device_model.open_device(tmp_path / "device.nc").identical(tree)


def test_tables_have_all_cells(tree):
    part = tree["levels"].to_dataset()
    found = levels.sections(part, tree)
    assert found[0].title == "Levels that can be told apart"
    assert "Levels told apart as time goes by" in [section.title for section in found]
    for section in found:
        assert all(len(row) == len(section.columns) for row in section.rows)
    assert len(found[-1].rows) == 6


def test_every_number_has_its_interval_and_sample(tree):
    found = [item for item in estimates(tree) if item.characteristic == "levels"]
    assert len({(item.state, item.quantity) for item in found}) == len(found) == 3 * 2 + 6 * 2
    assert all(item.n and item.method and item.validity for item in found)
    assert all(item.low <= item.value <= item.high for item in found)


def test_main_numbers(tree):
    label, value, remark = levels.key_numbers(tree["levels"].to_dataset(), tree)[0]
    assert label == "Levels told apart"
    assert int(value) == int(tree["levels"]["n_distinguishable"].sel(error=0.01))
    assert "of 6 at 1.00 % misread" in remark


def test_figures_are_drawn(tree):
    found = levels.figures(tree["levels"].to_dataset(), tree)
    assert [key for key, _, _ in found] == ["levels", "level-spread", "levels-time"]
    assert all(caption.endswith(".") and drawing.axes for _, caption, drawing in found)


def test_draws_stay_within_what_is_possible(tree):
    part = tree["levels"].to_dataset()
    rng = RNG(1)
    draws = [levels.resample(part, rng) for _ in range(60)]
    assert all(set(draw.variables) == set(part.variables) and draw.sizes == part.sizes for draw in draws)
    assert all((draw["std"].values > 0).all() for draw in draws)
    mean = np.array([draw["mean"].values for draw in draws])
    assert mean.std(axis=0) == pytest.approx(part["mean_stderr"].values, rel=0.35)
    assert mean.mean(axis=0) == pytest.approx(part["mean"].values, rel=0.1)
    counts = {int(draw["n_distinguishable"][1]) for draw in draws}
    assert len(counts) > 1
    assert all(int(d["selected"].sel(error=0.01).sum()) == int(d["n_distinguishable"].sel(error=0.01)) for d in draws)
    assert part.identical(tree["levels"].to_dataset())
