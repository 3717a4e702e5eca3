"""Convolutions on crossbars: torch's results on ideal devices, gradients, patches in parts, one crossbar a group."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from calib import nn as memristive
from calib.crossbar import convolution
from calib.errors import OptionError
from tests.nonidealities.nodes import read_noise_node
from tests.simple_devices import device, everything, range_only

TORCH = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
OURS = {1: memristive.MemristiveConv1d, 2: memristive.MemristiveConv2d, 3: memristive.MemristiveConv3d}
IDEAL = memristive.Devices.from_model(range_only()).ideal()


def numbers(*shape: int, seed: int = 1) -> torch.Tensor:
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) - 1


def pair(dims: int, *sizes, devices=IDEAL, mapping: str = "double", **options):
    """Return torch's layer and the memristive one of the same weights."""
    theirs = TORCH[dims](*sizes, **options).double()
    for parameter in theirs.parameters():
        parameter.data = numbers(*parameter.shape, seed=2)
    return theirs, OURS[dims].from_torch(theirs, devices, mapping=mapping)


@st.composite
def convolutions(draw):
    """Return sizes and options of a convolution, and the shape of an input that it takes."""
    dims = draw(st.integers(1, 3))
    small = st.integers(1, 3)

    def each(strategy):
        return tuple(draw(strategy) for _ in range(dims))

    groups = draw(st.sampled_from([1, 1, 2, 3]))
    kernel, dilation = each(small), each(st.integers(1, 2))
    padding = draw(st.sampled_from(["same", "valid", "numbers"]))
    stride = (1,) * dims if padding == "same" else each(small)
    if padding == "numbers":
        padding = each(st.integers(0, 2))
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    space = tuple(r + draw(st.integers(2, 5)) for r in reach)
    options = {
        "stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": draw(st.booleans()),
        "padding_mode": draw(st.sampled_from(convolution.PADDING_MODES)),
    }  # fmt: skip
    sizes = (groups * draw(small), groups * draw(small), kernel)
    batch = draw(st.sampled_from([(), (1,), (3,)]))
    return dims, sizes, options, (*batch, sizes[0], *space)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@settings(max_examples=60)
