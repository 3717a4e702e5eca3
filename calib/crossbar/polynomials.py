"""Polynomials on which laws are interpolated, and the basis functions made of them."""

import functools

import numpy as np
import torch

from calib.crossbar.functions import caller


def chebyshev_nodes(count: int) -> np.ndarray:
    """Return the zeros of T_count, ascending."""
    return -np.cos((np.arange(count) + 0.5) * np.pi / count)


def lagrange(nodes: np.ndarray, s: np.ndarray) -> np.ndarray:
    """Return the matrix (point, node) that interpolates values on `nodes` at `s`."""
    matrix = np.ones((len(s), len(nodes)))
    for k, node in enumerate(nodes):
        for other in np.delete(nodes, k):
            matrix[:, k] *= (s - other) / (node - other)
    return matrix


@functools.cache
def chebyshev_matrix(count: int) -> np.ndarray:
    """Return the matrix that makes the coefficients of T_k from values on the Chebyshev nodes."""
    matrix = np.polynomial.chebyshev.chebvander(chebyshev_nodes(count), count - 1).T * (2 / count)
    matrix[0] /= 2
    return matrix


@functools.cache
def _slopes(count: int, chebyshev: bool) -> torch.Tensor:
    """Return E with d P_k / du = sum_j E_kj P_j.

    For T_k, 2 k for j < k of other parity, half of it for j = 0; for C(u, k), (-1)^(k-1-j) / (k - j) for j < k.
    """
    if chebyshev:
        rows = [[2.0 * k if j < k and (k - j) % 2 else 0.0 for j in range(count)] for k in range(count)]
        slopes = torch.tensor(rows, dtype=torch.float64)
        slopes[:, 0] /= 2
        return slopes
    rows = [[(-1.0) ** (k - 1 - j) / (k - j) if j < k else 0.0 for j in range(count)] for k in range(count)]
    return torch.tensor(rows, dtype=torch.float64)


def basis(factor: torch.Tensor, u: torch.Tensor, count: int, chebyshev: bool) -> torch.Tensor:
    """Return factor * P_k(u), k = 0 ... count - 1: (..., word_line) -> (..., count, word_line).

    P_k are Chebyshev's T_k, or the binomials C(u, k) of forward differences.
    """
    return _basis(factor, u, count, chebyshev)


class _Basis(torch.autograd.Function):
    @staticmethod
    def forward(factor: torch.Tensor, u: torch.Tensor, count: int, chebyshev: bool) -> torch.Tensor:
        found = u.new_empty((*u.shape[:-1], count, u.shape[-1]))
        rows = found.unbind(-2)
        rows[0].copy_(factor)
        double = 2 * u if chebyshev and count > 2 else u
        for k in range(1, count):
            if k == 1:
                torch.mul(rows[0], u, out=rows[1])
            elif chebyshev:
                torch.mul(rows[k - 1], double, out=rows[k]).sub_(rows[k - 2])
            else:
                torch.mul(rows[k - 1], torch.sub(u, k - 1).mul_(1 / k), out=rows[k])
        return found

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        factor, u, ctx.count, ctx.chebyshev = inputs
        ctx.save_for_backward(factor, u)

    @staticmethod
    def backward(ctx, *grads: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        factor, u = ctx.saved_tensors
        (grad,) = grads
        c = basis(torch.ones_like(u), u, ctx.count, ctx.chebyshev)  # (..., count, word_line)
        by_factor = (grad * c).sum(-2) if ctx.needs_input_grad[0] else None
        by_u = None
        if ctx.needs_input_grad[1]:
            slope = _slopes(ctx.count, ctx.chebyshev).to(dtype=u.dtype, device=u.device)
            by_u = (torch.matmul(slope.T, grad) * c).sum(-2) * factor
        return by_factor, by_u, None, None

    @staticmethod
    def vmap(info, in_dims, factor, u, count, chebyshev):
        parts = [
            part.movedim(dim, 0) if dim is not None else part.expand(info.batch_size, *part.shape)
            for part, dim in zip((factor, u), in_dims[:2], strict=True)
        ]
        return _Basis.apply(*parts, count, chebyshev), 0


_basis = caller(_Basis)
