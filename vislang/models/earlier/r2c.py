"""R2C: recognition to cognition networks for choosing an answer about an image (Zellers et al. 2019, arXiv 1811.10830).

Three steps, section 5: words are grounded in the objects that they name; the response is read in the context of the
query and of all objects; a recurrent layer reasons over the result, and each response gets a score.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.boxes import overlaps
from vislang.document import Image, Marked
from vislang.example import Example
from vislang.models.earlier.inputs import Standardise, WordsConfig, WordVectors
from vislang.models.earlier.system import SavedSystemForTask, System, SystemConfig, SystemForTask, SystemRecipe
from vislang.models.precision import autocast
from vislang.models.settings import must_be_at_least, must_be_rates
from vislang.models.vilbert.inputs import PairInputs
from vislang.models.vilbert.task_batches import TaskBatch, TaskCollator
from vislang.models.vilbert.word_pieces import Pieces
from vislang.nn.linear import Linear
from vislang.nn.precision import at_least_float32
from vislang.nn.recurrent import Bidirectional

WHOLE = 0
"""The region of the whole image, in which words are grounded that name no object."""


@dataclass
class R2CConfig(SystemConfig):
    """The shapes of R2C; the defaults are those of the authors' code.

    Attributes:
        text: the words; the authors' vectors of 768 numbers come from BERT.
        feature_width: width of the region features.
        object_width: width of the vectors of objects.
        width: width of the states of each direction of the LSTMs.
        mlp_width: width of the hidden layer of the score.
        dropout: dropout rate of the inputs of the LSTMs, and of the score.
    """

    text: WordsConfig = field(default_factory=lambda: WordsConfig(max_length=128, width=768))
    feature_width: int = 2048
    object_width: int = 512
    width: int = 256
    mlp_width: int = 1024
    dropout: float = 0.3

    def __post_init__(self):
        sizes = ("feature_width", "object_width", "width", "mlp_width")
        must_be_at_least(1, self, *sizes, of="network.")
        must_be_rates(self, "dropout", of="network.")


class Attention(nn.Module):
    """The mean of a context, weighted by a bilinear product with each position of a sequence."""

    def __init__(self, width: int, context_width: int):
        super().__init__()
        self.product = Linear(width, context_width, bias=False)

    def forward(
        self,
        sequence: Float[Tensor, "batch length width"],
        context: Float[Tensor, "batch context context_width"],
        padding: Bool[Tensor, "batch context"] | None,
    ) -> Float[Tensor, "batch length context_width"]:
        """The attended context at each position."""
        logits = self.product(sequence) @ context.to(sequence.dtype).transpose(1, 2)
        if padding is not None:
            logits = logits.masked_fill(padding[:, None], -torch.inf)
        return logits.softmax(dim=-1).to(context.dtype) @ context


class R2C(System):
    """The network; tensors in, one score for each response out."""

    def __init__(self, config: R2CConfig):
        super().__init__()
        self.config = config
        self.standardise = Standardise(config.feature_width)
        self.objects = nn.Sequential(Linear(config.feature_width, config.object_width), nn.ReLU())
        self.vectors = WordVectors(config.text)
        self.dropout = nn.Dropout(config.dropout)
        both = 2 * config.width
        self.grounding = Bidirectional(nn.LSTM, config.text.width + config.object_width, config.width)
        self.attend_query = Attention(both, both)
        self.attend_objects = Attention(both, config.object_width)
        self.reasoning = Bidirectional(nn.LSTM, 2 * both + config.object_width, config.width)
        self.score = nn.Sequential(
            nn.Dropout(config.dropout),
            Linear(3 * both, config.mlp_width),
            nn.ReLU(),
            nn.Dropout(config.dropout),
            Linear(config.mlp_width, 1),
        )

    def forward(
        self,
        queries: Pieces,
        responses: Pieces,
        query_objects: Int[Tensor, "pairs query_words"],
        response_objects: Int[Tensor, "pairs response_words"],
        features: Float[Tensor, "images regions feature_width"],
        region_padding: Bool[Tensor, "images regions"] | None,
        image_of: Int[Tensor, "..."],
    ) -> Float[Tensor, "..."]:
        """The score of each pair of a query and a response: (pairs,).

        Args:
            queries, responses: a query and a response for each pair.
            query_objects, response_objects: the region that each word names.
            features, region_padding: regions of the distinct images, the whole image first.
            image_of: the image of each pair.
        """
        objects = at_least_float32(self.objects(self.standardise(features)))[image_of]
        padding = None if region_padding is None else region_padding[image_of]
        query = self._ground(queries, query_objects, objects)
        response = self._ground(responses, response_objects, objects)
        # Contextualisation (section 5.1): of the response with the query and with all objects.
        with_query = self.attend_query(response, query, queries.padding)
        with_objects = self.attend_objects(response, objects, padding)
        # Reasoning (section 5.1); its output is joined with what it read of both texts, and pooled over the words.
        inputs = self.dropout(torch.cat([response, with_objects, with_query], dim=-1))
        reasoned = self.reasoning(inputs, responses.padding).flatten(2)
        joined = torch.cat([reasoned, response, with_query], dim=-1)
        if responses.padding is not None:
            joined = joined.masked_fill(responses.padding[..., None], -torch.inf)
        return self.score(joined.amax(dim=1))[:, 0]

    def _ground(
        self,
        pieces: Pieces,
        named: Int[Tensor, "pairs words"],
        objects: Float[Tensor, "pairs regions object_width"],
    ) -> Float[Tensor, "pairs words states"]:
        """Grounding (section 5.1): a recurrent layer over each word with the object that it names."""
        own = objects.gather(1, named[..., None].expand(-1, -1, objects.shape[-1]))
        inputs = self.dropout(torch.cat([self.vectors(pieces.ids), own], dim=-1))
        return self.grounding(inputs, pieces.padding).flatten(2)


@dataclass
class ResponseBatch(TaskBatch):
    """Queries and responses about images.

    Attributes:
        queries, responses: for each pair of ``pairs``.
        query_objects, response_objects: (pairs, words) the region that each word names; 0, the whole image, if none.
    """

    queries: Pieces
    responses: Pieces
    query_objects: Int[Tensor, "pairs query_words"]
    response_objects: Int[Tensor, "pairs response_words"]


class ResponseCollator(TaskCollator):
    """Turns examples with choices into a batch; nothing is random. Picklable.

    The last text of a document is the response, the one before it the query. A document of one text has an empty query.
    """

    def batch(self, name: str, examples: Sequence[Example]) -> ResponseBatch:
        """See :meth:`TaskCollator.batch`."""
        batch = super().batch(name, examples)
        documents = [document for example in examples for document in example.documents()]
        texts = [self.inputs.texts_of(document) for document in documents]
        images = [self.inputs.images_of(document)[0] for document in documents]
        queries = self.inputs.text([(text[0] if len(text) > 1 else "",) for text in texts])
        responses = self.inputs.text([(text[-1],) for text in texts])
        of_image = {image: self._names(image) for image in dict.fromkeys(images)}
        names = [of_image[image] for image in images]
        query_objects, response_objects = (self._objects(pieces, names) for pieces in (queries, responses))
        return ResponseBatch(
            **vars(batch),
            queries=queries,
            responses=responses,
            query_objects=query_objects,
            response_objects=response_objects,
        )

    def _names(self, image: Image) -> list[tuple[list[int], int]]:
        """The names of objects in an image as word pieces, the longest first, and the region of each: the one that
        overlaps its box most, if by at least one half."""
        if not isinstance(image.source, Marked) or not image.source.marks:
            return []
        marks, source = image.source.marks, image.source
        (found,) = self.inputs.regions_of((image,)).found
        # The boxes may refer to another scale of the image.
        scale = np.array([found.width / source.width, found.height / source.height] * 2)
        overlap = overlaps(np.array([mark[1:] for mark in marks]) * scale, found.boxes)
        regions = np.where(overlap.max(axis=1) >= 0.5, overlap.argmax(axis=1) + 1, WHOLE)
        pieces = self.inputs.text([(mark.name,) for mark in marks])
        names = [[number for number in row[1:] if number][:-1] for row in pieces.ids.tolist()]
        made = [(name, int(region)) for name, region in zip(names, regions, strict=True) if name]
        return sorted(made, key=lambda one: -len(one[0]))

    def _objects(self, pieces: Pieces, names: Sequence[list[tuple[list[int], int]]]) -> Int[Tensor, "pairs words"]:
        """The region that each word piece names; of two names that fit, the longer one."""
        assert self.inputs.words is not None
        objects = torch.full_like(pieces.ids, WHOLE)
        for row, (ids, known) in enumerate(zip(pieces.ids.tolist(), names, strict=True)):
            taken = [False] * len(ids)
            for name, region in known:
                for start in range(len(ids) - len(name)):
                    end = start + len(name)
                    if ids[start:end] == name and not any(taken[start:end]) and not self._continues(ids[end]):
                        objects[row, start:end] = region
                        taken[start:end] = [True] * len(name)
        return objects

    def _continues(self, number: int) -> bool:
        """Whether a word piece continues a word."""
        assert self.inputs.words is not None
        return (self.inputs.words.tokenizer.id_to_token(number) or "").startswith("##")


@dataclass(kw_only=True)
class SavedR2C(SavedSystemForTask):
    """The settings in the ``config.json`` of an R2C."""

    network: R2CConfig


class R2CForChoices(SystemForTask[R2C]):
    """R2C with its inputs. It Decides choices."""

    network_class = R2C
    kind = "choice"
    saved = SavedR2C
    collate: ResponseCollator

    def __init__(self, network: R2C, inputs: PairInputs, dtype: torch.dtype = torch.float32):
        super().__init__(network, inputs, dtype)
        self.collate = ResponseCollator(inputs, self.tasks)

    def scores(self, batch: TaskBatch) -> Float[Tensor, "examples choices"]:
        """The score of each choice; minus infinity where an example has fewer choices. The loss is the cross-entropy
        over the choices (section 5.1)."""
        assert isinstance(batch, ResponseBatch)
        pairs = batch.pairs
        with autocast(pairs.features.device, self.dtype):
            found = self.network(
                batch.queries,
                batch.responses,
                batch.query_objects,
                batch.response_objects,
                pairs.features,
                pairs.region_padding,
                pairs.image_of,
            )
        found = at_least_float32(found)
        return torch.cat([found, found.new_full((1,), -torch.inf)])[batch.choices]


@dataclass
class R2CRecipe(SystemRecipe):
    """The settings of R2C in a recipe.

    Attributes:
        network: shapes.
    """

    model_class = R2CForChoices

    network: R2CConfig = field(default_factory=R2CConfig)
