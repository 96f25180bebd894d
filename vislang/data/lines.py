"""An Example in lines of text, for a terminal."""

from __future__ import annotations

from vislang.boxes import Box
from vislang.document import Audio, Document, Image, Learned, Part, Video
from vislang.example import Answers, Choice, Example, Label, Text, Value

LONGEST = 300
"""Characters of a line."""


def line_of(document: Document) -> str:
    """A document as one line of text, media by name."""
    shown = [" ".join(in_words(part).split()) for part in document.parts]
    return short(" ".join(part for part in shown if part))


def target_line(example: Example) -> str:
    """The target of an example as one line of text."""
    target = example.target
    if isinstance(target, Text):
        return short(" / ".join(target.references))
    if isinstance(target, Answers):
        given = (answer if score == 1 else f"{answer} ({score:g})" for answer, score in target.scores.items())
        return short(", ".join(given))
    if isinstance(target, Choice):
        return f"choice {target.index}"
    if isinstance(target, Label):
        return target.name
    if isinstance(target, Value):
        return f"{target.number:g}"
    if isinstance(target, Box):
        return f"({target.left:g}, {target.top:g}) to ({target.right:g}, {target.bottom:g})"
    return ""


def in_words(part: Part) -> str:
    """A part of a document as text, a medium by its name."""
    if isinstance(part, str):
        return part
    if isinstance(part, Learned):
        return part.text
    kinds = {Image: "image", Video: "video", Audio: "audio"}
    if not isinstance(part, Image | Video | Audio):
        return ""
    named = part.name.strip("<>") if isinstance(part.source, bytes) else part.name.rpartition("/")[2]
    return f"<{kinds[type(part)]}: {named}>"


def short(text: str, longest: int = LONGEST) -> str:
    """The beginning of a text."""
    return text if len(text) <= longest else f"{text[:longest]} ..."
