"""Adversarial inputs: the fast gradient sign method and projected gradient descent in the L2 ball.

A model here is a function of images (batch, feature) that returns logits (chip, batch, class); an attacker raises the
mean cross-entropy over its chips. With one chip that is the attack on this chip.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from calib.errors import OptionError

Model = Callable[[torch.Tensor], torch.Tensor]
_LEAST_NORM = 1e-12


def gradient(model: Model, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the gradient (batch, feature) of each image's cross-entropy, mean over chips."""
    given = images.detach().clone().requires_grad_()
    with torch.enable_grad():
        logits = model(given)
        repeated = labels.expand(len(logits), -1)
        loss = functional.cross_entropy(logits.flatten(0, 1), repeated.flatten(), reduction="sum") / len(logits)
        (found,) = torch.autograd.grad(loss, given)
    return found


def fgsm(
    model: Model, images: torch.Tensor, labels: torch.Tensor, strength: float, limits: tuple[float, float] = (0.0, 1.0)
) -> torch.Tensor:
    """Return x + eps sign(dL/dx), within the limits of pixels.

    Source: I. J. Goodfellow, J. Shlens, C. Szegedy, Explaining and harnessing adversarial examples, ICLR 2015,
    arXiv:1412.6572, section 4. For a linear model of two classes it is the strongest perturbation with
    max |delta| <= eps.

    Parameters
    ----------
    model : see the module.
    images, labels : (batch, feature) and (batch,).
    strength : eps, in units of the pixels.
    limits : of pixels.
    """
    _check(strength)
    return (images + strength * gradient(model, images, labels).sign()).clamp(*limits)


def pgd_l2(
    model: Model,
    images: torch.Tensor,
    labels: torch.Tensor,
    strength: float,
    *,
    step: float = 0.2,
    steps: int = 10,
    generator: torch.Generator | None = None,
    limits: tuple[float, float] = (0.0, 1.0),
) -> torch.Tensor:
    """Return images moved up the loss in steps of a given L2 length, within a ball of radius eps about each image.

    With g the gradient at x_t: z = x_t + step g / |g|_2, x_{t+1} = clip(x + (z - x) min(1, eps / |z - x|_2)).

    Source: A. Madry et al., Towards deep learning models resistant to adversarial attacks, ICLR 2018, arXiv:1706.06083,
    equation 2.1. From the image itself, no further than `step` times `steps` is reached.

    Parameters
    ----------
    model : see the module.
    images, labels : (batch, feature) and (batch,).
    strength : eps, L2 norm in units of the pixels.
    step, steps : length and number of the steps.
    generator : draws a start in the ball, evenly by volume; None starts from the image.
    limits : of pixels.
    """
    _check(strength)
    if not step > 0 or steps < 1:
        raise OptionError(f"the attack has {steps} steps of {step}; expected at least 1, longer than 0")
    start = images
    if generator is not None:
        start = (images + _in_ball(images, strength, generator)).clamp(*limits)
    moved = start
    for _ in range(steps):
        slope = gradient(model, moved, labels)
        moved = moved + step * slope / slope.norm(dim=-1, keepdim=True).clamp(min=_LEAST_NORM)
        away = moved - images
        share = (strength / away.norm(dim=-1, keepdim=True).clamp(min=_LEAST_NORM)).clamp(max=1.0)
        moved = (images + share * away).clamp(*limits)
    return moved


def _check(strength: float) -> None:
    if not 0 <= strength < float("inf"):
        raise OptionError(f"the strength of an attack is {strength}; expected 0 or more, and finite")


def _in_ball(images: torch.Tensor, radius: float, generator: torch.Generator) -> torch.Tensor:
    direction = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    direction /= direction.norm(dim=-1, keepdim=True).clamp(min=_LEAST_NORM)
    share = torch.rand((len(images), 1), generator=generator, dtype=images.dtype) ** (1 / images.shape[-1])
    return radius * share * direction


def gaussian_noise(images: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Return images with normal noise of standard deviation `strength`, within 0 and 1."""
    _check(strength)
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype)
    return (images + strength * noise).clamp(0.0, 1.0)


def uniform_noise(images: torch.Tensor, strength: float, generator: torch.Generator) -> torch.Tensor:
    """Return images with uniform noise between -`strength` and `strength`, within 0 and 1."""
    _check(strength)
    noise = 2 * torch.rand(images.shape, generator=generator, dtype=images.dtype) - 1
    return (images + strength * noise).clamp(0.0, 1.0)
