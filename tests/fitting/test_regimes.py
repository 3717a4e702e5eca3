"""Whether the line against ln R changes: found where it does, and not where it does not."""

import numpy as np
import pytest

from calib.device_model import ShapeLaw
from calib.fitting import iv_node, regimes
from calib.fitting.population import fit_line
from tests.fitting.test_population import PF, fitted
from tests.synthetic import V_REF

IDENTITY = ("log", "identity")


def curves(kind: str, seed: int, n: int = 120, device: np.ndarray | None = None):
    """Return fits of curves whose exponent follows one line, a bent one, or one with a spread that changes."""
    generator = np.random.default_rng(seed)
    ln_r = 13.0 + generator.standard_normal(n)
    gamma = 2 + 0.2 * (ln_r - 13) + (0.8 * np.maximum(ln_r - 13, 0) if kind == "bent" else 0)
    sigma = 0.25 * np.where(ln_r > 13, 2.5, 1.0) if kind == "spread" else 0.25
    return fitted(gamma + sigma * generator.standard_normal(n), ln_r, seed=seed, device=device)


def test_a_bent_line_is_found() -> None:
    warnings: list[str] = []
    fits = curves("bent", 0)
    found = regimes.find(PF, fits, V_REF, fit_line(PF, fits, V_REF, IDENTITY), warnings)
    assert found is not None
    assert found.ln_r_break == pytest.approx(13.0, abs=0.5)
    assert found.bic_drop > 10
    below, above = found.lines
    assert below.slope_bound[1, 0] < 0.2 < below.slope_bound[1, 1]
    assert above.slope_bound[1, 0] < 1.0 < above.slope_bound[1, 1]
    assert below.n_curves + above.n_curves == 120
    assert "it changes at R =" in warnings[0]


@pytest.mark.parametrize("kind", ["straight", "spread"])
def test_no_break_is_invented(kind: str) -> None:
    for seed in range(4):
        fits = curves(kind, seed)
        assert regimes.find(PF, fits, V_REF, fit_line(PF, fits, V_REF, IDENTITY), []) is None


def test_few_curves_or_devices_have_no_regimes() -> None:
    fits = curves("bent", 0, n=39)
    assert regimes.find(PF, fits, V_REF, fit_line(PF, fits, V_REF, IDENTITY), []) is None
    two = np.where(np.arange(120) < 60, "a", "b")
    fits = curves("bent", 0, device=two)
    assert regimes.find(PF, fits, V_REF, fit_line(PF, fits, V_REF, IDENTITY), []) is None


def test_the_table_makes_a_law_that_is_each_line_on_its_side() -> None:
    fits = curves("bent", 0)
    line = fit_line(PF, fits, V_REF, IDENTITY)
    found = regimes.find(PF, fits, V_REF, line, [])
    assert found is not None
    node = iv_node.iv_node(
        PF, {"hrs": fits}, {"hrs": fits}, {"hrs": line}, form="anchored", reference_voltage=V_REF, polarity="positive",
        split=[found],
    )  # fmt: skip
    law = ShapeLaw(
        iv_model="poole-frenkel", form="anchored", reference_voltage=V_REF, parameters=("c", "gamma"),
        transforms=IDENTITY, centres=node["regime_centre"].values, intercept=node["regime_intercept"].values,
        slope=node["regime_slope"].values, covariance=node["regime_covariance"].values, ln_r_min=10, ln_r_max=16,
        v_min=0.0, v_max=0.5,
    )  # fmt: skip
    assert (np.diff(law.centres) > 0).all()
    for side, part in zip((-1, 1), found.lines, strict=True):
        at = found.ln_r_break + side * np.array([iv_node.TRANSITION, 0.3, 2.0])
        mean, covariance = law.at(at)
        np.testing.assert_allclose(mean[:, 1], part.intercept[1] + part.slope[1] * at, rtol=1e-9)
        np.testing.assert_allclose(covariance[:, 1, 1], part.covariance[1, 1], rtol=1e-9)
