"""Multi-head attention whose projections are on crossbars.

q = W_q query + b_q, k and v alike, and the output projection are products with weights and go on four crossbars. The
attention itself, softmax(q k^T / sqrt(d)) v, multiplies activations with each other and stays digital.
"""

import math
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional

from calib.crossbar.crossbars import separate_draws, set_signed_weights
from calib.crossbar.devices import Devices
from calib.crossbar.layers import MemristiveLinear
from calib.errors import OptionError


class MemristiveMultiheadAttention(nn.Module):
    """torch.nn.MultiheadAttention (A. Vaswani et al., arXiv 1706.03762) with its projections on crossbars.

    Parameters
    ----------
    embed_dim, num_heads : as in torch.
    devices : what the crossbars are made of.
    dropout, add_bias_kv, add_zero_attn, kdim, vdim, batch_first : as in torch.
    bias : 'line', 'digital' or None, of all four projections.
    options : mapping, array, first and dtype, see `MemristiveLinear`.

    Raises
    ------
    OptionError
        When embed_dim cannot be divided among the heads, or inputs or masks do not fit.
    """

    digital = "softmax(q k^T / sqrt(d)) v, a product of activations"
    """What of the layer is not on the crossbars."""

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        devices: Devices,
        *,
        dropout: float = 0.0,
        bias: str | None = "line",
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if num_heads < 1 or embed_dim % num_heads:
            raise OptionError(f"{embed_dim} features cannot be divided among {num_heads} heads; give a divisor")
        self.embed_dim, self.num_heads, self.head_dim = embed_dim, num_heads, embed_dim // num_heads
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.dropout, self.add_zero_attn, self.batch_first = dropout, add_zero_attn, batch_first
        self.q_projection = MemristiveLinear(embed_dim, embed_dim, devices, bias=bias, **options)
        self.k_projection = MemristiveLinear(self.kdim, embed_dim, devices, bias=bias, **options)
        self.v_projection = MemristiveLinear(self.vdim, embed_dim, devices, bias=bias, **options)
        self.out_projection = MemristiveLinear(embed_dim, embed_dim, devices, bias=bias, **options)
        self.bias_k = self.bias_v = None
        if add_bias_kv:
            dtype = options.get("dtype")
            first = torch.empty(2, 1, 1, embed_dim, dtype=dtype)
            first.normal_(0.0, embed_dim**-0.5, generator=options.get("first"))
            self.bias_k, self.bias_v = nn.Parameter(first[0].clone()), nn.Parameter(first[1].clone())
        separate_draws(self)

    @classmethod
    def from_torch(
        cls, layer: nn.MultiheadAttention, devices: Devices, *, bias: str | None = "line", **options: Any
    ) -> Self:
        """Return the memristive form of a torch.nn.MultiheadAttention with its weights; `bias` is for one with it."""
        names = ("dropout", "add_zero_attn", "kdim", "vdim", "batch_first")
        given: dict[str, Any] = {name: getattr(layer, name) for name in names}
        given["add_bias_kv"] = layer.bias_k is not None
        place = bias if layer.in_proj_bias is not None else None
        options = {"dtype": layer.out_proj.weight.dtype, **options}
        result = cls(layer.embed_dim, layer.num_heads, devices, bias=place, **given, **options)
        if layer.in_proj_weight is not None:
            weights = layer.in_proj_weight.detach().chunk(3)
        else:
            parts = (layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight)
            weights = tuple(p.detach() for p in parts if p is not None)
        biases = [None] * 3 if layer.in_proj_bias is None else layer.in_proj_bias.detach().chunk(3)
        inner = (result.q_projection, result.k_projection, result.v_projection)
        for one, w, b in zip(inner, weights, biases, strict=True):
            set_signed_weights(one, w, b)
        out = layer.out_proj
        set_signed_weights(result.out_projection, out.weight.detach(), None if out.bias is None else out.bias.detach())
        if result.bias_k is not None and result.bias_v is not None:
            result.bias_k.data.copy_(layer.bias_k)  # type: ignore[arg-type]
            result.bias_v.data.copy_(layer.bias_v)  # type: ignore[arg-type]
        return result

    in_proj_bias = None  # torch's encoder layers then leave their fused kernel, which knows nothing of devices, alone
    _qkv_same_embed_dim = False

    def extra_repr(self) -> str:
        """Return what the layer's line shows."""
        return f"{self.embed_dim}, num_heads={self.num_heads}, batch_first={self.batch_first}"

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return outputs (target, batch, feature) and attention weights (batch, target, source), as torch does.

        Parameters
        ----------
        query, key, value : (target, batch, embed_dim), (source, batch, kdim), (source, batch, vdim); batch first if
            the layer says so; without the batch for a single sequence.
        key_padding_mask : (batch, source), true or -inf where a key is not to be seen.
        need_weights : whether to return attention weights; else None is returned instead.
        attn_mask : (target, source) or (batch heads, target, source), true or -inf where a pair is not to be seen.
        average_attn_weights : whether weights are averaged over heads, else (batch, head, target, source).
        is_causal : says that attn_mask is causal; the mask is applied either way.
        """
        if is_causal and attn_mask is None:
            raise OptionError("is_causal is a hint about attn_mask, which is missing; give the mask as well")
        batched = query.dim() == 3
        self._check(query, key, value)
        if not batched:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
            key_padding_mask = key_padding_mask.unsqueeze(0) if key_padding_mask is not None else None
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        q, k, v = self._heads(query, key, value)
        mask = self._mask(key_padding_mask, attn_mask, q, k.shape[2])
        weights = self._weights(q, k, mask)
        attended = weights @ v
        result = self.out_projection(attended.transpose(1, 2).flatten(-2))  # (batch, target, feature)
        shown = None if not need_weights else weights.mean(dim=1) if average_attn_weights else weights
        if not batched:
            return result.squeeze(0), None if shown is None else shown.squeeze(0)
        return (result if self.batch_first else result.transpose(0, 1)), shown

    def _heads(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return q, k and v (batch, head, step, head_dim) of sequences (batch, step, feature)."""
        q, k, v = self.q_projection(query), self.k_projection(key), self.v_projection(value)
        row = (len(k), 1, self.embed_dim)
        if self.bias_k is not None and self.bias_v is not None:
            k = torch.cat((k, self.bias_k.to(k.dtype).expand(row)), dim=1)
            v = torch.cat((v, self.bias_v.to(v.dtype).expand(row)), dim=1)
        if self.add_zero_attn:
            k, v = torch.cat((k, k.new_zeros(row)), dim=1), torch.cat((v, v.new_zeros(row)), dim=1)
        heads = (self.num_heads, self.head_dim)
        q, k, v = (t.unflatten(-1, heads).transpose(1, 2) for t in (q, k, v))
        return q, k, v

    def _mask(
        self, padding: torch.Tensor | None, attention: torch.Tensor | None, q: torch.Tensor, sources: int
    ) -> torch.Tensor | None:
        """Return what is added to q k^T, broadcast to (batch, head, target, source)."""
        batch, heads, targets = q.shape[:3]
        extra = (self.bias_k is not None) + self.add_zero_attn
        given = sources - extra
        total = None
        if attention is not None:
            shapes = ((targets, given), (batch * heads, targets, given))
            _expect("attn_mask", attention, shapes)
            one = _additive("attn_mask", attention, q.dtype)
            total = one if one.dim() == 2 else one.unflatten(0, (batch, heads))
        if padding is not None:
            _expect("key_padding_mask", padding, ((batch, given),))
            one = _additive("key_padding_mask", padding, q.dtype)[:, None, None]
            total = one if total is None else total + one
        return functional.pad(total, (0, extra)) if total is not None and extra else total

    def _weights(self, q: torch.Tensor, k: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return softmax(q k^T / sqrt(d) + mask) (batch, head, target, source)."""
        products = (q * math.sqrt(1 / self.head_dim)) @ k.transpose(-2, -1)
        weights = torch.softmax(products if mask is None else products + mask, dim=-1)
        return functional.dropout(weights, self.dropout, self.training) if self.dropout else weights

    def _check(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> None:
        sizes = {"query": (query, self.embed_dim), "key": (key, self.kdim), "value": (value, self.vdim)}
        problems = [
            f"{name} is {tuple(t.shape)}, expected 2 or 3 dimensions as query, the last of {n}"
            for name, (t, n) in sizes.items()
            if t.dim() != query.dim() or t.dim() not in (2, 3) or t.shape[-1] != n
        ]
        if not problems and key.shape[:-1] != value.shape[:-1]:
            problems.append(f"key is {tuple(key.shape)} and value {tuple(value.shape)}, expected equal steps")
        if problems:
            raise OptionError("inputs of an attention layer do not fit: " + "; ".join(problems))


def _additive(name: str, mask: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a mask as numbers to add: -inf where a Boolean one is true."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)
    if not mask.is_floating_point():
        raise OptionError(f"{name} is of {mask.dtype}; expected a Boolean or floating-point mask")
    return mask.to(dtype)


def _expect(name: str, mask: torch.Tensor, shapes: tuple[tuple[int, ...], ...]) -> None:
    if tuple(mask.shape) not in shapes:
        raise OptionError(f"{name} is {tuple(mask.shape)}; expected {' or '.join(map(str, shapes))}")
