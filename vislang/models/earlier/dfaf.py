"""DFAF: dynamic fusion with intra- and inter-modality attention flow for visual question answering (Gao et al. 2019,
arXiv 1812.05252).

Words and regions attend to each other (inter), then each to its own kind (intra). What the words say as a whole opens
gates for the attention among regions, and the other way round, which is what "dynamic" stands for.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.models.earlier.inputs import Standardise, WordsConfig, WordVectors, without_whole
from vislang.models.earlier.system import SavedSystemForTask, System, SystemConfig, SystemForTask, SystemRecipe
from vislang.models.precision import autocast
from vislang.models.settings import must_be_at_least, must_be_rates
from vislang.models.vilbert.task_batches import Task, TaskBatch
from vislang.nn.attention import Mask, attend, not_padding, split_heads
from vislang.nn.linear import Linear
from vislang.nn.precision import at_least_float32


@dataclass
class DFAFConfig(SystemConfig):
    """The shapes of DFAF.

    Attributes:
        text: the words.
        feature_width: width of the region features.
        recurrent_width: width of the states of the GRU.
        width, heads: shape of the attention.
        depth: number of blocks, each of inter- and intra-modality attention flow.
        mlp_width: width of the hidden layer of the classifier.
        dropout: dropout rate of the updates and of the classifier.
    """

    text: WordsConfig = field(default_factory=WordsConfig)
    feature_width: int = 2048
    recurrent_width: int = 1280
    width: int = 512
    heads: int = 8
    depth: int = 1
    mlp_width: int = 1024
    dropout: float = 0.1

    def __post_init__(self):
        sizes = ("feature_width", "recurrent_width", "width", "heads", "depth", "mlp_width")
        must_be_at_least(1, self, *sizes, of="network.")
        must_be_rates(self, "dropout", of="network.")
        if self.width % self.heads:
            raise ValueError(f"network.width {self.width} is not a multiple of {self.heads} heads.")


class InterModality(nn.Module):
    """Inter-modality attention flow (section 3.3): regions gather from words, and words from regions; what was
    gathered is joined with what was there."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.regions, self.words = Linear(width, 3 * width), Linear(width, 3 * width)
        self.join_regions, self.join_words = Linear(2 * width, width), Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        regions: Float[Tensor, "batch regions width"],
        words: Float[Tensor, "batch words width"],
        region_mask: Mask | None,
        word_mask: Mask | None,
    ) -> tuple[Float[Tensor, "batch regions width"], Float[Tensor, "batch words width"]]:
        """The updated regions and words."""
        of_regions, of_words = (
            [split_heads(part, self.heads) for part in projected.chunk(3, dim=-1)]
            for projected in (self.regions(regions), self.words(words))
        )
        from_words = self.dropout(attend(of_regions[0], of_words[1], of_words[2], word_mask))
        from_regions = self.dropout(attend(of_words[0], of_regions[1], of_regions[2], region_mask))
        return (
            self.join_regions(torch.cat([regions, from_words], dim=-1)),
            self.join_words(torch.cat([words, from_regions], dim=-1)),
        )


class DynamicIntraModality(nn.Module):
    """Dynamic intra-modality attention flow of one modality (section 3.4): its attention to itself, whose queries and
    keys are scaled by gates that the other modality opens."""

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.to_queries_keys_values = Linear(width, 3 * width)
        self.gates = Linear(width, width)
        self.to_output = Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        own: Float[Tensor, "batch length width"],
        other: Float[Tensor, "batch width"],
        mask: Mask | None,
    ) -> Float[Tensor, "batch length width"]:
        """The updated sequence; ``other`` is the mean of the other modality."""
        queries, keys, values = self.to_queries_keys_values(own).chunk(3, dim=-1)
        opened = 1 + self.gates(other).sigmoid()[:, None]
        queries, keys, values = (split_heads(part, self.heads) for part in (opened * queries, opened * keys, values))
        return self.to_output(own + self.dropout(attend(queries, keys, values, mask)))


