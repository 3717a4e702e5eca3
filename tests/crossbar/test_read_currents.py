"""Noise of bit-line currents: its variance against every device's own, telegraph levels, batches, chips, gradients."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from calib.crossbar.devices import ohmic
from calib.crossbar.power_collocation import can_be_mapped, collocation
from calib.crossbar.read_currents import ReadState, noise, read_state, squared_collocation, stack
from calib.errors import OptionError
from calib.iv_models import all_names
from calib.nonidealities.base import Conduction
from calib.nonidealities.read_noise import ReadNoise, Telegraph
from tests.iv_models.law_devices import conduction
from tests.simple_devices import G_OFF, G_ON

V_MAX = 0.5
NORMAL = ReadNoise(0.03, 1e-6, -0.4, 0.3)
JUMPS = Telegraph(0.3, math.log(0.1), 0.5, 0.4, 0.6)
KEY = torch.tensor(99)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def conductances(*shape: int, seed: int = 1, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return (G_OFF + (G_ON - G_OFF) * torch.rand(*shape, generator=generator(seed), dtype=torch.float64)).to(dtype)


def drawn(law: Conduction, g: torch.Tensor, member: ReadNoise, seed: int = 3) -> tuple[torch.Tensor, ReadState]:
    z = law.deviates(tuple(g.shape), generator(2), g.dtype)
    return z, read_state(member, law, g, z, generator(seed), V_MAX)


def inputs(batch: int, word_lines: int, seed: int = 5, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return ((2 * torch.rand(batch, word_lines, generator=generator(seed), dtype=torch.float64) - 1) * V_MAX).to(dtype)


def currents(law: Conduction, v: torch.Tensor, g: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    """Return every device's current (batch, group, word_line, bit_line)."""
    return law.law.current(v[:, None, :, None], xp=torch, **law.parameters(g, z))


def spread_of(state: ReadState, v: torch.Tensor) -> torch.Tensor:
    basis = state.squares.basis(v).flatten(-2)
    variance = basis @ state.variance.flatten(0, 1).flatten(1)
    return torch.sqrt(variance.clamp(min=0)).unflatten(-1, tuple(state.variance.shape[-2:]))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [(name, torch.float64) for name in all_names()]
    + [(name, torch.float32) for name in all_names() if "+" not in name],
)
def test_the_spread_is_that_of_all_devices(name: str, dtype: torch.dtype) -> None:
    """The square root of sum sigma^2 I^2, evaluated device by device, to 2 % of the bit line's largest."""
    law = conduction(name)
    g = conductances(2, 12, 5, dtype=dtype)
    z, state = drawn(law, g, NORMAL)
    v = inputs(20, 12, dtype=dtype)
    sigma = NORMAL.relative_spread(g, generator(3))
    exact = (sigma * currents(law, v, g, z)).square().sum(-2).sqrt()
    assert float((spread_of(state, v) - exact).abs().max() / exact.max()) < 0.02
    assert float((spread_of(state, v) - exact).abs().max() / exact.max()) < 2 * state.squares.error + 1e-6


@settings(max_examples=15)
@given(
    shape=st.tuples(st.integers(1, 2), st.integers(1, 20), st.integers(1, 6)),
    batch=st.integers(1, 5),
    spread=st.floats(0.0, 0.3),
    seed=st.integers(0, 1000),
)
def test_any_shape_and_population(shape: tuple[int, int, int], batch: int, spread: float, seed: int) -> None:
    law = conduction("poole-frenkel", spread=spread)
    g = conductances(*shape, seed=seed)
    z, state = drawn(law, g, NORMAL)
    v = inputs(batch, shape[1], seed)
    found = noise(state, v, torch.arange(batch), KEY)
    assert found.shape == (batch, shape[0], shape[2])
    exact = (NORMAL.relative_spread(g, generator(3)) * currents(law, v, g, z)).square().sum(-2).sqrt()
    assert float((spread_of(state, v) - exact).abs().max()) <= 0.02 * float(exact.max())


