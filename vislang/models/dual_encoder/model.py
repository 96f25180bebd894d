"""A contrastive dual encoder: vectors of images and texts that are close to each other if the two match.

It is trained like CLIP (Radford et al. 2021, section 2.3), and like Flamingo's vision encoder (Alayrac et al. 2022,
appendix B.1.3): symmetric cross-entropy over the similarities of a batch, with a learned temperature. The image encoder
reads a frozen tower's features of the regions, with or without transformer blocks. The text encoder has blocks, or is
the sum of word vectors. Training images may be augmented: the features of a few versions of each are cached. Large
batches need no more memory than small ones: batches are encoded in chunks, and each chunk is encoded again for its
gradient (Gao et al. 2021).
"""

from __future__ import annotations

import dataclasses
import math
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vislang.capabilities import ModelRecipe, Progress
from vislang.document import Document, Image, Marked
from vislang.errors import UserError
from vislang.example import Example
from vislang.files import write_text
from vislang.models.augmentation import Augmentation, AugmentedImage
from vislang.models.base import fill_model, read_settings, write_model
from vislang.models.dual_encoder.tower import DualEncoderTower
from vislang.models.dual_encoder.words import FILE as PIECES_FILE
from vislang.models.dual_encoder.words import WordsAndPieces
from vislang.models.loading import load, saved_class
from vislang.models.precision import Precision, autocast, dtype_of
from vislang.models.regions.readers import ComputedRegions, RegionsConfig
from vislang.models.regions.sources import GridRegions
from vislang.models.settings import must_be_at_least, must_be_rates
from vislang.models.vilbert.captioned import PairCollator, are_several, belonging, gathered
from vislang.models.vilbert.config import EPS, TextStreamConfig, VisionStreamConfig
from vislang.models.vilbert.inputs import PairInputs, PairInputsConfig, Pairs, pairs_of
from vislang.models.vilbert.pair_model import PairModel
from vislang.models.vilbert.streams import RegionEmbedding, TextEmbedding
from vislang.models.vilbert.word_pieces import Pieces, WordPieces
from vislang.nn.attention import not_padding
from vislang.nn.device import to_device
from vislang.nn.linear import Linear
from vislang.nn.precision import at_least_float32
from vislang.nn.statistics import mean_and_std
from vislang.nn.transformer import EncoderBlock

MAX_LOG_SCALE = math.log(100)
"""The temperature's inverse is kept below 100, as in CLIP."""

MEASURED = 2000
"""Greatest number of images on which feature statistics are measured."""


class UnknownWords(UserWarning):
    """A text contains words that are not in the vocabulary of a bag of words."""


@dataclass
class DualEncoderConfig:
    """The shapes of the two encoders.

    Attributes:
        text, vision: shapes of the encoders; ``classes`` and ``images`` of the vision side are not used. With a
            ``depth`` of 0, a text is the sum of its words, and an image the feature of the whole image. With eleven
            thousand training pairs this gave better results than two blocks (docs/results/vilbert.md).
        width: width of the vectors.
        pooling: what the feature of the whole image is: the mean of the regions' features, the greatest value of each
            channel, or ``both``, one after the other.
        feature_dropout: dropout rate of the standardised features.
        pieces: size of a vocabulary of word pieces, which a bag of words adds to the whole words; 0 for whole words
            alone.
    """

    text: TextStreamConfig = field(default_factory=TextStreamConfig)
    vision: VisionStreamConfig = field(default_factory=VisionStreamConfig)
    width: int = 256
    pooling: Literal["mean", "max", "both"] = "mean"
    feature_dropout: float = 0.0
    pieces: int = 0

    def __post_init__(self):
        must_be_at_least(1, self, "width", of="encoders.")
        must_be_at_least(0, self, "pieces", of="encoders.")
        must_be_rates(self, "feature_dropout", of="encoders.")
        if self.pieces and self.text.depth:
            raise UserError(
                f"encoders.pieces is {self.pieces}, and encoders.text.depth {self.text.depth}: only a bag of words has "
                "words and pieces; blocks read pieces alone. Set one of them to 0."
            )


