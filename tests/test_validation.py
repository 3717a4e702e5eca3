"""Predictive coverage: a right model covers as a perfect one would, a wrong one does not."""

import numpy as np
import pytest
import xarray as xr

from calib import calibrate, device_model, validation
from calib.errors import FitError, OptionError
from tests.synthetic import iv_node, measurement

DEVICES = 60


@pytest.fixture(scope="module")
def node() -> xr.Dataset:
    return iv_node(devices=DEVICES, cycles=1)


@pytest.fixture(scope="module")
def model(node) -> xr.DataTree:
    return calibrate.fit(measurement(iv=node), v_max=0.5)


def test_new_devices_of_the_same_population_are_covered(model):
    """The mean coverage over twenty sets of new devices, whose standard deviation is known from the interval."""
    covered = []
    for seed in range(20):
        found = validation.validation_node(model, iv_node(devices=DEVICES, cycles=1, seed=100 + seed))
        covered.append(float(found["coverage"].sel(level=0.9)))
    low, high = found["coverage_bound"].sel(level=0.9).values
    assert low < 0.9 < high
    # the model itself is known from 60 devices only, so the mean may be off by as much as one set's spread
    assert np.mean(covered) == pytest.approx(0.9, abs=(high - low) / 2)


def test_devices_of_another_population_are_not_covered(model, node):
    other = node.assign(current=node["current"] * 5)
    found = validation.validation_node(model, other)
    assert float(found["coverage"].sel(level=0.9)) < float(found["coverage_bound"].sel(level=0.9, bound="low"))
    assert "less than a perfect model's" in found.attrs["verdict"]


def test_a_model_that_is_too_wide_is_said_to_be(model, node):
    wide = model.copy(deep=True)
    iv = wide["iv"].to_dataset()
    centre = iv["ln_r_mean"]
    wide["iv"] = xr.DataTree(iv.assign(ln_r_quantile=centre + 4 * (iv["ln_r_quantile"] - centre)))
    assert "more than a perfect model's" in validation.validation_node(wide, node).attrs["verdict"]


def test_few_devices_give_a_wide_interval(model, node):
    few = node.isel(sweep=np.flatnonzero(np.isin(node["device"].values, np.unique(node["device"].values)[:6])))
    wide = validation.validation_node(model, few)["coverage_bound"].sel(level=0.9).values
    narrow = validation.validation_node(model, node)["coverage_bound"].sel(level=0.9).values
    assert np.ptp(wide) > 2 * np.ptp(narrow)  # 6 against 60 devices: a factor of sqrt(10)


def test_nothing_to_validate_with(model, node):
    one = node.isel(sweep=np.flatnonzero(node["device"].values == node["device"].values[0]))
    with pytest.raises(FitError, match="no state has 4 devices"):
        validation.validation_node(model, one)


def test_holdout_splits_by_device_and_stores_the_result(node, tmp_path):
    whole = measurement(iv=node)
    model = calibrate.fit(whole, v_max=0.5, holdout=0.5)
    assert model["iv"]["n_devices"].values.max() <= DEVICES / 2
    assert model["validation"]["n_devices"].values.tolist() == [DEVICES / 2] * 2
    assert "held out for validation" in model.attrs["warnings"]
    device_model.save(model, tmp_path / "device.nc")
    xr.testing.assert_identical(device_model.open_device(tmp_path / "device.nc"), model)
    kept, held = validation.split_devices(node, 0.5)
    devices = node["device"].values
    assert not set(devices[kept]) & set(devices[held])
    assert (kept ^ held).all()


def test_one_device_is_split_by_cycle():
    kept, held = validation.split_devices(iv_node(devices=1, cycles=10), 0.4)
    assert kept.sum() == held.sum() * 6 / 4


@pytest.mark.parametrize("fraction", [0.01, 0.99])
def test_too_few_devices_to_hold_out(node, fraction):
    with pytest.raises(FitError, match=r"expected at least 4 of each"):
        calibrate.fit(measurement(iv=node), holdout=fraction)


def test_a_fraction_that_is_none(node):
    with pytest.raises(OptionError, match="--holdout is 1"):
        calibrate.fit(measurement(iv=node), holdout=1.0)
