"""Resamplers: what the gated blocks attend to, from the features of a medium.

The paper's is the :class:`PerceiverResampler`, which gives a fixed number of latents. :class:`PlainResampler` keeps
every position; the paper compares both (table 3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.errors import UserError
from vislang.nn.attention import CrossAttention
from vislang.nn.recompute import Recomputable
from vislang.nn.statistics import mean_and_std
from vislang.nn.transformer import FeedForward


@dataclass(frozen=True)
class LayerShape:
    """The shape of a resampler's layers.

    Attributes:
        depth: number of layers.
        heads, head_width: shape of the attention.
        expansion: inner width of the feed-forward layers, as a multiple of their width.
    """

    depth: int = 6
    heads: int = 8
    head_width: int = 64
    expansion: int = 4


class Resampler(nn.Module, ABC):
    """The beginning of every resampler: features are standardised, and projected to the width of the keys.

    Each feature channel is standardised with the mean and standard deviation measured by :meth:`standardise`, because
    the features of all images have a large component in common.

    Args:
        features_width: width of the vision tower's features.
        width: width of the output; features of another width are projected to it.
    """

    features_mean: Tensor
    features_deviation: Tensor

    def __init__(self, features_width: int, width: int):
        super().__init__()
        self.register_buffer("features_mean", torch.zeros(features_width))
        self.register_buffer("features_deviation", torch.ones(features_width))
        self.project = nn.Identity() if features_width == width else _small_linear(features_width, width)

    @abstractmethod
    def forward(
        self,
        features: Float[Tensor, "media frames positions features_width"],
        frames: Int[Tensor, "..."] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Float[Tensor, "media latents width"]:
        """What the gated blocks attend to; see :meth:`PerceiverResampler.forward`."""

    @torch.no_grad()
    def standardise(self, features: Float[Tensor, "media positions features_width"]) -> None:
        """Measure the mean and standard deviation of each channel over media and positions."""
        mean, std = mean_and_std(features)
        self.features_mean.copy_(mean)
        self.features_deviation.copy_(std)

    def projected(self, features: Float[Tensor, "*media features_width"]) -> Float[Tensor, "*media width"]:
        """Standardised and projected features."""
        return self.project((features - self.features_mean) / self.features_deviation)


class PerceiverResampler(Resampler):
    """Maps any number of features of a medium to a fixed number of latents (section 2.1, figure 5).

    Learned latents attend to the features and to themselves: keys and values come from the concatenation of both.
    Each frame of a video gets a learned time embedding; an image is a video of one frame. If a video has more frames
    than there are embeddings, these are interpolated over time (appendix A.1.1).

    Args:
        features_width: width of the vision tower's features.
        width: width of the latents; features of another width are projected to it first.
        shape: shape of the layers.
        latents: number of latents of a medium.
        frames: number of time embeddings; 0 for images only.
    """

    def __init__(
        self, features_width: int, width: int, shape: LayerShape | None = None, latents: int = 64, frames: int = 0
    ):
        super().__init__(features_width, width)
        shape = shape or LayerShape()
        # With a standard deviation of 0.02, like that of the latents, the order of frames was not learned.
        self.times = nn.Parameter(torch.randn(frames, width)) if frames else None
        # Small compared with the features, so the latents of different images differ from the first step.
        self.latents = nn.Parameter(0.02 * torch.randn(latents, width))
        self.layers = nn.ModuleList(ResamplerLayer(width, shape) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        features: Float[Tensor, "media frames positions features_width"],
        frames: Int[Tensor, "..."] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Float[Tensor, "media latents width"]:
        """Resample each medium.

        Args:
            features: features of each frame; videos that are shorter than others are padded.
            frames: (media,) number of real frames of each medium; None if there is no padding.
            weights: if given, receives the attention weights of each layer over the positions: (media, heads, latents,
                frames * positions), without the weights on the latents.

        Raises:
            UserError: a medium is a video, and there are no time embeddings.
        """
        media, most, positions, _ = features.shape
        features = self.projected(features)
        counts = [most] * media if frames is None else frames.tolist()
        if self.times is not None:
            times = torch.stack([F.pad(self._times(n), (0, 0, 0, most - n)) for n in counts])
            features = features + times[:, :, None].to(features.dtype)
        elif most > 1:
            raise UserError(
                "this bridge reads only images. Set bridge.frames, for example to 8, and train it on videos."
            )
        mask = None
        if min(counts) < most:
            real = torch.arange(most, device=features.device) < frames[:, None]  # type: ignore[index]
            mask = F.pad(real.repeat_interleave(positions, dim=1), (0, len(self.latents)), value=True)[:, None]
        latents = self.latents.expand(media, -1, -1)
        for layer in self.layers:
            latents = layer(features.flatten(1, 2), latents, mask, weights)
        return self.norm(latents)

    def _times(self, frames: int) -> Float[Tensor, "frames width"]:
        """The time embedding of each frame."""
        assert self.times is not None
        if frames <= len(self.times):
            return self.times[:frames]
        interpolated = F.interpolate(self.times.t()[None], size=frames, mode="linear", align_corners=True)
        return interpolated[0].t()


def _small_linear(width_in: int, width_out: int) -> nn.Linear:
    """A linear layer with a tenth of the usual initial weights.

    Its output is normalised next, so only the direction of its rows matters; smaller rows change direction faster.
    """
    linear = nn.Linear(width_in, width_out)
    with torch.no_grad():
        linear.weight.mul_(0.1)
        linear.bias.zero_()
    return linear


class ResamplerLayer(Recomputable):
    """Attention of the latents to features and latents, then a feed-forward layer; both with a residual connection."""

    def __init__(self, width: int, shape: LayerShape):
        super().__init__()
        self.norm_features = nn.LayerNorm(width)
        self.norm_latents = nn.LayerNorm(width)
        self.attention = CrossAttention(width, width, shape.heads, shape.head_width)
        self.feed_forward = FeedForward(width, shape.expansion)

    def forward(
        self,
        features: Float[Tensor, "media positions width"],
        latents: Float[Tensor, "media latents width"],
        mask: Bool[Tensor, "media 1 positions_and_latents"] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Float[Tensor, "media latents width"]:
        """One layer; ``mask`` is True where a position may be attended to, False where a frame is padding."""
        queries = self.norm_latents(latents)
        context = self.attention.keys_values(torch.cat([self.norm_features(features), queries], dim=1))
        if weights is not None:
            weights.append(self.attention.weights(queries, context, mask)[..., : features.shape[1]])
        latents = latents + self.attention(queries, context, mask)
        return latents + self.feed_forward(latents)


class PlainResampler(Resampler):
    """Keeps every position of an image (Alayrac et al. 2022, table 3: "Transformer" and "MLP" instead of a resampler).

    It reads images only: the number of its outputs grows with that of the frames.

    Args:
        features_width, width, shape: see :class:`PerceiverResampler`.
        attends: whether the positions attend to each other; otherwise each is changed for itself.
    """

    def __init__(self, features_width: int, width: int, shape: LayerShape | None = None, attends: bool = True):
        super().__init__(features_width, width)
        shape = shape or LayerShape()
        self.layers = nn.ModuleList(PlainLayer(width, shape, attends) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        features: Float[Tensor, "media frames positions features_width"],
        frames: Int[Tensor, "..."] | None = None,
        weights: list[Tensor] | None = None,
    ) -> Float[Tensor, "media positions width"]:
        """An output for each position; for the arguments see :meth:`PerceiverResampler.forward`.

        Raises:
            UserError: a medium is a video.
        """
        if features.shape[1] > 1:
            raise UserError("this bridge reads only images. For videos, set bridge.resampler to perceiver.")
        positions = self.projected(features[:, 0])
        for layer in self.layers:
            positions = layer(positions, weights)
        return self.norm(positions)


class PlainLayer(Recomputable):
    """Self-attention of the positions, unless ``attends`` is False, then a feed-forward layer; with residuals."""

    def __init__(self, width: int, shape: LayerShape, attends: bool):
        super().__init__()
        self.norm = nn.LayerNorm(width) if attends else None
        self.attention = CrossAttention(width, width, shape.heads, shape.head_width) if attends else None
        self.feed_forward = FeedForward(width, shape.expansion)

    def forward(
        self, positions: Float[Tensor, "media positions width"], weights: list[Tensor] | None = None
    ) -> Float[Tensor, "media positions width"]:
        """One layer; ``weights`` receives the attention weights (media, heads, positions, positions)."""
        if self.attention is not None and self.norm is not None:
            queries = self.norm(positions)
            context = self.attention.keys_values(queries)
            if weights is not None:
                weights.append(self.attention.weights(queries, context))
            positions = positions + self.attention(queries, context, None)
        elif weights is not None:
            own = torch.eye(positions.shape[1], device=positions.device)
            weights.append(own.expand(len(positions), 1, -1, -1))
        return positions + self.feed_forward(positions)
