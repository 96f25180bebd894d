"""Examples to the inputs of ViLBERT's streams: distinct texts and images, and the pairs that they form."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vislang.capabilities import Progress
from vislang.document import Document, Facing, Image
from vislang.errors import UserError
from vislang.example import Example, Text
from vislang.models.regions.readers import RegionReader, RegionsConfig, must_be_same
from vislang.models.regions.region import Regions
from vislang.models.settings import must_be_at_least
from vislang.models.vilbert.model import ViLBERT
from vislang.models.vilbert.streams import Encoded, Stream, TwoStreams
from vislang.models.vilbert.word_pieces import FILE, Pieces, WordPieces

MEASURED = 2000
"""Greatest number of images on which the statistics of features are measured."""


@dataclass
class Pairs:
    """Distinct texts and images, and the pairs that they form.

    Attributes:
        text: the texts.
        features, boxes: (images, regions, ...) features and boxes of the whole image and its regions; of images on a
            path, a box is followed by the direction of its image.
        region_padding: True at padding; None without padding.
        steps: (images, regions) the index of each region's image in its document.
        text_of, image_of: (pairs,) indices of the text and the image of each pair.
        names: names of the examples.
        text_keys, image_keys: (texts,) and (images,) numbers that identify the same item in other processes; None if
            no model needs them.
    """

    text: Pieces
    features: Float[Tensor, "images regions width"]
    boxes: Float[Tensor, "images regions box"]
    region_padding: Bool[Tensor, "images regions"] | None
    steps: Int[Tensor, "images regions"]
    text_of: Int[Tensor, "..."]
    image_of: Int[Tensor, "..."]
    names: list[str] = field(default_factory=list)
    text_keys: Int[Tensor, "..."] | None = None
    image_keys: Int[Tensor, "..."] | None = None

    @property
    def tokens(self) -> int:
        """Word pieces of the texts, padding not counted."""
        return self.text.tokens

    def contents(self) -> dict[str, int]:
        """Word pieces and regions without padding, and images."""
        regions = self.steps.numel() if self.region_padding is None else int((~self.region_padding).sum())
        return {"tokens": self.tokens, "images": len(self.features), "regions": regions}


@dataclass
class Read:
    """The regions of one or several images; see :meth:`PairInputs.regions_of`."""

    features: np.ndarray
    boxes: np.ndarray
    steps: np.ndarray
    found: list[Regions]


def _placed(images: Sequence[Image], locations: Sequence[np.ndarray]) -> np.ndarray:
    """(regions, 5) the boxes of all regions; (regions, 11) with the directions of their images, if all have one."""
    directions = [image.source.direction() for image in images if isinstance(image.source, Facing)]
    if len(directions) < len(images):
        return np.concatenate(locations)
    rows = [
        np.concatenate([own, np.tile(np.array(direction, dtype=own.dtype), (len(own), 1))], axis=1)
        for own, direction in zip(locations, directions, strict=True)
    ]
    return np.concatenate(rows)


@dataclass
class PairInputsConfig:
    """The settings of :class:`PairInputs` in ``config.json``."""

    max_length: int | None
    regions: RegionsConfig
    regions_fingerprint: str
    # Models of version 0.1.0 may lack it; most of them predict the classes of a tower.
    classes_fingerprint: str = ""

    def __post_init__(self):
        must_be_at_least(3, self, "max_length", of="inputs.")


class PairInputs:
    """How texts and images are prepared for the streams.

    Args:
        words: the tokenizer; None before a vocabulary is learned.
        regions: the source of regions.
        config: the configuration of ``regions``, which is saved with the model.

    Attributes:
        learned_classes: the fingerprint of the classes that the model predicts.
    """

    def __init__(self, words: WordPieces | None, regions: RegionReader, config: RegionsConfig):
        self.words, self.regions, self.config = words, regions, config
        self.learned_classes = regions.classes_fingerprint

    @classmethod
    def new(
        cls, regions: RegionsConfig | None, tokenizer: str | None, vocabulary_size: int, max_length: int
    ) -> PairInputs:
        """The inputs of a new model.

        Args:
            regions: source of regions; None takes the default.
            tokenizer: a ``tokenizer.json`` or BERT's ``vocab.txt``; None if a vocabulary is to be learned.
            vocabulary_size: the size of the model's word embedding.
            max_length: greatest number of word pieces of a text.

        Raises:
            UserError: the tokenizer has more word pieces, or cannot be read.
            TowerError, RegionError: the source of regions is missing.
        """
        words = None
        if tokenizer is not None:
            words = WordPieces.load(Path(tokenizer), max_length)
            if words.size > vocabulary_size:
                raise UserError(f"tokenizer: has {words.size} word pieces; raise text.vocabulary_size.")
        regions = regions or RegionsConfig()
        return cls(words, regions.open(), regions)

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Compute and cache the regions of images; returns the number of images that were processed."""
        images = [medium for example in examples for medium in example.media if isinstance(medium, Image)]
        return self.regions.prepare(images, progress)

    def regions_of(self, images: Sequence[Image]) -> Read:
        """The whole image and its regions; for several images, concatenated."""
        found = self.regions.read(images)
        whole = [regions.with_whole() for regions in found]
        return Read(
            np.concatenate([regions.features for regions in whole]),
            _placed(images, [regions.locations() for regions in whole]),
            np.concatenate([np.full(len(regions.features), step) for step, regions in enumerate(whole)]),
            found,
        )

    def sample(self, images: Iterable[Image]) -> list[Float[np.ndarray, "regions width"]]:
        """The features of the whole image and its regions, for at most :data:`MEASURED` of the distinct images."""
        distinct = list(dict.fromkeys(images))
        # Evenly spaced, because sources follow each other.
        chosen = distinct[:: max(1, math.ceil(len(distinct) / MEASURED))]
        return [self.regions_of((image,)).features for image in chosen]

    def images(self, images: Sequence[Image]) -> Pairs:
        """A batch of images, each with the same empty text, for models that read images alone."""
        read = [self.regions_of((image,)) for image in images]
        return self.pairs(self.text([("",)]), read, [0] * len(read), range(len(read)), [])

    def texts_of(self, document: Document) -> tuple[str, ...]:
        """The one or two texts of a document.

        Raises:
            UserError: there are none, or more.
        """
        texts = tuple(part for part in document.parts if isinstance(part, str) and part.strip())
        if not 1 <= len(texts) <= 2:
            raise UserError(
                f"{document.name or 'a document'}: has {len(texts)} texts; this model reads one text with an "
                f"image, or two, such as a question and an answer. {'Join them' if texts else 'Add one'}."
            )
        return texts

    def images_of(self, document: Document) -> tuple[Image, ...]:
        """The images of a document.

        Raises:
            UserError: there are none, or there is another medium.
        """
        images = tuple(medium for medium in document.media if isinstance(medium, Image))
        if not images or len(images) < len(document.media):
            raise UserError(f"{document.name or 'a document'}: this model reads only text with images.")
        return images

    def pair_of(self, example: Example) -> tuple[Image, str]:
        """The image and the caption of an example that is a pair: [image] -> Text.

        Raises:
            UserError: it is not one image with one caption.
        """
        images = self.images_of(dataclasses.replace(example.prompt, name=example.name))
        if len(images) != 1:
            raise UserError(f"{example.name}: {len(images)} images; a pair is one image and its caption.")
        target = example.target
        if not isinstance(target, Text) or example.text or not target.references[0].strip():
            raise UserError(f"{example.name}: not a pair of an image and its caption.")
        return images[0], target.references[0]

    def why_unreadable(self, media: frozenset[str], images: int = 1) -> str | None:
        """See :class:`~vislang.capabilities.Reads`; ``images`` is the greatest number of images in a document."""
        unread = sorted(media & {"video", "audio"})
        if unread:
            return f"reads images and text, but no {' or '.join(unread)}"
        if "image" not in media:
            return "reads text only together with an image"
        return "reads one image at a time" if "several images" in media and images < 2 else None

    def read(self, rows: Sequence[tuple[tuple[str, ...], tuple[Image, ...]]], names: Sequence[str]) -> Pairs:
        """Read pairs of texts and images, and stack them."""
        texts = list(dict.fromkeys(text for text, _ in rows))
        images = list(dict.fromkeys(seen for _, seen in rows))
        return self.pairs(
            self.text(texts),
            [self.regions_of(seen) for seen in images],
            [texts.index(text) for text, _ in rows],
            [images.index(seen) for _, seen in rows],
            names,
        )

    def text(self, texts: Sequence[tuple[str, ...]]) -> Pieces:
        """Texts as word pieces."""
        assert self.words is not None
        return self.words(texts)

    @staticmethod
    def pairs(
        text: Pieces, read: Sequence[Read], text_of: Sequence[int], image_of: Sequence[int], names: Sequence[str]
    ) -> Pairs:
        """Stack texts and regions."""
        most = max(len(image.features) for image in read)
        width, edges = read[0].features.shape[1], max(image.boxes.shape[1] for image in read)
        features, boxes = torch.zeros(len(read), most, width), torch.zeros(len(read), most, edges)
        steps = torch.zeros(len(read), most, dtype=torch.long)
        padding = torch.ones(len(read), most, dtype=torch.bool)
        for number, image in enumerate(read):
            count = len(image.features)
            features[number, :count] = torch.from_numpy(image.features)
            boxes[number, :count, : image.boxes.shape[1]] = torch.from_numpy(image.boxes)
            steps[number, :count] = torch.from_numpy(image.steps)
            padding[number, :count] = False
        return Pairs(
            text,
            features,
            boxes,
            padding if padding.any() else None,
            steps,
            torch.tensor(text_of),
            torch.tensor(image_of),
            list(names),
        )

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the tokenizer, and return the settings for the model's config."""
        if self.words is not None:
            (folder / FILE).write_text(self.words.tokenizer.to_str(), encoding="utf-8")
        return {
            "max_length": None if self.words is None else self.words.max_length,
            "regions": dataclasses.asdict(self.config),
            "regions_fingerprint": self.regions.fingerprint,
            "classes_fingerprint": self.learned_classes,
        }

    @classmethod
    def load(cls, folder: Path, saved: PairInputsConfig, regions: RegionsConfig | None = None) -> PairInputs:
        """Open what :meth:`save` wrote; ``regions`` replaces the recorded source of regions.

        Raises:
            TowerError: the source is missing, or has another fingerprint.
        """
        words = None
        if saved.max_length is not None:
            words = WordPieces.load(folder / FILE, saved.max_length)
        config = regions or saved.regions
        reader = config.open()
        must_be_same(reader, saved.regions_fingerprint, folder)
        inputs = cls(words, reader, config)
        inputs.learned_classes = saved.classes_fingerprint
        return inputs


