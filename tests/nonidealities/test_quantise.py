"""Discrete levels: the nearest one, in which measure, and the gradient."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from calib.errors import OptionError
from calib.nonidealities.quantise import Quantise
from tests.nonidealities.nodes import LEVELS, levels_node
from tests.simple_devices import G_OFF, G_ON, range_only


def quantised(effect: Quantise, g: torch.Tensor) -> torch.Tensor:
    return effect.conductance(g, torch.Generator())


@given(
    levels=st.lists(st.floats(1e-7, 1e-4), min_size=1, max_size=9, unique=True),
    values=st.lists(st.floats(1e-8, 1e-3), min_size=1, max_size=30),
    nearest=st.sampled_from(["G", "ln R"]),
)
def test_the_nearest_level_is_taken(levels: list[float], values: list[float], nearest: str) -> None:
    g = np.array(values)
    found = quantised(Quantise(levels, nearest), torch.as_tensor(g)).numpy()
    measure = (lambda x: x) if nearest == "G" else np.log
    distance = np.abs(measure(g)[:, None] - measure(np.array(levels)))
    assert set(found.tolist()) <= set(levels)
    assert (np.abs(measure(g) - measure(found)) <= distance.min(axis=1) * (1 + 1e-9) + 1e-15).all()


def test_the_measure_decides_between_two_levels() -> None:
    g = torch.tensor([4e-6], dtype=torch.float64)  # arithmetic mean 5 uS, geometric mean 3 uS
    assert quantised(Quantise([1e-6, 9e-6]), g).tolist() == [1e-6]
    assert quantised(Quantise([1e-6, 9e-6], "ln R"), g).tolist() == [9e-6]


@pytest.mark.parametrize("spacing", ["G", "ln R"])
def test_even_levels(spacing: str) -> None:
    effect = Quantise.even(5, 1e-6, 16e-6, spacing)
    expected = [1e-6, 4.75e-6, 8.5e-6, 12.25e-6, 16e-6] if spacing == "G" else [1e-6, 2e-6, 4e-6, 8e-6, 16e-6]
    assert effect.levels == pytest.approx(expected, rel=1e-12)
    assert effect.levels[0] == 1e-6
    assert effect.levels[-1] == 16e-6
    ends = torch.tensor([1e-6, 16e-6], dtype=torch.float64)
    assert torch.equal(quantised(effect, ends), ends)


def test_an_even_quantiser_errs_uniformly() -> None:
    """The error of 9 levels over a range is uniform with variance step^2 / 12; 200,000 draws, 4 standard errors."""
    g = G_OFF + (G_ON - G_OFF) * torch.rand(200_000, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    step = (G_ON - G_OFF) / 8
    error = (quantised(Quantise.even(9, G_OFF, G_ON), g) - g) / step
    assert float(error.abs().max()) <= 0.5 + 1e-9
    assert float(error.square().mean()) == pytest.approx(1 / 12, rel=4 * np.sqrt(0.8 / 200_000))


def test_the_gradient_passes_straight_through_and_under_vmap() -> None:
    effect = Quantise.even(4, G_OFF, G_ON)
    g = torch.linspace(G_OFF / 2, 2 * G_ON, 24, dtype=torch.float64).view(2, 3, 4).requires_grad_(True)
    weight = torch.arange(24.0, dtype=torch.float64).view(2, 3, 4)
    (gradient,) = torch.autograd.grad((quantised(effect, g) * weight).sum(), g)
    assert torch.equal(gradient, weight)
    assert torch.equal(torch.func.vmap(lambda row: quantised(effect, row))(g), quantised(effect, g))


def test_levels_of_a_device_model() -> None:
    effect = Quantise.from_device(range_only(levels=levels_node()))
    assert effect is not None
    assert effect.levels == LEVELS
    assert Quantise.from_device(range_only(levels=levels_node(told_by="state"))) is None


@pytest.mark.parametrize("make", [
    lambda: Quantise([-1e-6]), lambda: Quantise([1e-6], "R"), lambda: Quantise.even(1, 1e-6, 2e-6),
    lambda: Quantise.even(3, 2e-6, 1e-6), lambda: Quantise.even(3, 1e-6, 2e-6, "log"),
])  # fmt: skip
def test_bad_values_are_refused(make) -> None:
    with pytest.raises(OptionError, match="levels"):
        make()
