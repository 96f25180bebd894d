"""Attention: tokens of one sequence attend to another, or to their own.

All attention in vislang goes through :func:`attend`, which calls ``torch.nn.functional.scaled_dot_product_attention``
and has its mask convention: a boolean mask is True where a query may attend to a key; a float mask is a bias that is
added to the scaled products (ALiBi, relative positions). :func:`attention_weights` computes the weight matrix of one
layer, to show it.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vislang.nn.linear import Linear

Mask: TypeAlias = Bool[Tensor, "#batch #heads #queries keys"] | Float[Tensor, "#batch #heads #queries keys"]


def attend(
    queries: Float[Tensor, "batch heads queries head_width"],
    keys: Float[Tensor, "batch heads keys head_width"],
    values: Float[Tensor, "batch heads keys head_width"],
    mask: Mask | None = None,
    dropout: float = 0.0,
) -> Float[Tensor, "batch queries inner"]:
    """Scaled dot-product attention (Vaswani et al. 2017, section 3.2); the outputs of all heads are concatenated."""
    with kernel_for(keys.shape[2], keys.device, keys.dtype):
        attended = F.scaled_dot_product_attention(queries, keys, values, attn_mask=mask, dropout_p=dropout)
    return attended.transpose(1, 2).flatten(2)


def attention_weights(
    queries: Float[Tensor, "batch heads queries head_width"],
    keys: Float[Tensor, "batch heads keys head_width"],
    mask: Bool[Tensor, "#batch #heads #queries keys"] | None = None,
) -> Float[Tensor, "batch heads queries keys"]:
    """The attention weights of :func:`attend`: softmax(q k / sqrt(d))."""
    scores = queries @ keys.transpose(-1, -2) * queries.shape[-1] ** -0.5
    return (scores if mask is None else scores.masked_fill(~mask, -torch.inf)).softmax(dim=-1)


def split_heads(
    projected: Float[Tensor, "batch length inner"], heads: int
) -> Float[Tensor, "batch heads length head_width"]:
    """Split queries, keys or values into heads."""
    return projected.unflatten(-1, (heads, -1)).transpose(1, 2)


def not_padding(padding: Bool[Tensor, "batch keys"] | None) -> Bool[Tensor, "batch 1 1 keys"] | None:
    """The attention mask for ``padding``, which is True at padded keys."""
    return None if padding is None else ~padding[:, None, None]


def kernel_for(tokens: int, device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """The attention kernel for sequences of this length.

    On a CPU, in bfloat16 and for a few dozen tokens, the backward pass of the fused kernel takes eight times as long as
    the plain one (13.7 ms against 1.7 ms for 32 rows of 9 heads and 16 tokens).
    """
    short = device.type == "cpu" and dtype == torch.bfloat16 and tokens <= 128
    return sdpa_kernel(SDPBackend.MATH) if short else nullcontext()


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself (Vaswani et al. 2017, section 3.2.2), with biases.

    Args:
        width: width of the sequence.
        heads: number of attention heads; must divide the width.
        dropout: dropout rate of the attention weights.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.to_queries_keys_values = Linear(width, 3 * width)
        self.to_output = Linear(width, width)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], mask: Mask | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """Attention, then the output projection."""
        return self.to_output(self.attend(*self.project(x), mask))

    def project(self, x: Float[Tensor, "batch tokens width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values: (batch, heads, tokens, head width)."""
        queries, keys, values = self.to_queries_keys_values(x).chunk(3, dim=-1)
        return split_heads(queries, self.heads), split_heads(keys, self.heads), split_heads(values, self.heads)

    def attend(
        self, queries: Tensor, keys: Tensor, values: Tensor, mask: Mask | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """See :func:`attend`; without the output projection."""
        return attend(queries, keys, values, mask, self.dropout if self.training else 0.0)


class KeysValues(NamedTuple):
    """Keys and values of a context; they can be used for any number of queries."""

    keys: Float[Tensor, "batch heads context head_width"]
    values: Float[Tensor, "batch heads context head_width"]


class CrossAttention(nn.Module):
    """Multi-head attention from queries to another sequence (Vaswani et al. 2017, section 3.2.2).

    Without biases, as in Flamingo. The inner width is ``heads * head_width``, independent of the outer widths.

    Args:
        query_width: width of the sequence that attends.
        context_width: width of the sequence that is attended to.
        heads: number of attention heads.
        head_width: width of each head.
    """

    def __init__(self, query_width: int, context_width: int, heads: int = 8, head_width: int = 64):
        super().__init__()
        inner_width = heads * head_width
        self.heads = heads
        self.head_width = head_width
        self.to_queries = Linear(query_width, inner_width, bias=False)
        self.to_keys_values = Linear(context_width, 2 * inner_width, bias=False)
        self.to_output = Linear(inner_width, query_width, bias=False)

    def keys_values(self, context: Float[Tensor, "batch context context_width"]) -> KeysValues:
        """Project a context to keys and values, for any number of later queries."""
        keys, values = self.to_keys_values(context).chunk(2, dim=-1)
        return KeysValues(split_heads(keys, self.heads), split_heads(values, self.heads))

    def forward(
        self,
        queries: Float[Tensor, "batch queries query_width"],
        context: KeysValues,
        mask: Bool[Tensor, "#batch #queries context"] | None = None,
    ) -> Float[Tensor, "batch queries query_width"]:
        """Attention; a query that may attend to no key gets zeros."""
        opened = None if mask is None else _open_blind_rows(mask)[:, None]
        attended = attend(split_heads(self.to_queries(queries), self.heads), context.keys, context.values, opened)
        if mask is not None:
            attended = attended * mask.any(dim=-1, keepdim=True)
        return self.to_output(attended)

    def weights(
        self,
        queries: Float[Tensor, "batch queries query_width"],
        context: KeysValues,
        mask: Bool[Tensor, "#batch #queries context"] | None = None,
    ) -> Float[Tensor, "batch heads queries context"]:
        """The attention weights of :meth:`forward`."""
        opened = None if mask is None else _open_blind_rows(mask)[:, None]
        weights = attention_weights(split_heads(self.to_queries(queries), self.heads), context.keys, opened)
        return weights if mask is None else weights * mask.any(dim=-1, keepdim=True)[:, None]


def _open_blind_rows(mask: Bool[Tensor, "*batch queries context"]) -> Bool[Tensor, "*batch queries context"]:
    """Let queries that may attend to no key attend to all keys, because a softmax over no keys is NaN.

    The caller sets the output of such queries to zero.
    """
    return mask | ~mask.any(dim=-1, keepdim=True)
