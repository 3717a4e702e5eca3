"""The presentation of read noise: tables, numbers, figures, and draws within the uncertainty."""

import numpy as np
import pytest

from calib import device_model
from calib.characteristics import estimates, read_noise
from calib.fitting.read_noise import read_noise_node
from tests.fitting.traces_made import coloured, reads_of, switching

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def tree():
    rng = RNG(0)
    g = np.geomspace(1e-6, 1e-4, 10)
    rows = [value * (1 + 0.01 * (0.3 * coloured(512, 1.0, rng) + rng.standard_normal(512))) for value in g]
    rows[0] += 0.05 * g[0] * switching(512, 10, 20, rng)
    rows[4] += 0.04 * g[4] * switching(512, 20, 10, rng)
    return device_model.build({"read_noise": read_noise_node(reads_of(rows, 0.1 * np.arange(512)), [])}, name="test")


@pytest.fixture(scope="module")
def short():
    node = read_noise_node(reads_of(1e-5 * (1 + 0.01 * RNG(1).standard_normal((1, 15)))), [])
    return device_model.build({"read_noise": node}, name="test")


@pytest.mark.parametrize("size", ["tree", "short"])
def test_tables_numbers_and_figures(size, request, tmp_path):
    tree = request.getfixturevalue(size)
    part = tree["read_noise"].to_dataset()
    titles = []
    for section in read_noise.sections(part, tree):
        titles.append(section.title)
        assert all(len(row) == len(section.columns) for row in section.rows)
        assert not any("nan" in cell for row in section.rows for cell in row)
    found = [item for item in estimates(tree) if item.characteristic == "read_noise"]
    assert len({item.quantity for item in found}) == len(found)
    assert all(item.n and item.method and item.validity for item in found)
    keys = [key for key, _, _ in read_noise.figures(part, tree)]
    if size == "tree":
        assert titles == ["Read noise", "Telegraph noise", "Noise spectrum"]
        assert keys == ["read-noise", "telegraph", "noise-spectrum"]
        assert len(read_noise.key_numbers(part, tree)) == 2
    else:
        assert titles == ["Read noise"]
        assert keys == []
        assert len(read_noise.key_numbers(part, tree)) == 1
    device_model.save(tree, tmp_path / "device.nc")
    assert device_model.open_device(tmp_path / "device.nc").identical(tree)


def test_the_telegraph_traces_are_the_two_that_switch(tree):
    part = tree["read_noise"].to_dataset()
    assert set(part["telegraph_device"].values) == {"d0", "d4"}
    (table,) = [s for s in read_noise.sections(part, tree) if s.title == "Telegraph noise"]
    assert ("traces that show it", "2 of 10") in table.rows


def test_draws_stay_within_what_is_possible(tree):
    part = tree["read_noise"].to_dataset()
    rng = RNG(2)
    draws = [read_noise.resample(part, rng) for _ in range(300)]
    assert all(set(draw.variables) == set(part.variables) and draw.sizes == part.sizes for draw in draws)
    level = np.array([float(draw["ln_noise"]) for draw in draws])
    assert level.std() == pytest.approx(float(part["ln_noise_stderr"]), rel=0.15)
    share = np.array([float(draw["telegraph_probability"]) for draw in draws])
    assert ((share > 0) & (share < 1)).all()
    assert share.mean() == pytest.approx(2.5 / 11, abs=0.03)  # beta distribution of 2 of 10
    assert all(float(draw["noise_spread"]) >= 0 for draw in draws)
    assert part.identical(tree["read_noise"].to_dataset())


def test_draws_of_one_trace_keep_what_is_not_known(short):
    drawn = read_noise.resample(short["read_noise"].to_dataset(), RNG(0))
    assert np.isnan(float(drawn["noise_exponent"]))
    assert np.isfinite(float(drawn["ln_noise"]))
