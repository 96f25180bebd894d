"""The threshold keeps its promise on simulated data, and the risk-coverage curve is right."""

import numpy as np
import pytest

from vislang.metrics.selective import DELTA, binomial_tail, least_significant, risk_coverage, threshold


@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_at_most_the_stated_share_of_answers_is_wrong(risk):
    """An answer of confidence c is wrong with probability 0.6 (1 - c)^2, so 0.2 (1 - t)^2 are wrong from t on."""
    rng = np.random.default_rng(0)
    violated, coverages, rounds = 0, [], 150
    for _ in range(rounds):
        confidence, grid = rng.random(800), rng.random(800)
        wrong = rng.random(800) < 0.6 * (1 - confidence) ** 2
        found = threshold(confidence[None], wrong[None], grid, risk)
        if found is not None:
            violated += 0.2 * (1 - found) ** 2 > risk
            coverages.append(1 - found)
    assert violated / rounds <= DELTA + 0.02
    # Half of the questions may be answered at 5 %, and all at 20 %.
    assert len(coverages) > 0.8 * rounds
    assert np.mean(coverages) > (0.33 if risk == 0.05 else 0.9)


def test_a_threshold_that_fits_the_calibration_breaks_the_promise():
    """Why the observed error is not enough: at a risk of exactly 5 %, it is below 5 % about half of the time."""
    rng = np.random.default_rng(1)
    naive = ours = 0
    for _ in range(200):
        wrong = rng.random(300) < 0.0501
        naive += wrong.mean() <= 0.05
        ours += threshold(np.zeros((1, 300)), wrong[None], np.zeros(300), 0.05) is not None
    assert naive > 80
    assert ours / 200 <= DELTA + 0.03


def test_no_threshold_without_enough_answers():
    assert least_significant(0.05) == 59
    assert binomial_tail(0, 59, 0.05) <= 0.05 < binomial_tail(0, 58, 0.05)
    for count, expected in ((58, None), (59, 0)):
        confidence = np.arange(float(count))[None]
        assert threshold(confidence, np.zeros((1, count), dtype=bool), confidence, 0.05) == expected
    # A question without an answer is never answered.
    confidence = np.where(np.arange(400) < 40, -np.inf, np.arange(400.0))[None]
    assert threshold(confidence, np.zeros((1, 400), dtype=bool), confidence, 0.05) > 0


def test_the_promise_holds_after_every_draw_at_once():
    """One draw of three makes more errors than the others. A threshold from another draw, or from all answers
    together, breaks the promise for it; ours keeps it."""
    rng = np.random.default_rng(2)
    rates = np.array([0.5, 0.5, 1.2])

    def risk(found: float | None) -> float:
        """The true risk of the worst draw; see the first test."""
        return 0.0 if found is None else rates.max() / 3 * (1 - found) ** 2

    first, pooled, ours, answered = 0, 0, 0, []
    for _ in range(60):
        confidence, grid = rng.random(800), rng.random(800)
        # The same questions, and answers that agree in part.
        wrong = rng.random(800) < rates[:, None] * (1 - confidence) ** 2
        each = np.tile(confidence, (3, 1))
        first += risk(threshold(each[:1], wrong[:1], grid, 0.1)) > 0.1
        pooled += risk(threshold(each.reshape(1, -1), wrong.reshape(1, -1), grid, 0.1)) > 0.1
        found = threshold(each, wrong, grid, 0.1)
        ours += risk(found) > 0.1
        answered += [] if found is None else [1 - found]
    assert first > 50
    assert pooled > 50
    assert ours / 60 <= DELTA + 0.03
    # At most half of the questions may be answered.
    assert len(answered) > 50
    assert np.mean(answered) > 0.35


def test_the_curve_by_hand():
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    wrong = np.array([False, True, False, True])
    curve = risk_coverage(confidence, wrong, list("abcd"), points=4)
    assert [point.coverage for point in curve] == [0.25, 0.5, 0.75, 1.0]
    assert [point.risk.value for point in curve] == pytest.approx([0, 1 / 2, 1 / 3, 1 / 2])
    assert all(point.risk.low <= point.risk.value <= point.risk.high for point in curve)
    # Equal confidences share their errors, so that the order of records has no effect.
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        tied = risk_coverage(np.zeros(4), wrong[order], list("abcd"), points=2)
        assert [point.risk.value for point in tied] == [0.5, 0.5]
    assert risk_coverage(confidence, wrong, ["same"] * 4)[0].risk.low is None
