"""What a fit says of itself: flags and sentences, raised where they should be and not elsewhere."""

import numpy as np
import pytest
from scipy.stats import kurtosistest

from calib.fitting import batch_fit
from calib.fitting.batch_fit import (
    AT_BOUND,
    FLAGS,
    HEAVY_TAILED,
    ILL_CONDITIONED_COVARIANCE,
    UNIDENTIFIABLE_PAIR,
    largest_kurtosis,
)
from calib.fitting.least_squares import BatchFit, fit_batch
from calib.iv_models import iv_model
from tests.synthetic import poole_frenkel

PF = iv_model("poole-frenkel")


def fitted(low: float, high: float, noise: np.ndarray, relative: float) -> BatchFit:
    """Fit curves with noise (curve, point) in units of the relative standard deviation."""
    voltage = np.broadcast_to(np.linspace(low, high, noise.shape[1]), noise.shape)
    clean = poole_frenkel(voltage, 1e-6, 2.0)
    return fit_batch(PF, voltage, clean * (1 + relative * noise), relative * clean)


def normal(count: int, points: int = 50) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, points))


def test_good_curves_have_no_flags() -> None:
    """But for one in 30,000, the rate at which normal noise looks heavy-tailed."""
    fit = fitted(0.02, 0.5, normal(3000), 0.01)
    assert fit.ok.all()
    assert np.count_nonzero(fit.flags) <= 2
    clean = int(np.flatnonzero(fit.flags == 0)[0])
    assert fit.sentences(clean) == []


def test_a_pair_that_cannot_be_told_apart_is_named() -> None:
    fit = fitted(0.48, 0.5, normal(5), 1e-4)
    assert fit.ok.all()
    assert (fit.flags == UNIDENTIFIABLE_PAIR).all()
    assert fit.pair[0].tolist() == [0, 1]
    expected = fit.covariance[0, 0, 1] / np.sqrt(fit.covariance[0, 0, 0] * fit.covariance[0, 1, 1])
    assert fit.correlation[0] == pytest.approx(expected, rel=1e-12)
    (sentence,) = fit.sentences(0)
    assert sentence.startswith("c and gamma cannot be told apart: their correlation is -0.999")


def test_an_ill_conditioned_covariance_is_said() -> None:
    fit = fitted(0.4999, 0.5, normal(3), 1e-7)
    assert fit.ok.all()
    assert (fit.flags == UNIDENTIFIABLE_PAIR | ILL_CONDITIONED_COVARIANCE).all()
    assert (fit.condition > 1e8).all()
    assert "the covariance is ill-conditioned (condition number " in fit.sentences(0)[1]


def test_heavy_tails_are_said() -> None:
    noise = np.random.default_rng(1).standard_t(1.5, (200, 100))
    fit = fitted(0.02, 0.5, noise, 0.003)
    flagged = (fit.flags & HEAVY_TAILED) != 0
    assert flagged.mean() > 0.9
    row = int(np.flatnonzero(flagged)[0])
    assert f"kurtosis {fit.kurtosis[row]:.1f}, not 3" in fit.sentences(row)[-1]
    residual = poole_frenkel(np.linspace(0.02, 0.5, 100), *fit.values[row])
    clean = poole_frenkel(np.linspace(0.02, 0.5, 100), 1e-6, 2.0)
    r = (residual - clean * (1 + 0.003 * noise[row])) / clean
    assert fit.kurtosis[row] == pytest.approx(100 * (r**4).sum() / np.square(r).sum() ** 2, rel=1e-6)


def test_the_kurtosis_that_is_flagged_is_that_of_the_normal_approximation() -> None:
    """A sample of exactly that kurtosis has the z that the flag stands for; for few points nothing is flagged."""
    n = 60
    generator = np.random.default_rng(3)
    low, high = 0.0, 30.0
    base = generator.standard_normal(n - 1)
    for _ in range(80):  # an outlier of the right size
        middle = (low + high) / 2
        x = np.append(base, middle)
        x = x - x.mean()
        kurtosis = n * (x**4).sum() / (x**2).sum() ** 2
        low, high = (middle, high) if kurtosis < largest_kurtosis(np.array([n]))[0] else (low, middle)
    assert kurtosistest(x).statistic == pytest.approx(batch_fit.HEAVY_TAILED_Z, rel=1e-6)
    assert largest_kurtosis(np.array([5, 19])).tolist() == [np.inf, np.inf]


def test_a_bound_is_flagged_and_the_population_is_told() -> None:
    law = iv_model("fowler-nordheim")
    voltage = np.linspace(0.1, 1.0, 40)
    current = 1e-6 * voltage**2 * np.stack([np.exp(0.1 / voltage), np.exp(-0.8 / voltage)])
    noise = np.random.default_rng(4).standard_normal(current.shape)
    fit = fit_batch(law, np.tile(voltage, (2, 1)), current * (1 + 0.01 * noise), 0.01 * current)
    assert fit.flags.tolist() == [AT_BOUND, 0]
    assert fit.flag_sentences() == [f"1 of 2 curves: {FLAGS[AT_BOUND]}"]


def test_a_curve_that_was_not_fitted_has_no_flags() -> None:
    nothing = np.full((1, 30), np.nan)
    fit = fit_batch(PF, nothing, nothing, nothing)
    assert fit.flags[0] == 0
    assert not fit.at_bound.any()
    assert fit.sentences(0) == fit.flag_sentences() == []


def test_every_flag_is_one_bit() -> None:
    assert sorted(FLAGS) == [1, 2, 4, 8]
