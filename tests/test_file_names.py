"""Labels in file names, by a pattern with named groups."""

import numpy as np
import pytest

import calib
from calib import measurement as m
from calib.cli import main
from calib.errors import CalibError, OptionError, ReadError

V = [0, 0.5, 1, 0.5, 0]
SWEEP = "voltage (V),current (uA)\n" + "".join(f"{v},{3 * v}\n" for v in V)
READS = "time (s),resistance (ohm)\n" + "".join(f"{t},{1000 + t}\n" for t in range(5))


@pytest.fixture
def folder(tmp_path):
    for device in ("A1", "B2"):
        for cycle in (1, 2):
            (tmp_path / f"chip_{device}_cycle{cycle}_85C.csv").write_text(SWEEP)
    return tmp_path


def test_device_cycle_and_temperature(folder) -> None:
    pattern = r"chip_(?P<device>[A-Z]\d)_cycle(?P<cycle>\d+)_(?P<temperature>\d+C)\."
    node = calib.read(folder, pattern=pattern)["iv"].to_dataset()
    found = set(zip(node["device"].values.tolist(), node["cycle"].values.tolist(), strict=True))
    assert found == {("A1", 0), ("A1", 1), ("B2", 0), ("B2", 1)}
    assert node["temperature"].values == pytest.approx(358.15)
    assert any("from the file name 'chip_A1_cycle1_85C.csv': device A1" in note for note in m.notes_of(node))


def test_globs_and_the_command_line(folder, capsys) -> None:
    pattern = r"_(?P<device>[A-Z]\d)_"
    assert main(["inspect", str(folder / "*cycle2*.csv"), "--pattern", pattern, "--json"]) == 0
    assert '"devices": 1' in capsys.readouterr().out


def test_levels_and_addresses(tmp_path) -> None:
    for row, column, level in ((3, 14, "L2"), (4, 1, "L5")):
        (tmp_path / f"{row}_{column}_{level}.csv").write_text(READS)
    node = calib.read(tmp_path, pattern=r"^(?P<row>\d+)_(?P<column>\d+)_(?P<level>\w+)\.")["reads"]
    assert node["device"].values.tolist() == ["3-14", "4-1"]
    assert node["row"].values.tolist() == [3, 4]
    assert node["column"].values.tolist() == [14, 1]
    assert node["level"].values.tolist() == ["L2", "L5"]


def test_several_devices_of_one_file_stay_apart(tmp_path) -> None:
    rows = "".join(f"{d},{v},{v}\n" for d in ("a", "b") for v in V)
    (tmp_path / "die7.csv").write_text("device,voltage,current (uA)\n" + rows)
    node = calib.read(tmp_path, pattern=r"(?P<device>die\d)")["iv"]
    assert set(node["device"].values) == {"die7-a", "die7-b"}
    assert np.isfinite(node["voltage"].values).sum() == 10


@pytest.mark.parametrize(
    ("pattern", "error", "message"),
    [
        ("(?P<colour>.)", OptionError, "has the group 'colour'; expected groups among device, cycle"),
        ("chip", OptionError, "has no named group"),
        ("(?P<device>", OptionError, "is no regular expression"),
        ("wafer(?P<device>.)", ReadError, "not found in the file name 'chip_A1_cycle1_85C.csv'"),
        ("(?P<cycle>chip)", ReadError, "finds the cycle 'chip' .* expected a whole number"),
        ("(?P<temperature>chip)", CalibError, "--temperature 'chip'"),
    ],
)
def test_bad_patterns(folder, pattern, error, message) -> None:
    with pytest.raises(error, match=message):
        calib.read(folder, pattern=pattern)


def test_fib3_devices(measurements) -> None:
    files = sorted((measurements / "timbie-fib3").glob("*retention*.csv"))
    node = calib.read(files, pattern=r"FIB3_(?P<device>K9_1_\d+)_")["reads"]
    assert sorted(node["device"].values) == ["K9_1_12", "K9_1_5", "K9_1_7"]
    assert node["target"].values[0] == pytest.approx((1 / 8.08e6 + 1 / 8.16e6) / 2)
