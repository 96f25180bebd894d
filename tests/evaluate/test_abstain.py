"""A threshold for all draws of shots: what is answered, what of it is wrong, and with which intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vislang.document import Document
from vislang.evaluate.abstain import _hash, _share_of_given, abstention
from vislang.evaluate.few_shot import FewShotEvaluation, concluded, point_of
from vislang.evaluate.shots import Setting, Trial
from vislang.example import Answers, Example, Prediction
from vislang.metrics.variance import spread
from vislang.tasks.task import ReadTask

TASK = ReadTask("letters", "", "answers", frozenset(), {}, "test", None)
COUNT = 240


def example(number: int) -> Example:
    return Example(str(number), Document([f"{number}?"]), Answers({"a": 1.0}))


EXAMPLES = [example(number) for number in range(COUNT)]


def predicted(errors: float, seed: int) -> list[Prediction]:
    """Answers of which the given share of the unsure ones is wrong; half of them are sure."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(COUNT):
        sure = 0.9 + 0.09 * rng.random() if number % 2 else 0.5 + 0.09 * rng.random()
        right = number % 2 or rng.random() >= errors
        answer, other = ("a", "b") if right else ("b", "a")
        found.append(Prediction(str(number), answer, (answer, other), (sure, 1 - sure), "probability"))
    return found


def test_one_threshold_for_all_draws():
    good, bad = predicted(0.0, 1), predicted(0.6, 2)
    alone = abstention(TASK, EXAMPLES, [[good]], 0.1)
    assert math.exp(alone.threshold) < 0.6
    assert (alone.coverage.value, alone.risk.value) == (pytest.approx(1, abs=0.02), 0)
    assert "draw" not in alone.in_words
    both = abstention(TASK, EXAMPLES, [[good], [bad]], 0.1)
    # After the second draw, unsure answers are wrong too often.
    assert math.exp(both.threshold) > 0.58
    assert both.coverage.value == pytest.approx(0.5, abs=0.1)
    assert both.calibration == alone.calibration
    assert "after each of the 2 draws of shots" in both.in_words
    hopeless = abstention(TASK, EXAMPLES, [[good], [_wrong(bad)]], 0.1)
    assert hopeless.threshold is None
    assert (hopeless.coverage.value, hopeless.risk) == (0, None)
    assert hopeless.by_draw == [(0, None), (0, None)]
    assert "after each of the 2 draws of shots" in hopeless.in_words


def _wrong(predictions: list[Prediction]) -> list[Prediction]:
    return [Prediction(own.id, "b", ("b", "a"), own.scores, own.kind) for own in predictions]


def test_shares_are_means_over_trials_with_intervals_over_draws():
    draws = [[predicted(0.5, 10 * draw + order) for order in range(2)] for draw in range(3)]
    found = abstention(TASK, EXAMPLES, draws, 0.45)
    assert found.orders == 2
    assert "after each of the 3 draws of shots in each of their 2 orders" in found.in_words
    confidence = np.array([[[math.log(p.scores[0]) for p in own] for own in orders] for orders in draws])
    wrong = np.array([[[p.answer == "b" for p in own] for own in orders] for orders in draws])
    measured = [n for n in range(COUNT) if n not in _calibration(found)]
    given = confidence[..., measured] >= found.threshold
    bad = given & wrong[..., measured]
    assert found.coverage.value == pytest.approx(given.mean())
    assert found.risk.value == pytest.approx(bad.sum() / given.sum())
    assert [coverage for coverage, _ in found.by_draw] == pytest.approx([own.mean() for own in given])
    risks = [b.sum() / g.sum() for b, g in zip(bad, given, strict=True)]
    assert [risk for _, risk in found.by_draw] == pytest.approx(risks)
    assert found.risk.low < min(risks) <= max(risks) < found.risk.high
    expected = spread(given.astype(float), [str(n) for n in measured], proportion=True).mean
    assert (found.coverage.low, found.coverage.high) == pytest.approx((expected.low, expected.high))


def _calibration(found) -> set[int]:
    """The questions that the threshold was chosen on; without images, each is its own cluster."""
    chosen = {n for n, key in enumerate(TASK.clusters(EXAMPLES)) if _hash(key) % 2 == 0}
    assert len(chosen) == found.calibration
    return chosen


def test_the_interval_of_the_risk_covers_it():
    """Each draw has its own rate of errors, whose mean is known; some questions are not answered."""
    rng, covered, rounds = np.random.default_rng(5), 0, 60
    for _ in range(rounds):
        rates = rng.uniform(0.1, 0.5, (4, 1, 1))
        given = rng.random((4, 1, 120)) < 0.7
        found = _share_of_given(given & (rng.random((4, 1, 120)) < rates), given, np.arange(120).astype(str))
        covered += found.low <= 0.3 <= found.high
    assert covered / rounds >= 0.88
    # For the draws alone, the interval would be far too narrow.
    assert found.high - found.low > 2 * 1.96 * (0.3 * 0.7 / 480) ** 0.5


def test_each_plain_setting_is_calibrated_on_all_its_trials():
    trials = {Trial(draw, 0): predicted(0.4, draw) for draw in range(3)}
    points = [point_of(TASK, EXAMPLES, Setting(4, variant=variant), trials) for variant in ("plain", "blind")]
    found = concluded(TASK, EXAMPLES, points, {}, 0.3)
    plain, blind = found.points
    assert blind.abstention is None
    expected = abstention(TASK, EXAMPLES, [[own] for own in trials.values()], 0.3)
    assert plain.abstention.as_json() == expected.as_json()
    assert len(plain.abstention.as_json()["by_draw"]) == 3
    assert isinstance(found, FewShotEvaluation)
    assert any("after each of the 3 draws" in sentence for sentence in found.sentences())
