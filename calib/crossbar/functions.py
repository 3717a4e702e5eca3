"""Functions that know the transforms of `torch.func`, without the costs of those that are not there."""

from collections.abc import Callable
from typing import Any

import torch

transforms_active: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)
"""Says whether a transform of `torch.func` is active."""


def caller(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """Return what calls a function whose forward has no context (it states `setup_context`).

    Such functions work inside of `torch.func` transforms, but torch inspects their signature at each call, which takes
    longer than a small layer. Outside of transforms the same code is called with a context; without gradients it is
    called as it is.
    """

    class Plain(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = function.forward(*inputs)
            function.setup_context(ctx, inputs, output)
            return output

        backward = function.backward

    def call(*inputs: Any) -> Any:
        if transforms_active():
            return function.apply(*inputs)
        return Plain.apply(*inputs) if torch.is_grad_enabled() else function.forward(*inputs)

    return call


def product(basis: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
    """Return basis @ coefficients; over chips that are mapped with `torch.func.vmap`, in one product."""
    return _Product.apply(basis, coefficients) if transforms_active() else basis @ coefficients


class _Product(torch.autograd.Function):
    @staticmethod
    def forward(basis: torch.Tensor, coefficients: torch.Tensor) -> torch.Tensor:
        return basis @ coefficients

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        basis, coefficients = ctx.saved_tensors
        by_basis = product(grads[0], coefficients.T) if ctx.needs_input_grad[0] else None
        by_coefficients = product(basis.T, grads[0]) if ctx.needs_input_grad[1] else None
        return by_basis, by_coefficients

    @staticmethod
    def vmap(info, in_dims, basis, coefficients):
        one, other = in_dims
        if one is None and other is not None:  # (rows, inner) @ (inner, chip columns)
            stacked = coefficients.movedim(other, 1)
            inner, chips, columns = stacked.shape
            return product(basis, stacked.reshape(inner, chips * columns)).view(-1, chips, columns), 1
        basis = basis.movedim(one, 0)
        if other is None:
            return product(basis.flatten(0, 1), coefficients).view(*basis.shape[:-1], -1), 0
        return torch.matmul(basis, coefficients.movedim(other, 0)), 0
