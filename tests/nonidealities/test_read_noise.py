"""Read noise: its level along the conductance, devices' own levels, and telegraph noise."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from calib import device_model
from calib.errors import OptionError
from calib.nonidealities.read_noise import ReadNoise, Telegraph
from tests.nonidealities.nodes import read_noise_node
from tests.simple_devices import G_OFF, G_ON, range_only

N = 100_000
G = torch.full((N,), 1e-6, dtype=torch.float64)


def generator(seed: int = 2) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_level_is_a_power_law_held_to_the_range() -> None:
    effect = ReadNoise(0.02, 1e-6, -0.5, g_min=5e-7, g_max=4e-6)
    g = torch.tensor([1e-7, 5e-7, 1e-6, 4e-6, 1e-5], dtype=torch.float64)
    expected = [0.02 * 0.5**-0.5, 0.02 * 0.5**-0.5, 0.02, 0.01, 0.01]
    assert effect.relative_spread(g).tolist() == pytest.approx(expected, rel=1e-12)


def test_devices_have_levels_of_their_own() -> None:
    """ln sigma is normal with the given spread, 4 standard errors; without a generator, the root mean square."""
    effect = ReadNoise(0.02, spread=0.4)
    sigma = effect.relative_spread(G, generator()).numpy()
    assert np.log(sigma).mean() == pytest.approx(math.log(0.02), abs=4 * 0.4 / np.sqrt(N))
    assert np.log(sigma).std() == pytest.approx(0.4, rel=4 / np.sqrt(2 * N) + 1e-3)
    assert float(effect.relative_spread(G)[0]) == pytest.approx(np.sqrt(np.mean(sigma**2)), rel=0.02)


def test_telegraph_noise_follows_its_population() -> None:
    """Number of devices binomial, ln a and the logit of the occupancy normal (Kolmogorov-Smirnov)."""
    found = ReadNoise(0.02, telegraph_noise=Telegraph(0.1, math.log(0.05), 0.3, 0.7, 0.9)).telegraph(G, generator())
    assert found is not None
    amplitude, occupancy = (x.numpy() for x in found)
    has = amplitude > 0
    assert stats.binomtest(int(has.sum()), N, 0.1).pvalue > 1e-4
    assert stats.kstest((np.log(amplitude[has]) - math.log(0.05)) / 0.3, "norm").pvalue > 1e-3
    logit = np.log(occupancy[has] / (1 - occupancy[has]))
    assert stats.kstest((logit - 0.7) / 0.9, "norm").pvalue > 1e-3
    assert abs(np.corrcoef(np.log(amplitude[has]), logit)[0, 1]) < 5 / np.sqrt(has.sum())


def test_the_lower_level_stays_positive() -> None:
    found = ReadNoise(0.0, telegraph_noise=Telegraph(1.0, 1.0, 1.0, 2.0, 1.0)).telegraph(G, generator())
    assert found is not None
    assert float((found[0] * found[1]).max()) < 1.0


def test_jumps_are_not_counted_twice() -> None:
    """The total variance of a device is that of the model, unless the jumps alone are more."""
    effect = ReadNoise(0.05, telegraph_noise=Telegraph(0.5, math.log(0.06), 0.5))
    jumps = effect.telegraph(G, generator())
    assert jumps is not None
    of_jumps = jumps[0].square() * jumps[1] * (1 - jumps[1])
    total = effect.relative_spread(G, generator(), jumps).square() + of_jumps
    torch.testing.assert_close(total, torch.maximum(of_jumps, torch.full_like(total, 0.05**2)))
    assert float((of_jumps > 0.05**2).sum()) > 10


def test_of_a_node() -> None:
    effect = ReadNoise.from_device(range_only(read_noise=read_noise_node(0.03, 0.2)))
    assert effect is not None
    assert effect.level == pytest.approx(0.03)
    assert effect.telegraph_noise == Telegraph(0.2, math.log(0.03), 0.4, 0.5, 0.8)
    assert (effect.g_min, effect.g_max) == pytest.approx((G_OFF, G_ON))
    quiet = ReadNoise.from_device(range_only(read_noise=read_noise_node(0.03, 0.0)))
    assert quiet is not None
    assert quiet.telegraph(G, generator()) is None
    assert not quiet.is_ideal
    assert quiet.ideal().is_ideal


def test_of_measured_devices() -> None:
    """At each measured trace's conductance the level agrees with the trace's noise within the spread."""
    tree = device_model.open_device("xiao2025-multilevel")
    node, effect = tree["read_noise"].to_dataset(), ReadNoise.from_device(tree)
    assert effect is not None
    g = torch.as_tensor(node["trace_conductance"].values)
    ratio = np.log(node["trace_noise"].values / effect.relative_spread(g).numpy()) + effect.spread**2
    assert np.abs(ratio.mean()) < 4 * effect.spread / np.sqrt(len(ratio))
    assert ratio.std() == pytest.approx(effect.spread, rel=0.3)


def test_numbers_that_are_not_known_are_none() -> None:
    node = read_noise_node()
    node["noise_exponent"] = ((), float("nan"), {"units": "1"})
    node["telegraph_ln_amplitude_std"] = ((), float("nan"), {"units": "1"})
    effect = ReadNoise.from_device(range_only(read_noise=node))
    assert effect is not None
    assert effect.exponent == 0.0
    assert effect.telegraph_noise is not None
    assert effect.telegraph_noise.ln_amplitude_std == 0.0


@pytest.mark.parametrize("make", [
    lambda: ReadNoise(-0.1), lambda: ReadNoise(0.1, 0.0), lambda: ReadNoise(0.1, spread=-1.0),
    lambda: ReadNoise(0.1, g_min=2e-6, g_max=1e-6), lambda: ReadNoise(0.1, telegraph_noise=Telegraph(1.5, 0.0)),
])  # fmt: skip
def test_bad_values_are_refused(make) -> None:
    with pytest.raises(OptionError, match="noise"):
        make()
