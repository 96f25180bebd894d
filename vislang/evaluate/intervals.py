"""Figures for a page: each with its value, its interval, and where both lie on a scale that figures share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from vislang.evaluate.figure_rows import answerers
from vislang.metrics.figure import Figure, metric, show


class Drawn(NamedTuple):
    """A figure on a page.

    Attributes:
        who: whose it is.
        value: as text, with its unit.
        interval: as text; empty where there is none.
        at: where the value lies, in per cent of the scale; None where it is no number.
        low, high: the ends of the interval; the value itself where there is none.
    """

    who: str
    value: str
    interval: str
    at: float | None
    low: float
    high: float


def drawn(name: str, figures: Mapping[str, Figure]) -> list[Drawn]:
    """The figures of one metric, by whose they are, on one scale: of a share from 0 to 100 %, of other metrics from the
    least end of an interval to the greatest."""
    ends = [end for figure in figures.values() for end in _ends(figure) if math.isfinite(end)]
    start, stop = (0.0, 1.0) if metric(name).percent else (min(ends, default=0.0), max(ends, default=1.0))
    length = stop - start or 1.0

    def place(value: float) -> float:
        return round(100 * min(max((value - start) / length, 0.0), 1.0), 1)

    rows = []
    for who, figure in figures.items():
        value, _, interval = show(name, figure).partition(" (")
        at = place(figure.value) if math.isfinite(figure.value) else None
        low, high = (place(end) if math.isfinite(end) else 0.0 for end in _ends(figure))
        rows.append(Drawn(who, value, interval.rstrip(")"), at, low, high))
    return rows


def _ends(figure: Figure) -> tuple[float, float]:
    return (
        figure.value if figure.low is None else figure.low,
        figure.value if figure.high is None else figure.high,
    )


def by_metric(answerers: Mapping[str, Mapping[str, Figure]]) -> dict[str, dict[str, Figure]]:
    """Figures by metric and then by whose they are, from figures by whose they are and then by metric."""
    found: dict[str, dict[str, Figure]] = {}
    for who, figures in answerers.items():
        for name, figure in figures.items():
            found.setdefault(name, {})[who] = figure
    return found


def task_scores(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of a task for a page: for each metric those of the model and of the baselines, and notes.

    Args:
        name: the task.
        values: from :meth:`vislang.evaluate.evaluation.Evaluation.as_json`.
    """
    figures = [
        (metric(kind).title, drawn(kind, by_whom)) for kind, by_whom in by_metric(dict(answerers(values))).items()
    ]
    notes = []
    if "reference_perplexity" in values:
        notes.append(f"Perplexity of the references, per token: {values['reference_perplexity']:.3f}.")
    if values.get("unread"):
        notes.append(f"Answers without a number: {values['unread']:,}.")
    return {"name": name, "n": values["n"], "figures": figures, "notes": notes}
