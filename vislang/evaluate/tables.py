"""Figures as tables for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from vislang.evaluate.compare import ComparedEvaluations
from vislang.evaluate.few_shot import FewShotEvaluation
from vislang.evaluate.figure_rows import figure_rows


def evaluation_table(tasks: Mapping[str, Mapping[str, Any]]) -> Table:
    """The figures of evaluations by task, as :meth:`~vislang.evaluate.evaluation.Evaluation.as_json` gives them."""
    table = Table(title_justify="left")
    table.title = f"{sum(int(values['n']) for values in tasks.values()):,} test examples"
    for heading in ("task", "answers by", "metric"):
        table.add_column(heading)
    for heading in ("value", "95 % interval"):
        table.add_column(heading, justify="right")
    for row in figure_rows(tasks):
        table.add_row(*row)
    return table


def few_shot_table(task: str, found: FewShotEvaluation) -> Table:
    """The figures of all points and baselines, and the standard deviations of the main one by source."""
    return _table(f"{task}: examples in the prompt", FewShotEvaluation.HEADINGS, found.rows())


def comparison_table(found: ComparedEvaluations) -> Table:
    """The paired differences of two evaluations, by setting."""
    return _table(found.title, ComparedEvaluations.HEADINGS, found.rows())


def _table(title: str, headings: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    for heading in headings:
        table.add_column(heading)
    for row in rows:
        table.add_row(*row)
    return table
