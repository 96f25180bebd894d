"""Documents to batches for Flamingo: tokens, which medium each token goes with, and the media."""

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
from vislang.models.towers.feature_cache import FeatureCache
from vislang.models.towers.vision import VisionTower

IGNORED = -100
"""Target of a position after which nothing is to be predicted."""


@dataclass
class Batch:
    """Texts with media, ready for the bridge.

    Columns before ``prefix`` stand before the first medium of every row and are padded on the left; those
    from ``prefix`` on are padded on the right.

    Attributes:
        input_ids: (batch, tokens), the media token being one beyond the language model's vocabulary.
        attention_mask: (batch, tokens), 1 for real tokens.
        media_time: (batch, tokens), the medium that each token goes with, counted from 1 in its row; 0 for none.
        targets: (batch, tokens), the token that is to be predicted after each, ``IGNORED`` where none is.
        media_index: (batch, most media in a row), which medium; -1 where a row has fewer media, or where a
            medium was taken away: tokens that would look there see nothing.
        prefix: number of columns that no medium reaches.
        features: (media, frames, positions, width) of the vision tower, each distinct medium once; or None, and then
        pixels: (frames of all media, channels, height, width), from which the tower has yet to compute them.
        frames: (media,) number of frames of each; None where each has one.
        segments: (batch, tokens), which document of its row each token is of, where rows hold several that do not see
            each other; else None.
        media_before: (batch, tokens), how many of the row's media belong to documents before, likewise.
        names: of the documents, for messages.
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

    def position_ids(self) -> Int[Tensor, "batch tokens"]:
        """The place of each token in its own text."""
        if self.segments is None:
            return (self.attention_mask.cumsum(dim=-1) - 1).clamp(min=0)
        column = torch.arange(self.segments.shape[1], device=self.segments.device).expand_as(self.segments)
        new = F.pad(self.segments.diff(dim=-1) != 0, (1, 0), value=True)
        return column - torch.where(new, column, 0).cummax(dim=-1).values

    def mask(self, dtype: torch.dtype) -> Int[Tensor, "batch tokens"] | Float[Tensor, "batch 1 tokens tokens"]:
        """What the language model is told of who sees whom."""
        if self.segments is None:
            return self.attention_mask
        same = self.segments[:, :, None] == self.segments[:, None, :]
        seen = same.tril() & (self.attention_mask[:, None, :] == 1)
        # Padding sees itself, since a softmax over nothing is no number.
        seen = seen | torch.eye(seen.shape[-1], dtype=torch.bool, device=seen.device)
        hidden = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
        return hidden.masked_fill(~seen, torch.finfo(dtype).min)[:, None]


class PromptNotice(UserWarning):
    """Something of a prompt was left out."""


@dataclass
class CollateConfig:
    """How documents become rows of tokens.

    Attributes:
        frames_per_second: how often to look at a video.
        max_frames: the most frames of a video.
        page_tokens: tokens of a page that are learned from at a time: a window around a medium, drawn each time.
        page_media: the most media in such a window, which ones is drawn (the paper has 256 and 5).
        pack: documents to learn from are laid side by side, without seeing each other, in rows of about so many
            tokens; 0 for a row each.
        too_long: what to do with a prompt that is over the language model's context: refuse it, or drop its first
            examples, with a notice.
    """

    frames_per_second: float = 1.0
    max_frames: int = 32
    page_tokens: int = 256
    page_media: int = 5
    pack: int = 0
    too_long: Literal["refuse", "drop"] = "refuse"

    def __post_init__(self):
        for name in ("max_frames", "page_tokens", "page_media"):
            if getattr(self, name) < 1:
                raise ValueError(f"collate.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.frames_per_second <= 0 or self.pack < 0:
            raise ValueError("collate.frames_per_second must be above 0, and collate.pack must not be negative.")


@dataclass
class _Row:
    """A document as tokens: what is to be predicted, what each token goes with, and the media."""

    ids: list[int] = field(default_factory=list)
    media_time: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    media: list[Medium | Absent] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    media_before: list[int] = field(default_factory=list)
    prefix: int = 0


class Collator:
    """Turns Documents into a :class:`Batch`. Picklable, so that workers can run it.

    Args:
        tokenizer: the language model's.
        vision: the vision tower, for its preprocessing.
        cache: features that are known already, or None.
        media_token: id of the media token.
        chunk_token: id of the end of chunks; None takes the end of text.
        context_length: the most tokens the language model has positions for, or None.
        read_prefix_apart: whether text before the first medium is untouched by media (see ``gate_all_text``).
        config: see there.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vision: VisionTower,
        cache: FeatureCache | None,
        media_token: int,
        chunk_token: int | None,
        context_length: int | None,
        read_prefix_apart: bool,
        config: CollateConfig,
    ):
        self.tokenizer = tokenizer
        self.vision = vision
        self.cache = cache
        self.media_token = media_token
        self.context_length = context_length
        self.read_prefix_apart = read_prefix_apart
        self.config = config
        if tokenizer.eos_token_id is None:
            raise UserError("the language model's tokenizer has no end-of-text token, which answers end with.")
        self.chunk_token = tokenizer.eos_token_id if chunk_token is None else chunk_token
        started = tokenizer("a")["input_ids"]
        self._start = [tokenizer.bos_token_id] if started[0] == tokenizer.bos_token_id else []

    def __call__(self, documents: Sequence[Document], seed: int = 0, begun: int = 0) -> Batch:
        """Collate.

        Args:
            documents: to learn from, or to continue.
            seed: of which part of a long page is learned from, and of which medium its text goes with.
            begun: tokens that were read before and that the documents go on from; what comes before their first medium
                has media to look at there.

        Raises:
            MediaError: a medium cannot be used, or is of a kind that Flamingo does not read.
            UserError: a document is empty, or too long for the language model.
        """
        rows = [self._row(document, random.Random(f"{seed} {n}"), begun) for n, document in enumerate(documents)]
        packed = self.config.pack > 0 and not begun and all(_learned_from(document) for document in documents)
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
            for place, medium in enumerate(row.media):
                if isinstance(medium, Medium):
                    if medium.content_hash not in distinct:
                        distinct[medium.content_hash] = len(media)
                        media.append(medium)
                    media_index[number, place] = distinct[medium.content_hash]
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
        """By what the features of a medium are known: of a video, also how it was looked at."""
        if isinstance(medium, Video):
            return f"{medium.content_hash}-{self.config.frames_per_second:g}-{self.config.max_frames}"
        return medium.content_hash

    def pixels(self, medium: Medium) -> Float[Tensor, "frames channels height width"]:
        """The frames of a medium as the vision tower wants them; an image is one.

        Raises:
            MediaError: it cannot be used.
        """
        return torch.stack([self.vision.preprocess(frame) for frame in self.frames(medium)])

    def frames(self, medium: Medium) -> list[PIL.Image.Image]:
        """The frames of a medium that are looked at; an image is one.

        Raises:
            MediaError: it cannot be used.
        """
        if isinstance(medium, Image):
            return [medium.decode()]
        assert isinstance(medium, Video)
        return medium.decode(self.config.frames_per_second, self.config.max_frames)

    def answer(self, document: Document, text: str) -> list[int]:
        """The tokens of a text that follows a document, and the end."""
        before = _joined(document.parts)[-1:]
        return [*self._said(text, before[0] if before else None), self.tokenizer.eos_token_id]

    def _add_media(self, batch: Batch, media: list[Medium]) -> None:
        if not media:
            batch.features = torch.zeros(1, 1, 1, self.vision.width)
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

    def _row(self, document: Document, chance: random.Random, begun: int) -> _Row:
        parts = list(document.parts)
        row = self._read(document, parts, chance, begun)
        if _learned_from(document) and document.target is None and len(row.ids) > self.config.page_tokens:
            row = _window(row, self.config.page_tokens, self.media_token, chance)
        if _learned_from(document) and document.target is None:
            row = _with_media(row, self.config.page_media, self.media_token, chance)
        dropped = 0
        while self.context_length is not None and len(row.ids) > self.context_length - begun:
            ends = [place for place, part in enumerate(parts) if isinstance(part, EndOfChunk)]
            if self.config.too_long == "refuse" or not ends or ends[0] + 1 == len(parts):
                raise UserError(
                    f"{document.name or 'a document'}: {begun + len(row.ids)} tokens, and the language model has "
                    f"positions for {self.context_length}. Shorten it, or give fewer examples"
                    + (" (or let the first ones be dropped)." if self.config.too_long == "refuse" else ".")
                )
            parts = parts[ends[0] + 1 :]
            dropped += 1
            row = self._read(document, parts, chance, begun)
        if dropped:
            warnings.warn(
                f"{document.name or 'a document'}: over the language model's {self.context_length} tokens; the first "
                f"{dropped} of its examples were left out.",
                PromptNotice,
                stacklevel=4,
            )
        return row

    def _read(self, document: Document, parts: list, chance: random.Random, begun: int) -> _Row:
        row = _Row(ids=[] if begun else list(self._start))
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
            raise UserError(f"{document.name or 'a document'}: empty. Give it text or an image.")
        asked = len(row.ids) - 1
        if document.target is not None:
            answer = [*self._said(document.target, before), self.tokenizer.eos_token_id]
            row.ids += answer
            times += [len(row.media)] * len(answer)
            learned += [True] * len(answer)
        looks = chance.choice(["before", "after"]) if document.looks == "either" else document.looks
        row.media_time = times if looks == "before" else self._next_times(row.ids, times, len(row.media))
        row.targets = self._targets(row, learned, asked, document.target is not None)
        if learned[-1] and len(row.ids) > 1:
            # The last token is predicted, and predicts nothing itself.
            for values in (row.ids, row.media_time, row.targets):
                values.pop()
        first = next((place for place, time in enumerate(row.media_time) if time), len(row.ids))
        row.prefix = min(asked, first, len(row.ids) - 1) if self.read_prefix_apart and not begun else 0
        return row

    def _tokens(self, document: Document, part: Part, before: Part | None, row: _Row) -> list[int]:
        if isinstance(part, str):
            return self.tokenizer(part, add_special_tokens=False)["input_ids"]
        if isinstance(part, Learned):
            return self._said(part.text, before)
        if isinstance(part, EndOfChunk):
            return [self.chunk_token]
        if isinstance(part, Image | Video | Absent):
            row.media.append(part)
            return [self.media_token]
        raise MediaError(
            f"{document.name or getattr(part, 'name', '')}: a {type(part).__name__.lower()}, and this model reads "
            "text, images and videos. Leave it out, or give an image instead."
        )

    def _said(self, text: str, before: Part | None) -> list[int]:
        """The tokens of what is to be said."""
        return self.tokenizer(set_off(text, before), add_special_tokens=False)["input_ids"]

    def _next_times(self, ids: list[int], times: list[int], count: int) -> list[int]:
        """The medium after each token instead of the one before it; media tokens keep their own."""
        moved = [time if token == self.media_token else time + 1 for token, time in zip(ids, times, strict=True)]
        return [time if time <= count else 0 for time in moved]

    @staticmethod
    def _targets(row: _Row, learned: list[bool], asked: int, has_target: bool) -> list[int]:
        """The next token, where it is to be learned; of the words of a page only where a medium was met, since what
        comes before is the frozen language model's alone."""
        targets, met = [IGNORED] * len(row.ids), False
        for place in range(len(row.ids) - 1):
            met = met or row.media_time[place] > 0
            if learned[place + 1] and (met or (has_target and place >= asked)):
                targets[place] = row.ids[place + 1]
        return targets


