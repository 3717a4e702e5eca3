"""The quickstart: every step runs, and it ends with a table and where to look."""

from calib.quickstart import run


def test_the_quickstart_runs_and_runs_again(tmp_path, monkeypatch, capsys):
    from calib import quickstart

    whole = quickstart.quickstart
    monkeypatch.setattr(quickstart, "quickstart", lambda output: whole(output, epochs=2))
    for _ in range(2):  # the second time the training has nothing left to do
        assert run(["-o", str(tmp_path / "out")]) == 0
        printed = capsys.readouterr().out
        assert "Both networks on the device" in printed
        assert "as if the device were ideal" in printed
        for name in ("report.html", "device.nc", "results.nc"):
            assert (tmp_path / "out" / name).stat().st_size > 1000
            assert f"out/{name}" in printed
    assert sorted(path.suffix for path in (tmp_path / "out" / "card").iterdir()) == [".html", ".json"]


def test_a_step_that_fails_stops_the_quickstart(tmp_path, capsys):
    (tmp_path / "taken").write_text("a file where the folder should be")
    assert run(["-o", str(tmp_path / "taken")]) == 1
    assert "the quickstart stopped at '2. Fit a device model'" in capsys.readouterr().err
