"""Training curves for TensorBoard: what is written is what the history holds, once, interrupted or not."""

import builtins
import math
from pathlib import Path
from typing import Any

import pytest

from calib.errors import CalibError, OptionError
from calib.runs import open_run
from calib.tensorboard import TAGS, TensorBoard, curves, scalars
from calib.training import resume_run, train
from tests.simple_devices import blobs, device

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = blobs()
OPTIONS: dict[str, Any] = {
    "dataset": DATA, "layers": (6, 4, 3), "batch_size": 32, "validation_every": 2, "validation_repeats": 2,
}  # fmt: skip


@pytest.fixture
def installed() -> None:
    pytest.importorskip("tensorboard", reason="TensorBoard is not installed (extra tensorboard)")


@pytest.mark.usefixtures("installed")
def test_event_files_hold_the_history(tmp_path: Path) -> None:
    with TensorBoard(tmp_path / "board") as board:
        run = train(device(), output=tmp_path / "run", epochs=3, networks=2, progress=board, **OPTIONS)
    for network in range(2):
        found = scalars(tmp_path / "board" / f"network-{network}")
        history = run.history(network)
        assert {TAGS[key] for key in history[0] if key not in ("epoch", "line_residual")} <= set(found)
        for key, tag in TAGS.items():
            expected = {int(row["epoch"]): row[key] for row in history if math.isfinite(row[key])}
            assert found.get(tag, {}) == pytest.approx(expected, rel=1e-6)
    assert sorted(scalars(tmp_path / "board" / "network-0")["validation/error_median"]) == [1, 2, 3]


@pytest.mark.usefixtures("installed")
def test_a_resumed_run_is_continued(tmp_path: Path) -> None:
    class Interrupted(Exception):
        pass

    board = TensorBoard(tmp_path / "board")

    def stops(network: int, row: dict[str, float]) -> None:
        if row["epoch"] == 3:  # the checkpoint is written, the scalars are not
            raise Interrupted
        board(network, row)

    with pytest.raises(Interrupted):
        train(device(), output=tmp_path / "run", epochs=5, progress=stops, **OPTIONS)
    (events,) = (tmp_path / "board" / "network-0").iterdir()
    with events.open("ab") as file:
        file.write(b"\x18\x00\x00\x00")  # the process was killed while it wrote
    with curves(tmp_path / "board", open_run(tmp_path / "run")) as again:
        resumed = resume_run(tmp_path / "run", data=DATA, progress=again)
    found = scalars(tmp_path / "board" / "network-0")["train/loss"]
    assert found == pytest.approx({int(row["epoch"]): row["train_loss"] for row in resumed.history(0)}, rel=1e-6)
    assert sorted(found) == [1, 2, 3, 4, 5]


@pytest.mark.usefixtures("installed")
def test_the_folder_of_a_longer_run_is_refused(tmp_path: Path) -> None:
    run = train(device(), output=tmp_path / "run", epochs=1, **OPTIONS)
    with TensorBoard(tmp_path / "board") as board:
        board(0, {"epoch": 2.0, "train_loss": 1.0})
    with TensorBoard(tmp_path / "board") as other, pytest.raises(OptionError, match="holds 2 epochs, but network 0"):
        other.catch_up(run)


@pytest.mark.usefixtures("installed")
def test_a_new_run_does_not_continue_an_old_one(tmp_path: Path) -> None:
    with curves(tmp_path / "board") as write:
        write(0, {"epoch": 1.0, "train_loss": 1.0})
    with pytest.raises(OptionError, match="curves of an earlier run"), curves(tmp_path / "board"):
        pass
    with curves(None) as write:
        write(0, {"epoch": 1.0, "train_loss": 1.0})


@pytest.mark.usefixtures("installed")
def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "board").write_text("")
    with pytest.raises(OptionError, match="is a file; expected a folder"):
        TensorBoard(tmp_path / "board")


def test_the_extra_is_named_where_it_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.startswith("torch.utils.tensorboard"):
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return found(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(CalibError, match=r"pip install 'calib-memristor\[tensorboard\]'"):
        TensorBoard(tmp_path)
