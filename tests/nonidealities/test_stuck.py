"""Stuck devices: how many, where, and that the others stay."""

import numpy as np
import pytest
import torch
from scipy import stats

from calib.errors import OptionError
from calib.nonidealities.stuck import Stuck
from tests.simple_devices import G_OFF, G_ON, device, range_only, stuck_node


def test_number_of_stuck_devices_is_binomial() -> None:
    g = torch.full((400_000,), 1e-6)
    out = Stuck(0.05, [3e-6]).conductance(g, torch.Generator().manual_seed(2))
    n = int((out != g).sum())
    assert stats.binomtest(n, len(g), 0.05).pvalue > 1e-4
    assert set(out.unique().tolist()) == {g[0].item(), torch.tensor(3e-6).item()}


def test_kernel_density_is_sampled() -> None:
    """|value + bandwidth z|: mixture of normals, reflected at zero (Kolmogorov-Smirnov against its distribution)."""
    values, width = np.array([1e-7, 8e-7]), 3e-7
    effect = Stuck.from_device(range_only(stuck=stuck_node(0.1, tuple(values), width)))
    assert effect is not None
    sample = effect.sample(20_000, torch.Generator().manual_seed(4), torch.float64).numpy()

    def cdf(x: np.ndarray) -> np.ndarray:
        parts = [stats.norm.cdf((x - v) / width) - stats.norm.cdf((-x - v) / width) for v in values]
        return np.mean(parts, axis=0)

    assert sample.min() > 0
    assert stats.kstest(sample, cdf).pvalue > 1e-3


def test_stuck_at_off_and_on() -> None:
    tree = device()
    everyone = torch.full((8,), 1e-6, dtype=torch.float64)
    generator = torch.Generator()
    assert Stuck.at_off(tree, 1.0).conductance(everyone, generator).tolist() == pytest.approx([G_OFF] * 8)
    assert Stuck.at_on(tree, 1.0).conductance(everyone, generator).tolist() == pytest.approx([G_ON] * 8)


def test_stuck_devices_have_no_gradient() -> None:
    g = torch.full((1000,), 1e-6, dtype=torch.float64, requires_grad=True)
    out = Stuck(0.3, [2e-6]).conductance(g, torch.Generator().manual_seed(1))
    out.sum().backward()
    assert torch.equal(g.grad, (out == g).double())


def test_stuck_devices_stay_when_a_chip_is_programmed_again() -> None:
    g = torch.full((2000,), 1e-6, dtype=torch.float64)
    effect = Stuck(0.3, [2e-6, 3e-6], 1e-7)
    rows = [effect.conductance(g, torch.Generator().manual_seed(k), torch.Generator().manual_seed(5)) for k in (1, 2)]
    assert torch.equal(rows[0], rows[1])
    assert not torch.equal(rows[0], effect.conductance(g, torch.Generator().manual_seed(1)))


def test_a_model_without_stuck_devices() -> None:
    effect = Stuck.from_device(range_only(stuck=stuck_node(0.0, (), 0.0)))
    assert effect is not None
    assert effect.describe() == "no stuck devices"


@pytest.mark.parametrize(("probability", "values"), [(1.2, [1e-6]), (0.1, []), (0.1, [-1e-6])])
def test_bad_values_are_refused(probability: float, values: list[float]) -> None:
    with pytest.raises(OptionError, match="stuck devices"):
        Stuck(probability, values)
