"""Networks of the user: found, called, checked, trained, evaluated and resumed like fully connected ones."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from calib import networks, runs
from calib.crossbar.convolution import MemristiveConv2d
from calib.crossbar.devices import Devices
from calib.crossbar.layers import memristive_layers
from calib.errors import ModelError, OptionError
from calib.evaluation import chip_performance
from calib.training import resume_run, train
from tests.simple_devices import blobs, device
from tests.test_training import assert_same

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = dataclasses.replace(blobs(features=24), image_shape=(4, 6))
CODE = """
import torch
from torch import nn

def flat(n_features, n_classes, hidden=5):
    return nn.Sequential(nn.Linear(n_features, hidden), nn.ReLU(), nn.Dropout(0.2), nn.Linear(hidden, n_classes))

def images(image_shape, n_classes):
    channels, height, width = image_shape
    return nn.Sequential(nn.Conv2d(channels, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(),
                         nn.Linear(2 * (height - 2) * (width - 2), n_classes))

def no_layers(n_features, n_classes):
    return nn.Identity()

def no_module(n_features, n_classes):
    return 3

def other_parameters(width, n_classes):
    return nn.Linear(width, n_classes)

def too_few(n_features, n_classes):
    return nn.Linear(n_features, n_classes - 1)
"""
SMALL = {"dataset": DATA, "batch_size": 16, "validation_every": 3, "validation_repeats": 3, "epochs": 3}


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> str:
    """A module in the current folder, with a name of its own because Python keeps what it has imported."""
    name = "own_" + "".join(c if c.isalnum() else "_" for c in request.node.name)
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    return name


@pytest.mark.parametrize("function", ["flat", "images"])
def test_a_network_of_the_user_is_trained_resumed_and_evaluated(tmp_path: Path, own: str, function: str) -> None:
    options = {**SMALL, "network": f"{own}:{function}", "learning_rate": 0.03, "average": "tail:0.5", "epochs": 6}
    whole = train(device(), output=tmp_path / "whole", **options)
    assert whole.options.layers == ()
    assert whole.options.architecture == f"{own}:{function}"
    history = whole.history(0)
    assert history[-1]["train_loss"] < history[0]["train_loss"]

    def stop(network: int, row: dict[str, float]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(device(), output=tmp_path / "cut", progress=stop, **options)
    assert_same(whole, resume_run(tmp_path / "cut", data=DATA))
    opened = runs.open_run(tmp_path / "whole")
    model = opened.network(0, opened.devices())
    assert isinstance(memristive_layers(model)[-1].devices, Devices)
    found = chip_performance(
        model, torch.tensor(DATA.test_images), torch.tensor(DATA.test_labels), seed=0, chips=range(3)
    )
    assert np.isfinite(found.loss).all()
    assert (found.power > 0).all()


def test_flat_images_become_images_again(own: str) -> None:
    x = torch.arange(2 * 24.0).view(2, 24)
    assert torch.equal(networks.Images((4, 6))(x), x.view(2, 1, 4, 6))
    assert torch.equal(networks.Images((2, 4, 3))(x), x.view(2, 2, 4, 3).movedim(-1, 1))
    assert torch.equal(networks.Images((3, 4, 2))(x), x.view(2, 3, 4, 2))
    assert networks.channels_first((2, 4, 3)) == (3, 2, 4)
    devices = Devices.from_model(device()).ideal()
    model = networks.build_own_network(f"{own}:images", (4, 6), 3, "double", devices, (0, 0))
    assert any(isinstance(part, MemristiveConv2d) for part in model.modules())


def test_the_first_weights_follow_from_the_key_alone(own: str) -> None:
    devices = Devices.from_model(device()).ideal()
    state = torch.get_rng_state()
    one, same, other = (
        memristive_layers(networks.build_own_network(f"{own}:flat", (24,), 3, "double", devices, (0, key)))[0].weight
        for key in (0, 0, 1)
    )
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ("{own}", "expected module:function"),
        ("{own}:nothing", "has no function 'nothing'"),
        ("there_is_none:make", "no module 'there_is_none'.*current folder"),
        ("{own}:no_layers", "has no linear layer"),
        ("{own}:no_module", "returned int; expected a torch.nn.Module"),
        ("{own}:other_parameters", r"parameters \(width, n_classes\); expected n_classes"),
        ("{own}:too_few", r"gives \(2, 2\) of 2 images; expected \(2, classes\) with at least 3"),
        ("os:system", "the function of --network os:system has the parameters"),
    ],
)
def test_networks_that_cannot_be_used_are_refused(tmp_path: Path, own: str, network: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        train(device(), output=tmp_path / "run", network=network.format(own=own), **SMALL)
    assert not (tmp_path / "run").exists()


def test_a_module_that_fails_to_import_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_broken.py").write_text("def make(:\n")
    (tmp_path / "own_needs.py").write_text("import a_module_that_is_not_there\n")
    with pytest.raises(OptionError, match="'own_broken' cannot be imported: invalid syntax"):
        networks.source_hash("own_broken:make")
    with pytest.raises(OptionError, match="'own_needs' cannot be imported: No module named 'a_module_that"):
        networks.source_hash("own_needs:make")


def test_layers_and_a_network_exclude_each_other(tmp_path: Path, own: str) -> None:
    with pytest.raises(OptionError, match="layers and the network .* were both given"):
        train(device(), output=tmp_path / "run", network=f"{own}:flat", layers=(24, 3), **SMALL)


def test_another_file_of_the_network_is_refused(tmp_path: Path, own: str) -> None:
    run = train(device(), output=tmp_path / "run", network=f"{own}:flat", **{**SMALL, "epochs": 1})
    (tmp_path / f"{own}.py").write_text(CODE.replace("nn.ReLU", "nn.Sigmoid"))
    with pytest.raises(OptionError, match="is not the one that the run"):
        run.network(0, run.devices())


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    run = train(device(), output=tmp_path / "run", **{**SMALL, "epochs": 1, "layers": (24, 4, 3)})
    other = dataclasses.replace(run, options=dataclasses.replace(run.options, layers=(24, 5, 3)))
    with pytest.raises(ModelError, match="do not fit its network"):
        other.network(0, run.devices())


def test_networks_of_any_depth(tmp_path: Path) -> None:
    run = train(device(), output=tmp_path / "run", **{**SMALL, "epochs": 1, "layers": (24, 6, 5, 4, 3)})
    layers = memristive_layers(run.network(0, run.devices()))
    assert [(layer.in_features, layer.out_features) for layer in layers] == [(24, 6), (6, 5), (5, 4), (4, 3)]
