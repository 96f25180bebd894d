"""What all reports share: one self-contained page for a browser without a network."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from PIL import Image as Pillow

THUMBNAIL = 160
"""Side of a picture in a gallery, in pixels."""


def template(name: str) -> jinja2.Template:
    """The template of a page, by its name; everything that is put into it is escaped, except plots."""
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    environment.filters["raw_svg"] = lambda svg: Markup(svg)
    return environment.get_template(f"{name}.html.jinja")


def provenance(run: dict[str, Any]) -> dict[str, Any]:
    """What a page says of how to reproduce it: the content of ``run.json``, as the base template wants it."""
    return {
        "configuration": json.dumps(run["recipe"], indent=2, default=str),
        "versions": run["versions"],
        "seed": run["recipe"]["train"]["seed"],
    }


def square(picture: Pillow.Image) -> Pillow.Image:
    """A picture as the gallery shows it."""
    return picture.resize((THUMBNAIL, THUMBNAIL), Pillow.Resampling.BICUBIC)


def data_url(picture: Pillow.Image) -> str:
    """A picture as part of the page."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
