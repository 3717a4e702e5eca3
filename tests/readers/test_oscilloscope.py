"""Oscilloscope csv of our own making, in the layouts that three makers save; the series resistor is 1 kohm."""

import numpy as np
import pytest

import calib
from calib.cli import main
from calib.errors import OptionError, ReadError
from calib.measurement import notes_of
from tests.readers import golden

FILES = ["scope_keysight.csv", "scope_rigol.csv", "scope_tektronix.csv", "scope_tektronix_columns.csv"]


@pytest.mark.parametrize("name", FILES)
def test_two_channels_and_a_series_resistor(name) -> None:
    tree = golden.read(name, series_resistance=1000.0)
    ((voltage, current),) = golden.sweeps(tree)
    np.testing.assert_allclose(voltage, golden.VOLTAGE, atol=2e-9)
    np.testing.assert_allclose(current, golden.CURRENT, atol=1e-12)
    np.testing.assert_allclose(tree["iv"]["time"].values[0], -1e-3 + 1e-4 * np.arange(17), atol=1e-9)
    assert tree["iv"]["series_resistance"].values.tolist() == [1000.0]
    assert golden.questions(tree) == []
    assert any("/ 1000 ohm" in note for note in notes_of(tree["iv"]))


@pytest.mark.parametrize("name", FILES)
def test_without_the_resistor_it_is_asked_for_and_nothing_is_lost(name) -> None:
    tree = golden.read(name)
    assert list(tree.children) == ["extra"]
    assert len(tree["extra"].data_vars) == 3
    (question,) = golden.questions(tree)
    assert "--series-resistance OHM" in question


def test_channels_are_chosen_with_columns() -> None:
    tree = golden.read("scope_rigol.csv", series_resistance=1000.0, columns={"voltage": "CH2", "current": "CH1"})
    ((voltage, _),) = golden.sweeps(tree)
    np.testing.assert_allclose(voltage, -golden.VOLTAGE, atol=1e-9)
    with pytest.raises(ReadError, match="'scope_rigol.csv' has no such channel; it has CH1, CH2"):
        golden.read("scope_rigol.csv", columns={"voltage": "CH7"})


def test_a_current_probe_needs_no_resistor(tmp_path) -> None:
    rows = [f"{k},{v},{i}" for k, (v, i) in enumerate(zip(golden.VOLTAGE, golden.CURRENT, strict=True))]
    (tmp_path / "a.csv").write_text("\n".join(["x-axis,1,2", "second,Volt,Ampere", *rows]))
    golden.assert_loop(golden.read(tmp_path / "a.csv"), 1.0)


def test_further_channels_are_kept(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("Time(s),CH1V,CH2V,CH3V\n" + "".join(f"{k},{k},{k / 2},7\n" for k in range(5)))
    tree = golden.read(tmp_path / "a.csv", series_resistance=50.0)
    np.testing.assert_allclose(golden.sweeps(tree)[0][1], np.arange(5) / 100)
    assert tree["extra"]["CH3V"].values.tolist() == [7.0] * 5


def test_one_channel_is_no_curve(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("x-axis,1\nsecond,Volt\n0,1\n1,2\n2,3\n")
    assert "holds one channel (1)" in golden.questions(golden.read(tmp_path / "a.csv"))[0]


def test_names_without_samples_end_in_one_sentence(tmp_path) -> None:
    for text in ("x-axis,1,2\nsecond,Volt,Volt\n", "x-axis,1,2\nsecond,Volt,Volt\na,b,c\n"):
        (tmp_path / "a.csv").write_text(text)
        with pytest.raises(ReadError, match="'a.csv' holds no samples below its names"):
            golden.read(tmp_path / "a.csv")


def test_the_option_of_the_command_line(capsys) -> None:
    assert main(["inspect", str(golden.FOLDER / FILES[0]), "--series-resistance", "1000"]) == 0
    assert "set hrs positive up" in capsys.readouterr().out
    with pytest.raises(OptionError, match="--series-resistance is -1 ohm"):
        calib.read(golden.FOLDER / FILES[0], series_resistance=-1)


def test_the_option_is_kept_for_sweeps_of_other_files(tmp_path) -> None:
    (tmp_path / "a.csv").write_text("V,I\n" + "".join(f"{k / 10},{k * 1e-6}\n" for k in range(9)))
    node = calib.read(tmp_path / "a.csv", series_resistance=220.0)["iv"]
    assert set(node["series_resistance"].values.tolist()) == {220.0}