def test_the_noise_is_normal_with_that_spread() -> None:
    """Over 20,000 readings of the same input: Kolmogorov-Smirnov of each bit line, no correlation between them."""
    law = conduction("poole-frenkel")
    g = conductances(2, 10, 2)
    z, state = drawn(law, g, NORMAL)
    v = inputs(1, 10)
    n = 20_000
    found = noise(state, v.expand(n, -1), torch.arange(n), KEY).flatten(1).numpy()
    exact = (NORMAL.relative_spread(g, generator(3)) * currents(law, v, g, z)).square().sum(-2).sqrt().flatten().numpy()
    for line in range(4):
        assert found[:, line].std() == pytest.approx(exact[line], rel=4 / np.sqrt(2 * n) + 0.01)
        assert stats.kstest(found[:, line] / found[:, line].std(), "norm").pvalue > 1e-3
    off = np.corrcoef(found.T)[np.triu_indices(4, 1)]
    assert np.abs(off).max() < 5 / np.sqrt(n)


@pytest.mark.parametrize("name", ["poole-frenkel", "diode", "hyperbolic-sine", "ohmic"])
def test_telegraph_noise_has_two_levels(name: str) -> None:
    """One device a bit line: its deviation is a (1 - p) I with probability p, else -a p I (binomial test)."""
    law = ohmic() if name == "ohmic" else conduction(name)
    member = ReadNoise(0.0, telegraph_noise=replace(JUMPS, probability=1.0))
    g = conductances(1, 1, 4)
    z, state = drawn(law, g, member)
    v = torch.full((4000, 1), 0.31, dtype=torch.float64)
    found = noise(state, v, torch.arange(4000), KEY)[:, 0].numpy()
    current = currents(law, v[:1], g, z)[0, 0, 0].numpy()
    for line in range(4):
        a, p = float(state.amplitude[line]), float(state.occupancy[line])
        high = found[:, line] > 0
        assert stats.binomtest(int(high.sum()), 4000, p).pvalue > 1e-4
        rtol = 1e-9 if can_be_mapped(law.law) else 1e-3
        np.testing.assert_allclose(found[high, line], a * (1 - p) * current[line], rtol=rtol)
        np.testing.assert_allclose(found[~high, line], -a * p * current[line], rtol=rtol)


def test_telegraph_devices_add_on_their_own_lines() -> None:
    """Variance of each bit line: sum over its devices of (a^2 p (1 - p) + sigma^2) I^2, 20,000 readings."""
    law = conduction("poole-frenkel")
    member = replace_telegraph(NORMAL)
    g = conductances(2, 6, 3)
    z, state = drawn(law, g, member)
    v, n = inputs(1, 6), 20_000
    stream = generator(3)
    jumps = member.telegraph(g, stream)
    assert jumps is not None
    sigma = member.relative_spread(g, stream, jumps)
    share = sigma.square() + jumps[0].square() * jumps[1] * (1 - jumps[1])
    expected = (share * currents(law, v, g, z).square()).sum(-2).sqrt()[0].numpy()
    found = noise(state, v.expand(n, -1), torch.arange(n), KEY).numpy()
    np.testing.assert_allclose(found.std(axis=0), expected, rtol=0.04)
    assert np.abs(found.mean(axis=0) / expected).max() < 5 / np.sqrt(n)


def replace_telegraph(member: ReadNoise) -> ReadNoise:
    return ReadNoise(member.level, member.reference_conductance, member.exponent, member.spread, JUMPS)


