"""Holding some examples out of training, by what they show; and drawing a few of many."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from vislang.data.index import IndexedFile, media_hashes
from vislang.data.indexed import Indexed
from vislang.errors import UserError
from vislang.example import Example

Item = TypeVar("Item")

MOST_HELD = 10_000
"""About this many records of indexed files are held out at most; more would hardly make a score more precise."""


def hold_out(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Split examples into those to learn from and those held out; examples that share a medium stay together.

    The media with the lowest hashes of their content are held out, so that the split stays the same when records are
    reordered or the files lie elsewhere, and nearly the same when records are added. Of examples with several media,
    the highest hash of all that are connected counts.

    Args:
        examples: all of them.
        share: of the media to hold out, 0 to below 1; above 0 at least one is, if there are two.

    Raises:
        UserError: ``share`` is out of range.
    """
    if not 0 <= share < 1:
        raise UserError(f"hold_out is {share}; it must be at least 0 and below 1.")
    keys = keys_of(examples)
    ordered = sorted(set(keys))
    count = min(len(ordered) - 1, max(1, round(share * len(ordered)))) if share and ordered else 0
    held = set(ordered[:count])
    return (
        [example for example, key in zip(examples, keys, strict=True) if key not in held],
        [example for example, key in zip(examples, keys, strict=True) if key in held],
    )


def hold_out_indexed(examples: Indexed, share: float, most: int = MOST_HELD) -> tuple[Indexed, list[Example]]:
    """Split indexed examples; see :func:`hold_out`. The held-out examples are read into memory.

    A record in a file is held out if all its media have low hashes. The hashes are those of the names of the media,
    since their content has not been read. A record that shares a medium with a training record is a training record.
    Lists among the parts are split by content, each on its own.

    Args:
        examples: a complete sequence.
        share: the share of the media to hold out, at least 0 and below 1.
        most: about how many records of files are held out at most. If there are more, because a medium has many
            records, this many are returned, and the others are in neither split.

    Raises:
        UserError: ``share`` is out of range.
    """
    if not 0 <= share < 1:
        raise UserError(f"hold_out is {share}; it must be at least 0 and below 1.")
    if not share:
        return examples, []
    from_lists: list[int] = []
    for start, part in zip(examples.starts, examples.parts, strict=False):
        if not isinstance(part, IndexedFile):
            held = {id(example) for example in hold_out(part, share)[1]}
            from_lists += [start + number for number, example in enumerate(part) if id(example) in held]
    from_files = _held_of_files(examples, share, most)
    # All records of an image with a million questions are held out together.
    read = from_files[:: math.ceil(len(from_files) / most)] if len(from_files) > 2 * most else from_files
    numbers = np.array(sorted([*from_lists, *from_files]), dtype=np.int64)
    return examples.without(numbers), [examples.numbered(number) for number in sorted([*from_lists, *read])]


def _held_of_files(examples: Indexed, share: float, most: int) -> list[int]:
    """The numbers of the held-out records in files."""
    parts = zip(examples.starts, examples.parts, strict=False)
    indexed = [(start, part) for start, part in parts if isinstance(part, IndexedFile)]
    records = sum(len(part) for _, part in indexed)
    limit = round(min(share, most / max(1, records)) * 2**32)
    lowest = min((int(entries["highest"].min()) for _, part in indexed for _, entries in part.chunks()), default=2**32)
    # At least one medium is held out, unless it has all records.
    limit = max(limit, lowest + 1)
    held: list[int] = []
    mixed: list[int] = []
    for start, part in indexed:
        for first, entries in part.chunks():
            below = entries["highest"] < limit
            held += (start + first + below.nonzero()[0]).tolist()
            mixed += (start + first + ((entries["lowest"] < limit) & ~below).nonzero()[0]).tolist()
    if len(held) == records:
        return []
    if not mixed:
        return held
    # A mixed record is a training record, and so is any record that shares a medium with one.
    media = {number: set(media_hashes(examples.numbered(number))) for number in held}
    candidates = set().union(*media.values())
    trained: set[int] = set()
    for number in mixed:
        trained |= candidates.intersection(media_hashes(examples.numbered(number)))
    while moved := [number for number in media if media[number] & trained]:
        trained |= {media_hash for number in moved for media_hash in media.pop(number)}
    return list(media)


def keys_of(examples: Sequence[Example]) -> list[str]:
    """The key that decides the side of each example: the highest hash among those of its media, of the media of the
    examples that share one with it, and so on. So many pages with one image in common stay where most would be."""
    shown = [_hashes(example) for example in examples]
    parent: dict[str, str] = {}

    def root(key: str) -> str:
        while (higher := parent.setdefault(key, key)) != key:
            parent[key] = parent[higher]
            key = higher
        return key

    for hashes in shown:
        highest = max(root(key) for key in hashes)
        for key in hashes:
            lower = root(key)
            highest, lower = max(highest, lower), min(highest, lower)
            parent[lower] = highest
    return [root(hashes[0]) for hashes in shown]


def _hashes(example: Example) -> list[str]:
    """The hash of the group where there is one; else those of the media, the first choice's among them; or, without
    any media, the hash of the text."""
    if not example.group and (media := example.documents()[0].media):
        return [medium.content_hash for medium in media]
    text = example.group or "".join(part for part in example.prompt.parts if isinstance(part, str))
    return [hashlib.sha256(text.encode()).hexdigest()]


def draw(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    """At most so many of the items (0: all), drawn by seed."""
    if not limit or limit >= len(items):
        return list(items)
    return random.Random(seed).sample(items, limit)
