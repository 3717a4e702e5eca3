"""The contract of conduction laws over every law that calib finds, and what is particular to single laws."""

import numpy as np
import pytest
from scipy.constants import Boltzmann, elementary_charge

from calib import plugins
from calib.errors import OptionError
from calib.iv_models import IVModel, all_names, iv_model, names
from calib.iv_models.poole_frenkel import d_epsilon, gamma_of
from tests.contracts.iv_model_contract import IVModelContract, evaluate


@pytest.mark.parametrize("law", [iv_model(name) for name in all_names()], ids=all_names(), scope="class")
class TestIVModels(IVModelContract):
    """Every member of the family, and each that can have one with a series resistance."""


def test_laws_are_found_by_file() -> None:
    assert {"ohmic", "poole-frenkel", "hyperbolic-sine", "diode"} <= set(names())
    assert all(isinstance(iv_model(name), IVModel) for name in all_names())
    assert all(plugins.load("calib.iv_models", name) is iv_model(name) for name in names())


def test_an_unknown_law_is_refused_by_name() -> None:
    with pytest.raises(OptionError, match=r"no 'schottky-2' in iv_models; found: .*ohmic.*poole-frenkel"):
        iv_model("schottky-2")


def test_the_language_of_cards_is_restricted() -> None:
    with pytest.raises(ValueError, match="not in the language of cards"):
        evaluate("c.real*V", c=1.0, V=1.0)
    with pytest.raises(KeyError, match="open"):
        evaluate("open('a')", c=1.0, V=1.0)


def test_poole_frenkel_as_published() -> None:
    """Joksas et al. 2022, low-nonlinearity SiOx at R = 1 / 1 mS: the published lines give gamma 0.24 V^-1/2."""
    temperature, v = 293.15, 0.1
    ln_r = np.log(1 / 6.9e-4)
    d_eps = np.exp(-1.34 * ln_r - 25.9)
    gamma = gamma_of(d_eps, temperature)
    thermal = elementary_charge / (Boltzmann * temperature)
    exponent = thermal * np.sqrt(elementary_charge * v / (np.pi * d_eps))
    assert gamma * np.sqrt(v) == pytest.approx(exponent, rel=1e-14)
    current = iv_model("poole-frenkel").current(np.array(v), xp=np, c=1.0, gamma=gamma)
    assert float(current) == pytest.approx(v * np.exp(exponent), rel=1e-14)


def test_gamma_of_the_published_devices() -> None:
    """Published lines of ln(d eps): gamma 1.95 V^-1/2 at high and 0.24 at low resistance lie in their ranges."""
    high = [gamma_of(np.exp(-0.0901 * -np.log(g) - 37.1), 293.15) for g in (5.25e-7, 2.62e-6)]
    low = [gamma_of(np.exp(-1.34 * -np.log(g) - 25.9), 293.15) for g in (6.90e-4, 3.45e-3)]
    assert min(high) < 1.95 < max(high)
    assert min(low) < 0.24 < max(low)


@pytest.mark.parametrize("gamma", [0.2, 1.95, 6.0])
def test_d_epsilon_round_trip(gamma: float) -> None:
    assert gamma_of(d_epsilon(gamma, 300.0), 300.0) == pytest.approx(gamma, rel=1e-14)


def test_d_epsilon_needs_a_temperature_and_a_positive_exponent() -> None:
    law = iv_model("poole-frenkel")
    assert law.derived(None, c=1e-6, gamma=2.0) == {}
    assert law.derived(293.15, c=1e-6, gamma=-0.1) == {}
    value, unit, meaning = law.derived(293.15, c=1e-6, gamma=2.0)["d_eps"]
    assert unit == "F"
    assert "293.15 K" in meaning
    assert value == pytest.approx(d_epsilon(2.0, 293.15), rel=1e-14)
