import pytest

from vislang.metrics.accuracy import correct, exact_match, normalize, soft_score


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [(" A  Cat. ", "cat"), ("the red", "red"), ("another", "another"), ("a", "a"), ("An", "an"), ("No.", "no")],
)
def test_normalize(given, cleaned):
    assert normalize(given) == cleaned


def test_any_reference_counts():
    assert correct("Kitten.", ("cat", "kitten"))
    assert exact_match(["Kitten.", "cat"], [("cat", "kitten"), ("dog",)]).value == 0.5


def test_a_soft_score_is_that_of_the_normalized_answer():
    assert soft_score("The Cat", {"cat": 0.6, "dog": 1.0}) == 0.6
    assert soft_score("bird", {"cat": 0.6}) == 0
