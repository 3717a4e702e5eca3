"""Pulse trains, made here: lines of key=value text, tables of pulses and readings, and whole trains in columns."""

import numpy as np
import pytest

import calib
from calib import measurement as m
from calib.errors import CalibError, ReadError

LINES = (
    "(A7,0,0),tprog=0.0002,Gprog, 1e-06, 9e-07, 8e-07, 7e-07, 6e-07\n"
    "(A7,0,0),terase=0.0001,Gerase, 1e-09, 2e-09, 4e-09\n"
    "(A7,0,1),tprog=0.0002,Gprog, 1e-06, 8e-07, 6e-07, 5e-07\r\n"
    "(A7,0,0),tprog=0.0002,Gprog, 1e-06, 9e-07, 8e-07, 7e-07, 6e-07, 5e-07,\n"
)
TABLE = "# pulse_v,pulse_width,num_applied,meas_v,i_0,i_1,target min,target max\n" + "".join(
    f"{v},5e-07,1e3,-0.1,{-g * 0.1},{-1.1 * g * 0.1},8e6,9e6\n" for v, g in ((8.2, 1e-7), (-0.6, 2e-7), (8.4, 3e-7))
)


def pulses(path, **options):
    return calib.read(path, **options)["pulses"].to_dataset()


def test_lines_of_unequal_length(tmp_path) -> None:
    path = tmp_path / "trains.txt"
    path.write_text("programming and erasing, 2 devices\n\n" + LINES)
    node = pulses(path)
    assert node.sizes == {"sequence": 4, "pulse": 6, "read": 1}
    assert node["device"].values.tolist() == ["A7,0,0", "A7,0,0", "A7,0,1", "A7,0,0"]
    assert node["cycle"].values.tolist() == [0, 0, 0, 1]
    assert node["polarity"].values.tolist() == ["depression", "potentiation", "depression", "depression"]
    assert np.isfinite(node["conductance"].values).sum(axis=(1, 2)).tolist() == [5, 3, 4, 6]
    assert np.nanmedian(node["width"].values, axis=1) == pytest.approx([2e-4, 1e-4, 2e-4, 2e-4])
    assert np.array_equal(np.isnan(node["width"].values), np.isnan(node["conductance"].values[:, :, 0]))
    notes = " ".join(m.notes_of(node))
    for part in ("1 lines hold no readings", "taken is S", "4 lines (Gerase,Gprog)"):
        assert part in notes


def test_units_of_lines(tmp_path) -> None:
    (tmp_path / "trains.txt").write_text("vpulse=2.5,vread=0.1,Rset, 10, 20, 40\nvpulse=2.5,vread=0.1,Rset, 10, 5, 0\n")
    node = pulses(tmp_path / "trains.txt", units="resistance=kohm")
    assert node["conductance"].values[0, :, 0] == pytest.approx([1e-4, 5e-5, 2.5e-5])
    assert np.isnan(node["conductance"].values[1, 2, 0])
    assert node["amplitude"].values[0, 0] == 2.5
    assert node["read_voltage"].values[0, 0] == 0.1
    assert node["device"].values.tolist() == ["trains", "trains"]
    assert node["cycle"].values.tolist() == [0, 1]


def test_a_table_of_pulses_and_repeated_readings(tmp_path) -> None:
    path = tmp_path / "K9_1_5.csv"
    path.write_text(TABLE)
    tree = calib.read(path)
    node = tree["pulses"].to_dataset()
    assert node.sizes == {"sequence": 1, "pulse": 3, "read": 2}
    assert node["conductance"].values[0] == pytest.approx(np.array([[1, 1.1], [2, 2.2], [3, 3.3]]) * 1e-7)
    assert node["amplitude"].values[0].tolist() == [8.2, -0.6, 8.4]
    assert set(node["count"].values[0]) == {1000}
    assert set(node["read_voltage"].values[0]) == {-0.1}
    assert set(tree["extra"].data_vars) == {"target_min", "target_max"}


