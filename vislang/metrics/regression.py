"""Metrics of predicted values: correlation, errors, and the metrics of papers on sentiment."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vislang.metrics.classification import f1
from vislang.metrics.figure import Figures, plain, share

SENTIMENT_METRICS = (
    "mae",
    "pearson_r",
    "accuracy_7",
    "accuracy_2_has0",
    "weighted_f1_2_has0",
    "accuracy_2_non0",
    "weighted_f1_2_non0",
)


def pearson(predicted: np.ndarray, truth: np.ndarray) -> float:
    """Pearson's correlation; NaN if one side is constant."""
    if predicted.std() == 0 or truth.std() == 0:
        return math.nan
    return float(np.corrcoef(predicted, truth)[0, 1])


def regression(predicted: Sequence[float], truth: Sequence[float]) -> Figures:
    """``pearson_r`` and ``rmse``."""
    a, b = np.asarray(predicted, float), np.asarray(truth, float)
    return {
        "pearson_r": plain(pearson(a, b), len(b)),
        "rmse": plain(float(np.sqrt(np.mean((a - b) ** 2))), len(b)),
    }


def sentiment(predicted: Sequence[float], truth: Sequence[float]) -> Figures:
    """The metrics of papers on MOSI and MOSEI, for values from -3 to 3.

    ``mae``; ``pearson_r``; ``accuracy_7``: seven classes, rounded after clipping to [-3, 3]. Two classes are
    defined in two ways: ``accuracy_2_has0`` is negative or not (0 is not negative), ``accuracy_2_non0`` is negative or
    positive (records at 0 are left out). Each has a weighted F1.
    """
    a, b = np.asarray(predicted, float), np.asarray(truth, float)
    seven = np.round(a.clip(-3, 3)) == np.round(b.clip(-3, 3))
    figures: Figures = {
        "mae": plain(float(np.abs(a - b).mean()), len(b)),
        "pearson_r": plain(pearson(a, b), len(b)),
        "accuracy_7": share(int(seven.sum()), len(b)),
    }
    for name, kept, compare in (
        ("has0", np.ones(len(b), bool), np.greater_equal),
        ("non0", b != 0, np.greater),
    ):
        if not kept.any():
            continue
        left, right = compare(a[kept], 0), compare(b[kept], 0)
        figures[f"accuracy_2_{name}"] = share(int((left == right).sum()), int(kept.sum()))
        weighted = f1([str(v) for v in left], [str(v) for v in right])["weighted_f1"]
        figures[f"weighted_f1_2_{name}"] = weighted
    return figures
