"""data2vec's front ends: they turn text, images and speech into sequences, and mask parts of them.

Tokens as in RoBERTa, patches as in ViT and BEiT, frames as in wav2vec 2.0 (data2vec, arXiv 2202.03555, sections 3.1
and 4). Masked positions are replaced by a mask token (section 3.2), or left out of the sequence (data2vec v2, arXiv
2212.07525, section 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.models.data2vec.blocks import EncoderConfig, Hidden, run_blocks
from vislang.models.data2vec.decoder import DecoderConfig
from vislang.models.data2vec.inputs import SAMPLE_RATE, InputsConfig
from vislang.models.settings import must_be_above_zero, must_be_at_least
from vislang.nn.embed import (
    Alibi,
    ConvolutionalPositions,
    PatchEmbedding,
    RelativePositionBias,
    SpeechConvolutions,
    TokenEmbedding,
    grid_sinusoids,
)
from vislang.nn.linear import Linear

# ---------------------------------------------------------------------------------------------- configuration


@dataclass
class AlibiConfig:
    """An attention bias by distance; see :class:`~vislang.nn.embed.Alibi`. ``heads`` None means all heads."""

    heads: int | None = None
    per_layer: bool = False
    per_head: bool = True
    learned: bool = True
    scale: float = 1.0
    distance: Literal["steps", "manhattan", "euclidean"] = "steps"

    def __post_init__(self):
        must_be_at_least(1, self, "heads", of="alibi.")


@dataclass
class FrontEndConfig:
    """The common settings of all front ends.

    Attributes:
        class_tokens: number of learned tokens before the sequence.
        norm: normalise the sequence before the first block.
        prenet_depth: number of blocks of this modality before the shared blocks.
        alibi: attention bias by distance.
        decoder: v2's decoder.
        head_layers: number of linear layers of v1's head; 0 regresses the encoder's output.
        local_gradient: factor on the gradient of tokens, patches or convolutions; 0 freezes them.
        strict_padding: padding has no effect, so an input gets the same features alone and in a batch: all layers of
            convolutional positions read zeros there, v2's encoder leaves it out, and the norms of targets exclude it.
            In the originals, only the first layer reads zeros, v2's decoder reads the encoder's output at padding, and
            targets depend on the amount of padding. Converted models do the same as the originals.
    """

    class_tokens: int = 0
    norm: bool = False
    prenet_depth: int = 0
    alibi: AlibiConfig | None = None
    decoder: DecoderConfig | None = None
    head_layers: int = 1
    local_gradient: float = 1.0
    strict_padding: bool = True

    def __post_init__(self):
        must_be_at_least(0, self, "class_tokens", "prenet_depth", "head_layers", "local_gradient")


@dataclass
class TextConfig(FrontEndConfig):
    """Byte-level BPE tokens with learned positions, as in RoBERTa."""

    vocabulary_size: int = 50265
    max_length: int = 512
    padding_id: int = 1
    mask_id: int = 50264
    positions: Literal["learned", "sinusoidal", "none"] = "learned"
    embedding_norm: bool = True
    embedding_eps: float = 1e-5
    scale_embedding: bool = False
    zero_padding: bool = True
    head_layers: int = 2

    def __post_init__(self):
        super().__post_init__()
        must_be_at_least(1, self, "vocabulary_size", "max_length")
        must_be_at_least(0, self, "padding_id", "mask_id")
        must_be_above_zero(self, "embedding_eps")
        if self.padding_id >= self.vocabulary_size:
            raise UserError(
                f"padding_id is {self.padding_id}; it must be below vocabulary_size, {self.vocabulary_size}."
            )


@dataclass
class ImageConfig(FrontEndConfig):
    """Square patches.

    Positions are an attention bias (``relative``, v1), ``fixed`` sinusoids (v2), or ``absolute``: a learned vector for
    each patch, as in ViT (Dosovitskiy et al. 2021). Class tokens have no position.
    """

    size: int = 224
    patch: int = 16
    channels: int = 3
    patch_width: int | None = None
    positions: Literal["relative", "fixed", "absolute", "none"] = "relative"
    relative_per_layer: bool = False
    class_tokens: int = 1
    head_layers: int = 0

    def __post_init__(self):
        super().__post_init__()
        must_be_at_least(1, self, "size", "patch", "channels", "patch_width")


@dataclass
class SpeechConfig(FrontEndConfig):
    """A 16 kHz waveform: strided convolutions to frames, and convolutional positions.

    With ``log_mel`` the first layer is fixed: its channels are log energies in mel bands (see
    :class:`~vislang.nn.embed.MelEnergies`). This is not in the papers. It helps with a few hours of sound, which are
    too little to learn a spectrum from.
    """

    convolutions: Sequence[Sequence[int]] = (
        (512, 10, 5),
        *[(512, 3, 2)] * 4,
        *[(512, 2, 2)] * 2,
    )
    convolution_norm: Literal["layer", "group"] = "layer"
    convolution_bias: bool = False
    log_mel: bool = False
    position_kernel: int = 95
    position_groups: int = 16
    position_depth: int = 5
    position_norm: bool = False
    position_weight_norm: bool = False
    feature_eps: float = 1e-5
    zero_padding: bool = True
    norm: bool = True

    def __post_init__(self):
        super().__post_init__()
        must_be_at_least(1, self, "position_kernel", "position_groups")
        must_be_at_least(0, self, "position_depth")
        must_be_above_zero(self, "feature_eps")
        if not self.convolutions or any(len(layer) != 3 or min(layer) < 1 for layer in self.convolutions):
            raise UserError(
                f"convolutions is {self.convolutions}; each is channels, kernel and stride, all at least 1, and there "
                "must be one."
            )


@dataclass
class Modalities:
    """The front ends of a model, at least one."""

    text: TextConfig | None = None
    image: ImageConfig | None = None
    speech: SpeechConfig | None = None

    def present(self) -> dict[str, FrontEndConfig]:
        """The front ends that are set, by name."""
        named: dict[str, FrontEndConfig | None] = {"text": self.text, "image": self.image, "speech": self.speech}
        return {name: config for name, config in named.items() if config is not None}


def must_agree(modalities: Modalities, inputs: InputsConfig) -> None:
    """Check that images are prepared at the size that their front end reads.

    Raises:
        UserError: they are not.
    """
    if modalities.image is not None and inputs.image is not None and modalities.image.size != inputs.image.size:
        raise UserError(
            f"inputs.image.size is {inputs.image.size}, and modalities.image.size is {modalities.image.size}; they "
            "must be equal."
        )


# -------------------------------------------------------------------------------------------------- front ends


class FrontEnd(nn.Module):
    """The front end of a modality: local features, positions, class tokens, and blocks of its own."""

    def __init__(self, config: FrontEndConfig, encoder: EncoderConfig, local: nn.Module):
        super().__init__()
        width = encoder.width
        self.config = config
        self.local: nn.Module | None = local
        self.fixed_positions: nn.Parameter | None = None
        self.absolute_positions: nn.Parameter | None = None
        self.positions: nn.Module | None = None
        self.mask_token: nn.Parameter | None = None
        self.class_tokens = (
            nn.Parameter(0.02 * torch.randn(config.class_tokens, width)) if config.class_tokens else None
        )
        self.norm = nn.LayerNorm(width, encoder.eps, encoder.affine) if config.norm else None
        self.prenet = encoder.blocks(config.prenet_depth)
        self.zero_padding = False
        self.bias: Alibi | RelativePositionBias | None = None
        if (alibi := config.alibi) is not None:
            layers = config.prenet_depth + encoder.depth if alibi.per_layer else 1
            heads = alibi.heads or encoder.heads
            self.bias = Alibi(heads, layers, alibi.per_head, alibi.learned, alibi.scale, alibi.distance)
        self.heads = encoder.heads

    def local_features(self, values: Tensor) -> Float[Tensor, "batch tokens width"]:
        """The features of each token, patch or frame, without context."""
        assert self.local is not None
        factor = self.config.local_gradient
        with torch.set_grad_enabled(torch.is_grad_enabled() and factor > 0):
            local = self.local(values)
        if factor not in (0, 1):
            local = factor * local + (1 - factor) * local.detach()
        return self._project(local)

    def _project(self, local: Tensor) -> Tensor:
        return local

    def pad(self, padding: Bool[Tensor, "batch inputs"], tokens: int) -> Bool[Tensor, "batch tokens"]:
        """The padding of tokens, from the padding of the input in its own units."""
        del tokens
        return padding

    def forward(
        self,
        local: Float[Tensor, "batch tokens width"],
        padding: Bool[Tensor, "batch tokens"] | None = None,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        leave_out: bool = False,
    ) -> Hidden:
        """Add positions to the local features, and mask some.

        Args:
            local: local features.
            padding: True at padding.
            mask: True at the positions to mask.
            leave_out: leave them out of the sequence (v2) instead of replacing them by mask tokens (v1).
        """
        tokens = local
        bias = self._bias(local.shape[1])
        if mask is not None and not leave_out and self.mask_token is not None:
            tokens = torch.where(mask[..., None], self.mask_token, tokens)
        for positions in (self.fixed_positions, self.absolute_positions):
            if positions is not None:
                tokens = tokens + positions
        if self.zero_padding and padding is not None:
            tokens = tokens * ~padding[..., None]
        if self.positions is not None:
            seen = tokens if mask is None or not leave_out else tokens * ~mask[..., None]
            tokens = tokens + self.positions(seen, padding if self.config.strict_padding else None)
        if mask is not None and leave_out:
            left_out = mask if padding is None or not self.config.strict_padding else mask | padding
            tokens, padding, bias = _visible(left_out, tokens, padding, bias)
        if self.class_tokens is not None:
            tokens = torch.cat([self.class_tokens.expand(len(tokens), -1, -1), tokens], dim=1)
            extra = len(self.class_tokens)
            padding = None if padding is None else F.pad(padding, (extra, 0))
            if bias is not None and isinstance(self.bias, Alibi):
                bias = F.pad(bias, (extra, 0, extra, 0))
        if self.norm is not None:
            tokens = self.norm(tokens)
        own = shared = bias
        if bias is not None and len(bias) > 1:
            own, shared = bias[: len(self.prenet)], bias[len(self.prenet) :]
        tokens, _ = run_blocks(self.prenet, Hidden(tokens, padding, own))
        return Hidden(tokens, padding, shared)

    def _bias(self, tokens: int) -> Tensor | None:
        if self.bias is None:
            return None
        bias = self.bias(tokens)
        # Heads without ALiBi get a bias of 0.
        return F.pad(bias, (0, 0, 0, 0, 0, self.heads - bias.shape[2]))


def _visible(
    mask: Tensor, tokens: Tensor, padding: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Remove masked positions from a sequence, its padding and its attention bias.

    Rows with fewer visible positions than others are padded.
    """
    counts = (~mask).sum(dim=1)
    longest = int(counts.max())
    kept = mask.to(torch.uint8).argsort(dim=1, stable=True)[:, :longest]
    filling = torch.arange(longest, device=mask.device) >= counts[:, None]
    if padding is not None or bool(filling.any()):
        padding = filling if padding is None else padding.gather(1, kept) | filling
    tokens = tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
    if bias is not None:
        layers, _, heads, _, length = bias.shape
        rows = kept[None, :, None, :, None].expand(layers, -1, heads, -1, length)
        bias = bias.expand(-1, len(mask), -1, -1, -1).gather(3, rows)
        columns = kept[None, :, None, None, :].expand(layers, -1, heads, kept.shape[1], -1)
        bias = bias.gather(4, columns)
    return tokens, padding, bias


