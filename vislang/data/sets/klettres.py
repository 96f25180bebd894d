"""KLettres: letters and syllables, each language read by a voice of its own."""

from __future__ import annotations

import re
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Literal

from vislang.data.fetch import KLETTRES
from vislang.document import Audio, Document
from vislang.example import Example


@dataclass(frozen=True)
class Reading:
    """One recording.

    Attributes:
        sound: the recording.
        language: of the voice; one voice reads a language.
        kind: what is read.
        text: the letter or the syllable, in upper case.
    """

    sound: Audio
    language: str
    kind: Literal["letter", "syllable"]
    text: str


def readings() -> list[Reading]:
    """All recordings that a language's index names and that are there, in order.

    Raises:
        DataError: the set was not fetched.
    """
    root = KLETTRES.path("klettres-data", "usr", "share", "klettres")
    found = []
    for index in sorted(root.glob("*/sounds.xml")):
        text = index.read_text(encoding="utf-8", errors="replace")
        for kind, tag in (("letter", "alphabet"), ("syllable", "syllables")):
            section = re.search(rf"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
            for sound in re.finditer(r'<sound\s+name="([^"]+)"\s+file="([^"]+)"', section[1] if section else ""):
                path = root / sound[2]
                if path.is_file():
                    name = unescape(sound[1]).upper()
                    found.append(Reading(Audio(path), index.parent.name, kind, name))  # type: ignore[arg-type]
    return found


def recordings() -> list[Example]:
    """The recordings without a target."""
    root = KLETTRES.path("klettres-data", "usr", "share", "klettres")
    found = []
    for reading in readings():
        name = Path(str(reading.sound.source)).relative_to(root).with_suffix("").as_posix()
        # Some recordings are those of two letters.
        found.append(Example(f"{name}, {reading.text}", Document([reading.sound], name=reading.sound.name)))
    return found