def test_one_sequence_for_each_device_and_polarity(tmp_path) -> None:
    rows = [
        f"{d},{p},{k},{1e-6 * (k + 1)}\n"
        for d in ("A", "B")
        for p in ("up", "down")
        for k in range(4 if d == "A" else 3)
    ]
    (tmp_path / "t.csv").write_text("device,polarity,pulse number,conductance (mS)\n" + "".join(rows))
    node = pulses(tmp_path / "t.csv")
    assert node.sizes == {"sequence": 4, "pulse": 4, "read": 1}
    assert node["polarity"].values.tolist() == ["up", "down", "up", "down"]
    assert np.nanmax(node["conductance"].values) == pytest.approx(4e-9)


def test_normalised_trains_have_no_unit(tmp_path) -> None:
    path = tmp_path / "gain.csv"
    path.write_text("".join(f"{x:.3f},{1 - x:.3f}\n" for x in np.linspace(-0.5, 1, 30)))
    with pytest.raises(ReadError, match="no header and 2 columns"):
        calib.read(path)
    node = pulses(path, columns="potentiation=0,depression=1")
    assert node["conductance"].attrs["units"] == "1"
    assert node["polarity"].values.tolist() == ["potentiation", "depression"]
    assert node["conductance"].values[0, :2, 0].tolist() == [-0.5, -0.448]
    assert (
        pulses(path, columns="potentiation=0,depression=1", units="potentiation=uS,depression=uS")["conductance"].attrs[
            "units"
        ]
        == "S"
    )
    (tmp_path / "siemens.csv").write_text("potentiation (uS),depression (uS)\n1,3\n2,2\n3,1\n")
    assert pulses(tmp_path / "siemens.csv")["conductance"].values[0, :, 0] == pytest.approx([1e-6, 2e-6, 3e-6])
    with pytest.raises(ReadError, match=r"conductance of the node pulses in 1 and in S, which cannot be joined"):
        m.merge([calib.read(tmp_path / "siemens.csv"), calib.read(path, columns="potentiation=0,depression=1")])


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        (
            "1,2\n2,3\n3,4\n",
            "amplitude=0",
            "'t.csv': found no header and 2 columns .*expected pulses and a conductance",
        ),
        ("a,b\n1,x\n2,y\n", "potentiation=1", "readings hold no numbers"),
        ("(A),t=1,G, nan, nan, nan\n(A),t=1,G, 1, 2, x,3\n", None, None),
        ("tprog=1,G, nan, nan, nan\n", None, "'t.csv'"),
        ("tprog=1,G, 1, 2, 3\ntprog=1,R, 1, 2, 3\n", None, "mixes lines of conductance and of resistance"),
    ],
)
def test_bad_input(tmp_path, text, columns, message) -> None:
    (tmp_path / "t.csv").write_text(text)
    if message is None:
        assert np.isfinite(pulses(tmp_path / "t.csv")["conductance"].values).sum() == 3
        return
    with pytest.raises(CalibError, match=message):
        calib.read(tmp_path / "t.csv", columns=columns)


def test_y_flash(measurements) -> None:
    node = pulses(measurements / "wang-yflash" / "data_device2device_prog_erase.txt")
    assert node.sizes["sequence"] == 2 * 96
    assert len(np.unique(node["device"].values)) == 96
    depression = node["polarity"].values == "depression"
    assert depression.sum() == 96
    assert set(np.nanmedian(node["width"].values[depression], axis=1)) == {2e-4}
    assert node["conductance"].values[0, 0, 0] == 1.00925e-06


def test_fib3(measurements) -> None:
    (path,) = (measurements / "timbie-fib3").glob("*_1_12_*1.0.csv")
    node = pulses(path)
    assert node.sizes == {"sequence": 1, "pulse": 15, "read": 5}
    assert node["conductance"].values[0, 0, 0] == pytest.approx(6.97411795e-8)


def test_normalised_reram(measurements) -> None:
    node = pulses(measurements / "gong-reram" / "gong_et_al.csv", columns="potentiation=0,depression=1")
    assert node.sizes == {"sequence": 2, "pulse": 1000, "read": 1}
    assert node["conductance"].attrs["units"] == "1"
