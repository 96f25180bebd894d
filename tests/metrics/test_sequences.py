import pytest

from vislang.metrics.sequences import tagging, transcripts


def test_error_rates_are_over_all_words_and_characters():
    found = transcripts(["a cat", "go"], ["A  dog", "go home now"])
    assert found["word_error_rate"].value == pytest.approx(3 / 5)
    assert found["character_error_rate"].value == pytest.approx((3 + 9) / (5 + 11))


def test_tags_are_compared_word_by_word():
    found = tagging(["N V", "V N"], ["N N", "V V"])
    assert (found["accuracy"].value, found["accuracy"].n) == (pytest.approx(2 / 4), 4)


@pytest.mark.parametrize(("predicted", "right"), [("", 0), ("N", 1), ("N V N N", 2)])
def test_a_word_without_a_tag_counts_as_wrong(predicted, right):
    found = tagging([predicted], ["N V V"])
    assert (found["accuracy"].value, found["accuracy"].n) == (pytest.approx(right / 3), 3)
