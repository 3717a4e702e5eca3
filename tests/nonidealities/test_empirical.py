"""Spread with the measured distribution: its quantiles, moments, and agreement with the lognormal."""

import numpy as np
import pytest
import torch
from scipy import stats
from scipy.special import ndtri

from calib import device_model
from calib.errors import OptionError
from calib.nonidealities.empirical import Empirical
from calib.nonidealities.lognormal import Lognormal
from tests.simple_devices import everything, range_only

P = (np.arange(99) + 1) / 100
N = 200_000


def ln_r(effect: Empirical, resistance: float) -> np.ndarray:
    g = torch.full((N,), 1 / resistance, dtype=torch.float64)
    return -np.log(effect.conductance(g, torch.Generator().manual_seed(4)).numpy()) - np.log(resistance)


def test_normal_residuals_are_the_lognormal() -> None:
    g = torch.linspace(2e-7, 2e-5, 500, dtype=torch.float64)
    empirical = Empirical([1e5, 1e6], [0.2, 0.4], P, np.tile(ndtri(P), (2, 1)))
    lognormal = Lognormal([1e5, 1e6], [0.2, 0.4])
    z = [member.conductance(g, torch.Generator().manual_seed(1)) for member in (empirical, lognormal)]
    # at the states exact to rounding and clipping; between them c is linear in R where sigma^2 / 2 is a parabola
    torch.testing.assert_close(z[0], z[1], rtol=0.01, atol=0)
    ends = (g <= 1e-6) | (g >= 1e-5)
    torch.testing.assert_close(z[0][ends], z[1][ends], rtol=1e-4, atol=0)


@pytest.mark.parametrize("resistance", [1e5, 1e6, 5e6])
def test_draws_follow_the_measured_quantiles(resistance: float) -> None:
    """Skewed residuals: mean of R kept, standard deviation sigma, and Kolmogorov-Smirnov against the quantiles."""
    skewed = np.stack([np.exp(0.8 * ndtri(P)), -np.exp(0.5 * ndtri(P))[::-1]])
    effect = Empirical([1e5, 1e6], [0.3, 0.5], P, skewed)
    found = ln_r(effect, resistance)
    row = 0 if resistance == 1e5 else 1
    sigma = (0.3, 0.5)[row]
    kurtosis = float(np.mean((found - found.mean()) ** 4) / found.var() ** 2)
    assert found.std() == pytest.approx(sigma, rel=4 * np.sqrt((kurtosis - 1) / 4 / N) + 1e-3)
    ratio = np.exp(found)
    assert ratio.mean() == pytest.approx(1.0, abs=4 * ratio.std() / np.sqrt(N))
    table = effect.table.value[row]
    inner = found[(found > table[0]) & (found < table[-1])][:20_000]
    cdf = (np.interp(inner, table, P) - P[0]) / (P[-1] - P[0])
    assert stats.kstest(ndtri(P[0] + cdf * (P[-1] - P[0])), _truncated_normal).pvalue > 1e-3
    assert stats.skew(found) * stats.skew(skewed[row]) > 0


def _truncated_normal(z: np.ndarray) -> np.ndarray:
    return (stats.norm.cdf(z) - P[0]) / (P[-1] - P[0])


def test_of_a_device_model() -> None:
    tree = device_model.open_device("ddas04-rram")
    effect = Empirical.from_device(tree)
    lognormal = Lognormal.from_device(tree)
    assert effect is not None
    assert lognormal is not None
    assert effect.sigma == lognormal.sigma
    found = ln_r(effect, effect.resistance[1])
    assert found.std() == pytest.approx(effect.sigma[1], rel=0.02)
    row = tree["iv"].to_dataset().sel(state="hrs")
    skew = stats.skew(row["ln_r_quantile"].values)
    assert stats.skew(found) == pytest.approx(skew, abs=0.35)  # tails beyond the last of 100 curves are extrapolated
    assert Empirical.from_device(everything()) is None  # two quantiles tell no form
    assert Empirical.from_device(range_only()) is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (([1e5], [-0.1], P, ndtri(P)), "sigma >= 0"),
        (([1e5], [0.1], P, -ndtri(P)), "do not descend"),
        (([1e5], [0.1], P[::-1], ndtri(P)), "ascending"),
        (([1e5], [0.1], P, 0 * P), "differ"),
    ],
)
def test_bad_values_are_refused(options: tuple, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        Empirical(*options)
