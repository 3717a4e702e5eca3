"""Lognormal spread: moments, interpolation of sigma."""

import numpy as np
import pytest
import torch

from calib.errors import OptionError
from calib.nonidealities.lognormal import Lognormal
from tests.simple_devices import programming_node, range_only


def draw(effect: Lognormal, g: float, n: int = 200_000) -> np.ndarray:
    generator = torch.Generator().manual_seed(11)
    return 1 / effect.conductance(torch.full((n,), g, dtype=torch.float64), generator).numpy()


@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.5])
def test_spread_and_mean_of_r(sigma: float) -> None:
    r = draw(Lognormal([1e6], [sigma]), 1e-6)
    n = len(r)
    assert np.log(r).std() == pytest.approx(sigma, rel=4 / np.sqrt(2 * n) + 1e-3)  # 4 standard errors, and the clipping
    assert r.mean() == pytest.approx(1e6, rel=4 * r.std() / 1e6 / np.sqrt(n) + 1e-4)


@pytest.mark.parametrize(("r", "sigma"), [(1e5, 0.2), (4e5, 0.2), (1.2e6, 0.3), (2e6, 0.4), (1e7, 0.4)])
def test_sigma_is_linear_in_r_and_constant_outside(r: float, sigma: float) -> None:
    effect = Lognormal.from_device(range_only(programming=programming_node(0.2, 0.4)))
    assert effect is not None
    assert float(effect.spread(torch.tensor(r, dtype=torch.float64))) == pytest.approx(sigma, rel=1e-6)
    assert np.log(draw(effect, 1 / r)).std() == pytest.approx(sigma, rel=0.01)


def test_zero_spread_returns_the_same() -> None:
    g = torch.tensor([1e-6, 2e-6])
    assert Lognormal([1e5, 1e6], [0.0, 0.0]).conductance(g, torch.Generator()) is g


def test_bad_values_are_refused() -> None:
    with pytest.raises(OptionError, match="sigma >= 0"):
        Lognormal([1e5], [-0.1])
    with pytest.raises(OptionError, match="different resistances"):
        Lognormal([1e5, 1e5], [0.1, 0.2])
