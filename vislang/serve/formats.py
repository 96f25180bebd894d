"""The formats of images in requests."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import PIL.Image

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
"""The formats that are read from strangers. TIFF is not among them: its decoders are many and old."""


def has_frames(opened: PIL.Image.Image) -> bool:
    """Whether an opened image is an animation or has several pages.

    A JPEG that carries further pictures (MPO), as many phones write, is a still image.
    """
    return opened.format != "MPO" and bool(getattr(opened, "is_animated", False))
