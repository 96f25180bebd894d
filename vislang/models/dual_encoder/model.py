"""A contrastive dual encoder: vectors of images and texts that are close to each other if the two match.

It is trained like CLIP (Radford et al. 2021, section 2.3), and like Flamingo's vision encoder (Alayrac et al. 2022,
appendix B.1.3): symmetric cross-entropy over the similarities of a batch, with a learned temperature. The encoders and
the loss are in :mod:`~vislang.models.dual_encoder.encoders`. Training images may be augmented: the features of a few
versions of each are cached (:mod:`~vislang.models.dual_encoder.versions`).
"""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from vislang.capabilities import ModelRecipe, Progress
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Example
from vislang.files import write_text
from vislang.models.augmentation import Augmentation
from vislang.models.dual_encoder.encoders import DualEncoder, DualEncoderConfig, WordBag, contrastive_loss
from vislang.models.dual_encoder.tower import DualEncoderTower
from vislang.models.dual_encoder.versions import ImageVersions, VersionCollator
from vislang.models.dual_encoder.words import FILE as PIECES_FILE
from vislang.models.dual_encoder.words import WordsAndPieces
from vislang.models.loading import load, saved_class
from vislang.models.precision import Precision, autocast, dtype_of
from vislang.models.regions.readers import ComputedRegions, RegionsConfig
from vislang.models.regions.sources import GridRegions
from vislang.models.settings import must_be_at_least
from vislang.models.vilbert.captioned import are_several, belonging, gathered
from vislang.models.vilbert.inputs import PairInputs, PairInputsConfig, Pairs, pairs_of
from vislang.models.vilbert.pair_model import PairModel
from vislang.models.vilbert.word_pieces import Pieces, WordPieces
from vislang.nn.device import to_device


class UnknownWords(UserWarning):
    """A text contains words that are not in the vocabulary of a bag of words."""


@dataclass
class SavedContrastiveEncoder:
    """The settings in the ``config.json`` of a dual encoder."""

    encoders: DualEncoderConfig
    inputs: PairInputsConfig


