"""Virtual devices: raw files that calib reads as it reads an instrument's."""

import numpy as np
import pytest
import xarray as xr

import calib
from calib import calibrate, measurement, simulation
from calib.errors import CalibError, ModelError, OptionError
from calib.sweeps import split
from tests import simple_devices
from tests.synthetic import device_nodes, iv_node, reads_node
from tests.synthetic import measurement as measurement_of


@pytest.fixture(scope="module")
def model() -> xr.DataTree:
    return calib.device_model.build(device_nodes(), name="truth")


def positive(tree: xr.DataTree, state: str) -> xr.Dataset:
    node = tree["iv"].to_dataset()
    return node.isel(sweep=np.flatnonzero((node["state"] == state) & (node["polarity"] == "positive")))


def test_a_simulated_measurement_is_one(model):
    found = simulation.simulate(model, devices=6, cycles=2, seed=1)
    from calib import measurement_contract

    measurement_contract.check(found)
    assert found["iv"].attrs["split"] == 1
    assert {"lrs", "hrs"} == set(found["iv"]["state"].values)
    for state in ("lrs", "hrs"):
        assert positive(found, state).sizes["sweep"] == 12


def test_the_same_seed_gives_the_same_currents(model):
    one, again, other = (simulation.simulate(model, 4, 2, seed) for seed in (1, 1, 2))
    xr.testing.assert_identical(one, again)
    assert not np.array_equal(one["iv"]["current"].values, other["iv"]["current"].values, equal_nan=True)


def test_without_noise_the_curves_are_those_of_the_drawn_resistances(model):
    loops = simulation.simulate_loops(model, 8, 2, 3, noise=0.0)
    at = int(np.argmin(np.abs(loops.voltage - 0.1)))
    voltage = loops.voltage[at]
    model_at = simulation.simulate_loops(model, 8, 2, 3, noise=0.0, points=50)  # 0.1 V is one of its points
    index = int(np.flatnonzero(np.isclose(model_at.voltage, 0.1))[0])
    ln_r = np.log(0.1 / model_at.current[..., index])
    assert ln_r == pytest.approx(model_at.ln_r["hrs"], abs=1e-9)
    assert voltage > 0


@pytest.mark.parametrize("layout", simulation.LAYOUTS)
def test_a_written_file_is_read_as_it_was_simulated(model, tmp_path, layout):
    path = simulation.simulate_file(model, tmp_path / "raw.csv", layout, 5, 3, 4, noise=0.01)
    direct, read = simulation.simulate(model, 5, 3, 4, noise=0.01), calib.read(path)
    for name in ("state", "device", "polarity", "direction"):
        np.testing.assert_array_equal(read["iv"][name].values, direct["iv"][name].values)
    np.testing.assert_allclose(read["iv"]["current"].values, direct["iv"]["current"].values, rtol=1e-8, atol=1e-18)
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw.csv"]  # nothing temporary is left


def test_stuck_devices_do_not_open_a_loop(model):
    loops = simulation.simulate_loops(model, 60, 1, 5, noise=0.0)
    dead = np.flatnonzero(np.isfinite(loops.stuck))
    assert 1 <= len(dead) <= 15
    up, down = (np.flatnonzero(np.isclose(loops.voltage, 0.25))[k] for k in (0, 1))
    ratio = loops.current[:, 0, down] / loops.current[:, 0, up]
    assert ratio[dead] == pytest.approx(1, abs=0.3)  # the same resistance; its law is drawn anew in each state
    assert np.delete(ratio, dead).min() > 2


def test_noise_floor_and_compliance_are_in_the_data(model):
    found = simulation.simulate(model, 10, 2, 6, noise_floor=1e-8, compliance=5e-5)
    flags = " ".join(found["iv"]["flag"].attrs["flag_meanings"].split())
    assert "compliance" in flags
    masks = dict(zip(flags.split(), found["iv"]["flag"].attrs["flag_masks"], strict=True))
    assert (found["iv"]["flag"].values & masks["compliance"]).any()
    assert (found["iv"]["flag"].values & masks["below_floor"]).any()
    assert np.nanmax(np.abs(found["iv"]["current"].values)) < 5.1e-5


def test_the_negative_branch_of_a_model_is_simulated_there(model):
    turned = model.copy(deep=True)
    turned["iv"].attrs |= {"polarity": "negative", "reference_voltage": -0.1}
    found = simulation.simulate(turned, 6, 3, 1, noise=0.01)
    refitted = calibrate.fit(found, reference_voltage=-0.1, v_max=0.5, iv_model="poole-frenkel")
    centres = refitted["iv"]["ln_r_mean"].sel(state=["lrs", "hrs"]).values
    assert centres == pytest.approx(model["iv"]["ln_r_mean"].values, abs=0.6)


def test_a_model_of_one_state_gives_plain_sweeps():
    node = iv_node({"all": calib_state()}, devices=8, cycles=1, ohmic=True)
    node = node.assign_coords(state=("sweep", np.full(node.sizes["sweep"], "")))
    fitted = calibrate.fit(measurement_of(iv=node), iv_model="ohmic")
    found = simulation.simulate(fitted, 10, 1, 0)
    again = calibrate.fit(found, iv_model="ohmic")
    assert float(again["iv"]["ln_r_mean"][0]) == pytest.approx(float(fitted["iv"]["ln_r_mean"][0]), abs=0.4)


def calib_state():
    from tests.synthetic import LRS

    return LRS


def test_a_model_of_reads_is_simulated_as_reads(tmp_path):
    rng = np.random.default_rng(0)
    high, low = (np.exp(-rng.normal(centre, 0.2, (30, 4))) for centre in (9.0, 12.0))
    reads = reads_node(
        np.concatenate([high, low]), device=np.array([f"d{k}" for k in range(30)] * 2),
        state=np.repeat(["lrs", "hrs"], 30),
    )  # fmt: skip
    fitted = calibrate.fit(measurement_of(reads=reads))
    found = simulation.simulate(fitted, 40, 3, 1)
    assert found["reads"].sizes["trace"] == 240
    path = simulation.simulate_file(fitted, tmp_path / "reads.csv", devices=40, cycles=3, seed=1)
    read = calib.read(path)
    assert read["reads"]["conductance"].size == 240
    again = calibrate.fit(read)
    assert again["programming"]["sigma"].values == pytest.approx(fitted["programming"]["sigma"].values, rel=0.3)


def test_nothing_to_simulate_from():
    with pytest.raises(ModelError, match="neither an I-V law nor a programming spread"):
        simulation.simulate(simple_devices.range_only())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "devices is 0; expected at least 1"),
        ({"noise": -1.0}, "noise is -1.0; expected a positive number"),
        ({"points": 2}, "points is 2; expected 4 or more"),
        ({"noize": 1.0}, "there is no option 'noize'"),
    ],
)
def test_options_out_of_range(model, options, message):
    with pytest.raises(OptionError, match=message):
        simulation.simulate(model, **options)


def test_layout_and_place(model, tmp_path):
    with pytest.raises(OptionError, match="there is no layout 'xls'"):
        simulation.simulate_file(model, tmp_path / "raw.csv", "xls", 2, 1)
    with pytest.raises(CalibError, match="cannot write"):
        simulation.simulate_file(model, tmp_path, "table", 2, 1)
    assert split(measurement.build({}, ())).children == {}
