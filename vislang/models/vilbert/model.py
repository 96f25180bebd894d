"""ViLBERT: a stream for text, a stream for vision, and co-attention between them (Lu et al. 2019, arXiv 1908.02265).

Each stream is a transformer with its own width. Between some layers there are co-attention layers, in which each
stream attends to the keys and values of the other. Before the first such block, a stream depends only on its own input,
so this part is computed once per item, even if the item is in many pairs.

This file puts the parts together: shapes (:mod:`~vislang.models.vilbert.config`), streams and co-attention
(:mod:`~vislang.models.vilbert.streams`), heads (:mod:`~vislang.models.vilbert.heads`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.models.base import fill_model, read_settings, write_model
from vislang.models.vilbert.config import ViLBERTConfig
from vislang.models.vilbert.heads import HeadConfig, PretrainingHeads, PretrainingLogits, head_key, task_head
from vislang.models.vilbert.streams import Encoded, SingleStream, TwoStreams


@dataclass(kw_only=True)
class SavedViLBERT:
    """The settings in the ``config.json`` of a network; other models extend them."""

    streams: ViLBERTConfig
    heads: dict[str, HeadConfig]
    pretraining: bool
    origin: dict[str, Any] | None = None


class ViLBERT(nn.Module):
    """Two streams and their heads; tensors in, tensors out.

    Args:
        config: configuration of the streams.
        heads: task heads, by name.
        pretraining: whether to include the heads of pretraining.
        origin: the origin of converted weights, for the record.
    """

    def __init__(
        self,
        config: ViLBERTConfig,
        heads: Mapping[str, HeadConfig] | None = None,
        pretraining: bool = True,
        origin: dict[str, Any] | None = None,
    ):
        super().__init__()
        self.config = config
        self.head_configs: dict[str, HeadConfig] = {}
        self.origin = origin
        self.streams: TwoStreams | SingleStream = SingleStream(config) if config.single_stream else TwoStreams(config)
        self.pretraining = PretrainingHeads(config) if pretraining else None
        self.heads = nn.ModuleDict()
        for name, made in (heads or {}).items():
            self.add_head(name, made)
        # 0.1 in the original, independent of the dropout rates of the streams.
        self.dropout = nn.Dropout(0.1)
        self.apply(self.initialise)

    def add_head(self, name: str, config: HeadConfig) -> None:
        """Add a new head for a task."""
        head = task_head(config, self.config)
        head.apply(self.initialise)
        self.head_configs[name] = config
        self.heads[head_key(name)] = head

    @staticmethod
    def initialise(module: nn.Module) -> None:
        """As in BERT: weights from a normal distribution with a standard deviation of 0.02, biases 0."""
        if isinstance(module, nn.Linear | nn.Embedding):
            nn.init.normal_(module.weight, std=0.02)
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)

    def forward(
        self,
        ids: Int[Tensor, "batch tokens"],
        segments: Int[Tensor, "batch tokens"],
        features: Float[Tensor, "batch regions feature_width"],
        boxes: Float[Tensor, "batch regions box"],
        text_padding: Bool[Tensor, "batch tokens"] | None = None,
        region_padding: Bool[Tensor, "batch regions"] | None = None,
        steps: Int[Tensor, "batch regions"] | None = None,
        tasks: Int[Tensor, "..."] | None = None,
    ) -> Encoded:
        """Both streams over pairs of a text and an image; see :class:`TextEmbedding` and :class:`RegionEmbedding`.

        :func:`~vislang.models.vilbert.inputs.encode` gives the same result, and reads an item that is in many pairs
        only once.
        """
        own = () if tasks is None else (tasks,)
        text = self.streams.read_text(ids, segments, text_padding, *own)
        return self.streams(text, self.streams.read_regions(features, boxes, region_padding, steps))

    def fuse(self, encoded: Encoded) -> Float[Tensor, "batch width"]:
        """One vector for each pair (section 2.2, "Training tasks and objectives")."""
        left, right = encoded.pooled_text, encoded.pooled_vision
        if right is None:
            return self.dropout(left)
        return self.dropout(left * right if self.config.fusion == "product" else left + right)

    def predict(
        self, name: str, encoded: Encoded, fused: Float[Tensor, "batch width"] | None = None
    ) -> Float[Tensor, "..."]:
        """The outputs of a head for encoded pairs.

        Args:
            name: name of the head.
            encoded: encoded pairs.
            fused: the result of :meth:`fuse`, if several heads share it.

        Returns:
            (batch, outputs); for ``pairs`` (batch / 2, outputs); for ``regions`` and ``tokens`` (batch, length,
            outputs).
        """
        kind = self.head_configs[name].kind
        if kind == "regions":
            scores = self.heads[head_key(name)](self.dropout(encoded.vision))
            # Makes padding never the best region; the number is the original's.
            return scores if encoded.vision_padding is None else scores - 10_000 * encoded.vision_padding[..., None]
        if kind == "tokens":
            return self.heads[head_key(name)](self.dropout(encoded.text))
        fused = self.fuse(encoded) if fused is None else fused
        return self.heads[head_key(name)](fused.unflatten(0, (-1, 2)).flatten(1) if kind == "pairs" else fused)

    def pretraining_logits(
        self,
        text: Float[Tensor, "*tokens text_width"],
        vision: Float[Tensor, "*regions vision_width"],
        fused: Float[Tensor, "batch width"],
    ) -> PretrainingLogits:
        """The predictions of pretraining; see :class:`PretrainingHeads`."""
        assert self.pretraining is not None
        return self.pretraining(text, vision, fused, self.streams.text_embedding.words.weight)

    def alignment_logits(self, fused: Float[Tensor, "batch width"]) -> Float[Tensor, "batch 2"]:
        """Whether text and image match; see :class:`PretrainingLogits`."""
        assert self.pretraining is not None
        return self.pretraining.alignment(fused)

    def settings(self) -> dict[str, Any]:
        """The values of :class:`SavedViLBERT`."""
        return {
            "streams": dataclasses.asdict(self.config),
            "heads": {name: dataclasses.asdict(made) for name, made in self.head_configs.items()},
            "pretraining": self.pretraining is not None,
            "origin": self.origin,
        }

    @classmethod
    def from_settings(cls, saved: SavedViLBERT) -> ViLBERT:
        """A new model with these settings."""
        return cls(saved.streams, saved.heads, saved.pretraining, saved.origin)

    def save(self, folder: Path | str) -> None:
        """Write the config and the weights."""
        write_model(folder, self, self.settings())

    @classmethod
    def load(cls, folder: Path) -> ViLBERT:
        """Open a folder that :meth:`save` wrote.

        Raises:
            UserError: a setting is wrong, or the weights do not fit or are damaged.
        """
        model = cls.from_settings(read_settings(SavedViLBERT, folder))
        fill_model(model, folder)
        return model.eval()


class PretrainingLabels(NamedTuple):
    """The targets of pretraining.

    Attributes:
        words: the ids of masked words, -1 elsewhere.
        regions: True at masked regions.
        region_classes: the class distribution of each region.
        aligned: whether text and image of a row match.
    """

    words: Int[Tensor, "batch tokens"]
    regions: Bool[Tensor, "batch regions"]
    region_classes: Float[Tensor, "batch regions classes"]
    aligned: Bool[Tensor, "..."]


def pretraining_losses(model: ViLBERT, encoded: Encoded, labels: PretrainingLabels) -> dict[str, Float[Tensor, ""]]:
    """The three losses (section 2.2): ``words``, ``regions``, ``alignment``.

    The losses of words and regions are means over masked positions; without any, the loss and its gradient are 0.
    """
    masked = labels.words >= 0
    text, vision = encoded.text[masked], encoded.vision[labels.regions]
    logits = model.pretraining_logits(text, vision, model.fuse(encoded))
    words = F.cross_entropy(logits.words, labels.words[masked], reduction="sum")
    classes = labels.region_classes[labels.regions]
    regions = F.kl_div(logits.regions.log_softmax(dim=-1), classes, reduction="sum")
    alignment = F.cross_entropy(logits.alignment, (~labels.aligned).long())
    return {
        "words": words / masked.sum().clamp(min=1),
        "regions": regions / labels.regions.sum().clamp(min=1),
        "alignment": alignment,
    }
