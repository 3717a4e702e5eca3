"""Clarius workbooks made here in the layout of the 4200."""

import numpy as np
import pytest

import calib
from calib.errors import ReadError
from calib.reading import find_reader
from tests.readers import golden


def test_two_terminals_and_two_runs(tmp_path) -> None:
    tree = golden.read(golden.clarius(tmp_path / "loop.xlsx"))
    golden.assert_loop(tree, 1.0, 2.0)
    assert set(tree["iv"]["device"].values) == {"loop"}
    assert tree["iv"]["compliance"].values == pytest.approx(1e-3)
    assert tree["iv"]["temperature"].values == pytest.approx(298.15)
    assert tree.attrs["instrument"] == "Keithley 4200 Clarius V1.9"
    assert golden.questions(tree) == []
    assert list(tree.children) == ["iv"]


def test_a_gate_and_repeated_columns(tmp_path) -> None:
    path = golden.clarius(tmp_path / "loop.xlsx", ("BitLine", "Source", "Gate"), gates=(1.0, 1.5, 2.0))
    tree = golden.read(path)
    golden.assert_loop(tree, 1.0, 1.0, 1.0, 2.0, 2.0, 2.0)
    assert tree["iv"]["gate_voltage"].values.tolist() == [1.0, 1.5, 2.0] * 2
    (question,) = golden.questions(tree)
    assert (
        "not a two-terminal sweep: BitLine (BitLineV, BitLineI: sweep), Gate (GateV: step), Source (common)" in question
    )


def test_sheets_calc_and_columns_of_further_names(tmp_path) -> None:
    import openpyxl

    path = golden.clarius(tmp_path / "loop.xlsx")
    book = openpyxl.load_workbook(path)
    for row in (["Rset", "Rreset"], [1.0e4, 2.0e5], [1.1e4, 2.1e5], [1.2e4, 2.2e5]):
        book["Calc"].append(row)
    book["Data"].cell(1, 3, "Time")
    for k in range(17):
        book["Data"].cell(k + 2, 3, 0.5 * k)
    book.save(path)
    tree = golden.read(path)
    np.testing.assert_allclose(tree["iv"]["time"].values[0], 0.5 * np.arange(17))
    assert tree["extra"]["Calc_Rset"].values.tolist() == [1.0e4, 1.1e4, 1.2e4]
    golden.assert_loop(golden.read(path, sheets=("Append1",)), 2.0)
    with pytest.raises(ReadError, match="'loop.xlsx' has no sheet 'X'; give --sheet one of Data, Calc, Append1"):
        golden.read(path, sheets=("X",))


def test_a_workbook_with_settings_of_its_own_is_a_table(tmp_path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.title = "Settings"
    book.active.append(["instrument", "a"])
    sheet = book.create_sheet("Data")
    sheet.append(["V", "I"])
    for v, i in zip(golden.VOLTAGE.tolist(), golden.CURRENT.tolist(), strict=True):
        sheet.append([v, i])
    book.save(tmp_path / "a.xlsx")
    assert find_reader(tmp_path / "a.xlsx").reader.name == "table"


def test_a_workbook_without_data_ends_in_one_sentence(tmp_path) -> None:
    import openpyxl

    path = golden.clarius(tmp_path / "loop.xlsx")
    book = openpyxl.load_workbook(path)
    for name in ("Data", "Append1"):
        book[name].delete_rows(2, 40)
    book.save(path)
    with pytest.raises(ReadError, match="'loop.xlsx' holds no rows of numbers under names such as AnodeI"):
        golden.read(path)


def test_the_real_workbook_is_a_transistor(measurements) -> None:
    (path,) = (measurements / "instrument-native").glob("keithley*.xls")
    assert find_reader(path).reader.name == "keithley-clarius"
    tree = calib.read(path)
    node = tree["iv"].to_dataset()
    assert np.isfinite(node["voltage"].values).sum() == 5 * 7 * 31
    assert len(set(node["device"].values)) == 5
    assert sorted(set(node["gate_voltage"].values)) == [0, 0.5, 1, 1.5, 2, 2.5, 3]
    assert node["compliance"].values == pytest.approx(0.1)
    first = node.sel(sweep=(node["device"] == "W=0.25um L=0.35um") & (node["gate_voltage"] == 1.0))
    assert first["current"].values[0, 1] == pytest.approx(5.796288860437926e-06)
    (question,) = golden.questions(tree)
    for part in ("not a two-terminal sweep", "Bulk (common)", "GateV is kept as gate_voltage"):
        assert part in question
