"""Where the variance of a few-shot score comes from: the draw of the shots, their order, and the sample of questions.

The scores of a setting are an array (draws, orders, questions): every question is answered after each order of each
draw of shots. Orders are nested in draws, and questions are crossed with both. Brennan (2001, Generalizability Theory,
chapter 3) calls this the p x (i:h) design. The random-effects model is

    y[d, o, q] = mean + D[d] + O[d, o] + Q[q] + DQ[d, q] + E[d, o, q]

with independent effects of variances s2_D, s2_O, s2_Q, s2_DQ and s2_E. With a draws, b orders and n questions, the
expected mean squares are

    MS_D  = b n s2_D + n s2_O + b s2_DQ + s2_E          MS_O = n s2_O + s2_E
    MS_Q  = a b s2_Q + b s2_DQ + s2_E                   MS_DQ = b s2_DQ + s2_E          MS_E = s2_E

The method of moments solves these equations for the components (Searle, Casella and McCulloch 1992, Variance
Components, section 4.4). A single evaluation (one draw, one order, n questions) has the variance

    s2_D + s2_O + (s2_Q + s2_DQ + s2_E) / n

whose three terms are reported. The mean of all scores has the variance (MS_D + MS_Q - MS_DQ) / (a b n).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vislang.metrics.figure import Figure, Z, wilson

SAMPLES = 5_000
"""Simulated sets of mean squares, from which intervals are read."""


@dataclass(frozen=True)
class Component:
    """A standard deviation of the score, with its 95 % interval."""

    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Spread:
    """The mean of an array of scores, and the sources of its variance.

    Attributes:
        mean: the mean with its 95 % interval, over all sources that were measured; ``n`` is the number of questions.
        draws: standard deviation of the score between draws of shots; None with a single draw.
        orders: between orders of the same shots; None with a single order, whose effect is then part of ``draws``.
        questions: between samples of as many questions; None if all questions share one image.
    """

    mean: Figure
    draws: Component | None
    orders: Component | None
    questions: Component | None


def spread(
    scores: Float[np.ndarray, "draws orders questions"], clusters: Sequence[str], proportion: bool = False
) -> Spread:
    """Estimate the mean and the variance components of a setting.

    The intervals are generalized confidence intervals (Weerahandi 1993; Hannig, Iyer and Patterson 2006): an expected
    mean square is distributed as MS df / chi2(df) given the data, so mean squares are simulated from this, and each
    quantity is computed from each simulated set. A percentile bootstrap over a handful of draws would be too narrow:
    where the draws dominate, it never leaves the range of the drawn scores, which for three draws contains the mean
    in 75 % of all cases (``tests/metrics/test_variance.py``).

    Questions that share an image are not independent. The unit of the question effect is therefore the image: the
    scores of a cluster enter as the linearised contribution of the cluster to the mean (Woodruff 1971).

    Args:
        scores: the score of each question after each order of each draw.
        clusters: a key for each question; questions with the same key share an image.
        proportion: whether scores are 0 or 1. The interval of the mean is then Wilson's with the effective number of
            questions (Dean and Pagano 2015), which stays between 0 and 1.
    """
    questions = scores.shape[2]
    units = by_cluster(scores, clusters)
    draws, orders, n = units.shape
    mean = float(scores.mean())
    if n < 2:
        return Spread(Figure(mean, None, None, questions), None, None, None)
    squares = mean_squares(units)
    observed = {name: np.array([value]) for name, (value, _) in squares.items()}
    rng = np.random.default_rng(0)
    simulated = {name: value * df / rng.chisquare(df, SAMPLES) for name, (value, df) in squares.items()}
    found = {}
    for name, formula in _formulas(draws, orders, n).items():
        low, high = np.percentile(np.sqrt(_variance(formula, simulated)), [2.5, 97.5])
        ends = (float(np.sqrt(_variance(formula, observed))[0]), float(low), float(high))
        # No distribution on 0 to 1 has a greater standard deviation than one half.
        found[name] = Component(*(min(end, 0.5) for end in ends)) if proportion else Component(*ends)
    of_mean = _formula_of_mean(draws, orders, n)
    error = float(np.sqrt(_variance(of_mean, observed))[0])
    errors = rng.standard_normal(SAMPLES) * np.sqrt(_variance(of_mean, simulated))
    margin = float(np.percentile(np.abs(errors), 95))
    if proportion:
        effective = mean * (1 - mean) / error**2 if error > 0 else n
        low, high = wilson(mean, effective, margin / error if error > 0 else Z)
    else:
        low, high = mean - margin, mean + margin
    return Spread(Figure(mean, low, high, questions), found.get("draws"), found.get("orders"), found["questions"])


def by_cluster(scores: Float[np.ndarray, "draws orders questions"], clusters: Sequence[str]) -> np.ndarray:
    """The scores with a column for each cluster: its linearised contribution, whose mean over clusters is the mean over
    questions in every trial. Without shared images, these are the scores themselves.

    Args:
        scores: the scores.
        clusters: a key for each question.
    """
    keys, column = np.unique(np.asarray(clusters), return_inverse=True)
    if len(keys) == scores.shape[2]:
        return scores
    mean = scores.mean()
    trials = (scores - mean).reshape(-1, scores.shape[2])
    sums = np.stack([np.bincount(column, weights=trial, minlength=len(keys)) for trial in trials])
    return mean + sums.reshape(*scores.shape[:2], len(keys)) * len(keys) / scores.shape[2]


def mean_squares(units: Float[np.ndarray, "draws orders questions"]) -> dict[str, tuple[float, int]]:
    """The mean squares of the design that can be computed, each with its degrees of freedom."""
    a, b, n = units.shape
    mean = units.mean()
    draw = units.mean(axis=(1, 2), keepdims=True)
    order = units.mean(axis=2, keepdims=True)
    question = units.mean(axis=(0, 1), keepdims=True)
    both = units.mean(axis=1, keepdims=True)
    sums = {
        "D": (b * n * ((draw - mean) ** 2).sum(), a - 1),
        "O": (n * ((order - draw) ** 2).sum(), a * (b - 1)),
        "Q": (a * b * ((question - mean) ** 2).sum(), n - 1),
        "DQ": (b * ((both - draw - question + mean) ** 2).sum(), (a - 1) * (n - 1)),
        "E": (((units - order - both + draw) ** 2).sum(), a * (b - 1) * (n - 1)),
    }
    return {name: (float(total) / df, df) for name, (total, df) in sums.items() if df > 0}


Formula = tuple[Mapping[str, float], ...]
"""A variance as a sum of components, each a linear combination of mean squares; a negative component counts as 0."""


def _formulas(a: int, b: int, n: int) -> dict[str, Formula]:
    """The three terms of the variance of a single evaluation; see the module's docstring."""
    if a > 1 and b > 1:
        return {
            "draws": ({"D": 1 / (b * n), "O": -1 / (b * n), "DQ": -1 / (b * n), "E": 1 / (b * n)},),
            "orders": ({"O": 1 / n, "E": -1 / n},),
            "questions": (
                {"Q": 1 / (a * b * n), "DQ": -1 / (a * b * n)},
                {"DQ": 1 / (b * n), "E": -1 / (b * n)},
                {"E": 1 / n},
            ),
        }
    if a > 1:
        return {
            "draws": ({"D": 1 / n, "DQ": -1 / n},),
            "questions": ({"Q": 1 / (a * n), "DQ": -1 / (a * n)}, {"DQ": 1 / n}),
        }
    if b > 1:
        return {
            "orders": ({"O": 1 / n, "E": -1 / n},),
            "questions": ({"Q": 1 / (b * n), "E": -1 / (b * n)}, {"E": 1 / n}),
        }
    return {"questions": ({"Q": 1 / n},)}


def _variance(formula: Formula, squares: Mapping[str, np.ndarray]) -> np.ndarray:
    parts = [sum(factor * squares[name] for name, factor in part.items()) for part in formula]
    return np.asarray(sum(np.maximum(part, 0.0) for part in parts))


def _formula_of_mean(a: int, b: int, n: int) -> Formula:
    """The variance of the mean of all scores: that of questions, and what trials differ by beyond it."""
    count = a * b * n
    trials = ("D", "DQ") if a > 1 else ("O", "E") if b > 1 else None
    of_questions = {"Q": 1 / count}
    return (of_questions,) if trials is None else (of_questions, {trials[0]: 1 / count, trials[1]: -1 / count})
