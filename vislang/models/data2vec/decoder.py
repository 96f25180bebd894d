"""data2vec's heads, which predict the teacher's representations from the student's.

v1 uses linear layers (arXiv 2202.03555, section 3.4). v2 uses a convolutional decoder, which adds the positions that
the encoder did not read (arXiv 2212.07525, section 3.2).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.settings import must_be_above_zero, must_be_at_least
from vislang.nn.embed import ChannelNorm
from vislang.nn.linear import Linear


@dataclass
class DecoderConfig:
    """v2's decoder (section 3.2): convolutions over the sequence, or over the grid of an image.

    Attributes:
        width, layers, kernel, groups: shape of the convolutions.
        residual: add the input of each layer to its output, if the widths are equal.
        projection_layers: number of linear layers that project back to the encoder's width.
        projection_ratio: inner width of these layers, as a multiple of the decoder's width.
        positions: where fixed positions are added to the decoder's input: ``none``, only at masked positions
            (``gaps``), or ``all``.
        noise: standard deviation of the noise at masked positions.
    """

    width: int = 768
    layers: int = 6
    kernel: int = 3
    groups: int = 16
    residual: bool = True
    projection_layers: int = 1
    projection_ratio: float = 2.0
    positions: Literal["none", "gaps", "all"] = "none"
    noise: float = 0.01

    def __post_init__(self):
        must_be_at_least(1, self, "width", "layers", "kernel", "groups", of="decoder.")
        must_be_at_least(0, self, "projection_layers", "noise", of="decoder.")
        must_be_above_zero(self, "projection_ratio", of="decoder.")
        if self.width % self.groups:
            raise UserError(f"decoder.width {self.width} is not a multiple of {self.groups} groups.")


def regression_head(width: int, layers: int) -> nn.Sequential:
    """Linear layers with GELU between them; the inner width is twice the outer one (fairseq's ``head_layers``)."""
    widths = [width, *[2 * width] * (layers - 1), width] if layers else []
    parts: list[nn.Module] = []
    for index in range(layers):
        parts += [nn.GELU()] if index else []
        parts.append(Linear(widths[index], widths[index + 1]))
    return nn.Sequential(*parts)


class ConvolutionalDecoder(nn.Module):
    """Predicts the masked positions from the encoder's output at the visible ones (v2, section 3.2).

    Args:
        config: shape of the decoder.
        width: width of the encoder.
        side: number of patches along a side, for convolutions over the grid of an image; None for a sequence.
    """

    def __init__(self, config: DecoderConfig, width: int, side: int | None = None):
        super().__init__()
        self.config = config
        self.side = side
        convolution = nn.Conv1d if side is None else nn.Conv2d
        self.layers = nn.ModuleList(
            convolution(
                width if index == 0 else config.width,
                config.width,
                config.kernel,
                padding=config.kernel // 2,
                groups=config.groups,
            )
            for index in range(config.layers)
        )
        self.norm = ChannelNorm(config.width, elementwise_affine=False)
        inner = int(config.width * config.projection_ratio)
        widths = [config.width, *[inner] * (config.projection_layers - 1), width]
        parts: list[nn.Module] = []
        for index in range(config.projection_layers):
            parts += [nn.GELU()] if index else []
            parts.append(Linear(widths[index], widths[index + 1]))
        self.project = nn.Sequential(*parts)

    def forward(
        self,
        visible: Float[Tensor, "batch visible width"],
        mask: Bool[Tensor, "batch tokens"],
        positions: Float[Tensor, "tokens width"] | None = None,
        padding: Bool[Tensor, "batch tokens"] | None = None,
    ) -> Float[Tensor, "batch tokens width"]:
        """Predictions at all positions.

        Args:
            visible: the encoder's output without class tokens, in the order of the sequence; shorter rows are padded at
                the end.
            mask: True at masked positions.
            positions: fixed positions, if the configuration has them.
            padding: True at padding; each layer reads zeros there, so that a sequence is decoded alike alone and beside
                longer ones.
        """
        x = self.config.noise * torch.randn(*mask.shape, visible.shape[-1], device=visible.device, dtype=visible.dtype)
        counts = (~mask).sum(dim=1)
        real = torch.arange(visible.shape[1], device=mask.device) < counts[:, None]
        x = x.masked_scatter(~mask[..., None], visible[real])
        if positions is not None and self.config.positions != "none":
            x = x + (positions * mask[..., None] if self.config.positions == "gaps" else positions)
        x = x.transpose(1, 2)
        if self.side is not None:
            x = x.unflatten(-1, (self.side, self.side))
        for layer in self.layers:
            # An even kernel outputs one position too many along each side.
            size = (slice(None), slice(None), *(slice(n) for n in x.shape[2:]))
            if padding is not None:
                x = x * ~padding[:, None]
            y = F.gelu(self.norm(layer(x)[size]))
            x = x + y if self.config.residual and x.shape == y.shape else y
        return self.project(x.flatten(2).transpose(1, 2))
