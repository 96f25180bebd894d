"""Embeddings of tokens, pixels and waveforms, and their positions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


class TokenEmbedding(nn.Module):
    """Tokens with absolute positions, as in RoBERTa (Liu et al. 2019).

    Positions count only real tokens and start after the padding id, so padding does not shift them.

    Args:
        vocabulary_size: number of token types.
        width: of the embeddings.
        max_length: greatest number of tokens of a text.
        padding_id: the padding token.
        positions: ``learned``, ``sinusoidal`` or ``none``.
        norm: normalise the sum.
        eps: of that layer norm.
        scale: multiply token embeddings by the square root of the width.
        zero_padding: set the output to zero at padding.
    """

    waves: Tensor | None

    def __init__(
        self,
        vocabulary_size: int,
        width: int,
        max_length: int = 512,
        padding_id: int = 1,
        positions: Literal["learned", "sinusoidal", "none"] = "learned",
        norm: bool = True,
        eps: float = 1e-5,
        scale: bool = False,
        zero_padding: bool = True,
    ):
        super().__init__()
        self.padding_id = padding_id
        self.max_length = max_length
        self.scale = math.sqrt(width) if scale else 1.0
        self.zero_padding = zero_padding
        self.tokens = nn.Embedding(vocabulary_size, width, padding_id)
        rows = padding_id + 1 + max_length
        self.positions = nn.Embedding(rows, width, padding_id) if positions == "learned" else None
        for table in (self.tokens, self.positions):
            if table is not None:
                # As in BERT. torch's default is 50 times as large and would hardly change at usual learning rates.
                nn.init.normal_(table.weight, std=0.02)
                with torch.no_grad():
                    table.weight[padding_id] = 0
        waves = sinusoids(rows, width, padding_id) if positions == "sinusoidal" else None
        self.register_buffer("waves", waves, persistent=False)
        self.norm = nn.LayerNorm(width, eps) if norm else None

    def forward(self, input_ids: Int[Tensor, "batch tokens"]) -> Float[Tensor, "batch tokens width"]:
        """Embed the tokens."""
        real = input_ids != self.padding_id
        position_ids = real.cumsum(dim=-1) * real + self.padding_id
        embedded = self.scale * self.tokens(input_ids)
        if self.positions is not None:
            embedded = embedded + self.positions(position_ids)
        elif self.waves is not None:
            embedded = embedded + self.waves[position_ids]
        if self.norm is not None:
            embedded = self.norm(embedded)
        return embedded * real[..., None] if self.zero_padding else embedded


def sinusoids(rows: int, width: int, padding_id: int) -> Float[Tensor, "rows width"]:
    """Sines, then cosines, of geometrically spaced frequencies (Vaswani et al. 2017, section 3.5, in the layout of
    tensor2tensor); the row of the padding is zero."""
    half = width // 2
    frequencies = torch.exp(torch.arange(half) * -(math.log(10000) / (half - 1)))
    angles = torch.arange(rows)[:, None] * frequencies
    table = F.pad(torch.cat([angles.sin(), angles.cos()], dim=1), (0, width % 2))
    table[padding_id] = 0
    return table


class PatchEmbedding(nn.Module):
    """Non-overlapping square patches, each mapped to a vector (Dosovitskiy et al. 2021, section 3.1).

    Args:
        patch: side of a patch in pixels.
        width: of the vectors.
        channels: of the images.
        patch_width: width of the patch vectors if a linear layer to ``width`` follows; None for no such layer.
    """

    def __init__(self, patch: int, width: int, channels: int = 3, patch_width: int | None = None):
        super().__init__()
        self.patches = nn.Conv2d(channels, patch_width or width, patch, stride=patch)
        self.project = nn.Identity() if patch_width in (None, width) else nn.Linear(patch_width, width)

    def forward(self, pixels: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch patches features"]:
        """Patches row by row, from the top left."""
        return self.project(self.patches(pixels).flatten(2).transpose(1, 2))


def grid_sinusoids(rows: int, columns: int, width: int) -> Float[Tensor, "patches width"]:
    """Fixed positions of a grid: half of the channels encode the column, half the row (He et al. 2022, appendix A)."""
    quarter = width // 4
    frequencies = 1 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    sides = []
    for count in (columns, rows):
        angles = torch.arange(count, dtype=torch.float64)[:, None] * frequencies
        sides.append(torch.cat([angles.sin(), angles.cos()], dim=1))
    along_rows = sides[0].expand(rows, -1, -1)
    down_columns = sides[1][:, None].expand(-1, columns, -1)
    return torch.cat([along_rows, down_columns], dim=-1).flatten(0, 1).float()


class RelativePositionBias(nn.Module):
    """A learned attention bias for each offset between two patches of a grid, and for the class token
    (Liu et al. 2021, section 3.2; with the class token as in BEiT).

    Args:
        rows, columns: of the grid.
        heads: number of attention heads.
        layers: 1 shares the bias between layers, else each layer has its own.
    """

    index: Tensor

    def __init__(self, rows: int, columns: int, heads: int, layers: int = 1):
        super().__init__()
        offsets = (2 * rows - 1) * (2 * columns - 1)
        self.tables = nn.Parameter(torch.zeros(layers, offsets + 3, heads))
        row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        row, column = row.flatten(), column.flatten()
        down = row[:, None] - row[None] + rows - 1
        right = column[:, None] - column[None] + columns - 1
        index = torch.zeros(rows * columns + 1, rows * columns + 1, dtype=torch.long)
        index[1:, 1:] = down * (2 * columns - 1) + right
        # From the class token to a patch, from a patch to the class token, from the class token to itself.
        index[0, :], index[:, 0], index[0, 0] = offsets, offsets + 1, offsets + 2
        self.register_buffer("index", index, persistent=False)

    def forward(self, tokens: int) -> Float[Tensor, "layers 1 heads tokens tokens"]:
        """The bias of each layer, for a class token and all patches (``tokens`` in all)."""
        del tokens
        bias = self.tables[:, self.index].permute(0, 3, 1, 2)[:, None]
        # The fused kernels of GPUs take no other layout.
        return bias.contiguous()


class Alibi(nn.Module):
    """An attention bias that falls with distance, by a slope of its own in each head (Press et al. 2022),
    in both directions, with learned factors (data2vec 2.0, section 3.2).

    Args:
        heads: number of attention heads.
        layers: 1 shares the factors between layers, else each layer has its own.
        per_head: whether each head has its own factor.
        learned: whether the factors train.
        scale: initial factor.
        distance: along a sequence (``steps``), or on a square grid of patches (``manhattan``, ``euclidean``).
    """

    def __init__(
        self,
        heads: int,
        layers: int = 1,
        per_head: bool = True,
        learned: bool = True,
        scale: float = 1.0,
        distance: Literal["steps", "manhattan", "euclidean"] = "steps",
    ):
        super().__init__()
        self.heads = heads
        self.distance = distance
        self.scale = nn.Parameter(torch.full((layers, 1, heads if per_head else 1, 1, 1), scale), learned)

    def forward(self, tokens: int) -> Float[Tensor, "layers 1 heads tokens tokens"]:
        """The bias of each layer, for ``tokens`` tokens without any class token."""
        slopes = torch.tensor(alibi_slopes(self.heads), device=self.scale.device)
        distances = self._distances(tokens).to(self.scale.device)
        return self.scale.clamp(min=0) * (slopes[:, None, None] * -distances)

    def _distances(self, tokens: int) -> Float[Tensor, "tokens tokens"]:
        if self.distance == "steps":
            positions = torch.arange(tokens)[:, None].float()
        else:
            side = math.isqrt(tokens)
            positions = torch.cartesian_prod(torch.arange(side), torch.arange(side)).float()
        return torch.cdist(positions, positions, p=2 if self.distance == "euclidean" else 1)


def alibi_slopes(heads: int) -> list[float]:
    """The slope of each head: powers of two; for other numbers of heads, those of the next power interleave."""
    power = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * (head + 1) / power) for head in range(power)]
    if power < heads:
        slopes += alibi_slopes(2 * power)[0::2][: heads - power]
    return slopes


def frames(samples: Int[Tensor, "*batch"], layers: Sequence[Sequence[int]]) -> Int[Tensor, "*batch"]:
    """The number of frames after convolutions of (channels, kernel, stride) over this many samples; below 1 is none."""
    for _, kernel, stride in layers:
        samples = torch.div(samples - kernel, stride, rounding_mode="floor") + 1
    return samples


class SpeechConvolutions(nn.Module):
    """A waveform becomes frames by strided convolutions (wav2vec 2.0, Baevski et al. 2020, section 2).

    Args:
        layers: (channels, kernel, stride) of each convolution.
        norm: ``layer`` normalises the channels of each layer; ``group`` only each channel of the first layer, over
            time.
        bias: whether the convolutions have biases.
        mel_rate: sampling rate, if the first layer is a fixed :class:`MelEnergies`; 0 if it is learned.
    """

    def __init__(
        self,
        layers: Sequence[Sequence[int]],
        norm: Literal["layer", "group"] = "layer",
        bias: bool = False,
        mel_rate: int = 0,
    ):
        super().__init__()
        self.shapes = [tuple(layer) for layer in layers]
        self.convolutions = nn.ModuleList()
        self.norms = nn.ModuleList()
        self.mel: MelEnergies | None = None
        width_in = 1
        if mel_rate:
            width_in, length, stride = self.shapes[0]
            self.mel = MelEnergies(width_in, length, stride, mel_rate)
        for index, (width, kernel, stride) in enumerate(self.shapes[1:] if mel_rate else self.shapes):
            convolution = nn.Conv1d(width_in, width, kernel, stride, bias=bias)
            nn.init.kaiming_normal_(convolution.weight)
            self.convolutions.append(convolution)
            if norm == "layer":
                self.norms.append(ChannelNorm(width))
            else:
                self.norms.append(nn.GroupNorm(width, width) if index == 0 else nn.Identity())
            width_in = width

    def forward(self, waveform: Float[Tensor, "batch samples"]) -> Float[Tensor, "batch frames channels"]:
        """Frames, 20 ms apart at 16 kHz with the usual layers."""
        hidden = waveform[:, None]
        if self.mel is not None:
            hidden = self.mel(hidden)
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            hidden = F.gelu(norm(convolution(hidden)))
        return hidden.transpose(1, 2)

    def frames(self, samples: Int[Tensor, "*batch"]) -> Int[Tensor, "*batch"]:
        """The number of frames for this many samples."""
        return frames(samples, self.shapes)


class MelEnergies(nn.Module):
    """Log energies in bands that are evenly spaced on the mel scale. Nothing is learned.

    The energy of a band is the sum of its squared responses to a cosine and a sine under a Gaussian window, so it does
    not depend on the phase. The bandwidth is the distance between neighbouring bands.

    Args:
        bands: number of bands, from 60 Hz to just below half the rate.
        length: of the window, in samples.
        stride: samples between frames.
        rate: sampling rate in Hz.
    """

    filters: Tensor

    def __init__(self, bands: int, length: int, stride: int, rate: int):
        super().__init__()
        self.stride = stride
        lowest, highest = (2595 * math.log10(1 + hertz / 700) for hertz in (60.0, 0.49 * rate))
        edges = 700 * (10 ** (torch.linspace(lowest, highest, bands + 2) / 2595) - 1)
        # Bands that are narrower than the window can resolve are widened.
        width = (edges[2:] - edges[:-2]).clamp(min=2 * rate / length) / 2
        seconds = (torch.arange(length) - (length - 1) / 2) / rate
        window = torch.exp(-0.5 * (2 * math.pi * seconds * width[:, None] / 2.355) ** 2)
        phase = 2 * math.pi * seconds * edges[1:-1, None]
        pairs = torch.stack([window * phase.cos(), window * phase.sin()], dim=1).flatten(0, 1)
        filters = (pairs / pairs.norm(dim=1, keepdim=True))[:, None]
        self.register_buffer("filters", filters, persistent=False)

    def forward(self, waveform: Float[Tensor, "batch 1 samples"]) -> Float[Tensor, "batch bands frames"]:
        """Log energies of waveforms with a standard deviation of 1; anything 40 dB or more below that counts as
        silence."""
        with torch.autocast(waveform.device.type, enabled=False):
            answers = F.conv1d(waveform.float(), self.filters, stride=self.stride)
            energies = answers.square().unflatten(1, (-1, 2)).sum(dim=2)
            # Gives speech a standard deviation near 1.
            return (energies + 1e-4).log() / 4


class ChannelNorm(nn.LayerNorm):
    """A layer norm over the channels of (batch, channels, time) or (batch, channels, rows, columns)."""

    def forward(self, input: Float[Tensor, "batch channels *positions"]) -> Float[Tensor, "batch channels *positions"]:
        """Normalise each position over its channels."""
        return super().forward(input.movedim(1, -1)).movedim(-1, 1)


class ConvolutionalPositions(nn.Module):
    """Positional embeddings by grouped convolutions over the sequence (data2vec, section 4.2).

    Args:
        width: of the sequence.
        kernel: receptive field of all layers together, in frames.
        groups: of the convolutions.
        depth: number of layers.
        norm_first: normalise the input sequence.
        weight_norm: normalise the weights instead of the output of each layer, as wav2vec 2.0 does.
    """

    def __init__(
        self,
        width: int,
        kernel: int = 95,
        groups: int = 16,
        depth: int = 5,
        norm_first: bool = False,
        weight_norm: bool = False,
    ):
        super().__init__()
        self.norm = nn.LayerNorm(width) if norm_first else None
        self.weight_norm = weight_norm
        each = max(3, kernel // depth)
        layers = [nn.Conv1d(width, width, each, padding=each // 2, groups=groups) for _ in range(depth)]
        self.layers = nn.ModuleList(layers)
        for layer in layers if weight_norm else ():
            nn.init.normal_(layer.weight, std=math.sqrt(4 / (each * width)))
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
            nn.utils.parametrizations.weight_norm(layer, dim=2)

    def forward(
        self, x: Float[Tensor, "batch tokens width"], padding: Bool[Tensor, "batch tokens"] | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """The positional embeddings, to be added to the sequence.

        Args:
            x: the sequence.
            padding: True at padding. Each layer reads zeros there, so padding does not change the result.
        """
        hidden = (x if self.norm is None else self.norm(x)).transpose(1, 2)
        for layer in self.layers:
            if padding is not None:
                hidden = hidden * ~padding[:, None]
            # An even kernel outputs one frame too many.
            hidden = layer(hidden)[..., : x.shape[1]]
            if not self.weight_norm:
                hidden = F.layer_norm(hidden.transpose(1, 2), hidden.shape[1:2]).transpose(1, 2)
            hidden = F.gelu(hidden)
        return hidden.transpose(1, 2)
