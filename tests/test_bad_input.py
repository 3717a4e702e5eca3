"""Bad input at the command line: exit code 1, one clear sentence, no traceback, nothing half-written."""

import errno
import os
import shutil

import numpy as np
import pytest
import xarray as xr

from calib import data_folder
from calib.cli import main

UP_DOWN = np.r_[np.arange(0, 1.01, 0.05), np.arange(1, -0.01, -0.05)]
CURVE = [f"{v:.3f},{1e-6 * v * np.exp(1.5 * np.sqrt(abs(v))):.6e}" for v in UP_DOWN]


def sentence(capsys, *arguments: str, code: int = 1) -> str:
    assert main(arguments) == code
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("calib ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err
    return lines[0]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("name", "content", "options", "expected"),
    [
        ("empty.csv", b"", [], "'empty.csv' is empty"),
        ("report.csv", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj", [], "'report.csv' is a PDF document"),
        ("names.csv", b"a,b\n0.1,1e-6\n0.2,2e-6\n", [], "--columns voltage=0,current=1"),
        ("curve.csv", "V,I", ["--columns", "voltage=V,current=Q"], "has no such column; it has 0 'V', 1 'I'"),
        ("curve.csv", "V,I", ["--units", "current=kg"], "current cannot be in 'kg'"),
        ("curve.csv", "V,I", ["--units", "current=blah"], "'blah' is no unit for current"),
        ("curve.csv", "V,I", ["--v-max", "9"], "--v-max is 9 V but the usable curves of state 'all' end at 1 V"),
        ("curve.csv", "V,I", [], "too few for a device model; expected at least 4"),
        ("curve.csv", "V,I", ["--reference-voltage", "-0.1"], "there is no negative branch"),
        ("curve.csv", "V,I", ["--reference-voltage", "0"], "expected a voltage other than zero"),
        ("few.csv", b"V,I\n0.1,1e-6\n0.2,3e-6\n0.3,6e-6\n", ["--iv-model", "poole-frenkel"], "poole-frenkel needs 4"),
    ],
)
def test_measurement_files(here, capsys, name, content, options, expected):
    data = "\n".join([content, *CURVE]).encode() if isinstance(content, str) else content
    (here / name).write_bytes(data)
    assert expected in sentence(capsys, "fit", name, "-o", "device.nc", *options)
    assert [path.name for path in here.iterdir()] == [name]


def test_all_devices_stuck(here, capsys):
    rows = [
        f"{device},{state},{voltage:.2f},{(1 + device) * 1e-6 * voltage:.6e}"
        for device in range(6)
        for state in ("lrs", "hrs")
        for voltage in np.arange(0, 0.51, 0.05)
    ]
    (here / "stuck.csv").write_text("\n".join(["device,state,Voltage (V),Current (A)", *rows]))
    assert "all 6 devices are stuck" in sentence(capsys, "fit", "stuck.csv", "-o", "device.nc")
    assert not (here / "device.nc").exists()


def test_device_models(here, capsys):
    whole = data_folder.bundled_model_path("synthetic-oxide").read_bytes()
    (here / "truncated.nc").write_bytes(whole[:20_000])
    xr.Dataset({"a": 1.0}).to_netcdf(here / "foreign.nc", engine="h5netcdf")
    (here / "text.nc").write_text("not a netCDF file")
    newer = xr.open_datatree(data_folder.bundled_model_path("ta-hfo2"), engine="h5netcdf")
    newer.attrs["schema"] = "calib-device-model/9"
    newer.to_netcdf(here / "newer.nc", engine="h5netcdf")
    for name, expected in (
        ("truncated.nc", "the file is damaged"),
        ("foreign.nc", "is no device model of calib: found no attribute 'schema'"),
        ("text.nc", "is no netCDF-4 file"),
        ("newer.nc", "install a newer calib"),
        ("missing.nc", "there is no file 'missing.nc'"),
        ("no-such-model", "there is no bundled device model 'no-such-model'"),
    ):
        for command in (["show", name], ["card", name, "-o", "card"], ["train", "--device", name, "-o", "run"]):
            assert expected in sentence(capsys, *command), command
    assert not (here / "card").exists()
    assert not (here / "run").exists()


def test_full_disk(here, capsys, monkeypatch):
    shutil.copy(data_folder.bundled_model_path("ta-hfo2"), here / "device.nc")
    before = (here / "device.nc").read_bytes()

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.replace", full)
    source = str(data_folder.datasets_folder() / "crossbar-reads.tsv.gz")
    assert "No space left on device" in sentence(capsys, "fit", source, "-o", "device.nc")
    assert (here / "device.nc").read_bytes() == before
    assert [path.name for path in here.iterdir()] == ["device.nc"]


def test_a_folder_that_cannot_be_written_to(here, capsys):
    (here / "taken").write_text("a file where the folder should be")
    source = str(data_folder.datasets_folder() / "crossbar-reads.tsv.gz")
    assert "cannot write 'taken/device.nc'" in sentence(capsys, "fit", source, "-o", "taken/device.nc")


def test_input_voltage_beyond_the_validity(here, capsys):
    arguments = ["train", "--device", "siox-high-resistance", "--input-voltage", "3", "-o", "run"]
    assert "beyond the 0.5 V up to which" in sentence(capsys, *arguments)


def test_unknown_data_set(here, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--device", "siox-high-resistance", "--dataset", "nope", "-o", "run"])
    assert stop.value.code == 2
    assert "digits" in capsys.readouterr().err
    assert "nope" in sentence(capsys, "data", "fetch", "nope")
