"""Training runs: that they learn, that they can be interrupted, and what is refused."""

import csv
import dataclasses
import json

import numpy as np
import pytest
import torch

from calib import runs, training
from calib.crossbar.devices import Devices
from calib.errors import ModelError, OptionError
from calib.networks import build_network
from calib.training import resume_run, train
from tests.simple_devices import blobs, device, everything, iv_node

DATA = blobs()


pytestmark = pytest.mark.usefixtures("one_thread")


SMALL = {"dataset": DATA, "layers": (6, 4, 3), "batch_size": 16, "validation_every": 3, "validation_repeats": 4}


def short(path, tree=None, **options) -> runs.Run:
    return train(device() if tree is None else tree, output=path, **{**SMALL, "epochs": 4, **options})


def numbers(run: runs.Run) -> list[object]:
    states = [run.checkpoint(index) for index in range(run.options.networks)]
    return [
        value
        for state in states
        for value in (
            *state["network"].values(),
            *state["best"].values(),
            *(list(row.values()) for row in state["history"]),
        )
    ]


def assert_same(a: runs.Run, b: runs.Run) -> None:
    for x, y in zip(numbers(a), numbers(b), strict=True):
        if isinstance(x, torch.Tensor):
            assert torch.equal(x, y)
        else:
            np.testing.assert_array_equal(x, y)
    text = [(run.folder(0) / "history.csv").read_text() for run in (a, b)]
    assert text[0] == text[1]


def test_training_learns_on_nonideal_devices(tmp_path) -> None:
    run = short(tmp_path / "run", epochs=25, learning_rate=0.05, validation_every=25)
    history = run.history(0)
    assert history[-1]["train_loss"] < 0.5 * history[0]["train_loss"]
    assert history[-1]["validation_error_median"] < 0.5 * history[0]["validation_error_median"]


