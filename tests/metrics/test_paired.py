"""Paired differences and McNemar's test, against scipy and enumeration."""

import itertools

import numpy as np
import pytest
from scipy.stats import binomtest

from vislang.metrics import paired
from vislang.metrics.paired import bootstrap_difference, mcnemar


def test_mcnemar_is_the_binomial_test_without_shared_images():
    first = np.array([True] * 9 + [False] * 2 + [True] * 20 + [False] * 5)
    second = np.array([False] * 9 + [True] * 2 + [True] * 20 + [False] * 5)
    found = mcnemar(first, second, [str(n) for n in range(36)])
    assert (found.only_first, found.only_second, found.exact) == (9, 2, True)
    assert found.p == pytest.approx(binomtest(2, 11, 0.5).pvalue)
    assert mcnemar(first, first, ["x"] * 36).p == 1


def test_questions_about_one_image_are_one_unit():
    rng = np.random.default_rng(0)
    clusters = [str(n // 3) for n in range(24)]
    first, second = rng.random(24) < 0.8, rng.random(24) < 0.4
    sums = (first.astype(int) - second).reshape(8, 3).sum(axis=1)
    totals = [abs(np.dot(signs, sums)) for signs in itertools.product((1, -1), repeat=8)]
    expected = np.mean([total >= abs(sums.sum()) for total in totals])
    assert mcnemar(first, second, clusters).p == pytest.approx(expected)


def test_the_approximation_agrees_with_the_exact_value(monkeypatch):
    rng = np.random.default_rng(1)
    first, second = rng.random(900) < 0.75, rng.random(900) < 0.7
    clusters = [str(n // 2) for n in range(900)]
    exact = mcnemar(first, second, clusters)
    monkeypatch.setattr(paired, "EXACT", 10)
    near = mcnemar(first, second, clusters)
    assert (exact.exact, near.exact) == (True, False)
    # The exact test counts the observed sum in full, the approximation half of it: here 3 %.
    assert near.p == pytest.approx(exact.p, abs=0.04)


def test_the_bootstrap_covers_the_difference_of_clustered_questions(monkeypatch):
    monkeypatch.setattr(paired, "ROUNDS", 1000)
    rng = np.random.default_rng(2)
    clusters = [str(n // 5) for n in range(200)]
    covered = careless = 0
    for _ in range(60):
        differences = np.repeat(rng.normal(0.1, 1, 40), 5) + rng.normal(0, 0.1, 200)
        found = bootstrap_difference(differences, clusters)
        covered += found.low <= 0.1 <= found.high
        alone = bootstrap_difference(differences, [str(n) for n in range(200)])
        careless += alone.low <= 0.1 <= alone.high
    assert covered >= 53
    assert careless < 45
    assert bootstrap_difference(np.ones(3), ["a"] * 3).low is None
