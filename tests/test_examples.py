"""The examples of related systems run, on small numbers, and give what they must."""

import csv
import importlib
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import calib
from calib.errors import OptionError
from calib.nn import Devices

FOLDER = Path(__file__).parent.parent / "docs" / "examples"
NEEDS = {"tuned_noise": "optuna", "spiking": "snntorch"}
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def folder_of_examples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(FOLDER))


def example(name: str) -> ModuleType:
    if name in NEEDS:
        pytest.importorskip(NEEDS[name], reason=f"the example needs {NEEDS[name]}: pip install 'calib[examples]'")
    return importlib.import_module(name)


def run(name: str, folder: Path, *more: str) -> list[dict[str, Any]]:
    """Run an example and return its table, after checks that hold for all."""
    assert example(name).main(["--quick", "-o", str(folder), *more]) == 0
    record = json.loads((folder / "table.json").read_text(encoding="utf-8"))
    with open(folder / "table.csv", encoding="utf-8", newline="") as file:
        table = list(csv.DictReader(file))
    for read, row in zip(table, record["rows"], strict=True):
        assert read == {key: str(row.get(key, "")) for key in read}
    assert record["result"].endswith(".")
    assert record["options"]["quick"] is True
    assert "<svg" in (folder / "figure.svg").read_text(encoding="utf-8")
    for row in record["rows"]:
        assert 0 <= row["5 % of chips"] <= row["error (%)"] <= row["95 % of chips"] <= 100
    return record["rows"]


def errors(rows: list[dict[str, Any]], **wanted: Any) -> list[float]:
    return [row["error (%)"] for row in rows if all(row[key.replace("_", " ")] == v for key, v in wanted.items())]


def test_adversarial(tmp_path, capsys):
    rows = run("adversarial", tmp_path, "--steps", "2", "--images", "60", "--epochs", "4")
    assert len(rows) == 2 * 3 * 3 * 2
    # who knows the weights of the network that was trained on ideal devices attacks it as a transferred attack does
    ideal = {"trained_on": "ideal", "devices": "20% stuck"}
    assert errors(rows, attacker="transferred", **ideal) == errors(rows, attacker="weights", **ideal)
    for attacker in ("transferred", "weights", "devices"):
        without, with_attack = errors(rows, attacker=attacker, trained_on="20% stuck", devices="20% stuck")
        assert without < with_attack
        assert without == errors(rows, attacker="devices", trained_on="20% stuck", devices="20% stuck")[0]
    assert "training on the devices" in capsys.readouterr().out


def test_committees(tmp_path):
    rows = run("committees", tmp_path, "--epochs", "8")
    alone = [row for row in rows if row["members"] == 1 and row["hidden neurons"] == 25]
    assert [{**row, "kind": ""} for row in alone[:1]] == [{**row, "kind": ""} for row in alone[1:]]
    single = 2 * (65 * 25 + 26 * 10)
    assert [row["devices"] for row in rows] == [single, 2 * single, single, 2 * single, 2 * (65 * 50 + 51 * 10)]
    different = errors(rows, kind="different networks")
    assert different[1] < different[0]


def test_levels_and_lines(tmp_path):
    rows = run("levels_and_lines", tmp_path, "--epochs", "8")
    (software,) = errors(rows, effects="none")
    for row in rows:
        if row["effects"] in ("levels", "levels, lines"):
            assert abs(row["error (%)"] - software) < 3  # 32 levels and a third of an ohm change little
    assert min(errors(rows, effects="levels, spread")) > software + 2


def test_levels_are_skipped_where_there_are_no_images(tmp_path, monkeypatch):
    from calib import vision
    from calib.errors import CalibError, ReadError

    def missing(name, data_folder=None):
        raise ReadError(f"'{name}' cannot be downloaded")

    monkeypatch.setattr(vision, "load", missing)
    with pytest.raises(CalibError, match="no images. mnist is skipped: 'mnist' cannot be downloaded. fashion-mnist is"):
        example("levels_and_lines").main(["-o", str(tmp_path)])


def test_spiking(tmp_path):
    rows = run("spiking", tmp_path, "--steps", "3", "--epochs", "2")
    assert len(rows) == 8
    assert all(row["energy (nJ)"] > 0 for row in rows)
    ideal = errors(rows, coding="constant", trained_on="ideal", evaluated_on="ideal")
    assert ideal[0] < 40  # of ten classes


