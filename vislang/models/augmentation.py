"""Random augmentation of training images (Pillow images, in worker processes), and augmented versions of an image
whose features can be cached."""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

from PIL import Image, ImageEnhance

from vislang import document
from vislang.document import MAX_PIXELS, WHITE


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop, flip and colour jitter (the recipe of data2vec's and BEiT's pretraining).

    Attributes:
        scale: least and greatest share of the image's area in a crop.
        ratio: least and greatest ratio of width to height of a crop.
        flip: probability of a horizontal flip.
        brightness, contrast, saturation: each is multiplied by a factor between 1 - value and 1 + value.
        hue: greatest rotation of the hue, as a share of the colour circle; at most 0.5.
        background: probability that the background of a transparent image is a random colour instead of white, so
            that the model does not learn that objects are surrounded by white.
    """

    scale: Sequence[float | int] = (0.2, 1.0)
    ratio: Sequence[float | int] = (3 / 4, 4 / 3)
    flip: float | int = 0.5
    brightness: float | int = 0.4
    contrast: float | int = 0.4
    saturation: float | int = 0.4
    hue: float | int = 0.0
    background: float | int = 0.0

    def __post_init__(self):
        if not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise ValueError(
                f"augmentation.scale is {self.scale}; it must be two shares of the area, the smaller first."
            )
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(
                f"augmentation.ratio is {self.ratio}; it must be two ratios of width to height, the smaller first."
            )
        for name, most in (
            ("flip", 1),
            ("brightness", 1),
            ("contrast", 1),
            ("saturation", 1),
            ("hue", 0.5),
            ("background", 1),
        ):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"augmentation.{name} is {getattr(self, name)}; it must be between 0 and {most}.")

    def draw_background(self, rng: random.Random) -> tuple[int, int, int]:
        """The background colour of one variant."""
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        return colour if rng.random() < self.background else WHITE

    def __call__(self, image: Image.Image, size: int, rng: random.Random) -> Image.Image:
        """One variant of an RGB image, a square of ``size`` pixels; the same rng state gives the same variant."""
        box = self.crop(image.width, image.height, rng)
        # Crop and resize in one pass; reducing_gap first reduces a large crop by a whole factor, which is much faster.
        out = image.resize((size, size), Image.Resampling.BICUBIC, box, reducing_gap=2.0)
        if rng.random() < self.flip:
            out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        adjustments = [
            (ImageEnhance.Brightness, self.brightness),
            (ImageEnhance.Contrast, self.contrast),
            (ImageEnhance.Color, self.saturation),
        ]
        rng.shuffle(adjustments)
        for enhance, strength in adjustments:
            if strength:
                out = enhance(out).enhance(rng.uniform(1 - strength, 1 + strength))
        return _turn_hue(out, rng.uniform(-self.hue, self.hue)) if self.hue else out

    def crop(self, width: int, height: int, rng: random.Random) -> tuple[float, float, float, float]:
        """A box (left, upper, right, lower) within an image of this size.

        Boxes that do not fit are drawn again; after ten attempts, it is the largest central box with an allowed ratio.
        """
        for _ in range(10):
            area = width * height * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            wide, high = math.sqrt(area * ratio), math.sqrt(area / ratio)
            if wide <= width and high <= height:
                left, upper = rng.uniform(0, width - wide), rng.uniform(0, height - high)
                return left, upper, left + wide, upper + high
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        wide, high = min(width, height * ratio), min(height, width / ratio)
        return (width - wide) / 2, (height - high) / 2, (width + wide) / 2, (height + high) / 2


def _turn_hue(image: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    shift = round(turn * 256)
    return Image.merge("HSV", (hue.point(lambda h: (h + shift) % 256), saturation, value)).convert("RGB")


@dataclass(frozen=True)
class AugmentedImage(document.Image):
    """One of several augmented versions of an image, the same each time it is decoded, so that a frozen tower's
    features of it can be cached.

    Attributes:
        original: the image.
        augmentation: how it is changed.
        side: side of the square in pixels.
        number: which version it is.
    """

    original: document.Image
    augmentation: Augmentation = field(compare=False)
    side: int
    number: int

    @classmethod
    def of(cls, original: document.Image, augmentation: Augmentation, side: int, number: int) -> AugmentedImage:
        """A version of an image."""
        return cls(original.source, original, augmentation, side, number)

    @cached_property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.side, self.side

    @cached_property
    def content_hash(self) -> str:
        """SHA-256 of the original's hash and of all that changes it."""
        return hashlib.sha256(
            f"{self.original.content_hash} {self.augmentation} {self.side} {self.number}".encode()
        ).hexdigest()

    def decode(self, max_pixels: int = MAX_PIXELS, background: tuple[int, int, int] = WHITE) -> Image.Image:
        """The version; ``background`` is not used, because the augmentation draws its own. See
        :meth:`vislang.document.Image.decode`."""
        del background
        rng = random.Random(self.content_hash)
        opened = self.original.decode(max_pixels, self.augmentation.draw_background(rng))
        return self.augmentation(opened, self.side, rng)
