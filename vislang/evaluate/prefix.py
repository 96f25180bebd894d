"""What prompts share is read once: the shots that many prompts begin with, and prompts that are equal."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

from vislang.capabilities import Prefix
from vislang.document import Document

NOTHING = Prefix(Document([]), None)
"""No examples."""


def read(model: Any, document: Document) -> Prefix:
    """Examples, as a model reads them before each of several prompts."""
    return Prefix(document, model.prefill(document))


def distinct(keys: Sequence[Hashable]) -> tuple[list[int], list[int]]:
    """The first index of each distinct key, and for each key its position among the distinct ones.

    >>> distinct(["a", "b", "a"])
    ([0, 1], [0, 1, 0])
    """
    position: dict[Hashable, int] = {}
    first: list[int] = []
    for index, key in enumerate(keys):
        if key not in position:
            position[key] = len(first)
            first.append(index)
    return first, [position[key] for key in keys]
