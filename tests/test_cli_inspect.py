"""`calib inspect`."""

import json

import numpy as np
import pytest

from calib.cli import main


@pytest.fixture
def sweeps(tmp_path):
    """Two devices that are set at +1.5 V to a compliance of 50 uA and reset at -1.5 V."""
    lines = ["device,voltage (V),current (A)"]
    voltage = np.concatenate([np.linspace(0, 2, 21), np.linspace(1.9, -2, 40), np.linspace(-1.9, 0, 20)])
    for device in ("A", "B"):
        high = False
        for v in voltage.tolist():
            high = (high or v >= 1.5) and v > -1.5
            lines.append(f"{device},{v!r},{min(v * (1e-4 if high else 1e-6), 5e-5)!r}")
    path = tmp_path / "sweeps.csv"
    path.write_text("\n".join(lines))
    return path


def test_it_prints_what_is_there(sweeps, capsys) -> None:
    assert main(["inspect", str(sweeps), "--temperature", "85 degC"]) == 0
    out = capsys.readouterr().out
    for part in ("sweeps.csv: reader table (text (.csv)", "set hrs positive up", "50.0 uA (positive)", "358.15 K",
                 "-2.00 to 2.00 V", "compliance", "switching", "notes:", "positive voltage sets"):  # fmt: skip
        assert part in out


def test_json_has_the_documented_keys(sweeps, capsys) -> None:
    assert main(["inspect", str(sweeps), "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert set(found) == {"sources", "questions", "notes", "nodes"}
    (part,) = found["nodes"]["iv"]
    assert set(part) == {
        "population", "devices", "temperature", "cycles", "branches", "points", "branches_by_label", "voltage",
        "current", "compliance", "noise_floor", "offset", "offset_stderr", "flags",
    }  # fmt: skip
    assert (part["devices"], part["cycles"], part["branches"], part["points"]) == (2, 2, 8, 162)
    assert part["compliance"] == {"positive": pytest.approx(5e-5), "negative": None}
    assert part["branches_by_label"]["reset lrs negative up"] == 2
    assert part["temperature"] is None


def test_questions_name_their_option(tmp_path, capsys) -> None:
    path = tmp_path / "wide.csv"
    path.write_text("V1,I1,V2,I2\n" + "".join(f"{v},{v},{v},{v}\n" for v in (0.0, 1e-3, 2e-3)))
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    assert "questions:" in out
    assert "--pairs cycle" in out


def test_reads_are_shown(tmp_path, capsys) -> None:
    path = tmp_path / "drift.csv"
    path.write_text("t (s),r (kOhm),note\n0,50,a\n10,51,b\n")
    assert main(["inspect", str(path)]) == 0
    out = capsys.readouterr().out
    for part in ("19.6 to 20.0 uS", "0 to 10.0 s", "extra", "note"):
        assert part in out


def test_problems_come_together_after_what_could_be_read(sweeps, tmp_path, capsys) -> None:
    (tmp_path / "x1.csv").write_text("1,2\n3,4\n5,6\n")
    assert main(["inspect", str(sweeps), str(tmp_path / "x1.csv")]) == 1
    captured = capsys.readouterr()
    assert "set hrs positive up" in captured.out
    assert "'x1.csv': found no header" in captured.err
    (tmp_path / "x2.csv").write_text("words\n")
    assert main(["inspect", str(tmp_path / "x1.csv"), str(tmp_path / "x2.csv")]) == 1
    assert "2 files cannot be read" in capsys.readouterr().err


def test_wrong_usage_is_status_2(sweeps) -> None:
    for arguments in (["--temperature", "warm"], ["--pairs", "cell"]):
        with pytest.raises(SystemExit) as caught:
            main(["inspect", str(sweeps), *arguments])
        assert caught.value.code == 2
