"""Fits of real measurements: what the model predicts is what was measured."""

import numpy as np
import pytest
import xarray as xr

import calib
from calib import calibrate, validation
from calib.cli import main
from calib.fitting.conductance import read_at
from calib.iv_models import iv_model
from calib.sampling import sample_devices

QUANTILES = (0.05, 0.5, 0.95)


@pytest.fixture(scope="module")
def ddas(measurements):
    return calib.read(measurements / "ddas04-rram" / "100devices.xlsx")


@pytest.fixture(scope="module")
def ddas_devices(ddas):
    return calib.fit(ddas, population="devices")


def bootstrap(values: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(0)
    draws = [np.quantile(rng.choice(values, len(values)), QUANTILES) for _ in range(4000)]
    return np.quantile(draws, [0.025, 0.975], axis=0)


def test_the_two_sheets_are_two_populations(ddas):
    assert calibrate.populations(ddas) == ["devices", "100cycles"]
    with pytest.raises(calib.CalibError, match="2 populations that are not pooled"):
        calib.fit(ddas)


def test_quantiles_sampled_from_the_model_are_those_that_were_measured(ddas, ddas_devices):
    iv = ddas["iv"].to_dataset()
    rows = (iv["population"] == "devices") & (iv["polarity"] == "positive") & (iv["direction"] == "down")
    down = iv.isel(sweep=np.flatnonzero(rows.values))
    measured = {voltage: read_at(down, voltage)[0] for voltage in (0.2, 0.3, 0.4)}
    assert all(np.isfinite(values).sum() == 100 for values in measured.values())
    ln_r, parameters = sample_devices(ddas_devices, "lrs", 400_000, seed=1)
    law = iv_model("poole-frenkel")
    drawn = {v: law.current(np.full(len(ln_r), v), xp=np, **parameters) / v for v in measured}
    for of_measured, of_drawn, published in (
        (2 * measured[0.4] / measured[0.2], 2 * drawn[0.4] / drawn[0.2], (2.29, 3.06, 3.74)),
        (measured[0.3], drawn[0.3], (1.46e-6, 7.81e-6, 2.58e-5)),
    ):
        assert np.quantile(of_measured, QUANTILES) == pytest.approx(published, rel=5e-3)
        low, high = bootstrap(of_measured)
        found = np.quantile(of_drawn, QUANTILES)
        assert (low < found).all()
        assert (found < high).all()


def test_the_device_that_was_cycled_has_no_device_to_device_spread(ddas):
    model = calib.fit(ddas, population="100cycles")
    node = model["programming"].to_dataset()
    assert np.isnan(node["sigma_d2d"]).all()
    assert (node["sigma_c2c"] > 0).all()
    assert "stuck" not in model.children
    assert "temperature" not in model["iv"].attrs  # the file states two


def test_the_conductances_of_xiao_are_found(measurements):
    model = calib.fit(calib.read(measurements / "xiao2025-multilevel" / "uniformity-data.xlsx"))
    node = model["conductance"].to_dataset()
    read = node.sel(read_voltage=-0.506, method="nearest")
    assert read["n"].values.tolist() == [151, 151]
    assert float(read["minimum"].sel(state="lrs")) == pytest.approx(1.3e-4, rel=0.05)
    assert float(read["maximum"].sel(state="lrs")) == pytest.approx(7.9e-4, rel=0.05)
    assert float(read["minimum"].sel(state="hrs")) == pytest.approx(9e-12, rel=0.05)
    assert float(read["maximum"].sel(state="hrs")) == pytest.approx(4.8e-8, rel=0.05)
    assert int(read["n_censored"].sel(state="hrs")) > 0
    assert int(model["programming"]["n_devices"].sel(state="lrs")) == 25
    assert model["iv"]["state"].values.tolist() == ["lrs", "hrs"]  # the files' two voltage grids are one
    assert model["iv"]["n_devices"].values[0] == 25


def test_no_nonlinearity_is_invented(measurements):
    measurement = calib.read(
        measurements / "radway-1t1r" / "read_multivolt.tsv", columns="device=0,current=1,voltage=2"
    )
    model = calib.fit(measurement)
    assert model["iv"].attrs["iv_model"] == "ohmic"
    assert model["iv"]["n_devices"].item() >= 1023  # one cell hardly conducts, and its status says so
    assert np.nanmedian(model["iv"]["curve_offset"]) == pytest.approx(0, abs=2e-7)  # beside the -2 uA that was found


def test_the_command_writes_a_model_for_each_population(measurements, tmp_path, capsys):
    source = str(measurements / "ddas04-rram" / "100devices.xlsx")
    assert main(["fit", source, "-o", str(tmp_path / "ddas.nc")]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ddas-100cycles.nc", "ddas-devices.nc"]
    captured = capsys.readouterr()
    assert "--temperature" in captured.err
    assert main(["show", str(tmp_path / "ddas-devices.nc")]) == 0


def test_predictive_intervals_cover_devices_that_were_not_fitted(ddas):
    """Twenty random halves: the mean coverage lies where a perfect model's would with as many devices."""
    iv = ddas["iv"].to_dataset()
    iv = iv.isel(sweep=np.flatnonzero(iv["population"].values == "devices"))
    found = []
    for seed in range(20):
        kept, held = validation.split_devices(iv, 0.5, seed)
        half = xr.DataTree.from_dict({"/iv": iv.isel(sweep=np.flatnonzero(kept))})
        half.attrs = dict(ddas.attrs)
        model = calib.fit(half, iv_model="poole-frenkel")  # what auto takes; benchmarks/validation.py chooses each time
        found.append(validation.validation_node(model, iv.isel(sweep=np.flatnonzero(held))).sel(level=0.9))
    coverage = np.mean([float(node["coverage"]) for node in found])
    low, high = np.mean([node["coverage_bound"].values for node in found], axis=0)
    assert low < coverage < high
    assert coverage == pytest.approx(0.9, abs=0.02)
