"""Virtual devices: raw files that calib reads as it reads an instrument's."""

import numpy as np
import pytest
import xarray as xr

import calib
from calib import calibrate, measurement, simulation
from calib.errors import CalibError, ModelError, OptionError
from calib.fitting.pulse import pulse_node
from calib.sweeps import split
from tests import pulse_trains, simple_devices
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


@pytest.mark.parametrize("layout", [layout.name for layout in simulation.LAYOUTS["sweeps"]])
def test_a_written_file_is_read_as_it_was_simulated(model, tmp_path, layout):
    paths = simulation.simulate_file(model, tmp_path / "raw", layout, 5, 3, 4, noise=0.01)
    direct, read = simulation.simulate(model, 5, 3, 4, noise=0.01), calib.read(paths)
    for name in ("state", "cycle", "polarity", "direction"):
        np.testing.assert_array_equal(read["iv"][name].values, direct["iv"][name].values)
    if layout == "arc-one":  # the instrument names word and bit line
        assert set(read["iv"]["device"].values) == {f"1-{k}" for k in range(1, 6)}
    else:
        np.testing.assert_array_equal(read["iv"]["device"].values, direct["iv"]["device"].values)
    np.testing.assert_allclose(read["iv"]["current"].values, direct["iv"]["current"].values, rtol=2e-8, atol=1e-18)
    one_each = layout in ("keithley-2400", "keysight-quick-iv", "labview")
    assert [entry.name for entry in tmp_path.iterdir()] == ["raw"]  # nothing temporary is left
    assert len(paths) == (5 if one_each else 1)


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
    (path,) = simulation.simulate_file(fitted, tmp_path / "reads.csv", devices=40, cycles=3, seed=1)
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
    with pytest.raises(OptionError, match="there is no layout 'xls' of sweeps; choose one of table"):
        simulation.simulate_file(model, tmp_path / "raw.csv", "xls", 2, 1)
    with pytest.raises(CalibError, match="cannot write"):
        simulation.simulate_file(model, tmp_path, "table", 2, 1)
    (tmp_path / "taken").write_text("")
    with pytest.raises(OptionError, match="is a file; files of the layout 'labview' hold one device each"):
        simulation.simulate_file(model, tmp_path / "taken", "labview", 2, 1)
    simulation.simulate_file(model, tmp_path / "raw", "labview", 3, 1)
    again = simulation.simulate_file(model, tmp_path / "raw", "labview", 3, 1, seed=1)
    assert [path.name for path in again] == ["S1.lvm", "S2.lvm", "S3.lvm"]
    with pytest.raises(OptionError, match=r"raw' holds other files \(S3.lvm\), which would be read as devices"):
        simulation.simulate_file(model, tmp_path / "raw", "labview", 2, 1)
    assert split(measurement.build({}, ())).children == {}


@pytest.mark.parametrize(
    ("experiment", "options", "message"),
    [
        ("pulses", {}, "holds no trains of pulses .node pulse."),
        ("writes", {}, "holds no writes with verification"),
        ("retention", {}, "holds no drift"),
        ("noise", {}, "holds no read noise"),
        ("dance", {}, "there is no experiment 'dance'; choose one of sweeps"),
        ("reads", {"compliance": 1e-3}, "compliance is no option of reads; it has noise"),
        ("sweeps", {"seed": -1}, "seed is -1; expected 0 or more"),
    ],
)
def test_what_cannot_be_simulated_is_one_sentence(model, experiment, options, message):
    with pytest.raises(CalibError, match=message):
        simulation.simulate(model, 2, 1, experiment=experiment, **options)


def test_experiments_are_those_of_the_nodes(model):
    assert simulation.experiments(model)[0] == "sweeps"
    assert simulation.experiments(simple_devices.range_only()) == []
    assert simulation.experiments(calib.open_device("levy-relaxation")) == ["retention"]
    assert set(simulation.LAYOUTS) == set(simulation._NODES)


@pytest.fixture(scope="module")
def pulsed() -> xr.DataTree:
    node = pulse_node(pulse_trains.population(np.random.default_rng(3), 8, write=1e-8, other=4e-9), [])
    assert node is not None
    return calib.device_model.build({"pulse": node}, name="pulsed")


@pytest.mark.parametrize("layout", [layout.name for layout in simulation.LAYOUTS["pulses"]])
def test_trains_are_read_as_they_were_drawn(pulsed, tmp_path, layout):
    paths = simulation.simulate_file(pulsed, tmp_path / "raw", layout, 4, 2, 1)
    direct = simulation.simulate(pulsed, 4, 2, 1)["pulses"].to_dataset()
    read = calib.read(paths)["pulses"].to_dataset()

    def trains(node: xr.Dataset) -> dict[tuple[str, str, int], np.ndarray]:
        keys = zip(node["device"].values, node["polarity"].values, node["cycle"].values, strict=True)
        values = node["conductance"].values[:, :, 0]
        return {(str(d), str(p), int(c)): row[np.isfinite(row)] for (d, p, c), row in zip(keys, values, strict=True)}

    ours, found = trains(direct), trains(read)
    assert found.keys() == ours.keys()
    for key, values in ours.items():
        np.testing.assert_allclose(found[key], values, rtol=1e-9)


