"""Figures by task: as numbers, as a table in the terminal, in the report of a run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from rich.table import Table

from vislang.tasks.answers import Proportion
from vislang.tasks.official import Score


def plain(value: Proportion | float) -> float:
    """A figure as a number."""
    return value.value if isinstance(value, Proportion) else value


def figures(scores: Score) -> dict[str, float]:
    """Figures as numbers, with the ends of intervals where there are some."""
    found = {}
    for name, value in scores.items():
        found[name] = plain(value)
        if isinstance(value, Proportion):
            found |= {f"{name}, low": value.low, f"{name}, high": value.high}
    return found


def decision_table(tasks: dict[str, dict[str, float]]) -> Table:
    """Figures by task."""
    table = Table(title=f"{sum(int(values['n']) for values in tasks.values()):,} test cases", title_justify="left")
    for heading in ("task", "what"):
        table.add_column(heading)
    for heading in ("value", "95 % interval"):
        table.add_column(heading, justify="right")
    for row in figure_rows(tasks):
        table.add_row(*row)
    return table


def figure_rows(tasks: dict[str, dict[str, float]]) -> Iterator[tuple[str, str, str, str]]:
    """Task, figure, value and interval."""
    for task, values in tasks.items():
        for name, value in values.items():
            if name == "n" or name.endswith((", low", ", high")):
                continue
            interval = ""
            if f"{name}, low" in values:
                interval = f"{100 * values[f'{name}, low']:.2f} to {100 * values[f'{name}, high']:.2f}"
            yield task, name, shown(name, value), interval


def shown(name: str, value: float) -> str:
    """A figure for a reader: shares as per cent."""
    share = name.startswith(("accuracy", "majority", "chance", "whole", "upper", "R@", "Q", "SR", "OSR", "consistency"))
    return f"{100 * value:.2f} %" if share else f"{value:.4f}"


def report_figures(folder: Path) -> None:
    """Write the report of a run whose figures are by task."""
    from vislang.evaluate.labelling_report import write_labelling_report

    tasks = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["tasks"]
    rows = [
        (f"{task}: {name}" if len(tasks) > 1 else name, f"{value} ({interval})" if interval else value)
        for task, name, value, interval in figure_rows(tasks)
    ]
    write_labelling_report(folder, rows)
