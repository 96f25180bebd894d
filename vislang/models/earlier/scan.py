"""SCAN: stacked cross attention for image-text matching (Lee et al. 2018, arXiv 1803.08024).

Each word attends to the regions of an image (text-image), or each region to the words of a text (image-text). A word
is relevant to the image if it is similar to what it attended to. The relevances of all words are pooled into one
similarity of image and text.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from vislang.capabilities import Progress
from vislang.document import Image
from vislang.example import Example
from vislang.models.earlier.inputs import Standardise, WordsConfig, WordVectors, without_whole
from vislang.models.earlier.system import SavedSystem, System, SystemConfig, SystemRecipe
from vislang.models.precision import autocast
from vislang.models.settings import must_be_above_zero, must_be_at_least
from vislang.models.vilbert.captioned import PairCollator, are_several, belonging, flattened, gathered, unflattened
from vislang.models.vilbert.inputs import PairInputs, Pairs, pairs_of
from vislang.models.vilbert.pair_model import PairModel
from vislang.nn.device import to_device
from vislang.nn.linear import Linear
from vislang.nn.precision import at_least_float32
from vislang.nn.recurrent import Bidirectional

AT_ONCE = 64
"""Images, or texts, that are compared at once."""


@dataclass
class SCANConfig(SystemConfig):
    """The defaults are the paper's best single model on Flickr30K (table 1, "t-i AVG").

    Attributes:
        text: the words.
        feature_width: width of the region features.
        width: width of the joint space.
        direction: whether words attend to regions (``text-image``) or regions to words (``image-text``).
        pooling: ``average`` of the relevances, or their LogSumExp (``lse``).
        attention_scale: the inverse temperature of the attention, lambda 1 in the paper: 9 for ``text-image``, 4 for
            ``image-text``.
        pooling_scale: the inverse temperature of LogSumExp, lambda 2: 6 for ``text-image``, 5 for ``image-text``.
        margin: by how much a pair must be more similar than a wrong one.
    """

    text: WordsConfig = field(default_factory=WordsConfig)
    feature_width: int = 2048
    width: int = 1024
    direction: Literal["text-image", "image-text"] = "text-image"
    pooling: Literal["average", "lse"] = "average"
    attention_scale: float = 9.0
    pooling_scale: float = 6.0
    margin: float = 0.2

    def __post_init__(self):
        must_be_at_least(1, self, "feature_width", "width", of="network.")
        must_be_above_zero(self, "attention_scale", "pooling_scale", "margin")


class SCAN(System):
    """The two encoders and the stacked cross attention; tensors in, similarities out."""

    def __init__(self, config: SCANConfig):
        super().__init__()
        self.config = config
        self.standardise = Standardise(config.feature_width)
        self.regions = Linear(config.feature_width, config.width)
        self.words = WordVectors(config.text)
        self.recurrent = Bidirectional(nn.GRU, config.text.width, config.width)

    def read_regions(
        self, features: Float[Tensor, "images regions feature_width"]
    ) -> Float[Tensor, "images regions width"]:
        """Section 3.3: a linear map. Vectors have the length 1, since only their cosines are used."""
        return F.normalize(at_least_float32(self.regions(self.standardise(features))), dim=-1)

    def read_words(
        self, ids: Int[Tensor, "texts tokens"], padding: Bool[Tensor, "texts tokens"] | None
    ) -> Float[Tensor, "texts tokens width"]:
        """Section 3.4: the mean of the states of both directions of a GRU, of length 1."""
        return F.normalize(self.recurrent(self.words(ids), padding).mean(dim=2), dim=-1)

    def forward(
        self,
        regions: Float[Tensor, "images regions width"],
        words: Float[Tensor, "texts tokens width"],
        region_padding: Bool[Tensor, "images regions"] | None = None,
        word_padding: Bool[Tensor, "texts tokens"] | None = None,
    ) -> Float[Tensor, "images texts"]:
        """The similarity of every image with every text (section 3.1); the vectors have the length 1."""
        config = self.config
        # Of all regions with all words (section 3.1, equation 1).
        cosines = torch.einsum("irw,tkw->itrk", regions, words)
        no_region = _padding(region_padding, regions)[:, None]
        no_word = _padding(word_padding, words)[None]
        if config.direction == "text-image":
            among = torch.einsum("irw,isw->irs", regions, regions)[:, None]
            relevance = attended_cosines(cosines.transpose(-1, -2), among, no_word, no_region, config.attention_scale)
            skipped = no_word
        else:
            among = torch.einsum("tkw,tlw->tkl", words, words)[None]
            relevance = attended_cosines(cosines, among, no_region, no_word, config.attention_scale)
            skipped = no_region
        return pooled(relevance, skipped, config.pooling_scale if config.pooling == "lse" else None)


def _padding(padding: Tensor | None, items: Tensor) -> Tensor:
    return torch.zeros(items.shape[:2], dtype=torch.bool, device=items.device) if padding is None else padding


def attended_cosines(
    cosines: Float[Tensor, "images texts queries context"],
    among: Float[Tensor, "#images #texts context context"],
    no_query: Bool[Tensor, "#images #texts queries"],
    no_context: Bool[Tensor, "#images #texts context"],
    scale: float,
) -> Float[Tensor, "images texts queries"]:
    """The cosine of each query with the mean of the context that it attends to.

    Section 3.1; the queries are regions in image-text, words in text-image. A cosine below 0 counts as 0, and the
    cosines with a vector of the context are divided by their length over all queries, before the softmax.

    The attended vectors are never made: with weights w, their product with the query is the sum of w times the cosines,
    and their squared length is w G w, where G has the products of the context with itself.

    Args:
        cosines: of queries with the context.
        among: products of the context's vectors with each other.
        no_query, no_context: True at padding.
        scale: inverse temperature of the softmax.
    """
    positive = cosines.relu().masked_fill(no_query[..., None], 0)
    normalised = F.normalize(positive, dim=-2, eps=1e-8)
    weights = (scale * normalised).masked_fill(no_context[..., None, :], -torch.inf).softmax(dim=-1)
    products = (weights * cosines).sum(dim=-1)
    squared = ((weights @ among) * weights).sum(dim=-1)
    return products / squared.clamp(min=1e-12).sqrt()


def pooled(
    relevance: Float[Tensor, "images texts queries"],
    skipped: Bool[Tensor, "#images #texts queries"],
    scale: float | None,
) -> Float[Tensor, "images texts"]:
    """The relevances of the queries as one similarity: LogSumExp with an inverse temperature, or without one
    the average (section 3.1)."""
    if scale is None:
        return relevance.masked_fill(skipped, 0).sum(dim=-1) / (~skipped).sum(dim=-1)
    return (scale * relevance).masked_fill(skipped, -torch.inf).logsumexp(dim=-1) / scale


def ranking_loss(
    similarities: Float[Tensor, "images texts"], belong: Bool[Tensor, "images texts"], margin: float
) -> dict[str, Float[Tensor, ""]]:
    """The hinge loss with the hardest negatives of the batch (section 3.2), a mean over pairs.

    Args:
        similarities: of all images and texts of a batch.
        belong: which of them belong together; an image's other captions are no negatives.
        margin: see :class:`SCANConfig`.

    Returns:
        ``image_to_text``, whose negatives are texts, and ``text_to_image``, whose negatives are images.
    """
    wrong = similarities.masked_fill(belong, -torch.inf)
    image, text = belong.nonzero(as_tuple=True)
    own = similarities[image, text]
    return {
        "image_to_text": (margin - own + wrong.amax(dim=1)[image]).relu().mean(),
        "text_to_image": (margin - own + wrong.amax(dim=0)[text]).relu().mean(),
    }


class SCANCollator(PairCollator):
    """Captioned images as a batch, without the region of the whole image."""

    def __call__(self, examples: Sequence[Example], seed: int = 0, first: int = 0) -> Pairs:
        """See :meth:`PairCollator.__call__`."""
        return without_whole(super().__call__(examples, seed, first))


@dataclass(kw_only=True)
class SavedSCAN(SavedSystem):
    """The settings in the ``config.json`` of a SCAN."""

    network: SCANConfig


class StackedCrossAttention(PairModel[SCAN]):
    """SCAN with its inputs. It Matches.

    Args:
        network: the encoders and the attention.
        inputs: how texts and images are prepared.
        dtype: number type of the computation.
    """

    network_class = SCAN
    saved = SavedSCAN
    needs_whole_batch = True

    def __init__(self, network: SCAN, inputs: PairInputs, dtype: torch.dtype = torch.float32):
        config = network.config
        super().__init__(network, inputs, config.text.max_length, config.feature_width, dtype)
        self.collate = SCANCollator(inputs)

    def expand(self, examples: Sequence[Example]) -> Sequence[Example]:
        """One example for each reference."""
        return pairs_of(examples)

    def fit(self, examples: Sequence[Example]) -> None:
        """Learn a vocabulary if there is none, and measure the statistics of features."""
        pairs = [self.inputs.pair_of(pair) for pair in pairs_of(examples)]
        self.learn_words((caption for _, caption in pairs), self.network.config.text.vocabulary_size)
        self.network.standardise.measure(self.inputs, [image for image, _ in pairs])

    def forward(self, batch: Pairs) -> dict[str, Float[Tensor, ""]]:
        """See :func:`ranking_loss`. In training, the items of all processes are compared."""
        network, region_padding, word_padding = self.network, batch.region_padding, batch.text.padding
        with autocast(batch.features.device, self.dtype):
            regions = network.read_regions(batch.features)
        words, belong = network.read_words(batch.text.ids, word_padding), belonging(batch)
        if self.training and are_several():
            assert batch.image_keys is not None
            assert batch.text_keys is not None
            together = flattened(regions, region_padding), flattened(words, word_padding)
            flat_regions, flat_words, belong = gathered(*together, belong, batch.image_keys, batch.text_keys)
            regions, region_padding = unflattened(flat_regions, network.config.width)
            words, word_padding = unflattened(flat_words, network.config.width)
        similarities = network(regions, words, region_padding, word_padding)
        return ranking_loss(similarities, belong, network.config.margin)

    @torch.inference_mode()
    def match_all(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        candidates: Bool[Tensor, "images texts"] | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "images texts"]:
        """Similarities of all images and texts; each is encoded once, and only the attention is computed per pair.

        See :class:`~vislang.capabilities.Matches`.
        """
        scores = torch.empty(len(images), len(texts))
        read_texts = []
        for start in range(0, len(texts), AT_ONCE):
            pieces = self.inputs.text([(text,) for text in texts[start : start + AT_ONCE]])
            pieces = to_device(pieces, self.device)
            read_texts.append((self.network.read_words(pieces.ids, pieces.padding), pieces.padding))
        for start in range(0, len(images), AT_ONCE):
            pairs = to_device(without_whole(self.inputs.images(images[start : start + AT_ONCE])), self.device)
            with autocast(self.device, self.dtype):
                regions = self.network.read_regions(pairs.features)
            for number, (words, padding) in enumerate(read_texts):
                found = self.network(regions, words, pairs.region_padding, padding)
                columns = slice(number * AT_ONCE, number * AT_ONCE + len(words))
                scores[start : start + len(found), columns] = found.float().cpu()
            if progress is not None:
                progress(min(start + AT_ONCE, len(images)), len(images))
        return scores if candidates is None else scores.masked_fill(~candidates, -torch.inf)

    def settings(self) -> dict[str, Any]:
        """See :meth:`PairModel.settings`."""
        return {"network": asdict(self.network.config)}

    @classmethod
    def from_settings(cls, saved: SavedSCAN, inputs: PairInputs) -> StackedCrossAttention:
        """See :meth:`PairModel.from_settings`."""
        return cls(SCAN(saved.network), inputs)


@dataclass
class SCANRecipe(SystemRecipe):
    """The settings of SCAN in a recipe.

    Attributes:
        network: shapes and temperatures.
    """

    model_class = StackedCrossAttention

    network: SCANConfig = field(default_factory=SCANConfig)
