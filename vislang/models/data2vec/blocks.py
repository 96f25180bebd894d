"""data2vec's blocks: their shape, the sequence that passes through them, and the result of each.

A standard transformer (data2vec, arXiv 2202.03555, section 3.1). The teacher's targets are the results of its last
blocks (section 3.3), which is why running them can give those too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.nn.attention import Mask, not_padding
from vislang.nn.transformer import EncoderBlock


@dataclass
class EncoderConfig:
    """The encoder that all modalities share. The defaults are the base model's.

    Attributes:
        width, depth, heads, mlp_width: width of the sequence, blocks, attention heads, feed-forward units.
        norm_first: normalise before each branch (images in v1) or after each addition.
        final_norm: normalise the last block's output.
        eps, affine: of the layer norms.
        activation: of the feed-forward.
        layer_scale: initial factor on each branch; None for none.
        dropout, attention_dropout, activation_dropout: see EncoderBlock.
        drop_path: probability of dropping a branch, of the first and of the last block; it rises between.
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
        for name in ("width", "depth", "heads", "mlp_width"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must be at least 1.")
        if self.width % self.heads:
            raise UserError(f"width {self.width} is no multiple of {self.heads} heads.")
        if len(self.drop_path) != 2:
            raise UserError(f"drop_path is {list(self.drop_path)}; it must have two rates.")

    def blocks(self, depth: int, drop_path: Sequence[float] = (0.0, 0.0)) -> nn.ModuleList:
        """So many blocks of this shape."""
        rates = torch.linspace(drop_path[0], drop_path[1], depth).tolist()
        return nn.ModuleList(
            EncoderBlock(
                self.width,
                self.heads,
                self.mlp_width,
                self.norm_first,
                self.eps,
                self.affine,
                self.activation,
                self.layer_scale,
                self.dropout,
                self.attention_dropout,
                self.activation_dropout,
                rate,
            )
            for rate in rates
        )


class Hidden(NamedTuple):
    """A sequence between the layers of the encoder.

    Attributes:
        tokens: class tokens first.
        padding: True where there is nothing.
        bias: on the attention of each layer (or of all layers, where there is one).
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
    """Through all blocks; the last ``keep`` of their results too (feed-forward outputs, or block outputs).

    With ``positions``, indices into batch and tokens laid end to end, all that is returned is (positions, width), and
    the last block computes no other token.
    """
    tokens = hidden.tokens
    results: list[Tensor] = []
    for index, block in enumerate(blocks):
        assert isinstance(block, EncoderBlock)
        mask = _mask(hidden, index)
        last = index == len(blocks) - 1
        tokens, result = block(tokens, mask, positions if last else None)
        if index >= len(blocks) - keep:
            kept = tokens if end_of_block else result
            results.append(kept if last or positions is None else kept.flatten(0, 1)[positions])
    return tokens, results


def _mask(hidden: Hidden, layer: int) -> Mask | None:
    """The attention mask of a layer: its bias, and nothing of the padding."""
    mask = not_padding(hidden.padding)
    if hidden.bias is None:
        return mask
    bias = hidden.bias[layer if len(hidden.bias) > 1 else 0]
    return bias if mask is None else bias.masked_fill(~mask, -torch.inf)
