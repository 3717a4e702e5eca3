"""Functions of mappings that have gradients of their own."""

import torch


class Largest(torch.autograd.Function):
    """max|w|; its gradient goes to one of the largest weights."""

    generate_vmap_rule = True

    @staticmethod
    def forward(weight: torch.Tensor) -> torch.Tensor:
        low, high = torch.aminmax(weight)
        return torch.maximum(-low, high)

    @staticmethod
    def setup_context(ctx, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> torch.Tensor:
        (weight,) = ctx.saved_tensors
        index, sign = _where_largest(weight)
        value = sign * grads[0]
        return torch.zeros_like(value).expand(weight.numel()).scatter(0, index, value).view(weight.shape)

    @staticmethod
    def jvp(ctx, *tangents: torch.Tensor) -> torch.Tensor:
        (weight,) = ctx.saved_tensors
        index, sign = _where_largest(weight)
        return (tangents[0].flatten().gather(0, index) * sign).squeeze(0)


def _where_largest(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the flat index (1,) of one of the largest |w| and its sign (1,)."""
    flat = weight.flatten()
    index = flat.abs().argmax(0, keepdim=True)
    return index, flat.gather(0, index).sign()


class Digits(torch.autograd.Function):
    """Digits of shares x in [0, 1] rounded to `slices` digits of `bits` bits, as fractions of the largest digit.

    Shares (sign, ...) give (slice, sign, ...), flat, the least significant first. The gradient is that of handing x
    itself to every slice.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(share: torch.Tensor, slices: int, bits: int) -> torch.Tensor:
        base = 2.0**bits
        left = torch.round(share * (base**slices - 1)).clamp(max=base**slices - 1)
        digits = []
        for _ in range(slices):
            higher = torch.floor(left / base)
            digits.append(torch.sub(left, higher, alpha=base).div_(base - 1))
            left = higher
        return torch.cat(digits)

    @staticmethod
    def setup_context(ctx, inputs: tuple[torch.Tensor, int, int], output: torch.Tensor) -> None:
        ctx.slices = inputs[1]

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return grads[0].unflatten(0, (ctx.slices, -1)).sum(0), None, None

    @staticmethod
    def jvp(ctx, *tangents: torch.Tensor) -> torch.Tensor:
        return torch.cat([tangents[0]] * ctx.slices)
