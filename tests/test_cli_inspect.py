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


def test_a_folder_is_one_row_per_file(sweeps, capsys) -> None:
    folder = sweeps.parent
    (folder / "drift.csv").write_text("t (s),r (kOhm)\n0,50\n10,51\n")
    (folder / "readme.txt").write_text("nothing but words\n")
    assert main(["inspect", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "2 files" in out
    assert "iv: 2 devices, 2 cycles, 8 branches, 162 points" in out
    assert "reads: 1 device, 1 trace, 2 samples" in out
    assert "left out in the folder" in out
    assert "set hrs positive up" not in out


PLOTTED = {
    "reads.csv": "t (s),r (kOhm)\n0,50\n10,51\n20,5100\n",
    "map.csv": "row,col,resistance (kohm)\n" + "".join(f"{k // 4},{k % 4},{k + 1}\n" for k in range(16)),
    "states.csv": "device,R_LRS (ohm),R_HRS (ohm)\n" + "".join(f"{k},{k + 1},{50 * k + 99}\n" for k in range(16)),
    "log.csv": "address,target r min (kohm),target r max (kohm),final r (kohm),success\n"
    + "".join(f"{k},{k % 2},{k % 2 + 1},{k % 2 + 0.5},1\n" for k in range(16)),
    "many.csv": "address,target r min (kohm),target r max (kohm),final r (kohm),success\n"
    + "".join(f"{k},{k + 1},{k + 2},{k + 1.5},1\n" for k in range(16)),
    "train.txt": "(A),t=1e-6,G, 1e-6, 2e-6, 3e-6\n(A),t=1e-6,G, 3e-6, 2e-6\n",
    "levels.csv": "Voltage,Current1,Current2\n-0.5,1e-4,1e-6\n-0.5,1.1e-4,1e-6\n",
}


@pytest.mark.parametrize("suffix", [".png", ".svg"])
@pytest.mark.parametrize("name", ["sweeps.csv", *PLOTTED])
def test_plots(sweeps, name, suffix, capsys) -> None:
    if name in PLOTTED:
        (sweeps.parent / name).write_text(PLOTTED[name])
    picture = sweeps.parent / f"picture{suffix}"
    assert main(["inspect", str(sweeps.parent / name), "--plot", str(picture)]) == 0
    content = picture.read_bytes()
    assert content.startswith(b"\x89PNG" if suffix == ".png" else b"<svg")
    if suffix == ".svg":
        assert b"(S)" in content or b"(A)" in content
    assert "picture" in capsys.readouterr().err


def test_a_plot_needs_a_suffix_that_can_be_written(sweeps, capsys) -> None:
    assert main(["inspect", str(sweeps), "--plot", "x.pdf"]) == 1
    assert "expected the name of a .png or .svg file" in capsys.readouterr().err


def test_one_picture_of_several_kinds(sweeps) -> None:
    (sweeps.parent / "log.csv").write_text(PLOTTED["log.csv"])
    picture = sweeps.parent / "all.svg"
    assert main(["inspect", str(sweeps.parent), "--plot", str(picture)]) == 0
    text = picture.read_text()
    for label in ("|I| (A)", "V (V)", "achieved conductance (S)", "HRS", "target ranges, shaded"):
        assert label in text
