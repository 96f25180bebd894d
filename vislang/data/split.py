"""Keeping some examples from training, by what they show; and drawing a few of many."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

from vislang.case import Case
from vislang.data.example import Example
from vislang.document import Document
from vislang.errors import UserError

Held = TypeVar("Held", bound=Example | Document | Case)
Item = TypeVar("Item")


def hold_out(examples: Sequence[Held], share: float) -> tuple[list[Held], list[Held]]:
    """Split examples into those to learn from and those held out; examples that share a medium stay together.

    The media with the lowest hashes of their content are held out, so that the split stays the same when
    records are reordered or the files lie elsewhere, and nearly the same when records are added. Of examples with
    several media, the highest hash of all that hang together counts.

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


def keys_of(examples: Sequence[Held]) -> list[str]:
    """What decides the side of each example: the highest hash among what it shows, and what those show that share
    something with it, and so on. So many pages with one image in common stay where most of them would be."""
    shown = [_marks(example) for example in examples]
    parent: dict[str, str] = {}

    def root(mark: str) -> str:
        while (above := parent.setdefault(mark, mark)) != mark:
            parent[mark] = parent[above]
            mark = above
        return mark

    for marks in shown:
        highest = max(root(mark) for mark in marks)
        for mark in marks:
            below = root(mark)
            highest, below = max(highest, below), min(highest, below)
            parent[below] = highest
    return [root(marks[0]) for marks in shown]


def _marks(example: Example | Document | Case) -> list[str]:
    """What an example shows: the hashes of its media, or without any, of its text; of a case with a group, the hash of
    that."""
    if isinstance(example, Case):
        if example.group:
            return [hashlib.sha256(example.group.encode()).hexdigest()]
        example = example.options[0]
    document = example if isinstance(example, Document) else example.document()
    if document.media:
        return [medium.content_hash for medium in document.media]
    text = "".join(part for part in document.parts if isinstance(part, str))
    return [hashlib.sha256(text.encode()).hexdigest()]


def draw(items: Sequence[Item], limit: int, seed: int) -> list[Item]:
    """At most so many of the items (0: all), drawn by seed."""
    if not limit or limit >= len(items):
        return list(items)
    return random.Random(seed).sample(items, limit)
