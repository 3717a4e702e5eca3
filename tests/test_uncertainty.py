"""Uncertainty of the device model carried to error and energy."""

import json

import numpy as np
import pytest
import xarray as xr

from calib import cli, device_model, uncertainty
from calib.errors import OptionError
from calib.runs import Run
from calib.sampling import sample_model
from calib.uncertainty import devices_measured, drawn_names, more_devices, only, shrunk
from tests.simple_devices import blobs, range_only, stuck_node, trained

DATA = blobs(features=6)


pytestmark = pytest.mark.usefixtures("one_thread")


def stuck_at_off(n_devices: int, share: float = 0.1) -> xr.DataTree:
    """Return devices of which a share, found with `n_devices` of them, is stuck at one conductance."""
    node = stuck_node(share, (5e-7,), 1e-12).assign(n_devices=n_devices, n_stuck=round(share * n_devices))
    return range_only(stuck=node)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return trained(
        tmp_path_factory.mktemp("runs"), stuck_at_off(100), DATA, layers=(6, 4, 3), epochs=15, batch_size=16,
        learning_rate=0.03, validation_repeats=2,
    )  # fmt: skip


def energy_std(result: xr.Dataset, component: str) -> float:
    return float(np.sqrt(result["variance"].sel(quantity="energy_per_inference", component=component)))


@pytest.fixture(scope="module")
def few(run: Run) -> xr.Dataset:
    """Twelve measured devices, of which three are stuck."""
    return uncertainty.uncertainty(run, stuck_at_off(12, 0.25), models=30, chips=5, data=DATA, check=True)


def test_the_spread_of_the_model_is_that_of_the_stuck_probability(run: Run, few: xr.Dataset) -> None:
    """Energy is linear in the stuck probability p: std = |dE/dp| std(p), p ~ beta(k + 1/2, n - k + 1/2)."""
    ends = [
        float(
            uncertainty.uncertainty(run, stuck_at_off(10**6, p), models=2, chips=150, data=DATA)[
                "energy_per_inference"
            ].mean()
        )
        for p in (0.15, 0.35)
    ]
    mean = 3.5 / 13
    expected = abs(ends[1] - ends[0]) / 0.2 * np.sqrt(mean * (1 - mean) / 14)
    cell = few.sel(quantity="energy_per_inference", component="model")
    assert np.sqrt(float(cell["variance_low"])) < expected < np.sqrt(float(cell["variance_high"]))
    assert energy_std(few, "model") == pytest.approx(expected, rel=0.4)  # 30 draws: 13 % standard error
    assert few["error"].dims == ("network", "model", "chip")
    assert more_devices(few) == {"stuck": 36}
    assert more_devices(few, 2**0.5) == {"stuck": 12}


def test_four_times_the_devices_halve_it(run: Run, few: xr.Dataset) -> None:
    many = uncertainty.uncertainty(run, stuck_at_off(48, 0.25), models=30, chips=5, data=DATA)
    assert energy_std(many, "model") / energy_std(few, "model") == pytest.approx(0.52, rel=0.4)  # 30 draws each: 18 %
    assert float(few["check_ratio"].sel(quantity="energy_per_inference")) == pytest.approx(0.5, rel=0.15)


def test_the_same_seed_gives_the_same_numbers_and_others_do_not(run: Run) -> None:
    first, again = (uncertainty.uncertainty(run, models=2, chips=2, data=DATA, seed=3) for _ in range(2))
    xr.testing.assert_identical(first, again)
    other = uncertainty.uncertainty(run, models=2, chips=2, data=DATA, seed=4)
    assert not np.allclose(first["energy_per_inference"], other["energy_per_inference"], atol=0)
    values = first["energy_per_inference"].values.ravel()
    assert len(np.unique(values)) == values.size  # every cell has chips of its own


def test_draws_brought_closer_and_single_nodes() -> None:
    tree = device_model.open_device("ddas04-rram")
    draw = sample_model(tree, 7)
    assert drawn_names(tree, [draw]) == ["iv", "conductance", "programming", "stuck"]
    xr.testing.assert_allclose(shrunk(tree, draw, 1.0), draw)
    half = shrunk(tree, draw, 4.0)
    start, end, middle = (float(each["stuck"].to_dataset()["probability"]) for each in (tree, draw, half))
    assert middle == pytest.approx((start + end) / 2)
    covariance = half["iv"].to_dataset()["covariance"].values
    assert np.linalg.eigvalsh(covariance).min() > -1e-9 * np.abs(covariance).max()
    assert (np.diff(half["iv"].to_dataset()["ln_r_quantile"].values) >= 0).all()
    single = only(tree, draw, "stuck")
    assert single["stuck"].to_dataset().equals(draw["stuck"].to_dataset())
    assert single["iv"].to_dataset().equals(tree["iv"].to_dataset())
    assert devices_measured(tree, ["stuck", "iv"]) == {"stuck": 100, "iv": 90}


def test_where_no_device_is_stuck_the_probability_is_held() -> None:
    tree = device_model.open_device("xiao2025-multilevel")
    draw = uncertainty.drawn_model(tree, 1)
    assert "stuck" not in drawn_names(tree, [draw])
    assert "stuck/probability: no stuck device was measured" in json.loads(draw.attrs["draw"])["not_drawn"]
    assert not draw["iv"].to_dataset().equals(tree["iv"].to_dataset())


def test_characteristics_and_the_command(run: Run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Run, "data", lambda *_: DATA)
    device_model.save(stuck_at_off(30), tmp_path / "device.nc")
    words = ["uncertainty", str(run.path), "--device", str(tmp_path / "device.nc"), "--models", "3", "--chips", "2"]
    assert cli.main([*words, "--characteristics", "--check", "--json", "-o", str(tmp_path / "u.nc")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["drawn"] == ["stuck"]
    assert {row["component"] for row in found["split"]} == {"chip", "network", "model", "interaction"}
    by_all = next(r for r in found["split"] if (r["quantity"], r["component"]) == ("energy_per_inference", "model"))
    alone = next(r for r in found["characteristics"] if r["quantity"] == "energy_per_inference")
    assert alone["std"] == pytest.approx(by_all["std"])  # one characteristic is drawn: both are the same chips
    assert sum(r["share"] for r in found["split"] if r["quantity"] == "error") == pytest.approx(1)
    assert xr.open_dataset(tmp_path / "u.nc", engine="h5netcdf").attrs["schema"] == uncertainty.SCHEMA
    assert cli.main(words) == 0
    assert "90 more (now 30)" in capsys.readouterr().out


def test_what_cannot_be_done(run: Run) -> None:
    with pytest.raises(OptionError, match="1 device models"):
        uncertainty.uncertainty(run, models=1, data=DATA)
    with pytest.raises(OptionError, match="nothing can be drawn"):
        uncertainty.uncertainty(run, range_only(), data=DATA)
    with pytest.raises(OptionError, match="'ideal'"):
        uncertainty.uncertainty(run, "ideal", data=DATA)
    with pytest.raises(OptionError, match="no run was given"):
        uncertainty.uncertainty([], data=DATA)
