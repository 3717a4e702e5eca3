"""Weights to conductances and back."""

import pytest
import torch

from calib.crossbar import mapping as mappings
from calib.errors import OptionError
from tests.simple_devices import G_OFF, G_ON


def weights(mapping: str, seed: int = 0) -> torch.Tensor:
    w = torch.randn(mappings.weight_shape(mapping, 6, 4), generator=torch.Generator().manual_seed(seed)).double()
    mappings.project(w, mapping)
    return w


@pytest.mark.parametrize("mapping", mappings.MAPPINGS)
def test_round_trip(mapping: str) -> None:
    w = weights(mapping)
    g, k_g = mappings.conductances(w, mapping, G_OFF, G_ON)
    assert g.shape == (2, 7, 4)
    assert float(g.min()) >= G_OFF * (1 - 1e-12)
    assert float(g.max()) == pytest.approx(G_ON)
    assert float(k_g) == pytest.approx((G_ON - G_OFF) / float(w.abs().max()))
    torch.testing.assert_close(mappings.weights(g, mapping, G_OFF, k_g), w)


@pytest.mark.parametrize("mapping", mappings.MAPPINGS)
def test_pairs_stand_for_the_signed_weights(mapping: str) -> None:
    w = weights(mapping)
    g, k_g = mappings.conductances(w, mapping, G_OFF, G_ON)
    torch.testing.assert_close((g[0] - g[1]) / k_g, mappings.to_signed(w, mapping))
    signed = torch.randn(7, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(mappings.to_signed(mappings.from_signed(signed, mapping), mapping), signed)


def test_values_by_hand() -> None:
    w = torch.tensor([[1.0, -0.5]], dtype=torch.float64)
    lowest, _ = mappings.conductances(w, "lowest", 1.0, 3.0)
    average, _ = mappings.conductances(w, "average", 1.0, 3.0)
    assert lowest[:, 0].tolist() == [[3.0, 1.0], [1.0, 2.0]]
    assert average[:, 0].tolist() == [[3.0, 1.5], [1.0, 2.5]]


@pytest.mark.parametrize("mapping", mappings.MAPPINGS)
def test_gradients_through_the_largest_weight(mapping: str) -> None:
    w = weights(mapping).add(0.01).requires_grad_(True)

    def f(w: torch.Tensor) -> tuple[torch.Tensor, ...]:
        g, k_g = mappings.conductances(w, mapping, 1.0, 3.0)
        return g, k_g

    assert torch.autograd.gradcheck(f, w)


def test_first_weights() -> None:
    generator = torch.Generator().manual_seed(0)
    double, single = torch.empty(2, 401, 50), torch.empty(401, 50)
    mappings.initialise(double, "double", generator)
    mappings.initialise(single, "lowest", generator)
    assert double[:, :-1].mean().item() == pytest.approx(0.5, abs=0.002)
    assert double[:, :-1].std().item() == pytest.approx(0.05, rel=0.03)
    assert single[:-1].std().item() == pytest.approx(0.05, rel=0.03)
    assert bool((double[:, -1] == 0.5).all())
    assert bool((single[-1] == 0).all())


def test_all_weights_zero_map_to_g_off() -> None:
    g, _ = mappings.conductances(torch.zeros(2, 3, 2), "double", G_OFF, G_ON)
    assert g.unique().tolist() == pytest.approx([G_OFF])


def test_unknown_mapping() -> None:
    with pytest.raises(OptionError, match="no mapping 'triple'; expected one of double, lowest, average"):
        mappings.check("triple")
