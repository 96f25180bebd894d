"""Holding some examples out of training, by what they show; and drawing a few of many."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import TypeVar

from vislang.errors import UserError
from vislang.example import Example

Item = TypeVar("Item")


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