class TextFrontEnd(FrontEnd):
    """Tokens with absolute positions. Masked positions have the mask token's id already."""

    def __init__(self, config: TextConfig, encoder: EncoderConfig):
        local = TokenEmbedding(
            config.vocabulary_size,
            encoder.width,
            max_length=config.max_length,
            padding_id=config.padding_id,
            positions=config.positions,
            norm=config.embedding_norm,
            eps=config.embedding_eps,
            scale=config.scale_embedding,
            zero_padding=config.zero_padding,
        )
        super().__init__(config, encoder, local)


class ImageFrontEnd(FrontEnd):
    """Patches of an image, row by row."""

    def __init__(self, config: ImageConfig, encoder: EncoderConfig):
        super().__init__(
            config, encoder, PatchEmbedding(config.patch, encoder.width, config.channels, config.patch_width)
        )
        self.side = config.size // config.patch
        if config.positions == "fixed":
            self.fixed_positions = nn.Parameter(
                grid_sinusoids(self.side, self.side, encoder.width), requires_grad=False
            )
        elif config.positions == "absolute":
            self.absolute_positions = nn.Parameter(0.02 * torch.randn(self.side**2, encoder.width))
        elif config.positions == "relative":
            layers = config.prenet_depth + encoder.depth if config.relative_per_layer else 1
            self.bias = RelativePositionBias(self.side, self.side, encoder.heads, layers)
        if config.decoder is None:
            self.mask_token = nn.Parameter(0.02 * torch.randn(encoder.width))


