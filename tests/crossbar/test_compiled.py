"""Compiled loops against the same computations with torch."""

import itertools
import math
import sys
from dataclasses import replace

import pytest
import torch

from calib import nn as memristive
from calib.crossbar import compiled, drawing
from calib.crossbar.encoding import encode
from calib.crossbar.layers import memristive_layers
from calib.crossbar.random_streams import generator
from calib.training_step import step
from tests.simple_devices import device, everything, iv_node

numba = pytest.importorskip("numba", reason="numba is not installed")

TREES = {
    "one line": device(),
    "identity": device(iv=iv_node(transform="identity", spread=0.5)),
    "stages": everything(),
    "two states": device(iv=iv_node(two_states=True)),
}
MAPPINGS = ("double", "lowest", "offset", "bit-slicing", "double:clip=3sigma")


def with_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_loops", lambda: None)


def layers(
    tree, mapping: str = "double", sizes: tuple[int, ...] = (40, 30, 3), dtype: torch.dtype = torch.float64
) -> list[memristive.MemristiveLinear]:
    devices = memristive.Devices.from_model(tree)
    # Beyond the range of the data, where the fit ends and ln R is held, as well.
    devices = replace(devices, g_off=0.8 * devices.g_off, g_on=0.99 * devices.g_on, plans={})
    first = torch.Generator().manual_seed(1)
    found = [
        memristive.MemristiveLinear(n_in, n_out, devices, mapping=mapping, first=first, dtype=dtype)
        for n_in, n_out in itertools.pairwise(sizes)
    ]
    for index, layer in enumerate(found):
        layer.generator = generator("test", index)
    return found


def drawn_with_gradients(
    some: list[memristive.MemristiveLinear], power: bool
) -> tuple[list[torch.Tensor], tuple[torch.Tensor, ...]]:
    """Return what is drawn, and gradients of a sum of it with arbitrary factors."""
    for layer in some:
        layer.wants_power = power
    numbers = [part for drawn in drawing.draw(some) for part in drawn.values()]
    total = torch.zeros((), dtype=numbers[0].dtype)
    for part in numbers:
        factors = torch.linspace(0.5, 1.5, part.numel(), dtype=part.dtype).view_as(part).cos()
        total = total + (part / part.detach().abs().mean() * factors).sum()
    return numbers, torch.autograd.grad(total, [layer.weight for layer in some])


