"""Recall by hand, ties, captions that are the same."""

import numpy as np
import pytest

from vislang.errors import UserError
from vislang.metrics.retrieval import belonging, ranks, recalls_at


def values(scores, texts, image_of):
    found = recalls_at(*ranks(scores, belonging(texts, image_of, len(scores))))
    return {name: figure.value for name, figure in found.items()}


def test_recall_both_ways_by_hand():
    """Two images with two captions each; the second image's captions rank first and last for it."""
    scores = np.array([[0.9, 0.1, 0.8, 0.3], [0.2, 0.5, 0.7, 0.4]])
    found = values(scores, ["a", "b", "c", "d"], [0, 0, 1, 1])
    # Captions: a finds image 0; b finds image 1 first (wrong); c finds image 0 first (wrong); d finds image 1.
    assert found["recall_at_1_text_to_image"] == 0.5
    assert found["recall_at_5_text_to_image"] == 1
    # Image 0's best caption is a, correctly; image 1's is c, correctly.
    assert found["recall_at_1_image_to_text"] == 1


def test_ties_go_against_the_model_and_what_was_not_scored_is_last():
    assert values(np.zeros((2, 2)), ["a", "b"], [0, 1])["recall_at_1_text_to_image"] == 0
    found = values(np.array([[-np.inf, 0.5], [-np.inf, 0.4]]), ["a", "b"], [0, 1])
    assert found["recall_at_1_text_to_image"] == 0
    assert found["recall_at_5_text_to_image"] == 1


def test_captions_of_the_same_words_count_as_each_others():
    found = values(np.array([[0.1, 0.1], [0.9, 0.9]]), ["A cat", "a cat"], [0, 1])
    assert found["recall_at_1_text_to_image"] == 1


def test_scores_that_are_not_numbers_are_an_error():
    with pytest.raises(UserError, match="not numbers"):
        values(np.full((2, 2), np.nan), ["a", "b"], [0, 1])
