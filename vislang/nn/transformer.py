"""Blocks of transformers that models share."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn


class FeedForward(nn.Sequential):
    """Pre-norm feed-forward: LayerNorm, widen, GELU, narrow; no biases in the linear maps.

    Args:
        width: width of the input and of the output.
        expansion: the inner width is ``expansion * width``.
    """

    def __init__(self, width: int, expansion: int = 4):
        super().__init__(
            nn.LayerNorm(width),
            nn.Linear(width, expansion * width, bias=False),
            nn.GELU(),
            nn.Linear(expansion * width, width, bias=False),
        )

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch width"]:
        """Map each position on its own; the residual connection is the caller's."""
        return super().forward(x)
