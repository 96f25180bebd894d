"""Random changes to a training image, so that it is never the same twice; on Pillow images, in worker processes."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageEnhance

from vislang.document import WHITE


@dataclass(frozen=True)
class Augmentation:
    """Random resized crop, flip and colour jitter (the recipe of data2vec's and BEiT's pretraining).

    Attributes:
        scale: least and greatest share of the image's area that a crop covers.
        ratio: least and greatest ratio of its width to its height.
        flip: probability of a mirror image.
        brightness, contrast, saturation: each is multiplied by a factor between 1 minus and 1 plus this.
        hue: turned by at most this share of the colour circle, at most 0.5.
        background: probability that transparent parts lie over a drawn colour rather than over white; drawings and
            cut-out photographs that always lie on white teach that white is what surrounds things.
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
            raise ValueError(f"augmentation.scale {self.scale}: two shares of the area, the smaller first.")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise ValueError(f"augmentation.ratio {self.ratio}: two ratios of width to height, the smaller first.")
        for name, most in (
            ("flip", 1),
            ("brightness", 1),
            ("contrast", 1),
            ("saturation", 1),
            ("hue", 0.5),
            ("background", 1),
        ):
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"augmentation.{name} is {getattr(self, name)}; it must lie between 0 and {most}.")

    def draw_background(self, rng: random.Random) -> tuple[int, int, int]:
        """What to lay transparent parts over, in one variant."""
        colour = (rng.randrange(256), rng.randrange(256), rng.randrange(256))
        return colour if rng.random() < self.background else WHITE

    def __call__(self, image: Image.Image, size: int, rng: random.Random) -> Image.Image:
        """One variant of an RGB image, a square of ``size`` pixels; the same rng state gives the same variant."""
        box = self.crop(image.width, image.height, rng)
        # Cropping and resizing in one pass; a large crop is first reduced by a whole factor, which is much faster.
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

        Boxes that do not fit are drawn again; after ten, the largest central box of an allowed ratio is taken.
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
