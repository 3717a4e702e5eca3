"""The conduction law of drawn devices: anchoring, moments, blending of states, clipping."""

import numpy as np
import pytest
import torch

from calib.device_model import shape_law
from calib.iv_models import all_names
from calib.nonidealities.base import Z_MAX
from calib.nonidealities.iv import IV
from tests.iv_models.law_devices import conduction
from tests.simple_devices import G_OFF, G_ON, LN_R, device, iv_node

V_REF = torch.tensor(0.1, dtype=torch.float64)


def effect(**options: object) -> IV:
    return IV(shape_law(device(iv=iv_node(**options))))


def draw(law: IV, g: torch.Tensor, seed: int = 3) -> dict[str, torch.Tensor]:
    z = law.deviates(tuple(g.shape), torch.Generator().manual_seed(seed), g.dtype)
    return law.parameters(g, z)


@pytest.mark.parametrize("two_states", [False, True])
@pytest.mark.parametrize("transform", ["log", "identity"])
def test_anchored_devices_have_exactly_their_resistance(two_states: bool, transform: str) -> None:
    law = effect(two_states=two_states, transform=transform)
    g = torch.linspace(G_OFF, G_ON, 500, dtype=torch.float64)
    current = law.law.current(V_REF, xp=torch, **draw(law, g))
    torch.testing.assert_close(current, V_REF * g, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", ["anchored", "paper"])
@pytest.mark.parametrize("two_states", [False, True])
@pytest.mark.parametrize("where", [0.1, 0.5, 0.8])
def test_draws_follow_the_population(form: str, two_states: bool, where: float) -> None:
    """Mean and covariance of the transformed parameters at one ln R, within 5 standard errors."""
    tree = device(iv=iv_node(form=form, two_states=two_states))
    law = IV(shape_law(tree))
    ln_r = LN_R[0] + where * (LN_R[1] - LN_R[0])
    n = 60_000
    values = draw(law, torch.full((n,), np.exp(-ln_r), dtype=torch.float64))
    names = ["gamma"] if form == "anchored" else ["c", "gamma"]
    t = np.stack([np.log(values[name].numpy()) for name in names])
    mean, covariance = shape_law(tree).at(np.asarray(ln_r))
    index = [["c", "gamma"].index(name) for name in names]
    spread = np.sqrt(np.diag(covariance)[index])
    assert np.abs(t.mean(1) - mean[index]).max() < 5 * spread.max() / np.sqrt(n)
    expected = covariance[np.ix_(index, index)]
    np.testing.assert_allclose(np.cov(t).reshape(expected.shape), expected, rtol=0.03)


def test_papers_form_draws_scale_and_shape_together() -> None:
    law = effect(form="paper")
    values = draw(law, torch.full((4000,), 1e-6, dtype=torch.float64))
    correlation = np.corrcoef(np.log(values["c"].numpy()), np.log(values["gamma"].numpy()))[0, 1]
    assert correlation == pytest.approx(-1.0, abs=1e-9)  # the covariance is of rank one


def test_one_deviate_a_device_in_the_anchored_form() -> None:
    assert effect(two_states=True).deviates((2, 3), torch.Generator(), torch.float32).shape == (1, 2, 3)


@pytest.mark.parametrize("two_states", [False, True])
def test_slope_agrees_with_differences(two_states: bool) -> None:
    law = effect(two_states=two_states)
    g = torch.exp(-torch.linspace(LN_R[0] + 0.01, LN_R[1] - 0.01, 50, dtype=torch.float64))
    z = law.deviates((50,), torch.Generator().manual_seed(1), g.dtype)
    found = law.shape_with_slope(-torch.log(g), z)
    assert found is not None
    h = 1e-6
    difference = (law.parameters(g * np.exp(-h), z)["gamma"] - law.parameters(g * np.exp(h), z)["gamma"]) / (2 * h)
    torch.testing.assert_close(found[0], law.parameters(g, z)["gamma"], rtol=1e-12, atol=0)
    torch.testing.assert_close(found[1].expand_as(g), difference, rtol=1e-6, atol=1e-8)


def test_beyond_the_validity_draws_are_clipped_and_counted() -> None:
    law = effect()
    g = torch.tensor([G_OFF, G_ON, G_OFF / 10, G_ON * 10], dtype=torch.float64)
    z = torch.tensor([[0.0, Z_MAX + 1, 0.0, 0.0]], dtype=torch.float64)
    values = law.parameters(g, z)["gamma"]
    edge = law.parameters(g[:2], torch.tensor([[0.0, Z_MAX]], dtype=torch.float64))["gamma"]
    zero = law.parameters(g[1:2], torch.zeros(1, 1, dtype=torch.float64))["gamma"]
    torch.testing.assert_close(values, torch.cat((edge, edge[:1], zero)))
    assert law.clipped(g, z) == 3


def test_ideal_is_ohms_law() -> None:
    g = torch.tensor([1e-6, 2e-6])
    ideal = effect().ideal()
    assert ideal.law.name == "ohmic"
    assert draw(ideal, g)["g"] is g


@pytest.mark.parametrize("name", all_names())
def test_every_law_is_anchored(name: str) -> None:
    """Devices of several shape parameters, with a series resistance or without, have exactly their resistance."""
    law = conduction(name)
    g = torch.linspace(G_OFF, G_ON, 300, dtype=torch.float64)
    v_ref = torch.tensor(law.reference_voltage, dtype=torch.float64)
    torch.testing.assert_close(law.law.current(v_ref, xp=torch, **draw(law, g)), v_ref * g, rtol=1e-11, atol=0)


def test_a_series_resistance_is_held_below_the_devices_own() -> None:
    """At 10 times the largest conductance R is 40 kOhm, at 30 times 13 kOhm, and r_series about 30 kOhm."""
    law = conduction("hyperbolic-sine+series", spread=1e-4)
    g = torch.tensor([G_ON, 10 * G_ON, 30 * G_ON], dtype=torch.float64)
    values = draw(law, g)
    assert bool(torch.isfinite(values["g"]).all())
    torch.testing.assert_close(values["r_series"][2], 0.95 / g[2])
    assert float(values["r_series"][1]) == pytest.approx(3e4, rel=1e-2)
    z = law.deviates((3,), torch.Generator().manual_seed(3), g.dtype)
    assert law.clipped(g[:1], z[:, :1]) == 0
    assert law.clipped(torch.cat((g[:1], g[2:])), z[:, :2]) == 1


def test_extremes_reach_out_in_combinations_of_shapes() -> None:
    """Corners of two correlated shapes lie as far out, in standard deviations, as the ends along each."""
    law = conduction("polynomial", spread=0.05)
    p = law.population
    shapes = np.array([[device["a3"], device["a5"]] for device in law.extremes(2.0)])
    covariance = p.covariance[0][1:, 1:]
    lines = np.array([p.at(np.asarray(ln_r))[0][1:] for ln_r in (LN_R[0], p.centres[0], LN_R[1])])
    off = shapes.reshape(3, 13, 2) - lines[:, None]  # the middle, 4 along each of two directions, 4 corners
    distance = np.sqrt(np.einsum("cdi,ij,cdj->cd", off, np.linalg.inv(covariance), off))
    expected = [0, 2, 1, 1, 2, 2, 1, 1, 2, 2, 2, 2, 2]
    np.testing.assert_allclose(distance, np.tile(expected, (3, 1)), atol=1e-6)
