"""Caption scores, against numbers of the authors' program (pycocoevalcap 1.2), against sacrebleu, and by hand."""

import math
import random

import pytest
from sacrebleu.metrics import BLEU

from vislang.metrics.captions import bleu, captions, cider_d

CANDIDATES = ["a red dog on a mat", "the cat", "a small blue house on the mat", "dog"]
REFERENCES = [
    ["a red dog on a mat", "a dog on the mat", "red dog"],
    ["the small cat", "a cat on a mat"],
    ["a blue house", "a small house with a mat", "a big blue house on the mat"],
    ["a big house"],
]


def test_scores_are_those_of_the_authors_program():
    found = cider_d(CANDIDATES, REFERENCES)
    assert found == pytest.approx([5.22242174, 2.14359323, 3.35153259, 0.0], abs=1e-8)
    expected = [0.77721480, 0.73276514, 0.70218515, 0.67289789]
    assert [bleu(CANDIDATES, REFERENCES, longest) for longest in (1, 2, 3, 4)] == pytest.approx(expected, abs=1e-7)


def test_bleu_is_that_of_sacrebleu():
    rng = random.Random(0)
    vocabulary = ["a", "the", "cat", "dog", "red", "on", "mat"]

    def sentence(least):
        return " ".join(rng.choice(vocabulary) for _ in range(rng.randint(least, 7)))

    for _ in range(100):
        candidates = [sentence(0) for _ in range(rng.randint(1, 6))]
        references = [[sentence(1) for _ in range(rng.randint(1, 3))] for _ in candidates]
        columns = [[own[n] if n < len(own) else None for own in references] for n in range(max(map(len, references)))]
        for longest in (1, 2, 4):
            scorer = BLEU(tokenize="none", smooth_method="none", max_ngram_order=longest, force=True)
            expected = scorer.corpus_score(candidates, columns).score / 100
            # Where nothing matches, sacrebleu gives 0 and the authors' program a tiny number.
            assert bleu(candidates, references, longest) == pytest.approx(expected, rel=1e-6, abs=1e-3)


def test_without_a_match_bleu_is_tiny_as_in_the_authors_program():
    candidates, references = ["a dog", "the red bus"], [["my cat"], ["the blue bus", "bus"]]
    expected = [0.39999999984, 1.1547005378403918e-08, 5.108729545657488e-11, 6.0427507911886e-10]
    assert [bleu(candidates, references, longest) for longest in (1, 2, 3, 4)] == pytest.approx(expected, rel=1e-9)


def test_a_hyphen_joins_a_word_as_in_the_authors_program():
    found = cider_d(["a man in a t-shirt", "a dog"], [["a man wearing a t-shirt"], ["a dog"]])
    assert found == pytest.approx([2.916666666666666, 5.0], rel=1e-12)


def test_cider_by_hand():
    # Each word is in one of two images and has the weight log 2; one of two words is shared, and no pair of words.
    # Captions of two words have no n-grams for n = 3 and 4.
    (first, second) = cider_d(["a b", "c d"], [["a x"], ["c d"]])
    assert first == pytest.approx(10 * (1 / 2) / 4)
    assert second == pytest.approx(10 * (1 + 1) / 4)


def test_as_many_quarters_as_there_are_lengths_of_ngrams():
    texts = ["a b c d e", "f g", "h"]
    assert cider_d(texts, [[text] for text in texts]) == pytest.approx([10.0, 5.0, 2.5])


def test_a_longer_caption_is_clipped_and_loses_by_its_length():
    once, often = (cider_d([text, "z z"], [["a b c d e"], ["y y"]])[0] for text in ("a b c d e", "a b c d e a b c d e"))
    assert once == pytest.approx(10)
    assert often < once * math.exp(-(5**2) / 72) * 1.01


def test_what_cannot_be_scored_is_an_error():
    for candidates, references in (([], []), (["a"], []), (["a"], [[]])):
        with pytest.raises(ValueError, match="there must be a candidate"):
            cider_d(candidates, references)


def test_figures_of_captions():
    found = captions(CANDIDATES, REFERENCES)
    assert list(found) == ["cider_d", "exact_match", "bleu_1", "bleu_2"]
    assert found["exact_match"].value == 0.25
    assert found["cider_d"].low < found["cider_d"].value < found["cider_d"].high
    # With a single image, no n-gram is rare.
    assert "cider_d" not in captions(["a dog"], [["a dog"]])
