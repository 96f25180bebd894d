"""The one way in which an image enters: a part of a request becomes an Image whose header has been checked.

An image is a ``data:`` URL. Addresses are read only where the server was told to (:mod:`vislang.serve.remote`), and
paths of files never.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vislang.document import Image, InMemory
from vislang.serve.errors import ApiError, invalid
from vislang.serve.formats import FORMATS, has_frames
from vislang.serve.limits import Limits

_DATA = re.compile(r"data:(?:image/[\w.+-]{1,64})?(?:;[\w.=+-]{1,64}){0,4};base64,", re.ASCII | re.IGNORECASE)

Fetch = Callable[[str], bytes]
"""Reads a remote address; see :func:`vislang.serve.remote.fetch`."""


@dataclass(frozen=True)
class ImagePart:
    """An image as it was sent: its URL, and the field of the request that has it."""

    url: str
    param: str


def read_images(parts: Sequence[ImagePart], limits: Limits, fetch: Fetch | None = None) -> list[Image]:
    """The images of a request. Only their headers are decoded.

    Args:
        parts: the images as they were sent.
        limits: of their number and pixels.
        fetch: reads remote images; None allows none.

    Raises:
        ApiError: there are too many, or one is no image, has too many pixels or several frames, or is at an address
            that is not read.
    """
    if len(parts) > limits.images:
        raise invalid(
            f"{len(parts)} images, and the limit is {limits.images} in a request. Send fewer.",
            parts[limits.images].param,
            "too_many_images",
        )
    images, pixels = [], 0
    for part in parts:
        content = _content(part, fetch)
        pixels += _checked(content, part.param, limits)
        if pixels > limits.request_pixels:
            raise invalid(
                f"the images have more than {limits.request_pixels:,} pixels together. Scale them down.",
                part.param,
                "image_too_large",
            )
        images.append(Image(InMemory(part.param, content)))
    return images


def _content(part: ImagePart, fetch: Fetch | None) -> bytes:
    """The encoded image of a part."""
    start = _DATA.match(part.url)
    if start is None:
        scheme = part.url.partition(":")[0].lower()
        if scheme not in ("http", "https"):
            raise invalid(
                "an image is a data: URL in base64, such as data:image/png;base64,iVBOR....",
                part.param,
                "invalid_image_url",
            )
        if fetch is None:
            raise invalid(
                "this server reads no remote images. Send the image itself as a data: URL in base64.",
                part.param,
                "remote_images_off",
            )
        try:
            return fetch(part.url)
        except ApiError as error:
            error.param = part.param
            raise
    try:
        return base64.b64decode(part.url[start.end() :].encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise invalid("the image is not valid base64.", part.param, "invalid_image") from None


def _checked(content: bytes, param: str, limits: Limits) -> int:
    """The number of pixels of an encoded image, from its header."""
    from PIL import Image as Pillow

    if not content:
        raise invalid("the image is empty.", param, "invalid_image")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Pillow.open(io.BytesIO(content), formats=FORMATS) as opened:
                width, height = opened.size
                moves = has_frames(opened)
        except Pillow.DecompressionBombError:
            width, height, moves = limits.image_pixels, 2, False
        except Exception as error:
            # Pillow's plugins raise whatever a damaged file makes them raise.
            kind = type(error).__name__
            raise invalid(
                f"not an image of the formats {', '.join(FORMATS)}, or damaged ({kind}).", param, "invalid_image"
            ) from None
    if moves:
        raise invalid("the image has several frames. Send one of them as a still image.", param, "animated_image")
    if width * height > limits.image_pixels:
        raise invalid(
            f"the image has more than {limits.image_pixels:,} pixels. Scale it down.", param, "image_too_large"
        )
    return width * height
