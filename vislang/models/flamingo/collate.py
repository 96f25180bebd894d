"""Examples and Documents to batches for Flamingo: tokens, which medium each token goes with, and the media."""

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
from vislang.models.towers.feature_cache import FeatureCache
from vislang.models.towers.vision import VisionTower
from vislang.prompt import Prompts

IGNORED = -100
"""Target of a position after which nothing is to be predicted."""


@dataclass
class Batch:
    """Texts with media, ready for the bridge.

    Columns before ``prefix`` come before the first medium of every row and are padded on the left; those
    from ``prefix`` on are padded on the right.

    Attributes:
        input_ids: (batch, tokens); a media token may lie beyond the language model's vocabulary.
        attention_mask: (batch, tokens), 1 for real tokens.
        media_time: (batch, tokens), the medium that each token goes with, counted from 1 in its row; 0 for none.
        targets: (batch, tokens), the token that is to be predicted after each, ``IGNORED`` where none is.
        media_index: (batch, most media in a row), which medium; -1 where a row has fewer media, or where a medium was
            taken away. The tokens of such a medium attend to nothing.
        prefix: number of columns that no medium reaches.
        features: (media, frames, positions, width) of the vision tower, each distinct medium once. Where they are not
            known yet, None.
        pixels: (frames of all media, channels, height, width), from which the tower has yet to compute the features.
        frames: (media,) number of frames of each; None where each has one.
        segments: (batch, tokens), the document of its row that each token belongs to, where rows hold several that do
            not attend to each other; else None.
        media_before: (batch, tokens), how many of the row's media belong to documents before, where there are segments.
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
        """The language model's attention mask: of padding, or, where documents share rows, a bias."""
        if self.segments is None:
            return self.attention_mask
        same = self.segments[:, :, None] == self.segments[:, None, :]
        visible = same.tril() & (self.attention_mask[:, None, :] == 1)
        # Padding attends to itself, since a softmax over nothing is NaN.
        visible = visible | torch.eye(visible.shape[-1], dtype=torch.bool, device=visible.device)
        bias = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        return bias.masked_fill(~visible, torch.finfo(dtype).min)[:, None]

    def longest(self) -> int:
        """Tokens of the longest document."""
        return int((self.position_ids() * self.attention_mask).max()) + 1


class PromptNotice(UserWarning):
    """Something of a prompt was left out."""


@dataclass
class CollateConfig:
    """How documents become rows of tokens.

    Attributes:
        frames_per_second: frames that are sampled from each second of a video.
        max_frames: the most frames of a video.
        page_tokens: a page is trained on by a window of so many tokens around a medium, drawn each time.
        page_media: the most media in such a window, drawn as well (the paper has 256 tokens and 5 media).
        pack: training documents share rows of about so many tokens, without attending to each other; 0 for a row each.
        too_long: what happens to a prompt that is longer than the language model's context: ``error`` raises one,
            ``drop`` leaves its first examples out, with a warning.
    """

    frames_per_second: float = 1.0
    max_frames: int = 32
    page_tokens: int = 256
    page_media: int = 5
    pack: int = 0
    too_long: Literal["error", "drop"] = "error"

    def __post_init__(self):
        for name in ("max_frames", "page_tokens", "page_media"):
            if getattr(self, name) < 1:
                raise ValueError(f"collate.{name} is {getattr(self, name)}; it must be at least 1.")
        if self.frames_per_second <= 0 or self.pack < 0:
            raise ValueError("collate.frames_per_second must be above 0, and collate.pack must not be negative.")


@dataclass
class _Row:
    """A document as tokens, with their targets and the media that they go with."""

    ids: list[int] = field(default_factory=list)
    media_time: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    media: list[Medium | Absent] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    media_before: list[int] = field(default_factory=list)
    prefix: int = 0


