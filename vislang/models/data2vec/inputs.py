"""Documents to the inputs of an encoder of one modality: token ids, pixels or waveforms."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image as Pillow
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from vislang.cache import cache_folder
from vislang.document import Audio, Document, EndOfChunk, Image, Learned
from vislang.errors import UserError
from vislang.models.settings import must_be_at_least
from vislang.models.towers.feature_cache import FeatureCache

TOKENIZER_FILE = "tokenizer.json"
SAMPLE_RATE = 16_000
"""Sampling rate of speech models, in Hz."""

START, PADDING, END, UNKNOWN, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"


class Whole(NamedTuple):
    """Inputs of one modality, stacked.

    Attributes:
        modality: name of the modality.
        values: token ids (batch, tokens), pixels (batch, channels, height, width) or waveforms (batch, samples).
        padding: (batch, inputs) True at padding; None without padding.
    """

    modality: str
    values: Tensor
    padding: Bool[Tensor, "batch inputs"] | None

    @property
    def tokens(self) -> int:
        """Tokens of texts, padding not counted; images and recordings have none."""
        if self.modality != "text":
            return 0
        return self.values.numel() - (0 if self.padding is None else int(self.padding.sum()))


class TooLong(UserWarning):
    """A text was cut to the maximum length of the model."""


@dataclass(frozen=True)
class ImageInput:
    """How pixels are prepared.

    Attributes:
        size: side of the square in pixels.
        mean, std: mean and standard deviation of each channel, for values from 0 to 1; the model reads
            (value - mean) / std.
    """

    size: int = 224
    mean: Sequence[float | int] = (0.485, 0.456, 0.406)
    std: Sequence[float | int] = (0.229, 0.224, 0.225)

    def __post_init__(self):
        must_be_at_least(1, self, "size", of="image.")
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(
                f"image.mean is {list(self.mean)} and image.std {list(self.std)}; each must have three numbers, and "
                "those of std must be above 0."
            )

    def __call__(self, image: Pillow.Image) -> Float[Tensor, "3 size size"]:
        """The largest central square of an RGB image, resized."""
        side = min(image.size)
        left, upper = (image.width - side) / 2, (image.height - side) / 2
        box = (left, upper, left + side, upper + side)
        return self.tensor(image.resize((self.size, self.size), Pillow.Resampling.BICUBIC, box))

    def tensor(self, image: Pillow.Image) -> Float[Tensor, "3 size size"]:
        """The tensor of an RGB image that already has this size."""
        values = np.asarray(image, dtype=np.float32) / 255
        values = (values - np.asarray(self.mean, np.float32)) / np.asarray(self.std, np.float32)
        return torch.from_numpy(values.transpose(2, 0, 1).copy())


@dataclass(frozen=True)
class SpeechInput:
    """How waveforms are prepared.

    Attributes:
        rate: sampling rate in Hz.
        normalise: standardise each recording, as data2vec's released models expect.
    """

    rate: int = SAMPLE_RATE
    normalise: bool = True

    def __post_init__(self):
        must_be_at_least(1, self, "rate", of="speech.")

    @property
    def decoded(self) -> FeatureCache:
        """The cache of decoded recordings at this rate, as 16-bit samples."""
        return FeatureCache(cache_folder("waveforms", str(self.rate)))

    def samples(self, sound: Audio) -> np.ndarray:
        """A recording at this rate, decoded and resampled once; see :meth:`Audio.decode`."""
        known = self.decoded.get(sound.content_hash)
        if known is None:
            known = torch.from_numpy((sound.decode(self.rate).clip(-1, 1) * 32767).round().astype(np.int16))
            self.decoded.put(sound.content_hash, known)
        return known.numpy().astype(np.float32) / 32767

    def __call__(self, samples: np.ndarray) -> Float[Tensor, "..."]:
        """A waveform at the rate, as float32."""
        wave = torch.from_numpy(np.ascontiguousarray(samples, dtype=np.float32))
        return torch.nn.functional.layer_norm(wave, wave.shape) if self.normalise else wave


class TextInput:
    """How text is prepared: byte-level BPE (RoBERTa, Liu et al. 2019, section 4.4), between start and end tokens.

    Args:
        tokenizer: with the special tokens ``<s>``, ``<pad>``, ``</s>`` and ``<mask>``.
        max_length: greatest number of tokens, including start and end.

    Raises:
        UserError: a special token is missing.
    """

    def __init__(self, tokenizer: Tokenizer, max_length: int):
        needed = (START, END, PADDING, MASK)
        ids = [tokenizer.token_to_id(token) for token in needed]
        missing = [token for token, id in zip(needed, ids, strict=True) if id is None]
        if missing:
            raise UserError(f"the tokenizer has no {', '.join(missing)}. Give a tokenizer for RoBERTa or data2vec.")
        # A text that spells <mask> or </s> stays text.
        tokenizer.encode_special_tokens = True
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.start, self.end, self.padding_id, self.mask_id = (int(id) for id in ids if id is not None)

    def __call__(self, text: str) -> Int[Tensor, "..."]:
        """Token ids; longer texts are cut, with a warning that is the same for all texts."""
        ids = self.tokens(text)
        if len(ids) > self.max_length - 2:
            warnings.warn(
                f"texts of more than {self.max_length - 2} tokens are cut.",
                TooLong,
                stacklevel=2,
            )
        return self.framed(ids[: self.max_length - 2])

    def tokens(self, text: str) -> list[int]:
        """All token ids of a text, without start and end."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def framed(self, ids: Sequence[int]) -> Int[Tensor, "..."]:
        """Token ids with start and end tokens."""
        return torch.tensor([self.start, *ids, self.end])

    @classmethod
    def train(cls, texts: Sequence[str], vocabulary_size: int, max_length: int) -> TextInput:
        """Learn a vocabulary of at most this size, including the special tokens."""
        tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocabulary_size - 1,
            special_tokens=[START, PADDING, END, UNKNOWN],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        tokenizer.add_special_tokens([MASK])
        tokenizer.post_processor = processors.RobertaProcessing((END, 2), (START, 0), add_prefix_space=False)
        return cls(tokenizer, max_length)

    @classmethod
    def load(cls, file: Path, max_length: int) -> TextInput:
        """Open a ``tokenizer.json``.

        Raises:
            UserError: the file does not exist, or is not a tokenizer.
        """
        try:
            content = file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"{file}: cannot be read ({error}). Give the tokenizer.json of the model.") from None
        try:
            return cls.parse(content, max_length)
        except UserError as error:
            raise UserError(f"{file}: {error}") from None

    @classmethod
    def parse(cls, content: str, max_length: int) -> TextInput:
        """Open the content of a ``tokenizer.json``.

        Raises:
            UserError: it is not a tokenizer.
        """
        return cls(parse_tokenizer(content), max_length)


