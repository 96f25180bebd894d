"""Calibration: are as many answers right as their probabilities say? (Guo et al. 2017, "On Calibration of Modern Neural
Networks", section 2.)"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vislang.metrics.figure import Figure, share

BINS = 10
"""Bins of equal width in the reliability diagram."""


@dataclass(frozen=True)
class Bin:
    """The answers whose probability lies in one interval.

    Attributes:
        low, high: the interval; ``high`` belongs to it, and ``low`` only in the first bin.
        probability: the mean probability of its answers.
        right: the share of its answers that are right, with its 95 % interval.
    """

    low: float
    high: float
    probability: float
    right: Figure


def reliability(probabilities: np.ndarray, right: np.ndarray, bins: int = BINS) -> list[Bin]:
    """The bins of the reliability diagram that have answers, from the least probability.

    Args:
        probabilities: (answers,) the probability that the model gives to each of its answers, from 0 to 1.
        right: (answers,) whether each is right.
        bins: number of bins of equal width.

    >>> [(own.high, own.right.n) for own in reliability(np.array([0.2, 0.25, 1.0]), np.array([True, False, True]))]
    [(0.2, 1), (0.3, 1), (1.0, 1)]
    """
    numbers = np.clip(np.ceil(probabilities * bins).astype(int) - 1, 0, bins - 1)
    found = []
    for number in np.unique(numbers).tolist():
        own = numbers == number
        made = share(int(right[own].sum()), int(own.sum()))
        found.append(Bin(number / bins, (number + 1) / bins, float(probabilities[own].mean()), made))
    return found


def expected_calibration_error(found: list[Bin]) -> float:
    """The mean distance between the probability of an answer's bin and the share of right answers in it, from 0 for a
    calibrated model to 1 (equation 3 of the paper)."""
    n = sum(own.right.n for own in found)
    return sum(own.right.n / n * abs(own.right.value - own.probability) for own in found)
