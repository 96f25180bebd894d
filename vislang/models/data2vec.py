"""data2vec: one self-supervised objective for text, images and speech (Baevski et al. 2022 and 2023).

Read from the top. A front end turns its modality into a sequence of vectors, and hides part of it. The encoder
does not know the modality. A teacher, which is the average of the student over time, reads the whole input; the
student reads what was left of it, and regresses what the teacher's upper layers made of the hidden places.

The two generations differ in how the student sees the gaps:

* **v1** (arXiv 2202.03555): mask tokens fill them, and go through the whole encoder.
* **v2** (arXiv 2212.07525): the encoder reads only what is visible; a small convolutional decoder fills the gaps
  in. Several masks of a sample share one reading by the teacher.
"""

from __future__ import annotations

import copy
import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.capabilities import Progress
from vislang.document import Document
from vislang.errors import UserError
from vislang.models.inputs import SAMPLE_RATE, Inputs
from vislang.models.saved import fill_model, read_config, write_model
from vislang.nn.attention import hide
from vislang.nn.averaging import annealed_decay, average_into
from vislang.nn.embed import (
    Alibi,
    ChannelNorm,
    ConvolutionalPositions,
    PatchEmbedding,
    RelativePositionBias,
    SpeechConvolutions,
    TokenEmbedding,
    grid_sinusoids,
)
from vislang.nn.linear import Linear
from vislang.nn.transformer import EncoderBlock

# ---------------------------------------------------------------------------------------------- configuration


@dataclass
class EncoderConfig:
    """The encoder that all modalities share. The defaults are the base model's.

    Attributes:
        width, depth, heads, hidden: width of the sequence, blocks, attention heads, feed-forward units.
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
    hidden: int = 3072
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

    def blocks(self, depth: int, drop_path: Sequence[float] = (0.0, 0.0)) -> nn.ModuleList:
        """So many blocks of this shape."""
        rates = torch.linspace(drop_path[0], drop_path[1], depth).tolist()
        return nn.ModuleList(
            EncoderBlock(
                self.width,
                self.heads,
                self.hidden,
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


@dataclass
class AlibiConfig:
    """Attention that falls with distance; see :class:`~vislang.nn.embed.Alibi`. ``heads`` None means all heads."""

    heads: int | None = None
    per_layer: bool = False
    per_head: bool = True
    learned: bool = True
    scale: float = 1.0
    distance: Literal["steps", "manhattan", "euclidean"] = "steps"


@dataclass
class DecoderConfig:
    """v2's decoder (section 3.3): convolutions over the sequence, or over the grid of an image.

    Attributes:
        width, layers, kernel, groups: of the convolutions.
        residual: add each layer's input to its output, where the widths agree.
        projection_layers: linear layers that lead back to the encoder's width.
        projection_ratio: inner width of those, in decoder widths.
        positions: where fixed positions are added to the decoder's input: nowhere, at the gaps, everywhere.
        noise: standard deviation of what fills the gaps.
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


@dataclass
class FrontEndConfig:
    """What the front ends of all modalities have in common.

    Attributes:
        class_tokens: learned tokens before the sequence.
        norm: normalise the sequence before the first block.
        prenet_depth: blocks of the modality's own, before the shared ones.
        alibi: bias attention by distance.
        decoder: fills the gaps in, in v2.
        head_layers: linear layers that predict, in v1; 0 regresses the encoder's output itself.
        local_gradient: factor on the gradient into tokens, patches or convolutions; 0 freezes those.
        strict_padding: padding leaves no trace, so that an input is read alike alone and in a batch: every layer of
            convolutional positions reads zeros there, v2's encoder leaves it out, and the norms of targets do not count
            it. The originals keep it out of the first layer only, let v2's decoder see what the encoder made of it, and
            normalise over it too, so that a target tells how much padding there is; converted models do as they do.
    """

    class_tokens: int = 0
    norm: bool = False
    prenet_depth: int = 0
    alibi: AlibiConfig | None = None
    decoder: DecoderConfig | None = None
    head_layers: int = 1
    local_gradient: float = 1.0
    strict_padding: bool = True


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


@dataclass
class ImageConfig(FrontEndConfig):
    """Square patches.

    Positions are a bias on attention (``relative``, v1), ``fixed`` sinusoids (v2), or ``absolute``: a learned vector
    for each patch, as in ViT (Dosovitskiy et al. 2021). Class tokens are learned themselves and need no position.
    """

    size: int = 224
    patch: int = 16
    channels: int = 3
    patch_width: int | None = None
    positions: Literal["relative", "fixed", "absolute", "none"] = "relative"
    relative_per_layer: bool = False
    class_tokens: int = 1
    head_layers: int = 0


