"""Experiments as YAML files: read, completed, written, and won over by the command line."""

from pathlib import Path

import numpy as np
import pytest

from calib import cli, device_model, experiment, runs
from calib.errors import OptionError
from tests.simple_devices import blobs, device

pytestmark = pytest.mark.usefixtures("one_thread")

TEXT = """
device: {device}
data: {data}
layers: [6, 5, 3]
array: {{rows: 4, columns: 8}}
energy-weight: 1e-1
average: exponential:0.9
epochs: 3
networks: 1
validation_repeats: 2
"""


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    data = blobs()
    arrays = {
        f"{part}_{kind}": getattr(data, f"{part}_{kind}") for part in ("train", "test") for kind in ("images", "labels")
    }
    np.savez(tmp_path / "blobs.npz", **arrays)
    device_model.save(device(), tmp_path / "device.nc")
    return {"device": str(tmp_path / "device.nc"), "data": str(tmp_path / "blobs.npz")}


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "experiment.yaml"
    path.write_text(text)
    return path


def test_values_are_read_as_what_they_are(tmp_path: Path) -> None:
    found = experiment.read(written(tmp_path, TEXT.format(device="d.nc", data="b.npz")))
    assert found == {
        "device": "d.nc",
        "data": "b.npz",
        "layers": (6, 5, 3),
        "array": "rows=4,columns=8",
        "energy_weight": 0.1,
        "average": "exponential:0.9",
        "epochs": 3,
        "networks": 1,
        "validation_repeats": 2,
    }
    assert experiment.read(written(tmp_path, "layers: 6-5-3\nideal: true\nl1: 1\n")) == {
        "layers": (6, 5, 3),
        "ideal": True,
        "l1": 1.0,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("learning-rat: 1", "no option 'learning-rat'; did you mean learning_rate"),
        ("zzz: 1", "no option 'zzz'; expected device"),
        ("epochs: 2.5\ndraws: true", "epochs is 2.5; expected a whole number; draws is True; expected a whole number"),
        ("ideal: 1", "ideal is 1; expected true or false"),
        ("l1: little", "l1 is 'little'; expected a number"),
        ("layers: [6, a]", "layers is .*; expected sizes such as 784-25-10"),
        ("mapping: [double]", "mapping is .*; expected a text"),
        ("- epochs", "holds list; expected lines"),
        ("device: !!python/object/apply:os.getcwd []", "cannot be read as an experiment"),
        ("a: [", "cannot be read as an experiment"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        experiment.read(written(tmp_path, text))


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="cannot be read as an experiment"):
        experiment.read(tmp_path / "none.yaml")


def test_the_options_are_those_of_a_run() -> None:
    from dataclasses import fields

    assert {f.name for f in fields(runs.TrainingOptions)} == {*experiment.OPTIONS, "dataset"}


def test_an_experiment_runs_is_written_and_repeats_from_its_run(
    tmp_path: Path, places: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, TEXT.format(**places))
    again = tmp_path / "again.yaml"
    one, two, three = (str(tmp_path / name) for name in ("one", "two", "three"))
    command = ["train", "--experiment", str(path), "--epochs", "2", "-o", one, "--write-experiment", str(again)]
    assert cli.main(command) == 0
    options = runs.open_run(one).options
    assert (options.epochs, options.layers, options.array) == (2, (6, 5, 3), "rows=4,columns=8")
    assert (options.energy_weight, options.average) == (0.1, "exponential:0.9")
    assert cli.main(["train", "--experiment", str(again), "-o", two]) == 0
    assert cli.main(["train", "--experiment", one, "-o", three]) == 0
    capsys.readouterr()
    histories = [runs.open_run(run).history(0) for run in (one, two, three)]
    assert runs.open_run(two).options == options == runs.open_run(three).options
    np.testing.assert_equal(histories[1], histories[0])
    np.testing.assert_equal(histories[2], histories[0])
    assert cli.main(["train", "--experiment", str(again), "-o", one, "--resume"]) == 0
    assert cli.main(["train", "--experiment", str(again), "--draws", "2", "-o", one, "--resume"]) == 1
    assert "has draws = 1, but 2 was given" in capsys.readouterr().err


def test_no_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train", "--device", "siox-high-resistance"]) == 1
    assert "no folder for the run was given; add -o RUN" in capsys.readouterr().err
