"""Keeping some examples from training, by what they show."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from vislang.data.example import Example
from vislang.document import Medium
from vislang.errors import UserError


def hold_out(examples: Sequence[Example], share: float) -> tuple[list[Example], list[Example]]:
    """Split examples into those to learn from and those held out; examples that share a medium stay together.

    The side of an example depends on the content of its first medium alone (without one, on its target), so
    that it stays the same when records are added or reordered, or the files lie elsewhere.

    Args:
        examples: all of them.
        share: of the media to hold out, 0 to below 1.

    Raises:
        UserError: ``share`` is out of range.
    """
    if not 0 <= share < 1:
        raise UserError(f"hold_out is {share}; it must be at least 0 and below 1.")
    learn: list[Example] = []
    held: list[Example] = []
    sides: dict[str, bool] = {}
    for example in examples:
        key = _key(example)
        if key not in sides:
            sides[key] = int(hashlib.sha256(key.encode()).hexdigest()[:8], 16) < share * 16**8
        (held if sides[key] else learn).append(example)
    return learn, held


def _key(example: Example) -> str:
    media = [example.image] if example.parts is None else [p for p in example.parts if isinstance(p, Medium)]
    return media[0].content_hash if media and media[0] is not None else example.target
