"""Heads on the streams: of pretraining (Lu et al. 2019, section 3.1) and of tasks (12-in-1, Lu et al. 2020)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from vislang.models.settings import must_be_at_least, must_be_rates
from vislang.models.vilbert.config import EPS, ViLBERTConfig
from vislang.nn.linear import Linear


@dataclass
class HeadConfig:
    """A task's head on the streams.

    Attributes:
        kind: ``fused``: the fused pooled outputs; ``pairs``: those of two neighbouring rows side by side (NLVR2: one
            text, two images); ``regions``, ``tokens``: each region or token.
        outputs: how many numbers.
        mlp_width: units of a layer between; 0 for none.
        activation: of these.
        norm: whether they are normalised.
        dropout: rate at which they are dropped.
    """

    kind: Literal["fused", "pairs", "regions", "tokens"]
    outputs: int
    mlp_width: int = 0
    activation: Literal["gelu", "relu"] = "gelu"
    norm: bool = True
    dropout: float = 0.0

    def __post_init__(self):
        must_be_at_least(0, self, "outputs", "mlp_width")
        must_be_rates(self, "dropout")


def original_heads(width: int = 1024) -> dict[str, HeadConfig]:
    """The heads of 12-in-1 (Lu et al. 2020, arXiv 1912.02315, section 3.3) for co-attention of this width."""
    return {
        "answers": HeadConfig("fused", 3129, 2 * width),
        "answers-gqa": HeadConfig("fused", 1533, 2 * width),
        "pairs": HeadConfig("pairs", 2, 2 * width),
        "match": HeadConfig("fused", 1),
        "entailment": HeadConfig("fused", 3),
        "region": HeadConfig("regions", 1),
        "token": HeadConfig("tokens", 1),
    }


def task_head(config: HeadConfig, streams: ViLBERTConfig) -> nn.Module:
    """A fresh head."""
    width = {
        "fused": streams.width,
        "pairs": 2 * streams.width,
        "regions": streams.vision.width,
        "tokens": streams.text.width,
    }[config.kind]
    if not config.mlp_width:
        return Linear(width, config.outputs)
    layers: list[nn.Module] = [Linear(width, config.mlp_width), _activation(config.activation)]
    layers += [nn.LayerNorm(config.mlp_width, EPS)] if config.norm else []
    layers += [nn.Dropout(config.dropout)] if config.dropout else []
    return nn.Sequential(*layers, Linear(config.mlp_width, config.outputs))


def _activation(name: Literal["gelu", "relu"]) -> nn.Module:
    return nn.GELU() if name == "gelu" else nn.ReLU()


class PretrainingLogits(NamedTuple):
    """What pretraining predicts.

    Attributes:
        words: over the vocabulary.
        regions: over the classes of regions.
        alignment: whether text and image belong together: the first says yes, as in the original.
    """

    words: Float[Tensor, "*tokens vocabulary"]
    regions: Float[Tensor, "*regions classes"]
    alignment: Float[Tensor, "batch 2"]


class PretrainingHeads(nn.Module):
    """What pretraining predicts (section 2.3): masked words, the classes of masked regions, whether the two belong
    together. The last map to words is the word embedding's, as in BERT."""

    def __init__(self, config: ViLBERTConfig):
        super().__init__()
        text, vision = config.text, config.vision
        self.words = _transform(text.width, text.activation)
        self.word_bias = nn.Parameter(torch.zeros(text.vocabulary_size))
        self.regions = nn.Sequential(
            *_transform(vision.width, config.region_activation or vision.activation),
            Linear(vision.width, vision.classes),
        )
        self.alignment = Linear(config.width, 2)

    def forward(
        self,
        text: Float[Tensor, "*tokens text_width"],
        vision: Float[Tensor, "*regions vision_width"],
        fused: Float[Tensor, "batch width"],
        embedding: Float[Tensor, "vocabulary text_width"],
    ) -> PretrainingLogits:
        """Logits.

        Args:
            text, vision: tokens and regions to predict. Give only masked ones: the map to words is the widest there is.
            fused: pooled pairs, see :meth:`ViLBERT.fuse`.
            embedding: of the words.
        """
        words = F.linear(self.words(text), embedding, self.word_bias)
        return PretrainingLogits(words, self.regions(vision), self.alignment(fused))


def _transform(width: int, activation: Literal["gelu", "relu"]) -> nn.Sequential:
    return nn.Sequential(Linear(width, width), _activation(activation), nn.LayerNorm(width, EPS))


def head_key(name: str) -> str:
    """The name of a task's head among the parameters: the task's, unless torch does not allow it for a module."""
    key = name.replace(".", "-")
    while hasattr(_EMPTY, key):
        key += "_"
    return key


_EMPTY = nn.ModuleDict()
"""Names of its attributes, such as "train" and "values", are not allowed for modules in it."""