@dataclass
class SpeechConfig(FrontEndConfig):
    """A 16 kHz waveform, frames by strided convolutions, positions by convolutions over the frames.

    With ``log_mel`` the first layer is not learned: its channels are log energies in mel bands (see
    :class:`~vislang.nn.embed.MelEnergies`). That is no part of the papers; with hours of sound rather than hundreds of
    hours, it spares the model from finding out first that sound is made of tones.
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


@dataclass
class Modalities:
    """The front ends that a model has; at least one."""

    text: TextConfig | None = None
    image: ImageConfig | None = None
    speech: SpeechConfig | None = None

    @classmethod
    def from_values(cls, values: dict[str, Any]) -> Modalities:
        """From what ``dataclasses.asdict`` gave."""
        kinds = {"text": TextConfig, "image": ImageConfig, "speech": SpeechConfig}
        parts = {"alibi": AlibiConfig, "decoder": DecoderConfig}
        made = {}
        for name, settings in values.items():
            if settings is not None:
                nested = {part: kind(**settings[part]) for part, kind in parts.items() if settings.get(part)}
                made[name] = kinds[name](**{**settings, **nested})
        return cls(**made)

    def present(self) -> dict[str, FrontEndConfig]:
        """Those that are there, by name."""
        named: dict[str, FrontEndConfig | None] = {"text": self.text, "image": self.image, "speech": self.speech}
        return {name: config for name, config in named.items() if config is not None}


Norm = Literal["batch", "instance", "group", "layer", "instance_across", "group_across"]


@dataclass
class ObjectiveConfig:
    """What is regressed, and how (v1 sections 3.3 and 3.4).

    Attributes:
        generation: ``v1`` or ``v2``.
        top_k: number of the teacher's last layers that are averaged.
        end_of_block: regress the blocks' outputs rather than their feed-forwards' (before the residual).
        layer_norms: normalisations of each layer's result, in order.
        mean_norms: normalisations of their mean, in order.
        beta: of the smooth L1 loss; 0 for the squared error.
        scale: factor on the loss, which is summed over features; None for 1 / sqrt(width).
        copies: masks of a sample that share one reading by the teacher (v2).
        class_loss: weight of predicting the mean target from the class token (v2).
        weight: of the regression.
        min_target_spread, min_prediction_spread: below these, from update ``watch_from`` on, the run has collapsed.
        watch_from: updates during which the spreads may still be small.
    """

    generation: Literal["v1", "v2"] = "v1"
    top_k: int = 8
    end_of_block: bool = False
    layer_norms: Sequence[Norm] = ("layer",)
    mean_norms: Sequence[Norm] = ()
    beta: float = 0.0
    scale: float | None = None
    copies: int = 1
    class_loss: float = 0.0
    weight: float = 1.0
    min_target_spread: float = 0.1
    min_prediction_spread: float = 0.01
    watch_from: int = 5000


@dataclass
class TeacherConfig:
    """What of the teacher is its own, and how it trails the student.

    Attributes:
        decay, end_decay, anneal_steps: the share of itself that it keeps, annealed in a straight line.
        scope: ``encoder``: the blocks alone, fed by the student's front end. ``context``: positions, class token
            and prenet too, fed by the student's local features. ``all``: it reads the input by itself.
        copied: names of the student's parameters (or what they start with) that are copied, not averaged.
    """

    decay: float = 0.999
    end_decay: float = 0.9999
    anneal_steps: int = 30_000
    scope: Literal["encoder", "context", "all"] = "context"
    copied: Sequence[str] = ()


# -------------------------------------------------------------------------------------------------- front ends


class Hidden(NamedTuple):
    """A sequence on its way through the encoder.

    Attributes:
        tokens: class tokens first.
        padding: True where there is nothing.
        bias: on the attention of each layer (or of all layers, where there is one).
    """

    tokens: Float[Tensor, "batch tokens width"]
    padding: Bool[Tensor, "batch tokens"] | None
    bias: Float[Tensor, "layers _ heads tokens tokens"] | None


class FrontEnd(nn.Module):
    """A modality's way into the encoder: local features, then positions, class tokens and blocks of its own."""

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
        """What each token, patch or frame is by itself."""
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
        """Which tokens are padding, where the input's padding is given in its own units."""
        del tokens
        return padding

    def forward(
        self,
        local: Float[Tensor, "batch tokens width"],
        padding: Bool[Tensor, "batch tokens"] | None = None,
        mask: Bool[Tensor, "batch tokens"] | None = None,
        leave_out: bool = False,
    ) -> Hidden:
        """Put positions to the local features, and hide some.

        Args:
            local: local features.
            padding: True where there is nothing.
            mask: True at the places to hide.
            leave_out: take them out of the sequence (v2) rather than put mask tokens there (v1).
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
        # Heads that ALiBi does not cover look everywhere alike.
        return F.pad(bias, (0, 0, 0, 0, 0, self.heads - bias.shape[2]))


def _visible(
    mask: Tensor, tokens: Tensor, padding: Tensor | None, bias: Tensor | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Take hidden places out of a sequence, its padding and its attention bias.

    A row with fewer visible places than another is filled up with others, as padding.
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
    """Tokens with absolute positions. What is hidden carries the mask token's id already."""

    def __init__(self, config: TextConfig, encoder: EncoderConfig):
        local = TokenEmbedding(
            config.vocabulary_size,
            encoder.width,
            config.max_length,
            config.padding_id,
            config.positions,
            config.embedding_norm,
            config.embedding_eps,
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
        """A frame is padding where it is computed from padding, in part or altogether."""
        assert isinstance(self.local, SpeechConvolutions)
        real = self.local.frames((~padding).sum(dim=-1))
        return torch.arange(tokens, device=padding.device) >= real[:, None]


FRONT_ENDS = {TextConfig: TextFrontEnd, ImageConfig: ImageFrontEnd, SpeechConfig: SpeechFrontEnd}


# ----------------------------------------------------------------------------------------------------- encoder


def run_blocks(
    blocks: nn.ModuleList,
    hidden: Hidden,
    keep: int = 0,
    end_of_block: bool = False,
    places: Int[Tensor, "..."] | None = None,
) -> tuple[Float[Tensor, "*chosen width"], list[Tensor]]:
    """Through all blocks; the last ``keep`` of their results too (feed-forward outputs, or block outputs).

    With ``places``, indices into batch and tokens laid end to end, all that is given back is (places, width).
    """
    tokens = hidden.tokens
    shared = None if hidden.padding is None else hide(hidden.padding, tokens.dtype)
    results: list[Tensor] = []
    for index, block in enumerate(blocks):
        bias = shared
        if hidden.bias is not None:
            own = hidden.bias[index if len(hidden.bias) > 1 else 0]
            bias = own if shared is None else own + shared
        last = index == len(blocks) - 1
        tokens, result = block(tokens, bias, places if last else None)
        if index >= len(blocks) - keep:
            kept = tokens if end_of_block else result
            results.append(kept if last or places is None else kept.flatten(0, 1)[places])
    return tokens, results


class Encoder(nn.Module):
    """Front ends, and the blocks that they share.

    Args:
        config: shape of the blocks.
        modalities: the front ends.
    """

    def __init__(self, config: EncoderConfig, modalities: Modalities):
        super().__init__()
        self.config = config
        self.front_ends = nn.ModuleDict(
            {name: FRONT_ENDS[type(modality)](modality, config) for name, modality in modalities.present().items()}
        )
        self.blocks = config.blocks(config.depth, config.drop_path)
        self.norm = nn.LayerNorm(config.width, config.eps, config.affine) if config.final_norm else None

    def front_end(self, modality: str) -> FrontEnd:
        """The front end of a modality."""
        front_end = self.front_ends[modality]
        assert isinstance(front_end, FrontEnd)
        return front_end

    def forward(self, hidden: Hidden, places: Int[Tensor, "..."] | None = None) -> Float[Tensor, "*chosen width"]:
        """Through the shared blocks; class tokens stay in front. With ``places``, see :func:`run_blocks`."""
        tokens, _ = run_blocks(self.blocks, hidden, places=places)
        return tokens if self.norm is None else self.norm(tokens)

    def features(
        self, modality: str, values: Tensor, padding: Tensor | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """What the encoder makes of a whole input, without class tokens.

        Args:
            modality: its name.
            values: token ids, pixels or waveforms.
            padding: True where there is nothing, in the units of ``values``.
        """
        hidden = self._enter(modality, values, padding)
        return self(hidden)[:, self.front_end(modality).config.class_tokens :]

    def embed(
        self, modality: str, values: Tensor, padding: Tensor | None, depths: Sequence[int], parts: int = 1
    ) -> list[Float[Tensor, "batch vector"]]:
        """One vector an input and a depth: the mean of its features.

        Args:
            modality, values, padding: see :meth:`features`.
            depths: after how many of the shared blocks; after all of them comes the final norm.
            parts: cut a sequence into so many equal parts, and give their means end to end: (batch, parts * width).
        """
        hidden = self._enter(modality, values, padding)
        last, results = run_blocks(self.blocks[: max(depths)], hidden, keep=max(depths), end_of_block=True)
        if max(depths) == len(self.blocks) and self.norm is not None:
            results[-1] = self.norm(last)
        extra = self.front_end(modality).config.class_tokens
        real = None if hidden.padding is None else ~hidden.padding[:, extra:]
        return [part_means(results[depth - 1][:, extra:], real, parts) for depth in depths]

    def _enter(self, modality: str, values: Tensor, padding: Tensor | None) -> Hidden:
        front_end = self.front_end(modality)
        local = front_end.local_features(values)
        return front_end(local, None if padding is None else front_end.pad(padding, local.shape[1]))


def part_means(
    features: Float[Tensor, "batch tokens width"], real: Bool[Tensor, "batch tokens"] | None, parts: int = 1
) -> Float[Tensor, "batch vector"]:
    """Mean features of each of so many equal parts of a sequence, end to end: (batch, parts * width).

    ``real`` is False at padding, which stands at the end. A sequence shorter than the parts lends a token to several.
    """
    batch, tokens, _ = features.shape
    lengths = torch.full((batch,), tokens, device=features.device) if real is None else real.sum(dim=1)
    place = torch.arange(tokens, device=features.device)
    means = []
    for part in range(parts):
        first = lengths * part // parts
        end = -(-lengths * (part + 1) // parts)
        inside = ((place >= first[:, None]) & (place < end[:, None]))[..., None]
        means.append((features * inside).sum(dim=1) / inside.sum(dim=1))
    return torch.cat(means, dim=1)


# --------------------------------------------------------------------------------------------- v1's, v2's heads


def regression_head(width: int, layers: int) -> nn.Sequential:
    """Linear layers with GELU between; the inner width is twice the outer (fairseq's ``head_layers``)."""
    widths = [width, *[2 * width] * (layers - 1), width] if layers else []
    parts: list[nn.Module] = []
    for index in range(layers):
        parts += [nn.GELU()] if index else []
        parts.append(Linear(widths[index], widths[index + 1]))
    return nn.Sequential(*parts)


class ConvolutionalDecoder(nn.Module):
    """Fills the gaps in from what the encoder made of the visible places (v2, section 3.3).

    Args:
        config: shape of the decoder.
        width: of the encoder.
        side: patches along the side of an image, for convolutions over the grid; None for a sequence.
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
    ) -> Float[Tensor, "batch tokens width"]:
        """Predictions at all places.

        Args:
            visible: the encoder's output, without class tokens, in the order of the sequence; a row with fewer places
                than another is filled up at its end.
            mask: True at the gaps.
            positions: fixed positions, where the configuration asks for them.
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
            # An even kernel gives one place too many along each side.
            size = (slice(None), slice(None), *(slice(n) for n in x.shape[2:]))
            y = F.gelu(self.norm(layer(x)[size]))
            x = x + y if self.config.residual and x.shape == y.shape else y
        return self.project(x.flatten(2).transpose(1, 2))


# --------------------------------------------------------------------------------------------------- objective


class Masked(NamedTuple):
    """A batch: a whole input, and what the student is not shown of it.

    Attributes:
        modality: its name.
        values: token ids, pixels (batch, channels, height, width) or waveforms (batch, samples).
        mask: (batch * copies, tokens) True at the places to predict.
        student_values: what the student reads in place of ``values``: token ids with mask tokens among them.
        padding: (batch, inputs) True where there is nothing, in the units of ``values``.
        names: of the documents, for messages.
    """

    modality: str
    values: Tensor
    mask: Bool[Tensor, "copies tokens"]
    student_values: Tensor | None = None
    padding: Tensor | None = None
    names: Sequence[str] = ()


class Objective(NamedTuple):
    """Everything that the objective computes.

    Attributes:
        losses: by name, each summed over places (and over features).
        places: number of predicted places.
        predictions, targets: at those places.
        class_predictions, class_targets: of the class loss, where there is one.
    """

    losses: dict[str, Float[Tensor, ""]]
    places: int
    predictions: Float[Tensor, "places width"]
    targets: Float[Tensor, "places width"]
    class_predictions: Float[Tensor, "copies width"] | None = None
    class_targets: Float[Tensor, "copies width"] | None = None


def normalise(
    x: Float[Tensor, "*batch width"], norm: Norm, real: Bool[Tensor, "batch tokens"] | None = None
) -> Float[Tensor, "*batch width"]:
    """Normalise without weights: each channel over a sample's tokens (``instance``) or over the batch's
    (``batch``), each token over its channels (``layer``), or a sample as a whole (``group``). All but ``layer``
    want (batch, tokens, width).

    ``instance_across`` and ``group_across`` take the batch for time and time for the batch, as fairseq's v1 speech
    model does where no other normalisation has put its axes in order before.

    With ``real``, what is False there (padding) counts in no mean and no variance.
    """
    x = x.float()
    if norm in ("instance_across", "group_across"):
        return normalise(x.transpose(0, 1), "instance" if norm == "instance_across" else "group").transpose(0, 1)
    if norm == "layer":
        return F.layer_norm(x, x.shape[-1:])
    if real is not None:
        return _standardise(x, {"instance": (1,), "batch": (0, 1), "group": (1, 2)}[norm], real)
    if norm == "instance":
        return F.instance_norm(x.transpose(1, 2)).transpose(1, 2)
    if norm == "batch":
        return F.batch_norm(x.transpose(1, 2), None, None, training=True).transpose(1, 2)
    return F.layer_norm(x, x.shape[-2:])


def _standardise(x: Tensor, over: tuple[int, ...], real: Tensor, eps: float = 1e-5) -> Tensor:
    """Mean 0 and variance 1 over these dimensions, of what is real."""
    counted = real[..., None].expand_as(x)
    count = counted.sum(over, keepdim=True)
    centred = x - (x * counted).sum(over, keepdim=True) / count
    return centred * ((centred.square() * counted).sum(over, keepdim=True) / count + eps).rsqrt()


def make_targets(
    results: Sequence[Tensor], config: ObjectiveConfig, real: Bool[Tensor, "batch tokens"] | None = None
) -> Float[Tensor, "*batch width"]:
    """Normalise each layer's result, average them, normalise the mean (v1, section 3.3); see :func:`normalise`."""
    total = torch.zeros((), device=results[0].device)
    for result in results:
        for norm in config.layer_norms:
            result = normalise(result, norm, real)
        total = total + result.float()
    mean = total / len(results)
    for norm in config.mean_norms:
        mean = normalise(mean, norm, real)
    return mean


def spread(x: Float[Tensor, "places width"]) -> Float[Tensor, ""]:
    """Standard deviation of each channel over places, averaged: near 0, everything looks the same."""
    return (x.float().var(dim=0) + 1e-6).sqrt().mean()


def explained(predictions: Float[Tensor, "places width"], targets: Float[Tensor, "places width"]) -> Float[Tensor, ""]:
    """Share of the targets' variance over places that the predictions account for: 1 is all, 0 is a constant guess."""
    predictions, targets = predictions.float(), targets.float()
    left = (targets - predictions).square().sum()
    return 1 - left / (targets - targets.mean(dim=0)).square().sum().clamp(min=1e-6)


class Collapsed(UserError):
    """Every input is given the same representation: the easiest way to predict one's own average."""


class TooEasy(UserWarning):
    """Nearly all of the targets is predicted: there is a way to do so without reading."""


TOO_EASY = 0.98
"""A share of the targets' variance above which something other than the content must give them away."""


class Data2Vec(nn.Module):
    """Student, teacher and objective; tensors in, tensors out.

    Args:
        encoder: shape of the shared encoder.
        modalities: the front ends.
        objective: what is regressed.
        teacher: how the teacher trails.
        origin: where converted weights came from, for the record.

    Raises:
        UserError: v2 without a decoder, a class loss without a class token, more layers in a target than there are.
    """

    def __init__(
        self,
        encoder: EncoderConfig,
        modalities: Modalities,
        objective: ObjectiveConfig | None = None,
        teacher: TeacherConfig | None = None,
        origin: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.modalities = modalities
        self.inputs = Inputs()
        self.origin = origin
        self.objective_config = objective or ObjectiveConfig()
        self.teacher_config = teacher or TeacherConfig()
        _check(encoder, modalities.present(), self.objective_config)
        self.student = Encoder(encoder, modalities)
        self.heads = nn.ModuleDict(
            {name: self._head(name, modality) for name, modality in modalities.present().items()}
        )
        self.teacher = self._make_teacher()
        self.updates = 0
        self._watched: dict[str, float] = {}

    def _head(self, name: str, config: FrontEndConfig) -> nn.Module:
        width = self.student.config.width
        if self.objective_config.generation == "v1":
            return regression_head(width, config.head_layers)
        assert config.decoder is not None
        front_end = self.student.front_end(name)
        return ConvolutionalDecoder(
            config.decoder, width, front_end.side if isinstance(front_end, ImageFrontEnd) else None
        )

    def _make_teacher(self) -> Encoder:
        """The student as it is now, without the parts that the teacher borrows."""
        teacher = copy.deepcopy(self.student).float().requires_grad_(False).eval()
        scope = self.teacher_config.scope
        for name in teacher.front_ends:
            front_end = teacher.front_end(name)
            front_end.mask_token = None
            if scope != "all":
                front_end.local = None
                if isinstance(front_end, SpeechFrontEnd):
                    front_end.project = None
        if scope == "encoder":
            teacher.front_ends = nn.ModuleDict()
        return teacher

    def reset_teacher(self) -> None:
        """Make the teacher what the student is now."""
        self.teacher = self._make_teacher()

    def train(self, mode: bool = True) -> Data2Vec:
        """The teacher never drops anything out."""
        super().train(mode)
        self.teacher.eval()
        return self

    @torch.no_grad()
    def targets(
        self,
        batch: Masked,
        local: Float[Tensor, "batch tokens width"],
        padding: Tensor | None,
        places: Int[Tensor, "..."] | None = None,
    ) -> Float[Tensor, "*chosen width"]:
        """What the teacher makes of whole inputs; ``local`` are the student's features of the same.

        With ``places``, indices into batch and tokens (class tokens included) laid end to end, of these alone.
        """
        scope = self.teacher_config.scope
        config = self.objective_config
        front_end = (self.student if scope == "encoder" else self.teacher).front_end(batch.modality)
        if scope == "all":
            local = front_end.local_features(batch.values)
        hidden = front_end(local.detach(), padding)
        # Only where no norm looks beyond its own token do other places not matter.
        early = places if set(config.layer_norms) | set(config.mean_norms) <= {"layer"} else None
        _, results = run_blocks(self.teacher.blocks, hidden, config.top_k, config.end_of_block, early)
        if early is not None:
            return make_targets(results, config)
        extra = front_end.config.class_tokens
        real = None if padding is None or not front_end.config.strict_padding else ~padding
        targets = make_targets([result[:, extra:] for result in results], config, real)
        return targets if places is None else F.pad(targets, (0, 0, extra, 0)).flatten(0, 1)[places]

    def objective(self, batch: Masked) -> Objective:
        """Predict what was hidden; see :class:`Objective`."""
        config = self.objective_config
        front_end = self.student.front_end(batch.modality)
        local = front_end.local_features(batch.values if batch.student_values is None else batch.student_values)
        padding = None if batch.padding is None else front_end.pad(batch.padding, local.shape[1])
        if config.generation == "v1":
            places = F.pad(batch.mask, (front_end.config.class_tokens, 0)).flatten().nonzero()[:, 0]
            wanted = self.targets(batch, local, padding, places)
            predictions = self.heads[batch.modality](self.student(front_end(local, padding, batch.mask), places))
            loss = self._loss(predictions, wanted)
            return Objective({"regression": loss}, len(wanted), predictions, wanted)
        return self._v2(batch, front_end, local, padding, self.targets(batch, local, padding))

    def _v2(
        self, batch: Masked, front_end: FrontEnd, local: Tensor, padding: Tensor | None, targets: Tensor
    ) -> Objective:
        config = self.objective_config
        copies = len(batch.mask) // len(local)
        local = local.repeat_interleave(copies, dim=0)
        padding = None if padding is None else padding.repeat_interleave(copies, dim=0)
        encoded = self.student(front_end(local, padding, batch.mask, leave_out=True))
        extra = front_end.config.class_tokens
        gaps = batch.mask if padding is None or not front_end.config.strict_padding else batch.mask | padding
        decoded = self.heads[batch.modality](encoded[:, extra:], gaps, front_end.fixed_positions)
        predictions = decoded[batch.mask]
        wanted = targets.repeat_interleave(copies, dim=0)[batch.mask]
        losses = {}
        class_predictions = class_targets = None
        if config.class_loss > 0:
            class_predictions = encoded[:, extra - 1]
            class_targets = targets.mean(dim=1).repeat_interleave(copies, dim=0)
            losses["class"] = self._loss(class_predictions, class_targets) * config.class_loss * len(wanted)
        losses["regression"] = self._loss(predictions, wanted) * config.weight
        return Objective(losses, len(wanted), predictions, wanted, class_predictions, class_targets)

    def _loss(self, predictions: Tensor, targets: Tensor) -> Float[Tensor, ""]:
        config = self.objective_config
        scale = 1 / math.sqrt(targets.shape[-1]) if config.scale is None else config.scale
        predictions, targets = predictions.float(), targets.float()
        if config.beta == 0:
            return scale * F.mse_loss(predictions, targets, reduction="sum")
        return scale * F.smooth_l1_loss(predictions, targets, reduction="sum", beta=config.beta)

    def losses(self, batch: Masked) -> dict[str, Float[Tensor, ""]]:
        """The objective's losses, a predicted place (v1 section 3.4; fairseq divides by the same number).

        Raises:
            Collapsed: targets or predictions hardly differ from place to place any more.
        """
        found = self.objective(batch)
        self._watched = {
            "target_spread": spread(found.targets).item(),
            "prediction_spread": spread(found.predictions.detach()).item(),
            "explained": explained(found.predictions.detach(), found.targets).item(),
            "teacher_decay": self.decay,
        }
        self._must_not_have_collapsed()
        return {name: loss / found.places for name, loss in found.losses.items()}

    def _must_not_have_collapsed(self) -> None:
        config = self.objective_config
        if self.updates < config.watch_from:
            return
        for what, least in (("target", config.min_target_spread), ("prediction", config.min_prediction_spread)):
            found = self._watched[f"{what}_spread"]
            if found < least:
                raise Collapsed(
                    f"update {self.updates}: the {what}s have collapsed. Their standard deviation over places is "
                    f"{found:.4f}, below objective.min_{what}_spread {least}: the encoder gives every input nearly the "
                    "same representation, which is easy to predict and of no use. Usual causes: a learning rate that "
                    "is too high or warmed up too fast, a teacher that follows too closely (raise teacher.decay), "
                    "targets that are not normalised, too little that is hidden."
                )
        if self._watched["explained"] > TOO_EASY:
            # Said once by Python's own rule: the same words from the same line.
            warnings.warn(
                f"over {TOO_EASY:.0%} of the targets' variance is predicted, which reading alone cannot do. Usual "
                "cause: learned positions, which give targets away by place; take positions: none and alibi.",
                TooEasy,
                stacklevel=3,
            )

    def embed(
        self,
        documents: Sequence[Document],
        batch_size: int = 64,
        encoder: Literal["student", "teacher"] = "student",
        progress: Progress | None = None,
    ) -> Float[Tensor, "documents width"]:
        """One vector a document: the mean over its tokens, patches or frames of what the encoder makes of them.

        Args and errors are those of :meth:`embed_at`.
        """
        depth = len(self.student.blocks)
        return self.embed_at(documents, [depth], batch_size, encoder, progress=progress)[depth]

    @torch.inference_mode()
    def embed_at(
        self,
        documents: Sequence[Document],
        depths: Sequence[int],
        batch_size: int = 64,
        encoder: Literal["student", "teacher"] = "student",
        parts: int = 1,
        progress: Progress | None = None,
    ) -> dict[int, Float[Tensor, "documents vector"]]:
        """Vectors of documents after several depths, in one reading.

        Args:
            documents: each one text, one image or one recording; all of the same modality.
            depths: after how many of the shared blocks, from 1 to all of them.
            batch_size: documents at a time.
            encoder: whose; the teacher can embed only where it has all front ends of its own.
            parts: cut each sequence into so many equal parts and give the mean of each, end to end: what is said first
                and what is said last then stay apart.
            progress: called with (documents done, documents in all).

        Raises:
            MediaError: a medium cannot be used.
            UserError: the model does not read this modality, or its teacher cannot read by itself.
        """
        if encoder == "teacher" and self.teacher_config.scope != "all":
            raise UserError("this model's teacher reads what the student's front end gives it; embed with the student.")
        of = self.student if encoder == "student" else self.teacher
        speech = self.modalities.speech
        if (
            speech is not None
            and self.inputs.common_modality(documents) == "speech"
            and not (speech.strict_padding and speech.convolution_norm == "layer")
        ):
            # Such a model reads a recording differently when it is padded.
            batch_size = 1
        made: dict[int, list[Tensor]] = {depth: [] for depth in depths}
        for start in range(0, len(documents), batch_size):
            whole = self.inputs.read(documents[start : start + batch_size])
            vectors = of.embed(whole.modality, whole.values, whole.padding, depths, parts)
            for depth, vector in zip(depths, vectors, strict=True):
                made[depth].append(vector.float().cpu())
            if progress is not None:
                progress(min(start + batch_size, len(documents)), len(documents))
        return {depth: torch.cat(rows) for depth, rows in made.items()}

    def diagnostics(self) -> dict[str, float]:
        """Of the last batch: how far targets and predictions spread, and the teacher's decay."""
        return dict(self._watched)

    def parameter_groups(self) -> dict[str, list[tuple[str, Tensor]]]:
        """What trains: ``matrices`` (weight decay is for these) and ``vectors`` (norms and biases)."""
        groups: dict[str, list[tuple[str, Tensor]]] = {"matrices": [], "vectors": []}
        for name, parameter in self.named_parameters():
            if parameter.requires_grad:
                is_matrix = parameter.ndim > 1 and ".bias." not in name
                groups["matrices" if is_matrix else "vectors"].append((name, parameter))
        return groups

    def trainable_state(self) -> dict[str, Tensor]:
        """Student, heads and teacher, and the number of updates."""
        return {**self.state_dict(), "updates": torch.tensor(self.updates)}

    def load_trainable_state(self, state: dict[str, Tensor]) -> None:
        """Restore what :meth:`trainable_state` gave."""
        state = dict(state)
        self.updates = int(state.pop("updates"))
        self.load_state_dict(state)

    @property
    def decay(self) -> float:
        """The share of itself that the teacher keeps at this update."""
        config = self.teacher_config
        return annealed_decay(config.decay, config.end_decay, self.updates, config.anneal_steps)

    def after_step(self) -> None:
        """One update more, and the teacher follows."""
        self.updates += 1
        average_into(self.teacher, self.student, self.decay, self._is_copied)

    @torch.no_grad()
    def copy_to_teacher(self) -> None:
        """Bring what is copied rather than averaged up to date."""
        theirs = dict(self.teacher.named_parameters())
        for name, parameter in self.student.named_parameters():
            if name in theirs and self._is_copied(name):
                theirs[name].copy_(parameter)

    def _is_copied(self, name: str) -> bool:
        return any(name.startswith(start) for start in self.teacher_config.copied)

    def save(self, folder: Path | str) -> None:
        """Write config and weights: student, heads and teacher."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "encoder": dataclasses.asdict(self.student.config),
            "modalities": dataclasses.asdict(self.modalities),
            "objective": dataclasses.asdict(self.objective_config),
            "teacher": dataclasses.asdict(self.teacher_config),
            "inputs": self.inputs.save(folder),
            "updates": self.updates,
            "origin": self.origin,
        }
        write_model(folder, self, settings)

    @classmethod
    def load(cls, folder: Path) -> Data2Vec:
        """Open a folder that :meth:`save` wrote.

        Raises:
            UserError: the weights do not fit the config.
        """
        config = read_config(folder)
        model = cls(
            EncoderConfig(**config["encoder"]),
            Modalities.from_values(config["modalities"]),
            ObjectiveConfig(**config["objective"]),
            TeacherConfig(**config["teacher"]),
            config["origin"],
        )
        fill_model(model, folder)
        model.inputs = Inputs.load(folder, config["inputs"])
        model.updates = config["updates"]
        return model.eval()


def _check(encoder: EncoderConfig, modalities: dict[str, FrontEndConfig], objective: ObjectiveConfig) -> None:
    if not 1 <= objective.top_k <= encoder.depth:
        raise UserError(f"objective.top_k is {objective.top_k}; the encoder has {encoder.depth} blocks.")
    if encoder.width % encoder.heads:
        raise UserError(f"encoder.width {encoder.width} is no multiple of encoder.heads {encoder.heads}.")
    if not modalities:
        raise UserError("modalities: name at least one of text, image and speech.")
    for name, modality in modalities.items():
        if objective.generation == "v2" and modality.decoder is None:
            raise UserError(f"modalities.{name}: data2vec 2.0 needs a decoder.")
        relative = isinstance(modality, ImageConfig) and modality.positions == "relative"
        if relative and (objective.generation == "v2" or modality.class_tokens != 1):
            raise UserError(
                f"modalities.{name}.positions: relative ones go with one class token and with mask tokens (v1); "
                "take fixed ones."
            )
        if objective.class_loss > 0 and modality.class_tokens == 0:
            raise UserError(f"modalities.{name}: objective.class_loss needs a class token.")
