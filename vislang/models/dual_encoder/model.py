"""A contrastive dual encoder: vectors of images and texts that are close to each other if the two match.

It is trained like CLIP (Radford et al. 2021, section 2.3), and like Flamingo's vision encoder (Alayrac et al. 2022,
appendix B.1.3): symmetric cross-entropy over the similarities of a batch, with a learned temperature. The image encoder
reads a frozen tower's features of the regions, with or without transformer blocks. The text encoder has blocks, or is
the sum of word vectors. Large batches need no more memory than small ones: batches are encoded in chunks, and each
chunk is encoded again for its gradient (Gao et al. 2021).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vislang.capabilities import ModelRecipe, Progress
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Example
from vislang.models.base import fill_model, read_settings, write_model
from vislang.models.dual_encoder.tower import DualEncoderTower
from vislang.models.loading import load, saved_class
from vislang.models.precision import Precision, autocast, dtype_of
from vislang.models.regions.readers import RegionsConfig
from vislang.models.settings import must_be_at_least
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
    """

    text: TextStreamConfig = field(default_factory=TextStreamConfig)
    vision: VisionStreamConfig = field(default_factory=VisionStreamConfig)
    width: int = 256

    def __post_init__(self):
        must_be_at_least(1, self, "width", of="encoders.")


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
    """

    def __init__(self, config: TextStreamConfig, width: int):
        super().__init__()
        self.embedding = nn.Embedding(config.vocabulary_size, width, padding_idx=0)
        self.dropout = config.dropout

    def forward(
        self,
        ids: Int[Tensor, "texts tokens"],
        segments: Int[Tensor, "texts tokens"],
        unread: Bool[Tensor, "texts tokens"] | None,
    ) -> Float[Tensor, "texts vector"]:
        """One vector of length 1, or 0, for each text."""
        real = torch.ones_like(ids, dtype=torch.bool) if unread is None else ~unread
        counted = real.to(self.embedding.weight.dtype)
        # In training, random words of a text are dropped.
        counted = F.dropout(counted, self.dropout, self.training)
        return F.normalize(at_least_float32((self.embedding(ids) * counted[..., None]).sum(dim=1)), dim=-1)


class ImageEncoder(nn.Module):
    """An image encoder over standardised region features; the output at the whole image becomes the vector."""

    features_mean: Tensor
    features_deviation: Tensor

    def __init__(self, config: VisionStreamConfig, width: int):
        super().__init__()
        self.register_buffer("features_mean", torch.zeros(config.feature_width))
        self.register_buffer("features_deviation", torch.ones(config.feature_width))
        self.embedding = RegionEmbedding(config)
        self.encoder = Encoder(config, width)

    def standardise(self, features: Float[Tensor, "regions feature_width"]) -> None:
        """Measure the mean and standard deviation with which features are standardised."""
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
        if not len(self.encoder.blocks):
            # Without blocks, the output at the whole image does not depend on other regions.
            features, boxes, padding = features[:, :1], boxes[:, :1], None
        return self.encoder(self._embed(features, boxes), padding)

    def read(
        self, features: Float[Tensor, "images regions feature_width"], boxes: Float[Tensor, "images regions box"]
    ) -> Float[Tensor, "images regions width"]:
        """The output of the blocks at every region."""
        return self.encoder.read(self._embed(features, boxes), None)

    def _embed(self, features: Tensor, boxes: Tensor) -> Float[Tensor, "images regions width"]:
        return self.embedding((features - self.features_mean) / self.features_deviation, boxes)


class DualEncoder(nn.Module):
    """The two encoders; tensors in, vectors out.

    Args:
        config: shapes of the encoders.
    """

    def __init__(self, config: DualEncoderConfig):
        super().__init__()
        self.config = config
        self.text = (WordEncoder if config.text.depth else WordBag)(config.text, config.width)
        self.image = ImageEncoder(config.vision, config.width)
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
    """

    needs_whole_batch = True

    def __init__(self, network: DualEncoder, inputs: PairInputs, chunk: int = 0, dtype: torch.dtype = torch.float32):
        config = network.config
        super().__init__(network, inputs, config.text.max_length, config.vision.feature_width, dtype)
        self.chunk = chunk
        self.collate = PairCollator(inputs)

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
                self.inputs.words = WordPieces.of_whole_words(texts, text.vocabulary_size, text.max_length, known)
        elif known is None:
            self.inputs.words = WordPieces.train(list(dict.fromkeys(texts)), text.vocabulary_size, text.max_length)
        # A model that is trained further keeps its statistics.
        if not self.network.image.features_mean.any():
            images = list({image: None for image, _ in pairs})[:MEASURED]
            features = [self.inputs.regions_of((image,)).features for image in images]
            self.network.image.standardise(torch.from_numpy(np.concatenate(features)))

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
        write_model(folder, self, settings)

    @classmethod
    def load(cls, folder: Path, regions: RegionsConfig | None = None) -> ContrastiveEncoder:
        """Open a folder that :meth:`save` wrote.

        Raises:
            TowerError: the source of its regions is missing, or is another one.
            UserError: a setting is wrong, or the weights do not fit or are damaged.
        """
        saved = read_settings(SavedContrastiveEncoder, folder)
        model = cls(DualEncoder(saved.encoders), PairInputs.load(folder, saved.inputs, regions))
        fill_model(model, folder)
        return model.eval()


@dataclass
class DualEncoderRecipe(ModelRecipe):
    """The settings of a dual encoder in a recipe.

    Attributes:
        encoders: widths and depths; ``feature_width`` of the vision side is set by the region source.
        regions: source of regions; None takes the default, or with ``start_from`` that model's source.
        tokenizer: a ``tokenizer.json`` or BERT's ``vocab.txt``; None learns one from the texts.
        start_from: folder of a trained dual encoder to continue from, with its shapes and vocabulary.
        chunk: number of items that are encoded at once; 0 for the whole batch.
        dtype: number type of the computation; ``auto`` takes bfloat16 if the device has hardware for it.
    """

    encoders: DualEncoderConfig = field(default_factory=DualEncoderConfig)
    regions: RegionsConfig | None = None
    tokenizer: str | None = None
    start_from: str | None = None
    chunk: int = 0
    dtype: Precision = "float32"

    def build(self, device: torch.device | str = "cpu") -> ContrastiveEncoder:
        """A model at the start of its training.

        Raises:
            UserError: settings contradict each other, or ``start_from`` is not a dual encoder.
        """
        if self.start_from is not None:
            if not issubclass(made := saved_class(self.start_from), ContrastiveEncoder):
                raise UserError(f"start_from {self.start_from}: is a {made.__name__}, not a dual encoder.")
            start = load(self.start_from, regions=self.regions)
            return ContrastiveEncoder(start.network, start.inputs, self.chunk, dtype_of(self.dtype, device)).train()
        text = self.encoders.text
        inputs = PairInputs.new(self.regions, self.tokenizer, text.vocabulary_size, text.max_length)
        self.encoders.vision.feature_width = inputs.regions.width
        return ContrastiveEncoder(DualEncoder(self.encoders), inputs, self.chunk, dtype_of(self.dtype, device))

    def open(self, folder: Path, device: torch.device | str = "cpu") -> ContrastiveEncoder:
        """A trained model with the ``chunk`` and ``dtype`` of this recipe."""
        made = ContrastiveEncoder.load(folder)
        made.chunk, made.dtype = self.chunk, dtype_of(self.dtype, device)
        return made
