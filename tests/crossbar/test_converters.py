"""Levels of converters: exactness, errors, statistics, gradients, calibration."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, jvp, vmap

from calib.crossbar.converters import Adc, Dac, quantise
from calib.errors import OptionError

JVP = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")  # torch's own, at the first jvp


def uniform(low: float, high: float, *shape: int, seed: int = 0) -> torch.Tensor:
    stream = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(shape, generator=stream, dtype=torch.float64)


@pytest.mark.parametrize(
    ("bits", "signed"), [*((b, False) for b in (1, 2, 3, 5, 8, 12)), *((b, True) for b in (2, 3, 5, 8, 12))]
)
def test_every_level_is_hit_and_there_are_no_others(bits: int, signed: bool) -> None:
    dac = Dac(bits, signed)
    found = dac.quantise(torch.linspace(-1.2, 1.2, 8 * 2**bits + 1, dtype=torch.float64)).unique()
    count = 2**bits - signed
    torch.testing.assert_close(found, torch.linspace(-1.0 if signed else 0.0, 1.0, count, dtype=torch.float64))
    assert dac.codes == (2 ** (bits - 1) - 1 if signed else 2**bits - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bits", [1, 3, 8, 16, 24])
def test_zero_and_the_ends_are_exact(bits: int, dtype: torch.dtype) -> None:
    scale = torch.rand(200, generator=torch.Generator().manual_seed(bits), dtype=dtype) * 1e-5
    for signed in (False, True)[: 1 + (bits > 1)]:
        adc = Adc(bits, differential=signed)
        assert torch.equal(adc.quantise(scale, scale), scale)
        assert torch.equal(adc.quantise(2 * scale, scale), scale)
        assert torch.equal(adc.quantise(-2 * scale, scale), -scale if signed else torch.zeros_like(scale))
        assert torch.equal(adc.quantise(torch.zeros_like(scale), scale), torch.zeros_like(scale))


@given(
    bits=st.integers(2, 14),
    signed=st.booleans(),
    exponent=st.floats(-9, 3),
    values=st.lists(st.floats(-1.5, 1.5), min_size=2, max_size=30),
)
@settings(max_examples=60, deadline=None)
def test_laws_of_quantisation(bits: int, signed: bool, exponent: float, values: list[float]) -> None:
    full_scale = 10.0**exponent
    adc = Adc(bits, full_scale, differential=signed)
    x = torch.tensor(values, dtype=torch.float64).sort().values * full_scale
    found = adc.quantise(x)
    step = full_scale / adc.codes
    inside = x.clamp(-full_scale if signed else 0.0, full_scale)
    assert float((found - inside).abs().max()) <= step / 2 * (1 + 1e-9)
    assert bool((found.diff() >= 0).all())  # monotone
    torch.testing.assert_close(found / step, (found / step).round(), rtol=0, atol=1e-7)
    torch.testing.assert_close(adc.quantise(found), found, rtol=1e-14, atol=0)  # nothing is left to round
    if signed:
        assert torch.equal(adc.quantise(-x), -found)


def test_many_bits_approach_the_identity() -> None:
    x = uniform(-1, 1, 1000)
    errors = [float((Dac(bits, signed=True).quantise(x) - x).abs().max()) for bits in (2, 4, 8, 16, 24)]
    assert all(b < a / 3 for a, b in itertools.pairwise(errors))
    assert errors[-1] < 1e-7
    assert torch.equal(Dac().quantise(3 * x), 3 * x)
    assert torch.equal(Adc(8, 1.0).ideal().quantise(3 * x), 3 * x)
    assert Adc(8, 1.0).ideal().is_ideal
    assert Dac(8).ideal().is_ideal
    assert not Dac(8).is_ideal


@pytest.mark.parametrize("bits", [4, 6, 8])
def test_the_error_is_uniform(bits: int) -> None:
    adc = Adc(bits, 2e-5)
    x = uniform(-2e-5, 2e-5, 200_000)
    error = (adc.quantise(x) - x) / (2e-5 / adc.codes)
    count = error.numel()
    assert abs(float(error.mean())) < 4 * math.sqrt(1 / 12 / count)
    assert float(error.square().mean()) == pytest.approx(1 / 12, abs=4 * math.sqrt(1 / 180 / count))
    distance = (error.sort().values + 0.5 - (torch.arange(count, dtype=torch.float64) + 0.5) / count).abs().max()
    assert float(distance) < 1.95 / math.sqrt(count)  # Kolmogorov, 0.1 %


def test_values_by_hand() -> None:
    assert Dac(1).quantise(torch.tensor([0.0, 0.4, 0.6, 1.0])).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert Dac(2, signed=True).quantise(torch.tensor([-0.7, -0.3, 0.3, 0.7])).tolist() == [-1.0, 0.0, 0.0, 1.0]
    adc = Adc(3, 6.0)  # steps of 2
    assert adc.quantise(torch.tensor([-7.0, -2.9, -0.9, 3.1, 5.2])).tolist() == [-6.0, -2.0, 0.0, 4.0, 6.0]
    single = Adc(2, 6.0, differential=False)
    assert single.quantise(torch.tensor([-7.0, 2.9, 3.1, 5.2])).tolist() == [0.0, 2.0, 4.0, 6.0]
    both = Adc(2, 6.0, differential=False, signed=True)
    assert both.quantise(torch.tensor([-7.0, 2.9, 3.1])).tolist() == [-6.0, 0.0, 6.0]


def test_ranges_of_tiles() -> None:
    scale = torch.tensor([1.0, 2.0, 0.0], dtype=torch.float64)[:, None, None]
    x = uniform(-3, 3, 3, 5, 4)
    found = Adc(5).quantise(x, scale)
    for index in range(2):
        assert torch.equal(found[index], Adc(5, float(scale[index])).quantise(x[index]))
    assert float(found[2].abs().max()) < 1e-300  # a tile that never had a current


@pytest.mark.parametrize("differential", [True, False])
def test_gradients_are_straight_through(differential: bool) -> None:
    x = torch.tensor([-1.5, -1.0, -0.3, 0.0, 0.3, 1.0, 1.5], requires_grad=True)
    (found,) = torch.autograd.grad(Adc(4, 1.0, differential).quantise(x).sum(), x)
    assert found.tolist() == ([0, 1, 1, 1, 1, 1, 0] if differential else [0, 0, 0, 1, 1, 1, 0])


def test_gradient_of_the_range() -> None:
    x = uniform(-2, 2, 3, 50)
    scale = torch.tensor([[0.7], [1.0], [3.0]], dtype=torch.float64, requires_grad=True)
    upstream = uniform(0, 1, 3, 50, seed=1)
    found = Adc(4).quantise(x, scale)
    (by_range,) = torch.autograd.grad((found * upstream).sum(), scale)
    s = scale.detach()
    inside = x.abs() <= s
    expected = torch.where(inside, (found.detach() - x) / s, x.sign())
    torch.testing.assert_close(by_range, (expected * upstream).sum(1, keepdim=True))
    # Where codes do not change and all is clipped or exact, it is the derivative itself.
    edge = torch.tensor([0.5], dtype=torch.float64, requires_grad=True)
    (by_range,) = torch.autograd.grad(Adc(4).quantise(torch.tensor([2.0, -2.0, 9.0]).double(), edge).sum(), edge)
    assert by_range.tolist() == [1.0]


def test_a_range_can_be_trained() -> None:
    x = torch.randn(4000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    adc, scale = Adc(3), torch.tensor(8.0, dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.Adam([scale], lr=0.05)
    for _ in range(300):
        optimiser.zero_grad()
        (adc.quantise(x, scale) - x).square().mean().backward()
        optimiser.step()
    trials = torch.linspace(0.5, 8.0, 300, dtype=torch.float64)
    errors = torch.stack([(adc.quantise(x, s) - x).square().mean() for s in trials])
    reached = float((adc.quantise(x, scale.detach()) - x).square().mean())
    assert reached < 1.1 * float(errors.min())


@JVP
@pytest.mark.parametrize("differential", [True, False])
def test_transforms_of_torch(differential: bool) -> None:
    adc = Adc(4, differential=differential)
    x, scale = uniform(-2, 2, 5, 4, 3), uniform(0.5, 1.5, 5, 1, 1, seed=1)

    def loss(x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        return adc.quantise(x, scale).sin().sum()

    by_x, by_range = vmap(grad(loss, argnums=(0, 1)))(x, scale)
    for index in range(5):
        leaves = x[index].clone().requires_grad_(True), scale[index].clone().requires_grad_(True)
        expected = torch.autograd.grad(loss(*leaves), leaves)
        torch.testing.assert_close(by_x[index], expected[0])
        torch.testing.assert_close(by_range[index], expected[1])
    shared = vmap(loss, (0, None))(x, scale[0])
    torch.testing.assert_close(shared, torch.stack([loss(each, scale[0]) for each in x]))
    shared = vmap(loss, (None, 0))(x[0], scale)
    torch.testing.assert_close(shared, torch.stack([loss(x[0], each) for each in scale]))
    _, slope = jvp(loss, (x, scale), (x, scale))
    torch.testing.assert_close(slope, (by_x * x).sum() + (by_range * scale).sum())
    _, slope = jvp(lambda x: loss(x, scale), (x,), (x,))
    torch.testing.assert_close(slope, (by_x * x).sum())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_any_dtype(dtype: torch.dtype) -> None:
    x = uniform(-1.2, 1.2, 500).to(dtype).requires_grad_(True)
    found = Dac(6, signed=True).quantise(x)
    assert found.dtype == dtype
    expected = Dac(6, signed=True).quantise(x.detach().double())
    torch.testing.assert_close(found.detach().double(), expected, rtol=torch.finfo(dtype).eps, atol=1.01 / 31)
    near = (found.detach().double() - expected).abs() > 2 * torch.finfo(dtype).eps
    assert float(near.double().mean()) < 0.02  # halves of a step in float32 arithmetic
    (by_x,) = torch.autograd.grad(found.sum(), x)
    assert torch.equal(by_x, (x.detach().abs() <= 1).to(dtype))


def test_what_is_not_a_number_stays_so() -> None:
    assert math.isnan(Adc(8, 1.0).quantise(torch.tensor([math.nan])).item())


@given(count=st.integers(1, 200), share=st.floats(0.01, 1.0), seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_a_calibrated_range_holds_the_stated_share(count: int, share: float, seed: int) -> None:
    samples = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = Adc(8).calibrate(samples, share)
    held = float((samples.abs() <= found).double().mean())
    assert held >= share - 1e-8
    assert held - 1 / count < share + 1e-8
    assert bool((samples.abs() == found).any())


def test_calibration_of_tiles() -> None:
    samples = uniform(-3, 2, 4, 50, 6)
    each = Adc(8).calibrate(samples, keep=1)
    assert torch.equal(each, samples.abs().amax((1, 2)))
    assert torch.equal(Adc(8).calibrate(samples), samples.abs().max())
    assert torch.equal(Adc(8, differential=False).calibrate(samples), samples.max())
    assert Adc(8, differential=False).calibrate(-samples.abs()).item() == 0.0
    assert torch.equal(Adc(8, quantile=0.5).calibrate(samples), Adc(8).calibrate(samples, 0.5))
    assert not Adc(8).calibrate(samples.requires_grad_(True)).requires_grad
    found = Adc(8).quantise(samples.detach(), each[:, None, None])
    assert torch.equal(found.abs().amax((1, 2)), each)


def test_range_of_an_array() -> None:
    assert Adc(8, "array").range_of(128, 2e-6, 0.5) == pytest.approx(1.28e-4)
    assert Adc(8, 1e-5).range_of(128, 2e-6, 0.5) == 1e-5
    assert Adc(8).range_of(128, 2e-6, 0.5) is None
    assert [Adc(8).calibrated, Adc(8, "array").calibrated, Adc(8, 1.0).calibrated, Adc().calibrated] == [
        True, False, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dac(0), "the DAC has 0 bits; expected a whole number from 1 to 24"),
        (lambda: Dac(1, signed=True), "the DAC of signed values has 1 bits; expected a whole number from 2"),
        (lambda: Adc(25, 1.0), "the ADC of signed values has 25 bits"),
        (lambda: Adc(8.5, 1.0), "has 8.5 bits"),
        (lambda: Adc(True), "has True bits"),
        (lambda: Adc(8, -1.0), "the ADC's range is -1.0 A; expected more than 0"),
        (lambda: Adc(8, math.nan), "the ADC's range is nan A"),
        (lambda: Adc(8, "largest"), "the ADC's range is 'largest'; expected a current in A, 'array'"),
        (lambda: Adc(8, quantile=0.0), "a share of 0.0 of the currents; expected 0 to 1"),
        (lambda: Adc(8, signed=False), "a differential ADC converts currents of both signs"),
        (lambda: Adc(8).quantise(torch.ones(2)), "is to be calibrated, but is not known yet"),
        (lambda: Adc(8, "array").quantise(torch.ones(2)), "is to be taken from the array, but is not known yet"),
        (lambda: Adc(8).calibrate(torch.ones(0)), "no currents to calibrate the ADC with"),
        (lambda: Adc(8).calibrate(torch.tensor([1.0, math.inf])), "are not finite; check the inputs"),
        (lambda: Dac().codes, "without limit of bits has no codes"),
    ],
)
def test_bad_values(make, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        make()


def test_the_function_takes_any_number_of_codes() -> None:
    found = quantise(torch.linspace(0, 1, 100, dtype=torch.float64), 1.0, 5, signed=False).unique()
    torch.testing.assert_close(found, torch.arange(6, dtype=torch.float64) / 5)
