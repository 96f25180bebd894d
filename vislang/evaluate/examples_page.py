"""A page of a few Examples, as they are read; and an Example in a line of text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageDraw

from vislang.boxes import Box
from vislang.document import Audio, Document, Image, Learned, Part, Video
from vislang.evaluate.page import data_url, template
from vislang.example import Answers, Choice, Example, Label, Text, Value, kind_of

LONGEST = 800
"""Characters of a text that are shown."""

PARTS, FRAMES, SHOTS = 12, 6, 4
"""Parts of a document, frames of a video, and shots of an example that are shown."""

SIDE = 320
"""The longer side of a picture on the page, in pixels."""


def line_of(document: Document) -> str:
    """A document as one line of text, media by name."""
    shown = [" ".join(_in_words(part).split()) for part in document.parts]
    return _short(" ".join(part for part in shown if part))


def target_line(example: Example) -> str:
    """The target of an example as one line of text."""
    target = example.target
    if isinstance(target, Text):
        return _short(" / ".join(target.references))
    if isinstance(target, Answers):
        return _short(", ".join(f"{answer} ({score:g})" for answer, score in target.scores.items()))
    if isinstance(target, Choice):
        return f"{target.index}: {line_of(example.choices[target.index])}" if example.choices else str(target.index)
    if isinstance(target, Label):
        return target.name
    if isinstance(target, Value):
        return f"{target.number:g}"
    if isinstance(target, Box):
        return f"({target.left:g}, {target.top:g}) to ({target.right:g}, {target.bottom:g})"
    return ""


def write_examples(out: Path, title: str, examples: Sequence[Example], total: int) -> None:
    """Write a self-contained page.

    Args:
        out: the page.
        title: of the page: the source.
        examples: to be shown, in order.
        total: how many the source has.

    Raises:
        MediaError: a medium cannot be decoded.
    """
    cards = [
        {
            "id": example.id,
            "source": example.source,
            "shots": [_card(shot) for shot in example.shots[:SHOTS]],
            "more_shots": max(0, len(example.shots) - SHOTS),
            "choices": [_pieces(choice) for choice in example.choices],
            "right": example.target.index if isinstance(example.target, Choice) else None,
            **_card(example),
        }
        for example in examples
    ]
    text = template("examples").render(title=title, cards=cards, total=total)
    out.write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class _Piece:
    """A part on the page: words (learned ones marked), pictures, or the name of a recording."""

    words: str = ""
    pictures: tuple[str, ...] = ()
    learned: bool = False


def _card(example: Example) -> dict:
    box = example.target if isinstance(example.target, Box) else None
    return {
        "prompt": _pieces(example.prompt, box),
        "more_parts": max(0, len(example.prompt.parts) - PARTS),
        "kind": kind_of(example.target) if example.target is not None else "",
        "target": target_line(example),
    }


def _pieces(document: Document, box: Box | None = None) -> list[_Piece]:
    return [_piece(part, box) for part in document.parts[:PARTS]]


def _piece(part: Part, box: Box | None) -> _Piece:
    if isinstance(part, Image):
        return _Piece(pictures=(_picture(part.decode(), box),))
    if isinstance(part, Video):
        return _Piece(pictures=tuple(_picture(frame) for frame in part.decode(max_frames=FRAMES)))
    return _Piece(_short(_in_words(part)), learned=isinstance(part, Learned))


def _picture(picture: Pillow.Image, box: Box | None = None) -> str:
    scale = SIDE / max(picture.size)
    # Small drawings are enlarged without blur.
    how = Pillow.Resampling.NEAREST if scale > 1 else Pillow.Resampling.BICUBIC
    shown = picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))), how)
    if box is not None:
        edges = [round(edge * scale) for edge in (box.left, box.top, box.right, box.bottom)]
        ImageDraw.Draw(shown).rectangle(edges, outline=(220, 30, 30), width=4)
    return data_url(shown)


def _in_words(part: Part) -> str:
    if isinstance(part, str):
        return part
    if isinstance(part, Learned):
        return part.text
    names = {Image: "image", Video: "video", Audio: "audio"}
    return f"<{names[type(part)]}: {part.name}>" if isinstance(part, Image | Video | Audio) else ""


def _short(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."
