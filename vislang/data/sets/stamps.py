"""Tux Paint's stamps: a picture, its caption in many languages, and recordings of some of those."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from vislang.data.fetch import STAMPS
from vislang.document import Audio, Document, Image
from vislang.example import Example, Text

ENGLISH = "en"


@dataclass(frozen=True)
class Stamp:
    """One stamp.

    Attributes:
        name: its path without an ending, such as ``animals/marsupials/koala``; split by this.
        category: the first folder of that.
        image: the picture; None for those that are drawn as SVG only.
        captions: by language code; English is ``en``.
        spoken: recordings of captions, by language code.
    """

    name: str
    category: str
    image: Image | None
    captions: dict[str, str]
    spoken: dict[str, Audio]


def stamps() -> list[Stamp]:
    """All stamps with a caption, in the order of their names.

    Sound effects, which lie beside the recordings of captions, are left out.

    Raises:
        DataError: the set was not fetched.
    """
    root = STAMPS.path("tuxpaint-stamps-default", "usr", "share", "tuxpaint", "stamps")
    recorded: dict[Path, dict[str, Audio]] = {}
    for path in sorted(root.rglob("*_desc*.ogg")):
        stem, _, language = path.stem.partition("_desc")
        recorded.setdefault(path.with_name(stem), {})[language.strip("_") or ENGLISH] = Audio(path)
    found = []
    for path in sorted(root.rglob("*.txt")):
        base = path.with_suffix("")
        captions = _captions(path)
        if not captions:
            continue
        picture = base.with_suffix(".png")
        name = base.relative_to(root)
        found.append(
            Stamp(
                name.as_posix(),
                name.parts[0],
                Image(picture) if picture.is_file() else None,
                captions,
                {language: sound for language, sound in recorded.get(base, {}).items() if language.isalpha()},
            )
        )
    return found


def pictures() -> list[Example]:
    """The pictures without a target."""
    return [Example(s.name, Document([s.image], name=s.image.name)) for s in stamps() if s.image is not None]


def recordings() -> list[Example]:
    """The spoken captions of all languages without a target."""
    return [
        Example(f"{stamp.name}, {language}", Document([sound], name=sound.name))
        for stamp in stamps()
        for language, sound in stamp.spoken.items()
    ]


def captioned(half: int | None = None) -> list[Example]:
    """The pictures with their English captions; of a half (0 or 1) those that the hash of the caption puts into it, so
    that the same words are in one half only."""
    found = [
        Example(s.name, Document([s.image], name=s.image.name), Text((s.captions[ENGLISH],)))
        for s in stamps()
        if s.image is not None and ENGLISH in s.captions
    ]
    return found if half is None else [e for e in found if half_of(e.target.references[0]) == half]  # type: ignore[union-attr]


def half_of(caption: str) -> int:
    """The half of a caption, 0 or 1."""
    return hashlib.sha256(caption.lower().encode()).digest()[0] % 2


def _captions(path: Path) -> dict[str, str]:
    """The first line is English; the others are ``language.utf8=caption``."""
    first, *others = path.read_text(encoding="utf-8").splitlines() or [""]
    captions = {ENGLISH: first.strip()} if first.strip() else {}
    for line in others:
        language, found, caption = line.partition(".utf8=")
        if found and caption.strip():
            captions[language.strip()] = caption.strip()
    return captions
