"""Transformer blocks that models share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from vislang.nn.attention import Mask, SelfAttention
from vislang.nn.linear import Linear
from vislang.nn.recompute import Recomputable

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


class FeedForward(nn.Sequential):
    """Pre-norm feed-forward layer: LayerNorm, linear, GELU, linear; the linear layers have no biases.

    Args:
        width: width of the input and of the output.
        expansion: the inner width is ``expansion * width``.
    """

    def __init__(self, width: int, expansion: int = 4):
        super().__init__(
            nn.LayerNorm(width),
            Linear(width, expansion * width, bias=False),
            nn.GELU(),
            Linear(expansion * width, width, bias=False),
        )

    @property
    def norm(self) -> nn.LayerNorm:
        """The layer norm at its input."""
        norm = self[0]
        assert isinstance(norm, nn.LayerNorm)
        return norm

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Apply the layer to each position; without the residual connection."""
        return super().forward(x)


class DropPath(nn.Module):
    """Stochastic depth: in training, the branch of a sample is dropped with this probability, and the others are scaled
    up (Huang et al. 2016, section 3)."""

    def __init__(self, probability: float = 0.0):
        super().__init__()
        self.probability = probability

    def forward(
        self, branch: Float[Tensor, "rows ..."], samples: Int[Tensor, "..."] | None = None
    ) -> Float[Tensor, "rows ..."]:
        """Set the branch of random samples to zero. If rows are tokens, ``samples`` has the sample of each row."""
        if not self.training or self.probability == 0.0:
            return branch
        kept = 1 - self.probability
        count = len(branch) if samples is None else int(samples.max()) + 1
        coins = torch.rand(count, *[1] * (branch.ndim - 1), device=branch.device) < kept
        return branch * (coins if samples is None else coins[samples]) / kept


class EncoderBlock(Recomputable):
    """Self-attention, then a feed-forward layer, each with a residual connection.

    Layer norms follow each addition, as in the original transformer, or precede each branch, as in ViT. The block
    returns its output, and the feed-forward output before the addition, which data2vec regresses.

    Args:
        width: width of the sequence.
        heads: number of attention heads.
        mlp_width: inner width of the feed-forward layer.
        norm_first: normalise before each branch, not after each addition.
        eps: of the layer norms.
        affine: whether the layer norms have weights.
        activation: of the feed-forward layer.
        layer_scale: initial value of a factor per channel on each branch (Touvron et al. 2021); None for no factors.
        dropout: dropout rate of the output of each branch.
        attention_dropout: dropout rate of the attention weights.
        activation_dropout: dropout rate of the feed-forward layer's hidden units.
        drop_path: probability of dropping a branch.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        mlp_width: int,
        norm_first: bool = False,
        eps: float = 1e-5,
        affine: bool = True,
        activation: Literal["gelu", "relu"] = "gelu",
        layer_scale: float | None = None,
        dropout: float = 0.0,
        attention_dropout: float = 0.0,
        activation_dropout: float = 0.0,
        drop_path: float = 0.0,
    ):
        super().__init__()
        self.norm_first = norm_first
        self.activation = ACTIVATIONS[activation]
        self.attention = SelfAttention(width, heads, attention_dropout)
        self.attention_norm = nn.LayerNorm(width, eps, affine)
        self.widen = Linear(width, mlp_width)
        self.narrow = Linear(mlp_width, width)
        self.feed_forward_norm = nn.LayerNorm(width, eps, affine)
        scale = None if layer_scale is None else torch.full((width,), layer_scale)
        self.attention_scale = None if scale is None else nn.Parameter(scale.clone())
        self.feed_forward_scale = None if scale is None else nn.Parameter(scale.clone())
        self.dropout = nn.Dropout(dropout)
        self.activation_dropout = nn.Dropout(activation_dropout)
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        mask: Mask | None = None,
    ) -> tuple[Float[Tensor, "batch tokens width"], Float[Tensor, "batch tokens width"]]:
        """The block's output, and its feed-forward's output before the residual connection and any dropout.

        ``mask`` is the attention mask, see :mod:`vislang.nn.attention`.
        """
        return self.after_attention(x, self.attention.attend(*self.project(x), mask))

    def project(self, x: Float[Tensor, "batch tokens width"]) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the attention: (batch, heads, tokens, head width)."""
        return self.attention.project(self.attention_norm(x) if self.norm_first else x)

    def after_attention(
        self,
        x: Float[Tensor, "*rows width"],
        attended: Float[Tensor, "*rows width"],
        samples: Int[Tensor, "..."] | None = None,
    ) -> tuple[Float[Tensor, "*rows width"], Float[Tensor, "*rows width"]]:
        """The part of :meth:`forward` after attention, which treats each token separately.

        Args:
            x: the block's input.
            attended: the concatenated outputs of the attention heads.
            samples: the sample of each row, if rows are single tokens.
        """
        x = x + self._branch(self.attention.to_output(attended), self.attention_scale, samples)
        if self.norm_first:
            result = self._feed_forward(self.feed_forward_norm(x))
            return x + self._branch(result, None, samples), result
        x = self.attention_norm(x)
        result = self._feed_forward(x)
        return self.feed_forward_norm(x + self._branch(result, None, samples)), result

    def _feed_forward(self, x: Tensor) -> Tensor:
        result = self.narrow(self.activation_dropout(self.activation(self.widen(x))))
        return result if self.feed_forward_scale is None else self.feed_forward_scale * result

    def _branch(self, branch: Tensor, scale: Tensor | None, samples: Tensor | None) -> Tensor:
        return self.drop_path(self.dropout(branch if scale is None else scale * branch), samples)
