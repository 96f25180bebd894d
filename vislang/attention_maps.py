"""Attention in colour: over a picture, in one hue, with one scale for all pages.

A position has no colour where it gets an equal share of the attention or less, and full colour from four times an equal
share on. So attention to nothing in particular stays colourless, and two maps can be compared.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image as Pillow

from vislang.pictures import THUMBNAIL, square

HUE = (216, 27, 96)
"""Of attention; the page's templates have the same (``--attention``)."""

OPACITY = 0.8
"""Of full colour."""

FULL = 4.0
"""How many times an equal share has full colour."""

GAP = 8
"""Between two frames, in pixels."""

FRAMES_SHOWN = 8
"""Greatest number of frames of a video that are shown."""


def shown_frames(count: int) -> np.ndarray:
    """The numbers of the frames that are shown of a video of ``count`` frames: evenly spaced, with its ends."""
    return np.linspace(0, count - 1, min(count, FRAMES_SHOWN)).round().astype(int)


def emphasis(shares: np.ndarray) -> np.ndarray:
    """How much colour each position has, from 0 for an equal share or less to 1 for four times that and more.

    Args:
        shares: attention to each position, not negative; of any shape and any sum.
    """
    return ((relative(shares) - 1) / (FULL - 1)).clip(0, 1)


def relative(shares: np.ndarray) -> np.ndarray:
    """Attention as a multiple of an equal share; all 1 where nothing was attended to."""
    total = float(shares.sum())
    return shares * (shares.size / total) if total > 0 else np.ones_like(shares)


def overlay(frames: Sequence[Pillow.Image], strengths: np.ndarray) -> Pillow.Image:
    """Frames without their colours, side by side, under what was attended to in them.

    Args:
        frames: of a medium; an image is one.
        strengths: (frames, height, width), from :func:`emphasis` of the whole medium.
    """
    return side_by_side([_under(frame, strength) for frame, strength in zip(frames, strengths, strict=True)])


def of_regions(
    regions: Sequence[tuple[float, float, float, float]], strengths: Sequence[float], size: tuple[int, int]
) -> np.ndarray:
    """The strength of colour of each pixel of a thumbnail: that of the strongest region that it is in; (1, height,
    width), as :func:`overlay` takes it.

    Args:
        regions: left, top, right and bottom of each, in pixels of the image.
        strengths: of each.
        size: width and height of the image.
    """
    shown = np.zeros((1, THUMBNAIL, THUMBNAIL), dtype=np.float32)
    across, down = THUMBNAIL / size[0], THUMBNAIL / size[1]
    for (left, top, right, bottom), strength in zip(regions, strengths, strict=True):
        rows = slice(int(top * down), max(int(top * down) + 1, round(bottom * down)))
        columns = slice(int(left * across), max(int(left * across) + 1, round(right * across)))
        shown[0, rows, columns] = np.maximum(shown[0, rows, columns], strength)
    return shown


def side_by_side(pictures: Sequence[Pillow.Image]) -> Pillow.Image:
    """Thumbnails in a row."""
    strip = Pillow.new("RGB", ((THUMBNAIL + GAP) * len(pictures) - GAP, THUMBNAIL), "white")
    for number, picture in enumerate(pictures):
        strip.paste(picture, ((THUMBNAIL + GAP) * number, 0))
    return strip


def _under(picture: Pillow.Image, strength: np.ndarray) -> Pillow.Image:
    """A picture in light greys, on all of which colour shows, under a colour of the given strength (height, width) from
    0 to 1."""
    wide = Pillow.fromarray(strength.astype(np.float32)).resize((THUMBNAIL, THUMBNAIL), Pillow.Resampling.BICUBIC)
    mix = OPACITY * np.asarray(wide).clip(0, 1)[..., None]
    grey = 127.5 + 0.5 * np.asarray(square(picture).convert("L").convert("RGB"), dtype=np.float32)
    return Pillow.fromarray((grey * (1 - mix) + np.array(HUE, np.float32) * mix).round().astype(np.uint8))
