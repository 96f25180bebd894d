"""The common parts of all reports, which are self-contained HTML pages."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup
from PIL import Image as Pillow
from PIL import ImageDraw

from vislang.boxes import Box

THUMBNAIL = 160
"""Side of an image in a gallery, in pixels."""


def template(name: str) -> jinja2.Template:
    """The template of a page by its name; all values except plots are escaped."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["raw_svg"] = lambda svg: Markup(svg)
    return environment.get_template(f"{name}.html.jinja")


def provenance(run: dict[str, Any]) -> dict[str, Any]:
    """The values of the section "How to reproduce it", from the content of ``run.json``."""
    return {
        "configuration": json.dumps(run["recipe"], indent=2, default=str),
        "versions": run["versions"],
        "seed": run["recipe"]["train"]["seed"],
    }


def square(picture: Pillow.Image) -> Pillow.Image:
    """An image resized for the gallery."""
    return picture.resize((THUMBNAIL, THUMBNAIL), Pillow.Resampling.BICUBIC)


def fitted(picture: Pillow.Image, side: int, boxes: Sequence[tuple[Box, tuple[int, int, int]]] = ()) -> str:
    """An image whose longer side has this many pixels, as a data URL.

    Args:
        picture: the image.
        side: the longer side.
        boxes: boxes in pixels of the image, and the colours in which they are drawn.
    """
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    shown = picture.resize(size, Pillow.Resampling.BICUBIC)
    for box, colour in boxes:
        edges = [round(edge * scale) for edge in (box.left, box.top, box.right, box.bottom)]
        ImageDraw.Draw(shown).rectangle(edges, outline=colour, width=3)
    return data_url(shown, "WEBP")


def data_url(picture: Pillow.Image, kind: Literal["PNG", "WEBP"] = "PNG") -> str:
    """An image as a data URL; a page of many images is several times smaller with WebP, which loses a little."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, optimize=True, quality=85)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
