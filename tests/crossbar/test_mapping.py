"""Weights to conductances and back."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import functional_call, grad, jvp, vmap

from calib.crossbar.mapping import MAPPINGS, BitSlicing, Mapping, mapping
from calib.errors import OptionError
from tests.simple_devices import G_OFF, G_ON

SMOOTH = ("double", "lowest", "average", "offset")
TEXTS = (*SMOOTH, "bit-slicing", "bit-slicing:slices=3,bits=1", "double:clip=1.2sigma", "lowest:clip=80%",
         "offset:clip=1sigma", "bit-slicing:clip=90%")  # fmt: skip


def weights(of: Mapping, seed: int = 0, n_in: int = 6, n_out: int = 4, bias: bool = True) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    w = torch.randn(of.weight_shape(n_in, n_out, bias), generator=stream, dtype=torch.float64)
    of.project(w)
    return w


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("name", SMOOTH)
def test_round_trip(name: str, bias: bool) -> None:
    m = mapping(name)
    w = weights(m, bias=bias)
    g, k_g = m.conductances(w, G_OFF, G_ON)
    assert g.shape == (m.groups, 6 + bias, m.bit_lines(4))
    assert float(g.min()) >= G_OFF * (1 - 1e-12)
    assert float(g.max()) <= G_ON * (1 + 1e-12)
    assert float(k_g) == pytest.approx((G_ON - G_OFF) / float(w.abs().max()), rel=1e-12)
    assert torch.equal(m.k_g(w, G_OFF, G_ON), k_g)
    torch.testing.assert_close(m.weights(g, G_OFF, k_g), w)


@pytest.mark.parametrize("text", TEXTS)
def test_combined_currents_are_those_of_the_signed_weights(text: str) -> None:
    m = mapping(text)
    w = weights(m)
    g, k_g = m.conductances(w, G_OFF, G_ON)
    voltage = torch.rand(5, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64) - 0.3
    currents = torch.einsum("bi,gij->bgj", voltage, g)
    stands_for = m.quantised(w) if isinstance(m, BitSlicing) else m.to_signed(m.clipped(w))
    torch.testing.assert_close(m.combine(currents) / k_g, voltage @ stands_for)
    torch.testing.assert_close(m.combine(g, dim=0) / k_g, stands_for)
    torch.testing.assert_close(m.add(m.difference(currents)), m.combine(currents))
    torch.testing.assert_close(m.add(m.difference(g, dim=0), dim=0), m.combine(g, dim=0))


@pytest.mark.parametrize("name", MAPPINGS)
def test_signed_weights_are_kept(name: str) -> None:
    m = mapping(name)
    signed = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    assert torch.equal(m.to_signed(m.from_signed(signed)), signed)
    assert m.from_signed(signed).shape == m.weight_shape(6, 4)
    assert m.from_signed(signed).data_ptr() != signed.data_ptr()


def test_values_by_hand() -> None:
    w = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    lowest, _ = mapping("lowest").conductances(w, 1.0, 3.0)
    average, _ = mapping("average").conductances(w, 1.0, 3.0)
    offset, _ = mapping("offset").conductances(w, 1.0, 3.0)
    sliced, k_g = BitSlicing(slices=2, bits_per_slice=2).conductances(w, 1.0, 4.0)
    assert lowest[:, 0].tolist() == [[3.0, 1.0], [1.0, 2.0]]
    assert average[:, 0].tolist() == [[3.0, 1.5], [1.0, 2.5]]
    assert offset[:, 0].tolist() == [[3.0, 1.5, 2.0]]
    # 0.5 of 15 rounds to 8 (half to even): digits 0 and 2 in base 4; 15 has the digits 3 and 3.
    assert sliced[:, 0].tolist() == [[4.0, 1.0], [1.0, 1.0], [4.0, 1.0], [1.0, 3.0]]
    assert float(k_g) == 15.0


@pytest.mark.parametrize("text", [*SMOOTH, "lowest:clip=1sigma", "double:clip=1.1sigma", "average:clip=75%"])
def test_gradients_are_exact(text: str) -> None:
    m = mapping(text)
    w = weights(m).add(0.01).requires_grad_(True)
    assert torch.autograd.gradcheck(lambda w: m.conductances(w, 1.0, 3.0), w)
    assert torch.autograd.gradgradcheck(lambda w: m.conductances(w, 1.0, 3.0), w)


def test_the_gradient_of_digits_is_that_of_the_lowest_mapping_in_every_slice() -> None:
    m, plain = BitSlicing(slices=3, bits_per_slice=2), mapping("lowest")
    w = weights(m).requires_grad_(True)
    upstream = torch.rand((6, 7, 4), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    g, k_g = m.conductances(w, 1.0, 3.0)
    (found,) = torch.autograd.grad((g * upstream).sum() + k_g.square(), w)
    h, k = plain.conductances(w, 1.0, 3.0)
    (expected,) = torch.autograd.grad((torch.cat([h] * 3) * upstream).sum() + (k * m.span).square(), w)
    torch.testing.assert_close(found, expected)


def test_quantised_weights_pass_gradients_straight_through() -> None:
    m = BitSlicing(slices=2, bits_per_slice=2)
    w = weights(m).requires_grad_(True)
    upstream = torch.rand((7, 4), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    rounded = m.quantised(w)
    (found,) = torch.autograd.grad((rounded * upstream).sum(), w)
    expected = upstream.clone()  # and the step's size, which follows the largest weight
    at = int(w.abs().argmax())
    expected.view(-1)[at] += ((rounded - w) * upstream).sum().detach() / w.detach().view(-1)[at]
    torch.testing.assert_close(found, expected)


@given(slices=st.integers(1, 6), bits=st.integers(1, 4), seed=st.integers(0, 999), double=st.booleans())
@settings(max_examples=40, deadline=None)
def test_slices_give_back_the_quantised_weight(slices: int, bits: int, seed: int, double: bool) -> None:
    m = BitSlicing(slices=slices, bits_per_slice=bits)
    w = weights(m, seed).to(torch.float64 if double else torch.float32)
    top, largest = 2 ** (slices * bits) - 1, float(w.abs().max())
    g, _ = m.conductances(w, 1.0, 2.0)
    digits = (g - 1.0) * (2**bits - 1)
    torch.testing.assert_close(digits, digits.round(), rtol=0, atol=1e-5)
    assert int(digits.round().min()) >= 0
    assert int(digits.round().max()) == 2**bits - 1
    code = m.combine(digits.round().double(), dim=0)
    step = largest / top
    rounding = 0 if double else 2e-7 * top  # of float32, in steps
    assert 0 <= top - int(code.abs().max()) <= rounding
    assert float((code * step - w.double()).abs().max()) <= (0.5 + 1e-9 + rounding) * step
    rtol = 1e-12 if double else 1e-5
    torch.testing.assert_close(m.quantised(w).double(), code * step, rtol=rtol, atol=rtol * largest)
    for index in range(m.groups // 2):  # one of a pair is at G_off
        assert float(torch.minimum(g[2 * index], g[2 * index + 1]).max()) == 1.0


def test_many_bits_approach_the_weights() -> None:
    w = weights(mapping("lowest"))
    errors = [float((BitSlicing(slices=s, bits_per_slice=4).quantised(w) - w).abs().max()) for s in (1, 2, 4, 6)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-7 * float(w.abs().max())


def test_the_largest_share_does_not_overflow_in_float32() -> None:
    m = BitSlicing(slices=6, bits_per_slice=4)
    w = torch.rand((300, 50), generator=torch.Generator().manual_seed(0))
    for factor in (1.0, 0.37, 1.7e-3, 913.0):
        g, _ = m.conductances(factor * w, 0.0, 1.0)
        assert float(g.max()) <= 1.0


def test_devices_of_slices_take_the_levels() -> None:
    m = BitSlicing(slices=2, bits_per_slice=3)
    w = torch.linspace(-1, 1, 127, dtype=torch.float64)[:, None]
    g, _ = m.conductances(w, G_OFF, G_ON)
    assert len(m.levels(G_OFF, G_ON)) == 8
    torch.testing.assert_close(g.unique(), torch.tensor(m.levels(G_OFF, G_ON), dtype=torch.float64))


@pytest.mark.parametrize(("text", "limit"), [("lowest:clip=2sigma", 2 * 0.7), ("offset:clip=75%", 0.6)])
def test_clipping(text: str, limit: float) -> None:
    m = mapping(text)
    w = torch.tensor([[0.1, -0.6, 0.5, -((1.96 - 0.62) ** 0.5)]], dtype=torch.float64)  # mean square 0.49
    w = w if "%" in text else torch.cat((w, w, w, w), 1)
    bound = limit if "%" in text else 2 * float(w.square().mean().sqrt())
    g, k_g = m.conductances(w, 1.0, 3.0)
    expected = w.clamp(-bound, bound)
    torch.testing.assert_close(m.combine(g, dim=0) / k_g, expected)
    assert float(k_g) == pytest.approx(2.0 / float(expected.abs().max()))
    assert float(w.square().mean().sqrt()) == pytest.approx(0.7)


@given(share=st.floats(1, 100), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_clipping_keeps_the_stated_share(share: float, seed: int) -> None:
    share = round(share, 3)
    w = weights(mapping("lowest"), seed, 20, 10)
    kept = mapping("lowest", clip=f"{share:f}%").clipped(w)
    untouched = int((kept == w).sum())
    assert untouched == max(math.ceil(share / 100 * w.numel() - 1e-9), 1)


def test_clipping_passes_gradients_inside_only() -> None:
    m = mapping("lowest:clip=50%")
    w = weights(m).requires_grad_(True)
    inside = w.detach().abs() < m.clipped(w).detach().abs().max()
    (found,) = torch.autograd.grad(m.clipped(w).sum(), w)
    beyond = w.detach().abs() > m.clipped(w).detach().abs().max()
    assert bool((found[inside] == 1).all())
    assert bool((found[beyond] == 0).all())


def test_a_limit_beyond_all_weights_changes_nothing() -> None:
    w = weights(mapping("average"))
    for clip in ("100%", "50sigma"):
        g, k_g = mapping("average", clip=clip).conductances(w, 1.0, 3.0)
        expected, k = mapping("average").conductances(w, 1.0, 3.0)
        assert torch.equal(g, expected)
        assert torch.equal(k_g, k)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, at the first jvp
@pytest.mark.parametrize("text", TEXTS)
def test_transforms_of_torch(text: str) -> None:
    m = mapping(text)
    stacked = torch.stack([weights(m, seed) for seed in range(3)]).add(0.01)

    def loss(w: torch.Tensor) -> torch.Tensor:
        g, k_g = m.conductances(w, 1.0, 3.0)
        return (m.combine(g, dim=0).sin().sum() + g.square().sum()) / k_g

    single = []
    for w in stacked:
        leaf = w.clone().requires_grad_(True)
        single.append(torch.autograd.grad(loss(leaf), leaf)[0])
    torch.testing.assert_close(vmap(loss)(stacked), torch.stack([loss(w) for w in stacked]))
    torch.testing.assert_close(vmap(grad(loss))(stacked), torch.stack(single))
    direction = weights(m, 9)
    _, slope = jvp(loss, (stacked[0],), (direction,))
    torch.testing.assert_close(slope, (single[0] * direction).sum())


def test_the_weights_may_be_shared_by_mapped_chips() -> None:
    m = mapping("double")
    layer = torch.nn.Module()
    layer.weight = torch.nn.Parameter(weights(m))
    layer.forward = lambda noise: m.combine(m.conductances(layer.weight, 1.0, 3.0)[0] * noise, dim=0)  # type: ignore[assignment]
    noise = torch.rand((4, 2, 7, 4), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = vmap(lambda n: functional_call(layer, dict(layer.named_parameters()), (n,)))(noise)
    torch.testing.assert_close(found, torch.stack([layer(n) for n in noise]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("text", TEXTS)
def test_any_dtype(text: str, dtype: torch.dtype) -> None:
    m = mapping(text)
    w = weights(m).to(dtype).requires_grad_(True)
    g, k_g = m.conductances(w, G_OFF, G_ON)
    expected, k = m.conductances(w.detach().double(), G_OFF, G_ON)
    if isinstance(m, BitSlicing):  # halves of a step may be rounded either way
        difference = (m.combine(g.detach().double(), dim=0) - m.combine(expected, dim=0)).abs() / k
        assert float(difference.max()) <= float(m.clipped(w.detach()).abs().max()) / (2**m.bits - 1) * 1.0001
    else:
        torch.testing.assert_close(g.detach().double(), expected, rtol=1e-5, atol=1e-12)
    torch.testing.assert_close(k_g.detach().double(), k, rtol=1e-5, atol=0)
    (found,) = torch.autograd.grad(g.sum() * 1e6, w)
    assert found.dtype == dtype
    assert bool(found.isfinite().all())


def test_the_largest_weight_may_be_negative() -> None:
    w = torch.tensor([[0.5, -2.0], [1.0, 0.0]], dtype=torch.float64, requires_grad=True)
    k_g = mapping("lowest").k_g(w, 1.0, 3.0)
    (found,) = torch.autograd.grad(k_g, w)
    assert k_g.item() == 1.0
    assert found.tolist() == [[0.0, 0.5], [0.0, 0.0]]


def test_first_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    double, single = torch.empty(2, 401, 50), torch.empty(401, 50)
    mapping("double").initialise(double, generator)
    mapping("lowest").initialise(single, generator)
    assert double[:, :-1].mean().item() == pytest.approx(0.5, abs=0.002)
    assert double[:, :-1].std().item() == pytest.approx(0.05, rel=0.03)
    assert single[:-1].std().item() == pytest.approx(0.05, rel=0.03)
    assert bool((double[:, -1] == 0.5).all())
    assert bool((single[-1] == 0).all())
    expected = torch.empty(401, 50).normal_(0.0, 400**-0.5, generator=torch.Generator().manual_seed(7))
    found = torch.empty(401, 50)
    mapping("offset").initialise(found, torch.Generator().manual_seed(7))
    assert torch.equal(found[:-1], expected[:-1])


def test_first_weights_without_a_bias_line() -> None:
    w = torch.empty(400, 50)
    mapping("average").initialise(w, torch.Generator().manual_seed(0), bias=False)
    assert w[-1].abs().min().item() > 0
    assert w.std().item() == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize("name", MAPPINGS)
def test_all_weights_zero_map_to_one_conductance(name: str) -> None:
    m = mapping(name)
    g, k_g = m.conductances(torch.zeros(m.weight_shape(2, 2)), G_OFF, G_ON)
    middle = (G_OFF + G_ON) / 2 if name in ("average", "offset") else G_OFF
    assert g.unique().tolist() == pytest.approx([middle])
    assert math.isfinite(float(k_g))


@pytest.mark.parametrize("text", TEXTS)
def test_text_round_trip(text: str) -> None:
    m = mapping(text)
    assert mapping(m.text) == m
    assert mapping(m) is m
    assert len(m.factors) == m.groups
    with pytest.raises(dataclasses.FrozenInstanceError):
        m.clip = None  # type: ignore[misc]


def test_options_of_a_text() -> None:
    assert mapping("bit-slicing:slices=2,bits=3") == BitSlicing(slices=2, bits_per_slice=3)
    assert mapping("bit-slicing", slices=2, bits_per_slice=3) == BitSlicing(slices=2, bits_per_slice=3)
    assert mapping("bit-slicing:slices=2", bits=3).factors == (1.0, -1.0, 8.0, -8.0)
    assert mapping("lowest", clip="3sigma").text == "lowest:clip=3sigma"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("triple", "no mapping 'triple'; expected one of double, lowest, average, offset, bit-slicing"),
        ("lowest:bits=2", "the mapping 'lowest' has no option 'bits'; expected clip"),
        ("bit-slicing:bits", "was given 'bits'; expected option=value"),
        ("bit-slicing:bits=two", "was given bits=two; expected a whole number"),
        ("bit-slicing:bits=0", "bits_per_slice = 0; expected a whole number from 1"),
        ("bit-slicing:slices=9,bits=3", "9 slices of 3 bits, 27 bits; expected at most 24 together"),
        ("lowest:clip=3", "cannot be clipped at '3'; expected a multiple of the standard deviation"),
        ("lowest:clip=101%", "cannot be clipped at '101%'"),
        ("lowest:clip=0sigma", "cannot be clipped at '0sigma'"),
    ],
)
def test_bad_texts(text: str, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        mapping(text)


def test_a_mapping_takes_no_options_twice() -> None:
    with pytest.raises(OptionError, match="'lowest' has its options already; leave out clip"):
        mapping(mapping("lowest"), clip="3sigma")
