"""The front of error against energy."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

import calib
from calib import files, pareto_front, runs
from calib.cli import main
from calib.crossbar.devices import generator
from calib.errors import ModelError, OptionError
from calib.evaluation import chip_performance
from calib.pareto_figure import pareto_figure
from calib.pareto_front import best, median_bound, not_dominated, open_front, rows, summarised
from tests.simple_devices import blobs, device

pytestmark = pytest.mark.usefixtures("one_thread")

DATA = blobs()
SMALL = {
    "dataset": DATA, "layers": (6, 4, 3), "batch_size": 16, "epochs": 4, "validation_repeats": 2, "networks": 2,
    "chips": 3,
}  # fmt: skip


@pytest.fixture(scope="module")
def front(tmp_path_factory) -> tuple[xr.Dataset, object]:
    folder = tmp_path_factory.mktemp("front") / "front"
    return calib.pareto(device(), output=folder, weights=(20.0, 0.0), **SMALL), folder


def test_a_larger_weight_saves_energy(front) -> None:
    found, _ = front
    assert found["weight"].values.tolist() == [0.0, 20.0]
    assert found.sizes == {"weight": 2, "network": 2, "chip": 3, "bound": 2}
    assert (found["energy"].sel(weight=20).values < found["energy"].sel(weight=0).values).all()


def test_the_test_numbers_are_those_of_fixed_chips(front) -> None:
    found, folder = front
    run = runs.open_run(pareto_front.folder_of(folder, 20))
    test = (torch.tensor(DATA.test_images), torch.tensor(DATA.test_labels))
    known = [chip_performance(run.network(n, run.devices()), *test, seed=0, chips=range(3)) for n in (0, 1)]
    np.testing.assert_array_equal(found["error"].sel(weight=20), [1 - each.accuracy for each in known])
    power = np.array([each.power.sum(-1) for each in known])
    np.testing.assert_allclose(found["energy"].sel(weight=20), power * 50e-9, rtol=1e-12)
    mean = float(power.mean())
    assert float(found["efficiency"].sel(weight=20)) == pytest.approx(
        2e-12 * (7 * 4 + 5 * 3) / (50e-9 * mean), rel=1e-9
    )


def test_validation_uses_the_images_that_were_not_trained_on(front) -> None:
    _, folder = front
    run = runs.open_run(pareto_front.folder_of(folder, 0))
    held = pareto_front.validation_images(run, DATA)
    assert len(held.test_images) == 24
    kept = {row.tobytes() for row in held.test_images}
    order = torch.randperm(120, generator=generator(0, "split")).numpy()
    assert kept == {DATA.train_images[row].tobytes() for row in order[:24]}


def test_a_front_goes_on_and_is_the_same(front, tmp_path) -> None:
    found, folder = front
    again: list[tuple[int, str]] = []
    same = calib.pareto(
        device(), output=folder, weights=(0.0, 20.0), progress=lambda n, text: again.append((n, text)), **SMALL
    )
    xr.testing.assert_identical(found, same)
    assert sum(n for n, _ in again) == pareto_front.steps((0.0, 20.0), 2, 4)
    assert all("epoch" not in text for _, text in again)
    xr.testing.assert_identical(open_front(folder), files.open_netcdf(folder / "front.nc", "", "").to_dataset())

    def stop(n: int, text: str) -> None:
        if "network 1 epoch 3" in text:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calib.pareto(device(), output=tmp_path / "cut", weights=(20.0,), progress=stop, **SMALL)
    resumed = calib.pareto(device(), output=tmp_path / "cut", weights=(20.0,), **SMALL)
    np.testing.assert_array_equal(resumed["error"][0], found["error"].sel(weight=20))
    np.testing.assert_array_equal(resumed["energy"][0], found["energy"].sel(weight=20))


def test_the_recipe_gives_way_to_what_is_asked_for() -> None:
    recipe = pareto_front.recipe_with({})
    assert recipe == dict(pareto_front.RECIPE)
    assert recipe["hidden_voltage"] == 0.1
    assert pareto_front.recipe_with({"epochs": 3, "input_voltage": 0.2}) == {
        **recipe,
        "epochs": 3,
        "input_voltage": 0.2,
    }
    assert pareto_front.recipe_with({"input_voltage": 0.05})["hidden_voltage"] is None
    assert pareto_front.recipe_with({"input_voltage": 0.05, "hidden_voltage": 0.02})["hidden_voltage"] == 0.02
    own = pareto_front.recipe_with({"network": "own:make"})
    assert (own["variation"], own["hidden_voltage"], own["scale"]) == ("devices", None, "learned")


def test_a_front_of_a_network_of_the_user(tmp_path, monkeypatch) -> None:
    (tmp_path / "own_front.py").write_text(
        "import torch\ndef make(n_features, n_classes):\n    return torch.nn.Linear(n_features, n_classes)\n"
    )
    monkeypatch.chdir(tmp_path)
    options = {**SMALL, "layers": None, "network": "own_front:make", "networks": 1, "epochs": 1}
    found = calib.pareto(device(), output=tmp_path / "front", weights=(1.0,), **options)
    assert found.attrs["network"] == "own_front:make"
    assert np.isfinite(found["error"]).all()


def test_another_front_in_the_same_folder_is_refused(front) -> None:
    _, folder = front
    with pytest.raises(OptionError, match="epochs = 4, but 7 was given"):
        calib.pareto(device(), output=folder, weights=(20.0,), **{**SMALL, "epochs": 7})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": ()}, "expected different numbers, 0 or more"),
        ({"weights": (1.0, 1.0)}, "expected different numbers"),
        ({"weights": (-1.0,)}, "0 or more"),
        ({"networks": 0}, "networks is 0"),
        ({"chips": 0}, "expected at least 1"),
        ({"energy_weight": 2.0}, "a front sets energy_weight itself"),
        ({"device": None}, "no device model was given"),
    ],
)
def test_options_that_cannot_be_used_are_refused(tmp_path, options, message) -> None:
    given = {"device": device(), "weights": (1.0,), **SMALL, **options}
    with pytest.raises(OptionError, match=message):
        calib.pareto(given.pop("device"), output=tmp_path / "front", **given)
    assert not (tmp_path / "front").exists()


def made(error: np.ndarray, energy: np.ndarray) -> xr.Dataset:
    dims = ("weight", "network", "chip")
    found = xr.Dataset(
        {f"{prefix}{name}": (dims, values) for prefix in ("", "validation_")
         for name, values in (("error", error), ("energy", energy))},
        coords={"weight": np.arange(len(error), dtype=float)},
        attrs={"synapses": 19885, "read_time": 50e-9, "device": "siox-high-resistance", "network": "784-25-10"},
    )  # fmt: skip
    return summarised(found)


def test_the_summary_of_known_numbers() -> None:
    """Efficiency is 2 N / E; the front leaves out what another weight beats in both."""
    energy = np.array([2e-10, 1e-10, 1.5e-10])[:, None, None] * np.ones((1, 2, 4))
    error = np.array([0.05, 0.06, 0.07])[:, None, None] * np.ones((1, 2, 4))
    found = made(error, energy)
    np.testing.assert_allclose(found["efficiency"], 2e-12 * 19885 / energy[:, 0, 0], rtol=1e-12)
    np.testing.assert_allclose(found["error_median_bound"], np.repeat([[0.05], [0.06], [0.07]], 2, axis=1))
    assert found["on_front"].values.tolist() == [True, True, False]
    assert best(found, 300.0) == 1.0
    assert best(found, 100.0) == 0.0
    assert best(found, 1000.0) is None
    row = rows(found)[0]
    assert row["error_median_percent"] == pytest.approx(5.0)
    assert row["efficiency_tops_per_watt_low"] == pytest.approx(2e-12 * 19885 / 2e-10)


def test_an_interval_of_the_energy_that_reaches_zero_leaves_the_efficiency_unbounded() -> None:
    energy = np.array([1e-10, 2e-10, 1.5e-10])[:, None, None] * np.array([[[1.0, 3.0]]])
    found = made(np.full((3, 1, 2), 0.05), energy)
    low, high = found["efficiency_bound"].values.T
    assert (high == np.inf).all()
    assert (low > 0).all()
    assert (low < found["efficiency"].values).all()
    pareto_figure(found).canvas.draw()


def test_points_that_are_equal_do_not_beat_each_other() -> None:
    assert not_dominated(np.array([[1.0, 2.0], [1.0, 2.0], [1.0, 3.0], [0.5, 9.0]])).tolist() == [
        True,
        True,
        False,
        True,
    ]


def test_the_interval_of_the_median_holds_it_as_often_as_it_says() -> None:
    """Networks and chips with effects of their own: 95 % intervals hold the median 0 in 80 to 100 % of 60 trials."""
    random = np.random.default_rng(3)
    inside = 0
    for trial in range(60):
        values = random.normal(0, 1, (8, 1)) + random.normal(0, 1, (1, 25)) + random.normal(0, 1, (8, 25))
        low, high = median_bound(values, trial)
        inside += low <= 0 <= high
    assert 48 <= inside <= 60


def test_the_figure_shows_each_weight_and_the_published_points() -> None:
    random = np.random.default_rng(1)
    drawing = pareto_figure(made(random.uniform(0.05, 0.08, (3, 2, 4)), random.uniform(7e-11, 9e-11, (3, 2, 4))))
    (axes,) = drawing.axes
    labels = [text.get_text() for text in axes.texts]
    assert labels == ["0", "1", "2"]
    assert {"published, aware", "published, aware + L1"} <= {line.get_label() for line in axes.lines}


def test_the_command_trains_and_prints(tmp_path, capsys) -> None:
    blob = tmp_path / "blobs.npz"
    np.savez(blob, train_images=DATA.train_images, train_labels=DATA.train_labels, test_images=DATA.test_images,
             test_labels=DATA.test_labels)  # fmt: skip
    folder = tmp_path / "front"
    asked = [
        "pareto", "--device", "siox-high-resistance", "--dataset", str(blob), "-o", str(folder), "--weights", "1,10",
        "--networks", "1", "--chips", "2", "--epochs", "2", "--layers", "6-4-3", "--batch-size", "16", "--target", "1",
        "--figure", str(tmp_path / "front.svg"),
    ]  # fmt: skip
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "chosen on validation with at least 1 TOPs/W" in shown
    assert (tmp_path / "front.svg").stat().st_size > 5000
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [point["weight"] for point in found["points"]] == [1.0, 10.0]
    assert found["best_weight"] in (1.0, 10.0)
    assert main([*asked[:7], "--weights", "1;2"]) == 1
    assert "expected numbers joined by commas" in capsys.readouterr().err


def test_another_file_is_no_front(tmp_path) -> None:
    path = tmp_path / "other.nc"
    files.write_netcdf(xr.Dataset(attrs={"schema": "other"}), path)
    with pytest.raises(ModelError, match="is no front"):
        open_front(path)