def pairs_of(examples: Sequence[Example]) -> list[Example]:
    """One example for each reference of each example, in order."""
    pairs = []
    for example in examples:
        references = example.target.references if isinstance(example.target, Text) else ()
        several = len(references) > 1
        pairs += [dataclasses.replace(example, target=Text((text,))) for text in references] if several else [example]
    return pairs


def read_texts(network: ViLBERT, text: Pieces, token: int = 0) -> Stream:
    """The text stream up to the first co-attention layer; ``token`` is the task token, if the streams have any."""
    if not network.config.text.task_tokens:
        return network.streams.read_text(*text)
    tasks = torch.full((len(text.ids),), token, device=text.ids.device)
    assert isinstance(network.streams, TwoStreams)
    return network.streams.read_text(*text, tasks)


def encode(network: ViLBERT, pairs: Pairs, token: int = 0) -> Encoded:
    """Encode pairs: the layers before the first co-attention layer once per item, the others once per pair.

    Args:
        network: the streams.
        pairs: the inputs.
        token: see :func:`read_texts`.

    Raises:
        UserError: a document has more images than the network was built for.
    """
    most, known = int(pairs.steps.max()) + 1, network.config.vision.images
    if most > known:
        raise UserError(
            f"{pairs.names[0] if pairs.names else 'a document'}, or another record of its batch, has {most} images; "
            f"this model reads {known} at once. Raise streams.vision.images before training, or give fewer."
        )
    text = read_texts(network, pairs.text, token)
    image = network.streams.read_regions(pairs.features, pairs.boxes, pairs.region_padding, pairs.steps)
    return network.streams(pick(text, pairs.text_of), pick(image, pairs.image_of))


def pick(stream: Stream, rows: Int[Tensor, "..."]) -> Stream:
    """Rows of a stream by index."""
    if len(rows) == len(stream.tokens) and torch.equal(rows, torch.arange(len(rows), device=rows.device)):
        return stream
    return Stream(stream.tokens[rows], None if stream.padding is None else stream.padding[rows])
