"""An HTML page that shows a few Examples with their media."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pillow

from vislang.boxes import Box
from vislang.data.lines import in_words, short, target_line
from vislang.document import Document, Image, Learned, Part, Video
from vislang.evaluate.page import fitted, template
from vislang.example import Choice, Example, kind_of
from vislang.files import write_text

LONGEST = 800
"""Longest text on the page, in characters."""

PARTS, FRAMES, SHOTS = 12, 6, 4
"""Greatest number of parts of a document, frames of a video, and shots of an example on the page."""

SIDE = 224
"""Longer side of an image on the page, in pixels."""


def write_examples(out: Path, title: str, examples: Sequence[Example], total: int) -> None:
    """Write a self-contained page.

    Args:
        out: file to write.
        title: title of the page.
        examples: the examples to show.
        total: number of examples of the source.

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
    write_text(out, text)


@dataclass(frozen=True)
class _Piece:
    """A part on the page: images, or text (for a recording, its name); Learned text is marked."""

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
    return _Piece(short(in_words(part), LONGEST), learned=isinstance(part, Learned))


def _picture(picture: Pillow.Image, box: Box | None = None) -> str:
    return fitted(picture, SIDE, [] if box is None else [(box, (220, 30, 30))])
