"""Open Clip Art: drawings in folders by subject, with titles and keywords."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from html import unescape
from pathlib import Path

from vislang.data.fetch import OPENCLIPART
from vislang.document import MAX_PIXELS, Document, Image
from vislang.example import Example, Text

NO_KEYWORDS = {"", "hash", "unsorted", "unchecked", "clip art", "clipart"}
"""Keywords that do not describe a picture."""


@dataclass(frozen=True)
class ClipArt:
    """One drawing.

    Attributes:
        name: its path without an ending, such as ``animals/mammals/fox``.
        image: of any size.
        category: the first folder of its path, such as ``animals``; ``unsorted`` is one of them.
        title, keywords: as its author gave them; either may be empty.
    """

    name: str
    image: Image
    category: str
    title: str
    keywords: tuple[str, ...]


def clip_art() -> list[ClipArt]:
    """All drawings within the pixel limit, in the order of their paths.

    Raises:
        DataError: the set was not fetched.
    """
    pictures = OPENCLIPART.path("openclipart-png", "usr", "share", "openclipart", "png")
    sources = OPENCLIPART.path("openclipart-svg", "usr", "share", "openclipart", "svg")
    found = []
    for path in sorted(pictures.rglob("*.png")):
        inside = path.relative_to(pictures)
        if pixels(path) > MAX_PIXELS:
            continue
        title, keywords = _described((sources / inside).with_suffix(".svg"))
        found.append(ClipArt(inside.with_suffix("").as_posix(), Image(path), inside.parts[0], title, keywords))
    return found


def pictures() -> list[Example]:
    """The drawings without a target."""
    return [Example(drawing.name, Document([drawing.image], name=drawing.image.name)) for drawing in clip_art()]


def captioned() -> list[Example]:
    """Each drawing with its title, and again with its keywords; a title that more than five drawings have is that of a
    collection, and left out."""
    drawings = clip_art()
    frequency = Counter(drawing.title for drawing in drawings)
    found = []
    for drawing in drawings:
        prompt = Document([drawing.image], name=drawing.image.name)
        if drawing.title and frequency[drawing.title] <= 5:
            found.append(Example(f"{drawing.name}, title", prompt, Text((drawing.title.lower(),))))
        if drawing.keywords:
            found.append(Example(f"{drawing.name}, keywords", prompt, Text((" ".join(drawing.keywords),))))
    return found


def pixels(path: Path) -> int:
    """Width times height, from the header of a PNG."""
    with path.open("rb") as file:
        header = file.read(24)
    return int.from_bytes(header[16:20]) * int.from_bytes(header[20:24])


def _described(source: Path) -> tuple[str, tuple[str, ...]]:
    """Title and keywords of a drawing's metadata; nothing where there is none."""
    try:
        text = source.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "", ()
    metadata = text[text.find("<metadata") : text.find("</metadata>")]
    titles = re.findall(r"<dc:title>([^<]*)</dc:title>", metadata)
    subject = re.search(r"<dc:subject>(.*?)</dc:subject>", metadata, re.DOTALL)
    listed = re.findall(r"<rdf:li>([^<]*)</rdf:li>", subject[1]) if subject else []
    keywords = dict.fromkeys(" ".join(unescape(word).lower().split()) for word in listed)
    title = " ".join(unescape(titles[0]).split()) if titles else ""
    return title, tuple(word for word in keywords if word not in NO_KEYWORDS)
