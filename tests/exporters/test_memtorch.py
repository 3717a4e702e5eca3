"""The MemTorch card: constructor arguments, and MemTorch where it is installed."""

import numpy as np
import pytest

from calib.exporters.memtorch import faults, member, resistance
from tests import simple_devices
from tests.exporters.simulator_devices import document, drifting, written


def test_resistances_keep_the_mean_and_do_not_meet() -> None:
    tree = simple_devices.device(programming=simple_devices.programming_node(0.2, 0.4))
    found = resistance(tree)
    on, off = found["r_on"], found["r_off"]
    assert on is not None
    assert off is not None
    assert (on["sigma"], off["sigma"]) == (0.2, 0.4)
    assert np.exp(on["loc"] + on["sigma"] ** 2 / 2) == pytest.approx(4e5)
    assert on["max"] <= off["min"]
    assert on["min"] < 4e5 < on["max"]


def test_stuck_devices_are_split_between_the_two_states() -> None:
    tree = simple_devices.device(stuck=simple_devices.stuck_node(0.3, (6e-7, 7e-7, 2e-6), 0.0))
    found = faults(tree)
    assert found is not None
    assert found["lrs_proportion"] == pytest.approx(0.1)
    assert found["hrs_proportion"] == pytest.approx(0.2)


def test_drift_that_memtorch_refuses_is_left_out() -> None:
    tree = drifting()
    assert document("memtorch", tree)["drift"] == {"drift_coefficient": 0.04, "initial_time": 10.0}
    tree["retention"] = tree["retention"].to_dataset().assign(drift_exponent_mean=((), -0.01, {"units": "1"}))
    assert document("memtorch", tree)["drift"] is None
    assert any("drift that raises G" in sentence for sentence in member.omits(tree))


def test_a_network_in_memtorch(tmp_path) -> None:
    pytest.importorskip("memtorch", reason="MemTorch is not installed", exc_type=ImportError)
    import torch

    module = written("memtorch", drifting(), tmp_path)
    drawn = module.model_params()
    assert all(callable(drawn[name]) for name in ("r_on", "r_off"))
    network = module.patch(torch.nn.Sequential(torch.nn.Linear(6, 4)), time=1e4, max_input_voltage=0.3)
    assert torch.isfinite(network(torch.ones(2, 6))).all()
