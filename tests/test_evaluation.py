"""Evaluation over chips: agreement with single chips, results files, the command line."""

import argparse
import json

import numpy as np
import pytest
import torch
import xarray as xr

import calib
from calib import device_model, evaluation, plugins
from calib.crossbar import drawing
from calib.errors import ModelError, OptionError
from calib.evaluation import chip_performance, evaluate, open_results
from calib.outcomes import outcomes
from calib.results import format_time
from calib.runs import Run
from calib.training import train
from tests.simple_devices import blobs, device, everything, iv_node, range_only

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = blobs()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(
        device(), output=tmp_path_factory.mktemp("runs") / "first", dataset=DATA, layers=(6, 4, 3), epochs=20,
        batch_size=16, learning_rate=0.03, networks=2, validation_repeats=3,
    )  # fmt: skip


def test_dimensions_and_values(run: Run) -> None:
    results = evaluate(run, [device(), everything(), "ideal"], chips=4, data=DATA)
    assert dict(results.sizes) == {"network": 2, "device": 3, "chip": 4, "layer": 2, "epoch": 20}
    assert results["device"].values.tolist() == ["test device", results["device"].values[1], "ideal"]
    assert results["network"].values.tolist() == ["first/0", "first/1"]
    np.testing.assert_allclose(results["error"], 1 - results["accuracy"])
    np.testing.assert_allclose(results["energy_per_inference"], results["power_layer"].sum("layer") * 50e-9)
    total = results["power_layer"].sum("layer")
    np.testing.assert_allclose(results["efficiency_tops_per_watt"], 2e-12 * (7 * 4 + 5 * 3) / (50e-9 * total))
    assert float(results["error"].sel(device="ideal").std("chip").max()) == 0
    assert results["power_layer"].attrs["units"] == "W"


def test_a_chip_is_the_same_among_others(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    together = evaluate(run, everything(), chips=6, data=DATA)
    monkeypatch.setattr(evaluation, "_MOST_COEFFICIENTS", 1)  # one chip at a time
    monkeypatch.setattr(evaluation, "_MOST_BASIS", 700)  # and few images
    single = evaluate(run, everything(), chips=6, data=DATA)
    xr.testing.assert_allclose(together, single, rtol=1e-5)
    fewer = evaluate(run, everything(), chips=2, data=DATA)
    np.testing.assert_allclose(fewer["loss"], together["loss"].isel(chip=slice(2)), rtol=1e-5)


def test_agrees_with_a_plain_loop(run: Run) -> None:
    network = run.network(0, run.devices())
    images, labels = torch.tensor(DATA.test_images), torch.tensor(DATA.test_labels)
    found = chip_performance(network, images, labels, seed=2, chips=[5])
    with torch.no_grad():
        for index, layer in enumerate((network[0], network[2])):
            layer.drawn, _ = drawing.draw_chip(layer, (2, index, 5, 0))
        logits = network(images)
    assert found.accuracy[0] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))
    assert found.loss[0] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)


def test_redrawing_in_batches_averages_chips(run: Run) -> None:
    network = run.network(0, run.devices(device(iv=iv_node(spread=0.1))))
    images = torch.tensor(np.tile(DATA.test_images, (15, 1)))
    labels = torch.tensor(np.tile(DATA.test_labels, 15))
    spread = {
        redraw: chip_performance(network, images, labels, seed=0, chips=range(30), redraw=redraw).loss
        for redraw in ("chip", "batch")
    }
    assert spread["batch"].std() < 0.6 * spread["chip"].std()  # nine partial chips each: a third
    standard_error = spread["chip"].std() / np.sqrt(30)
    assert abs(spread["batch"].mean() - spread["chip"].mean()) < 4 * standard_error


def test_results_file_round_trip(run: Run, tmp_path) -> None:
    written = evaluate(run, chips=2, data=DATA, output=tmp_path / "results.nc")
    xr.testing.assert_identical(written, open_results(tmp_path / "results.nc"))
    assert json.loads(written.attrs["training"])[0]["options"]["epochs"] == 20
    assert json.loads(written.attrs["device_hashes"])["test device"] == device_model.identity(run.device)
    assert "Each chip keeps its devices" in written.attrs["protocol"]
    assert float(written["train_loss"].isel(epoch=-1).mean()) < float(written["train_loss"].isel(epoch=0).mean())


