"""Error budgets: known answers, common random numbers, files, the command line."""

import argparse
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr

from calib import budget, device_model, evaluation, plugins
from calib.budget_figures import budget_figure
from calib.crossbar.array import Array
from calib.crossbar.devices import Devices
from calib.effects import IV_SPREAD, NONLINEARITY, Hardware
from calib.errors import ModelError, OptionError
from calib.nonidealities.read_noise import ReadNoise
from calib.runs import Run
from calib.training import train
from tests.simple_devices import blobs, device, everything, iv_node, programming_node, range_only, stuck_node

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = blobs(n_train=120, n_test=90)


def hardware(tree: xr.DataTree, array: str = "") -> Hardware:
    return Hardware(Devices.from_model(tree), Array.from_options(array))


def test_effects_are_taken_away_one_by_one() -> None:
    whole = hardware(everything(), "adc_bits=6,adc_range=array,word_segment=1,dac_bits=4")
    assert whole.effects == (
        "programming spread", "stuck devices", NONLINEARITY, IV_SPREAD, "line resistance", "DAC", "ADC",
    )  # fmt: skip
    assert whole.without("stuck devices").effects == tuple(e for e in whole.effects if e != "stuck devices")
    assert whole.without("DAC").array == replace(whole.array, dac=None)
    assert not {NONLINEARITY, IV_SPREAD} & set(whole.without(NONLINEARITY).effects)
    assert IV_SPREAD not in whole.without(IV_SPREAD).effects
    assert whole.only([]).effects == ()
    assert whole.only([]).devices.is_ideal
    assert [part.effects for part in whole.alone(IV_SPREAD)] == [(NONLINEARITY, IV_SPREAD), (NONLINEARITY,)]
    with pytest.raises(OptionError, match="no effect 'rust' here"):
        whole.only(["rust"])


def test_the_mean_law_has_the_same_resistance_and_no_spread() -> None:
    whole = hardware(device())
    mean = whole.without(IV_SPREAD).devices.conduction
    g = torch.full((4, 5), 1e-6, dtype=torch.float64)
    z = mean.deviates((4, 5), torch.Generator().manual_seed(0), torch.float64)
    parameters = mean.parameters(g, z)
    assert float(parameters["gamma"].std()) == 0
    at_reference = mean.law.current(torch.full((4, 5), 0.1, dtype=torch.float64), xp=torch, **parameters)
    assert torch.allclose(at_reference, 0.1 * g, rtol=1e-12)


def test_an_effect_that_does_nothing_costs_nothing(ideal_run: Run) -> None:
    tree = device(iv=iv_node(spread=0.0), stuck=stuck_node(1.0), programming=programming_node(1e-9, 1e-9))
    found = budget.budget(ideal_run, tree, chips=4, data=DATA).sel(effect="programming spread")
    assert float(found["cost_removed"]) == 0  # all devices are stuck: what they were programmed to does not matter
    assert found["cost_removed_bound"].values.tolist() == [0, 0]
    assert float(found["energy_removed"]) == 0
    low, high = found["cost_alone_bound"].values
    assert low <= 0 <= high
    assert abs(float(found["cost_alone"])) < 1e-3


def test_all_devices_stuck_ruins_the_network(ideal_run: Run) -> None:
    found = budget.budget(ideal_run, range_only(stuck=stuck_node(1.0)), chips=30, data=DATA)
    assert found["effect"].values.tolist() == ["stuck devices"]
    low, high = found["cost_removed_bound"].values[0]
    assert low < 2 / 3 - float(found["ideal_error"].mean()) < high  # three classes, guessed
    assert float(found["cost_removed"][0]) == float(found["cost_alone"][0])
    assert float(found["ideal_error"].mean()) < 0.05


def test_variants_are_the_same_chips(ideal_run: Run) -> None:
    """What one effect draws does not change when another is taken away."""
    found = budget.budget(ideal_run, everything(), chips=6, data=DATA)
    alone = evaluation.evaluate(ideal_run, device(iv=iv_node(), stuck=stuck_node()), chips=6, data=DATA)
    without = found["error_without"].sel(effect="programming spread").values
    np.testing.assert_array_equal(without, 1 - alone["accuracy"].isel(device=0).values)
    whole = evaluation.evaluate(ideal_run, everything(), chips=6, data=DATA)
    np.testing.assert_array_equal(found["error"].values, 1 - whole["accuracy"].isel(device=0).values)
    np.testing.assert_array_equal(found["energy"].values, whole["energy_per_inference"].isel(device=0).values)
    costs = found["cost_removed"].values
    assert (np.diff(costs) <= 0).all()


