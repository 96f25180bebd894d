"""The two encoders of a dual encoder and its loss; tensors in, vectors out.

The image encoder reads a frozen tower's features of the regions, with or without transformer blocks. The text encoder
has blocks, or is the sum of word vectors. Large batches need no more memory than small ones: batches are encoded in
chunks, and each chunk is encoded again for its gradient (Gao et al. 2021).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vislang.errors import UserError
from vislang.models.settings import must_be_at_least, must_be_rates
from vislang.models.vilbert.config import EPS, TextStreamConfig, VisionStreamConfig
from vislang.models.vilbert.streams import RegionEmbedding, TextEmbedding
from vislang.nn.attention import not_padding
from vislang.nn.linear import Linear
from vislang.nn.precision import at_least_float32
from vislang.nn.statistics import mean_and_std
from vislang.nn.transformer import EncoderBlock

MAX_LOG_SCALE = math.log(100)
"""The temperature's inverse is kept below 100, as in CLIP."""


@dataclass
class DualEncoderConfig:
    """The shapes of the two encoders.

    Attributes:
        text, vision: shapes of the encoders; ``classes`` and ``images`` of the vision side are not used. With a
            ``depth`` of 0, a text is the sum of its words, and an image the feature of the whole image. With eleven
            thousand training pairs this gave better results than two blocks (docs/results/vilbert.md).
        width: width of the vectors.
        pooling: what the feature of the whole image is: the mean of the regions' features, the greatest value of each
            channel, or ``both``, one after the other.
        feature_dropout: dropout rate of the standardised features.
        pieces: size of a vocabulary of word pieces, which a bag of words adds to the whole words; 0 for whole words
            alone.
    """

    text: TextStreamConfig = field(default_factory=TextStreamConfig)
    vision: VisionStreamConfig = field(default_factory=VisionStreamConfig)
    width: int = 256
    pooling: Literal["mean", "max", "both"] = "mean"
    feature_dropout: float = 0.0
    pieces: int = 0

    def __post_init__(self):
        must_be_at_least(1, self, "width", of="encoders.")
        must_be_at_least(0, self, "pieces", of="encoders.")
        must_be_rates(self, "feature_dropout", of="encoders.")
        if self.pieces and self.text.depth:
            raise UserError(
                f"encoders.pieces is {self.pieces}, and encoders.text.depth {self.text.depth}: only a bag of words has "
                "words and pieces; blocks read pieces alone. Set one of them to 0."
            )


