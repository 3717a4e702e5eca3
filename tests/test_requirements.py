"""Requirements: known crossings, monotone fits, scaled laws, the command line."""

import json

import numpy as np
import pytest
import torch
import xarray as xr

from calib import device_model, requirements
from calib.budget_figures import requirements_figure
from calib.crossbar.devices import Devices
from calib.effects import NONLINEARITY
from calib.errors import ModelError, OptionError
from calib.nonidealities.iv import IV
from calib.requirements import crossing, scaled_law
from calib.runs import Run
from calib.training import train
from tests.simple_devices import blobs, device, iv_node, range_only, stuck_node
from tests.test_budget import command

pytestmark = pytest.mark.usefixtures("one_thread")
DATA = blobs(n_train=120, n_test=90)


def test_crossing_by_hand() -> None:
    sizes = np.array([0.0, 0.01, 0.1, 1.0])
    assert crossing(sizes, np.array([0, 0.0, 0.02, 0.5]), 0.01) == pytest.approx(np.sqrt(0.01 * 0.1))  # half the decade
    assert crossing(sizes, np.array([0, 0.02, 0.3, 0.5]), 0.01) == pytest.approx(0.005)  # linear from 0
    assert crossing(sizes, np.array([0, -0.01, 0.0, 0.005]), 0.01) == np.inf
    bumpy = crossing(sizes, np.array([0, 0.03, -0.01, 0.09]), 0.02)  # pooled: 0.01, 0.01, 0.09
    assert bumpy == pytest.approx(0.1 * 10 ** (0.01 / 0.08))


def test_crossings_on_a_network(ideal_run: Run) -> None:
    found = requirements.requirements(ideal_run, range_only(), loss=10, effects=["stuck devices"], chips=12, data=DATA)
    one = found.sel(effect="stuck devices")
    low, high = one["crossing_bound"].values
    assert 0 < low <= float(one["crossing"]) <= high < 1
    assert float(one["present"]) == 0
    fitted = one["loss_isotonic"].values
    assert (np.diff(fitted[np.isfinite(fitted)]) >= 0).all()
    assert float(one["size_value"][0]) == 0
    assert float(one["loss"][0]) == 0
    more = requirements.requirements(ideal_run, range_only(), loss=25, effects=["stuck devices"], chips=12, data=DATA)
    assert float(more["crossing"][0]) > float(one["crossing"])


def test_an_effect_that_does_nothing_has_no_limit(ideal_run: Run) -> None:
    """Where all devices are stuck, noise of programming costs nothing at any size."""
    tree = range_only(stuck=stuck_node(1.0))
    found = requirements.requirements(ideal_run, tree, loss=1, effects=["programming spread"], chips=2, data=DATA)
    assert float(found["crossing"][0]) == np.inf
    assert requirements.shown(requirements.rows(found)[0])[0] == "more than 3.00"


@pytest.mark.parametrize("transform", ["log", "identity"])
def test_scaled_laws_keep_resistance_and_multiply_gamma(transform: str) -> None:
    conduction = Devices.from_model(device(iv=iv_node(transform=transform))).conduction
    assert isinstance(conduction, IV)
    g = torch.full((3, 4), 1e-6, dtype=torch.float64)
    z = conduction.deviates((3, 4), torch.Generator().manual_seed(0), torch.float64)
    once, half = conduction.parameters(g, z), scaled_law(conduction, 0.5).parameters(g, z)
    assert torch.allclose(half["gamma"], 0.5 * once["gamma"], rtol=1e-12)
    current = conduction.law.current(torch.full((3, 4), 0.1, dtype=torch.float64), xp=torch, **half)
    assert torch.allclose(current, 0.1 * g, rtol=1e-12)


def test_all_effects_figure_and_file(ideal_run: Run, tmp_path) -> None:
    seen = []
    found = requirements.requirements(
        ideal_run, range_only(), loss=20, chips=2, data=DATA, alone=True, output=tmp_path / "r.nc",
        progress=lambda n, text: seen.append(text),
    )  # fmt: skip
    assert found["effect"].values.tolist() == ["stuck devices", "programming spread", "read noise", "line resistance"]
    assert np.isfinite(found["crossing"].values).all()
    xr.testing.assert_identical(found, requirements.open_requirements(tmp_path / "r.nc"))
    assert len(requirements_figure(found).axes) == 4
    assert any("read noise" in text for text in seen)
    device_model.save(device(), tmp_path / "device.nc")
    with pytest.raises(ModelError, match="holds no requirements"):
        requirements.open_requirements(tmp_path / "device.nc")


def test_nonlinearity_is_scaled_from_the_resistor(ideal_run: Run) -> None:
    found = requirements.requirements(ideal_run, device(), loss=99, effects=[NONLINEARITY], chips=1, data=DATA)
    assert found["quantity"].values.tolist() == ["factor of gamma"]
    assert float(found["present"][0]) == 1
    assert float(found["size_value"].max()) == pytest.approx(4)


def test_bad_options(ideal_run: Run) -> None:
    with pytest.raises(OptionError, match="loss is 0"):
        requirements.requirements(ideal_run, loss=0, data=DATA)
    with pytest.raises(OptionError, match="'rust' cannot be scaled here"):
        requirements.requirements(ideal_run, effects=["rust"], data=DATA)
    with pytest.raises(OptionError, match=r"'poole-frenkel' \(paper\)|cannot be scaled to a resistor"):
        scaled_law(Devices.from_model(device(iv=iv_node(form="paper"))).conduction, 0.5)  # type: ignore[arg-type]


def test_command_line(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(
        tmp_path / "blobs.npz", train_images=DATA.train_images, train_labels=DATA.train_labels,
        test_images=DATA.test_images, test_labels=DATA.test_labels,
    )  # fmt: skip
    folder = tmp_path / "run"
    train(range_only(), output=folder, dataset=tmp_path / "blobs.npz", layers=(6, 3), epochs=5)
    options = ("--effect", "stuck devices", "--chips", 2, "--loss", 20)
    assert command("requirements", folder, *options, "--json") == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["effect"] == "stuck devices"
    assert command("requirements", folder, *options, "--figure", tmp_path / "r.png", "-o", tmp_path / "r.nc") == 0
    assert "at most" in capsys.readouterr().out
    assert (tmp_path / "r.png").stat().st_size > 1000
