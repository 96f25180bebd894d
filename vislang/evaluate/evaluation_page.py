"""The page of an evaluation: its scores, when to answer, scores by kind, calibration, answers, and the score card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vislang.evaluate.abstain import Abstention
from vislang.evaluate.answers_page import answer_sections, card_sections
from vislang.evaluate.evaluation import Evaluation
from vislang.evaluate.intervals import task_scores
from vislang.evaluate.page import template
from vislang.evaluate.plots import Plot, risk_plot
from vislang.files import write_text
from vislang.tasks.task import Task


def write_evaluation_page(
    path: Path,
    title: str,
    task: Task,
    evaluation: Evaluation,
    card: Mapping[str, Any],
    command: str,
    versions: Mapping[str, str],
) -> None:
    """Write the page.

    Args:
        path: file to write.
        title: heading of the page.
        task: the task, whose examples have targets.
        evaluation: the evaluation.
        card: its score card.
        command: the command that was run.
        versions: versions of the packages that a result depends on.
    """
    own = evaluation.abstention
    page = template("evaluation").render(
        title=title,
        way=evaluation.way,
        task=task_scores(task.name, evaluation.as_json()),
        abstention=None if own is None else {"sentence": own.in_words, "plot": abstention_plot({task.name: own})},
        card=card_sections(card),
        command=command,
        versions=versions,
        **answer_sections(task, evaluation.examples, evaluation.predictions),
    )
    write_text(path, page)


def abstention_plot(chosen: Mapping[str, Abstention]) -> Plot:
    """The risk-coverage curves of evaluations, by name."""
    curves = {}
    for name, own in chosen.items():
        curve = []
        for point in own.curve:
            risk = point.risk
            low, high = (risk.value if end is None else end for end in (risk.low, risk.high))
            curve.append((100 * point.coverage, 100 * risk.value, 100 * low, 100 * high))
        curves[name] = curve
    return risk_plot("Errors among the surest answers", curves, 100 * next(iter(chosen.values())).allowed)
