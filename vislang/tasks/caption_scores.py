"""Scoring captions: CIDEr-D (Vedantam et al. 2015), BLEU (Papineni et al. 2002, by sacrebleu) and exact match.

Words are runs of letters and digits in lower case; the authors' own scorer splits by the Penn Treebank's rules, whose
program needs Java. On captions without contractions and abbreviations both give the same words.
"""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from vislang.errors import UserError

MOST = 4
"""The longest n-grams that are counted."""

SIGMA = 6.0
"""Of the penalty for a length that is not the reference's, in words."""

Ngrams = Counter[tuple[str, ...]]


def words(text: str) -> list[str]:
    """The words of a caption."""
    return re.findall(r"\w+", text.lower())


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each candidate, as the authors scale it: 2.5 for each length of n-grams, one to four words, in which a
    candidate equals its only reference. So 10 is reached by captions of four words and more, and one of two words that
    is right word by word has 5.

    Each n-gram weighs as much as it is rare among the references of all candidates, so that a score is comparable only
    to others on the same references; of a single image nothing is rare, and the score is 0.

    Args:
        candidates: one caption an image.
        references: the captions that people gave to each image, at least one.

    Raises:
        ValueError: no candidates, unequal numbers, or an image without references.
    """
    if not candidates or len(candidates) != len(references) or any(not each for each in references):
        raise ValueError("as many candidates as lists of references are needed, at least one, and none of them empty.")
    counted = [[_ngrams(reference) for reference in each] for each in references]
    occurs: Counter[tuple[str, ...]] = Counter()
    for each in counted:
        occurs.update({gram for ngrams in each for gram in ngrams})
    images = math.log(len(references))
    scores = []
    for candidate, each in zip(candidates, counted, strict=True):
        said = _weighted(_ngrams(candidate), occurs, images)
        found = [_likeness(said, _weighted(reference, occurs, images)) for reference in each]
        scores.append(10 * float(np.mean(found)))
    return scores


class _Vector:
    """An n-gram vector of a caption: weights by length of n-gram, their norms, and the caption's length in words."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[tuple[str, ...], float]] = defaultdict(dict)
        self.norms = [0.0] * (MOST + 1)
        self.length = 0


def _ngrams(text: str) -> Ngrams:
    said = words(text)
    return Counter(
        tuple(said[start : start + size]) for size in range(1, MOST + 1) for start in range(len(said) - size + 1)
    )


def _weighted(ngrams: Ngrams, occurs: Counter[tuple[str, ...]], images: float) -> _Vector:
    vector = _Vector()
    for gram, count in ngrams.items():
        weight = count * (images - math.log(max(1.0, occurs[gram])))
        vector.weights[len(gram)][gram] = weight
        vector.norms[len(gram)] += weight**2
        # The authors' program counts bigrams as the length; one word fewer on both sides changes nothing.
        vector.length += count if len(gram) == 2 else 0
    return vector


def _likeness(said: _Vector, reference: _Vector) -> float:
    """The mean over n of clipped cosine similarities, times the penalty for length."""
    total = 0.0
    for size in range(1, MOST + 1):
        norms = math.sqrt(said.norms[size]) * math.sqrt(reference.norms[size])
        shared = sum(
            min(weight, reference.weights[size].get(gram, 0.0)) * reference.weights[size].get(gram, 0.0)
            for gram, weight in said.weights[size].items()
        )
        total += shared / norms if norms else shared
    return total / MOST * math.exp(-((said.length - reference.length) ** 2) / (2 * SIGMA**2))


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]], most: int = MOST) -> float:
    """Corpus BLEU from 0 to 1, without smoothing: 0 where no n-gram of the longest kind is shared.

    Args:
        candidates: one caption an image.
        references: captions of each image.
        most: the longest n-grams that count; 4 is the custom, of captions of few words fewer tell more.
    """
    try:
        from sacrebleu.metrics import BLEU
    except ImportError:
        raise UserError("BLEU needs sacrebleu. Run: pip install 'vislang[eval]'") from None

    widest = max(len(each) for each in references)
    # sacrebleu wants as many references of each; None is passed over.
    columns: list[Any] = [
        [" ".join(words(each[place])) if place < len(each) else None for each in references] for place in range(widest)
    ]
    scorer = BLEU(tokenize="none", smooth_method="none", max_ngram_order=most, force=True)
    return scorer.corpus_score([" ".join(words(text)) for text in candidates], columns).score / 100


def interval(scores: Sequence[float], rounds: int = 2000) -> tuple[float, float]:
    """The 95 % interval of a mean, by drawing the items again and again (Efron 1979)."""
    values = np.asarray(scores, dtype=float)
    chance = np.random.default_rng(0)
    means = values[chance.integers(0, len(values), (rounds, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
