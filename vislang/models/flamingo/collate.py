"""Examples and Documents to batches for Flamingo: tokens, the medium that each token attends to, and the media."""

from __future__ import annotations

import random
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import PIL.Image
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vislang.document import Absent, Document, EndOfChunk, Image, Learned, MediaError, Medium, Part, Video, set_off
from vislang.errors import UserError
from vislang.example import Example, kind_of
from vislang.models.settings import must_be_above_zero, must_be_at_least
from vislang.models.towers.feature_cache import FeatureCache
from vislang.models.towers.vision import VisionTower
from vislang.prompt import Prompts

IGNORED = -100
"""Target of a position whose next token is not predicted."""


@dataclass
class Batch:
    """Texts with media, ready for the bridge.

    The first ``prefix`` columns precede the first medium of every row and are padded on the left. The other columns are
    padded on the right.

    Attributes:
        input_ids: (batch, tokens) token ids; the media token may be outside the language model's vocabulary.
        attention_mask: (batch, tokens) 1 for real tokens.
        media_time: (batch, tokens) the index of each token's medium in its row, counted from 1; 0 for no medium.
        targets: (batch, tokens) the next token, where it is to be predicted; elsewhere ``IGNORED``.
        media_index: (batch, row media) the index of each medium in ``features``. It is -1 where a row has fewer media,
            and for media that were removed; the tokens of a removed medium attend to nothing.
        prefix: number of columns before the first medium.
        features: (media, frames, positions, width) features of each distinct medium; None before they are computed.
        pixels: (all frames, channels, height, width) preprocessed frames, if the features are not computed yet.
        frames: (media,) number of frames of each medium; None if each has one.
        segments: (batch, tokens) for packed rows: the document of each token. Documents do not attend to each other.
        media_before: (batch, tokens) for packed rows: how many media of the row belong to earlier documents.
        names: names of the documents, for messages.
    """

    input_ids: Int[Tensor, "batch tokens"]
    attention_mask: Int[Tensor, "batch tokens"]
    media_time: Int[Tensor, "batch tokens"]
    targets: Int[Tensor, "batch tokens"]
    media_index: Int[Tensor, "batch row_media"]
    prefix: int
    features: Float[Tensor, "media frames positions width"] | None = None
    pixels: Float[Tensor, "all_frames channels height width"] | None = None
    frames: Int[Tensor, "..."] | None = None
    segments: Int[Tensor, "batch tokens"] | None = None
    media_before: Int[Tensor, "batch tokens"] | None = None
    names: list[str] = field(default_factory=list)

    @property
    def tokens(self) -> int:
        """Tokens of the texts, padding not counted."""
        return int(self.attention_mask.sum())

    def position_ids(self) -> Int[Tensor, "batch tokens"]:
        """The position of each token in its own document."""
        if self.segments is None:
            return (self.attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
        column = torch.arange(self.segments.shape[1], device=self.segments.device).expand_as(self.segments)
        new = F.pad(self.segments.diff(dim=-1) != 0, (1, 0), value=True)
        return column - torch.where(new, column, 0).cummax(dim=-1).values

    def mask(self, dtype: torch.dtype) -> Int[Tensor, "batch tokens"] | Float[Tensor, "batch 1 tokens tokens"]:
        """The language model's attention mask: 1 for real tokens, or, for packed rows, a bias."""
        if self.segments is None:
            return self.attention_mask
        same = self.segments[:, :, None] == self.segments[:, None, :]
        visible = same.tril() & (self.attention_mask[:, None, :] == 1)
        # Padding attends to itself, because a softmax over no keys is NaN.
        visible = visible | torch.eye(visible.shape[-1], dtype=torch.bool, device=visible.device)
        bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        return bias.masked_fill(~visible, torch.finfo(dtype).min)[:, None]

    def longest(self) -> int:
        """Number of tokens of the longest document."""
        return int((self.position_ids() * self.attention_mask).max()) + 1


class PromptTooLong(UserError):
    """A prompt has more tokens than the language model has positions."""


class PromptNotice(UserWarning):
    """A part of a prompt or an answer was removed."""


@dataclass
class CollateConfig:
    """How documents become rows of tokens.

    Attributes:
        frames_per_second: sampling rate of videos.
        max_frames: greatest number of frames of a video.
        page_tokens: a page is trained on in windows of this many tokens around a medium, drawn each time.
        page_media: greatest number of media in such a window (the paper has 256 tokens and 5 media).
        pack: lay several training documents in one row of about this many tokens, without attention between them; 0
            gives each document its own row.
        too_long: what to do with a prompt that is longer than the language model's context: raise an ``error``, or
            ``drop`` its first examples with a warning.
    """

    frames_per_second: float = 1.0
    max_frames: int = 32
    page_tokens: int = 256
    page_media: int = 5
    pack: int = 0
    too_long: Literal["error", "drop"] = "error"

    def __post_init__(self):
        must_be_at_least(1, self, "max_frames", "page_tokens", "page_media", of="collate.")
        must_be_at_least(0, self, "pack", of="collate.")
        must_be_above_zero(self, "frames_per_second", of="collate.")


@dataclass
class _Row:
    """A document as tokens, with their targets and media."""

    ids: list[int] = field(default_factory=list)
    media_time: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    media: list[Medium | Absent] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    media_before: list[int] = field(default_factory=list)
    prefix: int = 0


class Collator:
    """Turns training Examples, or Documents, into a :class:`Batch`. Picklable, so worker processes can run it.

    Args:
        prompts: the templates for questions and captions.
        tokenizer: the language model's.
        vision: the vision tower, for its preprocessing.
        cache: of features, or None.
        media_token: id of the media token.
        chunk_token: id of the end-of-chunk token; None takes the end-of-text token.
        context_length: number of positions of the language model; None for no limit.
        prefix_apart: whether the text before the first medium is independent of the media (see ``gate_all_text``).
        config: how documents become rows.
    """

    def __init__(
        self,
        prompts: Prompts,
        tokenizer: PreTrainedTokenizerBase,
        vision: VisionTower,
        cache: FeatureCache | None,
        media_token: int,
        chunk_token: int | None,
        context_length: int | None,
        prefix_apart: bool,
        config: CollateConfig,
    ):
        self.prompts = prompts
        self.tokenizer = tokenizer
        self.vision = vision
        self.cache = cache
        self.media_token = media_token
        self.context_length = context_length
        self.prefix_apart = prefix_apart
        self.config = config
        if tokenizer.eos_token_id is None:
            raise UserError("the language model's tokenizer has no end-of-text token, which is needed to end answers.")
        self.chunk_token = tokenizer.eos_token_id if chunk_token is None else chunk_token
        first = tokenizer("a")["input_ids"][0]
        self._start = [tokenizer.bos_token_id] if first == tokenizer.bos_token_id else []

    def __call__(self, examples: Sequence[Example], seed: int = 0, first: int = 0) -> Batch:
        """A training batch: each example in its template, with its target.

        Args:
            examples: their targets must be expressible as text.
            seed: determines which part of a long page is used, and which media side a page's text attends to.
            first: number of the first example in the batch that these are a part of.

        Raises:
            MediaError: a medium cannot be used, or Flamingo does not read this kind of medium.
            UserError: an example has no text to learn, is empty, or is too long for the language model.
        """
        return self.documents([self.to_learn(example) for example in examples], seed, first=first)

    def to_learn(self, example: Example) -> Document:
        """An example in its template, with the text that is learned.

        Raises:
            UserError: it has no text to learn.
        """
        document = self.prompts.render(example, learn=True)
        if not _has_targets(document):
            raise UserError(
                f"{example.name}: this model learns to generate text, and the target is of the kind "
                f"{kind_of(example.target)}. Give a text, an answer, a label, a number or a choice among texts."
            )
        return document

    def documents(self, documents: Sequence[Document], seed: int = 0, prefilled: int = 0, first: int = 0) -> Batch:
        """A batch of documents, for training or to be continued.

        Args:
            documents: the documents.
            seed, first: see :meth:`__call__`.
            prefilled: number of tokens of the decode state that the documents continue. Text before their first medium
                then attends to the media of that state.

        Raises:
            MediaError: a medium cannot be used, or Flamingo does not read this kind of medium.
            UserError: a document is empty, or too long for the language model.
        """
        rows = [
            self._row(document, random.Random(f"{seed} {number}"), prefilled)
            for number, document in enumerate(documents, start=first)
        ]
        packed = self.config.pack > 0 and not prefilled and all(_has_targets(document) for document in documents)
        if packed:
            rows = _packed(rows, self.config.pack)
        prefix = max(row.prefix for row in rows)
        suffix = max(len(row.ids) - row.prefix for row in rows)
        size = (len(rows), prefix + suffix)
        input_ids, attention_mask, media_time, segments, media_before = torch.zeros(5, *size, dtype=torch.long)
        segments = segments - 1
        targets = torch.full(size, IGNORED)
        media_index = torch.full((len(rows), max(1, max(len(row.media) for row in rows))), -1)
        distinct: dict[str, int] = {}
        media: list[Medium] = []
        for number, row in enumerate(rows):
            columns = slice(prefix - row.prefix, prefix - row.prefix + len(row.ids))
            input_ids[number, columns] = torch.tensor(row.ids)
            attention_mask[number, columns] = 1
            media_time[number, columns] = torch.tensor(row.media_time)
            targets[number, columns] = torch.tensor(row.targets)
            if packed:
                segments[number, columns] = torch.tensor(row.segments)
                media_before[number, columns] = torch.tensor(row.media_before)
            for column, medium in enumerate(row.media):
                if isinstance(medium, Medium):
                    if medium.content_hash not in distinct:
                        distinct[medium.content_hash] = len(media)
                        media.append(medium)
                    media_index[number, column] = distinct[medium.content_hash]
        batch = Batch(
            input_ids,
            attention_mask,
            media_time,
            targets,
            media_index,
            prefix,
            segments=segments if packed else None,
            media_before=media_before if packed else None,
            names=[document.name for document in documents],
        )
        self._add_media(batch, media)
        return batch

    def key(self, medium: Medium) -> str:
        """The key of a medium's features in the cache; for videos it includes the sampling of frames."""
        if isinstance(medium, Video):
            return f"{medium.content_hash}-{self.config.frames_per_second:g}-{self.config.max_frames}"
        return medium.content_hash

    def pixels(self, medium: Medium) -> Float[Tensor, "frames channels height width"]:
        """The frames of a medium, preprocessed for the vision tower; an image is one frame.

        Raises:
            MediaError: it cannot be used.
        """
        return torch.stack([self.vision.preprocess(frame) for frame in self.frames(medium)])

    def frames(self, medium: Medium) -> list[PIL.Image.Image]:
        """The frames of a medium that the vision tower encodes; an image is one frame.

        Raises:
            MediaError: it cannot be used.
        """
        if isinstance(medium, Image):
            return [medium.decode()]
        assert isinstance(medium, Video)
        return medium.decode(self.config.frames_per_second, self.config.max_frames)

    def answer(self, document: Document, text: str) -> list[int]:
        """The tokens of an answer to a document, including the end-of-text token."""
        before = _joined(document.parts)[-1:]
        return [*self._answer(text, before[0] if before else None), self.tokenizer.eos_token_id]

    def length(self, document: Document) -> int:
        """The number of tokens of a document; a medium is one token."""
        return len(self._row(document, random.Random(0), prefilled=0).ids)

    def fitting(self, document: Document, text: str) -> str:
        """The beginning of an answer that can be read again after a document; see
        :meth:`vislang.capabilities.Attends.fitting`."""
        if self.context_length is None:
            return text
        room = self.context_length - self.length(document.without_target())
        tokens = self.answer(document, text)[:-1]
        if len(tokens) <= room:
            return text
        for kept in range(room, 0, -1):
            text = self.tokenizer.decode(tokens[:kept]).strip()
            # A text of the first tokens may have other tokens, and more.
            if len(self.answer(document, text)) - 1 <= room:
                return text
        return ""

    def _add_media(self, batch: Batch, media: list[Medium]) -> None:
        if not media and not self.vision.trains:
            batch.features = torch.zeros(1, 1, 1, self.vision.width)
            return
        if not media:
            # No token attends to it. A tower that is trained runs for every batch, because each of several processes
            # must have a gradient for the same parameters.
            blank = self.vision.preprocess(PIL.Image.new("RGB", (8, 8)))
            batch.pixels, batch.frames = blank[None], torch.ones(1, dtype=torch.long)
            return
        if self.cache is not None:
            known = [self.cache.get(self.key(medium)) for medium in media]
            found = [features for features in known if features is not None]
            if len(found) == len(media):
                batch.features, batch.frames = stack_frames(found)
                return
        parts = [self.pixels(medium) for medium in media]
        batch.pixels = torch.cat(parts)
        batch.frames = torch.tensor([len(part) for part in parts])

    def _row(self, document: Document, rng: random.Random, prefilled: int) -> _Row:
        parts = list(document.parts)
        row = self._whole_row(document, parts, rng, prefilled)
        if _has_targets(document) and document.target is None:
            if len(row.ids) > self.config.page_tokens:
                row = _window(row, self.config.page_tokens, self.media_token, rng)
            row = _with_media(row, self.config.page_media, self.media_token, rng)
        dropped = 0
        while self.context_length is not None and len(row.ids) > self.context_length - prefilled:
            ends = [index for index, part in enumerate(parts) if isinstance(part, EndOfChunk)]
            if self.config.too_long == "error" or not ends or ends[0] + 1 == len(parts):
                raise PromptTooLong(
                    f"{document.name or 'a document'}: {prefilled + len(row.ids)} tokens, and the language model has "
                    f"{self.context_length} positions. Shorten it, give fewer examples"
                    + (", or let the first ones be dropped." if self.config.too_long == "error" else ", or both.")
                )
            parts = parts[ends[0] + 1 :]
            dropped += 1
            row = self._whole_row(document, parts, rng, prefilled)
        if dropped:
            warnings.warn(
                f"{document.name or 'a document'}: longer than the language model's {self.context_length} positions; "
                f"the first {dropped} of its examples were dropped.",
                PromptNotice,
                stacklevel=4,
            )
        return row

    def _whole_row(self, document: Document, parts: list[Part], rng: random.Random, prefilled: int) -> _Row:
        row = _Row(ids=[] if prefilled else list(self._start))
        learned = [False] * len(row.ids)
        times = [0] * len(row.ids)
        before: Part | None = None
        for part in _joined(parts):
            learns = isinstance(part, Learned) or (isinstance(part, EndOfChunk) and isinstance(before, Learned))
            tokens = self._tokens(document, part, before, row)
            row.ids += tokens
            times += [len(row.media)] * len(tokens)
            learned += [learns] * len(tokens)
            before = part
        if not row.ids:
            raise UserError(f"{document.name or 'a document'}: empty. Add text or an image.")
        prompt_end = len(row.ids) - 1
        if document.target is not None:
            answer = [*self._answer(document.target, before), self.tokenizer.eos_token_id]
            row.ids += answer
            times += [len(row.media)] * len(answer)
            learned += [True] * len(answer)
        side = rng.choice(["before", "after"]) if document.media_side == "either" else document.media_side
        row.media_time = times if side == "before" else self._next_times(row.ids, times, len(row.media))
        row.targets = _targets(row, learned, prompt_end, document.target is not None)
        if learned[-1] and len(row.ids) > 1:
            # The last token is only predicted; it predicts nothing itself.
            for values in (row.ids, row.media_time, row.targets):
                values.pop()
        first = next((column for column, time in enumerate(row.media_time) if time), len(row.ids))
        row.prefix = min(prompt_end, first, len(row.ids) - 1) if self.prefix_apart and not prefilled else 0
        return row

    def _tokens(self, document: Document, part: Part, before: Part | None, row: _Row) -> list[int]:
        if isinstance(part, str):
            return self._text(part)
        if isinstance(part, Learned):
            return self._answer(part.text, before)
        if isinstance(part, EndOfChunk):
            return [self.chunk_token]
        if isinstance(part, Image | Video | Absent):
            row.media.append(part)
            return [self.media_token]
        raise MediaError(
            f"{document.name or getattr(part, 'name', '')}: a {type(part).__name__.lower()}, and this model reads "
            "text, images and videos. Leave it out, or give an image instead."
        )

    def _answer(self, text: str, before: Part | None) -> list[int]:
        """The tokens of a target text that follows a part."""
        return self._text(set_off(text, before))

    def _text(self, text: str) -> list[int]:
        """The tokens of a text. Text that spells a special token, such as ``<image>``, stays text: else whoever writes
        a question could end it, or claim an image that is not there."""
        return self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]

    def _next_times(self, ids: list[int], times: list[int], count: int) -> list[int]:
        """For text that attends to the medium after it: media tokens keep their own medium."""
        moved = [time if token == self.media_token else time + 1 for token, time in zip(ids, times, strict=True)]
        return [time if time <= count else 0 for time in moved]