def parse_tokenizer(content: str) -> Tokenizer:
    """A tokenizer from the content of its ``tokenizer.json``.

    Raises:
        UserError: it is not a tokenizer.
    """
    try:
        return Tokenizer.from_str(content)
    except Exception as error:
        # tokenizers raises a plain Exception for every problem.
        raise UserError(f"not a tokenizer ({error}). Give the tokenizer.json of the model.") from None


@dataclass
class TextInputConfig:
    """The settings of a :class:`TextInput` in ``config.json``."""

    max_length: int

    def __post_init__(self):
        # Between the start and the end there has to be room for a token.
        must_be_at_least(3, self, "max_length", of="text.")


@dataclass
class InputsConfig:
    """The settings of :class:`Inputs` in ``config.json``."""

    text: TextInputConfig | None = None
    image: ImageInput | None = None
    speech: SpeechInput | None = None


@dataclass
class Inputs:
    """The preparation of inputs, for each modality that a model reads."""

    text: TextInput | None = None
    image: ImageInput | None = None
    speech: SpeechInput | None = None

    def modality(self, document: Document) -> str:
        """The modality of a document.

        Raises:
            UserError: it mixes modalities, is empty, or has a modality that the model does not read.
        """
        read = [part for part in document.parts if part != "" and not isinstance(part, EndOfChunk)]
        kinds = {_MODALITY.get(type(part), type(part).__name__.lower()) for part in read}
        name = document.name or "a document"
        if len(kinds) != 1:
            found = " and ".join(sorted(kinds)) or "nothing"
            raise UserError(f"{name}: contains {found}; this model reads one modality at a time. Give one alone.")
        kind = kinds.pop()
        if kind not in _MODALITY.values() or getattr(self, kind) is None:
            known = [modality for modality in dict.fromkeys(_MODALITY.values()) if getattr(self, modality) is not None]
            raise UserError(f"{name}: is {kind}, and this model reads only {' and '.join(known) or 'nothing'}.")
        if kind != "text" and len(document.parts) > 1:
            raise UserError(f"{name}: contains {len(document.parts)} media; this model reads one at a time.")
        return kind

    def common_modality(self, documents: Sequence[Document]) -> str:
        """The common modality of all documents.

        Raises:
            UserError: they have different modalities.
        """
        first = self.modality(documents[0])
        for document in documents[1:]:
            if self.modality(document) != first:
                raise UserError(
                    f"{document.name or 'a document'}: is {self.modality(document)} in a batch of {first}. Put "
                    "each modality into its own stream."
                )
        return first

    def read(self, documents: Sequence[Document]) -> Whole:
        """Stack whole documents of one modality; nothing is random.

        Raises:
            MediaError: a medium cannot be used.
            UserError: see :meth:`modality`.
        """
        modality = self.common_modality(documents)
        if modality == "image":
            assert self.image is not None
            return Whole("image", torch.stack([self.image(picture(document).decode()) for document in documents]), None)
        if modality == "speech":
            assert self.speech is not None
            waves = [self.speech(self.speech.samples(recording(document))) for document in documents]
            return Whole("speech", *padded(waves, 0.0))
        assert self.text is not None
        return Whole("text", *padded([self.text(words(d)) for d in documents], self.text.padding_id))

    def why_unreadable(self, media: frozenset[str]) -> str | None:
        """See :class:`~vislang.capabilities.Reads`."""
        known = [name for name, modality in MEDIA.items() if getattr(self, modality) is not None]
        kinds = media - {"several images"}
        unknown = sorted(kinds - set(known))
        if not known:
            return "was converted without a tokenizer and without settings for images and recordings"
        if unknown:
            return f"reads {' and '.join(known)}, but no {' or '.join(unknown)}"
        if len(kinds) > 1:
            return f"reads one medium at a time, not {' and '.join(sorted(kinds))}"
        return "reads one image at a time" if "several images" in media else None

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the tokenizer, and return the settings for the model's config."""
        if self.text is not None:
            (folder / TOKENIZER_FILE).write_text(self.text.tokenizer.to_str(), encoding="utf-8")
        return {
            "text": None if self.text is None else {"max_length": self.text.max_length},
            "image": None if self.image is None else asdict(self.image),
            "speech": None if self.speech is None else asdict(self.speech),
        }

    @classmethod
    def load(cls, folder: Path, config: InputsConfig) -> Inputs:
        """Open what :meth:`save` wrote and returned."""
        text = config.text
        return cls(
            None if text is None else TextInput.load(folder / TOKENIZER_FILE, text.max_length),
            config.image,
            config.speech,
        )


