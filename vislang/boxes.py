"""Boxes in images, and their overlap."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(frozen=True)
class Box:
    """A rectangle in an image; its edges in pixels of the image."""

    left: float
    top: float
    right: float
    bottom: float


def as_array(*boxes: Box) -> Float[np.ndarray, "boxes 4"]:
    """Boxes as rows of left, top, right and bottom, in the precision of the boxes."""
    return np.array([[box.left, box.top, box.right, box.bottom] for box in boxes], dtype=np.float64)


def overlaps(boxes: Float[np.ndarray, "n 4"], others: Float[np.ndarray, "m 4"]) -> Float[np.ndarray, "n m"]:
    """Intersection over union of each of ``boxes`` with each of ``others``, given as left, top, right, bottom."""
    start = np.maximum(boxes[:, None, :2], others[None, :, :2])
    end = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared = (end - start).clip(0).prod(axis=-1)
    areas = [(b[:, 2] - b[:, 0]) * (b[:, 3] - b[:, 1]) for b in (boxes, others)]
    union = areas[0][:, None] + areas[1][None] - shared
    return np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
