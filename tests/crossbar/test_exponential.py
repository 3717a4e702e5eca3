"""The fused computation of laws of one exponent against the plain one."""

import itertools
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from calib import nn as memristive
from calib.crossbar import drawing, exponential
from calib.crossbar.exponential import Pairs
from calib.crossbar.random_streams import generator
from tests.simple_devices import device, everything, iv_node


def layers(tree, mapping: str, sizes: tuple[int, ...]) -> list[memristive.MemristiveLinear]:
    devices = memristive.Devices.from_model(tree)
    # Inside of the range of the data: at its ends, where lines become constant, the derivative jumps.
    devices = replace(devices, g_off=1.01 * devices.g_off, g_on=0.99 * devices.g_on, plans={})
    first = torch.Generator().manual_seed(1)
    found = [
        memristive.MemristiveLinear(n_in, n_out, devices, mapping=mapping, first=first, dtype=torch.float64)
        for n_in, n_out in itertools.pairwise(sizes)
    ]
    for index, layer in enumerate(found):
        layer.generator = generator("test", index)
    return found


def plainly(layer: memristive.MemristiveLinear) -> dict[str, torch.Tensor]:
    """Return what `drawing.draw` returns, by way of each device's coefficients."""
    devices, own = layer.devices, layer.generator
    g, k_g = layer.mapping.conductances(layer.weight, devices.g_off, devices.g_on)
    g = drawing.programmed(devices, g, lambda name: own, lambda name: None)
    z = devices.conduction.deviates(tuple(g.shape), own, g.dtype)
    d = layer.plan.coefficients(devices.conduction, g, z)
    factors = torch.tensor(layer.mapping.factors, dtype=d.dtype) if len(layer.mapping.factors) > 1 else d.new_ones(1)
    combined = torch.einsum("kgij,g->kij", d, factors).flatten(0, 1)
    return {"coefficients": combined / (k_g * devices.input_voltage)}


TREES = {
    "one line": device(),
    "two states": device(iv=iv_node(two_states=True)),
    "identity": device(iv=iv_node(transform="identity", spread=0.5)),
    "stages": everything(),
}


@pytest.mark.parametrize("block", [2**17, 40, 1])
@pytest.mark.parametrize("mapping", ["double", "lowest", "offset", "bit-slicing"])
@pytest.mark.parametrize("name", TREES)
def test_agrees_with_the_plain_way(name: str, mapping: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers and gradients by all weights, of layers that are drawn together, in blocks of any size."""
    monkeypatch.setattr(exponential, "_BLOCK", block)
    found, gradients = [], []
    for way in (drawing.draw, lambda some: [plainly(layer) for layer in some]):
        some = layers(TREES[name], mapping, (6, 5, 3))
        drawn = way(some)
        total = sum(
            (
                part["coefficients"]
                * torch.linspace(0.5, 1.5, 3 * part["coefficients"].numel())[::3].view_as(part["coefficients"])
            ).sum()
            for part in drawn
        )
        found.append(drawn)
        gradients.append(torch.autograd.grad(total, [layer.weight for layer in some]))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one["coefficients"], other["coefficients"], rtol=1e-9, atol=1e-12)
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


@settings(max_examples=8, deadline=None)
@given(sizes=st.tuples(st.integers(1, 9), st.integers(1, 7), st.integers(1, 5)), seed=st.integers(0, 99))
def test_gradients_of_drawn_layers(sizes: tuple[int, ...], seed: int) -> None:
    some = layers(device(), "double", sizes)
    shift = torch.Generator().manual_seed(seed)  # no two are the largest, where the derivative jumps
    weights = [
        (layer.weight.detach() + 0.05 + 0.1 * torch.rand(layer.weight.shape, generator=shift)).requires_grad_(True)
        for layer in some
    ]

    def f(*values: torch.Tensor) -> tuple[torch.Tensor, ...]:
        law = some[0].plan.exponential(0.1)
        devices, sources = some[0].devices, list(values)
        stream = generator(seed)
        z = [devices.conduction.deviates(tuple(value.shape), stream, value.dtype) for value in values]
        pairs = Pairs(devices.conduction, law, (1.0, -1.0), 0.5, devices.g_off, devices.g_on, True)
        return tuple(exponential.combined(pairs, sources, z))

    assert torch.autograd.gradcheck(f, tuple(weights))


def test_layers_of_other_devices_are_drawn_on_their_own() -> None:
    some = [*layers(device(), "double", (4, 3)), *layers(device(iv=iv_node(law="ohmic")), "average", (3, 2))]
    for layer, drawn in zip(some, drawing.draw(some), strict=True):
        layer.generator = generator("test", 0)
        again = drawing.draw([layer])[0]
        torch.testing.assert_close(drawn["coefficients"], again["coefficients"], rtol=1e-12, atol=0)


def test_weights_mapped_over_a_stack() -> None:
    """torch.func.vmap over weights gives what one after the other gives."""
    (layer,) = layers(device(), "double", (4, 3))
    x = torch.rand(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    weights = torch.rand(3, *layer.weight.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def run(weight: torch.Tensor) -> torch.Tensor:
        layer.generator = generator("vmap")
        return torch.func.functional_call(layer, {"weight": weight}, (x,))

    together = torch.func.vmap(run, randomness="same")(weights)
    torch.testing.assert_close(together, torch.stack([run(weight) for weight in weights]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("mapping", ["double", "lowest", "average"])
def test_ideal_devices_in_pairs_give_the_weights(mapping: str) -> None:
    """The short way and that by conductances, whose largest weight has a gradient through k_G that cancels."""
    (layer,) = layers(device(), mapping, (6, 4))
    layer.devices = layer.devices.ideal()
    with torch.no_grad():
        layer.weight += 0.01  # none is 0, where a pair of which one device is at G_off has a kink
    found = drawing.draw([layer])[0]["coefficients"]
    expected = plainly(layer)["coefficients"]
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
    factors = torch.linspace(0, 5, found.numel(), dtype=found.dtype).view_as(found).cos()
    one, other = (torch.autograd.grad((part * factors).sum(), layer.weight)[0] for part in (found, expected))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)
