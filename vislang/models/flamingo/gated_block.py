"""The gated cross-attention block: text attends to media before a frozen layer."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vislang.nn.attention import CrossAttention, KeysValues
from vislang.nn.statistics import mean_and_std
from vislang.nn.transformer import FeedForward


class GatedCrossAttentionBlock(nn.Module):
    """Text attends to media before a frozen layer, scaled by two gates (section 2.2, figure 4).

    ``x = x + s tanh(a) * attend(x, media)``, then ``x = x + s tanh(f) * feed_forward(x)``. By default both gates, a
    and f, start at 0, so training starts from the unchanged language model.

    The scale s is not in the paper, where it is 1. In the upper layers of SmolLM2-135M, the hidden states have a root
    mean square of 8 to 25, and the output of an untrained block has about 0.1. With s, the output has the magnitude of
    the layer's hidden states; without it, the block would first have to learn this magnitude.

    Args:
        width: width of the language model.
        media_width: width of the latents.
        heads, head_width: shape of the attention.
        expansion: inner width of the feed-forward layer, as a multiple of its width.
        scale: s, the root mean square of the hidden states before this layer.
        opening: tanh of both gates at the start of training; 0 is closed.
    """

    def __init__(
        self,
        width: int,
        media_width: int,
        heads: int = 8,
        head_width: int = 64,
        expansion: int = 4,
        scale: float = 1.0,
        opening: float = 0.0,
    ):
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(width)
        self.attention = CrossAttention(width, media_width, heads, head_width)
        self.attention_gate = nn.Parameter(torch.full((), math.atanh(opening)))
        self.feed_forward = FeedForward(width, expansion)
        self.feed_forward_gate = nn.Parameter(torch.full((), math.atanh(opening)))

    @torch.no_grad()
    def standardise(self, hidden: Float[Tensor, "tokens width"]) -> None:
        """Set the weights of both layer norms so that each channel of their output has mean 0 and standard deviation 1.

        Not in the paper. In a language model's upper layers a few channels are large and almost constant. After a layer
        norm they hold most of the variance, and what distinguishes one text from another holds a few hundredths of it.

        Args:
            hidden: hidden states before this layer.
        """
        mean, std = mean_and_std(F.layer_norm(hidden, hidden.shape[-1:], eps=self.norm.eps))
        for norm in (self.norm, self.feed_forward.norm):
            norm.weight.copy_(1 / std)
            norm.bias.copy_(-mean / std)

    def forward(
        self,
        hidden: Float[Tensor, "batch tokens width"],
        media: KeysValues,
        mask: Bool[Tensor, "#batch #tokens row_latents"] | None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Let each token attend to the media where ``mask`` is True; without a mask, to all of them."""
        attended = self.attention(self.norm(hidden), media, mask)
        hidden = hidden + self.scale * self.attention_gate.tanh() * attended
        return hidden + self.scale * self.feed_forward_gate.tanh() * self.feed_forward(hidden)
