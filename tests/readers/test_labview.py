"""LabVIEW measurement files of our own making, in the layout of its specification."""

import numpy as np
import pytest

import calib
from calib.errors import ReadError
from calib.reading import find_reader
from tests.readers import golden


def test_two_segments_with_trailing_spaces_in_names() -> None:
    tree = golden.read("labview.lvm")
    golden.assert_loop(tree, 1.0, 2.0)
    np.testing.assert_allclose(tree["iv"]["time"].values[1], 1e-3 * np.arange(17), atol=1e-12)
    assert golden.questions(tree) == []
    assert list(tree.children) == ["iv"]
    assert set(calib.read(golden.FOLDER / "labview.lvm")["iv"]["cycle"].values.tolist()) == {0, 1}


def test_decimal_commas_no_x_column_and_two_voltages() -> None:
    tree = golden.read("labview_two_voltages.lvm", series_resistance=1000.0)
    ((voltage, current),) = golden.sweeps(tree)
    np.testing.assert_allclose(voltage, golden.VOLTAGE, atol=2e-9)
    np.testing.assert_allclose(current, golden.CURRENT, atol=1e-12)
    np.testing.assert_allclose(tree["iv"]["time"].values[0], 1e-3 * np.arange(17), atol=1e-12)
    with pytest.raises(ReadError, match="found channels X_Value, Untitled, Untitled 1.*--series-resistance OHM"):
        golden.read("labview_two_voltages.lvm")


def test_columns_and_units_say_what_channels_are() -> None:
    options = {"columns": {"voltage": 1, "current": 2}, "units": {"current": "uA"}}
    ((voltage, current),) = golden.sweeps(golden.read("labview_two_voltages.lvm", **options))
    np.testing.assert_allclose(current, golden.CURRENT * 1e3 * 1e-6, atol=1e-14)
    np.testing.assert_allclose(voltage, golden.VOLTAGE + golden.CURRENT * 1e3, atol=1e-9)


def test_further_channels_are_kept(tmp_path) -> None:
    text = (golden.FOLDER / "labview.lvm").read_text().replace("Current \tComment", "Current \tPhoto")
    text = "\n".join(f"{line}\t7.5" if line[:1].isdigit() else line for line in text.splitlines())
    (tmp_path / "a.lvm").write_text(text)
    tree = golden.read(tmp_path / "a.lvm")
    assert set(tree["extra"]["Photo"].values.tolist()) == {7.5}


def test_a_header_without_data_ends_in_one_sentence(tmp_path) -> None:
    text = (golden.FOLDER / "labview.lvm").read_text()
    for part in (text[:60], text.split("X_Value")[0]):
        (tmp_path / "a.lvm").write_text(part)
        with pytest.raises(ReadError, match="'a.lvm' holds no rows of numbers"):
            golden.read(tmp_path / "a.lvm")


@pytest.mark.parametrize("ending", ["m1V.dat", "m2V.dat", "m3V.dat", "m4V.dat"])
def test_real_tabbed_text_is_a_table(measurements, ending) -> None:
    path = measurements / "tiotto-nbsto" / f"p1V_{ending}"
    assert find_reader(path).reader.name == "table"
    assert calib.read(path)["iv"].sizes["sweep"] == 4
