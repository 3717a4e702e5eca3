"""Write and verify: the distribution about targets, failed writes, and what a device keeps."""

import numpy as np
import pytest
import torch
from scipy import stats

from calib import device_model
from calib.errors import OptionError
from calib.nonidealities.write_verify import WriteVerify
from tests.nonidealities.nodes import writes_node
from tests.simple_devices import G_OFF, G_ON, range_only

N = 100_000
ENDS = stats.norm.cdf([-1.0, 1.0])


def draw(effect: WriteVerify, g: float, seed: int = 3, device_seed: int | None = None) -> np.ndarray:
    own = None if device_seed is None else torch.Generator().manual_seed(device_seed)
    target = torch.full((N,), g, dtype=torch.float64)
    return effect.conductance(target, torch.Generator().manual_seed(seed), own).numpy()


def from_node(**options: bool) -> WriteVerify:
    effect = WriteVerify.from_device(range_only(writes=writes_node(**options)))
    assert effect is not None
    return effect


def test_errors_have_the_bias_and_the_spread_of_the_model() -> None:
    """Lognormals of mean target + bias and the given standard deviation; 4 standard errors."""
    effect = from_node(quantiles=False)
    for target, relative in ((1.2e-6, 0.02), (G_ON, 0.01)):
        found = draw(effect, target) / target
        assert found.mean() == pytest.approx(1.01, abs=4 * relative / np.sqrt(N))
        assert found.std() == pytest.approx(relative, rel=4 / np.sqrt(2 * N) + 1e-3)
    assert effect.success == (1.0, 1.0, 1.0)  # where failed writes end is not known


def test_errors_follow_the_measured_quantiles() -> None:
    node = writes_node(failures=False)
    effect = WriteVerify.from_device(range_only(writes=node))
    assert effect is not None
    for row, target in enumerate(node["target"].values):
        found = draw(effect, float(target))
        for p, q in zip(node["quantile"].values, node["achieved_quantile"].values[row], strict=True):
            below = int((found < q).sum())
            assert stats.binomtest(below, N, float(p)).pvalue > 1e-4
        assert found.max() <= node["target_high"].values[row] * (1 + 1e-12)
        assert found.min() >= node["target_low"].values[row] * (1 - 1e-12)


def test_failed_writes_end_elsewhere_with_their_probability() -> None:
    effect = from_node()
    found = draw(effect, G_OFF)
    failed = found > 1e-6
    assert stats.binomtest(int(failed.sum()), N, 0.2).pvalue > 1e-4
    inside = int((found[failed] < 1.8e-6).sum())  # the median of failed writes
    assert stats.binomtest(inside, int(failed.sum()), 0.5).pvalue > 1e-4
    between = np.sqrt(G_OFF * 1.2e-6)
    assert stats.binomtest(int((draw(effect, between) > 1.4e-6).sum()), N, 0.125).pvalue > 1e-4  # halfway in ln G
    assert (draw(effect, G_ON) > 2.3e-6).all()


def test_devices_keep_their_part_of_the_error() -> None:
    """sigma_d2d : sigma_c2c = 0.6 : 0.8, so that two writes correlate by 0.36; the targets' ends bend it a little."""
    effect = from_node(failures=False)
    first, second = (np.log(draw(effect, G_OFF, seed, 8)) for seed in (1, 2))
    assert np.corrcoef(first, second)[0, 1] == pytest.approx(0.36, abs=5 / np.sqrt(N) + 0.01)
    assert np.corrcoef(first, np.log(draw(effect, G_OFF, 1, 9)))[0, 1] == pytest.approx(0.64, abs=0.02)


def test_failed_devices_have_no_gradient() -> None:
    g = torch.full((1000,), G_OFF, dtype=torch.float64, requires_grad=True)
    out = from_node().conductance(g, torch.Generator().manual_seed(1))
    out.sum().backward()
    assert g.grad is not None
    assert torch.equal(g.grad == 0, out > 1e-6)


def test_a_measured_log() -> None:
    """At the targets of 8193 devices the share of failures and the relative error are those of the node."""
    tree = device_model.open_device("levy-write-verify")
    effect = WriteVerify.from_device(tree)
    assert effect is not None
    node = tree["writes"].to_dataset()
    for row in (1, 2):
        target = float(node["target"][row])
        found = draw(effect, target)
        good = np.abs(found / target - 1) < 0.06
        assert 1 - good.mean() == pytest.approx(1 - float(node["switching_success_probability"][row]), abs=4e-4)
        assert found[good].std() / target == pytest.approx(float(node["sigma_relative"][row]), rel=0.06)
        assert found[good].mean() - target == pytest.approx(
            float(node["bias"][row]), abs=0.1 * float(node["sigma"][row])
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (([0.0], ENDS, [[1e-6, 2e-6]]), "targets > 0"),
        (([1e-6], ENDS, [[2e-6, 1e-6]]), "do not descend"),
        (([1e-6], ENDS, [[1e-6, 2e-6]], [1.2]), "0 to 1"),
        (([1e-6], ENDS, [[1e-6, 2e-6]], [0.9]), "failed writes"),
        (([1e-6], ENDS, [[1e-6, 2e-6]], [0.9], [[np.nan, np.nan]]), "failed writes"),
    ],
)
def test_bad_values_are_refused(options: tuple, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        WriteVerify(options[0], options[1], np.array(options[2]), *options[3:4], *map(np.array, options[4:]))
