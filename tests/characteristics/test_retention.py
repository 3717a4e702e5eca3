"""The presentation of retention: tables, numbers, figures, and draws within the uncertainty."""

import numpy as np
import pytest

from calib import device_model
from calib.characteristics import estimates, retention
from calib.fitting.retention import retention_node
from tests.fitting.traces_made import reads_of

RNG = np.random.default_rng
TIMES = np.concatenate([[0.0], np.geomspace(1, 1e4, 7)])


def node_of(n, temperature=None, seed=0):
    rng = RNG(seed)
    g0 = np.geomspace(5e-6, 5e-5, n)
    nu = 0.02 + 0.005 * rng.standard_normal(n)
    g = g0[:, None] * np.maximum(TIMES, 1.0) ** -nu[:, None] * np.exp(0.005 * rng.standard_normal((n, len(TIMES))))
    labels = {} if temperature is None else {"temperature": temperature}
    return retention_node(reads_of(g, TIMES, **labels), [])


@pytest.fixture(scope="module")
def tree():
    return device_model.build({"retention": node_of(120, np.repeat([300.0, 350.0], 60))}, name="test")


@pytest.fixture(scope="module")
def small():
    return device_model.build({"retention": node_of(2)}, name="test")


@pytest.mark.parametrize("size", ["tree", "small"])
def test_tables_numbers_and_figures(size, request, tmp_path):
    tree = request.getfixturevalue(size)
    part = tree["retention"].to_dataset()
    for section in retention.sections(part, tree):
        assert section.rows
        assert all(len(row) == len(section.columns) for row in section.rows)
        assert not any("nan" in cell for row in section.rows for cell in row)
    found = [item for item in estimates(tree) if item.characteristic == "retention"]
    assert len({item.quantity for item in found}) == len(found)
    assert all(item.n and item.method and item.validity for item in found)
    assert len(retention.key_numbers(part, tree)) == 2
    keys = [key for key, _, _ in retention.figures(part, tree)]
    assert keys == (["drift", "drift-exponent", "relaxation"] if size == "tree" else ["drift"])
    device_model.save(tree, tmp_path / "device.nc")
    assert device_model.open_device(tmp_path / "device.nc").identical(tree)


def test_what_is_extrapolated_is_marked(tree):
    part = tree["retention"].to_dataset()
    (table,) = [s for s in retention.sections(part, tree) if s.title == "Devices outside their conductance"]
    basis = {row[0]: row[-1] for row in table.rows}
    assert basis["10.0 ks"] == "measured"
    assert "extrapolated 3.2e+04 times beyond the last read" in basis["10.0 years"]


def test_the_laws_drawn_are_those_of_the_node(tree):
    part = tree["retention"].to_dataset()
    sigma = retention.broadening("power", np.array([4e-14, 0.25]), np.array([1.0, 16.0]), 1.0)
    assert sigma == pytest.approx([2e-7, 4e-7])
    assert retention.broadening("logarithmic", np.array([1e-14, 3e-14]), np.array([np.e]), 1.0) == pytest.approx(2e-7)
    assert retention.mean_shift("logarithmic", np.array([1e-7, 2e-7]), np.array([np.e])) == pytest.approx(3e-7)
    k = part.sizes["range"] - 1
    law, time = str(part.attrs["broadening_law"]), part["time"].values
    drawn = retention.broadening(law, part["broadening"].values[k], time, time[0])
    assert drawn == pytest.approx(part["sigma"].values[k], rel=0.5)


def test_draws_stay_within_what_is_possible(tree):
    part = tree["retention"].to_dataset()
    rng = RNG(1)
    draws = [retention.resample(part, rng) for _ in range(200)]
    assert all(set(draw.variables) == set(part.variables) and draw.sizes == part.sizes for draw in draws)
    mean = np.array([float(draw["drift_exponent_mean"]) for draw in draws])
    assert mean.std() == pytest.approx(float(part["drift_exponent_mean_stderr"]), rel=0.2)
    std = np.array([float(draw["drift_exponent_std"]) for draw in draws])
    assert (std > 0).all()
    low, high = part["drift_exponent_std_bound"].values
    assert 0.88 <= np.mean((low <= std) & (std <= high)) <= 1
    assert all(((draw["outside"] >= 0) & (draw["outside"] <= 1)).all() for draw in draws)
    assert all((draw["sigma"].values > 0).all() for draw in draws)
    assert part.identical(tree["retention"].to_dataset())


def test_draws_of_two_traces_keep_what_is_not_known(small):
    part = small["retention"].to_dataset()
    drawn = retention.resample(part, RNG(0))
    assert np.isfinite(float(drawn["drift_exponent_mean"]))
    assert np.isnan(float(drawn["drift_exponent_slope"]))
