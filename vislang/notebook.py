"""HTML for notebooks: the parts of which the ``_repr_html_`` of vislang's objects are made.

The output of a cell is kept in the notebook and sent on with it, so all of it is inline: images are data URLs, and
nothing comes from elsewhere. Text is escaped. Colours are those of the notebook, so that it can be read in light and in
dark mode.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from vislang.errors import UserError
from vislang.pictures import THUMBNAIL, at_most, data_url

if TYPE_CHECKING:
    import PIL.Image

LINE = "1px solid rgba(128, 128, 128, .4)"
"""A line that is visible on light and on dark."""


KEY = "Colour: none for an equal share of the attention or less, full for four times an equal share or more."
"""What the colour of attention means; see :mod:`vislang.attention_maps`."""


class Html(str):
    """Text that is HTML already. Any other text is escaped where it is inserted."""

    __slots__ = ()


def inserted(content: str) -> Html:
    """A text as HTML."""
    return content if isinstance(content, Html) else Html(html.escape(content))


def text(content: str, strong: bool = False) -> Html:
    """A text with its spaces and line breaks; ``strong`` sets it in bold."""
    weight = "; font-weight: 600" if strong else ""
    return Html(f'<span style="white-space: pre-wrap{weight}">{inserted(content)}</span>')


def note(content: str) -> Html:
    """A text that stands back."""
    return Html(f'<small style="opacity: .7">{inserted(content)}</small>')


def block(*parts: str) -> Html:
    """Parts in a box of their own, one after the other."""
    return Html(f'<div style="margin: .4em 0">{"".join(map(inserted, parts))}</div>')


def picture(image: PIL.Image.Image, name: str, caption: str = "", side: int = THUMBNAIL) -> Html:
    """An image with a caption below it.

    Args:
        image: the image; a larger one is scaled down.
        name: what is in it, for readers who do not see it.
        caption: the caption.
        side: greatest length of its longer side, in pixels.
    """
    url = data_url(at_most(image, side), "WEBP")
    shown = f'<img src="{url}" alt="{inserted(name)}" title="{inserted(name)}" style="max-width: 100%; border: {LINE}">'
    below = f'<figcaption style="max-width: {side}px">{inserted(caption)}</figcaption>' if caption else ""
    style = "display: inline-block; margin: .2em .5em .2em 0; vertical-align: middle"
    return Html(f'<figure style="{style}">{shown}{below}</figure>')


def medium(name: str, frames: Callable[[], Sequence[PIL.Image.Image]], caption: str = "") -> Html:
    """Frames of a medium; its name where there are none, and the reason where it cannot be decoded."""
    try:
        return Html("".join(picture(frame, name, caption) for frame in frames())) or note(f"[{name}] ")
    except UserError as error:
        return note(f"[{error}] ")


def table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Html:
    """A table of texts; the title may be empty."""

    def cells(kind: str, values: Sequence[str]) -> str:
        style = f"text-align: left; vertical-align: top; padding: .2em 1em .2em 0; border-bottom: {LINE}"
        return "".join(f'<{kind} style="{style}">{inserted(value)}</{kind}>' for value in values)

    head, body = cells("th", headings), "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    named = f'<caption style="text-align: left; font-weight: 600">{inserted(title)}</caption>' if title else ""
    return Html(f"<table>{named}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>")
