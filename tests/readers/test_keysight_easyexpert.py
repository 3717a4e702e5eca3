"""EasyEXPERT csv files of our own making, in the instrument's layout."""

import numpy as np
import pytest

import calib
from calib.errors import ReadError
from calib.measurement import notes_of
from calib.reading import find_reader
from tests.readers import golden


def test_two_units_and_two_records_of_one_file() -> None:
    tree = golden.read("easyexpert_two_units.csv")
    golden.assert_loop(tree, 1.0, 1.5)
    node = tree["iv"]
    assert set(node["device"].values) == {"W3-A7"}
    assert node["compliance"].values == pytest.approx(1e-4)
    assert node["temperature"].values == pytest.approx(358.15)
    assert tree.attrs["instrument"] == "B1500A"
    assert golden.questions(tree) == []
    extra = tree["extra"]
    assert {"Vbot", "Ibot", "run"} <= set(extra.data_vars)
    assert extra["run"].values.tolist() == [0] * 17 + [1] * 17
    cycles = calib.read(golden.FOLDER / "easyexpert_two_units.csv")["iv"]["cycle"].values
    assert set(cycles.tolist()) == {0, 1}


def test_a_stepped_gate_is_kept_as_a_coordinate_and_asked_about() -> None:
    tree = golden.read("easyexpert_gate.csv")
    golden.assert_loop(tree, 1.0, 2.0)
    assert tree["iv"]["gate_voltage"].values.tolist() == [1.0, 1.5]
    assert "GateI" in tree["extra"]
    (question,) = golden.questions(tree)
    for part in ("not a two-terminal sweep", "GateV is kept as gate_voltage", "SMU2:HR (SLV: common)", "--columns"):
        assert part in question


def test_the_unprefixed_variant() -> None:
    tree = golden.read("easyexpert_unprefixed.csv")
    golden.assert_loop(tree, 1.0)
    assert tree["iv"]["compliance"].values == pytest.approx(1e-4)
    assert golden.questions(tree) == []


def test_columns_override_the_choice() -> None:
    tree = golden.read("easyexpert_two_units.csv", columns={"voltage": "Vtop", "current": "Ibot"})
    golden.assert_loop(tree, -1.0, -1.5)
    assert golden.questions(tree) == []


def test_a_current_recorded_at_the_other_unit_only(tmp_path) -> None:
    text = (golden.FOLDER / "easyexpert_two_units.csv").read_text(encoding="utf-8-sig")
    for old, new in (("DataName, Vtop, Itop,", "DataName, Vtop, Other,"), ("IName, Itop,", "IName, Iunused,")):
        text = text.replace(old, new)
    (tmp_path / "a.csv").write_text(text)
    tree = golden.read(tmp_path / "a.csv")
    golden.assert_loop(tree, 1.0, 1.5)
    assert any("minus Ibot" in note for note in notes_of(tree["iv"]))


def test_a_gate_that_is_swept_leaves_no_two_terminal_sweep(tmp_path) -> None:
    lines = ["SetupTitle, IdVg", "TestParameter, Channel.VName, Vg, Vd", "TestParameter, Channel.IName, Ig, Id",
             "TestParameter, Channel.Func, VAR1, CONST", "DataName, Vg, Vd, Id"]  # fmt: skip
    lines += [f"DataValue, {k / 10}, 0.05, {k * 1e-7}" for k in range(11)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    tree = golden.read(tmp_path / "a.csv")
    assert list(tree.children) == ["extra"]
    assert "sweeps the gate" in golden.questions(tree)[0]
    assert calib.read(tmp_path / "a.csv")["extra"].sizes == {"record": 11}


def test_a_held_voltage_gives_reads(tmp_path) -> None:
    lines = ["SetupTitle, I/V-t Sampling", "TestParameter, Channel.VName, V1", "DataName, Time, V1, I1"]
    lines += [f"DataValue, {k}, 0.1, {(1 + k) * 1e-7}" for k in range(5)]
    (tmp_path / "a.csv").write_text("\n".join(lines))
    node = golden.read(tmp_path / "a.csv")["reads"]
    np.testing.assert_allclose(node["conductance"].values[0], np.arange(1, 6) * 1e-6)
    assert node["time"].values[0].tolist() == [0, 1, 2, 3, 4]


def test_blanks_overflow_and_short_lines_are_counted(tmp_path) -> None:
    text = (golden.FOLDER / "easyexpert_unprefixed.csv").read_text()
    text = text.replace("0.5,5E-06,5E-06", "0.5,9.91E+37,9.91E+37", 1).replace("0.75,7.5E-06,7.5E-06", "0.75", 1)
    (tmp_path / "a.csv").write_text(text)
    tree = golden.read(tmp_path / "a.csv")
    assert len(golden.sweeps(tree)[0][0]) == 15
    assert any("2 values beyond 1e+30" in note for note in notes_of(tree["iv"]))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SetupTitle, a\nTestParameter, b, c\nDataName, V1, I1\n", "holds no DataValue lines"),
        ("SetupTitle, a\nTestParameter, b, c\nDataValue, 1, 2\n", "without a DataName line"),
        ("SetupTitle, a\nDataName, Index, Foo\nDataValue, 1, 2\n", "found columns 'Index', 'Foo'"),
    ],
)
def test_what_it_cannot_read_ends_in_one_sentence(tmp_path, text, message) -> None:
    (tmp_path / "a.csv").write_text(text)
    with pytest.raises(ReadError, match=message):
        golden.read(tmp_path / "a.csv")


def test_dimension2_that_does_not_divide_is_said(tmp_path) -> None:
    text = (golden.FOLDER / "easyexpert_gate.csv").read_text().replace("Dimension2, 2", "Dimension2, 99999999")
    (tmp_path / "a.csv").write_text(text)
    tree = golden.read(tmp_path / "a.csv")
    assert any("99999999 sweeps" in note for note in notes_of(tree["iv"]))


def test_the_real_file_is_a_transistor(measurements) -> None:
    (path,) = (measurements / "instrument-native").glob("b1500a*.csv")
    assert find_reader(path).reader.name == "keysight-easyexpert"
    tree = calib.read(path)
    node = tree["iv"]
    assert np.isfinite(node["voltage"].values).sum() == 201
    assert np.nanmin(node["voltage"].values) == -0.05
    assert node["compliance"].values == pytest.approx(1e-5)
    assert set(node["device"].values) == {"00_02_00"}
    (question,) = golden.questions(tree)
    for part in ("not a two-terminal sweep", "DrainV", "SMU3:MP", "--columns voltage"):
        assert part in question
