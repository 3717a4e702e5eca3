"""A series resistance around a law: Kirchhoff's law, closed forms, limits, what is refused."""

import numpy as np
import pytest
import torch
from scipy.special import lambertw

from calib.errors import OptionError
from calib.iv_models import all_names, iv_model, names
from calib.iv_models._series import WithSeries
from tests.contracts.iv_model_contract import device_parameters

WRAPPED = [name for name in all_names() if "+" in name]


def test_names_are_those_of_the_plain_laws() -> None:
    assert all("+" not in name for name in names())
    assert {name.partition("+")[0] for name in WRAPPED} == {n for n in names() if iv_model(n).series_allowed}
    assert "ohmic+series" not in WRAPPED
    assert iv_model("diode+series") is iv_model("diode+series")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ohmic+series", "'ohmic' takes no series resistance: the resistance of an ohmic device takes up"),
        ("polynomial+series", "the coefficients of a polynomial"),
        ("diode+parallel", r"'diode\+parallel' is not known: '\+series', a series resistance, is all"),
        ("diod+series", "there is no 'diod' in iv_models; found: "),
    ],
)
def test_what_makes_no_sense_is_refused(name: str, why: str) -> None:
    with pytest.raises(OptionError, match=why):
        iv_model(name)


@pytest.mark.parametrize("name", WRAPPED)
@pytest.mark.parametrize("factor", [1e-12, 1e-3, 1.0, 1e3, 1e12])
def test_voltages_add_up(name: str, factor: float) -> None:
    """V = v + r I_law(v), and the current is that of the law at v, from negligible to overwhelming resistances."""
    law = iv_model(name)
    assert isinstance(law, WithSeries)
    values = device_parameters(law, 10)
    values["r_series"] = values["r_series"] * factor
    voltage = np.array([-3.0, -0.5, -1e-9, 0.0, 1e-6, 0.1, 1.0, 3.0])
    current = law.current(voltage, xp=np, **values)
    v = law.inner_voltage(voltage, xp=np, **values)
    inner = {key: value for key, value in values.items() if key != "r_series"}
    np.testing.assert_allclose(law.law.current(v, xp=np, **inner), current, rtol=1e-8)
    np.testing.assert_allclose(v + values["r_series"] * current, np.broadcast_to(voltage, v.shape), rtol=1e-8)


def test_a_square_law_has_a_closed_form() -> None:
    """n = 4: V = v + r g v |v|."""
    g, r, voltage = 2e-4, 7e3, np.array([-2.0, 0.03, 0.4, 5.0])
    found = iv_model("power-law+series").current(
        voltage, xp=np, g=np.asarray(g), n=np.asarray(4.0), r_series=np.asarray(r)
    )
    v = (np.sqrt(1 + 4 * r * g * np.abs(voltage)) - 1) / (2 * r * g)
    np.testing.assert_allclose(found, g * v**2 * np.sign(voltage), rtol=1e-13)


def test_a_diode_has_lambert_w() -> None:
    """Banwell and Jayakumar, Electron. Lett. 36, 291 (2000), doi 10.1049/el:20000301: 26 decades of exponentials."""
    i_s, v_t, r, voltage = 1e-14, 0.0259, 50.0, np.array([-1.0, 0.2, 0.6, 1.0, 2.0])
    values = {"i_s": np.asarray(i_s), "v_f": np.asarray(v_t), "n": np.asarray(1.0), "r_series": np.asarray(r)}
    found = iv_model("diode+series").current(voltage, xp=np, **values)
    argument = r * i_s / v_t * np.exp((voltage + r * i_s) / v_t)
    np.testing.assert_allclose(found, v_t / r * lambertw(argument).real - i_s, rtol=1e-9, atol=1e-22)


def test_the_gradient_is_that_of_the_implicit_function() -> None:
    law = iv_model("hyperbolic-sine+series")
    values = {"g": 1e-4, "kappa": 30.0, "r_series": 5e3}
    tensors = {key: torch.tensor(value, dtype=torch.float64, requires_grad=True) for key, value in values.items()}
    voltage = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64, requires_grad=True)
    current = law.current(voltage, xp=torch, **tensors)
    (by_voltage,) = torch.autograd.grad(current.sum(), voltage, retain_graph=True)
    arrays = {key: np.asarray(value) for key, value in values.items()}
    np.testing.assert_allclose(by_voltage, law.slope(voltage.detach().numpy(), xp=np, **arrays), rtol=1e-12)
    jacobian = law.jacobian(voltage.detach().numpy(), xp=np, **arrays)
    for key, tensor in tensors.items():
        (found,) = torch.autograd.grad(current.sum(), tensor, retain_graph=True)
        assert float(found) == pytest.approx(float(np.sum(jacobian[key])), rel=1e-12)


def test_a_resistance_below_the_series_resistance_has_no_anchor() -> None:
    law = iv_model("power-law+series")
    shape = {"n": np.full(3, 3.0), "r_series": np.array([1e3, 1e4, 2e4])}
    scale = law.anchor(np.full(3, 1e4), 0.1, xp=np, **shape)
    assert np.isfinite(scale[0])
    assert np.isnan(scale[1:]).all()
    held = law.admissible(np.full(3, 1e4), xp=np, **shape)
    np.testing.assert_allclose(held["r_series"], [1e3, 9.5e3, 9.5e3])
    found = law.resistance(0.1, xp=np, **{"g": law.anchor(np.full(3, 1e4), 0.1, xp=np, **held), **held})
    np.testing.assert_allclose(found, 1e4, rtol=1e-12)


def test_derived_quantities_are_those_of_the_law() -> None:
    found = iv_model("poole-frenkel+series").derived(300.0, c=1e-6, gamma=2.0, r_series=100.0)
    assert found == iv_model("poole-frenkel").derived(300.0, c=1e-6, gamma=2.0)
