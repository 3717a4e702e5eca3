"""`calib inspect` over every published measurement: the kind, the devices and the numbers of everything in it.

The numbers are those that the sources of the files state, or were counted in the files without calib.
"""

import json

import pytest

from calib.cli import main

LOG = "device=0,n_read=1,n_set=2,n_reset=3,resistance=4,resistance_low=6,resistance_high=7,success=8"
DRIFT = {"traces": 1, "devices": 1, "samples": 4315, "levels": 0}
DIODE = {"devices": 1, "cycles": 1, "branches": 4}
TRAIN = {"devices": 1, "sequences": 1, "unit": "S"}
STEPS = {"devices": 1, "traces": 1, "samples": 11}
CASES: list[tuple[str, list[str], str, dict[str, object]]] = [
    ("ddas04-rram/100devices.xlsx", [], "iv", {"devices": 100, "cycles": 100, "branches": 400, "points": 9304}),
    *((f"elgeresy-tio2-drift/{name}_proc.csv", [], "reads", DRIFT) for name in (
        "11_22", "18_15", "19_19", "20_13", "22_11", "5_28", "6_6", "7_26")),
    ("gong-reram/gong_et_al.csv", ["--columns", "potentiation=0,depression=1"], "pulses",
     {"devices": 1, "sequences": 2, "pulses": 2000, "unit": "1", "polarities": {"potentiation": 1, "depression": 1}}),
    ("instrument-native/b1500a*.csv", [], "iv", {"devices": 1, "points": 201}),
    ("instrument-native/keithley*.xls", [], "iv", {"points": 1085}),
    ("knowm-discovery/100Hz_M3_Memristor.csv", ["--columns", "voltage=0,current=1", "--units", "current=uA"], "iv",
     {"devices": 1, "points": 200}),
    ("levy-relaxation/relaxdata.min.tsv.gz", ["--columns", "device=0,time=1,resistance=2,conductance=3,level=5"],
     "reads", {"samples": 89115, "devices": 16292}),
    ("levy-write-verify/fppv*.csv", ["--columns", LOG], "writes",
     {"devices": 8193, "writes": 32772, "targets": 4, "success": [31512, 1260, 0]}),
    *((f"levy-write-verify/retention/{name}-prebake.csv", ["--columns", "resistance=0", "--pairs", "device"], "reads",
       {"devices": 1024, "traces": 1024, "samples": 1024}) for name in ("readtest2bpc1", "relaxation")),
    ("radway-1t1r/100cyc.tsv", ["--columns", "device=0,resistance_lrs=1,resistance_hrs=2,cycle=3"], "reads",
     {"devices": 1024, "traces": 4096, "states": ["hrs", "lrs"]}),
    ("radway-1t1r/read_formed.tsv", ["--columns", "device=0,resistance=1"], "reads",
     {"devices": 65536, "traces": 65536, "samples": 65536}),
    ("radway-1t1r/read_multivolt.tsv", ["--columns", "device=0,current=1,voltage=2"], "iv",
     {"devices": 1024, "branches": 1024, "points": 1024 * 36}),
    ("radway-1t1r/ret1.csv", ["--columns", "device=0,time=1,resistance=2,conductance=3,current=4,voltage=5"], "reads",
     {"devices": 1, "traces": 1, "samples": 10000}),
    *((f"timbie-fib3/FIB3_K9_1_{name}_*Integ1.0.csv", [], "pulses", {**TRAIN, "pulses": pulses, "reads": 5 * pulses})
      for name, pulses in (("5", 11), ("7", 25), ("12", 15))),
    *((f"timbie-fib3/FIB3_K9_1_{name}_*retentiondata.csv", [], "reads", STEPS) for name in ("5", "7", "12")),
    *((f"tiotto-nbsto/p1V_m{end}V.dat", [], "iv", {**DIODE, "points": 102 + 100 * end}) for end in (1, 2, 3, 4)),
    *((f"tiotto-nbsto/DG01*p1V_m{end}V*.csv", [], "iv", {**DIODE, "points": points})
      for end, points in (("1", 402), ("1.5", 502), ("2", 602))),
    ("wang-yflash/data_device2device_prog_erase.txt", [], "pulses",
     {"devices": 96, "sequences": 192, "polarities": {"potentiation": 96, "depression": 96}}),
    ("xiao2025-multilevel/32-levels-retention.xlsx", [], "reads",
     {"devices": 1, "traces": 32, "levels": 32, "samples": 32000, "voltage": [-0.5, -0.5]}),
    ("xiao2025-multilevel/uniformity-data.xlsx", [], "iv",
     {"devices": 25, "cycles": 151, "branches": 604, "points": 151 * 320}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "kind", "expected"), CASES, ids=[case[0] for case in CASES])
def test_every_file(measurements, capsys, name, arguments, kind, expected) -> None:
    (path,) = measurements.glob(name)
    assert main(["inspect", str(path), *arguments, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert [node for node in found["nodes"] if node != "extra"] == [kind]
    part = found["nodes"][kind][0]
    assert {key: part[key] for key in expected} == expected


def test_no_file_is_forgotten(measurements) -> None:
    every = {path for path in measurements.glob("*/**/*") if path.is_file() and path.name != "SOURCE.txt"}
    tested = {path for name, *_ in CASES for path in measurements.glob(name)}
    assert {path.name for path in every - tested} == {"settings.json"}


def test_the_second_sheet_of_100_cycles(measurements, capsys) -> None:
    path = measurements / "ddas04-rram" / "100devices.xlsx"
    assert main(["inspect", str(path), "--sheet", "100cycles", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    (part,) = found["nodes"]["iv"]
    assert (part["devices"], part["cycles"], part["points"]) == (1, 100, 7300)


@pytest.mark.parametrize("name", ["elgeresy-tio2-drift", "timbie-fib3", "tiotto-nbsto", "xiao2025-multilevel"])
def test_folders(measurements, capsys, name) -> None:
    assert main(["inspect", str(measurements / name)]) == 0
    out = capsys.readouterr().out
    files = [path for path in (measurements / name).iterdir() if path.name != "SOURCE.txt"]
    assert f"{len(files)} files" in out
    assert "left out in the folder" in out
    assert "SOURCE.txt" in out


def test_files_without_names_ask_for_columns(measurements, capsys) -> None:
    assert main(["inspect", str(measurements / "radway-1t1r")]) == 1
    err = capsys.readouterr().err
    assert "4 files cannot be read" in err
    assert err.count("--columns") == 4
