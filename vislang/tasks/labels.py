"""Scoring labels: classes, numbers, tags of words and transcripts, each beside what a guess is worth."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from vislang.tasks.answers import proportion

Kind = Literal["classification", "regression", "tagging", "ctc"]


def score_labels(kind: Kind, predictions: Sequence[str], wanted: Sequence[str], learned: Sequence[str]) -> dict:
    """The figures of a task.

    Args:
        kind: of the labels.
        predictions, wanted: one text an item.
        learned: the labels of the training part, for the guesses.

    Returns:
        By name. ``classification``: accuracy with its 95 % interval, and of the most frequent label. ``regression``:
        Pearson's r, root mean squared error, and that of the mean. ``tagging``: accuracy over words, and of the most
        frequent tag. ``ctc``: word and character error rates (over all words and characters together).
    """
    if kind == "regression":
        return _numbers(np.array(predictions, float), np.array(wanted, float), np.array(learned, float))
    if kind == "ctc":
        return _transcripts(predictions, wanted)
    if kind == "tagging":
        pairs = [
            (p, w)
            for prediction, tags in zip(predictions, wanted, strict=True)
            for p, w in zip(prediction.split(), tags.split(), strict=False)
        ]
        predictions, wanted = [p for p, _ in pairs], [w for _, w in pairs]
        learned = [tag for tags in learned for tag in tags.split()]
    frequent = Counter(learned).most_common(1)[0][0]
    accuracy = proportion(sum(p == w for p, w in zip(predictions, wanted, strict=True)), len(wanted))
    return {
        "accuracy": accuracy.value,
        "accuracy_low": accuracy.low,
        "accuracy_high": accuracy.high,
        "majority_accuracy": sum(w == frequent for w in wanted) / len(wanted),
    }


def _numbers(predictions: np.ndarray, wanted: np.ndarray, learned: np.ndarray) -> dict:
    constant = predictions.std() == 0 or wanted.std() == 0
    return {
        "pearson_r": math.nan if constant else float(np.corrcoef(predictions, wanted)[0, 1]),
        "root_mean_squared_error": float(np.sqrt(np.mean((predictions - wanted) ** 2))),
        "root_mean_squared_error_of_the_mean": float(np.sqrt(np.mean((learned.mean() - wanted) ** 2))),
    }


def _transcripts(predictions: Sequence[str], wanted: Sequence[str]) -> dict:
    import jiwer

    tidy = [" ".join(text.lower().split()) for text in wanted]
    return {
        "word_error_rate": jiwer.wer(tidy, list(predictions)),
        "character_error_rate": jiwer.cer(tidy, list(predictions)),
    }
