"""The common parts of all reports, which are self-contained HTML pages."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image as Pillow
from PIL import ImageDraw

from vislang.boxes import Box
from vislang.pictures import data_url


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
