"""What every nonideality must hold to; a test class inherits this and gives a device model that has them all."""

import pytest
import torch
import xarray as xr

from calib.crossbar.devices import Devices
from calib.crossbar.layers import MemristiveLinear
from calib.nonidealities import STAGES, order
from calib.nonidealities.base import ConductanceNonideality, Conduction, Nonideality

G = torch.linspace(5.2e-7, 2.4e-6, 24, dtype=torch.float64).view(2, 4, 3)


def generator(seed: int = 7) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


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
        found = member.from_device(tree)
        assert found is not None
        return found

    def layer(self, tree: xr.DataTree, effects: list[Nonideality]) -> MemristiveLinear:
        devices = Devices.from_model(tree, effects=effects)
        return MemristiveLinear(5, 4, devices, first=generator(1), dtype=torch.float64)

    def test_describes_itself(self, effect: Nonideality) -> None:
        assert effect.stage in STAGES
        assert effect.redraw in ("chip", "read")
        assert isinstance(effect, ConductanceNonideality | Conduction)
        assert isinstance(effect, ConductanceNonideality) != (effect.stage == "conduction")
        assert effect.describe()

    def test_is_absent_where_the_model_lacks_it(self, member: type[Nonideality], bare: xr.DataTree) -> None:
        assert member.from_device(bare) is None

    def test_its_ideal_limit_is_the_ideal_layer(self, effect: Nonideality, tree: xr.DataTree) -> None:
        limit, ideal = self.layer(tree, [effect.ideal()]), self.layer(tree, [])
        x = torch.rand(7, 5, generator=generator(), dtype=torch.float64)
        assert torch.equal(limit(x), ideal(x))
        assert type(effect.ideal()) is type(effect)

    def test_the_same_seed_gives_the_same_chip(self, effect: Nonideality, tree: xr.DataTree) -> None:
        layer = self.layer(tree, [effect])
        drawn = []
        for seed, chip in ((3, 1), (3, 1), (4, 1), (3, 2)):
            layer.draw_chips(seed, 0, [chip])
            assert layer.chips is not None
            drawn.append(layer.chips.coefficients)
        assert torch.equal(drawn[0], drawn[1])
        assert not torch.equal(drawn[0], drawn[2])
        assert not torch.equal(drawn[0], drawn[3])

    def test_a_chip_does_not_depend_on_how_many_are_stacked(self, effect: Nonideality, tree: xr.DataTree) -> None:
        layer = self.layer(tree, [effect])
        layer.draw_chips(3, 0, range(4))
        assert layer.chips is not None
        together = layer.chips
        layer.draw_chips(3, 0, [2])
        assert torch.equal(layer.chips.coefficients[:, 0], together.coefficients[:, 2])
        assert torch.equal(layer.chips.power[0], together.power[2])

    def test_gradients_are_exact(self, effect: Nonideality, tree: xr.DataTree) -> None:
        if isinstance(effect, ConductanceNonideality):

            def f(g: torch.Tensor) -> torch.Tensor:
                return effect.conductance(g * 1e-6, generator()) * 1e6
        else:
            assert isinstance(effect, Conduction)
            plan = Devices.from_model(tree, effects=[effect]).plan
            z = effect.deviates(tuple(G.shape), generator(), G.dtype)

            def f(g: torch.Tensor) -> torch.Tensor:
                return plan.coefficients(effect, g * 1e-6, z) * 1e6

        assert torch.autograd.gradcheck(f, (G * 1e6).requires_grad_(True))

    def test_it_combines_with_the_others(self, effect: Nonideality, tree: xr.DataTree) -> None:
        devices = Devices.from_model(tree)
        assert effect.name in [member.name for member in devices.effects()]
        ordered = order(reversed(devices.effects()))
        assert [member.stage for member in ordered] == sorted((m.stage for m in ordered), key=STAGES.index)
