"""Accuracy of chips under attacks, noise and age; yield."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from calib import attacks, cli, device_model
from calib.crossbar.chips import held_chips
from calib.errors import ModelError, OptionError
from calib.evaluation import chip_performance
from calib.robustness import AttackOptions, robustness, yield_above
from calib.robustness_figure import robustness_figure
from calib.runs import Run
from tests.simple_devices import blobs, device, range_only, trained

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = blobs(features=6, n_test=90)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("runs")
    return trained(folder, device(), DATA, epochs=30, batch_size=16, learning_rate=0.05, validation_repeats=2)


def retaining(mean: float = 0.05, std: float = 0.0) -> xr.DataTree:
    """Return devices whose conductances fall as (t / 10 s)^-nu."""
    node = device_model.open_device("elgeresy-tio2")["retention"].to_dataset()
    numbers = {"drift_exponent_mean": mean, "drift_exponent_std": std}
    node = node.assign(
        {name: node[name].copy(data=np.full(node[name].shape, value)) for name, value in numbers.items()}
    )
    return range_only(retention=node)


@pytest.mark.parametrize("attack", ["fgsm", "pgd", "noise"])
def test_no_strength_is_the_evaluation(run: Run, attack: str) -> None:
    found = robustness(run, attack=attack, strengths=(0.0, 0.2), chips=3, seed=4, data=DATA)
    test = torch.tensor(DATA.test_images), torch.tensor(DATA.test_labels)
    for network in range(2):
        plain = chip_performance(run.network(network, run.devices()), *test, seed=4, chips=range(3))
        for curve in found["curve"].values:
            np.testing.assert_allclose(found["accuracy"].sel(curve=curve).isel(network=network, strength=0),
                                       plain.accuracy)  # fmt: skip
    assert found["accuracy"].dims == ("curve", "network", "chip", "strength")
    assert float(found["accuracy"].isel(strength=1).mean()) < float(found["accuracy"].isel(strength=0).mean())


def test_each_chip_is_attacked_by_its_own_gradients(run: Run) -> None:
    found = robustness(run, attack="fgsm", strengths=(0.15,), knows=("chip", "ideal"), chips=3, data=DATA)
    images, labels = torch.tensor(DATA.test_images), torch.tensor(DATA.test_labels)
    for curve, devices in (("chip", run.devices()), ("ideal", run.devices().ideal())):
        for chip in range(3):
            with held_chips(run.network(1, devices), 0, [chip]) as attacker:
                changed = attacks.fgsm(attacker, images, labels, 0.15)
            with held_chips(run.network(1, run.devices()), 0, [chip]) as stack:
                right = (stack(changed)[0].argmax(1) == labels).double().mean()
            got = found["accuracy"].sel(curve=curve).isel(network=1, chip=chip, strength=0)
            assert float(got) == pytest.approx(float(right))


def test_gradients_of_images_are_those_of_differences(run: Run) -> None:
    """In float64, inside the pixels' range; at 0 the law's slope is that of the first moment of the interval."""
    network = run.network(0, run.devices()).double()
    images, labels = torch.tensor(DATA.test_images[:4]).double().clamp(0.05, 0.95), torch.tensor(DATA.test_labels[:4])
    with held_chips(network, 0, [0]) as stack:
        slope = attacks.gradient(stack, images, labels)
        for feature in range(6):
            step = torch.zeros(6, dtype=torch.float64)
            step[feature] = 1e-6
            both = [
                torch.nn.functional.cross_entropy(stack(images + sign * step)[0], labels, reduction="none")
                for sign in (1, -1)
            ]
            torch.testing.assert_close((both[0] - both[1]) / 2e-6, slope[:, feature], rtol=1e-4, atol=1e-6)


def test_who_knows_more_does_more_harm(run: Run) -> None:
    knows = ("chip", "device", "ideal")
    options = AttackOptions(step=0.05, steps=15)
    found = robustness(run, attack="pgd", strengths=(0.0, 0.3), knows=knows, options=options, chips=6, data=DATA)
    after = found["accuracy"].isel(strength=1).mean(("network", "chip"))
    assert float(after.sel(curve="chip")) <= min(float(after.sel(curve=name)) for name in knows[1:])
    assert float(after.sel(curve="chip")) < float(found["accuracy"].isel(strength=0).mean())


def test_common_drift_is_undone_by_compensation(run: Run) -> None:
    times = (0.0, 100.0, 1e7)
    found = robustness(run, retaining(), attack="ageing", strengths=times, chips=2, data=DATA)
    kept = found["accuracy"].sel(curve="compensated")
    for index in (1, 2):
        np.testing.assert_allclose(kept.isel(strength=index), kept.isel(strength=0), atol=1 / 90)
    lost = found["accuracy"].sel(curve="not compensated")
    np.testing.assert_allclose(lost.isel(strength=0), kept.isel(strength=0))
    assert float(lost.isel(strength=2).mean()) < float(kept.isel(strength=2).mean())
    usual = robustness(run, retaining(std=0.1), attack="ageing", chips=1, data=DATA)
    np.testing.assert_allclose(usual["strength"], [0, 10, 100, 1000, 10000])  # measured from 9.99 s to 42 706 s


def test_seeds_images_and_random_starts(run: Run) -> None:
    options = AttackOptions(step=0.05, random_start=True)
    first, again, other = (
        robustness(run, attack="pgd", strengths=(0.3,), options=options, chips=2, seed=s, data=DATA, images=40)
        for s in (1, 1, 2)
    )
    xr.testing.assert_identical(first, again)
    assert first.attrs["images"] == 40
    assert not np.array_equal(first["accuracy"], other["accuracy"])


def test_yield_is_an_exact_binomial() -> None:
    values = xr.DataArray([[0.95, 0.92, 0.5, 0.89], [0.9, 0.99, 0.91, 0.93]], dims=("network", "chip"))
    found = yield_above(values, 0.9)
    assert float(found["yield"]) == pytest.approx(6 / 8)
    assert (float(found["low"]), float(found["high"])) == pytest.approx((0.34914, 0.96815), abs=1e-5)  # tables, 6 of 8
    every = yield_above(values, 0.0)
    assert (float(every["low"]), float(every["high"])) == pytest.approx((0.025 ** (1 / 8), 1.0))
    with pytest.raises(OptionError, match="0 to 1"):
        yield_above(values, 90)


def test_the_command_and_its_figure(run: Run, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(Run, "data", lambda *_: DATA)
    words = ["robustness", str(run.path), "--strengths", "0,0.1", "--chips", "2", "--yield-above", "0.8"]
    assert cli.main([*words, "--json", "-o", str(tmp_path / "r.nc"), "--figure", str(tmp_path / "r.svg")]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["chips"] == 4
    assert [(row["curve"], row["strength"]) for row in found["curves"]] == [
        ("chip", 0.0), ("chip", 0.1), ("ideal", 0.0), ("ideal", 0.1),
    ]  # fmt: skip
    assert found["curves"][0]["yield_low"] <= found["curves"][0]["yield"] <= found["curves"][0]["yield_high"]
    assert "<svg" in (tmp_path / "r.svg").read_text()
    stored = xr.open_dataset(tmp_path / "r.nc", engine="h5netcdf")
    assert [part.get_ylabel() for part in robustness_figure(stored, 0.8).axes] == [
        "accuracy (%)", "chips of 80 % or more (%)",
    ]  # fmt: skip
    assert cli.main([*words[:2], "--attack", "pgd", "--chips", "1"]) == 0
    assert "reach no further than 2" in capsys.readouterr().out
    assert cli.main([*words[:2], "--strengths", "0;1"]) == 1
    assert "joined by commas" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"attack": "bribery"}, "the attack is 'bribery'"),
        ({"knows": ("everything",)}, "what attackers know is everything"),
        ({"strengths": (0.2, 0.1)}, "ascending"),
        ({"strengths": (-1.0,)}, "ascending numbers of 0 or more"),
        ({"chips": 0}, "chips is 0"),
        ({"images": 0}, "images 0"),
    ],
)
def test_options_that_cannot_be_used(run: Run, given: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        robustness(run, data=DATA, **given)


def test_ageing_needs_retention(run: Run) -> None:
    with pytest.raises(ModelError, match="no retention"):
        robustness(run, attack="ageing", data=DATA)
    with pytest.raises(OptionError, match="0 steps"):
        AttackOptions(steps=0)
