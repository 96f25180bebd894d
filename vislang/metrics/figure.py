"""Figure: a measured value with its interval. Also the titles and units of all metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

SCHEMA = 1
"""Version of every JSON file of results that vislang writes (its key ``schema``)."""

Z = 1.959963984540054
"""The quantile of the normal distribution for 95 % intervals."""


@dataclass(frozen=True)
class Figure:
    """A measured value.

    Attributes:
        value: the value itself; a share lies between 0 and 1.
        low, high: ends of its 95 % interval; None without an interval.
        n: number of examples.
    """

    value: float
    low: float | None
    high: float | None
    n: int

    def as_json(self) -> dict[str, float | int | None]:
        """``{"value", "low", "high", "n"}``; values that are not finite become None, because JSON has no such
        numbers."""

        def finite(number: float | None) -> float | None:
            return number if number is not None and math.isfinite(number) else None

        return {"value": finite(self.value), "low": finite(self.low), "high": finite(self.high), "n": self.n}


Figures = dict[str, Figure]
"""Figures by the snake_case name of their metric."""


def figures_as_json(figures: Mapping[str, Figure]) -> dict[str, Any]:
    """Figures as the ``figures`` of a JSON file of results."""
    return {name: figure.as_json() for name, figure in figures.items()}


def figures_from_json(values: Mapping[str, Any]) -> Figures:
    """Read the output of :func:`figures_as_json`; None becomes NaN."""
    return {
        name: Figure(math.nan if f["value"] is None else f["value"], f["low"], f["high"], f["n"])
        for name, f in values.items()
    }


def share(successes: float, n: int) -> Figure:
    """A share with its 95 % interval (Wilson 1927), which keeps its coverage near 0 and 1.

    Args:
        successes: number of successes; it may be a mean over seeds.
        n: number of trials.

    Raises:
        ValueError: no trials.
    """
    if n < 1:
        raise ValueError("no trials to take a share of.")
    value = successes / n
    low, high = wilson(value, n)
    return Figure(value, low, high, n)


def wilson(value: float, n: float, z: float = Z) -> tuple[float, float]:
    """The ends of Wilson's interval of a proportion.

    Args:
        value: the proportion.
        n: number of trials; an effective number need not be whole.
        z: quantile of the interval; that of 95 % by default.
    """
    middle = (value + z * z / (2 * n)) / (1 + z * z / n)
    margin = z / (1 + z * z / n) * math.sqrt(value * (1 - value) / n + z * z / (4 * n * n))
    # At 0 and 1 the ends equal the proportion, but for the last bit.
    return max(0.0, min(value, middle - margin)), min(1.0, max(value, middle + margin))


def mean(scores: Sequence[float], rounds: int = 2000) -> Figure:
    """A mean of scores of examples, with its 95 % interval by the bootstrap (Efron 1979).

    Raises:
        ValueError: no scores.
    """
    values = np.asarray(scores, dtype=float)
    if not len(values):
        raise ValueError("no scores to take a mean of.")
    rng = np.random.default_rng(0)
    means = values[rng.integers(0, len(values), (rounds, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return Figure(float(values.mean()), float(low), float(high), len(values))


def plain(value: float, n: int) -> Figure:
    """A value without an interval."""
    return Figure(float(value), None, None, n)


class Metric(NamedTuple):
    """How a metric is shown.

    Attributes:
        title: title in tables and plots.
        percent: whether it is a proportion, which is shown in per cent.
        higher_is_better: whether higher values are better.
        decimals: number of decimals.
    """

    title: str
    percent: bool = False
    higher_is_better: bool = True
    decimals: int = 3


METRICS: dict[str, Metric] = {
    "accuracy": Metric("accuracy", percent=True, decimals=1),
    "consistency": Metric("consistency", percent=True, decimals=1),
    "upper_bound": Metric("upper bound", percent=True, decimals=1),
    "answered": Metric("answered", percent=True, decimals=1),
    "exact_match": Metric("exact match", percent=True, decimals=1),
    "recall_at_": Metric("R@", percent=True, decimals=1),
    "q_to_a": Metric("Q→A", percent=True, decimals=1),
    "qa_to_r": Metric("QA→R", percent=True, decimals=1),
    "q_to_ar": Metric("Q→AR", percent=True, decimals=1),
    "success_rate": Metric("success rate (SR)", percent=True, decimals=1),
    "oracle_success_rate": Metric("oracle success rate (OSR)", percent=True, decimals=1),
    "spl": Metric("SPL"),
    "navigation_error": Metric("navigation error (m)", higher_is_better=False, decimals=2),
    "trajectory_length": Metric("trajectory length (m)", higher_is_better=False, decimals=2),
    "ndtw": Metric("nDTW"),
    "sdtw": Metric("SDTW"),
    "auroc": Metric("AUROC"),
    "f1_": Metric("F1, "),
    "matthews": Metric("Matthews correlation"),
    "validity": Metric("validity", percent=True, decimals=1),
    "plausibility": Metric("plausibility", percent=True, decimals=1),
    "distribution": Metric("distribution (chi-square / 100)", higher_is_better=False),
    "weighted_f1": Metric("weighted F1"),
    "macro_f1": Metric("macro F1"),
    "cider_d": Metric("CIDEr-D", decimals=2),
    "bleu_": Metric("BLEU-", percent=True, decimals=1),
    "bleu": Metric("BLEU", percent=True, decimals=1),
    "chrf": Metric("chrF", percent=True, decimals=1),
    "pearson_r": Metric("Pearson r"),
    "rmse": Metric("root mean squared error", higher_is_better=False),
    "mae": Metric("mean absolute error", higher_is_better=False),
    "word_error_rate": Metric("word error rate", percent=True, higher_is_better=False, decimals=1),
    "character_error_rate": Metric("character error rate", percent=True, higher_is_better=False, decimals=1),
    "perplexity": Metric("perplexity", higher_is_better=False),
    "explained_variance": Metric("explained variance"),
    "loss": Metric("loss", higher_is_better=False),
    "loss_per_token": Metric("loss per token", higher_is_better=False),
}
"""Metrics by name; a longer name with the same beginning is a variant (``accuracy_number``)."""


def metric(name: str) -> Metric:
    """The metric with this name; for a variant, the rest of the name is added to the title."""
    known = max((key for key in METRICS if name.startswith(key)), key=len, default=None)
    if known is None:
        return Metric(name.replace("_", " "))
    family, rest = METRICS[known], name[len(known) :]
    if not rest:
        return family
    title = f"{family.title}{rest}" if known.endswith("_") else f"{family.title},{rest}"
    return family._replace(title=title.replace("_", " "))


def title_of(baseline: str) -> str:
    """The name of a baseline for a reader.

    >>> title_of("most_frequent_answer")
    'most frequent answer'
    """
    return baseline.replace("_", " ")


def show(name: str, figure: Figure, interval: bool = True) -> str:
    """A figure as text: its value and, if it has one, its interval.

    >>> show("accuracy", Figure(0.926, 0.914, 0.937, 2000))
    '92.6 % (91.4 to 93.7)'
    """
    kind = metric(name)
    factor = 100 if kind.percent else 1

    def number(value: float) -> str:
        return f"{factor * value:.{kind.decimals}f}"

    value = f"{number(figure.value)}{' %' if kind.percent else ''}"
    if not interval or figure.low is None or figure.high is None:
        return value
    return f"{value} ({number(figure.low)} to {number(figure.high)})"


def show_difference(name: str, figure: Figure) -> str:
    """A difference of two values of a metric as text; of proportions, in percentage points.

    >>> show_difference("accuracy", Figure(0.153, 0.101, 0.205, 150))
    '+15.3 points, 95 % interval 10.1 to 20.5'
    """
    kind = metric(name)
    factor, unit = (100, " points") if kind.percent else (1, "")
    value = f"{factor * figure.value:+.{kind.decimals}f}{unit}"
    if figure.low is None or figure.high is None:
        return value
    low, high = (f"{factor * end:.{kind.decimals}f}" for end in (figure.low, figure.high))
    return f"{value}, 95 % interval {low} to {high}"