class Encoder(nn.Module):
    """Pre-norm blocks over embeddings; the output at the first position becomes the vector."""

    def __init__(self, config: TextStreamConfig | VisionStreamConfig, width: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            EncoderBlock(
                config.width,
                config.heads,
                config.mlp_width,
                norm_first=True,
                eps=EPS,
                activation=config.activation,
                dropout=config.dropout,
                attention_dropout=config.attention_dropout,
            )
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, EPS)
        self.to_vector = Linear(config.width, width, bias=False)

    def forward(
        self, x: Float[Tensor, "items length width"], padding: Bool[Tensor, "items length"] | None
    ) -> Float[Tensor, "items vector"]:
        """One vector of length 1 for each item."""
        return F.normalize(at_least_float32(self.to_vector(self.read(x, padding)[:, 0])), dim=-1)

    def read(
        self, x: Float[Tensor, "items length width"], padding: Bool[Tensor, "items length"] | None
    ) -> Float[Tensor, "items length width"]:
        """The output of the blocks at every position."""
        for block in self.blocks:
            x, _ = block(x, not_padding(padding))
        return self.norm(x)


class WordEncoder(nn.Module):
    """A text encoder with transformer blocks."""

    def __init__(self, config: TextStreamConfig, width: int):
        super().__init__()
        self.embedding = TextEmbedding(config)
        self.encoder = Encoder(config, width)

    def forward(
        self,
        ids: Int[Tensor, "texts tokens"],
        segments: Int[Tensor, "texts tokens"],
        unread: Bool[Tensor, "texts tokens"] | None,
    ) -> Float[Tensor, "texts vector"]:
        """One vector of length 1 for each text."""
        return self.encoder(self.embedding(ids, segments), unread)


class WordBag(nn.Module):
    """A text encoder that adds word vectors and ignores their order.

    The vectors start near zero, so a rare word has little weight. A text without known words has a zero vector, which
    is similar to no image.

    Args:
        config: shapes; see :class:`DualEncoderConfig`.
    """

    def __init__(self, config: DualEncoderConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.text.vocabulary_size + config.pieces, config.width, padding_idx=0)
        self.dropout = config.text.dropout

    def forward(
        self,
        ids: Int[Tensor, "texts tokens"],
        segments: Int[Tensor, "texts tokens"],
        unread: Bool[Tensor, "texts tokens"] | None,
    ) -> Float[Tensor, "texts vector"]:
        """One vector of length 1, or 0, for each text."""
        real = torch.ones_like(ids, dtype=torch.bool) if unread is None else ~unread
        # In training, random words of a text are dropped.
        weights = F.dropout(real.to(self.embedding.weight.dtype), self.dropout, self.training)
        added = F.embedding_bag(ids, self.embedding.weight, mode="sum", per_sample_weights=weights)
        return F.normalize(at_least_float32(added), dim=-1)


