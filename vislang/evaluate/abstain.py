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
from vislang.metrics.figure import Figure, show
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
        threshold: the least confidence of a given answer (:func:`confidence_of`); None if no threshold was found. It
            holds after each draw and order of the shots.
        calibration: number of images (without images, of texts) that the threshold was chosen on.
        coverage: the share of the other questions that are answered, the mean over draws and orders; with an interval
            over draws, orders and questions.
        risk: the share of these answers that are wrong, also the mean over draws and orders, with such an interval;
            None if no answer is given.
        by_draw: coverage and risk of each draw of the shots; the risk is None where no answer is given.
        orders: number of orders of each draw.
        curve: the risk-coverage curve of all questions, over all draws and orders; its intervals are over questions.
    """

    allowed: float
    threshold: float | None
    calibration: int
    coverage: Figure
    risk: Figure | None
    by_draw: list[tuple[float, float | None]]
    orders: int
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
            "by_draw": [{"coverage": coverage, "risk": risk} for coverage, risk in self.by_draw],
            "orders": self.orders,
            "curve": [{"coverage": point.coverage, "risk": point.risk.as_json()} for point in self.curve],
        }

    @property
    def in_words(self) -> str:
        """The result in a sentence."""
        allowed, trials = f"{100 * self.allowed:g} %", self._trials
        if self.threshold is None or self.risk is None:
            enough = math.ceil(SLACK * least_significant(self.allowed))
            fewer = "" if self.calibration >= enough else f"; give {enough} or more, or allow more wrong answers"
            return (
                f"No threshold of confidence keeps the wrong answers at {allowed} or less{trials}, judged on "
                f"{self.calibration} held-out images{fewer}."
            )
        return (
            f"At a confidence of {shown_confidence(self.threshold)} or more, at most {allowed} of the given answers "
            f"are wrong{trials} (with {100 * (1 - DELTA):g} % probability). Of the questions that it was not chosen "
            f"on, {show('answered', self.coverage)} are answered, and {show('answered', self.risk)} of these answers "
            f"are wrong{self._range}."
        )

    @property
    def _trials(self) -> str:
        """After which shots the threshold holds, if there were several."""
        draws = f" after each of the {len(self.by_draw)} draws of shots" if len(self.by_draw) > 1 else ""
        return draws if self.orders == 1 else f"{draws or ' after these shots'} in each of their {self.orders} orders"

    @property
    def _range(self) -> str:
        """The least and the greatest risk of a draw, if there were several."""
        risks = [risk for _, risk in self.by_draw if risk is not None]
        if len(self.by_draw) == 1 or not risks:
            return ""
        return f": from {100 * min(risks):.1f} to {100 * max(risks):.1f} % by draw"


def abstention(
    task: Task, examples: Sequence[Example], trials: Sequence[Sequence[Sequence[Prediction]]], allowed: float
) -> Abstention:
    """Choose a threshold on half of the images, and measure it on the other half.

    One threshold is chosen for all trials: it keeps its promise after each draw and each order of the shots that was
    measured (:func:`~vislang.metrics.selective.threshold`).

    The halves follow from the content of the images. Of several questions about an image one takes part in the
    calibration, because the guarantee is for independent questions.

    Args:
        task: scores the predictions.
        examples: examples with targets.
        trials: for each draw of shots and each of their orders, the predictions: one for each of
            ``task.ids(examples)``. Without shots there is one trial.
        allowed: the largest share of given answers that may be wrong, between 0 and 1.

    Raises:
        UserError: answers of this task are not right or wrong, a prediction has no confidence, or all questions are
            about one image.
    """
    scored = [[task.score_each(examples, own).right for own in orders] for orders in trials]
    if scored[0][0] is None or task.kind == "pairs":
        raise UserError(f"--abstain: answers to {task.name} are not right or wrong. Leave --abstain out.")
    # Both (draws, orders, predictions).
    right = np.array(scored, dtype=bool)
    confidence = np.array([[[confidence_of(each) for each in own] for own in orders] for orders in trials])
    clusters = np.array(task.clusters(examples))
    ids = [prediction.id for prediction in trials[0][0]]
    halves = np.array([_hash(key) % 2 == 0 for key in clusters])
    if halves.all() or not halves.any():
        raise UserError(f"--abstain: {task.name} has too few images to choose a threshold on half of them.")
    one_each: dict[str, int] = {}
    for index in sorted(np.flatnonzero(halves).tolist(), key=lambda index: _hash(ids[index])):
        one_each.setdefault(clusters[index], index)
    chosen = list(one_each.values())
    found = threshold(_flat(confidence)[:, chosen], ~_flat(right)[:, chosen], confidence[..., ~halves], allowed)
    given = confidence[..., ~halves] >= (math.inf if found is None else found)
    wrong = given & ~right[..., ~halves]
    repeated = np.tile(clusters, len(_flat(right)))
    return Abstention(
        allowed,
        found,
        len(chosen),
        spread(given.astype(float), clusters[~halves].tolist(), proportion=True).mean,
        _share_of_given(wrong, given, clusters[~halves]),
        [_shares(*own) for own in zip(wrong, given, strict=True)],
        confidence.shape[1],
        risk_coverage(confidence.ravel(), ~right.ravel(), repeated.tolist()),
    )


def _shares(wrong: np.ndarray, given: np.ndarray) -> tuple[float, float | None]:
    """The share of questions that are answered, and the share of these answers that are wrong; None without answers."""
    return float(given.mean()), float(wrong.sum() / given.sum()) if given.any() else None


def _flat(values: np.ndarray) -> np.ndarray:
    """Values (draws, orders, predictions) as (trials, predictions)."""
    return values.reshape(-1, values.shape[-1])


def _share_of_given(wrong: np.ndarray, given: np.ndarray, clusters: np.ndarray) -> Figure | None:
    """The share of given answers that are wrong, with its interval over draws, orders and questions; None if no answer
    is given.

    The share is a ratio of two means. Its interval is that of the mean of its linearised contributions (Woodruff 1971),
    one for each answer.

    Args:
        wrong, given: (draws, orders, questions).
        clusters: (questions,) a key for each question; questions with the same key share an image.
    """
    if not given.any():
        return None
    # In no trial do the other questions contribute.
    some = given.any(axis=(0, 1))
    wrong, given, clusters = wrong[..., some].astype(float), given[..., some].astype(float), clusters[some]
    ratio = wrong.sum() / given.sum()
    return spread(ratio + (wrong - ratio * given) / given.mean(), clusters.tolist(), proportion=True).mean


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
