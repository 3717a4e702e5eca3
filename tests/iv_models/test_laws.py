"""What is particular to single conduction laws: published formulae, limits, derived quantities."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from scipy.constants import Boltzmann, electron_mass, elementary_charge, h, hbar

from calib.iv_models import iv_model, names
from calib.iv_models.quantum_point_contact import G_0
from tests.contracts.iv_model_contract import evaluate

V = np.array([-1.0, -0.37, -0.02, 1e-7, 0.02, 0.2, 0.61, 1.0])


def current(name: str, voltage: np.ndarray = V, **parameters: float) -> np.ndarray:
    return iv_model(name).current(voltage, xp=np, **{k: np.asarray(v) for k, v in parameters.items()})


def test_hyperbolic_sine_as_in_books() -> None:
    for v_0 in (0.05, 0.3, 3.0):
        expected = 2e-6 * v_0 * np.sinh(V / v_0)
        np.testing.assert_allclose(current("hyperbolic-sine", g=2e-6, kappa=v_0**-2), expected, rtol=1e-13)


def test_hyperbolic_sine_goes_through_ohms_law() -> None:
    """At kappa = 0 current and derivative by kappa are continuous; for kappa < 0 the law is an inverse sine."""
    law = iv_model("hyperbolic-sine")
    np.testing.assert_allclose(current("hyperbolic-sine", g=2e-6, kappa=0.0), 2e-6 * V, rtol=1e-15)
    np.testing.assert_allclose(current("hyperbolic-sine", g=1.0, kappa=-4.0), 0.5 * np.arcsinh(2 * V), rtol=1e-13)
    slopes = [law.jacobian(V, xp=np, g=np.asarray(1.0), kappa=np.asarray(k))["kappa"] for k in (-1e-9, 0.0, 1e-9)]
    np.testing.assert_allclose(slopes[0], V**3 / 6, rtol=1e-7)
    np.testing.assert_allclose(slopes[2], slopes[0], rtol=1e-7)
    text = evaluate(law.expression, V=V, g=1.0, kappa=-4.0)
    np.testing.assert_allclose(text, 0.5 * np.arcsinh(2 * V), rtol=1e-13)


@pytest.mark.parametrize("kappa", [-40.0, -0.029, 0.02999, 0.03001, 30.0])
def test_hyperbolic_sines_derivative_is_exact_on_both_sides_of_the_series(kappa: float) -> None:
    law, step = iv_model("hyperbolic-sine"), 1e-20
    found = law.jacobian(np.ones(1), xp=np, g=np.ones(1), kappa=np.array([kappa]))["kappa"]
    moved = law.current(np.ones(1), xp=np, g=np.ones(1), kappa=np.array([kappa + 1j * step])).imag / step
    np.testing.assert_allclose(found, moved, rtol=1e-12)


def test_hops_of_the_hyperbolic_sine() -> None:
    found = iv_model("hyperbolic-sine").derived(300.0, g=1e-6, kappa=25.0)
    assert found["v_0"][0] == pytest.approx(0.2)
    assert found["hop"][0] == pytest.approx(2 * Boltzmann * 300 / (elementary_charge * 0.2))
    assert iv_model("hyperbolic-sine").derived(300.0, g=1e-6, kappa=-1.0) == {}


def test_schottky_emission_in_the_limits() -> None:
    """Far above v_t Schottky's exponential; far below, a resistor of i_s / v_t."""
    found = current("schottky", np.array([0.8, 1e-5]), i_s=1e-9, beta=5.0, v_t=0.02)
    assert found[0] == pytest.approx(1e-9 * math.exp(5 * math.sqrt(0.8)), rel=1e-12)
    assert found[1] == pytest.approx(1e-9 * 1e-5 / 0.02, rel=0.02)


