"""Regions of an image, from a detector or a grid."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vislang.document import MediaError


class RegionError(MediaError):
    """Invalid regions; the message names the record and the problem."""

    kind = "regions"


@dataclass(frozen=True)
class Regions:
    """Regions of one image.

    Attributes:
        features: features of each region.
        boxes: left, top, right and bottom edge of each region, in pixels.
        width, height: size of the image in pixels.
        classes: class distribution of each region, if the source has classes.
    """

    features: Float[np.ndarray, "regions feature_width"]
    boxes: Float[np.ndarray, "boxes 4"]
    width: float | int
    height: float | int
    classes: Float[np.ndarray, "distributions classes"] | None = None

    def check(self, name: str) -> Regions:
        """The same regions, if they are valid.

        Args:
            name: name of the file and record, for the message.

        Raises:
            RegionError: there are no regions, counts differ, values are not finite, a box is outside the image, or a
                class distribution does not sum to 1.
        """
        count = len(self.features)
        if count == 0:
            raise RegionError(f"{name}: contains no regions.")
        if len(self.boxes) != count:
            raise RegionError(f"{name}: {count} rows of features and {len(self.boxes)} boxes.")
        if not (self.width > 0 and self.height > 0):
            raise RegionError(f"{name}: states an image size of {self.width} x {self.height} pixels.")
        for what, values in (("features", self.features), ("boxes", self.boxes), ("classes", self.classes)):
            if values is not None and not np.isfinite(values).all():
                row = int(np.argwhere(~np.isfinite(values))[0][0])
                raise RegionError(f"{name}: {what} of region {row} are not finite. Extract the image again.")
        left, top, right, bottom = self.boxes.T
        # Detectors may place edges one pixel outside.
        outside = (left < -1) | (top < -1) | (right > self.width + 1) | (bottom > self.height + 1)
        outside |= (right < left) | (bottom < top)
        if outside.any():
            row = int(outside.argmax())
            box = ", ".join(f"{edge:g}" for edge in self.boxes[row])
            raise RegionError(
                f"{name}: box {row} ({box}) is outside the image of {self.width:g} x {self.height:g} pixels. Boxes are "
                "left, top, right, bottom, in pixels of the image that they were found in."
            )
        if self.classes is not None:
            if len(self.classes) != count:
                raise RegionError(f"{name}: {count} regions and {len(self.classes)} class distributions.")
            wrong = (self.classes < 0).any(axis=1) | (np.abs(self.classes.sum(axis=1) - 1) > 0.01)
            if wrong.any():
                raise RegionError(f"{name}: the classes of region {int(wrong.argmax())} do not sum to 1.")
        return self

    def locations(self) -> Float[np.ndarray, "regions 5"]:
        """Left, top, right, bottom and area of each box, relative to the image (ViLBERT, section 2.2)."""
        size = np.array([self.width, self.height] * 2, dtype=np.float32)
        left, top, right, bottom = (self.boxes / size).clip(0, 1).T
        area = (right - left) * (bottom - top)
        return np.stack([left, top, right, bottom, area], axis=1).astype(np.float32)

    def best(self, count: int) -> Regions:
        """The first ``count`` regions; detectors list the most confident ones first."""
        classes = None if self.classes is None else self.classes[:count]
        return Regions(self.features[:count], self.boxes[:count], self.width, self.height, classes)

    def with_whole(self) -> Regions:
        """The same regions after an additional first one for the whole image, which has the mean of all features.

        Its class distribution is the mean of the others'; it is never predicted.
        """
        whole = np.array([[0, 0, self.width, self.height]], dtype=np.float32)
        classes = self.classes
        if classes is not None:
            classes = np.concatenate([classes.mean(axis=0, keepdims=True), classes])
        features = np.concatenate([self.features.mean(axis=0, keepdims=True), self.features])
        return Regions(features, np.concatenate([whole, self.boxes]), self.width, self.height, classes)