def test_pairs_of_chips_make_intervals_narrow(ideal_run: Run) -> None:
    """The difference on the same chips varies less than that between different ones."""
    tree = device(programming=programming_node(0.9, 0.9), stuck=stuck_node(0.02))
    found = budget.budget(ideal_run, tree, chips=20, data=DATA).sel(effect="stuck devices")
    paired_difference = (found["error"] - found["error_without"]).values
    other = found["error"].values - np.roll(found["error_without"].values, 1, axis=1)  # another chip
    assert paired_difference.std() < 0.8 * other.std()


def test_array_effects_and_read_noise_are_listed(ideal_run: Run) -> None:
    tree = range_only(stuck=stuck_node(0.05))
    found = budget.budget(ideal_run, tree, chips=3, data=DATA, array="adc_bits=3,dac_bits=2")
    assert set(found["effect"].values) == {"stuck devices", "ADC", "DAC"}
    noisy = Hardware(replace(Devices.from_model(tree), read=ReadNoise(0.1)), Array())
    assert noisy.effects == ("stuck devices", "read noise")
    assert noisy.without("read noise").devices.read is None
    assert "read noise of 10 %" in noisy.describe("read noise")


def test_what_cannot_be_budgeted_is_said(ideal_run: Run, tmp_path) -> None:
    with pytest.raises(OptionError, match="no nonideality to take away"):
        budget.budget(ideal_run, range_only(), data=DATA)
    with pytest.raises(OptionError, match="chips is 0"):
        budget.budget(ideal_run, everything(), chips=0, data=DATA)
    device_model.save(device(), tmp_path / "device.nc")
    with pytest.raises(ModelError, match="is no budget"):
        budget.open_budget(tmp_path / "device.nc")


def test_file_figure_and_sentences(ideal_run: Run, tmp_path) -> None:
    seen = []
    found = budget.budget(
        ideal_run,
        everything(),
        chips=3,
        data=DATA,
        output=tmp_path / "budget.nc",
        progress=lambda n, text: seen.append(text),
    )
    xr.testing.assert_identical(found, budget.open_budget(tmp_path / "budget.nc"))
    assert len(seen) == 2 * (2 + 2 * found.sizes["effect"])
    sentences = budget.sentences(found)
    assert "points" in sentences[0]
    assert len(sentences) == 1 + found.sizes["effect"]
    labels = {text.get_text() for axes in budget_figure(found).axes for text in axes.get_yticklabels()}
    assert set(found["effect"].values) <= labels
    assert "crossed over 2 networks and 3 chips" in found.attrs["protocol"]


def test_command_line(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(
        tmp_path / "blobs.npz", train_images=DATA.train_images, train_labels=DATA.train_labels,
        test_images=DATA.test_images, test_labels=DATA.test_labels,
    )  # fmt: skip
    device_model.save(everything(), tmp_path / "device.nc")
    folder = tmp_path / "run"
    train(tmp_path / "device.nc", output=folder, dataset=tmp_path / "blobs.npz", layers=(6, 3), epochs=1)
    assert command("budget", folder, "--chips", 2, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["effect"] for row in rows} == {"programming spread", "stuck devices", NONLINEARITY, IV_SPREAD}
    assert {"cost_removed_points", "cost_removed_points_half", "energy_removed_share"} <= set(rows[0])
    files = ("-o", tmp_path / "budget.nc", "--figure", tmp_path / "budget.svg")
    assert command("budget", folder, "--chips", 2, "--array", "dac_bits=2", *files) == 0
    assert "DAC" in capsys.readouterr().out
    assert (tmp_path / "budget.svg").read_text().lstrip().startswith("<?xml")
    with pytest.raises(OptionError, match="ends in .svg"):
        command("budget", folder, "--figure", tmp_path / "budget.doc")


def command(name: str, *argv: object) -> int:
    member = plugins.load("calib.cli", name)
    parser = argparse.ArgumentParser()
    member.add_arguments(parser)
    return member.run(parser.parse_args([str(item) for item in argv]))