def test_a_run_folder_tells_what_it_is(tmp_path) -> None:
    run = short(tmp_path / "run")
    record = json.loads((run.path / "run.json").read_text())
    assert record["options"]["layers"] == [6, 4, 3]
    assert record["data"]["sha256"] == DATA.sha256
    assert set(record["versions"]) == {"calib", "torch", "numpy", "python"}
    assert str(tmp_path) not in (run.path / "run.json").read_text()
    with open(run.folder(0) / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3", "4"]
    assert [bool(row["validation_error_median"]) for row in rows] == [True, False, True, True]
    state = torch.load(run.folder(0) / "checkpoint.pt", weights_only=True)
    assert state["epoch"] == 4


def test_an_interrupted_run_continues_with_the_same_numbers(tmp_path) -> None:
    options = {"networks": 2, "epochs": 4}
    whole = short(tmp_path / "whole", everything(), **options)

    def stop(network: int, row: dict[str, float]) -> None:
        if network == 1 and row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        short(tmp_path / "cut", everything(), progress=stop, **options)
    assert len(runs.open_run(tmp_path / "cut").history(1)) == 2
    resume_run(tmp_path / "cut", data=DATA)
    assert_same(whole, runs.open_run(tmp_path / "cut"))


def test_interrupted_within_an_epoch(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = short(tmp_path / "whole")
    steps, real = [], training.step

    def step(*args):
        steps.append(0)
        if len(steps) == 15:  # 6 steps an epoch
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(training, "step", step)
    with pytest.raises(KeyboardInterrupt):
        short(tmp_path / "cut")
    assert len(runs.open_run(tmp_path / "cut").history(0)) == 2
    monkeypatch.undo()
    assert_same(whole, short(tmp_path / "cut", resume=True))


def test_the_same_seed_gives_the_same_numbers_and_others_do_not(tmp_path) -> None:
    first, again, other = (short(tmp_path / f"run{i}", seed=seed) for i, seed in enumerate((3, 3, 4)))
    assert_same(first, again)
    assert not torch.equal(numbers(first)[0], numbers(other)[0])


def test_weights_stay_in_their_range(tmp_path) -> None:
    run = short(tmp_path / "run", learning_rate=0.1)
    assert all(float(value.min()) >= 0 for value in run.checkpoint(0)["network"].values())


def test_l1_lowers_the_weights(tmp_path) -> None:
    plain, regularised = (short(tmp_path / name, l1=l1, learning_rate=0.03) for name, l1 in (("a", 0.0), ("b", 0.1)))
    total = [sum(float(w.sum()) for w in run.checkpoint(0)["network"].values()) for run in (plain, regularised)]
    assert total[1] < 0.7 * total[0]


def test_l1_is_the_gradient_of_the_sum_of_weights() -> None:
    devices = Devices.from_model(device()).ideal()
    model = build_network((6, 4, 3), "lowest", devices, (0,))
    layers = list(model)[::2]
    images, labels = torch.tensor(DATA.train_images[:16]), torch.tensor(DATA.train_labels[:16])
    expected = torch.nn.functional.cross_entropy(model(images), labels)
    expected = expected + 0.01 * sum(layer.weight.abs().sum() for layer in layers)
    gradients = torch.autograd.grad(expected, list(model.parameters()))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    training.step(model, layers, torch.optim.SGD(model.parameters(), lr=1.0), images, labels, 0.01)
    for old, new, gradient in zip(before, model.parameters(), gradients, strict=True):
        torch.testing.assert_close(old - new.detach(), gradient, rtol=1e-4, atol=1e-6)


def test_ideal_training_draws_no_devices(tmp_path) -> None:
    one = short(tmp_path / "a", device(), ideal=True)
    other = short(tmp_path / "b", device(iv=iv_node(spread=0.1)), ideal=True)
    assert_same(one, other)
    assert not one.devices().is_ideal


def test_the_best_checkpoint_is_kept(tmp_path) -> None:
    run = short(tmp_path / "run", epochs=9, learning_rate=0.3, schedule="constant")
    state = run.checkpoint(0)
    errors = [row["validation_error_median"] for row in state["history"]]
    assert state["best_error"] == np.nanmin(errors)
    assert state["best_epoch"] == 1 + int(np.nanargmin(errors))


def test_schedules(tmp_path) -> None:
    cosine, constant = (short(tmp_path / s, schedule=s, learning_rate=0.01).history(0) for s in ("cosine", "constant"))
    assert cosine[0]["learning_rate"] > cosine[-1]["learning_rate"] > 0
    assert {row["learning_rate"] for row in constant} == {0.01}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mapping": "triple"}, "no mapping 'triple'; expected one of double, lowest, average"),
        ({"mapping": "bit-slicing:slices=4,bit=x"}, "bit"),
        ({"array": "rows=64,colums=2"}, "did you mean columns"),
        ({"array": "word_segment=0.5", "energy_weight": 1.0}, "energy_weight is 1.0 on an array with line"),
        ({"array": "columns=1"}, "an array of 1 columns cannot hold the 2 bit lines"),
        ({"momentum": 0.9}, "momentum is 0.9 for adam"),
        ({"average": "exponential:2"}, "average is 'exponential:2'; expected exponential:B"),
        ({"average": "swa", "warm_up": 1.0}, "warm_up is 1.0.*average is 'swa'"),
        ({"draws": 0, "patience": 0}, "draws is 0.*patience is 0"),
        ({"clip_gradient": 0.0, "energy_weight": -1.0}, "energy_weight is -1.0.*clip_gradient is 0.0"),
        ({"optimizer": "lbfgs", "schedule": "step"}, "optimizer is 'lbfgs'.*schedule is 'step'"),
        ({"layers": (5, 3)}, "layers are 5-3; 'blobs' needs 6 first and at least 3 last"),
        ({"epochs": 0}, "epochs is 0; expected at least 1"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"l1": -1.0}, "l1 is -1.0"),
        ({"input_voltage": 0.8}, "beyond the 0.5 V"),
    ],
)
def test_bad_options_are_refused(tmp_path, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        short(tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_exists_is_not_overwritten(tmp_path) -> None:
    short(tmp_path / "run", epochs=1)
    with pytest.raises(OptionError, match="exists already; continue it with --resume"):
        short(tmp_path / "run", epochs=1)


def test_resuming_something_else_is_refused(tmp_path) -> None:
    short(tmp_path / "run", epochs=1)
    with pytest.raises(OptionError, match=r"has epochs = 1, but 4 was given"):
        short(tmp_path / "run", resume=True)
    with pytest.raises(OptionError, match="another device model"):
        short(tmp_path / "run", everything(), epochs=1, resume=True)
    with pytest.raises(OptionError, match="'blobs' with SHA-256"):
        resume_run(tmp_path / "run", data=dataclasses.replace(DATA, sha256="1" * 64))
    with pytest.raises(OptionError, match="given from Python; give them again"):
        resume_run(tmp_path / "run")


def test_damaged_runs_are_refused(tmp_path) -> None:
    run = short(tmp_path / "run", epochs=1)
    with pytest.raises(ModelError, match="is no run of calib"):
        runs.open_run(tmp_path)
    path = run.folder(0) / "checkpoint.pt"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
        run.checkpoint(0)
    text = (run.path / "run.json").read_text()
    (run.path / "run.json").write_text(text.replace(run.record["device"]["sha256"], "0" * 64))
    with pytest.raises(ModelError, match="not the one it was trained on"):
        runs.open_run(run.path)


def test_no_device_is_refused(tmp_path) -> None:
    with pytest.raises(OptionError, match="no device model was given"):
        train(output=tmp_path / "run", **SMALL)
