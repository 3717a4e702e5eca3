"""Attention with its projections on crossbars: torch's results on ideal devices, masks, encoder and decoder layers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calib import nn as memristive
from calib.errors import OptionError
from tests.simple_devices import everything, range_only

IDEAL = memristive.Devices.from_model(range_only()).ideal()
Ours = memristive.MemristiveMultiheadAttention
CLOSE = {"rtol": 1e-6, "atol": 1e-7}


def numbers(*shape: int, seed: int = 1) -> torch.Tensor:
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def known(layer: nn.Module, size: float = 0.2) -> nn.Module:
    layer.double()
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data = size * numbers(*parameter.shape, seed=10 + seed)
    return layer


@st.composite
def attentions(draw):
    heads, batch = draw(st.sampled_from([1, 2, 3])), draw(st.sampled_from([None, 1, 2]))
    features = heads * draw(st.integers(1, 3))
    options = {
        "bias": draw(st.booleans()), "add_bias_kv": draw(st.booleans()), "add_zero_attn": draw(st.booleans()),
        "batch_first": draw(st.booleans()), "kdim": draw(st.sampled_from([None, 5])),
        "vdim": draw(st.sampled_from([None, 4])),
    }  # fmt: skip
    target, source = draw(st.integers(1, 4)), draw(st.integers(2, 4))
    calls = {
        "need_weights": draw(st.booleans()), "average_attn_weights": draw(st.booleans()),
        "padding": draw(st.sampled_from([None, "bool", "float"])),
        "mask": draw(st.sampled_from([None, "bool", "float", "bool of each head"])),
    }  # fmt: skip
    return heads, features, options, batch, target, source, calls


def mask_of(kind: str, *shape: int) -> torch.Tensor:
    """Return a mask that leaves the first source to be seen."""
    if kind == "float":
        return numbers(*shape, seed=3)
    hidden = numbers(*shape, seed=4) > 0.3
    hidden[..., 0] = False
    return hidden


@settings(max_examples=60)
@given(drawn=attentions())
def test_on_ideal_devices_it_is_that_of_torch(drawn) -> None:
    heads, features, options, batch, target, source, calls = drawn
    theirs = known(nn.MultiheadAttention(features, heads, **options))
    ours = Ours.from_torch(theirs, IDEAL)

    def sequence(steps: int, size: int, seed: int) -> torch.Tensor:
        if batch is None:
            return numbers(steps, size, seed=seed)
        shape = (batch, steps, size) if options["batch_first"] else (steps, batch, size)
        return numbers(*shape, seed=seed)

    inputs = (
        sequence(target, features, 5), sequence(source, options["kdim"] or features, 6),
        sequence(source, options["vdim"] or features, 7),
    )  # fmt: skip
    given_masks = {}
    if calls["padding"]:
        given_masks["key_padding_mask"] = mask_of(calls["padding"], *([] if batch is None else [batch]), source)
    if calls["mask"]:
        lead = [heads * (batch or 1)] if calls["mask"].endswith("head") else []
        given_masks["attn_mask"] = mask_of(calls["mask"], *lead, target, source)
    if len({mask.dtype for mask in given_masks.values()}) > 1:  # torch wants masks of one dtype
        del given_masks["key_padding_mask"]
    named = {name: calls[name] for name in ("need_weights", "average_attn_weights")}
    expected, found = theirs(*inputs, **given_masks, **named), ours(*inputs, **given_masks, **named)
    torch.testing.assert_close(found[0], expected[0], **CLOSE)
    assert (found[1] is None) == (expected[1] is None)
    if found[1] is not None:
        torch.testing.assert_close(found[1], expected[1], **CLOSE)


def test_gradients_are_those_of_torch() -> None:
    theirs = known(nn.MultiheadAttention(6, 2))
    ours = Ours.from_torch(theirs, IDEAL, mapping="lowest")
    x, y = (numbers(4, 2, 6).requires_grad_() for _ in range(2))
    ours(x, x, x)[0].square().sum().backward()
    theirs(y, y, y)[0].square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, **CLOSE)
    parts = (ours.q_projection, ours.k_projection, ours.v_projection)
    by_weight = torch.cat([one.weight.grad[:-1].T for one in parts])
    torch.testing.assert_close(by_weight, theirs.in_proj_weight.grad, **CLOSE)
    torch.testing.assert_close(ours.out_projection.weight.grad[-1], theirs.out_proj.bias.grad, **CLOSE)


def test_a_causal_mask_and_its_hint() -> None:
    theirs = known(nn.MultiheadAttention(4, 2))
    ours = Ours.from_torch(theirs, IDEAL)
    x = numbers(5, 2, 4)
    mask = nn.Transformer.generate_square_subsequent_mask(5, dtype=torch.float64)
    for need_weights in (True, False):
        named = {"attn_mask": mask, "is_causal": True, "need_weights": need_weights}
        torch.testing.assert_close(ours(x, x, x, **named)[0], theirs(x, x, x, **named)[0], **CLOSE)
    with pytest.raises(OptionError, match="give the mask as well"):
        ours(x, x, x, is_causal=True)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("gradients", [True, False], ids=["slow path", "fused path"])
@pytest.mark.parametrize("exclude", [(), "*self_attn"], ids=["all", "feedforward alone"])
def test_a_converted_encoder_is_that_of_torch(exclude, gradients: bool) -> None:
    """torch's encoder reads its layers' weights in evaluation without gradients; converted ones are called."""
    layer = nn.TransformerEncoderLayer(6, 2, 8, batch_first=True)
    network = known(nn.TransformerEncoder(layer, 2, enable_nested_tensor=True), 0.3).eval()
    x, padded = numbers(2, 4, 6), torch.tensor([[False] * 4, [False, False, False, True]])
    batches = [{"src": x}, {"src": x, "src_key_padding_mask": padded}]
    converted = memristive.convert(network, IDEAL, exclude=exclude, calibrate=batches)
    with torch.set_grad_enabled(gradients):
        torch.testing.assert_close(converted(x), network(x), **CLOSE)
        found = converted(x, src_key_padding_mask=padded)
        expected = network(x, src_key_padding_mask=padded)
    torch.testing.assert_close(found[~padded], expected[~padded], **CLOSE)


def test_a_converted_decoder_is_that_of_torch() -> None:
    layer = nn.TransformerDecoderLayer(6, 2, 8, norm_first=True)
    network = known(nn.TransformerDecoder(layer, 2), 0.3).eval()
    x, memory = numbers(3, 2, 6), numbers(5, 2, 6, seed=2)
    converted = memristive.convert(network, IDEAL, calibrate=(x, memory))
    torch.testing.assert_close(converted(x, memory), network(x, memory), **CLOSE)
    rows = memristive.summary(converted)
    assert sum(row["place"] == "memristive" for row in rows) == 2 * (2 * 4 + 2)


def test_devices_differ_between_passes() -> None:
    ours = Ours(4, 2, memristive.Devices.from_model(everything()), dtype=torch.float64)
    x = 0.5 * numbers(3, 2, 4)
    memristive.calibrate(ours, (x, x, x))
    assert not torch.allclose(ours(x, x, x)[0], ours(x, x, x)[0])
    with memristive.same_devices(ours):
        torch.testing.assert_close(ours(x, x, x)[0], ours(x, x, x)[0])


def test_what_does_not_fit_is_refused() -> None:
    ours = Ours(6, 2, IDEAL, kdim=5, dtype=torch.float64)
    q, k, v = numbers(3, 2, 6), numbers(4, 2, 5), numbers(4, 2, 6)
    with pytest.raises(OptionError, match="7 features cannot be divided among 2 heads"):
        Ours(7, 2, IDEAL)
    with pytest.raises(OptionError, match=r"key is \(4, 2, 6\), expected 2 or 3 dimensions as query, the last of 5"):
        ours(q, v, v)
    with pytest.raises(OptionError, match=r"key is \(4, 2, 5\) and value \(3, 2, 6\), expected equal steps"):
        ours(q, k, v[:3])
    with pytest.raises(OptionError, match=r"attn_mask is \(4, 3\); expected \(3, 4\) or \(4, 3, 4\)"):
        ours(q, k, v, attn_mask=torch.zeros(4, 3))
    with pytest.raises(OptionError, match=r"key_padding_mask is \(4, 2\); expected \(2, 4\)"):
        ours(q, k, v, key_padding_mask=torch.zeros(4, 2))
    with pytest.raises(OptionError, match="attn_mask is of torch.int64; expected a Boolean or floating-point mask"):
        ours(q, k, v, attn_mask=torch.zeros(3, 4, dtype=torch.int64))
