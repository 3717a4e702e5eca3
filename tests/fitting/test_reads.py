"""What single conductance reads tell: range, programming spread, stuck devices; and what they do not."""

import numpy as np
import pytest

import calib
from calib.errors import FitError
from calib.fitting.reads import reads_nodes
from tests.fitting.traces_made import reads_of

RNG = np.random.default_rng


def nodes_of(reads, warnings=None):
    return reads_nodes(reads, reference_voltage=0.1, stuck_rule="range", warnings=[] if warnings is None else warnings)


def two_states(devices=40, dead=3, seed=0):
    rng = RNG(seed)
    names = np.repeat([f"d{k}" for k in range(devices)], 2)
    state = np.tile(["lrs", "hrs"], devices)
    g = np.where(state == "lrs", 1e-4, 1e-5) * np.exp(0.1 * rng.standard_normal(2 * devices))
    g[: 2 * dead] = 5e-5
    return reads_of(g[:, None], device=names, state=state)


def test_range_spread_and_stuck_devices():
    nodes = nodes_of(two_states())
    assert set(nodes) == {"conductance", "programming", "stuck"}
    assert float(nodes["conductance"]["g_on"]) == pytest.approx(1e-4, rel=0.1)
    assert float(nodes["conductance"]["g_off"]) == pytest.approx(1e-5, rel=0.1)
    assert int(nodes["stuck"]["n_stuck"]) == 3
    assert nodes["programming"]["sigma"].values == pytest.approx([0.1, 0.1], rel=0.4)


def test_reads_that_are_not_positive_are_counted():
    reads = two_states()
    reads["conductance"][10, 0] = -1e-9
    warnings: list[str] = []
    nodes_of(reads, warnings)
    assert any(w.startswith("1 reads have a conductance that is not positive") for w in warnings)


def test_reads_without_any_positive_conductance_are_refused():
    with pytest.raises(FitError, match="no positive conductance"):
        nodes_of(reads_of([[-1e-5, np.nan]]))


def test_reads_of_one_device_give_no_range():
    with pytest.raises(FitError, match="neither a conductance range nor a spread"):
        nodes_of(reads_of([[1e-5]]))


def test_devices_that_only_drift_are_not_called_stuck():
    g = np.geomspace(1e-6, 1e-4, 20)[:, None] * np.array([1.0, 0.98, 0.95])
    warnings: list[str] = []
    nodes = nodes_of(reads_of(g, [0.0, 10.0, 100.0]), warnings)
    assert "stuck" not in nodes
    assert any(w.startswith("stuck devices: not found") for w in warnings)


def test_formed_cells_of_radway(measurements):
    tree = calib.read(measurements / "radway-1t1r" / "read_formed.tsv", columns="device=0,resistance=1")
    nodes = nodes_of(tree["reads"].to_dataset())
    assert float(nodes["conductance"]["g_off"]) < float(nodes["conductance"]["g_on"])
