"""The table reader on files of every layout seen in the wild, made here."""

import gzip

import numpy as np
import pytest

from calib import measurement as m
from calib.errors import ReadError, UnitError
from calib.readers.base import ReadOptions
from calib.readers.table import member

VOLTAGE = np.array([0, 0.5, 1, 1.5, 1, 0.5, 0, -0.5, -1, -0.5, 0])
CURRENT = np.array([0, 1e-6, 3e-6, 9e-6, 8e-5, 2e-5, 0, -2e-5, -4e-6, -1e-6, 0])


def rows(*columns, separator: str = ",", form=repr, end: str = "\n") -> str:
    return "".join(
        separator.join(form(x) if isinstance(x, float) else str(x) for x in row) + end
        for row in zip(*columns, strict=True)
    )


V, I = VOLTAGE.tolist(), CURRENT.tolist()


def read(path, **options):
    tree = member.read(path, ReadOptions(**options))
    m.check(tree)
    return tree


def one_sweep(path, **options) -> np.ndarray:
    """Voltage and current of the only sweep, checked against the truth."""
    node = read(path, **options)["iv"]
    assert node.sizes["sweep"] == 1
    return np.array([node["voltage"].values[0], node["current"].values[0]])


def comma(value: float) -> str:
    return repr(value).replace(".", ",")