@pytest.mark.parametrize("power", [False, True], ids=["alone", "with power"])
@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize("name", TREES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_devices_agree_with_torch(
    dtype: torch.dtype, name: str, mapping: str, power: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers to rounding, and gradients by all weights."""
    numbers, gradients = drawn_with_gradients(layers(TREES[name], mapping, dtype=dtype), power)
    with_torch(monkeypatch)
    expected, expected_gradients = drawn_with_gradients(layers(TREES[name], mapping, dtype=dtype), power)
    assert len(numbers) == len(expected) == 2 * (1 + power)
    relative = 2e-5 if dtype == torch.float32 else 1e-11
    for one, other in zip((*numbers, *gradients), (*expected, *expected_gradients), strict=True):
        torch.testing.assert_close(one, other, rtol=relative, atol=relative * float(other.detach().abs().max()))


def test_gradients_of_coefficients_and_power() -> None:
    """By differences, all weights and the largest as well."""
    some = layers(device(), sizes=(4, 3, 2))
    weights = [(layer.weight.detach() + 0.1).requires_grad_(True) for layer in some]

    def f(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        for index, (layer, value) in enumerate(zip(some, values, strict=True)):
            layer.generator, layer.wants_power = generator("test", index), True
            del layer.weight
            layer.weight = value
        parts = [part for drawn in drawing.draw(some) for part in drawn.values()]
        return tuple(part * (1.0 if part.dim() == 2 else 1e6) for part in parts)  # siemens are too small to compare

    assert torch.autograd.gradcheck(f, tuple(weights), eps=1e-7)


def test_without_gradients_the_numbers_are_the_same() -> None:
    some = layers(device())
    kept = [drawn["coefficients"].detach() for drawn in drawing.draw(layers(device()))]
    with torch.no_grad():
        again = drawing.draw(some)
    assert all(torch.equal(one, other["coefficients"]) for one, other in zip(kept, again, strict=True))


def test_results_of_steps_share_no_memory() -> None:
    """Two graphs that are kept give gradients of their own."""
    (layer,) = layers(device(), sizes=(5, 3))
    first, second = (drawing.draw([layer])[0]["coefficients"] for _ in range(2))
    before = first.detach().clone()
    expected = torch.autograd.grad(first.sum(), layer.weight, retain_graph=True)[0]
    torch.autograd.grad(second.square().sum(), layer.weight)
    assert torch.equal(first, before)
    assert torch.equal(torch.autograd.grad(first.sum(), layer.weight)[0], expected)


def test_weights_that_change_before_the_backward_pass_are_an_error() -> None:
    (layer,) = layers(device(), sizes=(5, 3))
    total = drawing.draw([layer])[0]["coefficients"].sum()
    with torch.no_grad():
        layer.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        total.backward()


def test_second_derivatives_are_an_error() -> None:
    (layer,) = layers(device(), sizes=(5, 3))
    total = drawing.draw([layer])[0]["coefficients"].square().sum()
    (gradient,) = torch.autograd.grad(total, layer.weight, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_are_no_numbers_stay_so(dtype: torch.dtype) -> None:
    (layer,) = layers(device(), sizes=(5, 3), dtype=dtype)
    with torch.no_grad():
        layer.weight[0, 1, 2] = math.nan
    assert drawing.draw([layer])[0]["coefficients"].isnan().all()


@pytest.mark.parametrize("power", [0.5, 0.7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inputs_agree_with_torch(power: float, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = memristive.MemristiveLinear(30, 3, memristive.Devices.from_model(device()), dtype=dtype)
    assert layer.encoding is not None
    encoding = replace(layer.encoding, power=power)
    x = torch.linspace(-1, 1, 300, dtype=dtype).view(10, 30).requires_grad_(True)
    found = []
    for loops in (True, False):
        if not loops:
            with_torch(monkeypatch)
        basis = encode(x, encoding)
        factors = torch.linspace(0, 9, basis.numel(), dtype=dtype).view_as(basis).cos()
        found.append((basis.detach(), torch.autograd.grad((basis * factors).sum(), x)[0]))
    relative = 1e-5 if dtype == torch.float32 else 1e-12
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=relative, atol=relative * float(other.detach().abs().max()))


@pytest.mark.parametrize(
    ("name", "least", "largest"),
    [("exp", -86.0, 87.0), ("expm1", -20.0, 20.0), ("expm1", -1e-3, 1e-3), ("log", -80.0, 80.0), ("log", -1e-3, 1e-3)],
)
def test_functions_of_single_precision(name: str, least: float, largest: float) -> None:
    """To 2 units in the last place; ln x for x = exp of the points."""
    import numpy as np

    from calib.crossbar import kernels

    function = getattr(kernels, name)

    @numba.njit
    def every(values, out):
        for i in range(len(values)):
            out[i] = function(values[i])

    points = np.linspace(least, largest, 20_001)
    points = (np.exp(points) if name == "log" else points).astype(np.float32)
    found = np.empty_like(points)
    every(points, found)
    exact = getattr(np, name)(points.astype(np.float64))
    assert np.abs(found - exact).max() > 0
    assert (np.abs(found - exact) <= 2.5 * np.spacing(np.abs(exact.astype(np.float32)))).all()


def test_logarithms_of_what_has_none() -> None:
    import numpy as np

    from calib.crossbar import kernels

    one = numba.njit(lambda x: kernels._log_single(x))
    assert one(np.float32(0)) == -math.inf
    assert math.isnan(one(np.float32(-1)))


@pytest.mark.parametrize("energy_weight", [0.0, 0.3])
def test_steps_agree_with_torch(energy_weight: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loss and gradients of a network's step, with encoded inputs and with the inputs themselves."""
    found = []
    stream = torch.Generator().manual_seed(3)
    x, y = torch.rand(8, 20, generator=stream, dtype=torch.float64), torch.randint(3, (8,), generator=stream)
    for loops, encoded in ((True, True), (True, False), (False, False)):
        if not loops:
            with_torch(monkeypatch)
        one, two = layers(device(), sizes=(20, 6, 3))
        model = torch.nn.Sequential(one, torch.nn.Sigmoid(), two)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
        inputs = one.encode(x, power=bool(energy_weight)) if encoded else x
        loss, logits, _ = step(model, memristive_layers(model), optimizer, inputs, y, energy_weight=energy_weight)
        found.append((loss, logits, one.weight.grad, two.weight.grad))
    for other in found[:2]:
        for a, b in zip(other, found[2], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_numba_is_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compiled._loops.__wrapped__() is not None
    with monkeypatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", True)
        assert compiled._loops.__wrapped__() is None
    monkeypatch.setitem(sys.modules, "numba", None)  # as if it could not be imported
    assert compiled._loops.__wrapped__() is None
