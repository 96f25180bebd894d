"""The study of marks: scores counted by hand, marks of one draw inside the next, methods on vectors that separate."""

import numpy as np
import pytest

from vislang.metrics.figure import figures_as_json, mean
from vislang.studies.corrections import (
    METHODS,
    Search,
    Topic,
    linear_probe,
    markdown,
    marks_and_text,
    nearest,
    score_of,
    scores,
    searches,
    text_alone,
)


def test_scores_are_those_of_images_that_are_not_marked():
    values = np.array([3.0, 2.0, 1.0, -1.0, -2.0, 9.0])
    relevant = np.array([True, False, True, False, True, True])
    # Without the last one: shown are three, of which two are right, of three in all; right ones are at 1, 3 and 5.
    found = score_of(values, relevant, np.array([5]))
    assert found == pytest.approx((2 / 3, 2 / 3, 2 / 3, (1 + 2 / 3 + 3 / 5) / 3))
    assert score_of(-np.ones(6), relevant, np.array([5]))[:3] == (0, 0, 0)


@pytest.fixture
def topic():
    return Topic("right ones", np.arange(60) < 20, held=True)


@pytest.fixture
def vectors():
    """The right images differ from the others in a direction that the query does not have."""
    rng = np.random.default_rng(0)
    made = rng.standard_normal((60, 8)) * 0.3
    made[:20, 1] += 1.0
    made[:, 0] += 0.5
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_more_marks_contain_fewer(topic, vectors):
    query = np.eye(8)[0]
    few, many = searches(topic, vectors, query, 1, (2, 8))
    assert set(few.marked) < set(many.marked)
    assert set(many.marked) <= set(np.argsort(-(vectors @ query))[:40])
    assert (many.right == topic.relevant[many.marked]).all()
    again, _ = searches(topic, vectors, query, 1, (2, 8))
    assert (again.marked == few.marked).all()


@pytest.mark.parametrize(
    ("method", "settings"),
    [(nearest, (10.0, 0.0)), (linear_probe, (-1.0, 30.0, 0.5)), (marks_and_text, (1.0, -1.0, 30.0, 0.5))],
)
def test_marks_find_what_the_text_does_not(method, settings, topic, vectors):
    query = np.eye(8)[0]
    worlds = [(vectors, query[None])]
    alone = scores([topic], worlds, text_alone, (1.0,), True, 3, (16,))["average_precision"][0]
    assert scores([topic], worlds, method, settings, True, 3, (16,))["average_precision"][0] > alone + 0.2


def test_a_cutoff_is_a_probability(vectors):
    """What is shown has at least the probability of the cutoff under the fitted model."""
    search = Search(np.eye(8)[0], vectors, np.array([0, 40]), np.array([True, False]))
    half = marks_and_text(search, (1.0, -1.0, 30.0, 0.5))
    assert marks_and_text(search, (1.0, -1.0, 30.0, 0.2)) == pytest.approx(half + np.log(4))


def test_the_table_has_a_row_for_each_method_and_number_of_marks():
    figures = figures_as_json({name: mean([0.25, 0.25]) for name in ("precision", "recall", "f1", "average_precision")})
    table = markdown([{"method": name, "marks": 4, "figures": figures} for name in METHODS])
    assert table.count("| 4 | 25.0 (25.0 to 25.0) |") == len(METHODS)