def test_foreign_files_are_refused(tmp_path) -> None:
    device_model.save(device(), tmp_path / "device.nc")
    with pytest.raises(ModelError, match=r"is no results file: found schema 'calib-device-model/1'"):
        open_results(tmp_path / "device.nc")
    (tmp_path / "text.nc").write_text("network,error\n")
    with pytest.raises(ModelError, match="no netCDF-4 file"):
        open_results(tmp_path / "text.nc")


def test_incomplete_results_are_refused(run: Run, tmp_path) -> None:
    whole = evaluate(run, chips=1, data=DATA)
    whole.drop_vars("loss").to_netcdf(tmp_path / "part.nc", engine="h5netcdf")
    with pytest.raises(ModelError, match="variable 'loss' is missing"):
        open_results(tmp_path / "part.nc")


def test_bad_options_are_refused(run: Run) -> None:
    with pytest.raises(OptionError, match="chips is 0"):
        evaluate(run, chips=0, data=DATA)
    with pytest.raises(OptionError, match="redraw is 'image'"):
        evaluate(run, redraw="image", data=DATA)
    with pytest.raises(OptionError, match="given twice"):
        evaluate(run, ["ideal", "ideal"], data=DATA)
    with pytest.raises(OptionError, match="0.5 V is beyond the 0.2 V"):
        evaluate(run, device(iv=iv_node(v_max=0.2)), chips=1, data=DATA)
    with pytest.raises(OptionError, match="given from Python"):
        evaluate(run, chips=1)


def test_several_runs_and_runs_of_other_sizes(run: Run, tmp_path) -> None:
    options = {"dataset": DATA, "epochs": 1, "batch_size": 40, "validation_repeats": 1}
    second = train(range_only(), output=tmp_path / "first", layers=(6, 4, 3), **options)
    third = train(range_only(), output=tmp_path / "third", layers=(6, 5, 3), **options)
    results = evaluate([run, second], device(), chips=2, data=DATA)
    assert results["network"].values.tolist() == ["first 0/0", "first 0/1", "first 1/0"]
    assert np.isnan(results["train_loss"].values[2, 1:]).all()
    with pytest.raises(OptionError, match=r"different sizes \(6-4-3, 6-5-3\)"):
        evaluate([run, third], device(), chips=2, data=DATA)


def retention_device() -> xr.DataTree:
    """Return a device model with the retention of a bundled one."""
    bundled = calib.open_device("elgeresy-tio2")["retention"].to_dataset()
    return range_only("drifting", retention=bundled)


def test_conditions_are_recorded_and_several_times_are_devices(run: Run) -> None:
    day = 86400.0
    results = evaluate(run, [retention_device(), "ideal"], chips=3, data=DATA, time=[0.0, 3600.0, day])
    assert results["device"].values.tolist() == ["drifting, 0 s", "drifting, 1 h", "drifting, 1 d", "ideal"]
    assert json.loads(results.attrs["options"])["time"] == [0.0, 3600.0, day]
    assert "up to 1 d after programming" in results.attrs["protocol"]
    late = evaluate(run, retention_device(), chips=3, data=DATA, time=day)
    assert late["device"].values.tolist() == ["drifting"]
    np.testing.assert_array_equal(late["loss"].values[:, 0], results["loss"].sel(device="drifting, 1 d").values)
    assert float(abs(late["loss"] - results["loss"].sel(device="drifting, 0 s")).max()) > 0
    compensated = evaluate(run, retention_device(), chips=3, data=DATA, time=day, compensate=True)
    assert not np.array_equal(compensated["loss"], late["loss"])
    assert "No retention is known of test device" in evaluate(run, chips=1, data=DATA, time=1.0).attrs["protocol"]
    assert len(outcomes([results])) == 4
    with pytest.raises(OptionError, match="time was given twice: 1 h, 1 h"):
        evaluate(run, retention_device(), data=DATA, time=[3600, 3600])
    with pytest.raises(OptionError, match="time since programming is -1"):
        evaluate(run, retention_device(), data=DATA, time=-1)


