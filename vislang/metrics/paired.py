"""Paired comparison of two evaluations of the same questions, and of two configurations with the same seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vislang.metrics.figure import Figure, Z

ROUNDS = 10_000
"""Resamples of the bootstrap."""

EXACT = 1000
"""Largest number of images with a difference for which the p-value is computed exactly."""


@dataclass(frozen=True)
class McNemar:
    """McNemar's test of whether two sides are right equally often.

    Attributes:
        only_first, only_second: questions that only one side answers correctly.
        p: the two-sided p-value.
        exact: whether it is exact, or from the chi-square approximation.
    """

    only_first: int
    only_second: int
    p: float
    exact: bool


def bootstrap_difference(differences: np.ndarray, clusters: Sequence[str]) -> Figure:
    """The mean of paired differences, with its 95 % interval by the bootstrap over clusters (Efron and Tibshirani 1993,
    chapter 8; Field and Welsh 2007 for clusters).

    Args:
        differences: (questions,) the difference of the scores of each question.
        clusters: a key for each question; questions with the same key share an image and are resampled together. With
            a single cluster, there is no interval.
    """
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    sums, sizes = np.bincount(cluster, weights=differences), np.bincount(cluster)
    mean = float(differences.mean())
    if len(sums) < 2:
        return Figure(mean, None, None, len(differences))
    rng = np.random.default_rng(0)
    means = []
    for start in range(0, ROUNDS, 500):
        drawn = rng.integers(0, len(sums), (min(500, ROUNDS - start), len(sums)))
        means.append(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return Figure(mean, float(low), float(high), len(differences))


def difference_over_seeds(first: Sequence[Figure], second: Sequence[Figure]) -> Figure:
    """The mean of first minus second over seeds, with its 95 % interval for other seeds and other test examples.

    Two variances add up. That between seeds comes from the paired differences, with Student's t (Gosset 1908). That of
    the test examples comes from the interval of each side, where the metric has one. All seeds share these examples, so
    more seeds do not reduce it. It is counted as if the two sides had been tested on different examples, which makes
    the interval too wide rather than too narrow.

    Args:
        first, second: a figure for each seed, in the same order of seeds. With one seed, there is no interval.

    Raises:
        ValueError: no seed, or different numbers of seeds.
    """
    if not first or len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} figures; a difference needs the same seeds on both sides.")
    differences = np.array([one.value - other.value for one, other in zip(first, second, strict=True)])
    seeds, mean, n = len(differences), float(differences.mean()), first[0].n
    if seeds < 2:
        return Figure(mean, None, None, n)
    between = student(seeds - 1) * float(differences.std(ddof=1)) / math.sqrt(seeds)
    margin = math.hypot(between, *(Z * _standard_error(figures) for figures in (first, second)))
    return Figure(mean, mean - margin, mean + margin, n)


def _standard_error(figures: Sequence[Figure]) -> float:
    """The standard error of a value over test examples, from the mean width of the intervals; 0 without intervals."""
    widths = [figure.high - figure.low for figure in figures if figure.low is not None and figure.high is not None]
    return sum(widths) / len(widths) / (2 * Z) if widths else 0.0


def student(degrees: int) -> float:
    """The quantile of Student's t distribution for 95 % intervals: t with P(-t < T < t) = 0.95.

    The probability has a closed form in the angle atan(t / sqrt(degrees)) (Abramowitz and Stegun 1964, 26.7.3 and
    26.7.4), which is inverted by bisection.

    >>> [round(student(degrees), 3) for degrees in (1, 2, 9)]
    [12.706, 4.303, 2.262]
    """

    def inside(angle: float) -> float:
        odd = degrees % 2
        term = math.cos(angle) if odd else 1.0
        total = 0.0
        for k in range(1 + odd, degrees, 2):
            total += term
            term *= math.cos(angle) ** 2 * k / (k + 1)
        total = math.sin(angle) * total
        return 2 / math.pi * (angle + total) if odd else total

    low, high = 0.0, math.pi / 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if inside(middle) < 0.95 else (low, middle)
    return math.sqrt(degrees) * math.tan(low)


def mcnemar(first: np.ndarray, second: np.ndarray, clusters: Sequence[str]) -> McNemar:
    """McNemar's test (1947), with questions about one image as one unit.

    Under the hypothesis, the difference of each image has either sign with equal probability. The exact p-value is that
    of the sum of all differences over all signs; where no image has two questions, it is the binomial p-value of
    McNemar's exact test. For many images, the chi-square statistic of Durkalski et al. (2003) is used, which is
    McNemar's own without shared images.

    Args:
        first, second: (questions,) whether each side is right.
        clusters: a key for each question.
    """
    one, other = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    _, cluster = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(cluster, weights=one.astype(float) - other).astype(int)
    sums = sums[sums != 0]
    counts = int((one & ~other).sum()), int((other & ~one).sum())
    if not len(sums):
        return McNemar(*counts, 1.0, True)
    if len(sums) > EXACT:
        statistic = float(sums.sum()) ** 2 / float((sums**2).sum())
        return McNemar(*counts, math.erfc(math.sqrt(statistic / 2)), False)
    # The distribution of the sum of all differences with random signs, from -reach to reach.
    reach = int(np.abs(sums).sum())
    chances = np.zeros(2 * reach + 1)
    chances[reach] = 1.0
    for size in np.abs(sums):
        chances = (np.roll(chances, size) + np.roll(chances, -size)) / 2
    totals = np.abs(np.arange(-reach, reach + 1))
    return McNemar(*counts, min(1.0, float(chances[totals >= abs(int(sums.sum()))].sum())), True)
