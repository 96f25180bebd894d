"""A cell of a study's table: a mean over seeds, with an interval over test examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vislang.metrics.figure import Figure, figures_from_json, metric, plain, share


@dataclass(frozen=True)
class Line:
    """A metric over seeds.

    Attributes:
        metric: name of the metric.
        mean: mean over seeds. For a share, it has the 95 % interval for the number of test examples; all seeds share
            these examples, so more seeds do not make it narrower.
        seeds: the value of each seed.
    """

    metric: str
    mean: Figure
    seeds: tuple[float, ...]

    def __str__(self) -> str:
        kind = metric(self.metric)
        factor = 100 if kind.percent else 1

        def number(value: float) -> str:
            return f"{factor * value:.{kind.decimals}f}"

        notes = []
        if self.mean.low is not None and self.mean.high is not None:
            notes.append(f"{number(self.mean.low)} to {number(self.mean.high)}")
        if len(self.seeds) > 1:
            notes.append(f"seeds {number(min(self.seeds))} to {number(max(self.seeds))}")
        return number(self.mean.value) + (f" ({', '.join(notes)})" if notes else "")


def mean_line(rows: Sequence[Mapping[str, Any]], name: str, of: str = "figures") -> Line:
    """The mean of a metric over rows.

    Args:
        rows: rows of ``results.json``, one for each seed, with the same test examples.
        name: name of the metric.
        of: the key of the figures in a row.
    """
    return line_of(name, [figures_from_json(row[of])[name] for row in rows])


def line_of(name: str, figures: Sequence[Figure]) -> Line:
    """The mean of a metric over the figures of each seed."""
    values = tuple(figure.value for figure in figures)
    average, n = sum(values) / len(values), figures[0].n
    mean = plain(average, n) if figures[0].low is None else share(average * n, n)
    return Line(name, mean, values)