class Collator:
    """Turns Examples to learn from, or Documents, into a :class:`Batch`. Picklable, so that workers can run it.

    Args:
        prompts: the templates around media and questions.
        tokenizer: the language model's.
        vision: the vision tower, for its preprocessing.
        cache: of features, or None.
        media_token: id of the media token.
        chunk_token: id of the end of chunks; None takes the end of text.
        context_length: the most tokens the language model has positions for, or None.
        prefix_apart: whether media have no effect on the text before the first one (see ``gate_all_text``).
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
            raise UserError("the language model's tokenizer has no end-of-text token, which answers end with.")
        self.chunk_token = tokenizer.eos_token_id if chunk_token is None else chunk_token
        first = tokenizer("a")["input_ids"][0]
        self._start = [tokenizer.bos_token_id] if first == tokenizer.bos_token_id else []

    def __call__(self, examples: Sequence[Example], seed: int = 0) -> Batch:
        """A batch to train on: each example in its template, with its target.

        Args:
            examples: with targets that can be written.
            seed: of the part of a long page that is trained on, and of the medium that its text goes with.

        Raises:
            MediaError: a medium cannot be used, or is of a kind that Flamingo does not read.
            UserError: an example has nothing to learn to write, is empty, or is too long for the language model.
        """
        documents = [self.prompts.render(example, learn=True) for example in examples]
        for example, document in zip(examples, documents, strict=True):
            if not _has_targets(document):
                raise UserError(
                    f"{example.name}: its target is {kind_of(example.target)}, and this model learns to write text. "
                    "Give a text, an answer, a label, a number or a choice among texts."
                )
        return self.documents(documents, seed)

    def documents(self, documents: Sequence[Document], seed: int = 0, prefilled: int = 0) -> Batch:
        """A batch of documents, to learn from or to continue.

        Args:
            documents: what is read.
            seed: see :meth:`__call__`.
            prefilled: tokens of a decode state that the documents continue. The text before their first medium then
                goes with the media of that state.

        Raises:
            MediaError: a medium cannot be used, or is of a kind that Flamingo does not read.
            UserError: a document is empty, or too long for the language model.
        """
        rows = [self._row(document, random.Random(f"{seed} {n}"), prefilled) for n, document in enumerate(documents)]
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
        """The key of a medium's features in the cache; that of a video includes how its frames were sampled."""
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
        """The tokens of a text that follows a document, and the end."""
        before = _joined(document.parts)[-1:]
        return [*self._answer(text, before[0] if before else None), self.tokenizer.eos_token_id]

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
                raise UserError(
                    f"{document.name or 'a document'}: {prefilled + len(row.ids)} tokens, and the language model has "
                    f"positions for {self.context_length}. Shorten it, or give fewer examples"
                    + (" (or let the first ones be dropped)." if self.config.too_long == "error" else ".")
                )
            parts = parts[ends[0] + 1 :]
            dropped += 1
            row = self._whole_row(document, parts, rng, prefilled)
        if dropped:
            warnings.warn(
                f"{document.name or 'a document'}: longer than the language model's {self.context_length} tokens; the "
                f"first {dropped} of its examples were left out.",
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
            raise UserError(f"{document.name or 'a document'}: empty. Give it text or an image.")
        prompt_end = len(row.ids) - 1
        if document.target is not None:
            answer = [*self._answer(document.target, before), self.tokenizer.eos_token_id]
            row.ids += answer
            times += [len(row.media)] * len(answer)
            learned += [True] * len(answer)
        looks = rng.choice(["before", "after"]) if document.looks == "either" else document.looks
        row.media_time = times if looks == "before" else self._next_times(row.ids, times, len(row.media))
        row.targets = _targets(row, learned, prompt_end, document.target is not None)
        if learned[-1] and len(row.ids) > 1:
            # The last token is predicted, and predicts nothing itself.
            for values in (row.ids, row.media_time, row.targets):
                values.pop()
        first = next((column for column, time in enumerate(row.media_time) if time), len(row.ids))
        row.prefix = min(prompt_end, first, len(row.ids) - 1) if self.prefix_apart and not prefilled else 0
        return row

    def _tokens(self, document: Document, part: Part, before: Part | None, row: _Row) -> list[int]:
        if isinstance(part, str):
            return self.tokenizer(part, add_special_tokens=False)["input_ids"]
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
        """The tokens of a text that is to be written after a part."""
        return self.tokenizer(set_off(text, before), add_special_tokens=False)["input_ids"]

    def _next_times(self, ids: list[int], times: list[int], count: int) -> list[int]:
        """The medium after each token instead of the one before it; media tokens keep their own."""
        moved = [time if token == self.media_token else time + 1 for token, time in zip(ids, times, strict=True)]
        return [time if time <= count else 0 for time in moved]


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


def _targets(row: _Row, learned: list[bool], prompt_end: int, has_target: bool) -> list[int]:
    """The next token, where it is to be learned. The words of a page are learned from its first medium on, since the
    frozen language model alone reads what comes before."""
    targets, after_medium = [IGNORED] * len(row.ids), False
    for column in range(len(row.ids) - 1):
        after_medium = after_medium or row.media_time[column] > 0
        if learned[column + 1] and (after_medium or (has_target and column >= prompt_end)):
            targets[column] = row.ids[column + 1]
    return targets


def _has_targets(document: Document) -> bool:
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


def _window(row: _Row, tokens: int, media_token: int, rng: random.Random) -> _Row:
    """So many tokens of a page around a medium, both drawn; text whose medium lies outside goes with none."""
    medium = rng.choice([column for column, token in enumerate(row.ids) if token == media_token] or [0])
    start = rng.randint(max(0, medium - tokens + 1), min(medium, len(row.ids) - tokens))
    chosen = slice(start, start + tokens)
    first = row.ids[:start].count(media_token)
    return _cut(row, chosen, first, first + row.ids[chosen].count(media_token))


def _with_media(row: _Row, most: int, media_token: int, rng: random.Random) -> _Row:
    """The part of a row with at most so many successive media; which ones is drawn."""
    columns = [column for column, token in enumerate(row.ids) if token == media_token]
    if len(columns) <= most:
        return row
    first = rng.randrange(len(columns) - most + 1)
    ends = [0, *columns[1:], len(row.ids)]
    return _cut(row, slice(ends[first], ends[first + most]), first, first + most)


def _cut(row: _Row, chosen: slice, first: int, last: int) -> _Row:
    """Some of the tokens, with the media after ``first`` up to ``last``; what comes before these is not learned."""
    times = [time - first if first < time <= last else 0 for time in row.media_time[chosen]]
    after_medium, targets = False, []
    for time, target in zip(times, row.targets[chosen], strict=True):
        after_medium = after_medium or time > 0
        targets.append(target if after_medium else IGNORED)
    return _Row(row.ids[chosen], times, targets, row.media[first:last])


def _packed(rows: Sequence[_Row], size: int) -> list[_Row]:
    """Several documents in one row: the longest first, each in the first row that has room for it."""
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
