"""Attention: one sequence looks at another.

Every attention in vislang goes through ``torch.nn.functional.scaled_dot_product_attention``, which
never builds the weight matrix. Where a person wants to *see* the weights, :meth:`CrossAttention.weights`
computes them on their own, for the layer that was asked for.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from vislang.nn.linear import Linear


class KeysValues(NamedTuple):
    """What is attended to, ready for any number of queries: compute once, use often."""

    keys: Float[Tensor, "batch heads context head_width"]
    values: Float[Tensor, "batch heads context head_width"]


class CrossAttention(nn.Module):
    """Multi-head attention from queries to another sequence (Vaswani et al. 2017, section 3.2.2).

    No biases, as in Flamingo. The inner width is ``heads * head_width`` whatever the widths outside.

    Args:
        query_width: width of the sequence that asks.
        context_width: width of the sequence that is asked.
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
        """Project a context once; the result serves every later query."""
        keys, values = self.to_keys_values(context).chunk(2, dim=-1)
        return KeysValues(self._split(keys), self._split(values))

    def forward(
        self,
        queries: Float[Tensor, "batch queries query_width"],
        context: KeysValues,
        mask: Bool[Tensor, "#batch #queries context"] | None = None,
    ) -> Float[Tensor, "batch queries query_width"]:
        """Attend. ``mask`` is True where a query may look; a query that may look nowhere gets zeros."""
        attended = F.scaled_dot_product_attention(
            self._split(self.to_queries(queries)),
            context.keys,
            context.values,
            attn_mask=None if mask is None else _open_blind_rows(mask)[:, None],
        )
        attended = attended.transpose(1, 2).flatten(2)
        if mask is not None:
            attended = attended * mask.any(dim=-1, keepdim=True)
        return self.to_output(attended)

    def weights(
        self,
        queries: Float[Tensor, "batch queries query_width"],
        context: KeysValues,
        mask: Bool[Tensor, "#batch #queries context"] | None = None,
    ) -> Float[Tensor, "batch heads queries context"]:
        """The attention weights that :meth:`forward` uses, written out: softmax(q k / sqrt(d))."""
        scores = self._split(self.to_queries(queries)) @ context.keys.transpose(-1, -2)
        scores = scores * self.head_width**-0.5
        if mask is None:
            return scores.softmax(dim=-1)
        scores = scores.masked_fill(~_open_blind_rows(mask)[:, None], float("-inf"))
        return scores.softmax(dim=-1) * mask.any(dim=-1, keepdim=True)[:, None]

    def _split(self, projected: Float[Tensor, "batch length inner"]) -> Float[Tensor, "batch heads length head_width"]:
        return projected.unflatten(-1, (self.heads, self.head_width)).transpose(1, 2)


class SelfAttention(nn.Module):
    """Multi-head attention of a sequence to itself (Vaswani et al. 2017, section 3.2.2), with biases.

    Args:
        width: width of the sequence.
        heads: number of attention heads; must divide the width.
        dropout: share of the attention weights that is dropped in training.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0):
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.to_queries_keys_values = Linear(width, 3 * width)
        self.to_output = Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        bias: Float[Tensor, "#batch #heads #tokens tokens"] | None = None,
        places: Int[Tensor, "..."] | None = None,
        gains: tuple[Float[Tensor, "batch width"], Float[Tensor, "batch width"]] | None = None,
    ) -> Float[Tensor, "*chosen width"]:
        """Attend. ``bias`` is added to the scaled products of queries and keys; minus infinity hides a token.

        With ``places``, indices into batch and tokens laid end to end, the result is for these alone. ``gains``
        multiply a sample's queries and its keys.
        """
        queries, keys, values = self.to_queries_keys_values(x).chunk(3, dim=-1)
        if gains is not None:
            queries, keys = queries * gains[0][:, None], keys * gains[1][:, None]
        queries, keys, values = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (queries, keys, values)
        )
        with kernel_for(keys.shape[2], keys.device, keys.dtype):
            attended = F.scaled_dot_product_attention(
                queries, keys, values, attn_mask=bias, dropout_p=self.dropout if self.training else 0.0
            )
        attended = attended.transpose(1, 2).flatten(2)
        return self.to_output(attended if places is None else attended.flatten(0, 1)[places])


def kernel_for(tokens: int, device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """The attention kernel to train sequences of this length with.

    On a processor, in bfloat16, the backward pass of the fused kernel takes eight times as long as the plain one
    for sequences of a few dozen tokens (measured: 13.7 ms against 1.7 ms for 32 rows of 9 heads and 16 tokens).
    """
    short = device.type == "cpu" and dtype == torch.bfloat16 and tokens <= 128
    return sdpa_kernel(SDPBackend.MATH) if short else nullcontext()


def hide(padding: Bool[Tensor, "batch tokens"], dtype: torch.dtype) -> Float[Tensor, "batch 1 1 tokens"]:
    """An attention bias that hides padding (True) from every query."""
    return torch.zeros(padding.shape, dtype=dtype, device=padding.device).masked_fill(padding, -torch.inf)[
        :, None, None
    ]


def _open_blind_rows(mask: Bool[Tensor, "*batch queries context"]) -> Bool[Tensor, "*batch queries context"]:
    """Let a query that may look nowhere look everywhere: a softmax over nothing would be NaN.

    The caller zeroes what such a query gets.
    """
    return mask | ~mask.any(dim=-1, keepdim=True)


def look_at_media(
    media_time: Int[Tensor, "batch tokens"],
    media_count: int,
    latents: int,
    all_before: bool = False,
    media_before: Int[Tensor, "batch tokens"] | None = None,
) -> Bool[Tensor, "batch tokens row_latents"]:
    """Flamingo's mask: each token sees only the latest medium before it (section 3.1.3, figure 7).

    Args:
        media_time: (batch, tokens) the medium that each token goes with, counted from 1; 0 sees nothing.
        media_count: number of media in a row.
        latents: number of latents of each medium.
        all_before: see every medium up to that one.
        media_before: (batch, tokens) how many of them belong to other texts in the same row, and stay hidden.

    Returns:
        True where a token may look, over the media's latents laid end to end.
    """
    order = torch.arange(1, media_count + 1, device=media_time.device).repeat_interleave(latents)
    if not all_before:
        return media_time[..., None] == order
    first = torch.zeros_like(media_time) if media_before is None else media_before
    return (order <= media_time[..., None]) & (order > first[..., None])