@given(drawn=convolutions(), mapping=st.sampled_from(["double", "lowest", "average", "offset"]))
def test_on_ideal_devices_it_is_that_of_torch(drawn, mapping: str) -> None:
    dims, sizes, options, shape = drawn
    theirs, ours = pair(dims, *sizes, mapping=mapping, **options)
    expected = theirs(numbers(*shape))
    found = ours(numbers(*shape))
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert found.is_contiguous()


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_gradients_are_those_of_torch(dims: int) -> None:
    theirs, ours = pair(dims, 4, 6, 2, stride=2, padding=1, groups=2, mapping="lowest")
    x, y = (numbers(2, 4, *(5,) * dims).requires_grad_() for _ in range(2))
    ours(x).square().sum().backward()
    theirs(y).square().sum().backward()
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-6, atol=1e-8)
    weight = torch.cat([one.weight.grad[:-1].T for one in ours.crossbars]).reshape(theirs.weight.shape)
    bias = torch.cat([one.weight.grad[-1] for one in ours.crossbars])
    torch.testing.assert_close(weight, theirs.weight.grad, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(bias, theirs.bias.grad, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("most", [1, 40, 300, 1000])
def test_patches_in_parts_meet_the_same_devices(most: int, monkeypatch) -> None:
    devices = memristive.Devices.from_model(everything())
    _, ours = pair(2, 2, 3, 3, devices=devices, mapping="double", padding=1)
    x = numbers(4, 2, 5, 6)

    def passed() -> tuple[torch.Tensor, torch.Tensor]:
        for one in ours.crossbars:
            one.generator = torch.Generator().manual_seed(3)
        y = ours(x)
        return y.detach(), torch.autograd.grad(y.square().sum(), ours.crossbars[0].weight)[0]

    whole, by_weight = passed()
    monkeypatch.setattr(convolution, "PATCH_VALUES", most)
    parts, by_weight_in_parts = passed()
    torch.testing.assert_close(parts, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(by_weight_in_parts, by_weight, rtol=1e-9, atol=1e-12)


def test_noise_of_readings_does_not_depend_on_parts(monkeypatch) -> None:
    """A chip whose every reading has noise gives the same for all patches at once, in parts, and for fewer images."""
    devices = memristive.Devices.from_model(device(read_noise=read_noise_node()))
    _, ours = pair(2, 2, 3, 3, devices=devices, padding=1)
    x = numbers(4, 2, 5, 6)
    with memristive.held_chips(ours, 0, range(2)) as chips:
        whole = chips(x)
        assert not torch.allclose(whole[:, :2], chips(x[:2], first_image=2))
        torch.testing.assert_close(chips(x[2:], first_image=2), whole[:, 2:], rtol=1e-9, atol=1e-12)
        for most in (1, 40, 700, 1200):
            monkeypatch.setattr(convolution, "PATCH_VALUES", most)
            torch.testing.assert_close(chips(x), whole, rtol=1e-9, atol=1e-12)


def test_parts_bound_what_is_computed_at_once(monkeypatch) -> None:
    _, ours = pair(2, 2, 3, 3, padding=1)
    sizes: list[int] = []
    ours.crossbars[0].register_forward_pre_hook(lambda layer, inputs: sizes.append(inputs[0].numel()))
    monkeypatch.setattr(convolution, "PATCH_VALUES", 500)
    ours(numbers(7, 2, 5, 6))
    assert max(sizes) <= 500
    assert sum(sizes) == 7 * 5 * 6 * 18
    assert len(sizes) > 7


@pytest.mark.parametrize("bias", ["line", "digital", None])
@pytest.mark.parametrize("mapping", ["double", "offset"])
@pytest.mark.parametrize(("dims", "groups"), [(1, 1), (2, 1), (2, 2), (3, 1)])
def test_a_convolution_of_basis_functions_is_the_product_of_patches(
    dims: int, groups: int, mapping: str, bias: str | None
) -> None:
    """Outputs, gradients and power of drawn chips, with patches that are cut out and without."""
    devices = memristive.Devices.from_model(everything())
    kind = (memristive.MemristiveConv1d, memristive.MemristiveConv2d, memristive.MemristiveConv3d)[dims - 1]
    options = {"stride": 2, "padding": 1, "dilation": 1, "groups": groups, "bias": bias, "mapping": mapping}
    one = kind(2, 4, 3, devices, dtype=torch.float64, **options)
    x = (numbers(3, 2, *(5, 6, 4)[:dims]) % 1).requires_grad_(True)
    found = []
    for _ in range(2):
        for index, crossbar in enumerate(one.crossbars):
            crossbar.generator = torch.Generator().manual_seed(index)
        y = one(x)
        gradients = torch.autograd.grad(y.square().sum(), [x, *one.parameters()])
        chips = memristive.ChipStack(one, 3, range(2))
        chips.measures = True
        found.append([y, *gradients, chips(x.detach()), chips.power])
        for crossbar in one.crossbars:
            crossbar.register_forward_hook(lambda *given: None)  # a watched crossbar is given patches
    for one_way, other in zip(*found, strict=True):
        torch.testing.assert_close(one_way, other, rtol=1e-8, atol=1e-9)


def test_devices_of_groups_and_passes_differ() -> None:
    devices = memristive.Devices.from_model(everything())
    theirs, _ = pair(1, 4, 4, 1, groups=2)
    theirs.weight.data[2:] = theirs.weight.data[:2]
    theirs.bias.data[2:] = theirs.bias.data[:2]
    ours = memristive.MemristiveConv1d.from_torch(theirs, devices)
    x = numbers(1, 2, 6).repeat(1, 2, 1)
    first, second = ours(x).chunk(2, dim=1)
    assert not torch.allclose(first, second)
    assert not torch.allclose(ours(x), ours(x))
    with memristive.same_devices(ours):
        torch.testing.assert_close(ours(x), ours(x))


def test_weights_come_back() -> None:
    theirs, ours = pair(2, 4, 6, (2, 3), groups=2)
    weight, bias = ours.signed_weights()
    torch.testing.assert_close(weight, theirs.weight)
    torch.testing.assert_close(bias, theirs.bias)
    assert "kernel_size=(2, 3), stride=(1, 1), groups=2" in repr(ours)


def test_first_weights_follow_the_generator() -> None:
    one, same = (
        memristive.MemristiveConv1d(3, 4, 2, IDEAL, first=torch.Generator().manual_seed(7), bias=None) for _ in range(2)
    )
    assert torch.equal(one.crossbars[0].weight, same.crossbars[0].weight)
    assert one.signed_weights()[1] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": 3}, "4 to 6 channels cannot have 3 groups"),
        ({"groups": 0}, "cannot have 0 groups"),
        ({"padding": "full"}, "no padding 'full'; expected 'same', 'valid'"),
        ({"padding": "same", "stride": 2}, "'same' needs a stride of 1"),
        ({"padding_mode": "mirror"}, "no padding mode 'mirror'; expected one of zeros"),
        ({"stride": 0}, "stride is 0; expected a number of at least 1, or 2"),
        ({"dilation": (1, 2, 3)}, r"dilation is \(1, 2, 3\)"),
        ({"bias": "both"}, "bias is 'both'"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        memristive.MemristiveConv2d(4, 6, 3, IDEAL, **options)


def test_inputs_that_do_not_fit_are_refused() -> None:
    _, ours = pair(2, 2, 3, 3)
    with pytest.raises(OptionError, match=r"2 channels in 2 dimensions was given \(1, 3, 5, 5\)"):
        ours(numbers(1, 3, 5, 5))
    with pytest.raises(OptionError, match=r"was given \(5, 5\)"):
        ours(numbers(5, 5))
    with pytest.raises(OptionError, match="reaches over 3 positions of dimension 1, but its input has 2"):
        ours(numbers(1, 2, 5, 2))
