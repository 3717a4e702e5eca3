"""Resistances beyond the noise floor: the spread that was there before they were cut off."""

import numpy as np
import pytest

from calib.fitting.censored import censored_components, enough
from calib.fitting.variance_components import variance_components


def cut(
    devices: int, cycles: int, limit: float, generator: np.random.Generator, d2d: float = 0.8, c2c: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return ln R about 10 cut at `limit`, devices, and which are cut."""
    device = np.repeat(np.arange(devices), cycles)
    values = 10 + d2d * generator.standard_normal(devices)[device] + c2c * generator.standard_normal(len(device))
    return np.minimum(values, limit), device, values > limit


def test_the_truth_is_found_where_leaving_out_is_wrong() -> None:
    """20 sets of 25 devices, a third of the values cut: means within 4 standard errors of the mean over sets."""
    generator = np.random.default_rng(3)
    found, naive, inside = [], [], 0
    for _ in range(20):
        values, device, censored = cut(25, 4, 10.5, generator)
        part = censored_components(values, device, censored)
        found.append((part.mean, part.d2d, part.c2c, part.total))
        naive.append(variance_components(values[~censored], device[~censored]).total)
        inside += part.total_bound[0] < np.hypot(0.8, 0.5) < part.total_bound[1]
    found = np.array(found)
    error = found.std(0) / np.sqrt(20)
    assert (np.abs(found.mean(0) - [10, 0.8, 0.5, np.hypot(0.8, 0.5)]) < 4 * error).all()
    assert np.mean(naive) < 0.8 * np.hypot(0.8, 0.5)
    assert inside >= 16  # 19 expected, 3 standard errors of 1


@pytest.mark.parametrize(("devices", "cycles"), [(60, 1), (1, 60)])
def test_one_level(devices: int, cycles: int) -> None:
    generator = np.random.default_rng(4)
    values, device, censored = cut(devices, cycles, 10.3, generator, d2d=0.0, c2c=0.5)
    part = censored_components(values, device, censored)
    assert part.total_bound[0] < 0.5 < part.total_bound[1]
    assert part.mean == pytest.approx(10, abs=4 * part.mean_stderr)
    assert np.isnan(part.d2d)
    assert np.isnan(part.c2c) == (devices > 1)


def test_without_cut_values_it_is_the_random_effects_model() -> None:
    """Maximum likelihood, the mean's degree of freedom given back: equal to 2 % at 20 devices."""
    values, device, _ = cut(20, 5, 99.0, np.random.default_rng(1))
    part = censored_components(values, device, np.zeros(100, dtype=bool))
    expected = variance_components(values, device)
    assert part.d2d == pytest.approx(expected.d2d, rel=0.02)
    assert part.c2c == pytest.approx(expected.c2c, rel=1e-3)
    assert part.mean == pytest.approx(expected.mean, abs=1e-3)


def test_too_many_cut_values_are_not_enough() -> None:
    assert enough(np.arange(40) < 20)
    assert not enough(np.arange(40) < 21)
    assert not enough(np.arange(12) < 3)
