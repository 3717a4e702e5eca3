"""`calib convert`: everything is kept, and reading it back is identical."""

import json

import numpy as np
import pytest
import xarray as xr

import calib
from calib.cli import main

V = np.concatenate([np.linspace(0, 1.5, 16), np.linspace(1.4, -1.5, 30), np.linspace(-1.4, 0, 15)])
FILES = {
    "sweep.csv": "device,voltage (V),current (uA),remark\n"
    + "".join(f"A,{v:.2f},{3 * v + (v > 0.7) * 20:.4f},{'x' if k % 2 else 'µ'}\n" for k, v in enumerate(V)),
    "drift.csv": "time (s),resistance (kohm)\n0,10\n1,11\n2,\n3,12\n",
    "log.csv": "address,target r min (kohm),target r max (kohm),final r (kohm),success,attempts\n"
    "1,1,2,1.5,1,3\n2,0,2,1.5,1,3\n3,5,1e7,8,0,9\n",
    "pulses.txt": "(A,1),tprog=0.0002,Gprog, 1e-6, 8e-7, 7e-7\n(A,2),tprog=0.0002,Gprog, 1e-6, 8e-7, 7e-7, 5e-7\n",
}


@pytest.fixture
def folder(tmp_path):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


@pytest.mark.parametrize("names", [[name] for name in FILES] + [list(FILES)])
def test_reading_it_back_is_identical(folder, names, capsys) -> None:
    files = [folder / name for name in names]
    output = folder / "out" / "all.nc"
    assert main(["convert", *map(str, files), "-o", str(output), "--temperature", "300"]) == 0
    assert "next: calib fit" in capsys.readouterr().out
    original = calib.read(files, temperature=300)
    xr.testing.assert_identical(calib.read(output), original)
    assert set(original.children) - {"extra"} <= {"iv", "reads", "writes", "pulses"}


def test_inspect_takes_what_was_converted(folder, capsys) -> None:
    main(["convert", str(folder), "-o", str(folder / "all.nc"), "--json"])
    written = json.loads(capsys.readouterr().out)
    assert [source["name"] for source in written["sources"]] == sorted(FILES)
    assert set(written["nodes"]) == {"iv", "reads", "writes", "pulses", "extra"}
    assert main(["inspect", str(folder / "all.nc")]) == 0
    out = capsys.readouterr().out
    for part in ("sweep.csv: reader table", "log.csv: reader write-verify", "2 of 3", "2 depression"):
        assert part in out


def test_fit_takes_what_was_converted(folder) -> None:
    lines = ["device,voltage (V),current (A)"]
    for k in range(6):
        lines += [f"d{k},{v:.3f},{1e-5 * (1 + 0.1 * k) * np.sinh(2 * v):.6e}" for v in np.linspace(0, 0.5, 26)]
    (folder / "many.csv").write_text("\n".join(lines))
    assert main(["convert", str(folder / "many.csv"), "-o", str(folder / "many.nc")]) == 0
    for name in ("many.csv", "many.nc"):
        assert main(["fit", str(folder / name), "-o", str(folder / f"{name}.model.nc")]) == 0
    from calib import device_model

    one, other = (device_model.open_device(folder / f"many.{kind}.model.nc")["iv"] for kind in ("csv", "nc"))
    xr.testing.assert_allclose(one.to_dataset(), other.to_dataset())


def test_the_name_must_end_in_nc(folder, capsys) -> None:
    assert main(["convert", str(folder / "drift.csv"), "-o", str(folder / "x.csv")]) == 1
    assert "give a name that ends in .nc, not 'x.csv'" in capsys.readouterr().err


def test_real_files_are_kept_whole(measurements, tmp_path) -> None:
    files = [measurements / "ddas04-rram" / "100devices.xlsx", measurements / "wang-yflash"]
    output = tmp_path / "real.nc"
    assert main(["convert", *map(str, files), "-o", str(output)]) == 0
    xr.testing.assert_identical(calib.read(output), calib.read(files))