class Block(nn.Module):
    """A block of the framework (section 3.5): inter-modality, then dynamic intra-modality attention flow."""

    def __init__(self, config: DFAFConfig):
        super().__init__()
        shape = config.width, config.heads, config.dropout
        self.inter = InterModality(*shape)
        self.intra_regions, self.intra_words = DynamicIntraModality(*shape), DynamicIntraModality(*shape)

    def forward(
        self,
        regions: Float[Tensor, "batch regions width"],
        words: Float[Tensor, "batch words width"],
        region_padding: Bool[Tensor, "batch regions"] | None,
        word_padding: Bool[Tensor, "batch words"] | None,
    ) -> tuple[Float[Tensor, "batch regions width"], Float[Tensor, "batch words width"]]:
        """The updated regions and words."""
        region_mask, word_mask = not_padding(region_padding), not_padding(word_padding)
        regions, words = self.inter(regions, words, region_mask, word_mask)
        # Both gates are opened by what the inter-modality flow gave.
        of_regions, of_words = mean(regions, region_padding), mean(words, word_padding)
        return self.intra_regions(regions, of_words, region_mask), self.intra_words(words, of_regions, word_mask)


def mean(
    sequence: Float[Tensor, "batch length width"], padding: Bool[Tensor, "batch length"] | None
) -> Float[Tensor, "batch width"]:
    """The mean over the positions that are not padding."""
    if padding is None:
        return sequence.mean(dim=1)
    real = (~padding)[..., None].to(sequence.dtype)
    return (sequence * real).sum(dim=1) / real.sum(dim=1)


class DFAF(System):
    """The whole network; its classifier is added by :meth:`add_answers`."""

    def __init__(self, config: DFAFConfig):
        super().__init__()
        self.config = config
        # Section 3.2: features of regions, and the states of a GRU over the question.
        self.standardise = Standardise(config.feature_width)
        self.vectors = WordVectors(config.text)
        self.recurrent = nn.GRU(config.text.width, config.recurrent_width, batch_first=True)
        self.regions = Linear(config.feature_width, config.width)
        self.words = Linear(config.recurrent_width, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.classifier: nn.Module | None = None

    def add_answers(self, count: int) -> None:
        """Add the classifier for this number of answers."""
        config = self.config
        self.classifier = nn.Sequential(
            Linear(config.width, config.mlp_width),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            Linear(config.mlp_width, count),
        )

    def forward(
        self,
        ids: Int[Tensor, "batch words"],
        word_padding: Bool[Tensor, "batch words"] | None,
        features: Float[Tensor, "batch regions feature_width"],
        region_padding: Bool[Tensor, "batch regions"] | None,
    ) -> Float[Tensor, "batch answers"]:
        """The logits of the answers."""
        assert self.classifier is not None
        with torch.autocast(features.device.type, enabled=False):
            states, _ = self.recurrent(self.vectors(ids))
        regions, words = self.regions(self.standardise(features)), self.words(states)
        for block in self.blocks:
            regions, words = block(regions, words, region_padding, word_padding)
        # Section 3.6: the product of the means.
        return self.classifier(mean(regions, region_padding) * mean(words, word_padding))


@dataclass(kw_only=True)
class SavedDFAF(SavedSystemForTask):
    """The settings in the ``config.json`` of a DFAF."""

    network: DFAFConfig


class DFAFForAnswers(SystemForTask[DFAF]):
    """DFAF with its inputs. It Decides answers."""

    network_class = DFAF
    kind = "answers"
    saved = SavedDFAF

    def add_task(self, name: str, task: Task) -> None:
        """Add the task with its classifier."""
        super().add_task(name, task)
        self.network.add_answers(len(task.names))

    def scores(self, batch: TaskBatch) -> Float[Tensor, "examples answers"]:
        """The logits of the answers."""
        pairs = without_whole(batch.pairs)
        text, rows, columns = pairs.text, pairs.text_of, pairs.image_of
        with autocast(pairs.features.device, self.dtype):
            logits = self.network(
                text.ids[rows],
                None if text.padding is None else text.padding[rows],
                pairs.features[columns],
                None if pairs.region_padding is None else pairs.region_padding[columns],
            )
        return at_least_float32(logits)

    def forward(self, batch: TaskBatch) -> dict[str, Float[Tensor, ""]]:
        """Cross-entropy over the answers (section 3.6), each weighted by its soft score."""
        assert batch.targets is not None
        return {batch.task: F.cross_entropy(self.scores(batch), batch.targets)}

    def shown_scores(self, task: Task, scores: Float[Tensor, "examples candidates"]) -> Tensor:
        """The probabilities of the answers, which add up to 1."""
        return scores.softmax(dim=-1)

    def repeated_blocks(self) -> list[nn.Module]:
        """The blocks."""
        return list(self.network.blocks)


@dataclass
class DFAFRecipe(SystemRecipe):
    """The settings of DFAF in a recipe.

    Attributes:
        network: shapes.
    """

    model_class = DFAFForAnswers

    network: DFAFConfig = field(default_factory=DFAFConfig)
