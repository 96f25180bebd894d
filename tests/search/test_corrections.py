"""Corrections by marks: the fit against scikit-learn, no marks, and one vector for all images."""

from __future__ import annotations

import numpy as np
import pytest

from vislang.search.corrections import Prior, correct, fit, sigmoid, spread


@pytest.fixture
def unit():
    rows = np.random.default_rng(0).standard_normal((200, 12))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_without_marks_the_order_is_that_of_the_query(unit):
    query = unit[0]
    found = correct(query, np.empty((0, 12)), np.empty(0), unit)
    np.testing.assert_array_equal(np.argsort(unit @ found.vector), np.argsort(unit @ query))
    prior = Prior()
    similarity = unit @ query
    expected = prior.score_weight * (similarity - similarity.mean()) / similarity.std() + prior.bias
    np.testing.assert_allclose(found.probabilities(unit @ found.vector), sigmoid(expected), atol=1e-5)


def test_the_fit_is_logistic_regression(unit):
    """Without an offset and with a bias that is not free, it is scikit-learn's."""
    from sklearn.linear_model import LogisticRegression

    right = (unit[:40, 0] > 0.1).astype(float)
    dual = fit(5.0 * unit[:40] @ unit[:40].T, np.zeros(40), right)
    peer = LogisticRegression(C=5.0, fit_intercept=False, tol=1e-10, max_iter=1000).fit(unit[:40], right)
    np.testing.assert_allclose(5.0 * unit[:40].T @ dual, peer.coef_[0], atol=1e-4)


def test_marks_change_probabilities_in_their_direction(unit):
    query, marked, right = unit[0], unit[5:9], np.array([1, 0, 1, 0])
    # With a low prior, right marks raise all probabilities.
    prior = Prior(bias=-2.0, variance=30.0)
    before = correct(query, unit[:0], right[:0], unit, prior)
    after = correct(query, marked, right, unit, prior)
    change = after.probabilities(marked @ after.vector) - before.probabilities(marked @ before.vector)
    assert ((change > 0) == right.astype(bool)).all()


def test_extreme_marks_converge(unit):
    """Marks that contradict each other, and many of one kind."""
    for marked, right in ((unit[[3, 3]], np.array([1, 0])), (unit, np.ones(200)), (unit, np.zeros(200))):
        prior = Prior(variance=1e4)
        kernel = prior.variance * marked @ marked.T + prior.bias_variance
        dual = fit(kernel, np.full(len(right), -5.0), right.astype(float))
        np.testing.assert_allclose(dual, right - sigmoid(kernel @ dual - 5.0), atol=1e-6)


def test_the_sample_is_spread_over_the_index():
    assert list(spread(3)) == [0, 1, 2]
    rows = spread(10**6)
    assert (rows[0], rows[-1], len(rows)) == (0, 10**6 - 1, 2048)
