"""The report page of a few-shot evaluation, with curves over the number of shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.evaluate.answers_page import answer_sections, card_sections
from vislang.evaluate.evaluation_page import abstention_plot
from vislang.evaluate.few_shot import FewShotEvaluation, Point, selection
from vislang.evaluate.figure_rows import show_sd
from vislang.evaluate.page import template
from vislang.evaluate.plots import shots_plot
from vislang.example import Example
from vislang.files import write_text
from vislang.metrics.figure import Figure, metric, show, title_of
from vislang.tasks.task import Task


def write_few_shot_page(
    path: Path,
    title: str,
    task: Task,
    queries: Sequence[Example],
    found: FewShotEvaluation,
    card: Mapping[str, Any],
    command: str,
    versions: dict[str, str],
) -> None:
    """Write the page: the verdict, a plot for each metric, tables of all figures, and the answers with most shots.

    Args:
        path: file to write.
        title: heading of the page.
        task: the task.
        queries: the queries, in the order of the predictions.
        found: the evaluation.
        card: its score card.
        command: the command that was run.
        versions: versions of the packages that a result depends on.
    """
    points, plots = found.points, []
    banded = {selection(point.setting) for point in points if point.setting.variant == "plain"}
    for name in points[0].means:
        kind = metric(name)
        factor = 100.0 if kind.percent else 1.0
        curves: dict[str, list[tuple[int, float, float, float]]] = {}
        for point in points:
            value, low, high = (factor * end for end in _ends(point.means[name]))
            curves.setdefault(selection(point.setting), []).append((point.setting.shots, value, low, high))
        levels = {
            title_of(b): factor * figures[name].value for b, figures in found.baselines.items() if name in figures
        }
        plots.append(shots_plot(kind.title, curves, levels, f"{kind.title}{' (%)' if kind.percent else ''}", banded))
    rows = [
        (
            point.setting.shots,
            selection(point.setting),
            metric(name).title,
            show(name, figure),
            *(show_sd(name, source) for source in point.sources(name)),
            _draws(point, name),
        )
        for point in points
        for name, figure in point.means.items()
    ]
    others = [
        (title_of(baseline), metric(name).title, show(name, figure))
        for baseline, figures in found.baselines.items()
        for name, figure in figures.items()
    ]
    chosen = {selection_in_words(point): point.abstention for point in points if point.abstention is not None}
    if chosen:
        plots.append(abstention_plot(chosen))
    most = max((point for point in points if point.setting.variant == "plain"), key=lambda own: own.setting.shots)
    trial = next(iter(most.predictions))
    page = template("few_shot").render(
        title=title,
        shown=f"{selection_in_words(most)}, draw {trial.draw}, order {trial.order}",
        verdict=[finding.text for finding in found.verdict],
        abstention=[f"{name}: {own.in_words}" for name, own in chosen.items()],
        queries=next(iter(points[0].means.values())).n,
        plots=plots,
        rows=rows,
        others=others,
        command=command,
        versions=versions,
        card=card_sections(card),
        **answer_sections(task, queries, most.predictions[trial]),
    )
    write_text(path, page)


def selection_in_words(point: Point) -> str:
    """The number of shots and how they are chosen."""
    return f"{point.setting.shots} shots, {selection(point.setting)}"


def _ends(figure: Figure) -> tuple[float, float, float]:
    """A value and the ends of its interval; without an interval, both ends equal the value."""
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return figure.value, low, high


def _draws(point: Point, name: str) -> str:
    return ", ".join(show(name, figures[name], interval=False) for figures in point.draws.values() if name in figures)
