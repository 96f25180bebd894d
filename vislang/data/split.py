"""Keeping some examples from training, by what they show."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vislang.data.example import Example
from vislang.document import Medium
from vislang.errors import UserError


def hold_out(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Split examples into those to learn from and those held out; examples that share a medium stay together.

    The media with the lowest hashes of their content are held out, so that the split stays the same when
    records are reordered or the files lie elsewhere, and nearly the same when records are added.

    Args:
        examples: all of them.
        share: of the media to hold out, 0 to below 1; above 0 at least one is, if there are two.

    Raises:
        UserError: ``share`` is out of range.
    """
    if not 0 <= share < 1:
        raise UserError(f"hold_out is {share}; it must be at least 0 and below 1.")
    keys = [_key(example) for example in examples]
    ordered = sorted(set(keys))
    count = min(len(ordered) - 1, max(1, round(share * len(ordered)))) if share and ordered else 0
    held = set(ordered[:count])
    return (
        [example for example, key in zip(examples, keys, strict=True) if key not in held],
        [example for example, key in zip(examples, keys, strict=True) if key in held],
    )


def _key(example: Example) -> str:
    """What decides the side of an example: the hash of its first medium, or without one, of its target."""
    media = [example.image] if example.parts is None else [p for p in example.parts if isinstance(p, Medium)]
    if media and media[0] is not None:
        return media[0].content_hash
    return hashlib.sha256(example.target.encode()).hexdigest()