def test_schottky_quantities_need_a_temperature() -> None:
    """beta is half of Poole-Frenkel's exponent for the same film."""
    law, d_eps = iv_model("schottky"), 2e-19
    thermal = Boltzmann * 350 / elementary_charge
    beta = math.sqrt(elementary_charge / (4 * math.pi * d_eps)) / thermal
    assert law.derived(None, i_s=1e-9, beta=beta, v_t=0.05) == {}
    found = law.derived(350.0, i_s=1e-9, beta=beta, v_t=1.7 * thermal)
    assert found["d_eps"][0] == pytest.approx(d_eps, rel=1e-12)
    assert found["ideality"][0] == pytest.approx(1.7, rel=1e-12)
    film = iv_model("poole-frenkel").derived(350.0, c=1.0, gamma=2 * beta)
    assert film["d_eps"][0] == pytest.approx(d_eps, rel=1e-12)


def test_space_charge_regimes() -> None:
    """Slopes d ln I / d ln V of 1, 2 and m + 1 where each current prevails."""
    law = iv_model("space-charge-limited")
    values = {"g": 1e-6, "child": 1.0, "v_tfl": 1e3, "m": 6.0}

    def exponent(v: float) -> float:
        p = {k: np.asarray(x) for k, x in values.items()}
        return float(law.slope(np.asarray(v), xp=np, **p) * v / law.current(np.asarray(v), xp=np, **p))

    assert exponent(1e-4) == pytest.approx(1.0, abs=1e-3)
    assert exponent(40.0) == pytest.approx(2.0, abs=0.03)
    assert exponent(1e5) == pytest.approx(7.0, abs=1e-3)
    assert law.derived(300.0, **values)["t_trap"][0] == 1800.0


def simmons(v: np.ndarray, phi: float, thickness: float, area: float) -> np.ndarray:
    """Equation 26 of Simmons 1963 as printed, phi in V."""
    b = 2 * thickness * math.sqrt(2 * electron_mass * elementary_charge) / hbar
    low, high = phi - v / 2, phi + v / 2
    difference = low * np.exp(-b * np.sqrt(low)) - high * np.exp(-b * np.sqrt(high))
    return area * elementary_charge**2 / (2 * math.pi * h * thickness**2) * difference


@pytest.mark.parametrize(("phi", "thickness"), [(1.0, 1.0e-9), (2.4, 1.6e-9), (1.2, 3.0e-9)])
def test_direct_tunnelling_is_simmons_formula(phi: float, thickness: float) -> None:
    alpha = 2 * thickness * math.sqrt(2 * electron_mass * elementary_charge * phi) / hbar
    tau, kappa = 4 / alpha, (alpha / (4 * phi)) ** 2
    voltage = np.array([-0.9, -0.3, 0.1, 0.5, 0.99])
    expected = simmons(np.abs(voltage), phi, thickness, 1e-14) * np.sign(voltage)
    g = float(simmons(np.array(1e-5), phi, thickness, 1e-14)) / 1e-5
    np.testing.assert_allclose(current("direct-tunnelling", voltage, g=g, kappa=kappa, tau=tau), expected, rtol=1e-8)
    found = iv_model("direct-tunnelling").derived(None, g=g, kappa=kappa, tau=tau)
    assert found["phi"][0] == pytest.approx(phi, rel=1e-12)
    assert found["thickness"][0] == pytest.approx(thickness, rel=1e-12)


def test_direct_tunnelling_without_a_visible_barrier_is_the_hyperbolic_sine() -> None:
    plain = current("hyperbolic-sine", g=1e-6, kappa=9.0)
    np.testing.assert_allclose(current("direct-tunnelling", g=1e-6, kappa=9.0, tau=0.0), plain, rtol=1e-13)
    text = evaluate(iv_model("direct-tunnelling").expression, V=V, g=1e-6, kappa=9.0, tau=0.0)
    np.testing.assert_allclose(text, plain, rtol=1e-12)
    np.testing.assert_allclose(current("direct-tunnelling", g=1e-6, kappa=0.0, tau=0.3), 1e-6 * V, rtol=1e-15)


