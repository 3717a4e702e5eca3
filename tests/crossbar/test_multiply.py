"""Collocation against the direct evaluation, its gradients and its choice of nodes."""

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from calib.crossbar.multiply import Collocation, direct
from calib.crossbar.nodes import BitLines, collocation
from calib.device_model import shape_law
from calib.errors import OptionError
from calib.iv_models import IVModel, Parameter, exponential_parameter, iv_model
from calib.nonidealities.base import Conduction
from calib.nonidealities.iv import IV
from tests.simple_devices import G_OFF, G_ON, device, iv_node


class Sinh(IVModel):
    """A law that is neither an exponential of its coordinate nor odd: I = s (sinh(b V) + d V^2)."""

    name, title, odd, scale = "sinh-test", "test", False, "s"
    parameters = (Parameter("s", "A", "", transform="log"), Parameter("b", "V^-1", ""), Parameter("d", "V^-2", ""))
    expression, latex, source = "", "", ""

    def current(self, voltage: Any, *, xp: ModuleType, **parameters: Any) -> Any:
        return parameters["s"] * (xp.sinh(parameters["b"] * voltage) + parameters["d"] * voltage**2)

    def jacobian(self, voltage: Any, *, xp: ModuleType, **parameters: Any) -> Any:
        raise NotImplementedError

    def coordinate(self, voltage: Any, *, xp: ModuleType) -> Any:
        return voltage

    def coordinate_inverse(self, coordinate: Any, *, xp: ModuleType) -> Any:
        return coordinate

    def guess(self, voltage: Any, current: Any) -> Any:
        raise NotImplementedError


class SinhDevices(Conduction):
    """Devices of the law above: b 3 to 6 V^-1, d 0 to 0.5."""

    name, stage, redraw = "sinh-devices", "conduction", "chip"
    law, reference_voltage, v_max = Sinh(), 0.1, 1.0

    @classmethod
    def from_device(cls, tree: Any) -> None:
        return None

    def ideal(self) -> Any:
        return self

    def describe(self) -> str:
        return ""

    def deviates(self, shape: tuple[int, ...], generator: torch.Generator, dtype: torch.dtype) -> torch.Tensor:
        return torch.rand((2, *shape), generator=generator, dtype=dtype)

    def parameters(self, conductance: torch.Tensor, deviates: torch.Tensor) -> dict[str, torch.Tensor]:
        shape = {"b": 3 + 3 * deviates[0], "d": 0.5 * deviates[1]}
        return {"s": self.law.anchor(1 / conductance, 0.1, xp=torch, **shape), **shape}

    def shape_with_slope(self, conductance: torch.Tensor, deviates: torch.Tensor) -> None:
        return None

    def clipped(self, conductance: torch.Tensor, deviates: torch.Tensor) -> int:
        return 0

    def extremes(self, spread: float = 4.0) -> list[dict[str, float]]:
        return [{"b": b, "d": d} for b in (3.0, 4.5, 6.0) for d in (0.0, 0.25, 0.5)]


def law(**options: Any) -> IV:
    return IV(shape_law(device(iv=iv_node(**options))))


CONDUCTIONS = {
    "anchored": law(),
    "paper": law(form="paper"),
    "two states": law(two_states=True),
    "identity": law(transform="identity", spread=0.5),
    "no spread": law(spread=0.0),
    "ohmic": law(law="ohmic"),
    "not odd": SinhDevices(),
}


@pytest.fixture(params=list(CONDUCTIONS), scope="module")
def conduction(request: pytest.FixtureRequest) -> Conduction:
    return CONDUCTIONS[request.param]


def drawn(conduction: Conduction, shape: tuple[int, ...] = (2, 60, 7)) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    g = G_OFF + (G_ON - G_OFF) * torch.rand(shape, generator=generator, dtype=torch.float64)
    return g, conduction.deviates(shape, generator, torch.float64)


def currents(
    plan: Collocation, conduction: Conduction, v: torch.Tensor, g: torch.Tensor, z: torch.Tensor
) -> torch.Tensor:
    return torch.einsum("bki,kpij->bpj", plan.basis(v), plan.coefficients(conduction, g, z))


@pytest.mark.parametrize("tolerance", [1e-3, 1e-4, 1e-5])
def test_agrees_with_the_direct_evaluation(conduction: Conduction, tolerance: float) -> None:
    """Relative to each bit line's sum of |I|, for dense, sparse, negative and vanishing inputs."""
    plan = collocation(conduction, 0.5, tolerance)
    g, z = drawn(conduction)
    generator = torch.Generator().manual_seed(1)
    v = torch.rand(12, 60, generator=generator, dtype=torch.float64) * 0.5
    v[4:8] *= torch.rand(4, 60, generator=generator) > 0.8
    v[8:10] *= -1
    v[10] = 0.0
    exact = direct(conduction, v, g, z)
    scale = direct(conduction, v.abs(), g, z).abs()
    error = (currents(plan, conduction, v, g, z) - exact).abs()
    assert bool((error <= tolerance * scale + 1e-25).all())


