"""Augmented versions of the training images of a dual encoder, whose features are cached."""

from __future__ import annotations

import random
from dataclasses import dataclass

from vislang.document import Image, Marked
from vislang.models.augmentation import Augmentation, AugmentedImage
from vislang.models.vilbert.captioned import PairCollator
from vislang.models.vilbert.inputs import PairInputs


@dataclass(frozen=True)
class ImageVersions:
    """Augmented versions of the training images. As many are made of each as ``count`` says; training draws among them
    and the original, so that a frozen tower encodes each only once.

    Attributes:
        augmentation: how images are changed.
        size: side of a version in pixels.
        count: number of versions of an image.
    """

    augmentation: Augmentation
    size: int
    count: int

    def of(self, image: Image) -> list[Image]:
        """The image and its versions. Of an image with marked boxes there are none, because they would be moved."""
        if isinstance(image.source, Marked):
            return [image]
        made = [AugmentedImage.of(image, self.augmentation, self.size, number) for number in range(self.count)]
        return [image, *made]

    def draw(self, image: Image, seed: int) -> Image:
        """One of them, the same for all pairs of this image in a step: its other captions are no negatives."""
        return random.Random(f"{seed} {image.content_hash}").choice(self.of(image))


class VersionCollator(PairCollator):
    """Shows one of the versions of each image, where there are some.

    Args:
        inputs: how texts and images are prepared.
        versions: versions of the training images, or None.

    Attributes:
        training: whether versions are drawn.
    """

    def __init__(self, inputs: PairInputs, versions: ImageVersions | None = None):
        super().__init__(inputs)
        self.versions, self.training = versions, True

    def shown(self, image: Image, seed: int) -> Image:
        """The image, or the version of it that is drawn for this step."""
        return self.versions.draw(image, seed) if self.versions is not None and self.training else image