class ImageEncoder(nn.Module):
    """An image encoder over standardised region features; the output at the whole image becomes the vector.

    Args:
        config: shapes; see :class:`DualEncoderConfig`.
    """

    features_mean: Tensor
    features_deviation: Tensor

    def __init__(self, config: DualEncoderConfig):
        super().__init__()
        self.pooling = config.pooling
        width = config.vision.feature_width * (2 if config.pooling == "both" else 1)
        self.register_buffer("features_mean", torch.zeros(width))
        self.register_buffer("features_deviation", torch.ones(width))
        self.feature_dropout = nn.Dropout(config.feature_dropout)
        self.embedding = RegionEmbedding(dataclasses.replace(config.vision, feature_width=width))
        self.encoder = Encoder(config.vision, config.width)

    def pool(
        self,
        features: Float[Tensor, "images regions feature_width"],
        padding: Bool[Tensor, "images regions"] | None = None,
    ) -> Float[Tensor, "images read pooled"]:
        """What the encoder reads: the pooled features of the whole image, and with blocks also those of each region,
        which is pooled over itself alone.

        Args:
            features: of the whole image (the mean of the others) and of its regions.
            padding: True at padding.
        """
        mean, regions = features[:, :1], features[:, 1:]
        if self.pooling == "mean":
            whole = mean
        else:
            seen = regions if padding is None else regions.masked_fill(padding[:, 1:, None], -torch.inf)
            greatest = seen.amax(dim=1, keepdim=True)
            whole = greatest if self.pooling == "max" else torch.cat([mean, greatest], dim=-1)
        if not len(self.encoder.blocks):
            # Without blocks, the output at the whole image does not depend on single regions.
            return whole
        return torch.cat([whole, self._alone(regions)], dim=1)

    def standardise(self, features: Float[Tensor, "regions pooled"]) -> None:
        """Measure the mean and standard deviation with which pooled features are standardised."""
        mean, std = mean_and_std(features)
        self.features_mean.copy_(mean)
        self.features_deviation.copy_(std)

    def forward(
        self,
        features: Float[Tensor, "images regions feature_width"],
        boxes: Float[Tensor, "images regions box"],
        padding: Bool[Tensor, "images regions"] | None,
    ) -> Float[Tensor, "images vector"]:
        """One vector of length 1 for each image, from the whole image (first) and its regions."""
        pooled = self.pool(features, padding)
        read = pooled.shape[1]
        return self.encoder(
            self._embed(pooled, boxes[:, :read]), None if padding is None or read == 1 else padding[:, :read]
        )

    def read(
        self, features: Float[Tensor, "images regions feature_width"], boxes: Float[Tensor, "images regions box"]
    ) -> Float[Tensor, "images regions width"]:
        """The output of the blocks at the whole image (first) and at every region."""
        pooled = self.pool(features)
        if pooled.shape[1] == 1:
            pooled = torch.cat([pooled, self._alone(features[:, 1:])], dim=1)
        return self.encoder.read(self._embed(pooled, boxes), None)

    def _alone(self, regions: Float[Tensor, "images regions feature_width"]) -> Float[Tensor, "images regions pooled"]:
        """Regions, each pooled over itself: its mean and its greatest values are its own features."""
        return torch.cat([regions, regions], dim=-1) if self.pooling == "both" else regions

    def _embed(
        self, pooled: Float[Tensor, "images read pooled"], boxes: Float[Tensor, "images read box"]
    ) -> Float[Tensor, "images read width"]:
        standardised = (pooled - self.features_mean) / self.features_deviation
        return self.embedding(self.feature_dropout(standardised), boxes)


class DualEncoder(nn.Module):
    """The two encoders; tensors in, vectors out.

    Args:
        config: shapes of the encoders.
    """

    def __init__(self, config: DualEncoderConfig):
        super().__init__()
        self.config = config
        self.text = WordEncoder(config.text, config.width) if config.text.depth else WordBag(config)
        self.image = ImageEncoder(config)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
            if isinstance(module, nn.Linear) and module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(self.text, WordBag):
            nn.init.normal_(self.text.embedding.weight, std=1e-3)

    def forward(
        self, images: Sequence[Tensor | None], texts: Sequence[Tensor | None], chunk: int = 0
    ) -> tuple[Float[Tensor, "images vector"], Float[Tensor, "texts vector"]]:
        """Vectors of images and of texts.

        Args:
            images: features, boxes and padding, see :class:`ImageEncoder`.
            texts: ids, segments and padding, see :class:`WordEncoder`.
            chunk: number of items that are encoded at once; 0 for all.
        """
        return self._in_chunks(self.image, images, chunk), self._in_chunks(self.text, texts, chunk)

    def _in_chunks(
        self, encode: nn.Module, inputs: Sequence[Tensor | None], chunk: int
    ) -> Float[Tensor, "items vector"]:
        """Encode in chunks; activations are recomputed for the gradient (checkpointing)."""
        first = inputs[0]
        assert first is not None
        if not chunk or len(first) <= chunk:
            return encode(*inputs)
        parts = []
        for start in range(0, len(first), chunk):
            part = [None if each is None else each[start : start + chunk] for each in inputs]
            parts.append(checkpoint(encode, *part, use_reentrant=False) if self.training else encode(*part))
        return torch.cat(parts)

    @property
    def scale(self) -> Float[Tensor, ""]:
        """The factor on similarities: the inverse of the temperature."""
        return self.log_scale.clamp(max=MAX_LOG_SCALE).exp()


