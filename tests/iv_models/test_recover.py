"""Known parameters come back from noisy curves, from the law's own guess."""

import numpy as np
import pytest

from calib.fitting.least_squares import fit_batch
from calib.iv_models import all_names, iv_model
from tests.contracts.iv_model_contract import V_MAX, device_parameters

NOISE = 0.002
N = 25


@pytest.mark.parametrize("name", all_names())
def test_noisy_curves_give_their_currents_and_parameters_back(name: str) -> None:
    """chi^2 per degree of freedom is near 1, and estimates lie within 5 standard errors where they are determined.

    A parameter is judged where no other is held at its bound, and where its standard error is below a tenth (of itself
    where positive, else of its typical range): elsewhere the problem is not linear in it within its error.
    """
    law = iv_model(name)
    values, generator = device_parameters(law, N, seed=3), np.random.default_rng(4)
    voltage = np.tile(np.linspace(0.02 if law.odd else -V_MAX, V_MAX, 60), (N, 1))
    exact = law.current(voltage, xp=np, **values)
    sigma = NOISE * np.hypot(exact, 0.02 * np.abs(exact).max(axis=1, keepdims=True))  # relative, with a floor
    fit = fit_batch(law, voltage, exact + sigma * generator.standard_normal(exact.shape), sigma)
    usable = fit.ok
    assert usable.mean() > (0.3 if law.series else 0.9)
    reduced = fit.cost / fit.n_free
    assert np.abs(np.median(reduced[usable]) - 1) < 0.15
    assert (reduced[usable] > 2.2).mean() <= (
        0.05 if law.series else 0.0
    )  # a series resistance can leave a second minimum
    bounds = np.array([(parameter.lower, parameter.upper) for parameter in law.parameters])
    inside = (np.abs(fit.values[:, :, None] - bounds) > 1e-5 * np.abs(fit.values[:, :, None])).all((1, 2))
    for k, parameter in enumerate(law.parameters):
        true, error = values[parameter.name][:, 0], fit.stderr[:, k]
        size = true if parameter.transform == "log" else np.ptp(parameter.typical)
        known = usable & inside & (reduced < 2.2) & (error > 0) & (error < 0.1 * size)
        assert np.all(np.abs(fit.values[known, k] - true[known]) < 5 * error[known])