LAYOUTS = {
    "plain": "Voltage (V),Current (A)\n" + rows(V, I),
    "byte-order mark and CRLF": "\ufeffV1,I1\r\n" + rows(V, I, end="\r\n"),
    "decimal comma": "Spannung;Strom\n" + rows(V, I, separator=";", form=comma),
    "decimal comma, tabs": "Voltage\tCurrent\n" + rows(V, I, separator="\t", form=comma),
    "trailing comma": "Item,Smu1.V[1][1],Smu1.I[1][1],\n" + rows(range(11), V, I, [""] * 11),
    "trailing spaces in names": "Time\tVoltage \tCurrent \r\n" + rows(range(11), V, I, separator="\t", end="\r\n"),
    "names by spaces over tabs": "Time\tVoltage Current\n" + rows(range(11), V, I, separator="\t"),
    "all by spaces": "  voltage   current\n" + rows(V, I, separator="   "),
    "comment before the header": "# voltage,current\n" + rows(V, I),
    "several comments": "# made by hand\n# on a Monday\n# voltage current\n" + rows(V, I, separator=" "),
    "row of units": "time,voltage,current\n(s),(mV),(uA)\n"
    + rows(range(11), (1e3 * VOLTAGE).tolist(), (1e6 * CURRENT).tolist()),
    "units in names": "V (mV),current_uA\n" + rows((1e3 * VOLTAGE).tolist(), (1e6 * CURRENT).tolist()),
    "preamble": "Instrument: SMU 3\nOperator, A B\n\nch1 source,ch1 current\n" + rows(V, I),
    "long preamble": "\nSetupTitle, x\n"
    + "TestParameter, a.b, 0.0005\n" * 200
    + "Dimension1, 201, 201\nDataName, V1, I1\n"
    + rows(["DataValue"] * 11, V, I, separator=", "),
    "absolute value beside it": "CH1 Source,CH1 Current,abs_Current\n" + rows(V, I, np.abs(I).tolist()),
    "quoted": '"V","I"\n' + "".join(f'"{v}","{i}"\n' for v, i in zip(V, I, strict=True)),
    "blank lines": "V,I\n\n" + rows(V, I) + "\n\n",
    "blank markers": "V,I,R (ohm)\n"
    + rows(V, I, ["--", "n/a", "NaN", "-", "", "N/A", "--", "null", "#N/A", "None", "nan"]),
    "current before voltage": "I,V\n" + rows(I, V),
    "words between": "V,I\n" + rows(V[:4], I[:4]) + "paused\n" + rows(V[4:], I[4:]),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(LAYOUTS[layout].encode())
    assert one_sweep(path) == pytest.approx(np.array([VOLTAGE, CURRENT]), rel=1e-12)


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_encodings(tmp_path, encoding) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(("V,I (µA)\n" + rows(V, (1e6 * CURRENT).tolist())).encode(encoding))
    assert one_sweep(path)[1] == pytest.approx(CURRENT, rel=1e-12)


def test_gzip(tmp_path) -> None:
    path = tmp_path / "a.csv.gz"
    path.write_bytes(gzip.compress(LAYOUTS["plain"].encode()))
    assert one_sweep(path)[1] == pytest.approx(CURRENT)
    assert read(path)["iv"]["device"].values.tolist() == ["a"]


def test_overrides_by_index_name_and_unit(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(rows(range(11), (1e6 * CURRENT).tolist(), V))
    found = one_sweep(path, columns={"voltage": "2", "current": 1}, units={"current": "uA"})
    assert found == pytest.approx(np.array([VOLTAGE, CURRENT]), rel=1e-12)
    path.write_text("a,b,c\n" + rows(V, I, I))
    assert one_sweep(path, columns={"voltage": "a", "current": "B"})[0] == pytest.approx(VOLTAGE)


def test_an_unlikely_current_asks_for_its_unit(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("V,I\n" + rows(V, (1e6 * CURRENT).tolist()))
    node = read(path)["iv"]
    assert any("--units current=uA" in question for question in m.notes_of(node, "questions"))


def test_devices_cycles_and_other_labels(tmp_path) -> None:
    path = tmp_path / "a.csv"
    labels = [(d, c) for d in ("A", "B") for c in (1, 2) for _ in V]
    path.write_text(
        "device,cycle,temperature (degC),v,i,comment\n"
        + rows([d for d, _ in labels], [c for _, c in labels], [25] * 44, V * 4, I * 4, [f"n{k}" for k in range(44)])
    )
    tree = read(path)
    node = tree["iv"]
    assert node["device"].values.tolist() == ["A", "A", "B", "B"]
    assert node["cycle"].values.tolist() == [0, 1, 0, 1]
    assert node["temperature"].values == pytest.approx(298.15)
    assert node["current"].values[2] == pytest.approx(CURRENT)
    assert tree["extra"]["comment"].values[:2].tolist() == ["n0", "n1"]


def test_interleaved_devices_are_collected(tmp_path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text(rows([7, 9] * 11, np.repeat(I, 2).tolist(), np.repeat(V, 2).tolist(), separator="\t"))
    node = read(path, columns={"device": 0, "current": 1, "voltage": 2})["iv"]
    assert node["device"].values.tolist() == ["7", "9"]
    assert node["voltage"].values == pytest.approx(np.array([VOLTAGE, VOLTAGE]))


def test_what_no_node_holds_is_kept_with_its_unit(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("resistance (kOhm),time (s),res min (ohm)\n8.4,0,5\n8.5,1,6\n")
    tree = read(path)
    assert tree["reads"]["conductance"].values == pytest.approx(np.array([[1 / 8.4e3, 1 / 8.5e3]]))
    assert tree["reads"]["time"].values.tolist() == [[0, 1]]
    assert tree["extra"]["res_min"].attrs == {"units": "ohm", "long_name": "res min (ohm)"}


def test_reads_by_device_state_and_cycle(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("addr,R_LRS,R_HRS,cycle\n1,100,1e4,25\n1,125,1e5,50\n2,200,2e4,25\n")
    node = read(path)["reads"]
    assert node["device"].values.tolist() == ["1", "1", "2"] * 2
    assert node["state"].values.tolist() == ["lrs"] * 3 + ["hrs"] * 3
    assert node["cycle"].values.tolist() == [24, 49, 24] * 2
    assert node["conductance"].values[:, 0] == pytest.approx([0.01, 0.008, 0.005, 1e-4, 1e-5, 5e-5])


def test_a_steady_voltage_gives_reads(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("V,I\n" + rows([0.1, 0.101, 0.099], [1e-6, 2e-6, 3e-6]))
    node = read(path)["reads"]
    assert node["conductance"].values[0] == pytest.approx([1e-5, 2e-6 / 0.101, 3e-6 / 0.099])


WIDE = [f"{v!r},{i!r},{v!r},{2 * i!r}\n" for v, i in zip(V, I, strict=True)]


@pytest.mark.parametrize(
    ("header", "devices", "cycles"),
    [
        ("V_D1,I_D1,V_D2,I_D2\n", ["d1", "d2"], [-1, -1]),
        ("Cycle 1 V,Cycle 1 I,Cycle 2 V,Cycle 2 I\n", ["a", "a"], [0, 1]),
        ("Cycle 1,--,Cycle 1,--\nBIAS 1,--,BIAS 1,--\nVoltage (V), Current (A),Voltage (V), Current (A)\n",
         ["a-001", "a-002"], [-1, -1]),
        ("Device ID,X7,Device ID,X7\nCount,1,Count,2\nV1,I1,V1,I1\n", ["X7", "X7"], [0, 1]),
        ("Device ID,X7,Device ID,X8\nCount,1,Count,1\nV1,I1,V1,I1\n", ["X7", "X8"], [-1, -1]),
    ],
)  # fmt: skip
def test_pairs_side_by_side(tmp_path, header, devices, cycles) -> None:
    path = tmp_path / "a.csv"
    path.write_text(header + "".join(WIDE))
    node = read(path)["iv"]
    assert node["device"].values.tolist() == devices
    assert node["cycle"].values.tolist() == cycles
    assert node["current"].values == pytest.approx(np.array([CURRENT, 2 * CURRENT]))
    assert m.notes_of(node, "questions") == []


def test_pairs_without_labels_are_devices_and_asked_about(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("V1,I1,V2,I2\n" + "".join(WIDE))
    node = read(path)["iv"]
    assert node["device"].values.tolist() == ["a-001", "a-002"]
    assert "give --pairs cycle" in m.notes_of(node, "questions")[0]
    node = read(path, pairs="cycle")["iv"]
    assert node["device"].values.tolist() == ["a", "a"]
    assert node["cycle"].values.tolist() == [0, 1]
    assert m.notes_of(node, "questions") == []


def test_one_voltage_for_several_currents(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        "voltage,current1,current2\n" + "".join(f"{v!r},{i!r},{2 * i!r}\n" for v, i in zip(V, I, strict=True))
    )
    assert read(path)["iv"]["current"].values == pytest.approx(np.array([CURRENT, 2 * CURRENT]))
    path.write_text("Voltage,Current1,Current2\n-0.5,1e-4,1e-6\n-0.5,1.1e-4,\n")
    node = read(path)["reads"]
    assert node["level"].values.tolist() == ["1", "2"]
    assert node["conductance"].values[0] == pytest.approx([2e-4, 2.2e-4])
    assert np.isnan(node["conductance"].values[1, 1])
    assert node["current"].values[0] == pytest.approx([-1e-4, -1.1e-4])


def workbook(path, sheets) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for name, content in sheets.items():
        sheet = book.create_sheet(name)
        for row in content:
            sheet.append(list(row))
    book.save(path)


def test_sheets_with_one_pair_are_devices(tmp_path) -> None:
    sheet = [("CH1 Source", "CH1 Current", "abs_Current"), *zip(V, I, np.abs(I).tolist(), strict=True)]
    workbook(tmp_path / "a.xlsx", {"D1": sheet, "D2": sheet[:8], "empty": [], "text": [("a", "b")]})
    node = read(tmp_path / "a.xlsx")["iv"]
    assert node["device"].values.tolist() == ["D1", "D2"]
    assert node["population"].values.tolist() == ["", ""]
    assert np.isfinite(node["voltage"].values).sum(axis=1).tolist() == [11, 7]
    notes = " ".join(m.notes_of(node))
    assert "sheet 'empty'" in notes
    assert "'abs_Current' is the absolute value of the current" in notes
    assert read(tmp_path / "a.xlsx", sheets=("D2",))["iv"].sizes["sweep"] == 1


def test_sheets_named_after_cycles_are_cycles(tmp_path) -> None:
    sheet = [("V", "I"), *zip(V, I, strict=True)]
    workbook(tmp_path / "a.xlsx", {"Cycle 1": sheet, "Cycle 2": sheet})
    node = read(tmp_path / "a.xlsx")["iv"]
    assert node["device"].values.tolist() == ["a", "a"]
    assert node["cycle"].values.tolist() == [0, 1]
    assert read(tmp_path / "a.xlsx", pairs="device")["iv"]["device"].values.tolist() == ["Cycle 1", "Cycle 2"]


def test_wide_sheets_are_populations_and_temperatures_that_conflict_are_asked_about(tmp_path) -> None:
    """The layout of a published workbook: 3 header rows on one sheet, an instrument preamble per pair on the other."""
    points = list(zip(V, I, strict=True))
    devices = [("Cycle 1", "--") * 3, ("BIAS 1", "--") * 3, ("Voltage (V)", " Current (A)") * 3]
    devices += (
        [(*p, *p, *p) for p in points[:6]] + [("--",) * 6, ("Cycle 1", "--") * 3] + [(*p, *p, *p) for p in points[6:]]
    )
    cycles = [
        ("Test time", 0.55, "Test time", 0.56),
        ("Device ID", "TTW(7)_0.4um_85oC_DC cycles") * 2,
        ("Count", 1, "Count", 2),
        ("Flags", None) * 2,
        ("Name", "Port1") * 2,
        ("Value", "SMU3:HR\tValue\tSMU3:HR", "Value", "SMU3:HR\tValue\tSMU3:HR"),
        ("Name", "Temp") * 2,
        ("Value", 25) * 2,
        ("V1", "I1") * 2,
        *((*p, *p) for p in points),
    ]
    path = tmp_path / "book.xlsx"
    workbook(path, {"devices": devices, "cycles": cycles})
    node = read(path)["iv"]
    assert node["population"].values.tolist() == ["devices"] * 3 + ["cycles"] * 2
    assert (
        node["device"].values.tolist()
        == ["devices-001", "devices-002", "devices-003"] + ["TTW(7)_0.4um_85oC_DC cycles"] * 2
    )
    assert node["cycle"].values.tolist() == [-1, -1, -1, 0, 1]
    assert node["voltage"].values == pytest.approx(np.array([VOLTAGE] * 5))
    assert np.isnan(node["temperature"].values).all()
    (question,) = m.notes_of(node, "questions")
    for part in ("sheet 'cycles'", "'Temp' 25 (298.15 K)", "'85oC' in Device ID (358.15 K)", "--temperature"):
        assert part in question
    given = read(path, temperature=358.15)["iv"]
    assert (given["temperature"].values == 358.15).all()
    assert m.notes_of(given, "questions") == []


@pytest.mark.parametrize(
    ("name", "preamble", "kelvin"),
    [
        ("a.csv", "Temperature: 85 C\n", 358.15),
        ("a.csv", "Temp (K), 300\n", 300.0),
        ("a.csv", "Temp, 25\n", 298.15),
        ("chip_85oC.csv", "", 358.15),
        ("chip_300K_1.csv", "", 300.0),
        ("chip_100K_cycles.csv", "", np.nan),
        ("chip_85oC.csv", "Temp, 85\n", 358.15),
    ],
)
def test_a_stated_temperature_is_used(tmp_path, name, preamble, kelvin) -> None:
    path = tmp_path / name
    path.write_text(preamble + "V,I\n" + rows(V, I))
    assert read(path)["iv"]["temperature"].values == pytest.approx([kelvin], nan_ok=True)


def test_device_and_compliance_of_the_preamble(tmp_path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("Device: A7\nCompliance: 1e-4\nV,I\n" + rows(V, I))
    node = read(path)["iv"]
    assert node["device"].values.tolist() == ["A7"]
    assert node["compliance"].values.tolist() == [1e-4]


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            rows(V, I),
            {},
            r"no header and 2 columns \(first row: 0, 0\), expected voltage and current.*--columns voltage=0",
        ),
        ("a,b\n" + rows(V, I), {}, r"found columns 'a', 'b' .*say which column is which, for example --columns"),
        ("DrainV,DrainI\n" + rows(V, I), {}, "is not a two-terminal sweep: its columns 'DrainV', 'DrainI'"),
        (
            "V,I\n" + rows(V, I),
            {"columns": {"current": "x"}},
            "--columns current=x: 'a.csv' has no such column; it has 0 'V'",
        ),
        ("V,I\n" + rows(V, I), {"columns": {"current": 5}}, "--columns current=5: 'a.csv' has no such column"),
        ("V,I\n" + rows(V, I), {"columns": {"amps": 1}}, "'amps' is no kind of column; known are voltage, current"),
        (
            "V,I\n" + rows(V, I),
            {"columns": {"voltage": 0, "current": 0}},
            "gives column 0 both as voltage and as current",
        ),
        ("V,I\n" + rows(V, ["NaN"] * 11), {}, r"column 'I' \(current\) holds no numbers"),
        ("V1,V2,I1\n" + rows(V, V, I), {}, "found 2 voltage and 1 current columns"),
        ("V1,I1,I2,V2,I3\n" + rows(V, I, I, V, I), {}, "found 2 voltage and 3 current columns"),
        ("V,I\n", {}, "holds no rows of numbers.*its first line is 'V,I'"),
    ],
)
def test_what_cannot_be_known_is_said_with_the_option(tmp_path, content, options, message) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(ReadError, match=message):
        read(path, **options)


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        (
            "V,I\n" + rows(V, I),
            {"units": {"current": "V"}},
            "column 'I' of 'a.csv': current cannot be in 'V'.*--units current=",
        ),
        ("V,I\n" + rows(V, I), {"units": {"current": "frogs"}}, "'frogs' is no unit for current"),
        ("Voltage (A),I\n" + rows(V, I), {}, r"column 'Voltage \(A\)' of 'a.csv': voltage cannot be in 'A'"),
    ],
)
def test_units_that_cannot_be(tmp_path, content, options, message) -> None:
    path = tmp_path / "a.csv"
    path.write_text(content)
    with pytest.raises(UnitError, match=message):
        read(path, **options)


def test_a_sheet_that_does_not_exist(tmp_path) -> None:
    workbook(tmp_path / "a.xlsx", {"D1": [("V", "I"), *zip(V, I, strict=True)]})
    with pytest.raises(ReadError, match="'a.xlsx' has no sheet 'D2'; give --sheet one of D1"):
        read(tmp_path / "a.xlsx", sheets=("D2",))


def test_a_big_regular_file_is_fast(tmp_path) -> None:
    import time

    path = tmp_path / "big.tsv"
    rng = np.random.default_rng(0)
    path.write_text("".join(f"{k}\t{r!r}\n" for k, r in enumerate(rng.uniform(1e4, 1e5, 65536).tolist())))
    start = time.perf_counter()
    node = read(path, columns={"device": 0, "resistance": 1})["reads"]
    assert time.perf_counter() - start < 2.0  # 0.1 s on an idle core
    assert node.sizes == {"trace": 65536, "sample": 1}
    assert node["device"].values[-1] == "65535"


def test_a_bare_list_of_resistances_asks_what_its_rows_are(tmp_path) -> None:
    path = tmp_path / "list.csv"
    path.write_text("5017.3\n6562.3\n8692.1\n")
    node = read(path, columns={"resistance": 0})["reads"]
    assert node.sizes == {"trace": 1, "sample": 3}
    (question,) = m.notes_of(node, "questions")
    assert "3 rows" in question
    assert "--pairs device" in question
    node = read(path, columns={"resistance": 0}, pairs="device")["reads"]
    assert node["device"].values.tolist() == ["list-001", "list-002", "list-003"]
    assert node.sizes == {"trace": 3, "sample": 1}


def test_conductance_is_used_and_resistance_kept(tmp_path) -> None:
    path = tmp_path / "both.csv"
    path.write_text("device,time (s),resistance (ohm),conductance (S)\nA,0,-1e9,-1e-9\nA,1,2e4,5e-5\nB,0,1e4,1e-4\n")
    tree = read(path)
    assert tree["reads"]["conductance"].values[0].tolist() == [-1e-9, 5e-5]
    assert tree["extra"]["resistance"].values.tolist() == [-1e9, 2e4, 1e4]


def test_a_target_range_in_columns_gives_the_target(tmp_path) -> None:
    path = tmp_path / "retention.csv"
    path.write_text("# resistance (ohms),time (s),res min,res_max\n1e4,0,8e3,1.2e4\n1.1e4,5,8e3,1.2e4\n")
    tree = read(path)
    assert tree["reads"]["target"].values == pytest.approx([(1 / 8e3 + 1 / 1.2e4) / 2])
    assert set(tree["extra"].data_vars) == {"res_min", "res_max"}
