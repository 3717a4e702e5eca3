import json
from pathlib import Path

import pytest

from calib import exporters
from calib.cli import main
from calib.device_model import save
from tests.contracts.exporter_contract import bare_device


@pytest.fixture
def device(tmp_path: Path) -> str:
    save(bare_device(), tmp_path / "device.nc")
    return str(tmp_path / "device.nc")


def test_the_formats_are_listed_without_a_device(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", "--list"]) == 0
    printed = capsys.readouterr().out
    for name in exporters.names():
        assert name in printed
    assert "leaves out" not in printed


def test_the_list_says_what_of_a_device_each_format_leaves_out(device: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", device, "--list", "--format", "html,json", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["format"] for row in rows] == ["html", "json"]
    assert set(rows[0]) == {"format", "suffix", "carries", "omits"}
    assert rows[0]["omits"] == exporters.exporter("html").omits(bare_device())
    assert main(["card", "--list", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == exporters.listing()
    assert {row["omits"] for row in rows} == {None}
    assert main(["card", device, "--list", "--format", "json"]) == 0
    assert "json leaves out: when and by which version" in capsys.readouterr().out


def test_cards_are_written_and_what_they_leave_out_is_said_once(
    device: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["card", device, "-o", str(tmp_path / "cards"), "--format", "json,markdown"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("leaves out: when and by which version") == 1
    assert sorted(path.name for path in (tmp_path / "cards").iterdir()) == ["test-oxide-12.json", "test-oxide-12.md"]


def test_cards_of_python_and_of_the_command_line_are_the_same(device: str, tmp_path: Path) -> None:
    assert main(["card", device, "-o", str(tmp_path / "a"), "--format", "json,html,pdf"]) == 0
    paths = exporters.export(device, tmp_path / "b", ["json", "html", "pdf"])
    assert [path.read_bytes() for path in paths] == [(tmp_path / "a" / path.name).read_bytes() for path in paths]


@pytest.mark.parametrize("arguments", [[], ["-o", "cards"], ["ta-hfo2"]])
def test_a_device_and_a_folder_are_needed(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["card", *arguments]) == 1
    assert "give a device model and -o FOLDER" in capsys.readouterr().err
