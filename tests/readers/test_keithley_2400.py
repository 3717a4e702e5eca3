"""Readings of 2400-type SourceMeters, in files of our own making."""

import numpy as np
import pytest

from calib.errors import ReadError
from calib.measurement import notes_of
from calib.reading import find_reader
from tests.readers import golden


def test_strings_of_five_readings() -> None:
    tree = golden.read("2400_readings.txt")
    golden.assert_loop(tree, 1.0)
    assert tree["iv"]["compliance"].values == pytest.approx(8e-5)
    np.testing.assert_allclose(tree["iv"]["time"].values[0], 0.1 * np.arange(17), atol=1e-9)
    assert golden.questions(tree) == []
    notes = notes_of(tree["iv"])
    assert any("1 points are in compliance by bit 3 of their status: 8e-05 A" in note for note in notes)
    assert any("17 values beyond 1e+30" in note for note in notes)
    assert "Status" in tree["extra"]
    assert "R" not in tree["extra"]


def test_all_readings_in_one_line_and_named_elements(tmp_path) -> None:
    lines = (golden.FOLDER / "2400_readings.txt").read_text().splitlines()
    (tmp_path / "a.txt").write_text(",".join(lines))
    golden.assert_loop(golden.read(tmp_path / "a.txt"), 1.0)
    shorter = [",".join(line.split(",")[:2]) for line in lines]
    (tmp_path / "a.txt").write_text("\n".join(["VOLT,CURR", *shorter]))
    golden.assert_loop(golden.read(tmp_path / "a.txt"), 1.0)


def test_resistances_alone_are_reads(tmp_path) -> None:
    rows = [f"+9.91E+37,+1.0E-06,+{2 + k}.0E+04,+{k}.0E+00,+0.0E+00" for k in range(4)]
    (tmp_path / "a.txt").write_text("\n".join(rows))
    node = golden.read(tmp_path / "a.txt")["reads"]
    np.testing.assert_allclose(node["conductance"].values[0], 1 / np.arange(2e4, 6e4, 1e4))


def test_five_columns_of_something_else_are_not_taken_for_readings(tmp_path) -> None:
    rows = [",".join(f"{x:+.3E}" for x in (k, k * 1e-6, k * 3.0, 5 - k, 0.5)) for k in range(1, 5)]
    (tmp_path / "a.txt").write_text("\n".join(rows))
    assert find_reader(tmp_path / "a.txt").reader.name == "table"


def test_a_saved_buffer() -> None:
    tree = golden.read("2450_buffer.csv")
    golden.assert_loop(tree, 1.0)
    assert tree["iv"]["compliance"].values == pytest.approx(1e-4)
    assert tree["iv"]["temperature"].values == pytest.approx(300)
    assert tree["iv"]["device"].values.tolist() == ["B4"]
    assert tree.attrs["instrument"] == "2450"


def test_a_buffer_that_sources_current_in_microamperes(tmp_path) -> None:
    rows = [f"{k},{k / 10},V,{k * 2},uA,{k}" for k in range(6)]
    (tmp_path / "a.csv").write_text("\n".join(["Index,Reading,Unit,Source Value,Source Unit,Time", *rows]))
    ((voltage, current),) = golden.sweeps(golden.read(tmp_path / "a.csv"))
    np.testing.assert_allclose(voltage, np.arange(6) / 10)
    np.testing.assert_allclose(current, np.arange(6) * 2e-6)


def test_a_buffer_with_one_unit(tmp_path) -> None:
    rows = [f"{k * 1e-6},A,{k / 10}" for k in range(6)]
    (tmp_path / "a.csv").write_text("\n".join(["Reading,Unit,Source Value", *rows]))
    tree = golden.read(tmp_path / "a.csv")
    assert any("taken as voltage in V" in note for note in notes_of(tree["iv"]))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1,A,0.1,V", "2,V,0.2,V"], "mixes readings in A and in V"),
        (["1,A,0.1,A", "2,A,0.2,A"], "found readings and source values of current, expected V and A"),
        (["1,Hz,0.1,V"], "gives readings in 'Hz'"),
        (["1,,0.1,"], "states no unit"),
    ],
)
def test_units_that_do_not_fit_end_in_one_sentence(tmp_path, rows, message) -> None:
    (tmp_path / "a.csv").write_text("\n".join(["Reading,Unit,Source Value,Source Unit", *rows]))
    with pytest.raises(ReadError, match=message):
        golden.read(tmp_path / "a.csv")
