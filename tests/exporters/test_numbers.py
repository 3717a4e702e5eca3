"""What the cards for simulators say of characteristics whose numbers a model does not know."""

import numpy as np
import pytest
import xarray as xr

from calib import device_model
from calib.exporters import exporter
from calib.exporters._simulator import Simulator
from tests import simple_devices
from tests.exporters.simulator_devices import document, drifting

ONE = {"units": "1"}
SIMULATORS = ("aihwkit", "badcrossbar", "crosssim", "memtorch", "neurosim")


def unknown(node: str) -> xr.DataTree:
    """Return a model one of whose nodes is there, its numbers not known."""
    tree = drifting()
    nan = ((), np.nan, ONE)
    changes = {
        "programming": {"sigma": ("state", [np.nan, np.nan], ONE)},
        "retention": {"drift_exponent_mean": nan, "range_ln_g": ("nu_range", [np.nan, np.nan], ONE)},
        "read_noise": {"ln_noise": nan},
        "stuck": {"conductance": ("stuck_device", np.empty(0), {"units": "S"})},
    }[node]
    part = tree[node].to_dataset()
    part = part.drop_vars(set(changes) & set(part.variables)) if node == "stuck" else part
    tree[node] = part.assign(changes)
    return tree


@pytest.mark.parametrize("node", ["programming", "retention", "read_noise", "stuck"])
@pytest.mark.parametrize("name", SIMULATORS)
def test_numbers_that_are_not_known_are_said_to_be_left_out(name: str, node: str) -> None:
    member = exporter(name)
    assert isinstance(member, Simulator)
    sentences = member.omits(unknown(node))
    about = [sentence for sentence in sentences if f"(node {node})" in sentence]
    assert len(about) == 1
    assert about[0].endswith("does not know its numbers") == (node in member.carried)


def test_known_numbers_are_not_said_to_be_unknown() -> None:
    nobody = simple_devices.device(stuck=simple_devices.stuck_node(0.0, ()))
    for tree in (drifting(), nobody):
        assert not any("does not know" in text for name in SIMULATORS for text in exporter(name).omits(tree))


def test_a_range_that_the_model_does_not_state_is_said() -> None:
    tree = device_model.open_device("gong-reram")
    for name in SIMULATORS:
        assert any("conductance range" in sentence for sentence in exporter(name).omits(tree))


def test_levels_that_cannot_be_told_apart_are_said() -> None:
    levels = xr.Dataset(
        {
            "mean": ("level", [1e-6], {"units": "S"}), "std": ("level", [1e-7], {"units": "S"}),
            "misread": ("error", [0.01], ONE), "n_distinguishable": ("error", [1.0]), "n_fit": ("error", [1.0]),
            "n_empirical": ("error", [1.0]),
        },
        coords={"level_name": ("level", ["a"]), "error": ("error", [0.01], ONE)},
    )  # fmt: skip
    tree = simple_devices.range_only(levels=levels)
    assert document("memtorch", tree)["conductance_states"] is None
    assert any("fewer than two can be told apart" in sentence for sentence in exporter("memtorch").omits(tree))
