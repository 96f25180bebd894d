"""data2vec's transformer blocks: their configuration, and how they are run.

It is a standard transformer (data2vec, arXiv 2202.03555, section 3.1). Targets are made of the outputs of the teacher's
last blocks (section 3.3), so :func:`run_blocks` can return these; and the last block needs only the masked positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.settings import must_be_above_zero, must_be_at_least, must_be_rates
from vislang.nn.attention import Mask, not_padding
from vislang.nn.transformer import EncoderBlock


@dataclass
class EncoderConfig:
    """The encoder that all modalities share. The defaults are the base model's.

    Attributes:
        width, depth, heads, mlp_width: width of the sequence, and numbers of blocks, attention heads and feed-forward
            units.
        norm_first: normalise before each branch (images in v1), not after each addition.
        final_norm: normalise the output of the last block.
        eps, affine: eps of the layer norms, and whether they have weights.
        activation: activation of the feed-forward layers.
        layer_scale: initial factor on each branch; None for no factor.
        dropout, attention_dropout, activation_dropout: see EncoderBlock.
        drop_path: probability of dropping a branch in the first and in the last block; it rises linearly.
    """

    width: int = 768
    depth: int = 12
    heads: int = 12
    mlp_width: int = 3072
    norm_first: bool = False
    final_norm: bool = False
    eps: float = 1e-5
    affine: bool = True
    activation: Literal["gelu", "relu"] = "gelu"
    layer_scale: float | None = None
    dropout: float = 0.0
    attention_dropout: float = 0.0
    activation_dropout: float = 0.0
    drop_path: Sequence[float] = (0.0, 0.0)

    def __post_init__(self):
        must_be_at_least(1, self, "width", "depth", "heads", "mlp_width")
        must_be_above_zero(self, "eps")
        must_be_rates(self, "dropout", "attention_dropout", "activation_dropout")
        if self.width % self.heads:
            raise UserError(f"width {self.width} is not a multiple of {self.heads} heads.")
        if len(self.drop_path) != 2:
            raise UserError(f"drop_path is {list(self.drop_path)}; it must have two rates.")
        if not all(0 <= rate < 1 for rate in self.drop_path):
            raise UserError(f"drop_path is {list(self.drop_path)}; both must be at least 0 and below 1.")

    def blocks(self, depth: int, drop_path: Sequence[float] = (0.0, 0.0)) -> nn.ModuleList:
        """Blocks of this shape; the rate of ``drop_path`` rises from the first to the last."""
        rates = torch.linspace(drop_path[0], drop_path[1], depth).tolist()
        return nn.ModuleList(
            Block(
                self.width,
                self.heads,
                self.mlp_width,
                norm_first=self.norm_first,
                eps=self.eps,
                affine=self.affine,
                activation=self.activation,
                layer_scale=self.layer_scale,
                dropout=self.dropout,
                attention_dropout=self.attention_dropout,
                activation_dropout=self.activation_dropout,
                drop_path=rate,
            )
            for rate in rates
        )


class Block(EncoderBlock):
    """A transformer block that can compute its outputs at some positions only."""

    def forward(
        self,
        x: Float[Tensor, "batch tokens width"],
        mask: Mask | None = None,
        positions: Int[Tensor, "..."] | None = None,
    ) -> tuple[Float[Tensor, "*chosen width"], Float[Tensor, "*chosen width"]]:
        """See :class:`~vislang.nn.transformer.EncoderBlock`.

        With ``positions`` (indices into the flattened batch and tokens), outputs are (positions, width), and after the
        attention nothing is computed for other tokens.
        """
        if positions is None:
            return super().forward(x, mask)
        attended = self.attention.attend(*self.project(x), mask)
        samples = positions // x.shape[1]
        return self.after_attention(x.flatten(0, 1)[positions], attended.flatten(0, 1)[positions], samples)


class Hidden(NamedTuple):
    """A sequence between the layers of the encoder.

    Attributes:
        tokens: the tokens, class tokens first.
        padding: True at padding.
        bias: attention bias of each layer, or one for all layers.
    """

    tokens: Float[Tensor, "batch tokens width"]
    padding: Bool[Tensor, "batch tokens"] | None
    bias: Float[Tensor, "layers _ heads tokens tokens"] | None


def run_blocks(
    blocks: nn.ModuleList,
    hidden: Hidden,
    keep: int = 0,
    end_of_block: bool = False,
    positions: Int[Tensor, "..."] | None = None,
) -> tuple[Float[Tensor, "*chosen width"], list[Tensor]]:
    """Run all blocks; returns the output, and the outputs (feed-forward or block) of the last ``keep`` blocks.

    With ``positions`` (indices into the flattened batch and tokens), all results are (positions, width), and the last
    block computes only these positions.
    """
    tokens = hidden.tokens
    results: list[Tensor] = []
    for index, block in enumerate(blocks):
        assert isinstance(block, Block)
        mask = _mask(hidden, index)
        last = index == len(blocks) - 1
        tokens, result = block(tokens, mask, positions if last else None)
        if index >= len(blocks) - keep:
            kept = tokens if end_of_block else result
            results.append(kept if last or positions is None else kept.flatten(0, 1)[positions])
    return tokens, results


def _mask(hidden: Hidden, layer: int) -> Mask | None:
    """The attention mask of a layer: its bias, and minus infinity at padding."""
    mask = not_padding(hidden.padding)
    if hidden.bias is None:
        return mask
    bias = hidden.bias[layer if len(hidden.bias) > 1 else 0]
    return bias if mask is None else bias.masked_fill(~mask, -torch.inf)
