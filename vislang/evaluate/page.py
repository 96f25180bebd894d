"""The common parts of all reports, which are self-contained HTML pages."""

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


def data_url(picture: Pillow.Image) -> str:
    """An image as a data URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
