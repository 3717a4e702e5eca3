"""The badcrossbar card: a sampled array, which badcrossbar and calib solve alike."""

import io
import warnings

import numpy as np
import pytest

from calib.errors import ModelError, OptionError
from calib.exporters.badcrossbar import BIT_LINES, SEED, WORD_LINES, member, sample
from tests import simple_devices
from tests.device_trees import part_of_device
from tests.exporters.simulator_devices import written


def test_the_file_is_the_sample_with_its_seed() -> None:
    tree = simple_devices.everything()
    text = member.contents(tree)["test-device.badcrossbar.csv"]
    read = np.loadtxt(io.StringIO(text), delimiter=",")
    assert read.shape == (WORD_LINES, BIT_LINES)
    np.testing.assert_allclose(read, sample(tree), rtol=1e-8)
    assert f"seed {SEED}" in text
    assert "leaves out: the I-V law" in text


def test_a_sample_has_the_range_the_spread_and_the_stuck_devices() -> None:
    ideal = 1 / sample(simple_devices.range_only(), 300, 300)
    assert (ideal.min(), ideal.max()) == pytest.approx((5e-7, 2.5e-6), rel=1e-3)
    assert ideal.mean() == pytest.approx(1.5e-6, rel=5e-3)
    spread = 1 / sample(simple_devices.range_only(programming=simple_devices.programming_node(0.2, 0.2)), 300, 300)
    error = np.log(spread / ideal)
    assert error.std() == pytest.approx(0.2, rel=0.02)
    assert (ideal / spread).mean() == pytest.approx(1, rel=0.005)
    stuck = simple_devices.range_only(stuck=simple_devices.stuck_node(0.1, (8e-7,), 0.0))
    assert np.mean(np.isclose(1 / sample(stuck, 300, 300), 8e-7, atol=0)) == pytest.approx(0.1, abs=0.005)


def test_another_seed_is_another_array() -> None:
    tree = simple_devices.everything()
    assert not np.array_equal(sample(tree, 4, 4, 0), sample(tree, 4, 4, 1))
    np.testing.assert_array_equal(sample(tree, 4, 4, 3), sample(tree, 4, 4, 3))


def test_what_cannot_be_sampled_is_said() -> None:
    with pytest.raises(OptionError, match="array of 0 x 4"):
        sample(simple_devices.everything(), 0, 4)
    tree = part_of_device("examples")
    with pytest.raises(ModelError, match="states no conductance range"):
        sample(tree)
    assert any("no conductance range" in sentence for sentence in member.omits(tree))
    assert len(member.contents(tree)) == 1


def test_badcrossbar_and_calib_agree(tmp_path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its plots need more packages
        badcrossbar = pytest.importorskip("badcrossbar", reason="badcrossbar is not installed")
        if not hasattr(badcrossbar, "compute"):
            pytest.skip("badcrossbar cannot compute here")
    import torch

    from calib.crossbar.line_resistance import Lines, transfer_matrix

    module = written("badcrossbar", simple_devices.everything(), tmp_path)
    voltage = np.linspace(-0.3, 0.5, 3 * WORD_LINES).reshape(WORD_LINES, 3)
    solution = module.solve(voltage, r_i=50.0)
    matrix = transfer_matrix(torch.tensor(1 / module.RESISTANCES), Lines(word_segment=50.0, bit_segment=50.0))
    np.testing.assert_allclose(solution.currents.output, voltage.T @ matrix.numpy(), rtol=1e-9)