def test_a_spiking_network_on_ideal_devices_is_that_of_snntorch():
    import torch

    spiking = example("spiking")
    plain = spiking.SpikingNetwork(6, 8, 3, beta=0.8)
    x = torch.rand(20, 5, 6, generator=torch.Generator().manual_seed(1))
    ideal = Devices.from_model(calib.open_device("siox-high-resistance")).ideal()
    converted = calib.nn.convert(plain, ideal)
    with torch.no_grad(), calib.nn.held_chips(converted, 0, range(2)) as chips:
        found = chips(x)
    with torch.no_grad():
        hidden, total, potential = torch.zeros(20, 8), torch.zeros(20, 3), torch.zeros(20, 3)
        fired = torch.zeros(20, 8)
        for step in range(5):  # u[t] = beta u[t-1] + y[t] - theta s[t-1], theta = 1
            hidden = 0.8 * hidden + plain.first(x[:, step]) - fired
            fired = (hidden > 1).float()
            potential = 0.8 * potential + plain.second(fired)
            total += potential / 5
    assert fired.sum() > 0
    for chip in found:
        torch.testing.assert_close(chip, total, rtol=1e-4, atol=1e-5)


def test_spikes_have_the_rates_of_the_pixels():
    import torch

    spiking = example("spiking")
    images = torch.tensor([[0.0, 0.2, 1.0]]).expand(50, -1)
    constant = spiking.spikes_of(images, 4, "constant", torch.Generator())
    assert torch.equal(constant, images.unsqueeze(1).expand(50, 4, 3))
    spikes = spiking.spikes_of(images, 400, "rate", torch.Generator().manual_seed(0))
    assert spikes.shape == (50, 400, 3)
    assert set(spikes.unique().tolist()) == {0.0, 1.0}
    rate = spikes.mean((0, 1))
    assert rate[0] == 0
    assert rate[2] == 1
    assert abs(float(rate[1]) - 0.2) < 5 * (0.2 * 0.8 / 20_000) ** 0.5


def test_a_search_that_was_interrupted_finds_the_same_noise(tmp_path):
    tuned = example("tuned_noise")
    small = ("--epochs", "1", "--final-epochs", "1", "--images", "200", "--chips", "1")
    rows = run("tuned_noise", tmp_path / "whole", *small)
    assert [row["training noise"] for row in rows] == ["none", "tuned", "the device model"]

    def search(folder: str, trials: int):
        args = tuned._arguments(["--quick", "-o", str(tmp_path / folder), *small, "--trials", str(trials)])
        return tuned.search(calib.open_device(args.device), tuned.images_of(args), args)

    search("parts", 2).ask()  # a trial that was killed
    whole, parts = search("whole", 3), search("parts", 3)
    assert [trial.state.name for trial in parts.trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    found = [[(t.params, t.value) for t in study.trials if t.value is not None] for study in (whole, parts)]
    assert found[0] == found[1]
    assert {key: round(value, 3) for key, value in whole.best_params.items()} == {
        key: rows[1][key] for key in ("spread", "dropped")
    }


def test_a_stated_device_is_what_was_stated():
    from calib.nonidealities.lognormal import Lognormal
    from calib.nonidealities.stuck import Stuck

    stated_device = example("stated_device").stated_device
    plain = Devices.from_model(stated_device("plain", 1e-6, 1e-5))
    assert plain.is_ideal
    assert (plain.g_off, plain.g_on) == (1e-6, 1e-5)
    made = Devices.from_model(stated_device("worn", 1e-6, 1e-5, sigma=(0.1, 0.4), stuck=0.2))
    spread, stuck = made.stages
    assert isinstance(spread, Lognormal)
    assert isinstance(stuck, Stuck)
    np.testing.assert_allclose(spread.sigma, (0.1, 0.4))
    np.testing.assert_allclose(spread.resistance, (1e5, 1e6))
    assert (stuck.probability, stuck.values) == (0.2, (1e-6,))
    with pytest.raises(OptionError, match="conductance range is 1e-05 S to 1e-06 S"):
        stated_device("reversed", 1e-5, 1e-6)
