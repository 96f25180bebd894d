"""The words and region features of the earlier systems.

All four read region features of a frozen network and a text with a recurrent network. Their texts are word pieces,
with vectors that are learned; the papers use words, with GloVe or BERT.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vislang.document import Image
from vislang.models.settings import must_be_at_least, must_be_rates
from vislang.models.vilbert.inputs import PairInputs, Pairs
from vislang.nn.statistics import mean_and_std


@dataclass
class WordsConfig:
    """The words of a text.

    Attributes:
        vocabulary_size: greatest number of word pieces.
        max_length: greatest number of word pieces of a text, with those that mark its ends.
        width: width of a word's vector.
        dropout: dropout rate of the vectors.
    """

    vocabulary_size: int = 10_000
    max_length: int = 64
    width: int = 300
    dropout: float = 0.0

    def __post_init__(self):
        must_be_at_least(1, self, "vocabulary_size", "width", of="text.")
        must_be_at_least(3, self, "max_length", of="text.")
        must_be_rates(self, "dropout", of="text.")


class WordVectors(nn.Module):
    """The vectors of word pieces; that of padding is 0."""

    def __init__(self, config: WordsConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary_size, config.width, padding_idx=0)
        self.dropout = nn.Dropout(config.dropout)
        # As in SCAN's code; the default has a standard deviation of 1, which saturates a recurrent layer.
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        with torch.no_grad():
            self.embedding.weight[0].zero_()

    def forward(self, ids: Tensor) -> Float[Tensor, "texts tokens width"]:
        """The vectors of word pieces, (texts, tokens)."""
        return self.dropout(self.embedding(ids))


class Standardise(nn.Module):
    """Subtracts the mean of each channel of the region features, and divides by the standard deviation.

    Towers differ in the scale of their features; the papers' features came from one detector.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, width: int):
        super().__init__()
        self.register_buffer("mean", torch.zeros(width))
        self.register_buffer("std", torch.ones(width))

    def measure(self, inputs: PairInputs, images: Sequence[Image]) -> None:
        """Measure the statistics on distinct images, unless a trained model has them already."""
        if self.mean.any() or not images:
            return
        mean, std = mean_and_std(torch.from_numpy(np.concatenate(inputs.sample(images))))
        self.mean.copy_(mean)
        self.std.copy_(std)

    def forward(self, features: Float[Tensor, "*regions width"]) -> Float[Tensor, "*regions width"]:
        """The standardised features."""
        return (features - self.mean) / self.std


def without_whole(pairs: Pairs) -> Pairs:
    """The pairs without the region of the whole image, which is the first."""
    padding = pairs.region_padding
    return replace(
        pairs,
        features=pairs.features[:, 1:],
        boxes=pairs.boxes[:, 1:],
        steps=pairs.steps[:, 1:],
        region_padding=None if padding is None else padding[:, 1:],
    )
