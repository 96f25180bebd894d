"""Documents to batches for Flamingo: tokens, which medium each token sees, and the media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from vislang.document import Absent, Document, Image, MediaError, Medium
from vislang.errors import UserError
from vislang.models.backbones import VisionTower
from vislang.models.feature_cache import FeatureCache

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
        media_time: (batch, tokens), how many media stand before or at each token.
        targets: (batch, tokens), the token that is to be predicted after each, ``IGNORED`` where none is.
        media_index: (batch, most media in a row), which medium; -1 where a row has fewer media, or where a
            medium was taken away: tokens that would look there see nothing.
        prefix: number of columns that no medium reaches.
        features: (media, positions, width) of the vision tower, each distinct medium once; or None, and then
        pixels: (media, channels, height, width), from which the tower has yet to compute them.
        names: of the documents, for messages.
    """

    input_ids: Int[Tensor, "batch tokens"]
    attention_mask: Int[Tensor, "batch tokens"]
    media_time: Int[Tensor, "batch tokens"]
    targets: Int[Tensor, "batch tokens"]
    media_index: Int[Tensor, "batch row_media"]
    prefix: int
    features: Float[Tensor, "media positions width"] | None = None
    pixels: Float[Tensor, "media channels height width"] | None = None
    names: list[str] = field(default_factory=list)


@dataclass
class _Row:
    ids: list[int]
    media_time: list[int]
    targets: list[int]
    media: list[Medium | Absent]
    prefix: int


class Collator:
    """Turns Documents into a :class:`Batch`. Picklable, so that workers can run it.

    Args:
        tokenizer: the language model's.
        vision: the vision tower, for its preprocessing.
        cache: features that are known already, or None.
        media_token: id of the media token.
        context_length: the most tokens the language model has positions for, or None.
        read_prefix_apart: whether text before the first medium is untouched by media (see ``gate_all_text``).
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        vision: VisionTower,
        cache: FeatureCache | None,
        media_token: int,
        context_length: int | None,
        read_prefix_apart: bool,
    ):
        self.tokenizer = tokenizer
        self.vision = vision
        self.cache = cache
        self.media_token = media_token
        self.context_length = context_length
        self.read_prefix_apart = read_prefix_apart
        if tokenizer.eos_token_id is None:
            raise UserError("the language model's tokenizer has no end-of-text token, which answers end with.")
        started = tokenizer("a")["input_ids"]
        self._start = [tokenizer.bos_token_id] if started[0] == tokenizer.bos_token_id else []

    def __call__(self, documents: Sequence[Document], seed: int = 0) -> Batch:
        """Collate; nothing is left to chance, so the seed changes nothing.

        Raises:
            MediaError: a medium cannot be used, or is of a kind that Flamingo does not read.
            UserError: a document is empty, or too long for the language model.
        """
        rows = [self._row(document) for document in documents]
        prefix = max(row.prefix for row in rows)
        suffix = max(len(row.ids) - row.prefix for row in rows)
        size = (len(rows), prefix + suffix)
        input_ids = torch.zeros(size, dtype=torch.long)
        attention_mask = torch.zeros(size, dtype=torch.long)
        media_time = torch.zeros(size, dtype=torch.long)
        targets = torch.full(size, IGNORED)
        row_media = max(1, *(len(row.media) for row in rows))
        media_index = torch.full((len(rows), row_media), -1)
        distinct: dict[str, int] = {}
        images: list[Image] = []
        for number, row in enumerate(rows):
            columns = slice(prefix - row.prefix, prefix - row.prefix + len(row.ids))
            input_ids[number, columns] = torch.tensor(row.ids)
            attention_mask[number, columns] = 1
            media_time[number, columns] = torch.tensor(row.media_time)
            targets[number, columns] = torch.tensor(row.targets)
            for place, medium in enumerate(row.media):
                if isinstance(medium, Image):
                    if medium.content_hash not in distinct:
                        distinct[medium.content_hash] = len(images)
                        images.append(medium)
                    media_index[number, place] = distinct[medium.content_hash]
        batch = Batch(
            input_ids,
            attention_mask,
            media_time,
            targets,
            media_index,
            prefix,
            names=[document.name for document in documents],
        )
        self._add_media(batch, images)
        return batch

    def _add_media(self, batch: Batch, images: list[Image]) -> None:
        if not images:
            batch.features = torch.zeros(1, 1, self.vision.width)
            return
        if self.cache is not None:
            known = [self.cache.get(image.content_hash) for image in images]
            if all(features is not None for features in known):
                batch.features = torch.stack([features for features in known if features is not None])
                return
        batch.pixels = torch.stack([self.vision.preprocess(image.decode()) for image in images])

    def _row(self, document: Document) -> _Row:
        ids = list(self._start)
        media_time = [0] * len(ids)
        media: list[Medium | Absent] = []
        first_medium: int | None = None
        for part in _joined(document.parts):
            if isinstance(part, str):
                tokens = self.tokenizer(part, add_special_tokens=False)["input_ids"]
            elif isinstance(part, Image | Absent):
                media.append(part)
                first_medium = len(ids) if first_medium is None else first_medium
                tokens = [self.media_token]
            else:
                raise MediaError(
                    f"{document.name or part.name}: a {type(part).__name__.lower()}, and this model reads text and "
                    "images. Give an image instead (for a video, one of its frames)."
                )
            ids += tokens
            media_time += [len(media)] * len(tokens)
        if not ids:
            raise UserError(f"{document.name or 'a document'}: empty. Give it text or an image.")
        targets = [IGNORED] * len(ids)
        asked = len(ids) - 1
        if document.target is not None:
            answer = self._target_tokens(document)
            targets[-1:] = answer
            ids += answer[:-1]
            media_time += [len(media)] * (len(answer) - 1)
        if self.context_length is not None and len(ids) > self.context_length:
            raise UserError(
                f"{document.name or 'a document'}: {len(ids)} tokens, and the language model has positions for "
                f"{self.context_length}. Shorten it."
            )
        prefix = min(asked, first_medium if first_medium is not None else asked)
        return _Row(ids, media_time, targets, media, prefix if self.read_prefix_apart else 0)

    def _target_tokens(self, document: Document) -> list[int]:
        """The tokens to be predicted: the target, set off by a space from what it follows, and the end."""
        assert document.target is not None
        last = document.parts[-1]
        spaced = isinstance(last, str) and last[-1:].isspace()
        text = document.target.strip()
        tokens = self.tokenizer(text if spaced else f" {text}", add_special_tokens=False)["input_ids"]
        return [*tokens, self.tokenizer.eos_token_id]


def _joined(parts: Sequence) -> list:
    """Neighbouring strings as one, so that tokens may span them."""
    joined: list = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return joined
