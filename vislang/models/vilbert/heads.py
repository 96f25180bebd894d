"""Heads on the streams, for pretraining (Lu et al. 2019, section 2.2) and for tasks (12-in-1, Lu et al. 2020)."""

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
    """A task head on the streams.

    Attributes:
        kind: the input of the head. ``fused``: the fused pooled outputs; ``pairs``: those of two neighbouring rows,
            concatenated (NLVR2: one text, two images); ``regions``, ``tokens``: each region or token.
        outputs: number of outputs.
        mlp_width: width of a hidden layer; 0 for none.
        activation: activation of the hidden layer.
        norm: whether the hidden layer is normalised.
        dropout: dropout rate of the hidden layer.
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
    """A new head."""
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
    """The predictions of pretraining.

    Attributes:
        words: logits over the vocabulary.
        regions: logits over the classes of regions.
        alignment: whether text and image match: the first logit is for a match, as in the original.
    """

    words: Float[Tensor, "*tokens vocabulary"]
    regions: Float[Tensor, "*regions classes"]
    alignment: Float[Tensor, "batch 2"]


class PretrainingHeads(nn.Module):
    """The heads of pretraining (section 2.2): masked words, classes of masked regions, and whether text and image
    match.

    The output layer for words is the word embedding, as in BERT.
    """

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
            text, vision: the tokens and regions to predict; only the masked ones, because the output layer for words is
                large.
            fused: pooled pairs, see :meth:`ViLBERT.fuse`.
            embedding: the word embedding.
        """
        words = F.linear(self.words(text), embedding, self.word_bias)
        return PretrainingLogits(words, self.regions(vision), self.alignment(fused))


def _transform(width: int, activation: Literal["gelu", "relu"]) -> nn.Sequential:
    return nn.Sequential(Linear(width, width), _activation(activation), nn.LayerNorm(width, EPS))


def head_key(name: str) -> str:
    """The module name of a task's head: the task's name, unless torch does not allow it."""
    key = name.replace(".", "-")
    while hasattr(_EMPTY, key):
        key += "_"
    return key


_EMPTY = nn.ModuleDict()
"""A ModuleDict has no modules with the names of its attributes, such as "train" or "values"."""
