"""Pictures and what is said of them: documents of one image and one text."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vislang.capabilities import Progress
from vislang.data.fetch import EMOJI, OPENCLIPART, STAMPS, DataSet
from vislang.data.jsonl import DataError, Problem, read_jsonl
from vislang.data.sets import emoji, openclipart, stamps
from vislang.document import Document, Image
from vislang.tasks.emoji_groups import NEW_GROUPS


@dataclass(frozen=True)
class Source:
    """Pairs of a data set: where they come from, and how they are read."""

    data_set: DataSet
    read: Callable[[], list[Document]]


def captioned(source: str, problems: list[Problem], progress: Progress | None = None) -> list[Document]:
    """The pairs of a data set, or of a JSON Lines file with records ``{"image": ..., "text": ...}``.

    Args:
        source: its name or path.
        problems: bad records are added to it, and left out.
        progress: called with (done, of how many).

    Raises:
        DataError: there is no such thing, or a record is not a pair.
    """
    if source in PAIRS:
        return PAIRS[source].read()
    path = Path(source)
    if not path.is_file():
        raise DataError(f"{source}: no data set of pairs, and no file. The data sets are: {', '.join(PAIRS)}.")
    records = read_jsonl(path, progress=progress)
    problems += records.problems
    documents = []
    for example in records.examples:
        if example.image is None or example.question is not None:
            raise DataError(f'{example.name}: not a pair. Each line is {{"image": path, "text": what is said of it}}.')
        documents.append(Document([example.image, example.target], name=example.name))
    return documents


def pair(image: Image, text: str) -> Document:
    """One image and one text."""
    return Document([image, text], name=image.name)


def _emoji(vendor: str, without: tuple[str, ...] = ()) -> list[Document]:
    """The names of a vendor's drawings, but for some groups."""
    drawings = (d for d in emoji.drawings() if d.vendor == vendor and not d.variant and d.group not in without)
    return [pair(drawing.image, drawing.name) for drawing in drawings]


def _clip_art() -> Iterator[Document]:
    """A title, and the keywords as a second caption; titles that name more than a few drawings name a collection."""
    drawings = openclipart.clip_art()
    frequency: dict[str, int] = {}
    for drawing in drawings:
        frequency[drawing.title] = frequency.get(drawing.title, 0) + 1
    for drawing in drawings:
        if drawing.title and frequency[drawing.title] <= 5:
            yield pair(drawing.image, drawing.title.lower())
        if drawing.keywords:
            yield pair(drawing.image, " ".join(drawing.keywords))


def _half(documents: list[Document], which: int) -> list[Document]:
    """Every other one, by the hash of what is said, so that the same words are on one side."""
    digests = [hashlib.sha256(str(document.parts[1]).lower().encode()).digest() for document in documents]
    return [d for d, digest in zip(documents, digests, strict=True) if digest[0] % 2 == which]


def _stamps() -> list[Document]:
    return [pair(s.image, s.captions["en"]) for s in stamps.stamps() if s.image is not None and "en" in s.captions]


PAIRS: dict[str, Source] = {
    "emoji-google-names": Source(EMOJI, lambda: _emoji("google")),
    "emoji-google-names-known": Source(EMOJI, lambda: _emoji("google", without=NEW_GROUPS)),
    "emoji-twitter-names": Source(EMOJI, lambda: _emoji("twitter")),
    "clip-art-titles": Source(OPENCLIPART, lambda: list(_clip_art())),
    "stamp-pictures": Source(STAMPS, _stamps),
    "stamp-pictures-train": Source(STAMPS, lambda: _half(_stamps(), 0)),
    "stamp-pictures-test": Source(STAMPS, lambda: _half(_stamps(), 1)),
}
"""Pairs by name."""
