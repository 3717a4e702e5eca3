"""Calling functions with derivatives of their own without the costs of transforms that are not there."""

from collections.abc import Callable
from typing import Any

import torch

_transforms_active: Callable[[], bool] = getattr(torch._C, "_are_functorch_transforms_active", lambda: True)


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
        if _transforms_active():
            return function.apply(*inputs)
        return Plain.apply(*inputs) if torch.is_grad_enabled() else function.forward(*inputs)

    return call
