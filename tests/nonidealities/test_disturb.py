"""Read disturb: power law at first, saturation at last, threshold and spread."""

import numpy as np
import pytest
import torch

from calib.errors import OptionError
from calib.nonidealities.base import Conditions
from calib.nonidealities.disturb import Disturb
from tests.nonidealities.nodes import disturb_node
from tests.simple_devices import G_OFF, G_ON, range_only

G = torch.linspace(G_OFF, 2e-6, 40, dtype=torch.float64)


def way(effect: Disturb, seed: int = 1, device_seed: int | None = None) -> np.ndarray:
    """Return the share of the way to the end that each device has gone."""
    own = None if device_seed is None else torch.Generator().manual_seed(device_seed)
    out = effect.conductance(G, torch.Generator().manual_seed(seed), own)
    return ((out - G) / (effect.towards - G)).numpy()


@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.4])
def test_few_readings_are_a_power_law(exponent: float) -> None:
    ratio = way(Disturb(2000, G_ON, 1e-9, exponent)) / way(Disturb(1000, G_ON, 1e-9, exponent))
    np.testing.assert_allclose(ratio, 2**exponent, rtol=1e-3)


def test_many_readings_saturate_at_the_end() -> None:
    np.testing.assert_allclose(way(Disturb(1e9, G_ON, 1e-5)), 1.0, atol=1e-12)
    np.testing.assert_allclose(way(Disturb(1e5, G_OFF / 2, 1e-5)), 1 - np.exp(-1.0), rtol=1e-9)


def test_nothing_happens_up_to_the_threshold() -> None:
    assert Disturb(100, G_ON, 1e-3, threshold=100).conductance(G, torch.Generator()) is G
    np.testing.assert_allclose(way(Disturb(300, G_ON, 1e-3, threshold=100)), 1 - np.exp(-0.2), rtol=1e-9)


def test_devices_differ_by_the_spread_and_keep_it() -> None:
    """ln(-ln(1 - x)) is normal with the given standard deviation; 4 standard errors."""
    effect = Disturb(1000, G_ON, 1e-3, spread=0.3)
    n = 50_000
    g = torch.full((n,), G_OFF, dtype=torch.float64)
    x = ((effect.conductance(g, torch.Generator().manual_seed(1)) - g) / (G_ON - G_OFF)).numpy()
    inner = np.log(-np.log1p(-x))
    assert inner.std() == pytest.approx(0.3, rel=4 / np.sqrt(2 * n) + 1e-3)
    assert inner.mean() == pytest.approx(0.0, abs=4 * 0.3 / np.sqrt(n))
    np.testing.assert_array_equal(way(effect, 1, 6), way(effect, 2, 6))


def test_of_a_node_and_conditions() -> None:
    tree = range_only(read_disturb=disturb_node())
    effect = Disturb.from_device(tree, Conditions(reads=500))
    assert effect is not None
    assert (effect.reads, effect.rate, effect.exponent, effect.threshold, effect.spread) == (500, 2e-6, 0.7, 10, 0.3)
    as_programmed = Disturb.from_device(tree)
    assert as_programmed is not None
    assert as_programmed.conductance(G, torch.Generator()) is G


@pytest.mark.parametrize("changed", [
    {"towards": 0.0}, {"rate": -1.0}, {"exponent": 0.0}, {"threshold": -1.0}, {"spread": -0.1}, {"reads": float("nan")}
])  # fmt: skip
def test_bad_values_are_refused(changed: dict) -> None:
    with pytest.raises(OptionError, match="read disturb needs"):
        Disturb(**{"reads": 10, "towards": 1e-6, "rate": 1e-3, **changed})
