"""Prose in text files: passages to learn from without labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from vislang.data.problems import DataError, must_be_file
from vislang.document import Document
from vislang.example import Example

PROSE = (".txt", ".md")
"""Endings of text files."""

PASSAGE = 1000
"""Characters of a passage, about; a model reads a part of it at a time."""


def read_prose(path: Path) -> Iterator[Example]:
    """The passages of a text file, whose paragraphs are separated by blank lines.

    Raises:
        DataError: it is no text in UTF-8.
    """
    must_be_file(path, "a text file")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as UTF-8 text ({error}). Save it as UTF-8.") from None
    yield from passages((" ".join(paragraph.split()) for paragraph in text.split("\n\n")), str(path))


def passages(paragraphs: Iterable[str], name: str, characters: int = PASSAGE) -> Iterator[Example]:
    """Join neighbouring paragraphs until each passage has about so many characters."""
    gathered: list[str] = []
    number = 0
    for paragraph in paragraphs:
        if paragraph:
            gathered.append(paragraph)
        if sum(map(len, gathered)) >= characters:
            number += 1
            yield _passage(gathered, name, number)
            gathered = []
    if gathered:
        yield _passage(gathered, name, number + 1)


def _passage(paragraphs: list[str], name: str, number: int) -> Example:
    id_ = f"{name}, passage {number}"
    return Example(id_, Document(["\n".join(paragraphs)], name=id_))