def test_direct_tunnelling_goes_on_beyond_the_barrier() -> None:
    """phi = 0.5 V: current and slope are continuous there, grow beyond it, and stay finite far away."""
    law, p = iv_model("direct-tunnelling"), {"g": np.asarray(1e-6), "kappa": np.asarray(25.0), "tau": np.asarray(0.4)}
    below, above = np.array([0.5 - 1e-9]), np.array([0.5 + 1e-9])
    for quantity in (law.current, law.slope):
        np.testing.assert_allclose(quantity(below, xp=np, **p), quantity(above, xp=np, **p), rtol=1e-6)
    far = law.current(np.linspace(0.5, 5, 50), xp=np, **p)
    assert np.isfinite(far).all()
    assert (np.diff(far) > 0).all()
    numeric = [law.current(np.array([0.9]), xp=np, **{**p, "tau": p["tau"] + s * 1e-6})[0] for s in (-1, 1)]
    found = law.jacobian(np.array([0.9]), xp=np, **p)["tau"][0]
    assert found == pytest.approx((numeric[1] - numeric[0]) / 2e-6, rel=1e-6)


@pytest.mark.parametrize("name", ["direct-tunnelling", "quantum-point-contact"])
def test_derivatives_join_where_the_series_ends(name: str) -> None:
    law = iv_model(name)
    other = {"direct-tunnelling": "tau", "quantum-point-contact": "d"}[name]
    values = {"g": np.asarray(1.0), other: np.asarray(0.3)}
    sides = [law.jacobian(np.ones(1), xp=np, kappa=np.asarray(k), **values) for k in (0.99999e-5, 1.00001e-5)]
    for key in sides[0]:
        np.testing.assert_allclose(sides[0][key], sides[1][key], rtol=1e-4)


def test_fowler_nordheim_exponent() -> None:
    """b = (4/3) sqrt(2 m e) phi^(3/2) d / hbar: 3 V and 5 nm give 177 V; the plot ln(I / V^2) over 1 / V is a line."""
    b = 4 / 3 * math.sqrt(2 * electron_mass * elementary_charge) * 3.0**1.5 * 5e-9 / hbar
    assert b == pytest.approx(177.4, abs=0.2)
    found = iv_model("fowler-nordheim").derived(None, a=1e-6, b=b)["phi32_thickness"][0]
    assert found == pytest.approx(3.0**1.5 * 5e-9, rel=1e-12)
    v = np.array([5.0, 6.0, 8.0])
    y = np.log(current("fowler-nordheim", v, a=1e-6, b=b) / v**2)
    np.testing.assert_allclose(np.polyfit(1 / v, y, 1), [-b, math.log(1e-6)], rtol=1e-9)


@pytest.mark.parametrize("n", [1.3, 2.0, 2.99, 12.0])
def test_power_law_has_the_papers_nonlinearity_at_every_voltage(n: float) -> None:
    v = np.array([1e-3, 0.1, 0.25, 3.0])
    np.testing.assert_allclose(current("power-law", 2 * v, g=1e-6, n=n) / current("power-law", v, g=1e-6, n=n), n)
    assert current("power-law", np.array(1.0), g=1e-6, n=n) == pytest.approx(1e-6)
    exponent = iv_model("power-law").derived(None, g=1e-6, n=n)["exponent"][0]
    assert exponent == pytest.approx(math.log2(n))


def test_polynomial_coefficients() -> None:
    np.testing.assert_allclose(
        current("polynomial", g=2e-6, a3=-0.3, a5=0.2), 2e-6 * (V - 0.3 * V**3 + 0.2 * V**5), rtol=1e-14
    )


