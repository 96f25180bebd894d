"""Regions of an image: what a detector, or a grid, gives instead of pixels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vislang.document import MediaError


class RegionError(MediaError):
    """Regions that cannot be used; the message names the record and what is wrong with it."""

    kind = "regions"


@dataclass(frozen=True)
class Regions:
    """Regions of one image.

    Attributes:
        features: of each region.
        boxes: left, top, right and bottom edge of each, in pixels. As many as features, once checked.
        width, height: of the image, in pixels.
        classes: each region's distribution over classes, where the source has one.
    """

    features: Float[np.ndarray, "regions feature_width"]
    boxes: Float[np.ndarray, "boxes 4"]
    width: float | int
    height: float | int
    classes: Float[np.ndarray, "distributions classes"] | None = None

    def check(self, name: str) -> Regions:
        """The same, if it can be used.

        Args:
            name: of the file and the record, for the message.

        Raises:
            RegionError: no region, counts that differ, values that are no numbers, boxes outside of the image, or a
                distribution that is none.
        """
        count = len(self.features)
        if count == 0:
            raise RegionError(f"{name}: no region in it.")
        if len(self.boxes) != count:
            raise RegionError(f"{name}: {count} rows of features and {len(self.boxes)} boxes.")
        if not (self.width > 0 and self.height > 0):
            raise RegionError(f"{name}: an image of {self.width} x {self.height} pixels.")
        for what, values in (("features", self.features), ("boxes", self.boxes), ("classes", self.classes)):
            if values is not None and not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                raise RegionError(f"{name}: {what} of region {row} hold values that are no numbers. Extract it again.")
        left, top, right, bottom = self.boxes.T
        # Detectors put edges a pixel beyond the last.
        outside = (left < -1) | (top < -1) | (right > self.width + 1) | (bottom > self.height + 1)
        outside |= (right < left) | (bottom < top)
        if outside.any():
            row = int(outside.argmax())
            box = ", ".join(f"{edge:g}" for edge in self.boxes[row])
            raise RegionError(
                f"{name}: box {row} ({box}) does not lie in an image of {self.width:g} x {self.height:g} pixels. Boxes "
                "are left, top, right, bottom, in pixels of the image that they were found in."
            )
        if self.classes is not None:
            if len(self.classes) != count:
                raise RegionError(f"{name}: {count} regions and {len(self.classes)} distributions over classes.")
            wrong = (self.classes < 0).any(axis=1) | (np.abs(self.classes.sum(axis=1) - 1) > 0.01)
            if wrong.any():
                raise RegionError(f"{name}: the classes of region {int(wrong.argmax())} are no distribution.")
        return self

    def locations(self) -> Float[np.ndarray, "regions 5"]:
        """Left, top, right, bottom and area of each box, in shares of the image (ViLBERT, section 2.2)."""
        edges = self.boxes / np.array([self.width, self.height, self.width, self.height], dtype=np.float32)
        edges = edges.clip(0, 1)
        area = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
        return np.concatenate([edges, area[:, None]], axis=1).astype(np.float32)

    def best(self, count: int) -> Regions:
        """The first so many; detectors list the surest first."""
        classes = None if self.classes is None else self.classes[:count]
        return Regions(self.features[:count], self.boxes[:count], self.width, self.height, classes)

    def with_whole(self) -> Regions:
        """The same behind one more that stands for the whole image: the mean of all features, and the largest box.

        Its distribution over classes is the mean of theirs; nothing predicts it.
        """
        whole = np.array([[0, 0, self.width, self.height]], dtype=np.float32)
        classes = self.classes
        if classes is not None:
            classes = np.concatenate([classes.mean(axis=0, keepdims=True), classes])
        features = np.concatenate([self.features.mean(axis=0, keepdims=True), self.features])
        return Regions(features, np.concatenate([whole, self.boxes]), self.width, self.height, classes)
