"""The images of the presets' data without their contents, for plans: ImageNet is not public.

The presets are in ``vislang/presets``: data2vec 2.0 on images, base and large (Baevski et al. 2023, arXiv 2212.07525).
"""

from __future__ import annotations

import io

from PIL import Image as Pillow

from vislang.document import WHITE, Document, Image, InMemory
from vislang.example import Example

SOURCE = "imagenet"
"""The source that the presets name. A recipe with data of its own names a folder: ``imagenet:FOLDER``."""


def blank_images(count: int, size: int) -> list[Example]:
    """As many blank images, squares of ``size`` pixels."""
    file = io.BytesIO()
    Pillow.new("RGB", (size, size), WHITE).save(file, "PNG")
    return [
        Example(f"image {n}", Document([Image(InMemory(f"blank image {n}", file.getvalue()))])) for n in range(count)
    ]
