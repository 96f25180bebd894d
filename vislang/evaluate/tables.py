"""Figures as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from vislang.evaluate.compare import Comparison, setting_in_words
from vislang.evaluate.few_shot import FewShotEvaluation, Point, selection
from vislang.evaluate.figure_rows import figure_rows
from vislang.metrics.figure import Figure, metric, plain, show, show_difference, title_of
from vislang.metrics.variance import Component


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
    table = Table(title=f"{task}: examples in the prompt", title_justify="left")
    for heading in ("shots", "selection", "metric", "mean (95 % interval)", "sd: draws", "orders", "questions"):
        table.add_column(heading)
    for point in found.points:
        for name, figure in point.means.items():
            sds = [show_sd(name, source, interval=False) for source in sources(point, name)]
            table.add_row(
                str(point.setting.shots), selection(point.setting), metric(name).title, show(name, figure), *sds
            )
    for baseline, figures in found.baselines.items():
        for name, figure in figures.items():
            table.add_row("", title_of(baseline), metric(name).title, show(name, figure))
    return table


def sources(point: Point, name: str) -> list[Component | None]:
    """The standard deviations between draws, orders and samples of questions, for the main metric of a point."""
    if point.spread is None or name != point.metric:
        return [None] * 3
    return [point.spread.draws, point.spread.orders, point.spread.questions]


def show_sd(name: str, component: Component | None, interval: bool = True) -> str:
    """A standard deviation as text, with its interval; empty if it was not measured."""
    return "" if component is None else show(name, Figure(component.sd, component.low, component.high, 0), interval)


def comparison_table(first: str, second: str, comparisons: Sequence[Comparison]) -> Table:
    """The paired differences of two evaluations, by setting."""
    table = Table(title=f"A: {first}   B: {second}", title_justify="left")
    for heading in ("setting", "metric", "A", "B", "B - A (95 % interval)", "only A, only B right", "McNemar's p"):
        table.add_column(heading)
    for own in comparisons:
        test = own.test
        table.add_row(
            setting_in_words(own.setting),
            metric(own.metric).title,
            *(show(own.metric, plain(mean, own.difference.n)) for mean in own.means),
            show_difference(own.metric, own.difference),
            "" if test is None else f"{test.only_first}, {test.only_second}",
            "" if test is None else f"{test.p:.3g}{'' if test.exact else ' (chi-square)'}",
        )
    return table
