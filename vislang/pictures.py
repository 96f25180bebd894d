"""Images for HTML: small, and as data URLs."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import PIL.Image

THUMBNAIL = 160
"""Side of a small image, in pixels."""


def square(picture: PIL.Image.Image) -> PIL.Image.Image:
    """An image resized to a square thumbnail."""
    from PIL import Image as Pillow

    return picture.resize((THUMBNAIL, THUMBNAIL), Pillow.Resampling.BICUBIC)


def at_most(picture: PIL.Image.Image, side: int) -> PIL.Image.Image:
    """An image whose longer side has at most this many pixels; a smaller one is not enlarged."""
    scale = side / max(picture.size)
    if scale >= 1:
        return picture
    return picture.resize((max(1, round(picture.width * scale)), max(1, round(picture.height * scale))))


def data_url(picture: PIL.Image.Image, kind: Literal["PNG", "WEBP", "JPEG"] = "PNG") -> str:
    """An image as a data URL; a page of many images is several times smaller with WebP, which loses a little."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, optimize=True, quality=85)
    return f"data:image/{kind.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
