"""Knowing when not to answer: a threshold on the confidence, below which no answer is given.

The guarantee is that of risk control (Angelopoulos, Bates, Candes, Jordan and Lei 2021, "Learn then Test: Calibrating
Predictive Algorithms to Achieve Risk Control", sections 3 and 4.1; Geifman and El-Yaniv 2017 give it for selective
classification): with probability 1 - :data:`DELTA` over the calibration data, at most the stated share of the answers
that are given is wrong. Where the same questions were answered after several draws of shots, this holds after each of
them at once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vislang.metrics.figure import Figure

DELTA = 0.05
"""Probability with which the guarantee may fail."""

LEVELS = 20
"""Number of thresholds that are tested."""

SLACK = 2.0
"""The first threshold answers this many times as many questions as could be significant without any error."""

ROUNDS = 1000
"""Resamples of the bootstrap."""


@dataclass(frozen=True)
class RiskAtCoverage:
    """A point of the risk-coverage curve.

    Attributes:
        coverage: the share of questions that are answered, those with the greatest confidence.
        risk: the share of these answers that are wrong, with its 95 % interval.
    """

    coverage: float
    risk: Figure


def least_significant(risk: float, delta: float = DELTA) -> int:
    """The least number of answers that, all right, show that at most ``risk`` of all answers are wrong.

    >>> least_significant(0.05)
    59
    """
    return math.ceil(math.log(delta) / math.log(1 - risk))


def threshold(
    confidence: np.ndarray,
    wrong: np.ndarray,
    grid: np.ndarray,
    risk: float,
    delta: float = DELTA,
) -> float | None:
    """The least confidence from which on answers are given; None if no threshold keeps the risk in every trial.

    Thresholds are quantiles of the confidences in ``grid``, which are other questions than those of the calibration, so
    they are fixed in advance. They are tested in order, from the greatest on, and the last one before a failure is
    taken (fixed-sequence testing). The hypothesis "more than ``risk`` of the answers above this threshold are wrong" is
    rejected if so few errors would have a probability of at most ``delta``: the errors among the answers above a fixed
    threshold are binomial. With several trials, the hypothesis is "in at least one of them"; it is rejected if that of
    each trial is, which needs no correction for their number (the intersection-union test: Berger 1982).

    Args:
        confidence, wrong: (trials, questions) of the calibration, whose questions must be independent.
        grid: the confidences of other questions, of any shape; their answers need not be known.
        risk: the largest share of given answers that may be wrong.
        delta: probability with which the guarantee may fail.
    """
    first = min(1.0, SLACK * least_significant(risk, delta) / max(1, confidence.shape[1]))
    best: float | None = None
    for coverage in np.linspace(first, 1.0, LEVELS):
        # "lower" takes a confidence that occurs, so that equal ones are on the same side.
        candidate = float(np.quantile(grid, 1 - coverage, method="lower"))
        given = confidence >= candidate
        # Questions without an answer have a confidence of minus infinity.
        errors = zip((wrong & given).sum(axis=1).tolist(), given.sum(axis=1).tolist(), strict=True)
        if not math.isfinite(candidate) or any(binomial_tail(*counts, risk) > delta for counts in errors):
            break
        best = candidate
    return best


def binomial_tail(successes: int, n: int, probability: float) -> float:
    """The probability of at most so many successes; 1 without trials.

    >>> round(binomial_tail(1, 3, 0.5), 3)
    0.5
    """
    if probability >= 1:
        return 1.0 if successes >= n else 0.0
    logs = [
        math.lgamma(n + 1)
        - math.lgamma(k + 1)
        - math.lgamma(n - k + 1)
        + k * math.log(probability)
        + (n - k) * math.log1p(-probability)
        for k in range(min(successes, n) + 1)
    ]
    return min(1.0, math.fsum(map(math.exp, logs)))


def risk_coverage(
    confidence: np.ndarray,
    wrong: np.ndarray,
    clusters: Sequence[str],
    points: int = LEVELS,
) -> list[RiskAtCoverage]:
    """The risk-coverage curve (El-Yaniv and Wiener 2010), with pointwise 95 % intervals by the bootstrap over clusters.

    Args:
        confidence, wrong: (questions,) of each question. Questions with equal confidence share their errors evenly, so
            that their order has no effect.
        clusters: a key for each question; questions with the same key share an image and are resampled together.
        points: number of coverages, evenly spaced up to 1.
    """
    order = np.argsort(-confidence, kind="stable")
    ordered, errors = confidence[order], wrong[order].astype(float)
    _, level, counts = np.unique(-ordered, return_inverse=True, return_counts=True)
    errors = (np.bincount(level, weights=errors) / counts)[level]
    _, cluster = np.unique(np.asarray(clusters)[order], return_inverse=True)
    sizes = cluster.max() + 1
    coverages = np.arange(1, points + 1) / points
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, sizes, sizes) for _ in range(ROUNDS if sizes > 1 else 0)]
    curves = [_curve(errors, np.bincount(draw, minlength=sizes)[cluster], coverages) for draw in draws]
    values = _curve(errors, np.ones(len(errors)), coverages)
    found = []
    for number, coverage in enumerate(coverages):
        low, high = np.percentile([curve[number] for curve in curves], [2.5, 97.5]) if curves else (None, None)
        n = max(1, round(coverage * len(errors)))
        found.append(RiskAtCoverage(float(coverage), Figure(float(values[number]), low, high, n)))
    return found


def _curve(errors: np.ndarray, weights: np.ndarray, coverages: np.ndarray) -> np.ndarray:
    """The share of errors among the first questions that have each share of the weight."""
    total = np.concatenate([[0.0], np.cumsum(weights)])
    wrong = np.concatenate([[0.0], np.cumsum(weights * errors)])
    wanted = coverages * total[-1]
    return np.interp(wanted, total, wrong) / wanted
