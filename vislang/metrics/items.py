"""The score of each single prediction. Figures are means over all of them; paired comparisons, variance components and
abstention need them one by one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vislang.boxes import Box
from vislang.errors import UserError
from vislang.example import Example, Label, Prediction, Text, Value
from vislang.metrics.accuracy import correct
from vislang.metrics.boxes import hit
from vislang.metrics.by_kind import are_recordings, kind_of_all, numbers_of, score_of
from vislang.metrics.captions import cider_d
from vislang.metrics.sequences import tagging

RIGHT = 0.5
"""An answer with at least this score counts as right."""


@dataclass(frozen=True)
class Items:
    """The scores of single predictions.

    Attributes:
        metric: the metric of the scores.
        scores: (predictions,) the score of each.
        right: (predictions,) whether each counts as right; None if answers of this kind are not right or wrong.
    """

    metric: str
    scores: np.ndarray
    right: np.ndarray | None

    @property
    def binary(self) -> bool:
        """Whether all scores are 0 or 1, so that their mean is a proportion."""
        return bool(np.isin(self.scores, (0.0, 1.0)).all())


def graded(scores: Sequence[float], metric: str = "accuracy") -> Items:
    """Items with scores from 0 to 1, of which those of :data:`RIGHT` and more are right."""
    values = np.asarray(scores, dtype=float)
    return Items(metric, values, values >= RIGHT)


def items(examples: Sequence[Example], predictions: Sequence[Prediction]) -> Items:
    """The score of each prediction, by the kind of target.

    Answers, choices, labels and boxes: ``accuracy``. Captions: ``cider_d``, and an answer that equals a reference is
    right; transcripts: ``exact_match``. Values: ``mae``, the absolute error, and no answer is right or wrong.

    Args:
        examples: each with a target, all of one kind.
        predictions: one for each example, in their order.

    Raises:
        UserError: see :func:`vislang.metrics.by_kind.score`.
    """
    kind = kind_of_all(examples)
    unknown = [example.name for example in examples if example.target is None]
    if kind == "none" or unknown:
        raise UserError(f"{', '.join(unknown[:5]) or 'no records'}: cannot be scored without a target.")
    if kind == "value":
        numbers, _ = numbers_of(predictions)
        truth = [example.target.number for example in examples if isinstance(example.target, Value)]
        return Items("mae", np.abs(np.subtract(numbers, truth)), None)
    if kind == "text":
        references = [example.target.references for example in examples if isinstance(example.target, Text)]
        texts = ["" if p.answer is None else str(p.answer) for p in predictions]
        right = np.array([correct(text, own) for text, own in zip(texts, references, strict=True)])
        if len(texts) < 2 or are_recordings(examples):
            return Items("exact_match", right.astype(float), right)
        return Items("cider_d", np.asarray(cider_d(texts, references)), right)
    if kind == "box":
        return graded([_hits(prediction, example) for prediction, example in zip(predictions, examples, strict=True)])
    return graded([_score(prediction, example) for prediction, example in zip(predictions, examples, strict=True)])


def _hits(prediction: Prediction, example: Example) -> float:
    assert isinstance(example.target, Box)
    return float(isinstance(prediction.answer, Box) and hit([prediction.answer], example.target))


def _score(prediction: Prediction, example: Example) -> float:
    """The score of an answer; of a tag for each word, the share of words that are right."""
    target = example.target
    if isinstance(target, Label) and not example.media and len(target.name.split()) > 1:
        return tagging([str(prediction.answer or "")], [target.name])["accuracy"].value
    return score_of(prediction.answer, example)