def contrastive_loss(
    images: Float[Tensor, "images vector"],
    texts: Float[Tensor, "texts vector"],
    belong: Bool[Tensor, "images texts"],
    scale: Float[Tensor, ""],
) -> dict[str, Float[Tensor, ""]]:
    """Symmetric InfoNCE: each image finds its text, each text its image.

    Args:
        images, texts: vectors of length 1.
        belong: which pairs match. For an image with several texts, each text is compared only with the texts of other
            images; its own other texts are not negatives.
        scale: inverse of the temperature.

    Returns:
        ``image_to_text`` and ``text_to_image``, each half of the mean over pairs.
    """
    scores = scale * images @ texts.t()
    losses = {}
    for name, matrix, own in (("image_to_text", scores, belong), ("text_to_image", scores.t(), belong.t())):
        row, column = own.nonzero(as_tuple=True)
        others = own[row].clone()
        others[torch.arange(len(row)), column] = False
        logits = matrix[row].masked_fill(others, -torch.inf)
        losses[name] = F.cross_entropy(logits, column) / 2
    return losses


@dataclass(frozen=True)
class ImageVersions:
    """Augmented versions of the training images. As many are made of each as ``count`` says; training draws among them
    and the original, so that a frozen tower encodes each only once.

    Attributes:
        augmentation: how images are changed.
        size: side of a version in pixels.
        count: number of versions of an image.
    """

    augmentation: Augmentation
    size: int
    count: int

    def of(self, image: Image) -> list[Image]:
        """The image and its versions. Of an image with marked boxes there are none, because they would be moved."""
        if isinstance(image.source, Marked):
            return [image]
        made = [AugmentedImage.of(image, self.augmentation, self.size, number) for number in range(self.count)]
        return [image, *made]

    def draw(self, image: Image, seed: int) -> Image:
        """One of them, the same for all pairs of this image in a step: its other captions are no negatives."""
        return random.Random(f"{seed} {image.content_hash}").choice(self.of(image))


class VersionCollator(PairCollator):
    """Shows one of the versions of each image, where there are some.

    Args:
        inputs: how texts and images are prepared.
        versions: versions of the training images, or None.

    Attributes:
        training: whether versions are drawn.
    """

    def __init__(self, inputs: PairInputs, versions: ImageVersions | None = None):
        super().__init__(inputs)
        self.versions, self.training = versions, True

    def shown(self, image: Image, seed: int) -> Image:
        """The image, or the version of it that is drawn for this step."""
        return self.versions.draw(image, seed) if self.versions is not None and self.training else image


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
        elif known is None:
            self.inputs.words = WordPieces.train(list(dict.fromkeys(texts)), text.vocabulary_size, text.max_length)
        # A model that is trained further keeps its statistics.
        encoder = self.network.image
        if not encoder.features_mean.any():
            images = list({image: None for image, _ in pairs})
            # Evenly spaced, because sources follow each other.
            images = images[:: math.ceil(len(images) / MEASURED)]
            features = [torch.from_numpy(self.inputs.regions_of((image,)).features) for image in images]
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
            read = [self.inputs.regions_of((image,)) for image in images[start : start + batch_size]]
            pairs = self.inputs.pairs(self.inputs.text([("",)]), read, [0] * len(read), range(len(read)), [])
            pairs = to_device(pairs, self.device)
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

    def why_unmatched(self) -> str | None:
        """It always can; see :class:`~vislang.capabilities.Matches`."""
        return None

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

    def save(self, folder: Path) -> None:
        """Write weights, config and tokenizer."""
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"encoders": dataclasses.asdict(self.network.config), "inputs": self.inputs.save(folder)}
        if (pieces := self.extra_state()["pieces"]) is not None:
            write_text(folder / PIECES_FILE, pieces)
        write_model(folder, self, settings)

    @classmethod
    def load(cls, folder: Path, regions: RegionsConfig | None = None) -> ContrastiveEncoder:
        """Open a folder that :meth:`save` wrote.

        Raises:
            TowerError: the source of its regions is missing, or is another one.
            UserError: a setting is wrong, or the weights do not fit or are damaged.
        """
        saved = read_settings(SavedContrastiveEncoder, folder)
        inputs, text = PairInputs.load(folder, saved.inputs, regions), saved.encoders.text
        if saved.encoders.pieces and inputs.words is not None:
            pieces = WordPieces.load(folder / PIECES_FILE, text.max_length)
            inputs.words = WordsAndPieces(inputs.words, pieces, text.vocabulary_size)
        model = cls(DualEncoder(saved.encoders), inputs)
        fill_model(model, folder)
        return model.eval()


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
