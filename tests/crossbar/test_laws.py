"""Every conduction law inside a layer: the matrix product against the direct evaluation, and its gradients."""

import numpy as np
import pytest
import torch
from torch import nn

from calib.crossbar.array import Array
from calib.crossbar.devices import Devices
from calib.crossbar.layers import MemristiveLinear
from calib.crossbar.multiply import direct
from calib.crossbar.nodes import collocation
from calib.errors import OptionError
from calib.iv_models import all_names, iv_model
from tests.iv_models.law_devices import conduction
from tests.simple_devices import G_OFF, G_ON

TOLERANCE = 1e-4


@pytest.fixture(scope="module", params=all_names())
def devices(request: pytest.FixtureRequest) -> Devices:
    law = conduction(request.param)
    return Devices("test", G_OFF, G_ON, 0.5, (), law, tolerance=TOLERANCE)


def drawn(devices: Devices, shape: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(9)
    g = G_OFF + (G_ON - G_OFF) * torch.rand(shape, generator=generator, dtype=torch.float64)
    return g, devices.conduction.deviates(shape, generator, torch.float64)


def test_single_devices_stay_within_the_tolerance(devices: Devices) -> None:
    """Of their current at the largest voltage of that sign."""
    g, z = drawn(devices, (2, 1, 1000))
    plan = collocation(devices.conduction, 0.5, TOLERANCE)
    for sign in (1, -1):
        v = sign * torch.linspace(0, 0.5, 101, dtype=torch.float64)[:, None]
        exact = direct(devices.conduction, v, g, z)
        found = torch.einsum("bki,kpij->bpj", plan.basis(v), plan.coefficients(devices.conduction, g, z))
        assert float(((found - exact).abs() / exact[-1].abs()).max()) < 1.2 * TOLERANCE


def test_a_layer_is_its_currents_and_so_are_its_gradients(devices: Devices) -> None:
    """y = (I+ - I-) / (k_V k_G) and its gradients by weights and inputs, against one device at a time."""
    first, array = torch.Generator().manual_seed(1), Array(input_mode="voltage")
    layer = MemristiveLinear(20, 3, devices, array=array, first=first, dtype=torch.float64)
    x = torch.rand(5, 20, generator=torch.Generator().manual_seed(2), dtype=torch.float64) * 1.6 - 0.6
    x.requires_grad_(True)
    layer.generator = torch.Generator().manual_seed(5)
    y = layer(x)
    cotangent = torch.randn(y.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = torch.autograd.grad((y * cotangent).sum(), (layer.weight, x))
    g, k_g = layer.mapping.conductances(layer.weight, G_OFF, G_ON)
    z = devices.conduction.deviates(tuple(g.shape), torch.Generator().manual_seed(5), g.dtype)
    voltage = nn.functional.pad(x, (0, 1), value=1.0) * 0.5
    current = direct(devices.conduction, voltage, g, z)
    exact = (current[:, 0] - current[:, 1]) / (0.5 * k_g)
    largest = direct(devices.conduction, voltage.abs(), g, z).abs().sum(1) / (0.5 * k_g)
    assert float(((y - exact).abs() / largest).detach().max()) < 2 * TOLERANCE
    expected = torch.autograd.grad((exact * cotangent).sum(), (layer.weight, x))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=3e-3 * float(other.abs().max()))


def test_single_precision_keeps_the_tolerance(devices: Devices) -> None:
    g, z = drawn(devices, (2, 30, 4))
    v = torch.rand(6, 30, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 0.5
    single = torch.einsum(
        "bki,kpij->bpj", devices.plan(30).basis(v.float()),
        devices.plan(30).coefficients(devices.conduction, g.float(), z.float()),
    )  # fmt: skip
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), direct(devices.conduction, v, g, z), rtol=4 * TOLERANCE, atol=0)


@pytest.mark.parametrize("name", ["polynomial", "diode", "hyperbolic-sine+series"])
def test_the_papers_form_draws_all_parameters(name: str) -> None:
    law = conduction(name, form="paper", spread=0.04)
    plan = collocation(law, 0.5, TOLERANCE)
    g = torch.full((2, 1, 300), 1e-6, dtype=torch.float64)
    z = law.deviates((2, 1, 300), torch.Generator().manual_seed(1), torch.float64)
    v = torch.linspace(0, 0.5, 51, dtype=torch.float64)[:, None]
    exact = direct(law, v, g, z)
    found = torch.einsum("bki,kpij->bpj", plan.basis(v), plan.coefficients(law, g, z))
    assert float(((found - exact).abs() / exact[-1]).max()) < 1.2 * TOLERANCE


def test_what_cannot_be_interpolated_is_refused_with_the_reason() -> None:
    with pytest.raises(
        OptionError, match=r"'fowler-nordheim' cannot be .* differ too much in this range; lower the in"
    ):
        collocation(conduction("fowler-nordheim", spread=0.4), 0.5, TOLERANCE)


def test_extremes_hold_the_scale_where_it_is_no_factor() -> None:
    for name in ("power-law", "power-law+series"):
        law, model = conduction(name), iv_model(name)
        for device in law.extremes():
            assert set(device) == set(model.shape) | (set() if model.scale_is_factor else {model.scale})
    g = [1 / float(model.resistance(0.1, xp=np, **{k: np.asarray(v) for k, v in d.items()})) for d in law.extremes()]
    assert min(g) == pytest.approx(G_OFF, rel=1e-9)
    assert max(g) == pytest.approx(G_ON, rel=1e-9)
