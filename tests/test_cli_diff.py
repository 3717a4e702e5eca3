import json
import re
from pathlib import Path

import pytest

from calib.cli import main
from calib.cli.diff import JSON_KEYS
from calib.device_model import save
from tests.contracts.exporter_contract import bare_device
from tests.device_trees import part_of_device


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    other = json.dumps([{"name": "b.csv", "sha256": "2" * 64}])
    save(part_of_device("conductance", "programming"), tmp_path / "a.nc")
    save(part_of_device("conductance", name="b", sources=other, options='{"v_max": 0.4}'), tmp_path / "b.nc")
    return str(tmp_path / "a.nc"), str(tmp_path / "b.nc")


def test_it_prints_what_was_found(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *files]) == 0
    printed = capsys.readouterr()
    assert "0 of 2 estimates that both models have with their uncertainty differ by more than" in printed.out
    for wanted in ("a: Test oxide 12, identity", "b: b, identity", "conductance of the on state", "Options that differ",
                   "Source files that differ", "Only in a", "programming spread"):  # fmt: skip
        assert wanted in printed.out, wanted
    assert printed.err == ""


def test_only_what_changed_can_be_listed(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *files, "--changed"]) == 0
    printed = capsys.readouterr().out
    assert "conductance of the on state" not in printed
    assert "0 of 2 estimates" in printed


def test_keys_of_the_json_are_documented(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", *files, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    words = set(re.findall(r"[a-z_]+[a-z0-9_]*", JSON_KEYS))
    assert set(found) <= words
    assert set(found["differences"][0]) <= words
    assert found["differences"][0]["more_than_uncertainty"] is False
    assert found["only_a"]
    assert found["statement"].startswith("0 of 2")


def test_models_of_the_same_file_are_warned_about(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(bare_device(), tmp_path / "a.nc")
    save(bare_device(technology="x"), tmp_path / "b.nc")
    assert main(["diff", str(tmp_path / "a.nc"), str(tmp_path / "b.nc")]) == 0
    assert "warning: both models were fitted to sweeps.csv" in capsys.readouterr().err


def test_names_do_not_steer_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        save(bare_device(name=f"\x1b[31m{name}\x07\n[bold]x\u202e"), tmp_path / f"{name}.nc")
    assert main(["diff", str(tmp_path / "a.nc"), str(tmp_path / "b.nc")]) == 0
    printed = capsys.readouterr()
    assert "\\x1b[31ma\\x07 [bold]x\\u202e" in printed.out
    assert not set("\x1b\x07\u202e") & set(printed.out + printed.err)


def test_a_missing_file_and_a_wrong_level_are_named(files: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diff", files[0], "none.nc"]) == 1
    assert "there is no file 'none.nc'" in capsys.readouterr().err
    assert main(["diff", *files, "--level", "0"]) == 1
    assert "level is 0; expected a probability" in capsys.readouterr().err