@pytest.mark.parametrize("name", ["poole-frenkel", "diode", "power-law+series", "hyperbolic-sine"])
def test_noise_does_not_depend_on_the_batch_or_the_chips(name: str) -> None:
    law, member = conduction(name), replace_telegraph(NORMAL)
    g = conductances(2, 8, 3)
    z = law.deviates(tuple(g.shape), generator(2), g.dtype)
    states = [read_state(member, law, g, z, generator(seed), V_MAX) for seed in (3, 4, 5)]
    v, images, keys = inputs(9, 8), torch.arange(9) + 40, torch.tensor([7, 8, 9])
    alone = [noise(state, v, images, key) for state, key in zip(states, keys, strict=True)]
    part = noise(states[0], v[[4, 2]], images[[4, 2]], keys[0])
    torch.testing.assert_close(part, alone[0][[4, 2]], rtol=1e-12, atol=0)
    together = stack(states)
    assert len({state.device.shape[0] for state in states}) > 1  # so that some were filled up

    def one(tensors: tuple[torch.Tensor, ...], key: torch.Tensor, voltage: torch.Tensor) -> torch.Tensor:
        return noise(together.from_tensors(tensors), voltage, images, key)

    mapped = torch.func.vmap(one, in_dims=(0, 0, None))(together.tensors(), keys, v)
    torch.testing.assert_close(mapped, torch.stack(alone), rtol=1e-10, atol=0)
    own = v.expand(3, -1, -1) * torch.tensor([1.0, 0.5, 0.1], dtype=v.dtype).view(3, 1, 1)
    each = torch.func.vmap(one)(together.tensors(), keys, own)
    torch.testing.assert_close(each[1], noise(states[1], own[1], images, keys[1]), rtol=1e-10, atol=0)


def test_streams_and_keys_are_independent() -> None:
    law = conduction("poole-frenkel")
    _, state = drawn(law, conductances(2, 6, 50), replace_telegraph(NORMAL))
    v = inputs(1, 6).expand(200, -1)
    rows = [noise(state, v, torch.arange(200), KEY + k, stream).flatten().numpy() for k, stream in
            ((0, 0), (0, 1), (1, 0))]  # fmt: skip
    off = np.corrcoef(rows)[np.triu_indices(3, 1)]
    assert np.abs(off).max() < 5 / np.sqrt(rows[0].size)


def test_without_noise_nothing_is_added() -> None:
    law = conduction("poole-frenkel")
    _, state = drawn(law, conductances(2, 6, 3), replace_telegraph(NORMAL).ideal())
    assert torch.equal(noise(state, inputs(4, 6), torch.arange(4), KEY), torch.zeros(4, 2, 3, dtype=torch.float64))


def test_no_input_no_noise_and_a_finite_gradient() -> None:
    law = conduction("poole-frenkel")
    _, state = drawn(law, conductances(2, 6, 3), replace_telegraph(NORMAL))
    v = torch.zeros(2, 6, dtype=torch.float64, requires_grad=True)
    found = noise(state, v, torch.arange(2), KEY)
    found.sum().backward()
    assert not bool(found.any())
    assert v.grad is not None
    assert bool(torch.isfinite(v.grad).all())


@pytest.mark.parametrize("name", ["ohmic", "poole-frenkel", "diode", "hyperbolic-sine+series"])
def test_gradients_are_exact(name: str) -> None:
    """By voltage and conductance, the deviates held (reparameterised)."""
    law = ohmic() if name == "ohmic" else conduction(name)
    g = conductances(2, 3, 2)
    z = law.deviates(tuple(g.shape), generator(2), g.dtype)

    def f(voltage: torch.Tensor, scaled: torch.Tensor) -> torch.Tensor:
        state = read_state(replace_telegraph(NORMAL), law, scaled * 1e-6, z, generator(3), V_MAX)
        return noise(state, voltage, torch.arange(2), KEY) * 1e8

    v = (inputs(2, 3).abs() * 0.8 + 0.05) * torch.sign(inputs(2, 3))
    assert torch.autograd.gradcheck(f, (v.requires_grad_(True), (g * 1e6).requires_grad_(True)))


def test_nodes_are_few_and_remembered() -> None:
    law = conduction("poole-frenkel")
    assert squared_collocation(law, V_MAX) is squared_collocation(law, V_MAX)
    assert squared_collocation(law, V_MAX).count <= 5
    assert squared_collocation(ohmic(), V_MAX).count == 1


def test_a_voltage_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(OptionError, match="largest voltage 0.0 V"):
        squared_collocation(conduction("poole-frenkel"), 0.0)
    with pytest.raises(OptionError, match="cannot be interpolated to 1e-10 with 24 nodes up to 0.5 V"):
        collocation(conduction("fowler-nordheim", spread=0.4), V_MAX, 2, 1e-10)
