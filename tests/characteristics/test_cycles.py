"""The presentation of the generative model of switching, and draws within its uncertainty."""

import numpy as np
import pytest

from calib import device_model
from calib.characteristics import cycles, estimates
from calib.cycle_sampling import sample_cycles, spectral_radius
from calib.fitting.cycles import cycles_node
from tests.fitting.loops_made import loops_of
from tests.fitting.test_cycles import as_reads, truth

RNG = np.random.default_rng


@pytest.fixture(scope="module")
def tree():
    node = cycles_node(None, [], reads=as_reads(sample_cycles(truth(), 40, 20, RNG(2))))
    assert node is not None
    return device_model.build({"cycles": node}, name="test")


@pytest.fixture(scope="module")
def loop_tree():
    node = cycles_node(loops_of(15, 3), [])
    assert node is not None
    return device_model.build({"cycles": node}, name="test")


def test_tables_have_all_cells(tree, loop_tree):
    for model in (tree, loop_tree):
        found = cycles.sections(model["cycles"].to_dataset(), model)
        assert [section.title for section in found][:2] == ["Switching from cycle to cycle", "Marginals"]
        assert all(len(row) == len(section.columns) for section in found for row in section.rows)
    titles = [section.title for section in cycles.sections(tree["cycles"].to_dataset(), tree)]
    assert titles[2:] == ["Correlations of the normal scores", "Memory"]


def test_every_number_has_its_interval_and_sample(tree):
    found = [item for item in estimates(tree) if item.characteristic == "cycles"]
    assert len({(item.state, item.quantity) for item in found}) == len(found)
    for item in found:
        assert item.n == "800 cycles of 40 devices"
        assert item.low <= item.value <= item.high, item
    assert {"ln_r_hrs_memory", "ln_r_hrs_ln_r_lrs_correlation"} <= {item.quantity for item in found}


def test_key_numbers(tree):
    ((label, text, remark),) = cycles.key_numbers(tree["cycles"].to_dataset(), tree)
    assert (label, text) == ("Cycle-to-cycle model", "generative")
    assert remark == "memory of 1 cycle"


def test_figures(tree, loop_tree):
    drawn = cycles.figures(tree["cycles"].to_dataset(), tree)
    assert [key for key, _, _ in drawn] == ["cycles-marginals", "cycles-memory"]
    assert drawn[1][2].axes[0].get_ylabel() == "autocorrelation"
    assert len(cycles.figures(loop_tree["cycles"].to_dataset(), loop_tree)[0][2].axes) == 2


@pytest.mark.parametrize("which", ["tree", "loop_tree"])
def test_resampling_keeps_what_the_model_promises(which, request):
    model = request.getfixturevalue(which)
    node = model["cycles"].to_dataset()
    medians = []
    for seed in range(100):
        drawn = cycles.resample(node, RNG(seed))
        assert set(drawn.variables) == set(node.variables)
        assert (np.diff(drawn["table"].values, axis=2) >= 0).all()
        assert np.diag(drawn["between"].values + drawn["within"].values) == pytest.approx(1)
        assert float(spectral_radius(drawn["memory"].values)) < 1
        medians.append(float(drawn["table"].values[0, 0, 200]))
    if which == "loop_tree":
        assert (drawn["table"].values[:, 2:] > 0).all()
    middle = float(node["table"].values[0, 0, 200])
    assert np.mean(medians) == pytest.approx(middle, abs=4 * np.std(medians) / 10)
    assert 0.02 < np.std(medians) < 0.3  # 40 or 15 devices of which the level differs
    sample_cycles(drawn, 100, 2, RNG(0))
