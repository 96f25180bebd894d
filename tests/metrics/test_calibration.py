"""Calibration by hand, and of answers whose probabilities are right."""

import numpy as np
import pytest

from vislang.metrics.calibration import expected_calibration_error, reliability


def test_bins_by_hand():
    probabilities = np.array([0.0, 0.1, 0.11, 0.95, 1.0, 0.99])
    right = np.array([False, True, False, True, True, False])
    bins = reliability(probabilities, right)
    assert [(own.low, own.high, own.right.n) for own in bins] == [(0.0, 0.1, 2), (0.1, 0.2, 1), (0.9, 1.0, 3)]
    assert [own.right.value for own in bins] == [0.5, 0.0, pytest.approx(2 / 3)]
    assert [own.probability for own in bins] == [0.05, 0.11, pytest.approx(0.98)]
    by_hand = (2 * 0.45 + 1 * 0.11 + 3 * abs(0.98 - 2 / 3)) / 6
    assert expected_calibration_error(bins) == pytest.approx(by_hand)


def test_a_calibrated_model_has_no_error_and_a_sure_one_that_of_its_mistakes():
    rng = np.random.default_rng(0)
    probabilities = rng.random(200_000)
    right = rng.random(200_000) < probabilities
    assert expected_calibration_error(reliability(probabilities, right)) < 0.005
    sure = reliability(np.ones(200_000), right)
    assert expected_calibration_error(sure) == pytest.approx(1 - right.mean())
