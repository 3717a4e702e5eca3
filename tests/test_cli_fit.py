"""calib fit: the files that it writes, options from files, JSON."""

import csv
import json

import openpyxl
import pytest

from calib import data_folder, device_model
from calib.cli import main

SWEEPS = str(data_folder.datasets_folder() / "oxide-sweeps.csv.gz")


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_table_report_and_json(here, capsys):
    arguments = ["--holdout", "0.5", "--table", "fits.csv", "--report", "fit.html", "--name", "<b>&co", "--json"]
    assert main(["fit", SWEEPS, "-o", "device.nc", *arguments]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["files"] == ["device.nc", "fits.csv", "fit.html"]
    coverage = found["validation"]["coverage_90"]
    assert coverage["low"] < coverage["mean"] <= 1
    assert set(coverage) >= {"mean", "low", "high"}
    with open(here / "fits.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    model = device_model.open_device("device.nc")
    assert len(rows) == model["iv"].sizes["curve"]
    assert float(rows[0]["gamma_V^-1/2"]) == pytest.approx(model["iv"]["curve_parameter"].values[0, 1], rel=1e-6)
    assert {row["status"] for row in rows} == {"ok"}
    page = (here / "fit.html").read_text()
    assert "&lt;b&gt;&amp;co" in page
    assert "<b>&co" not in page


def test_workbook(here):
    arguments = ["--columns", "device=0,voltage=1,current=2"]
    lines = [f"=1+{k};{v};{1e-6 * v * (1 + 0.1 * k)}" for k in range(8) for v in (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)]
    (here / "a.csv").write_text("device;voltage (V);current (A)\n" + "\n".join(lines) + "\n")
    assert main(["fit", "a.csv", "-o", "a.nc", "--table", "fits.xlsx", *arguments]) == 0
    book = openpyxl.load_workbook("fits.xlsx")
    assert book.sheetnames == ["curves", "estimates"]
    header, *rows = book["curves"].iter_rows(values_only=True)
    assert header[:4] == ("device", "cycle", "state", "status")
    assert len(rows) == device_model.open_device("a.nc")["iv"].sizes["curve"]
    assert [row[0] for row in rows] == [f"=1+{k}" for k in range(8)]
    assert book["curves"]["A2"].data_type == "s"
    quantities = {row[2] for row in book["estimates"].iter_rows(min_row=2, values_only=True)}
    assert {"g_off", "g_on"} <= quantities


def test_workbook_of_reads_holds_the_estimates_alone(here):
    reads = str(data_folder.datasets_folder() / "crossbar-reads.tsv.gz")
    assert main(["fit", reads, "-o", "a.nc", "--table", "fits.xlsx"]) == 0
    assert openpyxl.load_workbook("fits.xlsx").sheetnames == ["estimates"]


def test_options_of_a_file_are_used_and_the_command_line_comes_first(here, capsys):
    (here / "fit.yaml").write_text("reference-voltage: 0.2\nstuck_rule: range\nname: from the file\ncolumns:\n")
    assert main(["fit", SWEEPS, "-o", "a.nc", "--options", "fit.yaml", "--name", "from the command"]) == 0
    first = device_model.open_device("a.nc")
    options = device_model.attribute(first, "options")
    assert (options["reference_voltage"], options["stuck_rule"]) == (0.2, "range")
    assert first.attrs["name"] == "from the command"
    arguments = ["--options", "a.nc", "--name", "from the command"]
    assert main(["fit", SWEEPS, "-o", "b.nc", *arguments]) == 0
    assert device_model.identity(device_model.open_device("b.nc")) == device_model.identity(first)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("nonsense: 3", "names nonsense; expected options of 'calib fit'"),
        ("- a list", "holds list; expected lines"),
        ("v_max: [", "cannot be read as YAML"),
        ("v_max: far", "v_max is 'far'; expected a number"),
        ("iv_model: magic", "--iv-model is 'magic'"),
        ("name: !!python/object/apply:os.getcwd []", "cannot be read as YAML"),
    ],
)
def test_options_that_cannot_be_used(here, capsys, content, expected):
    (here / "fit.yaml").write_text(content)
    assert main(["fit", SWEEPS, "-o", "a.nc", "--options", "fit.yaml"]) == 1
    assert expected in capsys.readouterr().err
    assert not (here / "a.nc").exists()


@pytest.mark.parametrize(("option", "name"), [("--table", "fits.xml"), ("--report", "fit.pdf")])
def test_names_that_do_not_fit_what_is_written(here, capsys, option, name):
    assert main(["fit", SWEEPS, "-o", "a.nc", option, name]) == 1
    assert "give a name that ends in" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_validate_compares_and_says_when_the_files_are_those_of_the_fit(here, capsys):
    assert main(["validate", "synthetic-oxide", SWEEPS, "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["same_sources"] == ["oxide-sweeps.csv.gz"]
    assert "how well it fits, not how well it predicts" in captured.err
    assert found["coverage_90"]["low"] < found["coverage_90"]["mean"] < found["coverage_90"]["high"]
    assert main(["validate", "synthetic-oxide", SWEEPS]) == 0
    assert found["verdict"] in " ".join(capsys.readouterr().out.split())


def test_validate_needs_what_both_speak_of(here, capsys):
    assert main(["validate", "ta-hfo2", SWEEPS]) == 1
    assert "there is nothing to validate with" in capsys.readouterr().err


def test_reads_validate_a_model_of_reads(here, capsys):
    reads = str(data_folder.datasets_folder() / "crossbar-reads.tsv.gz")
    assert main(["fit", reads, "-o", "a.nc", "--holdout", "0.5", "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found["validation"]["coverage_90"]["mean"] == pytest.approx(0.9, abs=0.03)


def test_what_reads_cannot_give_is_said_before_anything_is_written(here, capsys):
    reads = str(data_folder.datasets_folder() / "crossbar-reads.tsv.gz")
    assert main(["fit", reads, "-o", "a.nc", "--table", "fits.csv"]) == 1
    assert "holds no fits of single curves" in capsys.readouterr().err
    assert not list(here.iterdir())


def test_holdout_needs_sweeps_or_reads(here, capsys):
    (here / "pulses.csv").write_text("\n".join(f"{0.01 * k},{1 - 0.01 * k}" for k in range(1, 60)) + "\n")
    arguments = ["--columns", "potentiation=0,depression=1", "--holdout", "0.5"]
    assert main(["fit", "pulses.csv", "-o", "a.nc", *arguments]) == 1
    message = capsys.readouterr().err
    assert "--holdout takes I-V sweeps or conductance reads, but the measurement holds pulses" in message
