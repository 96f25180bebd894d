"""The report page of a few-shot evaluation, with curves over the number of shots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vislang.evaluate.few_shot import Point, selection
from vislang.evaluate.page import template
from vislang.evaluate.plots import shots_plot
from vislang.files import write_text
from vislang.metrics.figure import Figure, Figures, metric, show, title_of


def write_few_shot_page(
    path: Path,
    title: str,
    points: Sequence[Point],
    baselines: Mapping[str, Figures],
    command: str,
    versions: dict[str, str],
) -> None:
    """Write the page: a plot for each metric, and a table of all figures.

    Args:
        path: file to write.
        title: heading of the page.
        points: the figures of each setting.
        baselines: figures of baselines without a model, by name.
        command: the command that was run.
        versions: versions of the packages that a result depends on.
    """
    plots = []
    for name in points[0].means:
        kind = metric(name)
        factor = 100.0 if kind.percent else 1.0
        curves: dict[str, list[tuple[int, float, float, float]]] = {}
        for point in points:
            value, low, high = (factor * end for end in _ends(point.means[name]))
            curves.setdefault(selection(point.setting), []).append((point.setting.shots, value, low, high))
        levels = {title_of(b): factor * figures[name].value for b, figures in baselines.items() if name in figures}
        plots.append(shots_plot(kind.title, curves, levels, f"{kind.title}{' (%)' if kind.percent else ''}"))
    rows = [
        (point.setting.shots, selection(point.setting), metric(name).title, show(name, figure), _seeds(point, name))
        for point in points
        for name, figure in point.means.items()
    ]
    others = [
        (title_of(baseline), metric(name).title, show(name, figure))
        for baseline, figures in baselines.items()
        for name, figure in figures.items()
    ]
    page = template("few_shot").render(
        title=title,
        queries=next(iter(points[0].means.values())).n,
        plots=plots,
        rows=rows,
        others=others,
        command=command,
        versions=versions,
    )
    write_text(path, page)


def _ends(figure: Figure) -> tuple[float, float, float]:
    """A value and the ends of its interval; without an interval, both ends equal the value."""
    low = figure.value if figure.low is None else figure.low
    high = figure.value if figure.high is None else figure.high
    return figure.value, low, high


def _seeds(point: Point, name: str) -> str:
    return ", ".join(show(name, figures[name], interval=False) for figures in point.seeds.values())
