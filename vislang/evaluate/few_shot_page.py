"""A page with the curves of a few-shot evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.evaluate.few_shot import Point
from vislang.evaluate.page import template
from vislang.evaluate.plots import shots_plot
from vislang.tasks.few_shot import Mean


def write_few_shot_page(
    path: Path,
    title: str,
    points: Sequence[Point],
    baselines: dict[str, dict[str, float]],
    command: str,
    versions: dict[str, str],
) -> None:
    """Write the page: one plot a figure, and all numbers.

    Args:
        path: of the page.
        title: its heading.
        points: what was measured.
        baselines: figures of those that need no shots, by name.
        command: what was asked for.
        versions: of the packages that answered.
    """
    plots = []
    for figure in points[0].means:
        factor, unit = scale(figure)
        curves: dict[str, list[tuple[int, float, float, float]]] = {}
        for point in points:
            mean = point.means[figure]
            curves.setdefault(way(point), []).append(
                (point.setting.shots, factor * mean.value, factor * mean.low, factor * mean.high)
            )
        levels = {name: factor * values[figure] for name, values in baselines.items() if figure in values}
        plots.append((figure, shots_plot(curves, levels, f"{figure}{unit}")))
    rows = [
        (point.setting.shots, way(point), figure, told(figure, mean), _seeds(point, figure))
        for point, figure, mean in each(points)
    ]
    others = [
        (name, figure, told(figure, Mean(value, value, value)))
        for name, values in baselines.items()
        for figure, value in values.items()
    ]
    page = template("few_shot").render(
        title=title,
        queries=points[0].queries,
        plots=plots,
        rows=rows,
        others=others,
        command=command,
        versions=versions,
    )
    path.write_text(page, encoding="utf-8")


def each(points: Sequence[Point]) -> list[tuple[Point, str, Mean]]:
    """Every figure of every point."""
    return [(point, figure, mean) for point in points for figure, mean in point.means.items()]


def way(point: Point) -> str:
    """How the shots of a point were chosen, for a reader."""
    chosen = "drawn" if point.setting.select == "random" else "retrieved"
    orders = f", mean of {point.setting.orders} orders" if point.setting.orders > 1 else ""
    return f"{chosen}{orders}{', images taken away' if point.setting.blind else ''}"


def scale(figure: str) -> tuple[float, str]:
    """What a figure is multiplied by for a reader, and its unit: shares are told in per cent, CIDEr as it is."""
    return (1.0, "") if figure.startswith("CIDEr") else (100.0, " (%)")


def told(figure: str, mean: Mean) -> str:
    """A figure with its interval."""
    value, low, high = (number(figure, part) for part in (mean.value, mean.low, mean.high))
    return value if mean.low == mean.high else f"{value} ({low} to {high})"


def _seeds(point: Point, figure: str) -> str:
    return ", ".join(number(figure, figures[figure]) for figures in point.seeds.values())


def number(figure: str, value: float) -> str:
    """A figure for a reader; see :func:`scale`."""
    factor, _ = scale(figure)
    return f"{factor * value:.{2 if factor == 1 else 1}f}"


def as_record(point: Point) -> dict[str, Any]:
    """A point as plain values."""
    means = {name: {"value": m.value, "low": m.low, "high": m.high} for name, m in point.means.items()}
    setting = point.setting
    return {
        "shots": setting.shots,
        "select": setting.select,
        "orders": setting.orders,
        "blind": setting.blind,
        "queries": point.queries,
        "seeds": {str(seed): figures for seed, figures in point.seeds.items()},
        "means": means,
    }
