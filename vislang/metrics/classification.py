"""Classification: F1 over classes, and the area under the ROC curve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from vislang.metrics.figure import Figure, Figures, plain


def f1(predicted: Sequence[str | None], truth: Sequence[str]) -> Figures:
    """``weighted_f1`` and ``macro_f1``: the mean over classes, weighted by their frequency in the truth, and not.

    The classes are those that occur in the truth or among the predictions, as in scikit-learn.

    Args:
        predicted: the predicted classes; None is no class, and wrong.
        truth: the correct classes.
    """
    predictions, targets = Counter(predicted), Counter(truth)
    hits = Counter(t for p, t in zip(predicted, truth, strict=True) if p == t)
    classes = sorted({*targets, *(name for name in predictions if name is not None)})
    scores = [2 * hits[name] / (predictions[name] + targets[name]) for name in classes]
    weights = [targets[name] for name in classes]
    return {
        "weighted_f1": plain(float(np.average(scores, weights=weights)), len(truth)),
        "macro_f1": plain(float(np.mean(scores)), len(truth)),
    }


def matthews(predicted: Sequence[bool], truth: Sequence[bool]) -> Figure:
    """Matthews' correlation of two classes (Matthews 1975); 0 where a side has one class, as in scikit-learn."""
    said, right = np.asarray(predicted, float), np.asarray(truth, float)
    spread = said.std() * right.std()
    covariance = float(np.mean(said * right) - said.mean() * right.mean())
    return plain(covariance / spread if spread else 0.0, len(right))


def area_under_curve(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """The area under the ROC curve: how often a positive scores above a negative, ties counting half.

    NaN where one of the two is missing.
    """
    above = np.array([score for score, is_positive in zip(scores, positive, strict=True) if is_positive])
    below = np.array([score for score, is_positive in zip(scores, positive, strict=True) if not is_positive])
    if not len(above) or not len(below):
        return float("nan")
    ordered = np.sort(below)
    lower = np.searchsorted(ordered, above, side="left")
    equal = np.searchsorted(ordered, above, side="right") - lower
    return float((lower + equal / 2).sum() / (len(above) * len(below)))
