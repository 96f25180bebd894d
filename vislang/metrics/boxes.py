"""Accuracy of boxes: a box is correct if it overlaps the ground truth by at least one half.

This is the rule of MAttNet's program (Yu et al. 2018), to which papers on referring expressions compare. That program
never counts an overlap that is at most one pixel wide or high; only ground truths of at most two pixels could meet it,
and they are scored by the same rule as all others here.
"""

from __future__ import annotations

from collections.abc import Sequence

from vislang.boxes import Box, as_array, overlaps
from vislang.metrics.figure import Figures, share

OVERLAP = 0.5
"""A correct box has at least this intersection over union with the ground truth."""


def pointing(predicted: Sequence[Box], truth: Sequence[Box], candidates: Sequence[Sequence[Box]] = ()) -> Figures:
    """``accuracy``; and with candidates, ``upper_bound``: the accuracy of always choosing the best candidate.

    Args:
        predicted, truth: the predicted and the correct box of each example.
        candidates: for each example, the boxes to choose from.
    """
    hits = [hit([box], true) for box, true in zip(predicted, truth, strict=True)]
    figures = {"accuracy": share(sum(hits), len(hits))}
    if any(candidates):
        reachable = [hit(boxes, true) for boxes, true in zip(candidates, truth, strict=True)]
        figures["upper_bound"] = share(sum(reachable), len(reachable))
    return figures


def hit(boxes: Sequence[Box], truth: Box) -> bool:
    """Whether any of the boxes is correct."""
    return bool(boxes) and bool((overlaps(as_array(*boxes), as_array(truth)) >= OVERLAP).any())