def test_normalised_trains_are_written_as_columns_only(tmp_path):
    model = calib.open_device("gong-reram")
    with pytest.raises(OptionError, match="choose --layout columns"):
        simulation.simulate_file(model, tmp_path / "raw.csv", "lines", 1, 1)
    (path,) = simulation.simulate_file(model, tmp_path / "raw.csv", "columns", 1, 1, 3)
    assert calib.read(path)["pulses"]["conductance"].attrs["units"] == "1"


def test_trains_without_noise_are_the_law(pulsed):
    quiet = pulsed.copy(deep=True)
    node = quiet["pulse"].to_dataset()
    still = ("write_noise", "transient_noise", "shape_spread", "shape_d2d", "shape_c2c")
    quiet["pulse"] = node.assign({name: 0 * node[name] for name in still if name in node})
    found = simulation.simulate(quiet, 3, 1, 2)["pulses"].to_dataset()
    for row in range(found.sizes["sequence"]):
        g = found["conductance"].values[row, :, 0]
        here = node.sel(polarity=str(found["polarity"].values[row]))
        x = np.arange(len(g)) / (len(g) - 1)
        k = float(here["shape"])
        f = np.expm1(-k * x) / np.expm1(-k)
        np.testing.assert_allclose((g - g[0]) / (g[-1] - g[0]), f, atol=1e-9)


def test_writes_have_the_model_s_outcomes():
    model = calib.open_device("levy-write-verify")
    truth = model["writes"].to_dataset()
    log = simulation.simulate(model, 4000, 1, 1)["writes"].to_dataset()
    achieved, success = log["achieved"].values, log["success"].values == 1
    for k in range(truth.sizes["target"]):
        low, high = float(truth["target_low"][k]), float(truth["target_high"][k])
        here = (log["target_low"].values == low) & (log["target_high"].values == high)
        p = float(truth["success_probability"][k])
        assert success[here].mean() == pytest.approx(p, abs=4 * np.sqrt(p * (1 - p) / 4000) + 1e-9)
        done = achieved[here & success]
        assert ((done >= low) & (done <= high)).all()
        assert done.std() == pytest.approx(float(truth["sigma"][k]), rel=0.08)
        failed = achieved[here & ~success]
        assert ((failed < low) | (failed > high)).all()
    reads = truth["effort_mean"].sel(effort="reads").values
    assert log["n_read"].values.reshape(4000, -1).mean(axis=0) == pytest.approx(reads, rel=0.2)


def test_drift_follows_the_power_law():
    model = calib.open_device("levy-relaxation")
    quiet = model.copy(deep=True)
    node = quiet["retention"].to_dataset()
    zero = {name: 0 * node[name] for name in ("trace_residual", "drift_exponent_std", "range_drift_exponent_std")}
    quiet["retention"] = node.assign(zero)
    found = simulation.simulate(quiet, 50, 1, 1, points=12)["reads"].to_dataset()
    x, y = np.log(found["time"].values[0]), np.log(found["conductance"].values)
    slope = np.polyfit(x, y.T, 1)[0]
    np.testing.assert_allclose(y, y[:, :1] + slope[:, None] * (x - x[0]), atol=1e-9)
    expected = np.interp(y[:, 0], node["range_ln_g"].values, node["range_drift_exponent_mean"].values)
    assert -slope == pytest.approx(expected, abs=2e-3)
    assert (x[0], x[-1]) == pytest.approx(np.log([node.attrs["t_first"], node.attrs["t_last"]]))


def test_read_noise_has_its_size_and_its_spectrum():
    model = calib.open_device("xiao2025-multilevel").copy(deep=True)
    node = model["read_noise"].to_dataset()
    model["read_noise"] = node.assign(noise_spread=0 * node["noise_spread"], noise_exponent=0 * node["noise_exponent"])
    found = simulation.simulate(model, 100, 1, 3, experiment="noise", points=256)["reads"].to_dataset()
    g = found["conductance"].values
    residual = g / g.mean(axis=1, keepdims=True) - 1
    assert np.sqrt(np.mean(residual**2)) == pytest.approx(np.exp(float(node["ln_noise"])), rel=0.1)
    power = np.abs(np.fft.rfft(residual * np.hanning(256), axis=1)[:, 2:100]) ** 2
    slope = np.polyfit(np.log(np.arange(2, 100)), np.log(power.mean(axis=0)), 1)[0]
    assert -slope == pytest.approx(float(node["spectral_exponent"]), abs=0.12)


def test_progress_is_told(model, tmp_path):
    seen: list[tuple[int, int]] = []
    simulation.simulate_file(model, tmp_path / "raw", "labview", 3, 1, progress=lambda *at: seen.append(at))
    assert seen == [(1, 3), (2, 3), (3, 3)]
    seen.clear()
    simulation.simulate_file(model, tmp_path / "raw.csv", "table", 3, 1, progress=lambda *at: seen.append(at))
    assert seen[-1] == (3, 3)
