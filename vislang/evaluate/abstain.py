"""Abstention: from which confidence on a model should answer, by its own evaluation; see
:mod:`vislang.metrics.selective`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vislang.errors import UserError
from vislang.example import Example, Prediction
from vislang.metrics.figure import Figure, share, show
from vislang.metrics.selective import (
    DELTA,
    SLACK,
    RiskAtCoverage,
    least_significant,
    risk_coverage,
    threshold,
)
from vislang.metrics.variance import spread
from vislang.tasks.task import Task


@dataclass(frozen=True)
class Abstention:
    """When to answer, and what that is worth.

    Attributes:
        allowed: the largest share of given answers that may be wrong.
        threshold: the least confidence of a given answer (:func:`confidence_of`); None if no threshold was found.
        calibration: number of images (without images, of texts) that the threshold was chosen on.
        coverage: the share of the other questions that are answered.
        risk: the share of these answers that are wrong; None if none is given.
        curve: the risk-coverage curve of all questions.
    """

    allowed: float
    threshold: float | None
    calibration: int
    coverage: Figure
    risk: Figure | None
    curve: list[RiskAtCoverage]

    def as_json(self) -> dict[str, Any]:
        """The abstention as JSON values."""
        return {
            "allowed": self.allowed,
            "probability": 1 - DELTA,
            "threshold": self.threshold,
            "calibration": self.calibration,
            "coverage": self.coverage.as_json(),
            "risk": None if self.risk is None else self.risk.as_json(),
            "curve": [{"coverage": point.coverage, "risk": point.risk.as_json()} for point in self.curve],
        }

    @property
    def in_words(self) -> str:
        """The result in a sentence."""
        allowed = f"{100 * self.allowed:g} %"
        if self.threshold is None or self.risk is None:
            enough = math.ceil(SLACK * least_significant(self.allowed))
            fewer = "" if self.calibration >= enough else f"; give {enough} or more, or allow more wrong answers"
            return (
                f"No threshold of confidence keeps the wrong answers at {allowed} or less, judged on "
                f"{self.calibration} held-out images{fewer}."
            )
        return (
            f"At a confidence of {shown_confidence(self.threshold)} or more, at most {allowed} of the given answers "
            f"are wrong (with {100 * (1 - DELTA):g} % probability). Of the questions that it was not chosen on, "
            f"{show('answered', self.coverage)} are answered, and {show('answered', self.risk)} of these answers are "
            "wrong."
        )


def abstention(
    task: Task, examples: Sequence[Example], predictions: Sequence[Prediction], allowed: float
) -> Abstention:
    """Choose a threshold on half of the images, and measure it on the other half.

    The halves follow from the content of the images. Of several questions about an image one takes part in the
    calibration, because the guarantee is for independent questions.

    Args:
        task: scores the predictions.
        examples: examples with targets.
        predictions: one for each of ``task.ids(examples)``.
        allowed: the largest share of given answers that may be wrong, between 0 and 1.

    Raises:
        UserError: answers of this task are not right or wrong, a prediction has no confidence, or all questions are
            about one image.
    """
    right = task.score_each(examples, predictions).right
    if right is None or task.kind == "pairs":
        raise UserError(f"--abstain: answers to {task.name} are not right or wrong. Leave --abstain out.")
    confidence = np.array([confidence_of(prediction) for prediction in predictions])
    clusters = task.clusters(examples)
    halves = np.array([_hash(key) % 2 == 0 for key in clusters])
    if halves.all() or not halves.any():
        raise UserError(f"--abstain: {task.name} has too few images to choose a threshold on half of them.")
    one_each: dict[str, int] = {}
    for index in sorted(np.flatnonzero(halves).tolist(), key=lambda index: _hash(predictions[index].id)):
        one_each.setdefault(clusters[index], index)
    chosen = list(one_each.values())
    found = threshold(confidence[chosen], ~right[chosen], confidence[~halves], allowed)
    others = np.flatnonzero(~halves)
    given = others if found is None else others[confidence[others] >= found]
    given = given[:0] if found is None else given
    wrong = spread(1.0 - right[given][None, None], [clusters[i] for i in given], True).mean if len(given) else None
    return Abstention(
        allowed,
        found,
        len(chosen),
        share(len(given), len(others)),
        wrong,
        risk_coverage(confidence, ~right, clusters),
    )


def confidence_of(prediction: Prediction) -> float:
    """How sure a model is of its answer; greater is surer, and only compared between predictions of one way.

    Ranked answers and those of heads: the logarithm of the answer's probability among its candidates. Generated texts:
    their log-likelihood. Matched answers: by how much the best similarity exceeds the second one. A prediction without
    an answer has minus infinity.

    Raises:
        UserError: the prediction has no scores, as in a submission file.
    """
    if prediction.answer is None:
        return -math.inf
    if prediction.log_likelihood is not None:
        return prediction.log_likelihood
    if prediction.answer not in prediction.candidates:
        raise UserError(f"--abstain: prediction {prediction.id} has no scores, so nothing says how sure it is.")
    best = prediction.scores[prediction.candidates.index(prediction.answer)]
    if prediction.kind == "log_likelihood":
        top = max(prediction.scores)
        return best - top - math.log(math.fsum(math.exp(score - top) for score in prediction.scores))
    if prediction.kind == "probability":
        return math.log(max(best, 1e-300))
    others = sorted(prediction.scores)[:-1]
    return best - others[-1] if others else best


def probability_of(prediction: Prediction) -> float | None:
    """The probability that a model gives to its answer: among its candidates, or of a generated text its likelihood;
    None for matched answers, whose similarities are no probabilities, and without an answer.

    Raises:
        UserError: see :func:`confidence_of`.
    """
    if prediction.answer is None or (prediction.log_likelihood is None and prediction.kind == "similarity"):
        return None
    return min(1.0, math.exp(confidence_of(prediction)))


def shown_confidence(confidence: float) -> str:
    """A confidence as text; a logarithm of a probability as the probability."""
    return f"{math.exp(confidence):.3g}" if confidence <= 0 else f"{confidence:.3g}"


def _hash(key: str) -> int:
    return int.from_bytes(hashlib.sha256(f"calibration {key}".encode()).digest()[:8], "big")
