"""Pointing at what is meant: a box is right where it overlaps the true one by more than one half."""

from __future__ import annotations

from collections.abc import Sequence

from vislang.boxes import Box, as_array, overlaps
from vislang.metrics.figure import Figures, share

OVERLAP = 0.5
"""Intersection over union that a right box exceeds."""


def pointing(predicted: Sequence[Box], truth: Sequence[Box], candidates: Sequence[Sequence[Box]] = ()) -> Figures:
    """``accuracy``; and, where candidates are known, ``upper_bound``: of always choosing the best of them.

    Args:
        predicted, truth: a box for each example.
        candidates: for each example the boxes that were chosen from.
    """
    hits = [hit([box], true) for box, true in zip(predicted, truth, strict=True)]
    figures = {"accuracy": share(sum(hits), len(hits))}
    if any(candidates):
        reachable = [hit(boxes, true) for boxes, true in zip(candidates, truth, strict=True)]
        figures["upper_bound"] = share(sum(reachable), len(reachable))
    return figures


def hit(boxes: Sequence[Box], truth: Box) -> bool:
    """Whether any of the boxes is right."""
    return bool(boxes) and bool((overlaps(as_array(*boxes), as_array(truth)) > OVERLAP).any())
