import pytest
from hypothesis import given
from hypothesis import strategies as st

from vislang.data.example import Example
from vislang.tasks.answers import accuracy, guesses, normalize, proportion


def example(question: str, *references: str) -> Example:
    return Example("x", references, question=question)


@pytest.mark.parametrize(
    ("given", "cleaned"),
    [(" A  Cat. ", "cat"), ("the red", "red"), ("another", "another"), ("a", "a"), ("An", "an"), ("No.", "no")],
)
def test_normalize(given, cleaned):
    assert normalize(given) == cleaned


def test_any_reference_counts():
    examples = [example("q", "cat", "kitten"), example("q", "dog")]
    assert accuracy(["Kitten.", "cat"], examples).value == 0.5


# Values of the Wilson interval as published: Brown, Cai and DasGupta 2001, and by hand for 0 of 10.
@pytest.mark.parametrize(
    ("hits", "n", "low", "high"), [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)]
)
def test_wilson_interval(hits, n, low, high):
    share = proportion(hits, n)
    assert (round(share.low, 4), round(share.high, 4)) == (low, high)


@given(st.integers(1, 5000), st.data())
def test_an_interval_holds_its_value(n, data):
    hits = data.draw(st.integers(0, n))
    share = proportion(hits, n)
    assert 0 <= share.low <= share.value <= share.high <= 1


def test_no_trials_no_share():
    with pytest.raises(ValueError, match="no trials"):
        proportion(0, 0)


def test_guesses_are_learnt_from_the_training_split_only():
    train = [
        example("a?", "yes"),
        example("a?", "yes"),
        example("b?", "red"),
        example("b?", "red"),
        example("b?", "no"),
    ]
    train += [example("a?", "yes")]
    test = [example("a?", "yes"), example("b?", "red"), example("new?", "yes"), example("b?", "no")]
    guessed = guesses(train, test)
    assert guessed.majority.value == 0.5
    assert guessed.majority_by_question.value == 0.75
    assert guessed.chance == pytest.approx(1 / 3)