def stack_frames(
    features: Sequence[Float[Tensor, "..."]],
) -> tuple[Float[Tensor, "media frames positions width"], Int[Tensor, "..."]]:
    """Media of unequal numbers of frames as one tensor, padded, and these numbers.

    Args:
        features: (frames, positions, width) of each, or of an image (positions, width).
    """
    videos = [each if each.ndim == 3 else each[None] for each in features]
    most = max(len(video) for video in videos)
    padded = torch.stack([F.pad(video, (0, 0, 0, 0, 0, most - len(video))) for video in videos])
    return padded, torch.tensor([len(video) for video in videos], device=padded.device)


def _learned_from(document: Document) -> bool:
    return document.target is not None or any(isinstance(part, Learned) for part in document.parts)


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Neighbouring strings as one, so that tokens may span them."""
    joined: list[Part] = []
    for part in parts:
        before = joined[-1] if joined else None
        if isinstance(part, str) and isinstance(before, str):
            joined[-1] = before + part
        elif part != "":
            joined.append(part)
    return joined


def _window(row: _Row, tokens: int, media_token: int, chance: random.Random) -> _Row:
    """So many tokens of a page around a medium, both drawn; text whose medium lies outside goes with none."""
    medium = chance.choice([place for place, token in enumerate(row.ids) if token == media_token] or [0])
    start = chance.randint(max(0, medium - tokens + 1), min(medium, len(row.ids) - tokens))
    chosen = slice(start, start + tokens)
    first = row.ids[:start].count(media_token)
    return _cut(row, chosen, first, first + row.ids[chosen].count(media_token))


def _with_media(row: _Row, most: int, media_token: int, chance: random.Random) -> _Row:
    """The part of the row with so many media in succession, which ones is drawn, and no more."""
    places = [place for place, token in enumerate(row.ids) if token == media_token]
    if len(places) <= most:
        return row
    first = chance.randrange(len(places) - most + 1)
    ends = [0, *places[1:], len(row.ids)]
    return _cut(row, slice(ends[first], ends[first + most]), first, first + most)


def _cut(row: _Row, chosen: slice, first: int, last: int) -> _Row:
    """Some of the tokens, with the media after ``first`` up to ``last``; what goes with none of them is not learned."""
    times = [time - first if first < time <= last else 0 for time in row.media_time[chosen]]
    met, targets = False, []
    for time, target in zip(times, row.targets[chosen], strict=True):
        met = met or time > 0
        targets.append(target if met else IGNORED)
    return _Row(row.ids[chosen], times, targets, row.media[first:last])


def _packed(rows: Sequence[_Row], size: int) -> list[_Row]:
    """Rows side by side, the longest first, each in the first that has room for it."""
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
