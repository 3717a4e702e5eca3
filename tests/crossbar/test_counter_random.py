"""Deviates of counters: distribution, independence of neighbours, and that they depend on their place alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from calib.crossbar.counter_random import normal, random_bits, uniform

KEY = torch.tensor(20240501)
IMAGES, LINES = torch.arange(1000)[:, None], torch.arange(200)
N = 200_000
INT64 = st.integers(-(2**63), 2**63 - 1)


def test_the_bits_are_those_of_splitmix64() -> None:
    """The function again in Python's integers; and the published first outputs of SplitMix64 of seed 1234567."""

    def mix(x: int) -> int:
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    gamma = 0x9E3779B97F4A7C15
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert [mix((1234567 + (n + 1) * gamma) % 2**64) for n in range(3)] == published
    for key, image, line, stream in ((5, 7, 11, 0), (-3, 123456789, 2, 4)):
        expected = mix((key + gamma) % 2**64)
        for counter in (stream, image, line):
            expected = mix((expected + (counter + 1) * gamma) % 2**64)
        found = int(random_bits(torch.tensor(key), torch.tensor(image), torch.tensor(line), stream))
        assert found % 2**64 == expected


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_deviates(dtype: torch.dtype) -> None:
    u = uniform(KEY, IMAGES, LINES, dtype=dtype).double().numpy().ravel()
    assert u.min() > 0
    assert u.max() < 1
    assert stats.kstest(u, "uniform").pvalue > 1e-3
    assert u.mean() == pytest.approx(0.5, abs=4 / np.sqrt(12 * N))
    assert u.var() == pytest.approx(1 / 12, rel=4 * np.sqrt(0.8 / N))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_normal_deviates(dtype: torch.dtype) -> None:
    """Kolmogorov-Smirnov, and the first four moments within 4 standard errors."""
    z = normal(KEY, IMAGES, LINES, dtype=dtype).double().numpy().ravel()
    assert stats.kstest(z, "norm").pvalue > 1e-3
    for power, (expected, variance) in {1: (0, 1), 2: (1, 2), 3: (0, 15), 4: (3, 96)}.items():
        assert np.mean(z**power) == pytest.approx(expected, abs=4 * np.sqrt(variance / N))
    far = int((np.abs(z) > 3.5).sum())
    assert stats.binomtest(far, N, 2 * stats.norm.sf(3.5)).pvalue > 1e-4


def test_single_precision_gives_the_same_deviates() -> None:
    single = normal(KEY, IMAGES, LINES, dtype=torch.float32).double()
    torch.testing.assert_close(single, normal(KEY, IMAGES, LINES), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("stream", [0, 1])
def test_neighbours_are_not_correlated(stream: int) -> None:
    """Between lines, images, keys and streams, of deviates and of their squares; 5 standard errors."""
    z = normal(KEY, IMAGES, LINES, stream).numpy()
    others = {
        "next line": (z[:, 1:], z[:, :-1]),
        "next image": (z[1:], z[:-1]),
        "image and line exchanged": (z[:200], z[:200].T),
        "next key": (z, normal(KEY + 1, IMAGES, LINES, stream).numpy()),
        "key of another sign": (z, normal(-KEY, IMAGES, LINES, stream).numpy()),
        "next stream": (z, normal(KEY, IMAGES, LINES, stream + 1).numpy()),
        "far images": (z, normal(KEY, IMAGES + 2**40, LINES, stream).numpy()),
    }
    for what, (a, b) in others.items():
        if what == "image and line exchanged":
            upper = np.triu_indices(200, 1)
            a, b = a[upper], b[upper]
        limit = 5 / np.sqrt(a.size)
        assert abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < limit, what
        assert abs(np.corrcoef(a.ravel() ** 2, b.ravel() ** 2)[0, 1]) < limit, what


def test_every_bit_is_even() -> None:
    bits = random_bits(KEY, IMAGES, LINES).numpy().ravel()
    ones = np.array([int((bits >> k & 1).sum()) for k in range(64)])
    assert np.abs(ones - N / 2).max() < 5 * np.sqrt(N) / 2


def test_one_counter_more_changes_half_of_the_bits() -> None:
    """Avalanche of each argument: on average half of the 64 bits, with a binomial's spread."""
    bits = random_bits(KEY, IMAGES, LINES).numpy()
    for other in (random_bits(KEY + 1, IMAGES, LINES), random_bits(KEY, IMAGES + 1, LINES),
                  random_bits(KEY, IMAGES, LINES + 1), random_bits(KEY, IMAGES, LINES, 1)):  # fmt: skip
        changed = np.bitwise_count((bits ^ other.numpy()).view(np.uint64)).astype(float)
        assert changed.mean() == pytest.approx(32, abs=5 * 4 / np.sqrt(N))
        assert changed.var() == pytest.approx(16, rel=0.02)


@given(key=INT64, image=INT64, line=INT64, stream=st.integers(0, 100))
def test_any_counters_give_finite_deviates(key: int, image: int, line: int, stream: int) -> None:
    place = (torch.tensor(key), torch.tensor(image), torch.tensor(line), stream)
    assert 0 < float(uniform(*place)) < 1
    assert abs(float(normal(*place))) < 6.8


def test_a_deviate_depends_on_its_place_alone() -> None:
    whole = normal(KEY, IMAGES, LINES)
    chosen = torch.tensor([7, 3, 500])
    assert torch.equal(normal(KEY, chosen[:, None], LINES[[5, 2]]), whole[chosen][:, [5, 2]])
    keys = torch.tensor([1, 20240501, -4])
    mapped = torch.func.vmap(lambda key: normal(key, IMAGES, LINES))(keys)
    assert torch.equal(mapped[1], whole)
