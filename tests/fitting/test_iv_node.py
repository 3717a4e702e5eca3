"""The iv node: every estimate with its error and interval, and its joint covariance."""

import numpy as np

from calib import device_model
from calib.fitting import iv_node
from calib.fitting.population import fit_lines
from tests.fitting.test_population import PF, fitted, gammas
from tests.synthetic import V_REF


def node(**how):
    fits = {"hrs": fitted(*gammas(0.2, 1, **how))}
    return iv_node.iv_node(
        PF, fits, fits, fit_lines(PF, fits, V_REF), form="anchored", reference_voltage=V_REF, polarity="positive"
    )


def test_every_estimate_has_its_interval() -> None:
    part = node()
    for name in ("intercept", "slope", "value_at_centre", "spread", "ln_r_mean", "ln_r_std"):
        low, high = np.moveaxis(part[f"{name}_bound"].values, -1, 0)
        assert (low <= part[name].values + 1e-12).all(), name
        assert (part[name].values <= high + 1e-12).all(), name
        assert part[f"{name}_stderr"].dims == part[name].dims
    np.testing.assert_allclose(part["value_at_centre"], part["intercept"] + part["slope"] * part["centre"], rtol=1e-9)
    diagonal = np.diagonal(part["covariance"].values, axis1=1, axis2=2)
    np.testing.assert_allclose(np.sqrt(diagonal), part["spread"].values, rtol=1e-9)


def test_the_joint_covariance_is_labelled() -> None:
    part = node()
    assert part["line"].values.tolist() == ["c_intercept", "c_slope", "gamma_intercept", "gamma_slope"]
    errors = np.sqrt(np.diagonal(part["line_covariance"].values[0]))
    expected = np.stack([part["intercept_stderr"].values[0], part["slope_stderr"].values[0]], axis=1).ravel()
    np.testing.assert_allclose(errors, expected, rtol=1e-9)


def test_it_is_a_device_model() -> None:
    tree = device_model.build({"iv": node()}, name="test")
    device_model.check(tree)


def test_only_some_of_the_curves() -> None:
    fits = fitted(*gammas(0.2, 1))
    keep = np.arange(60) % 3 == 0
    part = iv_node.only(fits, keep)
    assert len(part.curves) == len(part.fit.values) == len(part.ln_r) == 20
    assert part.fit.names == fits.fit.names
    np.testing.assert_array_equal(part.curves.device, fits.curves.device[keep])
