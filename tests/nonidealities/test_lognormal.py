"""Lognormal spread: moments, interpolation of sigma."""

import numpy as np
import pytest
import torch

from calib.errors import OptionError
from calib.nonidealities.lognormal import Lognormal
from tests.nonidealities.nodes import separated_programming
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
    with pytest.raises(OptionError, match="expected 0 to 1"):
        Lognormal([1e5], [0.1], [1.5])


def programmed_twice(effect: Lognormal, n: int = 100_000) -> np.ndarray:
    """Return ln R of a chip after each of two programmings."""
    g = torch.full((n,), 1e-6, dtype=torch.float64)
    rows = [effect.conductance(g, torch.Generator().manual_seed(k), torch.Generator().manual_seed(9)) for k in (1, 2)]
    return -np.log(torch.stack(rows).numpy())


def test_devices_keep_their_part_of_the_spread() -> None:
    """Two programmings correlate by sigma_d2d^2 / sigma^2, each with the whole sigma; 5 standard errors."""
    effect = Lognormal.from_device(range_only(programming=separated_programming(0.3, 0.4)))
    assert effect is not None
    ln_r = programmed_twice(effect)
    n = ln_r.shape[1]
    assert ln_r.std(axis=1) == pytest.approx(0.5, rel=5 / np.sqrt(2 * n) + 1e-3)
    assert np.corrcoef(ln_r)[0, 1] == pytest.approx(0.36, abs=5 / np.sqrt(n))


def test_without_a_device_generator_the_parts_are_one() -> None:
    g = torch.linspace(5e-7, 2e-6, 100, dtype=torch.float64)
    apart, together = Lognormal([1e5, 1e6], [0.2, 0.4], [0.3, 0.6]), Lognormal([1e5, 1e6], [0.2, 0.4])
    drawn = [member.conductance(g, torch.Generator().manual_seed(1)) for member in (apart, together)]
    assert torch.equal(drawn[0], drawn[1])


def test_a_spread_of_unknown_parts_is_drawn_anew() -> None:
    ln_r = programmed_twice(Lognormal([1e6], [0.5]))
    assert abs(np.corrcoef(ln_r)[0, 1]) < 5 / np.sqrt(ln_r.shape[1])


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_share_may_be_nothing_or_all(share: float) -> None:
    ln_r = programmed_twice(Lognormal([1e5, 1e6], [0.5, 0.5], [share, share]), 1000)
    assert np.allclose(ln_r[0], ln_r[1], atol=1e-12) == bool(share)


def test_a_state_without_a_spread_is_left_out() -> None:
    effect = Lognormal.from_device(range_only(programming=programming_node(0.2, float("nan"))))
    assert effect is not None
    assert effect.sigma == (0.2,)
    assert Lognormal.from_device(range_only(programming=programming_node(float("nan"), float("nan")))) is None
