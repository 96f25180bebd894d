"""English prose and definitions, as paragraphs."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import groupby

from vislang.data.fetch import ENGLISH
from vislang.data.prose import passages
from vislang.example import Example

SHORTEST = 20
"""Characters of the shortest paragraph that is kept."""


def paragraphs() -> Iterator[tuple[str, str]]:
    """(source, paragraph), each paragraph once, in a fixed order.

    Raises:
        DataError: the set was not fetched.
    """
    seen: set[str] = set()
    for source, read in (("essays", _essays), ("wordnet", _glosses), ("gcide", _gcide), ("foldoc", _foldoc)):
        for paragraph in read():
            paragraph = " ".join(paragraph.split())
            if len(paragraph) >= SHORTEST and paragraph not in seen:
                seen.add(paragraph)
                yield source, paragraph


def prose() -> list[Example]:
    """Passages of neighbouring paragraphs of one source."""
    found: list[Example] = []
    for source, group in groupby(paragraphs(), key=lambda pair: pair[0]):
        found += passages((paragraph for _, paragraph in group), f"english/{source}")
    return found


class _Paragraphs(HTMLParser):
    """Collects the text of paragraphs, quotations and list items; links to other pages among it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._depth = 0
        self._text: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag in ("p", "li", "blockquote", "h1", "h2", "h3", "hr"):
            self._close()
        self._depth += tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("p", "li", "blockquote", "h1", "h2", "h3"):
            self._close()
        self._depth -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._depth:
            self._text.append(data)

    def _close(self) -> None:
        self.found.append("".join(self._text))
        self._text = []


def _essays() -> Iterator[str]:
    for page in sorted(ENGLISH.path("anarchism", "usr", "share", "doc", "anarchism", "html").glob("*.html")):
        reader = _Paragraphs()
        reader.feed(page.read_text(encoding="utf-8", errors="replace"))
        yield from reader.found


def _glosses() -> Iterator[str]:
    """WordNet's synsets as sentences: the words, then what they mean."""
    for part in ("noun", "verb", "adj", "adv"):
        file = ENGLISH.path("wordnet-base", "usr", "share", "wordnet", f"data.{part}")
        for line in file.read_text(encoding="utf-8").splitlines():
            fields, bar, gloss = line.partition(" | ")
            if not bar or line.startswith("  "):
                continue
            tokens = fields.split()
            words = [tokens[4 + 2 * number].replace("_", " ") for number in range(int(tokens[3], 16))]
            yield f"{', '.join(words)}: {gloss}"


def _gcide() -> Iterator[str]:
    for entry in _dictionary("dict-gcide", "gcide"):
        # Headwords carry their pronunciation, entries the name of the dictionary that they were taken from.
        text = re.sub(r"\[[^\]]*\]|\\[^\\]*\\", " ", entry)
        yield re.sub(r"[{}]", "", text)


def _foldoc() -> Iterator[str]:
    for entry in _dictionary("dict-foldoc", "foldoc"):
        yield re.sub(r"[{}]|\(\d{4}-\d\d-\d\d\)", "", entry)


def _dictionary(package: str, name: str) -> Iterator[str]:
    """The entries of a dictionary in dictd's format: text without indentation starts one."""
    data = gzip.decompress(ENGLISH.path(package, "usr", "share", "dictd", f"{name}.dict.dz").read_bytes())
    entry: list[str] = []
    for line in data.decode("utf-8", errors="replace").splitlines():
        if line and not line[0].isspace() and entry:
            yield "\n".join(entry)
            entry = []
        entry.append(line)
    yield "\n".join(entry)
