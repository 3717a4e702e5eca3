"""Attacks: hand calculations, the analytic optimum of linear models, an independent library."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from calib import attacks
from calib.errors import OptionError

WIDE = (-100.0, 100.0)
IMAGES = torch.tensor([[0.2, 0.5, 0.7], [0.9, 0.0, 0.4]], dtype=torch.float64)
LABELS = torch.tensor([0, 1])
WEIGHT = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, -1.0]], dtype=torch.float64)


def linear(images: torch.Tensor) -> torch.Tensor:
    return (images @ WEIGHT.T)[None]


def losses(images: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(linear(images)[0], LABELS, reduction="none")


def test_gradient_by_hand() -> None:
    """dL/dx = sum_c (softmax_c - [c = label]) w_c."""
    share = torch.softmax(linear(IMAGES)[0], 1) - functional.one_hot(LABELS, 2)
    torch.testing.assert_close(attacks.gradient(linear, IMAGES, LABELS), share @ WEIGHT)


def test_the_gradient_is_the_mean_over_chips() -> None:
    other = WEIGHT.flip(1)
    both = attacks.gradient(lambda x: torch.stack([x @ WEIGHT.T, x @ other.T]), IMAGES, LABELS)
    single = [attacks.gradient(lambda x, w=w: (x @ w.T)[None], IMAGES, LABELS) for w in (WEIGHT, other)]
    torch.testing.assert_close(both, (single[0] + single[1]) / 2)


def test_fgsm_is_the_strongest_for_a_linear_model() -> None:
    """The margin falls by eps |w_1 - w_0|_1, as far as it can with changes of at most eps."""
    found = attacks.fgsm(linear, IMAGES, LABELS, 0.1, WIDE)
    toward = (WEIGHT[1] - WEIGHT[0]).sign() * torch.tensor([[1.0], [-1.0]])
    torch.testing.assert_close(found, IMAGES + 0.1 * toward)
    margin = (linear(found) - linear(IMAGES))[0] @ torch.tensor([-1.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(margin.abs(), torch.full((2,), 0.1 * 5.5, dtype=torch.float64))
    corners = torch.cartesian_prod(*[torch.tensor([-0.1, 0.1], dtype=torch.float64)] * 3)
    for corner in corners:
        assert (losses(found) >= losses(IMAGES + corner) - 1e-12).all()


def test_pgd_reaches_the_optimum_of_a_linear_model() -> None:
    """The optimum within |delta|_2 <= eps is eps (w_1 - w_0) / |w_1 - w_0|."""
    direction = WEIGHT[1] - WEIGHT[0]
    best = IMAGES + 0.7 * direction / direction.norm() * torch.tensor([[1.0], [-1.0]])
    for start in (None, torch.Generator().manual_seed(0)):
        found = attacks.pgd_l2(linear, IMAGES, LABELS, 0.7, step=0.2, steps=60, generator=start, limits=WIDE)
        torch.testing.assert_close(found, best, rtol=1e-3, atol=1e-3)
    few = attacks.pgd_l2(linear, IMAGES, LABELS, 5.0, step=0.2, steps=3, limits=WIDE)
    torch.testing.assert_close((few - IMAGES).norm(dim=1), torch.full((2,), 0.6, dtype=torch.float64))


def test_limits_balls_and_zero_strength() -> None:
    random = torch.Generator().manual_seed(1)
    images = torch.rand(40, 3, generator=random, dtype=torch.float64)
    labels = torch.randint(2, (40,), generator=random)
    for found, norm, radius in (
        (attacks.fgsm(linear, images, labels, 0.3), float("inf"), 0.3),
        (attacks.pgd_l2(linear, images, labels, 0.4, generator=random), 2, 0.4),
    ):
        assert found.min() >= 0
        assert found.max() <= 1
        assert (found - images).norm(p=norm, dim=1).max() <= radius + 1e-12
    assert torch.equal(attacks.fgsm(linear, images, labels, 0.0), images)
    torch.testing.assert_close(attacks.pgd_l2(linear, images, labels, 0.0), images)
    flat = attacks.pgd_l2(lambda x: torch.zeros(1, len(x), 2, dtype=x.dtype) * x.sum(), images, labels, 1.0)
    torch.testing.assert_close(flat, images)  # no gradient: nowhere to go


def test_random_starts_fill_the_ball_evenly() -> None:
    random = torch.Generator().manual_seed(2)
    moved = attacks._in_ball(torch.zeros(4000, 3, dtype=torch.float64), 2.0, random)
    share = ((moved.norm(dim=1) / 2) ** 3).sort().values.numpy()  # uniform on (0, 1)
    assert np.abs(share - (np.arange(4000) + 0.5) / 4000).max() < 1.63 / np.sqrt(4000)  # Kolmogorov, 1 %
    assert moved.mean(0).abs().max() < 0.06


def test_noise_has_its_distribution() -> None:
    random = torch.Generator().manual_seed(3)
    images = torch.full((100, 200), 0.5)
    normal = attacks.gaussian_noise(images, 0.1, random) - 0.5
    assert float(normal.std()) == pytest.approx(0.1, rel=0.02)
    even = attacks.uniform_noise(images, 0.3, random) - 0.5
    assert float(even.std()) == pytest.approx(0.3 / 3**0.5, rel=0.02)
    assert float(even.abs().max()) <= 0.3
    assert float(attacks.gaussian_noise(images, 5.0, random).max()) == 1.0


@pytest.mark.parametrize("start", [False, True])
def test_agrees_with_the_adversarial_robustness_toolbox(start: bool) -> None:
    evasion = pytest.importorskip("art.attacks.evasion", reason="adversarial-robustness-toolbox is not installed")
    from art.estimators.classification import PyTorchClassifier

    torch.manual_seed(4)
    network = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 4))
    classifier = PyTorchClassifier(network, nn.CrossEntropyLoss(), (12,), 4, clip_values=(0.0, 1.0), device_type="cpu")
    images, labels = 0.4 + 0.2 * torch.rand(50, 12), torch.randint(4, (50,))  # it clips before it projects

    def model(x: torch.Tensor) -> torch.Tensor:
        return network(x)[None]

    if not start:
        theirs = evasion.FastGradientMethod(classifier, eps=0.1).generate(images.numpy(), labels.numpy())
        np.testing.assert_allclose(attacks.fgsm(model, images, labels, 0.1).detach(), theirs, atol=1e-6)
    options = {
        "norm": 2,
        "eps": 0.35,
        "eps_step": 0.08,
        "max_iter": 10,
        "num_random_init": int(start),
        "verbose": False,
    }
    theirs = evasion.ProjectedGradientDescentPyTorch(classifier, **options).generate(images.numpy(), labels.numpy())
    generator = torch.Generator().manual_seed(5) if start else None
    ours = attacks.pgd_l2(model, images, labels, 0.35, step=0.08, generator=generator).detach()
    loss = [functional.cross_entropy(network(x), labels).item() for x in (images, ours, torch.tensor(theirs))]
    if not start:
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    assert loss[1] == pytest.approx(loss[2], rel=5e-3)
    assert loss[1] > loss[0] + 0.05


def test_what_cannot_be_done() -> None:
    with pytest.raises(OptionError, match="strength of an attack is -1"):
        attacks.fgsm(linear, IMAGES, LABELS, -1.0)
    with pytest.raises(OptionError, match="0 steps"):
        attacks.pgd_l2(linear, IMAGES, LABELS, 1.0, steps=0)
