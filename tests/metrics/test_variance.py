"""Variance components of simulated scores whose components are known."""

import numpy as np
import pytest

from vislang.metrics.items import graded
from vislang.metrics.variance import by_cluster, mean_squares, spread

DRAWS, ORDERS, QUESTIONS = 0.1, 0.04, 0.05
"""The standard deviations of the score in :func:`simulated`, for 100 questions."""


def simulated(rng, draws, orders, questions=100):
    """Scores (draws, orders, questions) with a mean of 3."""
    effects = (
        rng.normal(0, DRAWS, (draws, 1, 1)),
        rng.normal(0, ORDERS, (draws, orders, 1)),
        rng.normal(0, 0.4, (1, 1, questions)),
        rng.normal(0, 0.2, (draws, 1, questions)),
        rng.normal(0, np.sqrt(0.05), (draws, orders, questions)),
    )
    return 3 + sum(effects)


@pytest.mark.parametrize(("draws", "orders"), [(5, 4), (5, 1), (1, 6)])
def test_components_are_found_and_intervals_cover_them(draws, orders):
    rng = np.random.default_rng(0)
    keys = [str(number) for number in range(100)]
    truth = {
        "draws": (DRAWS if orders > 1 else np.hypot(DRAWS, ORDERS)) if draws > 1 else None,
        "orders": ORDERS if orders > 1 else None,
        "questions": QUESTIONS,
    }
    found = {name: [] for name in truth}
    covered = dict.fromkeys((*truth, "mean"), 0)
    rounds = 100
    for _ in range(rounds):
        scores = simulated(rng, draws, orders)
        made = spread(scores, keys)
        for name, value in truth.items():
            component = getattr(made, name)
            assert (component is None) == (value is None)
            if component is not None:
                found[name].append(component.sd**2)
                covered[name] += component.low <= value <= component.high
        covered["mean"] += made.mean.low <= 3 <= made.mean.high
    for name, value in truth.items():
        if value is not None:
            assert np.sqrt(np.mean(found[name])) == pytest.approx(value, rel=0.15)
            assert covered[name] / rounds >= 0.9
    if draws > 1:
        assert covered["mean"] / rounds >= 0.92


def test_three_draws_give_an_interval_that_a_bootstrap_does_not():
    rng = np.random.default_rng(0)
    ours = bootstrap = 0
    for _ in range(400):
        draws = rng.normal(3, DRAWS, (3, 1, 1)) + rng.normal(0, 0.01, (3, 1, 20))
        mean = spread(draws, [str(number) for number in range(20)]).mean
        ours += mean.low <= 3 <= mean.high
        resampled = draws.mean(axis=(1, 2))[rng.integers(0, 3, (500, 3))].mean(axis=1)
        bootstrap += np.percentile(resampled, 2.5) <= 3 <= np.percentile(resampled, 97.5)
    assert ours / 400 >= 0.92
    assert bootstrap / 400 <= 0.8


def test_the_mean_squares_add_up():
    scores = simulated(np.random.default_rng(1), 3, 4, 20)
    squares = mean_squares(scores)
    assert sum(df for _, df in squares.values()) == scores.size - 1
    assert sum(value * df for value, df in squares.values()) == pytest.approx(((scores - scores.mean()) ** 2).sum())


def test_questions_about_one_image_count_as_one():
    """Five questions that are answered alike add nothing to the one."""
    rng = np.random.default_rng(2)
    one = (rng.random((3, 2, 40)) < 0.7).astype(float)
    alone = spread(one, [str(n) for n in range(40)], proportion=True)
    five = spread(np.repeat(one, 5, axis=2), [str(n) for n in range(40) for _ in range(5)], proportion=True)
    assert (five.mean.low, five.mean.high) == pytest.approx((alone.mean.low, alone.mean.high))
    assert five.mean.n == 200
    careless = spread(np.repeat(one, 5, axis=2), [str(n) for n in range(200)], proportion=True)
    assert careless.questions.sd < 0.6 * five.questions.sd
    uneven = rng.random((2, 2, 9))
    clustered = by_cluster(uneven, list("aabbbccde"))
    assert clustered.shape == (2, 2, 5)
    np.testing.assert_allclose(clustered.mean(axis=2), uneven.mean(axis=2))


def test_a_single_trial_has_the_interval_of_a_proportion():
    scores = np.array([1.0] * 30 + [0.0] * 10)[None, None]
    made = spread(scores, [str(n) for n in range(40)], proportion=True)
    assert (made.mean.low, made.mean.high) == pytest.approx((0.598, 0.858), abs=0.01)
    assert made.draws is made.orders is None
    perfect = spread(np.ones((2, 2, 40)), [str(n) for n in range(40)], proportion=True)
    assert (perfect.mean.value, perfect.mean.high, perfect.draws.sd) == (1, 1, 0)
    assert perfect.mean.low == pytest.approx(0.912, abs=0.001)
    alone = spread(np.ones((2, 2, 3)), ["same"] * 3)
    assert (alone.mean.low, alone.questions) == (None, None)


def test_scores_from_one_half_on_are_right():
    made = graded([0.0, 0.3, 0.6, 1.0])
    assert made.right.tolist() == [False, False, True, True]
    assert not made.binary
