"""MAttNet: modular attention network for referring expressions (Yu et al. 2018, arXiv 1801.08186).

An expression names a thing ("dog"), says where it is ("on the left") and what is around it ("next to the chair"). Each
of three modules attends to its own words of the expression and scores every candidate region; weights that also follow
from the expression add the three scores.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.boxes import Box
from vislang.document import Image
from vislang.example import Example
from vislang.models.earlier.inputs import Standardise, WordsConfig, WordVectors, without_whole
from vislang.models.earlier.system import SavedSystemForTask, System, SystemConfig, SystemForTask, SystemRecipe
from vislang.models.precision import autocast
from vislang.models.settings import must_be_above_zero, must_be_at_least, must_be_rates
from vislang.models.vilbert.inputs import PairInputs, Pairs
from vislang.models.vilbert.task_batches import Task, TaskBatch, TaskCollator
from vislang.models.vilbert.word_pieces import Pieces
from vislang.nn.linear import Linear
from vislang.nn.precision import at_least_float32
from vislang.nn.recurrent import Bidirectional, at_last

OFFSET = 5
"""The numbers that place a region, in the image or relative to another region."""

MODULES = ("subject", "location", "relationship")


@dataclass
class MAttNetConfig(SystemConfig):
    """The shapes of MAttNet; the defaults are those of the authors' code.

    Attributes:
        text: the words.
        feature_width: width of the region features.
        recurrent_width: width of the states of each direction of the LSTM.
        width: width of the space in which regions and phrases are compared.
        surrounding: greatest number of other regions that the location and relationship modules look at.
        margin: by how much a region must fit its expression better than a wrong one.
        dropout: dropout rate before the last layer of a comparison.
    """

    text: WordsConfig = field(default_factory=lambda: WordsConfig(width=512, dropout=0.5))
    feature_width: int = 2048
    recurrent_width: int = 512
    width: int = 512
    surrounding: int = 5
    margin: float = 0.1
    dropout: float = 0.1

    def __post_init__(self):
        sizes = ("feature_width", "recurrent_width", "width", "surrounding")
        must_be_at_least(1, self, *sizes, of="network.")
        must_be_above_zero(self, "margin")
        must_be_rates(self, "dropout", of="network.")


class Phrases(NamedTuple):
    """What the modules read of each expression.

    Attributes:
        vectors: the phrase of each module.
        weights: the weight of each module; they add up to 1.
        attention: the attention of each module to the words.
    """

    vectors: Float[Tensor, "texts modules width"]
    weights: Float[Tensor, "texts modules"]
    attention: Float[Tensor, "texts modules words"]


class LanguageAttention(nn.Module):
    """The language attention network (section 3.1)."""

    def __init__(self, config: MAttNetConfig):
        super().__init__()
        width = 2 * config.recurrent_width
        self.vectors = WordVectors(config.text)
        self.recurrent = Bidirectional(nn.LSTM, config.text.width, config.recurrent_width)
        self.attention = nn.Linear(width, len(MODULES), bias=False)
        self.weights = nn.Linear(2 * width, len(MODULES))

    def forward(self, ids: Int[Tensor, "texts words"], padding: Bool[Tensor, "texts words"] | None) -> Phrases:
        """A phrase is the mean of word vectors, weighted by the module's attention to the states of the LSTM. The
        weights of the modules follow from the first and the last state."""
        vectors = self.vectors(ids)
        states = self.recurrent(vectors, padding).flatten(2)
        logits = self.attention(states).transpose(1, 2)
        if padding is not None:
            logits = logits.masked_fill(padding[:, None], -torch.inf)
        attention = logits.softmax(dim=-1)
        weights = self.weights(torch.cat([states[:, 0], at_last(states, padding)], dim=-1)).softmax(dim=-1)
        return Phrases(attention @ vectors.to(attention.dtype), weights, attention)


class Matching(nn.Module):
    """The matching function F (section 3.2.1): two perceptrons, whose outputs of length 1 are multiplied."""

    def __init__(self, visual_width: int, phrase_width: int, width: int, dropout: float):
        super().__init__()
        self.visual, self.phrase = (
            nn.Sequential(Linear(inputs, width), nn.ReLU(), nn.Dropout(dropout), Linear(width, width))
            for inputs in (visual_width, phrase_width)
        )

    def forward(
        self, visual: Float[Tensor, "images *regions visual_width"], phrases: Float[Tensor, "texts phrase_width"]
    ) -> tuple[Float[Tensor, "images *regions width"], Float[Tensor, "texts width"]]:
        """Regions and phrases as vectors of length 1; the product of two is their score."""
        return (
            F.normalize(at_least_float32(self.visual(visual)), dim=-1),
            F.normalize(at_least_float32(self.phrase(phrases)), dim=-1),
        )


class Surroundings(NamedTuple):
    """Other regions of the same image, for each region.

    Attributes:
        index: of the other regions.
        missing: True where there are not that many.
        offsets: where they are, relative to the region: the differences of the left, top, right and bottom edges, and
            the ratio of the areas; 0 where they are missing.
    """

    index: Int[Tensor, "images regions surrounding"]
    missing: Bool[Tensor, "images regions surrounding"]
    offsets: Float[Tensor, "images regions surrounding offset"]


def surroundings(
    near: Float[Tensor, "images regions regions"],
    boxes: Float[Tensor, "images regions box"],
    padding: Bool[Tensor, "images regions"] | None,
    count: int,
) -> Surroundings:
    """The ``count`` other regions that are nearest, by ``near``: higher is nearer."""
    regions = near.shape[1]
    itself = torch.eye(regions, dtype=torch.bool, device=near.device)
    excluded = itself if padding is None else itself | padding[:, None]
    found = near.masked_fill(excluded, -torch.inf).topk(min(count, regions), dim=-1)
    missing = found.values == -torch.inf
    left, top, right, bottom = (edge[..., None] for edge in boxes[..., :4].unbind(dim=-1))
    width, height = (right - left).clamp(min=1e-3), (bottom - top).clamp(min=1e-3)
    rows = torch.arange(len(boxes), device=boxes.device)[:, None, None]
    others = boxes[rows, found.indices]
    scale = torch.stack([width, height, width, height], dim=-1)
    edges = (others[..., :4] - boxes[:, :, None, :4]) / scale
    size = (others[..., 2] - others[..., 0]) * (others[..., 3] - others[..., 1]) / (width * height)
    offsets = torch.cat([edges, size[..., None]], dim=-1).masked_fill(missing[..., None], 0)
    return Surroundings(found.indices, missing, offsets)


class MAttNet(System):
    """The three modules (section 3.2); tensors in, scores out."""

    def __init__(self, config: MAttNetConfig):
        super().__init__()
        self.config = config
        self.standardise = Standardise(config.feature_width)
        self.language = LanguageAttention(config)
        shape = config.text.width, config.width, config.dropout
        self.subject = Matching(config.feature_width, *shape)
        self.locate = Linear(OFFSET * (1 + config.surrounding), config.width)
        self.location = Matching(config.width, *shape)
        # A linear map of a feature with its offset is the sum of two, of which one is computed once for each region.
        self.relate = Linear(config.feature_width, config.width)
        self.relate_offset = nn.Linear(OFFSET, config.width, bias=False)
        self.relationship = Matching(config.width, *shape)

    def forward(
        self,
        text: Pieces,
        features: Float[Tensor, "images regions feature_width"],
        boxes: Float[Tensor, "images regions box"],
        region_padding: Bool[Tensor, "images regions"] | None,
        text_of: Int[Tensor, "..."],
        image_of: Int[Tensor, "..."],
    ) -> Float[Tensor, "pairs regions"]:
        """The score of each region of each pair of an expression and an image (section 3.3), from -1 to 1."""
        phrases = self.language(text.ids, text.padding)
        features = self.standardise(features)
        subject = self.subject(features, phrases.vectors[:, 0])
        location = self.location(self._located(features, boxes, region_padding), phrases.vectors[:, 1])
        around = surroundings(nearness(boxes), boxes, region_padding, self.config.surrounding)
        rows = torch.arange(len(boxes), device=boxes.device)[:, None, None]
        related = self.relate(features)[rows, around.index] + self.relate_offset(around.offsets)
        relationship = self.relationship(related, phrases.vectors[:, 2])
        scores = [torch.einsum("prw,pw->pr", v[image_of], q[text_of]) for v, q in (subject, location)]
        # The best of the surrounding regions counts: which one the expression means is not known (section 3.2.3).
        each = torch.einsum("prcw,pw->prc", relationship[0][image_of], relationship[1][text_of])
        missing = around.missing[image_of]
        best = each.masked_fill(missing, -torch.inf).amax(dim=-1).masked_fill(missing.all(dim=-1), 0)
        return (torch.stack([*scores, best], dim=-1) * phrases.weights[text_of][:, None]).sum(dim=-1)

    def _located(
        self, features: Tensor, boxes: Tensor, padding: Tensor | None
    ) -> Float[Tensor, "images regions width"]:
        """The place of each region, and where the regions are that look like it (section 3.2.2).

        The paper takes those of the same class, which only some sources of regions know.
        """
        alike = F.normalize(features, dim=-1)
        around = surroundings(alike @ alike.transpose(1, 2), boxes, padding, self.config.surrounding)
        offsets = around.offsets.flatten(2)
        offsets = F.pad(offsets, (0, OFFSET * self.config.surrounding - offsets.shape[-1]))
        return self.locate(torch.cat([boxes[..., :OFFSET], offsets], dim=-1))


def nearness(boxes: Float[Tensor, "images regions box"]) -> Float[Tensor, "images regions regions"]:
    """How near the middles of regions are: the negative distance."""
    middles = (boxes[..., :2] + boxes[..., 2:4]) / 2
    return -(middles[:, :, None] - middles[:, None]).square().sum(dim=-1)


@dataclass
class ExpressionBatch(TaskBatch):
    """Expressions with images.

    Attributes:
        wrong: for each example the expression of another region, on which the ranking loss trains; None in use.
        has_wrong: whether there is one.
    """

    wrong: Pieces | None = None
    has_wrong: Bool[Tensor, "..."] | None = None


class ExpressionCollator(TaskCollator):
    """Turns referring expressions into a batch, with a wrong expression for each. Picklable; what is drawn for an
    example depends only on the seed of its batch and its number there.

    The candidates are the regions of the image, without the whole.
    """

    def __init__(self, inputs: PairInputs, tasks: dict[str, Task]):
        super().__init__(inputs, tasks)
        self.of_image: dict[str, list[tuple[str, Box]]] = {}
        self.pool: list[str] = []

    def learn(self, examples: Sequence[Example]) -> None:
        """Collect the expressions, from which wrong ones are drawn."""
        for example in examples:
            (image,) = self.inputs.images_of(example.prompt)
            if isinstance(example.target, Box):
                self.of_image.setdefault(image.name, []).append((self._text(example), example.target))
        self.pool = list(dict.fromkeys(text for own in self.of_image.values() for text, _ in own))

    def __call__(self, examples: Sequence[Example], seed: int = 0, first: int = 0) -> ExpressionBatch:
        """Collate; see :class:`TaskCollator`."""
        batch = super().__call__(examples, seed, first)
        drawn = [
            self._wrong(example, random.Random(f"{seed} {number}")) for number, example in enumerate(examples, first)
        ]
        has_wrong = torch.tensor([text is not None for text in drawn])
        wrong = self.inputs.text([(text or "",) for text in drawn])
        return ExpressionBatch(**vars(batch), wrong=wrong, has_wrong=has_wrong)

    def _wrong(self, example: Example, rng: random.Random) -> str | None:
        """The expression of another region: of this image if there is one, else of any (section 3.3)."""
        (image,) = self.inputs.images_of(example.prompt)
        own = self._text(example)
        here = [text for text, box in self.of_image.get(image.name, []) if box != example.target and text != own]
        if here:
            return rng.choice(here)
        drawn = (self.pool[rng.randrange(len(self.pool))] for _ in range(20 if self.pool else 0))
        return next((text for text in drawn if text != own), None)

    def _text(self, example: Example) -> str:
        return " ".join(self.inputs.texts_of(example.prompt))

    def read(self, rows: Sequence[tuple[tuple[str, ...], tuple[Image, ...]]], names: Sequence[str]) -> Pairs:
        """See :meth:`TaskCollator.read`."""
        return without_whole(super().read(rows, names))

    def boxes(self, example: Example) -> np.ndarray:
        """The boxes of the candidates in pixels; see :meth:`TaskCollator.boxes`."""
        return super().boxes(example)[1:]


@dataclass(kw_only=True)
class SavedMAttNet(SavedSystemForTask):
    """The settings in the ``config.json`` of a MAttNet."""

    network: MAttNetConfig


class MAttNetForBoxes(SystemForTask[MAttNet]):
    """MAttNet with its inputs. It Decides boxes."""

    network_class = MAttNet
    kind = "box"
    saved = SavedMAttNet
    kind_of_score = "similarity"
    collate: ExpressionCollator

    def __init__(self, network: MAttNet, inputs: PairInputs, dtype: torch.dtype = torch.float32):
        super().__init__(network, inputs, dtype)
        self.collate = ExpressionCollator(inputs, self.tasks)

    def fit(self, examples: Sequence[Example]) -> None:
        """See :meth:`SystemForTask.fit`; and collect the expressions."""
        super().fit(examples)
        self.collate.learn(examples)

    def scores(self, batch: TaskBatch) -> Float[Tensor, "examples regions"]:
        """The score of each candidate, from -1 to 1."""
        return self._scores(batch.pairs, batch.pairs.text, batch.pairs.text_of, batch.pairs.image_of)

    def _scores(self, pairs: Pairs, text: Pieces, text_of: Tensor, image_of: Tensor) -> Float[Tensor, "pairs regions"]:
        with autocast(pairs.features.device, self.dtype):
            found = self.network(text, pairs.features, pairs.boxes, pairs.region_padding, text_of, image_of)
        return at_least_float32(found)

    def forward(self, batch: TaskBatch) -> dict[str, Float[Tensor, ""]]:
        """The ranking loss (section 3.3): a region must fit its expression better by a margin than it fits a wrong
        expression, and better than other candidates of its image fit the expression.

        The paper draws one other candidate; here the loss is the mean over all of them, which is its expectation. A
        candidate is right if no other overlaps the ground truth more, and by at least one half. Examples without such a
        candidate do not count.
        """
        assert isinstance(batch, ExpressionBatch)
        pairs, margin = batch.pairs, self.network.config.margin
        assert batch.targets is not None
        assert batch.wrong is not None
        assert batch.has_wrong is not None
        # One pass over the regions, for the right expressions and the wrong ones.
        text = _joined(pairs.text, batch.wrong)
        count = len(batch.targets)
        text_of = torch.cat([pairs.text_of, torch.arange(count, device=pairs.text_of.device) + len(pairs.text.ids)])
        scores, of_wrong = self._scores(pairs, text, text_of, pairs.image_of.repeat(2)).chunk(2)
        overlap, right = batch.targets.max(dim=1)
        own = scores.gather(1, right[:, None])
        other = batch.targets == 0
        if pairs.region_padding is not None:
            other = other & ~pairs.region_padding[pairs.image_of]
        by_region = ((margin + scores - own).relu() * other).sum(dim=1) / other.sum(dim=1).clamp(min=1)
        by_text = (margin + of_wrong.gather(1, right[:, None]) - own).relu()[:, 0] * batch.has_wrong
        counted = overlap > 0
        return {batch.task: ((by_region + by_text) * counted).sum() / counted.sum().clamp(min=1)}

    def loss_counts(self, batch: TaskBatch) -> dict[str, int | None]:
        """Examples with a right candidate."""
        assert batch.targets is not None
        return {batch.task: int((batch.targets.amax(dim=1) > 0).sum())}

    def shown_scores(self, task: Task, scores: Float[Tensor, "examples candidates"]) -> Tensor:
        """The scores themselves, which are similarities."""
        return scores


def _joined(one: Pieces, other: Pieces) -> Pieces:
    """The texts of both."""
    length = max(one.ids.shape[1], other.ids.shape[1])

    def longer(rows: Tensor) -> Tensor:
        return F.pad(rows, (0, length - rows.shape[1]))

    ids, segments = (
        torch.cat([longer(mine), longer(theirs)])
        for mine, theirs in ((one.ids, other.ids), (one.segments, other.segments))
    )
    return Pieces(ids, segments, ids == 0)


@dataclass
class MAttNetRecipe(SystemRecipe):
    """The settings of MAttNet in a recipe.

    Attributes:
        network: shapes.
    """

    model_class = MAttNetForBoxes

    network: MAttNetConfig = field(default_factory=MAttNetConfig)