class ContrastiveEncoder(PairModel[DualEncoder]):
    """The dual encoder with its inputs. It Matches and Embeds.

    Args:
        network: the encoders.
        inputs: how texts and images are prepared.
        chunk: number of items that are encoded at once, and in training twice; 0 for the whole batch.
        dtype: number type of the computation.
        versions: versions of the training images, or None.
    """

    saved = SavedContrastiveEncoder
    needs_whole_batch = True
    collate: VersionCollator

    def __init__(
        self,
        network: DualEncoder,
        inputs: PairInputs,
        chunk: int = 0,
        dtype: torch.dtype = torch.float32,
        versions: ImageVersions | None = None,
    ):
        config = network.config
        super().__init__(network, inputs, config.text.max_length, config.vision.feature_width, dtype)
        self.chunk = chunk
        self.collate = VersionCollator(inputs, versions)

    def train(self, mode: bool = True) -> ContrastiveEncoder:
        """Set the mode; held-out images are not augmented."""
        super().train(mode)
        self.collate.training = mode
        return self

    def prepare(self, examples: Sequence[Example], progress: Progress | None = None) -> int:
        """Compute and cache the regions of images; of those with a caption, to train on, also of their versions."""
        versions = self.collate.versions
        if versions is None:
            return super().prepare(examples, progress)
        images: list[Image] = []
        for example in examples:
            own = [medium for medium in example.media if isinstance(medium, Image)]
            images += own if example.target is None else [version for image in own for version in versions.of(image)]
        return self.inputs.regions.prepare(images, progress)

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """See :class:`~vislang.capabilities.Reads`; texts without images can be embedded, too."""
        return super().why_unreadable(media | {"image"})

    def expand(self, examples: Sequence[Example]) -> Sequence[Example]:
        """One example for each reference."""
        return pairs_of(examples)

    def fit(self, examples: Sequence[Example]) -> None:
        """Learn a vocabulary if there is none (of whole words for a bag of words), and measure feature statistics.

        The vocabulary of a trained bag of words is extended by the new words of these examples.
        """
        text = self.network.config.text
        pairs = [self.inputs.pair_of(pair) for pair in pairs_of(examples)]
        texts = [caption for _, caption in pairs]
        known = self.inputs.words
        if isinstance(self.network.text, WordBag):
            if known is None or known.has_whole_words:
                words = WordPieces.of_whole_words(texts, text.vocabulary_size, text.max_length, known)
                self.inputs.words = self._with_pieces(words, texts)
        else:
            self.learn_words(texts, text.vocabulary_size)
        # A model that is trained further keeps its statistics.
        encoder = self.network.image
        if not encoder.features_mean.any():
            features = map(torch.from_numpy, self.inputs.sample(image for image, _ in pairs))
            encoder.standardise(torch.cat([encoder.pool(each[None])[0] for each in features]))

    def _with_pieces(self, words: WordPieces, texts: Sequence[str]) -> WordPieces:
        """The whole words, and beside them the word pieces that the model has or that are learned from the texts."""
        config, known = self.network.config, self.inputs.words
        if not config.pieces:
            return words
        if isinstance(known, WordsAndPieces):
            pieces = known.pieces
        else:
            pieces = WordPieces.train(list(dict.fromkeys(texts)), config.pieces, config.text.max_length)
        return WordsAndPieces(words, pieces, config.text.vocabulary_size)

    def extra_state(self) -> dict[str, Any]:
        """The tokenizer, and that of the pieces beside whole words."""
        words = self.inputs.words
        pieces = words.pieces.tokenizer.to_str() if isinstance(words, WordsAndPieces) else None
        return {**super().extra_state(), "pieces": pieces}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Restore what :meth:`extra_state` returned."""
        super().load_extra_state(state)
        # Runs of earlier versions have none.
        if (pieces := state.get("pieces")) is not None:
            assert self.inputs.words is not None
            text = self.network.config.text
            self.inputs.words = WordsAndPieces(
                self.inputs.words, WordPieces.parse(pieces, text.max_length), text.vocabulary_size
            )

    def forward(self, batch: Pairs) -> dict[str, Float[Tensor, ""]]:
        """See :func:`contrastive_loss`. In training, the items of all processes are compared."""
        with autocast(batch.features.device, self.dtype):
            images, texts = self.network(
                (batch.features, batch.boxes, batch.region_padding), self._readable(batch.text), self.chunk
            )
        belong = belonging(batch)
        if self.training and are_several():
            assert batch.image_keys is not None
            assert batch.text_keys is not None
            images, texts, belong = gathered(images, texts, belong, batch.image_keys, batch.text_keys)
        return contrastive_loss(images, texts, belong, self.network.scale)

    def _readable(self, pieces: Pieces) -> Pieces:
        """The pieces; for a bag of words, everything but known words becomes padding."""
        assert self.inputs.words is not None
        if not isinstance(self.network.text, WordBag):
            return pieces
        return pieces._replace(padding=~self.inputs.words.are_words(pieces.ids))

    @torch.inference_mode()
    def embed(
        self, documents: Sequence[Document], batch_size: int = 64, *, progress: Progress | None = None
    ) -> Float[Tensor, "documents vector"]:
        """A vector for each document, which is one image or one text.

        Raises:
            UserError: a document is neither.
        """
        found: list[Tensor] = []
        for start in range(0, len(documents), batch_size):
            part = documents[start : start + batch_size]
            for document in part:
                if len(document.media) > 1 or (document.media and len(document.parts) > 1):
                    raise UserError(f"{document.name or 'a document'}: has an image and a text; a vector is for one.")
            images = {n: self.inputs.images_of(document)[0] for n, document in enumerate(part) if document.media}
            texts = {n: " ".join(self.inputs.texts_of(document)) for n, document in enumerate(part) if n not in images}
            rows: dict[int, Tensor] = {}
            if images:
                rows |= zip(images, self.embed_images(list(images.values())), strict=True)
            if texts:
                rows |= zip(texts, self.embed_texts(list(texts.values())), strict=True)
            found += [rows[n] for n in range(len(part))]
            if progress is not None:
                progress(start + len(part), len(documents))
        return torch.stack(found)

    @torch.inference_mode()
    def embed_images(self, images: Sequence[Image], batch_size: int = 64) -> Float[Tensor, "images vector"]:
        """One vector for each image."""
        parts = []
        for start in range(0, len(images), batch_size):
            pairs = to_device(self.inputs.images(images[start : start + batch_size]), self.device)
            with autocast(pairs.features.device, self.dtype):
                parts.append(self.network.image(pairs.features, pairs.boxes, pairs.region_padding).cpu())
        return torch.cat(parts)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], batch_size: int = 64) -> Float[Tensor, "texts vector"]:
        """One vector for each text. A bag of words ignores unknown words, with a warning."""
        parts = []
        self._warn_of_unknown(texts)
        for start in range(0, len(texts), batch_size):
            pieces = to_device(self.inputs.text([(text,) for text in texts[start : start + batch_size]]), self.device)
            with autocast(pieces.ids.device, self.dtype):
                parts.append(self.network.text(*self._readable(pieces)).cpu())
        return torch.cat(parts)

    def _warn_of_unknown(self, texts: Sequence[str]) -> None:
        # A tokenizer of word pieces has no unknown words.
        words = self.inputs.words
        unknown = words.unknown_in(texts) if words is not None and words.has_whole_words else []
        if unknown:
            more = f" and {len(unknown) - 5} more" if len(unknown) > 5 else ""
            warnings.warn(
                f"words that are not in the model's vocabulary are ignored: {', '.join(unknown[:5])}{more}.",
                UnknownWords,
                stacklevel=3,
            )

    @torch.inference_mode()
    def match_all(
        self,
        images: Sequence[Image],
        texts: Sequence[str],
        candidates: Bool[Tensor, "images texts"] | None = None,
        progress: Progress | None = None,
    ) -> Float[Tensor, "images texts"]:
        """Similarities of all images and texts; each is encoded once."""
        scores = self.embed_images(images) @ self.embed_texts(texts).t()
        if progress is not None:
            progress(1, 1)
        return scores if candidates is None else scores.masked_fill(~candidates, -torch.inf)

    def vision_tower(self, name: str, image_size: int | None = None) -> DualEncoderTower:
        """The image side as a frozen tower; see :class:`~vislang.models.towers.vision.GivesVisionTower`."""
        network = self.network
        return DualEncoderTower(name, network.image, network.config.vision.width, self.inputs.regions, image_size)

    def diagnostics(self) -> dict[str, float | Tensor]:
        """The temperature."""
        return {"temperature": 1 / self.network.scale.detach()}

    def settings(self) -> dict[str, Any]:
        """See :meth:`PairModel.settings`."""
        return {"encoders": dataclasses.asdict(self.network.config)}

    def save(self, folder: Path) -> None:
        """Write weights, config and tokenizer, and that of the pieces beside whole words."""
        if (pieces := self.extra_state()["pieces"]) is not None:
            folder.mkdir(parents=True, exist_ok=True)
            write_text(folder / PIECES_FILE, pieces)
        super().save(folder)

    @classmethod
    def from_settings(cls, saved: SavedContrastiveEncoder, inputs: PairInputs) -> ContrastiveEncoder:
        """See :meth:`PairModel.from_settings`."""
        return cls(DualEncoder(saved.encoders), inputs)

    @classmethod
    def load(cls, folder: Path, regions: RegionsConfig | None = None) -> ContrastiveEncoder:
        """See :meth:`PairModel.load`."""
        model = super().load(folder, regions)
        config = model.network.config
        if config.pieces and model.inputs.words is not None:
            pieces = WordPieces.load(folder / PIECES_FILE, config.text.max_length)
            model.inputs.words = WordsAndPieces(model.inputs.words, pieces, config.text.vocabulary_size)
        return model


@dataclass
class DualEncoderRecipe(ModelRecipe):
    """The settings of a dual encoder in a recipe.

    Attributes:
        encoders: widths and depths; ``feature_width`` of the vision side is set by the region source.
        regions: source of regions; None takes the default, or with ``start_from`` that model's source.
        augmentation: augmentation of the training images; the regions must be the grid of a tower. Features are cached
            for ``versions`` versions of each image, among which and the original each step draws.
        versions: number of augmented versions of an image.
        tokenizer: a ``tokenizer.json`` or BERT's ``vocab.txt``; None learns one from the texts.
        start_from: folder of a trained dual encoder to continue from, with its shapes and vocabulary.
        chunk: number of items that are encoded at once; 0 for the whole batch.
        dtype: number type of the computation; ``auto`` takes bfloat16 if the device has hardware for it.
    """

    encoders: DualEncoderConfig = field(default_factory=DualEncoderConfig)
    regions: RegionsConfig | None = None
    augmentation: Augmentation | None = None
    versions: int = 4
    tokenizer: str | None = None
    start_from: str | None = None
    chunk: int = 0
    dtype: Precision = "float32"

    def __post_init__(self):
        must_be_at_least(1, self, "versions")

    def build(self, device: torch.device | str = "cpu") -> ContrastiveEncoder:
        """A model at the start of its training.

        Raises:
            UserError: settings contradict each other, or ``start_from`` is not a dual encoder.
        """
        if self.start_from is not None:
            if not issubclass(made := saved_class(self.start_from), ContrastiveEncoder):
                raise UserError(f"start_from {self.start_from}: is a {made.__name__}, not a dual encoder.")
            start = load(self.start_from, regions=self.regions)
            return self._model(start.network, start.inputs, device).train()
        text = self.encoders.text
        if self.tokenizer is not None and self.encoders.pieces:
            raise UserError("tokenizer: a text is read by it alone; leave out encoders.pieces.")
        inputs = PairInputs.new(self.regions, self.tokenizer, text.vocabulary_size, text.max_length)
        self.encoders.vision.feature_width = inputs.regions.width
        return self._model(DualEncoder(self.encoders), inputs, device)

    def _model(self, network: DualEncoder, inputs: PairInputs, device: torch.device | str) -> ContrastiveEncoder:
        versions = None
        if self.augmentation is not None:
            regions = inputs.regions
            if not isinstance(regions, ComputedRegions) or not isinstance(regions.source, GridRegions):
                raise UserError(
                    f"augmentation: the regions come from {regions.name}; images can be augmented only where each is "
                    "encoded by a tower. Leave augmentation out, or set regions.tower without boxes."
                )
            versions = ImageVersions(self.augmentation, regions.source.tower.image_size, self.versions)
        return ContrastiveEncoder(network, inputs, self.chunk, dtype_of(self.dtype, device), versions)

    def open(self, folder: Path, device: torch.device | str = "cpu") -> ContrastiveEncoder:
        """A trained model with the ``chunk`` and ``dtype`` of this recipe."""
        made = ContrastiveEncoder.load(folder)
        made.chunk, made.dtype = self.chunk, dtype_of(self.dtype, device)
        return made
