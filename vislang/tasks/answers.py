"""Scoring answers: exact match after the usual clean-up, with an interval."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from vislang.data.example import Example


def normalize(answer: str) -> str:
    """Lower case, one space between words, no full stop at the end, no leading article."""
    words = " ".join(answer.lower().split()).rstrip(".").strip()
    return re.sub(r"^(an?|the) (?=\S)", "", words)


def correct(prediction: str, example: Example) -> bool:
    """Whether a prediction equals one of the references, cleaned up alike."""
    return normalize(prediction) in {normalize(reference) for reference in example.references}


@dataclass(frozen=True)
class Proportion:
    """A share with its 95 % interval (Wilson 1927), which keeps its coverage near 0 and 1.

    Attributes:
        value: successes over trials.
        low, high: ends of the interval.
        n: trials.
    """

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"


def proportion(successes: float, n: int) -> Proportion:
    """A share and its interval; a mean number of successes, over seeds say, need not be whole.

    Raises:
        ValueError: no trials.
    """
    if n < 1:
        raise ValueError("no trials to take a share of.")
    z = 1.959963984540054
    share = successes / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    spread = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    # At 0 and 1 the ends equal the share, but for the last bit.
    return Proportion(share, max(0.0, min(share, middle - spread)), min(1.0, max(share, middle + spread)), n)


def accuracy(predictions: Sequence[str], examples: Sequence[Example]) -> Proportion:
    """The share of predictions that are correct."""
    hits = sum(correct(p, e) for p, e in zip(predictions, examples, strict=True))
    return proportion(hits, len(examples))


@dataclass(frozen=True)
class Guesses:
    """What can be guessed without looking at the image.

    Attributes:
        majority: always the most frequent training answer.
        majority_by_question: the most frequent training answer to the very question, the strongest guess.
        chance: each answer of the training split as often as any other.
    """

    majority: Proportion
    majority_by_question: Proportion
    chance: float


def guesses(train: Sequence[Example], test: Sequence[Example]) -> Guesses:
    """Score the guesses that the training split teaches on the test split."""
    overall = Counter(normalize(e.target) for e in train)
    by_question: dict[str | None, Counter[str]] = defaultdict(Counter)
    for example in train:
        by_question[example.question][normalize(example.target)] += 1
    majority = overall.most_common(1)[0][0]
    asked = [by_question.get(e.question, overall).most_common(1)[0][0] for e in test]
    return Guesses(accuracy([majority] * len(test), test), accuracy(asked, test), 1 / len(overall))
