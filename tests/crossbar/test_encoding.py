"""Inputs encoded in one step against the basis of the plan."""

import pytest
import torch
from torch.nn import functional

from calib import nn as memristive
from calib.crossbar.encoding import encode
from tests.simple_devices import device, iv_node


@pytest.fixture(params=[{}, {"form": "paper"}, {"spread": 0.6}], ids=["anchored", "paper", "wide"])
def layer(request: pytest.FixtureRequest) -> memristive.MemristiveLinear:
    devices = memristive.Devices.from_model(device(iv=iv_node(**request.param)))
    return memristive.MemristiveLinear(7, 3, devices, dtype=torch.float64)


def test_agrees_with_the_basis(layer: memristive.MemristiveLinear) -> None:
    assert layer.encoding is not None
    x = torch.linspace(-1, 1, 70, dtype=torch.float64).view(10, 7)
    expected = layer.plan.basis(0.5 * functional.pad(x, (0, 1), value=1.0))
    torch.testing.assert_close(encode(x, layer.encoding), expected, rtol=1e-10, atol=1e-13)


def test_gradients(layer: memristive.MemristiveLinear) -> None:
    x = torch.linspace(-0.9, 1, 14, dtype=torch.float64).view(2, 7).requires_grad_(True)
    encoding = layer.encoding
    assert encoding is not None
    assert torch.autograd.gradcheck(lambda v: encode(v, encoding), (x,))
    at_zero = torch.zeros(1, 7, dtype=torch.float64, requires_grad=True)
    encode(at_zero, encoding)[0, 0].sum().backward()
    torch.testing.assert_close(at_zero.grad, torch.full((1, 7), 0.5, dtype=torch.float64), rtol=1e-4, atol=0)


def test_mapped_over_chips(layer: memristive.MemristiveLinear) -> None:
    x = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    encoding = layer.encoding
    assert encoding is not None
    for dim in (0, 1):
        found = torch.func.vmap(lambda v: encode(v, encoding), in_dims=dim)(x.movedim(0, dim))
        torch.testing.assert_close(found, encode(x, encoding), rtol=1e-12, atol=1e-15)


def test_other_laws_take_several_steps() -> None:
    devices = memristive.Devices.from_model(device(iv=iv_node(law="ohmic")))
    assert memristive.MemristiveLinear(3, 2, devices).encoding is None
    odd = memristive.Devices.from_model(device())
    assert memristive.MemristiveLinear(3, 2, odd, array=memristive.Array(input_mode="offset")).encoding is None