class SpeechFrontEnd(FrontEnd):
    """Frames of a waveform."""

    def __init__(self, config: SpeechConfig, encoder: EncoderConfig):
        local = SpeechConvolutions(
            config.convolutions,
            config.convolution_norm,
            config.convolution_bias,
            SAMPLE_RATE if config.log_mel else 0,
        )
        super().__init__(config, encoder, local)
        channels = config.convolutions[-1][0]
        self.project: nn.Module | None = nn.Sequential(
            nn.LayerNorm(channels, config.feature_eps), Linear(channels, encoder.width)
        )
        self.positions = ConvolutionalPositions(
            encoder.width,
            config.position_kernel,
            config.position_groups,
            config.position_depth,
            config.position_norm,
            config.position_weight_norm,
        )
        self.zero_padding = config.zero_padding
        if config.decoder is None:
            self.mask_token = nn.Parameter(torch.rand(encoder.width))

    def _project(self, local: Tensor) -> Tensor:
        assert self.project is not None
        return self.project(local)

    def pad(self, padding: Bool[Tensor, "batch inputs"], tokens: int) -> Bool[Tensor, "batch tokens"]:
        """A frame is padding if it depends on padded samples."""
        assert isinstance(self.local, SpeechConvolutions)
        real = self.local.frames((~padding).sum(dim=-1))
        return torch.arange(tokens, device=padding.device) >= real[:, None]


FRONT_ENDS = {TextConfig: TextFrontEnd, ImageConfig: ImageFrontEnd, SpeechConfig: SpeechFrontEnd}
