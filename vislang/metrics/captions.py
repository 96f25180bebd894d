"""Captions: CIDEr-D (Vedantam et al. 2015), BLEU (Papineni et al. 2002) and exact match.

The scores are those of the COCO caption evaluation (Chen et al. 2015), with its words (:mod:`vislang.metrics.ptb`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from vislang.metrics.accuracy import exact_match
from vislang.metrics.figure import Figures, mean, plain
from vislang.metrics.ptb import words

LONGEST = 4
"""Length of the longest n-grams, in words."""

_TINY, _SMALL = 1e-15, 1e-9
"""Added to the counts of BLEU by the authors' program: a precision without a match is tiny, and not 0."""

SIGMA = 6.0
"""Width of CIDEr-D's Gaussian penalty on the difference in length, in words."""

METRICS = ("cider_d", "exact_match", "bleu_1", "bleu_2")

COCO_METRICS = ("cider_d", "bleu_1", "bleu_2", "bleu_3", "bleu_4")
"""Those of the COCO caption evaluation, without METEOR, ROUGE-L and SPICE."""

Ngrams = Counter[tuple[str, ...]]


def captions(predicted: Sequence[str], references: Sequence[Sequence[str]]) -> Figures:
    """``cider_d``, ``exact_match``, ``bleu_1`` and ``bleu_2``.

    CIDEr-D of a single image is left out, because it is always 0.

    Args:
        predicted: a caption for each image.
        references: the reference captions of each image, at least one.
    """
    found = {**coco_scores(predicted, references, longest=2), "exact_match": exact_match(predicted, references)}
    return {name: found[name] for name in METRICS if name in found}


def coco_scores(predicted: Sequence[str], references: Sequence[Sequence[str]], longest: int = LONGEST) -> Figures:
    """``cider_d``, and ``bleu_1`` up to ``longest``, as for MS COCO.

    CIDEr-D of a single image is left out, because it is always 0.

    Args:
        predicted: a caption for each image.
        references: the reference captions of each image, at least one.
        longest: greatest length of n-grams of BLEU.
    """
    scores = cider_d(predicted, references)
    return {
        **({"cider_d": mean(scores)} if len(scores) > 1 else {}),
        **{
            f"bleu_{size}": plain(value, len(references))
            for size, value in enumerate(bleus(predicted, references, longest), start=1)
        },
    }


def cider_d(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> list[float]:
    """CIDEr-D of each candidate, on the authors' scale: 2.5 for each n-gram length from 1 to 4 in which a candidate
    equals its only reference. So correct captions of four or more words get 10, and of two words 5.

    N-grams that are rare among the references of all images have more weight, so scores are comparable only on the same
    references.

    Args:
        candidates: a caption for each image.
        references: the reference captions of each image, at least one.

    Raises:
        ValueError: there are no candidates, numbers differ, or an image has no references.
    """
    if not candidates or len(candidates) != len(references) or any(not own for own in references):
        raise ValueError("each candidate needs a list of references that is not empty, and there must be a candidate.")
    counted = [[_ngrams(reference) for reference in own] for own in references]
    occurs: Ngrams = Counter()
    for own in counted:
        occurs.update({gram for ngrams in own for gram in ngrams})
    images = math.log(len(references))
    scores = []
    for candidate, own in zip(candidates, counted, strict=True):
        vector = _weighted(_ngrams(candidate), occurs, images)
        found = [_similarity(vector, _weighted(reference, occurs, images)) for reference in own]
        scores.append(10 * float(np.mean(found)))
    return scores


class _Vector:
    """An n-gram vector of a caption: weights by length of n-gram, their norms, and the caption's length in words."""

    def __init__(self) -> None:
        self.weights: dict[int, dict[tuple[str, ...], float]] = defaultdict(dict)
        self.norms = [0.0] * (LONGEST + 1)
        self.length = 0


def _ngrams(text: str, longest: int = LONGEST) -> Ngrams:
    found = words(text)
    return Counter(
        tuple(found[start : start + size]) for size in range(1, longest + 1) for start in range(len(found) - size + 1)
    )


def _weighted(ngrams: Ngrams, occurs: Ngrams, images: float) -> _Vector:
    vector = _Vector()
    for gram, count in ngrams.items():
        weight = count * (images - math.log(max(1.0, occurs[gram])))
        vector.weights[len(gram)][gram] = weight
        vector.norms[len(gram)] += weight**2
        # As in the authors' program, the length is the number of bigrams; only differences of lengths matter.
        vector.length += count if len(gram) == 2 else 0
    return vector


def _similarity(candidate: _Vector, reference: _Vector) -> float:
    """The mean over n of clipped cosine similarities, times the penalty for length."""
    total = 0.0
    for size in range(1, LONGEST + 1):
        norms = math.sqrt(candidate.norms[size]) * math.sqrt(reference.norms[size])
        shared = sum(
            min(weight, reference.weights[size].get(gram, 0.0)) * reference.weights[size].get(gram, 0.0)
            for gram, weight in candidate.weights[size].items()
        )
        total += shared / norms if norms else shared
    return total / LONGEST * math.exp(-((candidate.length - reference.length) ** 2) / (2 * SIGMA**2))


def bleu(candidates: Sequence[str], references: Sequence[Sequence[str]], longest: int = LONGEST) -> float:
    """Corpus BLEU from 0 to 1, as the COCO caption evaluation computes it: tiny if no n-gram of some length matches.

    Args:
        candidates: a caption for each image.
        references: the reference captions of each image.
        longest: greatest length of n-grams; usually 4, less for short captions.
    """
    return bleus(candidates, references, longest)[-1]


def bleus(candidates: Sequence[str], references: Sequence[Sequence[str]], longest: int = LONGEST) -> list[float]:
    """:func:`bleu` with n-grams up to each length from 1 to ``longest``."""
    shared, total = [0] * longest, [0] * longest
    length = wanted = 0
    for candidate, own in zip(candidates, references, strict=True):
        ngrams = _ngrams(candidate, longest)
        known: Ngrams = Counter()
        for reference in own:
            known |= _ngrams(reference, longest)
        for gram, count in ngrams.items():
            total[len(gram) - 1] += count
            shared[len(gram) - 1] += min(count, known[gram])
        size = len(words(candidate))
        length += size
        # The reference with the nearest length is used; of two equally near ones, the shorter.
        wanted += min((len(words(reference)) for reference in own), key=lambda n: (abs(n - size), n))
    precisions = [(hits + _TINY) / (of + _SMALL) for hits, of in zip(shared, total, strict=True)]
    ratio = (length + _TINY) / (wanted + _SMALL)
    brevity = math.exp(1 - 1 / ratio) if ratio < 1 else 1.0
    return [brevity * math.prod(precisions[:size]) ** (1 / size) for size in range(1, longest + 1)]