def test_the_array_can_be_another(run: Run) -> None:
    plain = evaluate(run, "ideal", chips=1, data=DATA)
    tiled = evaluate(run, "ideal", chips=1, data=DATA, array="rows=4,columns=8")
    np.testing.assert_allclose(tiled["loss"], plain["loss"], rtol=1e-5)
    coarse = evaluate(run, "ideal", chips=1, data=DATA, array="adc_bits=2")  # range from data
    again = evaluate(run, "ideal", chips=1, data=DATA, array="adc_bits=2")
    assert float(abs(coarse["loss"] - plain["loss"]).min()) > 1e-3
    xr.testing.assert_identical(coarse, again)
    fine = evaluate(run, "ideal", chips=1, data=DATA, array="adc_bits=14,dac_bits=14")
    np.testing.assert_allclose(fine["loss"], plain["loss"], atol=1e-3)
    assert json.loads(coarse.attrs["options"])["array"]["adc_bits"] == 2


def test_periphery_is_a_term_of_its_own(run: Run) -> None:
    plain = evaluate(run, "ideal", chips=1, data=DATA)
    found = evaluate(run, "ideal", chips=1, data=DATA, periphery={"dac": 1e-13, "adc": 2e-12})
    assert "energy_periphery" not in plain
    expected = (6 + 4) * 1e-13 + (4 + 3) * 2e-12
    np.testing.assert_allclose(found["energy_periphery"].values, expected)
    np.testing.assert_array_equal(found["energy_per_inference"], plain["energy_per_inference"])


def test_power_of_roles_adds_up(run: Run) -> None:
    found = evaluate(run, everything(), chips=2, data=DATA, roles=True)
    assert found["role"].values.tolist() == ["positive", "negative", "bias"]
    np.testing.assert_allclose(found["power_role"].sum("role"), found["power_layer"], rtol=1e-5)
    with pytest.raises(OptionError, match="leave out --redraw batch"):
        evaluate(run, chips=1, data=DATA, roles=True, redraw="batch")


def test_durations_in_words() -> None:
    found = [format_time(t) for t in (0, 1e-6, 90, 3600, 86400, 3.15576e8)]
    assert found == ["0 s", "1e-06 s", "1.5 min", "1 h", "1 d", "10 y"]


@pytest.fixture
def npz(tmp_path):
    np.savez(
        tmp_path / "blobs.npz", train_images=DATA.train_images, train_labels=DATA.train_labels,
        test_images=DATA.test_images, test_labels=DATA.test_labels,
    )  # fmt: skip
    return tmp_path / "blobs.npz"


def command(name: str, *argv: object) -> int:
    member = plugins.load("calib.cli", name)
    parser = argparse.ArgumentParser()
    member.add_arguments(parser)
    return member.run(parser.parse_args([str(item) for item in argv]))


def test_command_line(tmp_path, npz, capsys: pytest.CaptureFixture[str]) -> None:
    device_model.save(everything(), tmp_path / "device.nc")
    folder, results = tmp_path / "run", tmp_path / "results.nc"
    given = ("--device", tmp_path / "device.nc", "--data", npz, "--layers", "6-4-3", "-o", folder, "--l1", "1e-4")
    assert command("train", *given, "--epochs", 2, "--networks", 2, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert [row["epochs"] for row in shown["networks"]] == [2, 2]
    assert command("train", "--resume", "-o", folder) == 0
    assert "calib evaluate" in capsys.readouterr().out
    devices = ("--device", tmp_path / "device.nc", "--device", "ideal")
    assert command("evaluate", folder, *devices, "--chips", 3, "-o", results, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["network"], row["device"]) for row in rows][:2] == [("run/0", "test device"), ("run/0", "ideal")]
    assert command("evaluate", folder, folder, "--chips", 2) == 0
    assert "TOPs/W" in capsys.readouterr().out
    assert open_results(results).sizes["chip"] == 3


def test_command_line_mistakes(tmp_path, npz) -> None:
    with pytest.raises(OptionError, match="add --device"):
        command("train", "-o", tmp_path / "run")
    device_model.save(device(), tmp_path / "device.nc")
    given = ("--device", tmp_path / "device.nc", "--data", npz, "-o", tmp_path / "run")
    with pytest.raises(OptionError, match="'6x3'"):
        command("train", *given, "--layers", "6x3")
    assert command("train", *given, "--epochs", 1) == 0
    with pytest.raises(OptionError, match="has l1 = 0.0, but 0.5 was given"):
        command("train", "--resume", "-o", tmp_path / "run", "--l1", "0.5")
