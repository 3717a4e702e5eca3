import json
from pathlib import Path

import pytest

from calib import data_folder, device_model, files
from calib.cli import main
from tests.device_trees import full_device
from tests.result_sets import results


@pytest.fixture
def device(tmp_path: Path) -> str:
    path = tmp_path / "device.nc"
    device_model.save(full_device(), path)
    return str(path)


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "fitted_models"
    device_model.save(full_device(), folder / "test-oxide.nc")
    monkeypatch.setattr(data_folder, "fitted_models_folder", lambda: folder)
    return folder


def test_show(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", device]) == 0
    out = capsys.readouterr().out
    for wanted in ("Poole-Frenkel", "Conductance range", "36 curves of 12 devices", "Not in this model", "1 of 12"):
        assert wanted in out, wanted


def test_show_json(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", device, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["schema"] == "calib-show/1"
    assert found["identity"] == device_model.identity(full_device())


def test_show_of_a_missing_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(tmp_path / "none.nc")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("calib show: there is no file")
    assert error.count("\n") == 1


def test_card_lists_what_was_written_and_what_is_left_out(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", device, "-o", str(tmp_path / "cards"), "--format", "html,json"]) == 0
    out = capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "cards").iterdir()) == ["test-oxide-12.html", "test-oxide-12.json"]
    assert out.count("written: ") == 2
    assert "leaves out: the parameters of single curves" in out


def test_card_json(bundled: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "test-oxide", "-o", str(tmp_path / "cards"), "--format", "json", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert set(row) == {"format", "path", "carries", "omits"}
    assert Path(row["path"]).is_file()


def test_card_with_an_unknown_format(device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", device, "-o", str(tmp_path / "cards"), "--format", "docx"]) == 1
    assert "--format is 'docx'; expected all, or some of" in capsys.readouterr().err
    assert not (tmp_path / "cards").exists()


def test_models_list(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list"]) == 0
    assert "test-oxide" in capsys.readouterr().out
    assert main(["models", "list", "--json"]) == 0
    [row] = json.loads(capsys.readouterr().out)
    assert set(row) == {"name", "technology", "citation", "characteristics", "g_off", "g_on", "identity", "path"}
    assert row["name"] == "test-oxide"
    assert row["g_off"] == pytest.approx(float(full_device()["conductance"]["g_off"]))
    assert "examples" not in row["characteristics"]


def test_models_path(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path", "test-oxide"]) == 0
    assert capsys.readouterr().out.strip() == str(bundled / "test-oxide.nc")
    assert main(["models", "path", "test-oxide", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"name": "test-oxide", "path": str(bundled / "test-oxide.nc")}


def test_models_path_of_an_unknown_name(bundled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "path", "none"]) == 1
    assert "no bundled device model 'none'; found: test-oxide" in capsys.readouterr().err


def test_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, page = tmp_path / "results.nc", tmp_path / "report.html"
    files.write_netcdf(results(), source)
    assert main(["report", str(source), "-o", str(page)]) == 0
    out = capsys.readouterr().out
    assert "median error on nonideal devices" in out
    assert f"written: {page}" in out
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_report_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from calib.cli.report import JSON_KEYS

    source, page = tmp_path / "results.nc", tmp_path / "report.html"
    files.write_netcdf(results(), source)
    assert main(["report", str(source), "-o", str(page), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"report", "summary", "files"}
    assert [part["kind"] for part in found["files"]] == ["evaluation"]
    assert all(key in JSON_KEYS for key in found["summary"][0])
    aware = next(row for row in found["summary"] if (row["run"], row["device"]) == ("aware", "oxide"))
    assert aware["error_median_low"] <= aware["error_median"] <= aware["error_median_high"]
    assert aware["error_over_ideally_trained"] < 0.5


def test_report_of_a_damaged_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "results.nc"
    files.write_netcdf(results(), source)
    source.write_bytes(source.read_bytes()[:2000])
    assert main(["report", str(source), "-o", str(tmp_path / "r.html")]) == 1
    assert "results.nc' cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "r.html").exists()