@pytest.mark.parametrize(("alpha", "phi"), [(8.0, 0.3), (3.0, -0.4), (20.0, 0.1)])
def test_quantum_point_contact_as_published(alpha: float, phi: float) -> None:
    """The logarithm of Miranda et al. 2010, with half of the voltage on each side."""
    log = np.log((1 + np.exp(alpha * (phi - V / 2))) / (1 + np.exp(alpha * (phi + V / 2))))
    expected = 3 * G_0 * (V + log / alpha)
    d = 1 / (1 + math.exp(alpha * phi))
    values = {"g": 3 * G_0 * d, "kappa": alpha**2 / 4, "d": d}
    np.testing.assert_allclose(current("quantum-point-contact", **values), expected, rtol=1e-8)
    found = iv_model("quantum-point-contact").derived(None, **values)
    assert found["n_channels"][0] == pytest.approx(3.0)
    assert found["alpha"][0] == pytest.approx(alpha)
    assert found["phi"][0] == pytest.approx(phi)


def test_quantum_point_contact_in_the_limits() -> None:
    np.testing.assert_allclose(current("quantum-point-contact", g=1e-4, kappa=9.0, d=1.0), 1e-4 * V, rtol=1e-13)
    np.testing.assert_allclose(current("quantum-point-contact", g=1e-4, kappa=0.0, d=0.2), 1e-4 * V, rtol=1e-15)
    closed = current("quantum-point-contact", g=1e-8, kappa=9.0, d=1e-9)
    np.testing.assert_allclose(closed, current("hyperbolic-sine", g=1e-8, kappa=9.0), rtol=1e-6)


def test_diodes() -> None:
    ideal = 1e-9 * np.expm1(V / 0.026)
    np.testing.assert_allclose(current("diode", i_s=1e-9, v_f=0.026, n=1.0), ideal, rtol=1e-12)
    symmetric = 2e-9 * np.sinh(V / 0.1)
    np.testing.assert_allclose(current("diode", i_s=1e-9, v_f=0.1, n=2.0), symmetric, rtol=1e-12)
    v_t, n = 0.0253, 1.4
    emission = 1e-9 * np.exp(V / (n * v_t)) * -np.expm1(-V / v_t)
    np.testing.assert_allclose(current("diode", i_s=1e-9, v_f=n * v_t, n=n), emission, rtol=1e-12)
    found = iv_model("diode").derived(293.6, i_s=1e-9, v_f=n * v_t, n=n)
    assert found["v_t"][0] == pytest.approx(v_t)
    assert found["ideality"][0] == pytest.approx(n, rel=1e-3)


@pytest.mark.parametrize("name", ["hyperbolic-sine", "polynomial", "direct-tunnelling", "quantum-point-contact"])
def test_ohmic_curves_are_no_special_case(name: str) -> None:
    """A guess on a straight line, and the derivatives there, are finite, and the law follows it."""
    law = iv_model(name)
    voltage = np.linspace(0, 1, 30)[None]
    guess = law.guess(voltage, 3e-5 * voltage)
    assert guess["g"][0] == pytest.approx(3e-5, rel=1e-2)
    columns = {key: value[:, None] for key, value in guess.items()}
    np.testing.assert_allclose(law.current(voltage, xp=np, **columns), 3e-5 * voltage, rtol=0.02)
    assert all(np.isfinite(column).all() for column in law.jacobian(voltage, xp=np, **columns).values())


def test_the_page_of_laws_lists_every_law_with_its_parameters_and_source() -> None:
    page = (Path(__file__).parents[2] / "docs" / "iv_models.md").read_text(encoding="utf-8")
    for name in names():
        law = iv_model(name)
        assert page.count(f"| `{name}` |") == 3, name
        own = page.split("## Parameters")[1].split(f"| `{name}` |")[1].split("\n| `")[0]
        assert all(f"`{parameter.name}`" in own for parameter in law.parameters), name
        assert all(doi in page for doi in re.findall(r"doi (10\.\S+)", law.source)), name
