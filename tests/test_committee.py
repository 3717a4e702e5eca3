"""Committees of networks on chips."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from calib.committee import averaged, committee, devices_in
from calib.energy import energy_per_inference
from calib.errors import OptionError
from calib.evaluation import chip_performance
from calib.runs import Run
from calib.training import train
from tests.simple_devices import blobs, everything

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = blobs(features=6, n_test=90)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(
        everything(), output=tmp_path_factory.mktemp("runs") / "three", dataset=DATA, layers=(6, 4, 3), epochs=12,
        batch_size=16, learning_rate=0.05, networks=3, validation_repeats=2, ideal=True,
    )  # fmt: skip


def test_committees_of_one_are_the_networks_on_their_chips(run: Run) -> None:
    found = committee(run, sizes=[1, 2], chips=4, seed=3, data=DATA)
    test = torch.tensor(DATA.test_images), torch.tensor(DATA.test_labels)
    for network in range(3):
        one = chip_performance(run.network(network, run.devices()), *test, seed=3,
                               chips=range(4 * network, 4 * network + 4))  # fmt: skip
        alone = found.sel(size=1, committee=network)
        np.testing.assert_allclose(alone["accuracy"], one.accuracy)
        np.testing.assert_allclose(alone["loss"], one.loss, rtol=1e-5)
        np.testing.assert_allclose(alone["energy_per_inference"], energy_per_inference(one.power), rtol=1e-6)
    np.testing.assert_allclose(found["error"], 1 - found["accuracy"])


@pytest.mark.parametrize("average", ["probability", "logits"])
def test_a_committee_is_the_mean_of_its_members(run: Run, average: str) -> None:
    from calib.crossbar.chips import held_chips

    found = committee(run, sizes=[3], chips=3, seed=1, data=DATA, average=average)
    images, labels = torch.tensor(DATA.test_images), torch.tensor(DATA.test_labels)
    # committee 2 at chip number 1: networks 2, 0, 1 on their chips 1, (1 + 2) mod 3 = 0 and (1 + 4) mod 3 = 2
    total = torch.zeros(len(labels), 3)
    for network, chip in ((2, 1), (0, 0), (1, 2)):
        with torch.no_grad(), held_chips(run.network(network, run.devices()), 1, [3 * network + chip]) as chips:
            outputs = chips(images)[0]
        total += outputs.softmax(-1) if average == "probability" else outputs
    assert float(found["accuracy"][0, 2, 1]) == pytest.approx(float((total.argmax(-1) == labels).double().mean()))


def test_energy_and_devices_add_up(run: Run) -> None:
    found = committee(run, chips=5, data=DATA)
    assert found["size"].values.tolist() == [1, 2, 3]
    # 7 word lines x 4 + 5 word lines x 3, two devices each
    assert found["devices"].values.tolist() == [n * 2 * (7 * 4 + 5 * 3) for n in (1, 2, 3)]
    each = found["energy_per_inference"].mean(("committee", "chip")).values
    np.testing.assert_allclose(each, each[0] * np.array([1, 2, 3]), rtol=1e-12)  # every network is in as many


def test_averaging_helps_where_chips_differ(run: Run) -> None:
    networks = committee(run, chips=10, data=DATA)["error"].mean(("committee", "chip")).values
    copies = committee(run, members="copies", sizes=[1, 3], chips=10, data=DATA)["error"]
    assert networks[2] < networks[0]
    assert float(copies.sel(size=3).mean()) < float(copies.sel(size=1).mean())
    np.testing.assert_allclose(copies.sel(size=1).mean(), networks[0])


def test_copies_of_an_ideal_network_answer_as_one(run: Run) -> None:
    found = committee(run, "ideal", members="copies", sizes=[1, 2, 4], chips=4, data=DATA)
    for size in (2, 4):
        np.testing.assert_allclose(found["accuracy"].sel(size=size), found["accuracy"].sel(size=1))
    assert found.attrs["device"] == "ideal"


def test_means_of_probabilities_and_of_logits() -> None:
    outputs = torch.tensor([[[2.0, 0.0]], [[-1.0, 0.5]]])
    probability = outputs.softmax(-1).mean(0)
    torch.testing.assert_close(averaged(outputs).softmax(-1), probability)
    torch.testing.assert_close(averaged(outputs).exp(), probability)
    torch.testing.assert_close(averaged(outputs, "logits"), torch.tensor([[0.5, 0.25]]))


def test_devices_of_a_reference_are_counted_once() -> None:
    from calib.nn import Devices, MemristiveLinear

    devices = Devices.from_model(everything())
    assert devices_in(torch.nn.Sequential(MemristiveLinear(6, 3, devices, mapping="offset"))) == 7 * 4
    assert devices_in(torch.nn.Sequential(MemristiveLinear(6, 3, devices, mapping="bit-slicing:slices=2"))) == 7 * 3 * 4


def test_the_file_holds_what_made_it(run: Run, tmp_path: Path) -> None:
    import xarray as xr

    path = tmp_path / "committee.nc"
    found = committee(run.path, sizes=[2], chips=2, seed=5, data=DATA, output=path)
    with xr.open_dataset(path, engine="h5netcdf") as kept:
        xr.testing.assert_identical(kept.load(), found)
        assert json.loads(kept.attrs["options"])["members"] == "networks"
        assert kept.attrs["seed"] == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sizes": [4]},
            r"committees are \[4\]; expected different numbers from 1 to 3, the trained networks",
        ),
        ({"sizes": []}, "sizes of committees"),
        ({"sizes": [2, 2]}, "different numbers"),
        ({"sizes": [6], "members": "copies", "chips": 5}, "from 1 to 5, the chips"),
        ({"members": "twins"}, "members are 'twins'; expected one of networks, copies"),
        ({"average": "votes"}, "average is 'votes'; expected one of probability, logits"),
        ({"chips": 0}, "chips is 0"),
    ],
)
def test_options_that_cannot_be_used(run: Run, options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        committee(run, data=DATA, **options)