MEDIA = {"text": "text", "image": "image", "audio": "speech"}
"""The modality of each medium of :class:`~vislang.capabilities.Reads`."""

_MODALITY: dict[type, str] = {str: "text", Learned: "text", Image: "image", Audio: "speech"}


def picture(document: Document) -> Image:
    """The image of a document that is an image."""
    (part,) = document.parts
    assert isinstance(part, Image)
    return part


def recording(document: Document) -> Audio:
    """The recording of a document that is a recording."""
    (part,) = document.parts
    assert isinstance(part, Audio)
    return part


def words(document: Document) -> str:
    """The text of a document that is only text."""
    return "".join(part for part in document.without_target().parts if isinstance(part, str))


def contents(modality: str, values: Tensor, padding: Tensor | None) -> dict[str, int]:
    """How much there is of one modality: tokens or seconds without padding, or images; see :class:`Whole`."""
    if modality == "image":
        return {"images": len(values)}
    real = values.numel() if padding is None else int((~padding).sum())
    return {"tokens": real} if modality == "text" else {"seconds": round(real / SAMPLE_RATE)}


def padded(rows: Sequence[Tensor], value: float | int) -> tuple[Tensor, Tensor | None]:
    """Pad rows to one tensor; returns also the padding (True), or None without padding."""
    values = pad_sequence(list(rows), batch_first=True, padding_value=value)
    lengths = torch.tensor([len(row) for row in rows])
    if int(lengths.min()) == values.shape[1]:
        return values, None
    return values, torch.arange(values.shape[1]) >= lengths[:, None]
