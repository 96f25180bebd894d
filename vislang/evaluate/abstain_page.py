"""The page of an evaluation that says when to answer: its figures, the threshold, and the risk-coverage curve."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vislang.evaluate.abstain import Abstention
from vislang.evaluate.evaluation import Evaluation
from vislang.evaluate.page import template
from vislang.evaluate.plots import Plot, risk_plot
from vislang.evaluate.tables import figure_rows
from vislang.files import write_text


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


def write_abstention_page(
    path: Path, title: str, evaluation: Evaluation, command: str, versions: Mapping[str, str]
) -> None:
    """Write the page.

    Args:
        path: file to write.
        title: heading of the page.
        evaluation: an evaluation with its abstention.
        command: the command that was run.
        versions: versions of the packages that a result depends on.
    """
    assert evaluation.abstention is not None
    page = template("abstain").render(
        title=title,
        sentence=evaluation.abstention.in_words,
        plot=abstention_plot({evaluation.task: evaluation.abstention}),
        rows=list(figure_rows({evaluation.task: evaluation.as_json()})),
        command=command,
        versions=versions,
    )
    write_text(path, page)