def stack_frames(
    features: Sequence[Float[Tensor, "..."]],
) -> tuple[Float[Tensor, "media frames positions width"], Int[Tensor, "..."]]:
    """Stack media with different numbers of frames, padded; returns also these numbers.

    Args:
        features: of each medium (frames, positions, width); of an image also (positions, width).
    """
    videos = [each if each.ndim == 3 else each[None] for each in features]
    most = max(len(video) for video in videos)
    padded = torch.stack([F.pad(video, (0, 0, 0, 0, 0, most - len(video))) for video in videos])
    return padded, torch.tensor([len(video) for video in videos], device=padded.device)


def _targets(row: _Row, learned: list[bool], prompt_end: int, has_target: bool) -> list[int]:
    """The next token where it is learned. The text of a page is learned only from its first medium on, because only the
    frozen language model reads the text before it."""
    targets, after_medium = [IGNORED] * len(row.ids), False
    for column in range(len(row.ids) - 1):
        after_medium = after_medium or row.media_time[column] > 0
        if learned[column + 1] and (after_medium or (has_target and column >= prompt_end)):
            targets[column] = row.ids[column + 1]
    return targets


def _has_targets(document: Document) -> bool:
    return document.target is not None or any(isinstance(part, Learned) for part in document.parts)


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Join neighbouring strings, so tokens can span them."""
    joined: list[Part] = []
    for part in parts:
        before = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(before, str):
            joined[-1] = before + part
        elif part != "":
            joined.append(part)
    return joined


def _window(row: _Row, tokens: int, media_token: int, rng: random.Random) -> _Row:
    """A random window of a page around a random medium; text whose medium is outside attends to none."""
    medium = rng.choice([column for column, token in enumerate(row.ids) if token == media_token] or [0])
    start = rng.randint(max(0, medium - tokens + 1), min(medium, len(row.ids) - tokens))
    chosen = slice(start, start + tokens)
    first = row.ids[:start].count(media_token)
    return _cut(row, chosen, first, first + row.ids[chosen].count(media_token))


def _with_media(row: _Row, most: int, media_token: int, rng: random.Random) -> _Row:
    """A random part of a row that has at most ``most`` successive media."""
    columns = [column for column, token in enumerate(row.ids) if token == media_token]
    if len(columns) <= most:
        return row
    first = rng.randrange(len(columns) - most + 1)
    ends = [0, *columns[1:], len(row.ids)]
    return _cut(row, slice(ends[first], ends[first + most]), first, first + most)


def _cut(row: _Row, chosen: slice, first: int, last: int) -> _Row:
    """A slice of the tokens, with the media from ``first`` to ``last``; text before these media is not learned."""
    times = [time - first if first < time <= last else 0 for time in row.media_time[chosen]]
    after_medium, targets = False, []
    for time, target in zip(times, row.targets[chosen], strict=True):
        after_medium = after_medium or time > 0
        targets.append(target if after_medium else IGNORED)
    return _Row(row.ids[chosen], times, targets, row.media[first:last])


def _packed(rows: Sequence[_Row], size: int) -> list[_Row]:
    """Pack documents into rows: the longest first, each into the first row that has room for it."""
    made: list[_Row] = []
    for row in sorted(rows, key=lambda row: -len(row.ids)):
        into = next((other for other in made if len(other.ids) + len(row.ids) <= size), None)
        if into is None:
            into = _Row()
            made.append(into)
        known = len(into.media)
        number = into.segments[-1] + 1 if into.segments else 0
        into.ids += row.ids
        into.media_time += [time + known if time else 0 for time in row.media_time]
        into.targets += row.targets
        into.media += row.media
        into.segments += [number] * len(row.ids)
        into.media_before += [known] * len(row.ids)
    return made
