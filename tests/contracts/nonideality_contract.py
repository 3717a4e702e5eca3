"""What every nonideality must hold to; a test class inherits this and gives a device model that has them all."""

import pytest
import torch
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from calib import nonidealities
from calib.crossbar import read_currents
from calib.crossbar.chips import held_chips
from calib.crossbar.devices import Devices, ohmic
from calib.crossbar.layers import MemristiveLinear
from calib.nonidealities import STAGES, order
from calib.nonidealities.base import Conditions, ConductanceNonideality, Conduction, Nonideality, ReadNonideality

LATER = Conditions(time=1e4, reads=1000)
G = torch.linspace(5.2e-7, 2.4e-6, 24, dtype=torch.float64).view(2, 4, 3)
KINDS = {"conduction": Conduction, "read": ReadNonideality}
STRAIGHT_THROUGH = {"quantise"}
"""Stages whose gradient is, by intent, that of the identity."""


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def effect_on(member: Nonideality, g: torch.Tensor, seed: int = 7) -> torch.Tensor:
    """Return what the member does to devices: conductances, currents at 0.3 V, or the noise of bit-line currents."""
    if isinstance(member, ConductanceNonideality):
        return member.conductance(g, generator(seed))
    if isinstance(member, Conduction):
        z = member.deviates(tuple(g.shape), generator(seed), g.dtype)
        parameters = member.parameters(g, z)
        return member.law.current(torch.full_like(g, 0.3), xp=torch, **parameters)
    assert isinstance(member, ReadNonideality)
    state = read_currents.read_state(member, ohmic(), g, g.new_zeros((1, *g.shape)), generator(seed), 0.5)
    voltage = torch.full((3, g.shape[-2]), 0.3, dtype=g.dtype)
    return read_currents.noise(state, voltage, torch.arange(3), torch.tensor(seed))


class NonidealityContract:
    """Subclasses give `tree`, a device model that has every effect, and `bare`, one that has none."""

    @pytest.fixture
    def tree(self) -> xr.DataTree:
        raise NotImplementedError

    @pytest.fixture
    def bare(self) -> xr.DataTree:
        raise NotImplementedError

    @pytest.fixture
    def effect(self, member: type[Nonideality], tree: xr.DataTree) -> Nonideality:
        found = member.from_device(tree, LATER)
        assert found is not None
        return found

    def layer(self, tree: xr.DataTree, effects: list[Nonideality]) -> MemristiveLinear:
        devices = Devices.from_model(tree, effects=effects)
        return MemristiveLinear(5, 4, devices, first=generator(1), dtype=torch.float64)

    def test_describes_itself(self, effect: Nonideality) -> None:
        assert effect.stage in STAGES
        assert effect.redraw == ("read" if effect.stage == "read" else "chip")
        assert isinstance(effect, KINDS.get(effect.stage, ConductanceNonideality))
        assert effect.describe()
        assert effect.describe() != effect.ideal().describe()

    def test_is_absent_where_the_model_lacks_it(self, member: type[Nonideality], bare: xr.DataTree) -> None:
        assert member.from_device(bare) is None
        assert member.from_device(bare, LATER) is None

    def test_conditions_need_not_be_given(self, member: type[Nonideality], tree: xr.DataTree) -> None:
        assert type(member.from_device(tree)) is member

    def test_its_ideal_limit_does_nothing(self, effect: Nonideality) -> None:
        limit = effect.ideal()
        assert type(limit) is type(effect)
        if isinstance(effect, ConductanceNonideality | ReadNonideality):
            assert limit.is_ideal
            assert not effect.is_ideal
        expected = {"conduction": 0.3 * G, "read": torch.zeros(3, 2, 3, dtype=G.dtype)}.get(effect.stage, G)
        assert torch.equal(effect_on(limit, G), expected)
        assert not torch.equal(effect_on(effect, G), expected)

    def test_its_ideal_limit_is_the_ideal_layer(self, effect: Nonideality, tree: xr.DataTree) -> None:
        limit, ideal = self.layer(tree, [effect.ideal()]), self.layer(tree, [])
        x = torch.rand(7, 5, generator=generator(), dtype=torch.float64)
        assert torch.equal(limit(x), ideal(x))

    def test_the_same_seed_gives_the_same_devices(self, effect: Nonideality) -> None:
        assert torch.equal(effect_on(effect, G, 3), effect_on(effect, G, 3))
        if effect.stage not in STRAIGHT_THROUGH:
            assert not torch.equal(effect_on(effect, G, 3), effect_on(effect, G, 4))

    def test_the_same_seed_gives_the_same_chip(self, effect: Nonideality, tree: xr.DataTree) -> None:
        layer = self.layer(tree, [effect])
        x = torch.rand(7, 5, generator=generator(), dtype=torch.float64)
        with held_chips(layer, 3, range(3)) as three, held_chips(layer, 3, [2]) as one:
            torch.testing.assert_close(one(x)[0], three(x)[2], rtol=1e-12, atol=1e-12)

    @settings(max_examples=25)
    @given(
        shape=st.lists(st.integers(1, 4), min_size=3, max_size=3),
        double=st.booleans(),
        seed=st.integers(0, 2**31),
    )
    def test_any_shape_gives_conductances_of_that_shape(
        self, member: type[Nonideality], shape: list[int], double: bool, seed: int
    ) -> None:
        effect = member.from_device(self.model(), LATER)
        assert effect is not None
        dtype = torch.float64 if double else torch.float32
        g = (5.2e-7 + 1.8e-6 * torch.rand(shape, generator=generator(seed), dtype=torch.float64)).to(dtype)
        found = effect_on(effect, g, seed)
        assert found.dtype == dtype
        assert found.shape == ((3, shape[0], shape[2]) if effect.stage == "read" else tuple(shape))
        assert bool(torch.isfinite(found).all())
        if effect.stage != "read":
            assert bool((found > 0).all())

    def model(self) -> xr.DataTree:
        """Return the model of `tree`, outside of a fixture."""
        raise NotImplementedError

    def test_gradients_are_exact(self, effect: Nonideality) -> None:
        def f(g: torch.Tensor) -> torch.Tensor:
            return effect_on(effect, g * 1e-6) * 1e6

        g = (G * 1e6).requires_grad_(True)
        if effect.stage in STRAIGHT_THROUGH:
            (gradient,) = torch.autograd.grad(f(g).sum(), g)
            assert torch.equal(gradient, torch.ones_like(g))
        else:
            assert torch.autograd.gradcheck(f, g)

    def test_it_combines_with_the_others(self, effect: Nonideality, tree: xr.DataTree) -> None:
        found = nonidealities.from_device(tree, LATER, prefer=[effect.name])
        assert effect.name in [member.name for member in found]
        ordered = order(reversed(found))
        assert [member.stage for member in ordered] == list(STAGES)
        g = G
        for member in ordered:
            if isinstance(member, ConductanceNonideality):
                g = member.conductance(g, generator())
        assert bool((torch.isfinite(g) & (g > 0)).all())
        for member in (m for m in ordered if not isinstance(m, ConductanceNonideality)):
            assert bool(torch.isfinite(effect_on(member, g)).all())