class Encoder(nn.Module):
    """Pre-norm blocks over embeddings; the output at the first position becomes the vector."""

    def __init__(self, config: TextStreamConfig | VisionStreamConfig, width: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            EncoderBlock(
                config.width,
                config.heads,
                config.mlp_width,
                norm_first=True,
                eps=EPS,
                activation=config.activation,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, EPS)
        self.to_vector = Linear(config.width, width, bias=False)

    def forward(
        self, x: Float[Tensor, "items length width"], padding: Bool[Tensor, "items length"] | None
    ) -> Float[Tensor, "items vector"]:
        """One vector of length 1 for each item."""
        return F.normalize(at_least_float32(self.to_vector(self.read(x, padding)[:, 0])), dim=-1)

    def read(
        self, x: Float[Tensor, "items length width"], padding: Bool[Tensor, "items length"] | None
    ) -> Float[Tensor, "items length width"]:
        """The output of the blocks at every position."""
        for block in self.blocks:
            x, _ = block(x, not_padding(padding))
        return self.norm(x)


class WordEncoder(nn.Module):
    """A text encoder with transformer blocks."""

    def __init__(self, config: TextStreamConfig, width: int):
        super().__init__()
        self.embedding = TextEmbedding(config)
        self.encoder = Encoder(config, width)

    def forward(
        self,
        ids: Int[Tensor, "texts tokens"],
        segments: Int[Tensor, "texts tokens"],
        unread: Bool[Tensor, "texts tokens"] | None,
    ) -> Float[Tensor, "texts vector"]:
        """One vector of length 1 for each text."""
        return self.encoder(self.embedding(ids, segments), unread)


class WordBag(nn.Module):
    """A text encoder that adds word vectors and ignores their order.

    The vectors start near zero, so a rare word has little weight. A text without known words has a zero vector, which
    is similar to no image.

    Args:
        config: shapes; see :class:`DualEncoderConfig`.
    """

    def __init__(self, config: DualEncoderConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.text.vocabulary_size + config.pieces, config.width, padding_idx=0)
        self.dropout = config.text.dropout

    def forward(
        self,
        ids: Int[Tensor, "texts tokens"],
        segments: Int[Tensor, "texts tokens"],
        unread: Bool[Tensor, "texts tokens"] | None,
    ) -> Float[Tensor, "texts vector"]:
        """One vector of length 1, or 0, for each text."""
        real = torch.ones_like(ids, dtype=torch.bool) if unread is None else ~unread
        # In training, random words of a text are dropped.
        weights = F.dropout(real.to(self.embedding.weight.dtype), self.dropout, self.training)
        added = F.embedding_bag(ids, self.embedding.weight, mode="sum", per_sample_weights=weights)
        return F.normalize(at_least_float32(added), dim=-1)


class ImageEncoder(nn.Module):
    """An image encoder over standardised region features; the output at the whole image becomes the vector.

    Args:
        config: shapes; see :class:`DualEncoderConfig`.
    """

    features_mean: Tensor
    features_deviation: Tensor

    def __init__(self, config: DualEncoderConfig):
        super().__init__()
        self.pooling = config.pooling
        width = config.vision.feature_width * (2 if config.pooling == "both" else 1)
        self.register_buffer("features_mean", torch.zeros(width))
        self.register_buffer("features_deviation", torch.ones(width))
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.embedding = RegionEmbedding(dataclasses.replace(config.vision, feature_width=width))
        self.encoder = Encoder(config.vision, config.width)

    def pool(
        self,
        features: Float[Tensor, "images regions feature_width"],
        padding: Bool[Tensor, "images regions"] | None = None,
    ) -> Float[Tensor, "images read pooled"]:
        """What the encoder reads: the pooled features of the whole image, and with blocks also those of each region,
        which is pooled over itself alone.

        Args:
            features: of the whole image (the mean of the others) and of its regions.
            padding: True at padding.
        """
        mean, regions = features[:, :1], features[:, 1:]
        if self.pooling == "mean":
            whole = mean
        else:
            seen = regions if padding is None else regions.masked_fill(padding[:, 1:, None], -torch.inf)
            greatest = seen.amax(dim=1, keepdim=True)
            whole = greatest if self.pooling == "max" else torch.cat([mean, greatest], dim=-1)
        if not len(self.encoder.blocks):
            # Without blocks, the output at the whole image does not depend on single regions.
            return whole
        return torch.cat([whole, self._alone(regions)], dim=1)

    def standardise(self, features: Float[Tensor, "regions pooled"]) -> None:
        """Measure the mean and standard deviation with which pooled features are standardised."""
        mean, std = mean_and_std(features)
        self.features_mean.copy_(mean)
        self.features_deviation.copy_(std)

    def forward(
        self,
        features: Float[Tensor, "images regions feature_width"],
        boxes: Float[Tensor, "images regions box"],
        padding: Bool[Tensor, "images regions"] | None,
    ) -> Float[Tensor, "images vector"]:
        """One vector of length 1 for each image, from the whole image (first) and its regions."""
        pooled = self.pool(features, padding)
        read = pooled.shape[1]
        return self.encoder(
            self._embed(pooled, boxes[:, :read]), None if padding is None or read == 1 else padding[:, :read]
        )

    def read(
        self, features: Float[Tensor, "images regions feature_width"], boxes: Float[Tensor, "images regions box"]
    ) -> Float[Tensor, "images regions width"]:
        """The output of the blocks at the whole image (first) and at every region."""
        pooled = self.pool(features)
        if pooled.shape[1] == 1:
            pooled = torch.cat([pooled, self._alone(features[:, 1:])], dim=1)
        return self.encoder.read(self._embed(pooled, boxes), None)

    def _alone(self, regions: Float[Tensor, "images regions feature_width"]) -> Float[Tensor, "images regions pooled"]:
        """Regions, each pooled over itself: its mean and its greatest values are its own features."""
        return torch.cat([regions, regions], dim=-1) if self.pooling == "both" else regions

    def _embed(
        self, pooled: Float[Tensor, "images read pooled"], boxes: Float[Tensor, "images read box"]
    ) -> Float[Tensor, "images read width"]:
        standardised = (pooled - self.features_mean) / self.features_deviation
        return self.embedding(self.feature_dropout(standardised), boxes)


class DualEncoder(nn.Module):
    """The two encoders; tensors in, vectors out.

    Args:
        config: shapes of the encoders.
    """

    def __init__(self, config: DualEncoderConfig):
        super().__init__()
        self.config = config
        self.text = WordEncoder(config.text, config.width) if config.text.depth else WordBag(config)
        self.image = ImageEncoder(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(self.text, WordBag):
            nn.init.normal_(self.text.embedding.weight, std=1e-3)

    def forward(
        self, images: Sequence[Tensor | None], texts: Sequence[Tensor | None], chunk: int = 0
    ) -> tuple[Float[Tensor, "images vector"], Float[Tensor, "texts vector"]]:
        """Vectors of images and of texts.

        Args:
            images: features, boxes and padding, see :class:`ImageEncoder`.
            texts: ids, segments and padding, see :class:`WordEncoder`.
            chunk: number of items that are encoded at once; 0 for all.
        """
        return self._in_chunks(self.image, images, chunk), self._in_chunks(self.text, texts, chunk)

    def _in_chunks(
        self, encode: nn.Module, inputs: Sequence[Tensor | None], chunk: int
    ) -> Float[Tensor, "items vector"]:
        """Encode in chunks; activations are recomputed for the gradient (checkpointing)."""
        first = inputs[0]
        assert first is not None
        if not chunk or len(first) <= chunk:
            return encode(*inputs)
        parts = []
        for start in range(0, len(first), chunk):
            part = [None if each is None else each[start : start + chunk] for each in inputs]
            parts.append(checkpoint(encode, *part, use_reentrant=False) if self.training else encode(*part))
        return torch.cat(parts)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """The factor on similarities: the inverse of the temperature."""
        return self.log_scale.clamp(max=MAX_LOG_SCALE).exp()


def contrastive_loss(
    images: Float[Tensor, "images vector"],
    texts: Float[Tensor, "texts vector"],
    belong: Bool[Tensor, "images texts"],
    scale: Float[Tensor, ""],
) -> dict[str, Float[Tensor, ""]]:
    """Symmetric InfoNCE: each image finds its text, each text its image.

    Args:
        images, texts: vectors of length 1.
        belong: which pairs match. For an image with several texts, each text is compared only with the texts of other
            images; its own other texts are not negatives.
        scale: inverse of the temperature.

    Returns:
        ``image_to_text`` and ``text_to_image``, each half of the mean over pairs.
    """
    scores = scale * images @ texts.t()
    losses = {}
    for name, matrix, own in (("image_to_text", scores, belong), ("text_to_image", scores.t(), belong.t())):
        row, column = own.nonzero(as_tuple=True)
        others = own[row].clone()
        others[torch.arange(len(row)), column] = False
        logits = matrix[row].masked_fill(others, -torch.inf)
        losses[name] = F.cross_entropy(logits, column) / 2
    return losses
