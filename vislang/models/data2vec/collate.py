"""Examples to batches for data2vec: whole inputs for the teacher, and the masks for the student."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch.nn.utils.rnn import pad_sequence

from vislang.document import Document, MediaError
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.augmentation import Augmentation
from vislang.models.data2vec.front_ends import ImageConfig, Modalities, SpeechConfig, TextConfig
from vislang.models.data2vec.inputs import Inputs, padded, picture, recording, words
from vislang.models.data2vec.objective import Masked
from vislang.nn.embed import frames
from vislang.nn.masking import block_mask, generator_of, inverse_block_mask, mask_tokens, span_mask


@dataclass
class TextMasking:
    """See :func:`~vislang.nn.masking.mask_tokens`; v2 leaves the chosen tokens out, so nothing is replaced there.

    Attributes:
        rate: share of the tokens that are chosen; None takes the paper's (v1 0.15, v2 0.48).
        replaced: share of the chosen tokens that become the mask token.
        randomised: share of the chosen tokens that become a random token.
        span: length of a run of chosen tokens.
    """

    rate: float | None = None
    replaced: float = 0.8
    randomised: float = 0.1
    span: int = 1


@dataclass
class ImageMasking:
    """See :func:`~vislang.nn.masking.block_mask` (v1) and :func:`~vislang.nn.masking.inverse_block_mask` (v2).

    Attributes:
        mask_ratio: share of the patches that are masked; None takes the paper's (v1 0.6, v2 0.8).
        smallest: least number of patches of a block (v1).
        aspect: least ratio of a block's height to its width; the greatest ratio is its inverse (v1).
        block: side of a block that is kept, in patches (v2).
        adjust: see :func:`~vislang.nn.masking.inverse_block_mask` (v2).
    """

    mask_ratio: float | None = None
    smallest: int = 16
    aspect: float = 0.3
    block: int = 3
    adjust: float = 0.07


@dataclass
class SpeechMasking:
    """See :func:`~vislang.nn.masking.span_mask`.

    Attributes:
        rate: frames in drawn spans, as a share of all frames; None takes the paper's (v1 0.65, v2 0.5).
        span: length of a span in frames; None takes the paper's (v1 10, v2 5).
        max_seconds: of longer recordings, a random part of this length is used.
    """

    rate: float | None = None
    span: int | None = None
    max_seconds: float = 15.0


@dataclass
class MaskingConfig:
    """The masking of each modality."""

    text: TextMasking = field(default_factory=TextMasking)
    image: ImageMasking = field(default_factory=ImageMasking)
    speech: SpeechMasking = field(default_factory=SpeechMasking)


class Collator:
    """Turns examples of one modality into a :class:`~vislang.models.data2vec.objective.Masked` batch. Picklable.

    Everything random in an example, such as crops and masks, depends only on the seed of its batch and its number in
    the batch.

    Args:
        inputs: how each modality is prepared.
        modalities: shapes of the front ends.
        masking: how inputs are masked.
        generation: v1 masks blocks of patches; v2 keeps blocks and masks the rest.
        copies: number of masks of each sample.
        augmentation: augmentation of images, or None.
    """

    def __init__(
        self,
        inputs: Inputs,
        modalities: Modalities,
        masking: MaskingConfig,
        generation: Literal["v1", "v2"] = "v1",
        copies: int = 1,
        augmentation: Augmentation | None = None,
    ):
        self.inputs = inputs
        self.modalities = modalities
        self.masking = masking
        self.generation = generation
        self.copies = copies
        self.augmentation = augmentation

    def __call__(self, examples: Sequence[Example], seed: int = 0, first: int = 0) -> Masked:
        """A batch of the examples' prompts; see :meth:`documents`."""
        names = [example.name for example in examples]
        return self.documents([example.prompt for example in examples], seed, names, first)

    def documents(
        self, documents: Sequence[Document], seed: int = 0, names: Sequence[str] = (), first: int = 0
    ) -> Masked:
        """A batch of documents.

        Args:
            documents: documents of one modality.
            seed: random seed of the batch.
            names: their names in messages; by default, the documents' own.
            first: number of the first document in the batch that these are a part of.

        Raises:
            MediaError: a medium cannot be used, or a recording is too short.
            UserError: the documents have different modalities, or one that the model does not read; or a text has no
                tokens.
        """
        modality = self.inputs.common_modality(documents)
        generators = [generator_of(seed, number) for number in range(first, first + len(documents))]
        collate = {"text": self._text, "image": self._image, "speech": self._speech}[modality]
        names = list(names) or [document.name for document in documents]
        return collate(documents, generators)._replace(names=names)

    def _text(self, documents: Sequence[Document], generators: Sequence[torch.Generator]) -> Masked:
        text, config, masking = self.inputs.text, self.modalities.text, self.masking.text
        assert text is not None
        assert isinstance(config, TextConfig)
        v1 = self.generation == "v1"
        rate = masking.rate if masking.rate is not None else (0.15 if v1 else 0.48)
        rows, masked_ids, masks = [], [], []
        for document, generator in zip(documents, generators, strict=True):
            ids = text.tokens(words(document))
            if not ids:
                raise UserError(f"{document.name or 'a document'}: contains no text. Leave it out.")
            room = text.max_length - 2
            start = _draw(len(ids) - room + 1, generator)
            row = text.framed(ids[start : start + room])
            copies = row.expand(self.copies, -1)
            masked = mask_tokens(
                copies,
                (copies != text.start) & (copies != text.end),
                text.mask_id,
                config.vocabulary_size,
                generator,
                rate,
                masking.replaced,
                masking.randomised,
                masking.span,
            )
            rows.append(row)
            masked_ids += masked.input_ids
            masks += masked.mask
        values, padding = padded(rows, text.padding_id)
        student = padded(masked_ids, text.padding_id)[0] if v1 else None
        return Masked("text", values, pad_sequence(masks, batch_first=True), student, padding)

    def _image(self, documents: Sequence[Document], generators: Sequence[torch.Generator]) -> Masked:
        image, config, masking = self.inputs.image, self.modalities.image, self.masking.image
        assert image is not None
        assert isinstance(config, ImageConfig)
        side = config.size // config.patch
        pixels, masks = [], []
        for document, generator in zip(documents, generators, strict=True):
            if self.augmentation is None:
                pixels.append(image(picture(document).decode()))
            else:
                rng = random.Random(int(torch.randint(2**62, (), generator=generator)))
                opened = picture(document).decode(background=self.augmentation.draw_background(rng))
                pixels.append(image.tensor(self.augmentation(opened, image.size, rng)))
            if self.generation == "v1":
                masked = round((0.6 if masking.mask_ratio is None else masking.mask_ratio) * side * side)
                for _ in range(self.copies):
                    masks.append(block_mask(side, side, masked, generator, masking.smallest, masking.aspect))
            else:
                ratio = 0.8 if masking.mask_ratio is None else masking.mask_ratio
                masks += inverse_block_mask(self.copies, side, side, ratio, generator, masking.block, masking.adjust)
        return Masked("image", torch.stack(pixels), torch.stack(masks).flatten(1))

    def _speech(self, documents: Sequence[Document], generators: Sequence[torch.Generator]) -> Masked:
        speech, config, masking = self.inputs.speech, self.modalities.speech, self.masking.speech
        assert speech is not None
        assert isinstance(config, SpeechConfig)
        v1 = self.generation == "v1"
        rate = masking.rate if masking.rate is not None else (0.65 if v1 else 0.5)
        span = masking.span if masking.span is not None else (10 if v1 else 5)
        rows, masks = [], []
        for document, generator in zip(documents, generators, strict=True):
            samples = speech.samples(recording(document))
            room = int(masking.max_seconds * speech.rate)
            start = _draw(len(samples) - room + 1, generator)
            samples = samples[start : start + room]
            length = frames(torch.tensor(len(samples)), config.convolutions)
            if length < 2:
                raise MediaError(
                    f"{document.name or recording(document).name}: {len(samples) / speech.rate:.3f} seconds is too "
                    "short to mask a part of it. Leave it out."
                )
            rows.append(speech(samples))
            masks += span_mask(length.expand(self.copies), int(length), generator, rate, span)
        values, padding = padded(rows, 0.0)
        return Masked("speech", values, pad_sequence(masks, batch_first=True), None, padding)


def _draw(choices: int, generator: torch.Generator) -> int:
    """A random number below ``choices``; 0 if there is no choice."""
    return int(torch.randint(choices, (), generator=generator)) if choices > 1 else 0
