"""Prompts that begin with the same examples: the examples are read once, and their decode state is kept.

States are kept in memory (:class:`Prefixes`), or with their examples in a file (:mod:`vislang.models.flamingo.pack`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from vislang.capabilities import Prefix
from vislang.document import Document, EndOfChunk, Learned, Medium, Part
from vislang.models.flamingo.prefill import DecodeState

Key = tuple[tuple[str, str], ...]


def key_of(parts: Sequence[Part]) -> Key:
    """What the decode state after some parts depends on: their text, and the content of their media.

    The content is its SHA-256, not its name or its number: two images at the same place in the same text differ.
    """
    return tuple(map(_key_of, parts))


def _key_of(part: Part) -> tuple[str, str]:
    if isinstance(part, Medium):
        return type(part).__name__, part.content_hash
    return type(part).__name__, part.text if isinstance(part, Learned) else part if isinstance(part, str) else ""


def split(document: Document) -> tuple[Document | None, Document]:
    """The examples of a prompt, up to the last EndOfChunk, and the rest of it. None without examples, or where nothing
    follows them."""
    ends = [place for place, part in enumerate(document.parts) if isinstance(part, EndOfChunk)]
    if not ends or ends[-1] + 1 == len(document.parts):
        return None, document
    first, rest = document.parts[: ends[-1] + 1], document.parts[ends[-1] + 1 :]
    return replace(document, parts=first, target=None), replace(document, parts=rest)


class Prefixes:
    """The states after the examples that were used last. Of the examples themselves it keeps texts and hashes alone.

    Args:
        budget: greatest number of bytes to keep; 0 keeps nothing.

    Attributes:
        nbytes: bytes that are kept, without those of pinned prefixes.
        hits, misses: prompts with examples whose examples were known, and others.
    """

    def __init__(self, budget: int):
        self.budget = budget
        self.nbytes = self.hits = self.misses = 0
        self._recent: OrderedDict[Key, DecodeState] = OrderedDict()
        self._pinned: dict[Key, DecodeState] = {}

    def __len__(self) -> int:
        return len(self._recent) + len(self._pinned)

    def pin(self, prefix: Prefix) -> None:
        """Keep a prefix for ever, beside the budget."""
        self._pinned[key_of(prefix.document.parts)] = prefix.state

    def put(self, examples: Document, state: DecodeState) -> None:
        """Keep the state after examples; those that were not used for longest make room for it. One that is larger than
        the budget is not kept."""
        key = key_of(examples.parts)
        if key in self._recent or key in self._pinned or _size(key, state) > self.budget:
            return
        self._recent[key] = state
        self.nbytes += _size(key, state)
        while self.nbytes > self.budget:
            self.nbytes -= _size(*self._recent.popitem(last=False))

    def longest(self, document: Document) -> tuple[int, DecodeState] | None:
        """How many parts of a document are known at most, up to an EndOfChunk, and the state after them. It is thereby
        used."""
        whole = key_of(document.parts)
        for count in _ends(document):
            key = whole[:count]
            if key in self._pinned:
                return count, self._pinned[key]
            if key in self._recent:
                self._recent.move_to_end(key)
                return count, self._recent[key]
        return None


def _size(key: Key, state: DecodeState) -> int:
    """Bytes of a state and its key; Python takes at most four for a character."""
    return state.nbytes + sum(4 * len(text) for _, text in key)


def _ends(document: Document) -> Iterator[int]:
    """The numbers of parts after which an example ends, the greatest first."""
    parts = document.parts
    return (place for place in range(len(parts), 0, -1) if isinstance(parts[place - 1], EndOfChunk))