def test_single_devices_stay_within_the_tolerance(conduction: Conduction) -> None:
    plan = collocation(conduction, 0.5, 1e-4)
    g, z = drawn(conduction, (2, 1, 4000))
    v = torch.linspace(0, 0.5, 200, dtype=torch.float64)[:, None]
    exact = direct(conduction, v, g, z)
    error = (currents(plan, conduction, v, g, z) - exact).abs() / exact[-1]
    assert float(error.max()) < 1.05e-4


def test_gradients_by_conductances_and_inputs(conduction: Conduction) -> None:
    plan = collocation(conduction, 0.5)
    g, z = drawn(conduction, (2, 3, 2))
    v = torch.tensor([[0.31, -0.2, 0.5], [0.02, 0.13, 0.4]], dtype=torch.float64)

    def f(g: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bki,kpij->bpj", plan.basis(v), plan.coefficients(conduction, g * 1e-6, z)) * 1e6

    inputs = ((g * 1e6).requires_grad_(True), v.requires_grad_(True))
    assert torch.autograd.gradcheck(f, inputs)


@pytest.mark.parametrize("word_lines", [2, 26, 300])
def test_bit_lines_need_fewer_nodes_for_the_same_tolerance(conduction: Conduction, word_lines: int) -> None:
    """99.9 % of the bit lines stay within the tolerance, relative to their sum of |I|; none errs by ten times it."""
    tolerance = 1e-4
    plan = collocation(conduction, 0.5, tolerance, BitLines(G_OFF, G_ON, word_lines))
    assert plan.count <= collocation(conduction, 0.5, tolerance).count
    g, z = drawn(conduction, (1, word_lines, 20_000 // word_lines))
    v = torch.rand(4, word_lines, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * 0.5
    exact = direct(conduction, v, g, z)
    error = ((currents(plan, conduction, v, g, z) - exact) / exact).abs()
    assert float(torch.quantile(error.flatten(), 0.999)) <= 1.2 * tolerance  # the sample that chose is another one
    assert float(error.max()) <= 10 * tolerance


def test_gradients_at_vanishing_inputs_are_finite_and_right(conduction: Conduction) -> None:
    plan = collocation(conduction, 0.5, 1e-5)
    g, z = drawn(conduction)
    v = torch.zeros(1, 60, dtype=torch.float64, requires_grad=True)
    currents(plan, conduction, v, g, z)[:, 0].sum().backward()
    small = torch.full_like(v, 1e-9)
    one_by_one = conduction.law.current(small[0, :, None], xp=torch, **conduction.parameters(g, z))[0]
    torch.testing.assert_close(v.grad[0], (one_by_one / 1e-9).sum(1), rtol=0.02, atol=0)


def test_float32_keeps_five_digits(conduction: Conduction) -> None:
    plan = collocation(conduction, 0.5, 1e-5)
    g, z = drawn(conduction)
    v = torch.rand(5, 60, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.5
    single = currents(plan, conduction, v.float(), g.float(), z.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), direct(conduction, v, g, z), rtol=2e-5, atol=0)


def test_the_tolerance_decides_the_nodes() -> None:
    counts = [collocation(CONDUCTIONS["anchored"], 0.5, tolerance).count for tolerance in (1e-2, 1e-4, 1e-6)]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    assert collocation(CONDUCTIONS["ohmic"], 0.5).count == 1
    assert collocation(CONDUCTIONS["not odd"], 0.5).size == 2 * collocation(CONDUCTIONS["not odd"], 0.5).count


def test_more_spread_needs_more_nodes() -> None:
    assert collocation(law(spread=0.5), 0.5).count > collocation(law(spread=0.05), 0.5).count


def test_an_unreachable_tolerance_is_refused() -> None:
    with pytest.raises(OptionError, match="cannot be interpolated to 1e-30 with 16 nodes up to 0.5 V"):
        collocation(CONDUCTIONS["anchored"], 0.5, 1e-30)
    with pytest.raises(OptionError, match="expected 0 < tolerance < 1"):
        collocation(CONDUCTIONS["anchored"], 0.5, 0.0)


def test_exponential_laws_are_recognised() -> None:
    assert exponential_parameter(iv_model("poole-frenkel")) == "gamma"
    assert exponential_parameter(iv_model("ohmic")) is None
    assert exponential_parameter(Sinh()) is None


def test_node_voltages_lie_within_the_range() -> None:
    v = collocation(CONDUCTIONS["anchored"], 0.5).node_voltages()
    assert np.all((v > 0) & (v <= 0.5 * (1 + 1e-9)))
