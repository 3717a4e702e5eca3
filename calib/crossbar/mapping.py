"""Weights to pairs of conductances.

Word lines carry the inputs, one more the bias at x = 1; bit lines stand in pairs, whose currents are subtracted.
With k_G = (G_on - G_off) / max|w|, max over the layer (Joksas et al., Adv. Sci. 9, 2105784 (2022),
doi 10.1002/advs.202105784):

========= ===================================================================================================
lowest    G+ = G_off + k_G max(w, 0), G- = G_off + k_G max(-w, 0)
average   G+- = (G_off + G_on) / 2 +- k_G w / 2
double    every conductance has its own weight w >= 0: G = G_off + k_G w
========= ===================================================================================================
"""

import torch

from calib.errors import OptionError

MAPPINGS = ("double", "lowest", "average")


class _Largest(torch.autograd.Function):
    """max|w|; its gradient goes to one of the largest weights."""

    @staticmethod
    def forward(ctx, weight: torch.Tensor) -> torch.Tensor:
        low, high = torch.aminmax(weight)
        ctx.save_for_backward(weight)
        ctx.negative = bool(-low > high)
        return -low if ctx.negative else high.clone()

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> torch.Tensor:
        (weight,) = ctx.saved_tensors
        index = weight.argmin() if ctx.negative else weight.argmax()
        result = torch.zeros_like(weight)
        result.view(-1)[index] = -grads[0] if ctx.negative else grads[0]
        return result


def check(mapping: str) -> str:
    """Return `mapping` if there is such a one.

    Raises
    ------
    OptionError
        When there is none; the message lists those that there are.
    """
    if mapping not in MAPPINGS:
        raise OptionError(f"there is no mapping '{mapping}'; expected one of {', '.join(MAPPINGS)}")
    return mapping


def weight_shape(mapping: str, in_features: int, out_features: int) -> tuple[int, ...]:
    """Return the shape of a layer's weights: (pair, word_line, bit_line) if double, else (word_line, bit_line)."""
    single = (in_features + 1, out_features)
    return (2, *single) if mapping == "double" else single


@torch.no_grad()
def initialise(weight: torch.Tensor, mapping: str, generator: torch.Generator | None) -> None:
    """Draw a layer's first weights; the last word line is the bias.

    Double: N(0.5, 1 / sqrt(n_in)), biases 0.5; else N(0, 1 / sqrt(n_in)), biases 0.
    """
    centre = 0.5 if mapping == "double" else 0.0
    n_in = weight.shape[-2] - 1
    weight.normal_(centre, n_in**-0.5, generator=generator)
    weight[..., -1, :] = centre
    project(weight, mapping)


@torch.no_grad()
def project(weight: torch.Tensor, mapping: str) -> None:
    """Put weights that a step made negative back to 0 where conductances have weights of their own."""
    if mapping == "double":
        weight.clamp_(min=0.0)


@torch.no_grad()
def from_signed(weight: torch.Tensor, mapping: str) -> torch.Tensor:
    """Return the layer's weights that stand for signed ones (word_line, bit_line)."""
    return torch.stack((weight.clamp(min=0), (-weight).clamp(min=0))) if mapping == "double" else weight.clone()


def to_signed(weight: torch.Tensor, mapping: str) -> torch.Tensor:
    """Return the signed weights (word_line, bit_line) that a layer's weights stand for."""
    return weight[0] - weight[1] if mapping == "double" else weight


def conductances(weight: torch.Tensor, mapping: str, g_off: float, g_on: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Map weights to conductances.

    Returns
    -------
    conductance : (pair, word_line, bit_line) [S], the positive bit lines first.
    k_g : factor between weights and conductance differences [S].
    """
    largest = _Largest.apply(weight).clamp(min=torch.finfo(weight.dtype).tiny)  # type: ignore[union-attr]
    k_g = (g_on - g_off) / largest
    if mapping == "double":
        return g_off + k_g * weight, k_g
    if mapping == "lowest":
        return g_off + k_g * torch.stack((weight.clamp(min=0), (-weight).clamp(min=0))), k_g
    half = 0.5 * k_g * weight
    return 0.5 * (g_off + g_on) + torch.stack((half, -half)), k_g


def weights(conductance: torch.Tensor, mapping: str, g_off: float, k_g: torch.Tensor) -> torch.Tensor:
    """Return the weights that conductances (pair, word_line, bit_line) stand for: the inverse of `conductances`."""
    if mapping == "double":
        return (conductance - g_off) / k_g
    return (conductance[0] - conductance[1]) / k_g
