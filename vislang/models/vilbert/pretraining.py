"""ViLBERT's pretraining on images and their captions (Lu et al. 2019, section 2.2): recipe and batches."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vislang.boxes import overlaps
from vislang.capabilities import ModelRecipe, Progress
from vislang.document import Image
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.loading import load, saved_class
from vislang.models.precision import Precision, autocast, dtype_of
from vislang.models.regions.readers import RegionsConfig
from vislang.models.vilbert.config import ViLBERTConfig
from vislang.models.vilbert.inputs import PairInputs, PairInputsConfig, Pairs, Read, encode, pairs_of
from vislang.models.vilbert.matching import match_all
from vislang.models.vilbert.model import PretrainingLabels, SavedViLBERT, ViLBERT, pretraining_losses
from vislang.models.vilbert.pair_model import PairModel
from vislang.models.vilbert.streams import Encoded
from vislang.nn.masking import generator_of, mask_tokens

POOL = 100_000
"""Greatest number of captions from which negatives are drawn."""


@dataclass
class PairMasking:
    """What is masked, and how often an image gets the caption of another image.

    Attributes:
        words: share of the word pieces that are masked; 80 % of them become the mask token, 10 % another word.
        regions: share of the regions that are masked; 90 % of them lose their features. They keep their boxes.
        overlap: regions that overlap a masked one by more than this (intersection over union) also lose their features
            (12-in-1, section 3.1), but are not predicted; 1 for none.
        mismatched: share of the pairs that get the caption of another image.
        masked_when_mismatched: also predict words and regions of mismatched pairs, as in the first paper; 12-in-1 does
            not.
    """

    words: float = 0.15
    regions: float = 0.15
    overlap: float | int = 1.0
    mismatched: float = 0.5
    masked_when_mismatched: bool = False

    def __post_init__(self):
        for name in ("words", "regions", "overlap", "mismatched"):
            if not 0 <= getattr(self, name) <= 1:
                raise UserError(f"masking.{name} is {getattr(self, name)}; it must be from 0 to 1.")


@dataclass
class PretrainingPairs:
    """A batch.

    Attributes:
        pairs: masked texts and images.
        labels: the targets.
        names: names of the examples.
    """

    pairs: Pairs
    labels: PretrainingLabels
    names: list[str]

    @property
    def tokens(self) -> int:
        """Word pieces of the texts, padding not counted."""
        return self.pairs.tokens


class PretrainingCollator:
    """Turns captioned images into a batch. Picklable; everything random in a pair depends only on the seed of its batch
    and its number there.

    Args:
        inputs: how texts and images are prepared.
        masking: what is masked.
    """

    def __init__(self, inputs: PairInputs, masking: PairMasking):
        self.inputs, self.masking = inputs, masking
        self.captions: list[str] = []
        self.captions_of: dict[str, set[str]] = {}

    def learn_captions(self, examples: Sequence[Example]) -> None:
        """Collect the captions of each image, so a negative is never one of them."""
        pool: dict[str, None] = {}
        for pair in pairs_of(examples):
            image, caption = self.inputs.pair_of(pair)
            pool[caption] = None
            self.captions_of.setdefault(image.name, set()).add(caption.lower())
        self.captions = list(pool)
        random.Random(0).shuffle(self.captions)
        del self.captions[POOL:]

    def __call__(self, examples: Sequence[Example], seed: int = 0, first: int = 0) -> PretrainingPairs:
        """Collate; each reference of an example makes a pair.

        Args:
            examples: pairs.
            seed: of all that is drawn.
            first: number of the first pair in a batch of which these are a part.

        Raises:
            UserError: an example is not an image with its caption.
            RegionError, MediaError: an image's regions cannot be computed or read, or have no classes.
        """
        texts, aligned, read, pairs = [], [], [], pairs_of(examples)
        for number, pair in enumerate(pairs, start=first):
            rng = random.Random(f"{seed} {number}")
            image, caption = self.inputs.pair_of(pair)
            other = self._other(image, caption, rng) if rng.random() < self.masking.mismatched else None
            texts.append((caption if other is None else other,))
            aligned.append(other is None)
            read.append(self.inputs.regions_of((image,)))
        generators = [generator_of(seed, number) for number in range(first, first + len(pairs))]
        return self.assemble(texts, torch.tensor(aligned), read, [pair.name for pair in pairs], generators)

    def _other(self, image: Image, caption: str, rng: random.Random) -> str | None:
        """A caption of another image that this image does not have; None if there is none."""
        own = self.captions_of.get(image.name, set()) | {caption.lower()}
        for _ in range(20):
            if not self.captions:
                return None
            found = self.captions[rng.randrange(len(self.captions))]
            if found.lower() not in own:
                return found
        return None

    def assemble(
        self,
        texts: Sequence[tuple[str, ...]],
        aligned: Bool[Tensor, "..."],
        read: Sequence[Read],
        names: Sequence[str],
        generators: Sequence[torch.Generator],
    ) -> PretrainingPairs:
        """Mask words and regions, and stack."""
        masking, words = self.masking, self.inputs.words
        assert words is not None
        text = self.inputs.text(texts)
        special = (text.ids == words.start) | (text.ids == words.end) | (text.ids == 0)
        for name, row in zip(names, special, strict=True):
            if row.all():
                raise UserError(f"{name}: its text has no words. Add some, or leave the record out.")
        masked_ids, labels = text.ids.clone(), torch.full_like(text.ids, -1)
        for number, generator in enumerate(generators):
            # Without its padding, whose length depends on the other rows.
            own = slice(None) if text.padding is None else ~text.padding[number]
            ids = text.ids[number, own][None]
            masked = mask_tokens(ids, ~special[number, own][None], words.mask, words.size, generator, masking.words)
            masked_ids[number, own] = masked.input_ids[0]
            labels[number, own] = torch.where(masked.mask, ids, -1)[0]
        rows = range(len(texts))
        pairs = self.inputs.pairs(text._replace(ids=masked_ids), read, rows, rows, names)
        regions = torch.zeros(pairs.features.shape[:2], dtype=torch.bool)
        classes = torch.zeros(*regions.shape, self.inputs.regions.classes)
        for number, (image, generator) in enumerate(zip(read, generators, strict=True)):
            (found,) = image.found
            count = len(found.features)
            chosen = torch.rand(count, generator=generator) < masking.regions
            regions[number, 1 : count + 1] = chosen
            if found.classes is not None:
                classes[number, 1 : count + 1] = torch.from_numpy(found.classes)
            gone = chosen & (torch.rand(count, generator=generator) < 0.9)
            gone |= _overlapping(found.boxes, gone, masking.overlap)
            # The feature of the whole image is the mean over unmasked regions, so it does not reveal the masked ones.
            left = torch.from_numpy(found.features) * ~gone[:, None]
            pairs.features[number, 1 : count + 1] = left
            pairs.features[number, 0] = left.sum(dim=0) / (~gone).sum().clamp(min=1)
        if not masking.masked_when_mismatched:
            labels[~aligned] = -1
            regions &= aligned[:, None]
        return PretrainingPairs(pairs, PretrainingLabels(labels, regions, classes, aligned), list(names))


def _overlapping(boxes: np.ndarray, chosen: Bool[Tensor, "..."], limit: float | int) -> Bool[Tensor, "..."]:
    """The regions that overlap a chosen one by more than the limit."""
    if limit >= 1 or not chosen.any():
        return torch.zeros_like(chosen)
    return torch.from_numpy(overlaps(boxes, boxes[chosen.numpy()]) > limit).any(dim=1)


@dataclass(kw_only=True)
class SavedPretrainedViLBERT(SavedViLBERT):
    """The settings in the ``config.json`` of a pretrained model."""

    inputs: PairInputsConfig


class PretrainedViLBERT(PairModel[ViLBERT]):
    """ViLBERT with its inputs and the heads of pretraining. It Matches.

    Args:
        network: the streams and the heads of pretraining.
        inputs: how texts and images are prepared.
        masking: what is masked in training.
        dtype: number type of the computation.
    """

    saved = SavedPretrainedViLBERT
    collate: PretrainingCollator

    def __init__(
        self,
        network: ViLBERT,
        inputs: PairInputs,
        masking: PairMasking | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        config = network.config
        super().__init__(network, inputs, config.longest_text, config.vision.feature_width, dtype)
        self.collate = PretrainingCollator(inputs, masking or PairMasking())

    def expand(self, examples: Sequence[Example]) -> Sequence[Example]:
        """One example for each reference."""
        return pairs_of(examples)

    def fit(self, examples: Sequence[Example]) -> None:
        """Collect the captions of each image, and learn a vocabulary if there is none."""
        self.collate.learn_captions(examples)
        self.learn_words(self.collate.captions, self.network.config.text.vocabulary_size)

    def forward(self, batch: PretrainingPairs) -> dict[str, Float[Tensor, ""]]:
        """``words``, ``regions`` and ``alignment``; see :func:`~vislang.models.vilbert.model.pretraining_losses`."""
        with autocast(batch.pairs.features.device, self.dtype):
            return pretraining_losses(self.network, encode(self.network, batch.pairs), batch.labels)

    def loss_counts(self, batch: PretrainingPairs) -> dict[str, int | None]:
        """Masked words, masked regions, pairs."""
        words, regions = int((batch.labels.words >= 0).sum()), int(batch.labels.regions.sum())
        return {"words": words, "regions": regions, "alignment": len(batch.labels.aligned)}

    def match_all(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        candidates: Bool[Tensor, "images texts"] | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "images texts"]:
        """The log odds that each image and text match, without fine-tuning."""

        def score(encoded: Encoded) -> Tensor:
            # The first logit is for a matching pair.
            yes, no = self.network.alignment_logits(self.network.fuse(encoded)).unbind(dim=-1)
            return yes - no

        return match_all(self.network, self.inputs, score, images, texts, candidates, self.dtype, progress=progress)

    def settings(self) -> dict[str, Any]:
        """See :meth:`PairModel.settings`."""
        return self.network.settings()

    @classmethod
    def from_settings(cls, saved: SavedPretrainedViLBERT, inputs: PairInputs) -> PretrainedViLBERT:
        """See :meth:`PairModel.from_settings`."""
        return cls(ViLBERT.from_settings(saved), inputs)


@dataclass
class ViLBERTPretrainingRecipe(ModelRecipe):
    """The settings of ViLBERT's pretraining in a recipe.

    Attributes:
        streams: widths and depths. ``feature_width`` and ``classes`` of the vision stream are set by the region source.
        regions: source of regions; None takes the default, or with ``start_from`` that model's source.
        masking: what is masked.
        tokenizer: a ``tokenizer.json`` or BERT's ``vocab.txt``; None learns one from the captions.
        start_from: folder of a model to continue from, with its ``streams``: a pretrained model, or converted weights
            with the heads of pretraining, which need ``regions`` and ``tokenizer``.
        dtype: number type of the computation; ``auto`` takes bfloat16 if the device has hardware for it.
    """

    streams: ViLBERTConfig = field(default_factory=ViLBERTConfig)
    regions: RegionsConfig | None = None
    masking: PairMasking = field(default_factory=PairMasking)
    tokenizer: str | None = None
    start_from: str | None = None
    dtype: Precision = "float32"

    def build(self, device: torch.device | str = "cpu") -> PretrainedViLBERT:
        """A model at the start of its pretraining.

        Raises:
            UserError: settings contradict each other; the regions have no classes, or other classes than the model of
                ``start_from``; or that is not a pretrained model.
        """
        if self.start_from is not None:
            network, inputs = begin_with(self.start_from, self.regions, self.tokenizer)
            if network.pretraining is None:
                raise UserError(f"start_from {self.start_from}: has no heads of pretraining. Give a pretrained model.")
        else:
            if self.streams.text.task_tokens:
                raise UserError("streams.text.task_tokens must be 0, because pretraining has no tasks.")
            inputs = make_inputs(self.regions, self.tokenizer, self.streams)
            network = ViLBERT(fitted(self.streams, inputs))
        if not inputs.regions.classes:
            raise UserError(
                f"regions: {inputs.regions.name} gives no classes, which pretraining predicts for masked regions. "
                "Compute clusters (vislang.models.regions.sources.ClusteredRegions.fit) and set regions.clusters to "
                "their file."
            )
        if inputs.regions.classes != (known := network.config.vision.classes):
            raise UserError(
                f"regions: {inputs.regions.name} gives {inputs.regions.classes} classes, and {self.start_from} "
                f"predicts {known}. Use the source that it was trained with."
            )
        if inputs.regions.classes_fingerprint != inputs.learned_classes:
            raise UserError(
                f"regions.clusters: not the clusters that {self.start_from} predicts. Give the file that it was "
                "trained with."
            )
        return PretrainedViLBERT(network, inputs, self.masking, dtype_of(self.dtype, device)).train()

    def open(self, folder: Path, device: torch.device | str = "cpu") -> PretrainedViLBERT:
        """A pretrained model with the batches of this recipe."""
        made = PretrainedViLBERT.load(folder)
        return PretrainedViLBERT(made.network, made.inputs, self.masking, dtype_of(self.dtype, device)).eval()


def begin_with(start_from: str, regions: RegionsConfig | None, tokenizer: str | None) -> tuple[ViLBERT, PairInputs]:
    """The network of a saved ViLBERT, and its inputs.

    Args:
        start_from: folder of a pretrained model, of one with tasks, or of converted weights, which have no inputs.
        regions: source of regions; None takes the model's.
        tokenizer: tokenizer for converted weights.

    Raises:
        UserError: it is not a ViLBERT, or converted weights have no regions or tokenizer.
    """
    made = saved_class(start_from)
    if issubclass(made, ViLBERT):
        network = load(start_from)
        if tokenizer is None or regions is None:
            raise UserError(
                f"start_from {start_from}: converted weights need regions, and BERT's vocab.txt as the tokenizer."
            )
        return network, make_inputs(regions, tokenizer, network.config)
    start = load(start_from, regions=regions) if issubclass(made, PairModel) else None
    if start is None or not isinstance(start.network, ViLBERT):
        raise UserError(f"start_from {start_from}: is a {made.__name__}, not a ViLBERT.")
    return start.network, start.inputs


def make_inputs(regions: RegionsConfig | None, tokenizer: str | None, streams: ViLBERTConfig) -> PairInputs:
    """Inputs for streams of these shapes; see :meth:`PairInputs.new`."""
    return PairInputs.new(regions, tokenizer, streams.text.vocabulary_size, streams.longest_text)


def fitted(streams: ViLBERTConfig, inputs: PairInputs) -> ViLBERTConfig:
    """The streams with the widths of the region source."""
    streams.vision.feature_width = inputs.regions.width
    streams.vision.classes = max(1, inputs.regions.classes)
    return streams
