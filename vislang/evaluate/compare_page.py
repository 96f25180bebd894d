"""A page that compares runs: their scores, their curves over each other, their speed, and the settings that differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.evaluate.curves import compared_plots, typical_speed
from vislang.evaluate.differences import ABSENT, differing, flat
from vislang.evaluate.figure_rows import loss_rows
from vislang.evaluate.intervals import Drawn, by_metric, drawn
from vislang.evaluate.page import template
from vislang.evaluate.plots import series_colour
from vislang.evaluate.run_record import RunRecord
from vislang.files import write_text
from vislang.metrics.figure import figures_from_json, metric
from vislang.train.log import rates_in_words


def write_compare_page(path: Path, runs: Sequence[RunRecord]) -> None:
    """Write the page.

    Args:
        path: of the page.
        runs: finished or not, each with a name of its own.
    """
    names = [run.name for run in runs]
    page = template("compare").render(
        title=f"{len(runs)} runs: {', '.join(names)}" if len(runs) <= 4 else f"{len(runs)} runs",
        names=names,
        colours={name: series_colour(number) for number, name in enumerate(names)},
        tasks=_tasks(runs),
        losses=_held_out(runs),
        plots=compared_plots({run.name: run.rows for run in runs}),
        speed=_speed(runs),
        differences=differing([_settings(run) for run in runs]),
    )
    write_text(path, page)


def _tasks(runs: Sequence[RunRecord]) -> list[tuple[str, str, list[Drawn]]]:
    """For each task and metric: how many examples, and the figures of the runs that have it.

    Scores of the same task on other numbers of examples stand apart: they are not to be compared.
    """
    found: dict[str, dict[str, Any]] = {}
    for run in runs:
        for task, values in (run.metrics or {"tasks": {}})["tasks"].items():
            heading = f"{task}: {values['n']:,} examples"
            found.setdefault(heading, {})[run.name] = figures_from_json(values["figures"])
    return [
        (heading, metric(name).title, drawn(name, by_run))
        for heading, by_whom in found.items()
        for name, by_run in by_metric(by_whom).items()
    ]


def _held_out(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Losses on held-out examples: stream and name, and the value of each run."""
    found: dict[str, dict[str, str]] = {}
    for run in runs:
        for stream, name, value in loss_rows((run.metrics or {"held_out": {}})["held_out"]):
            found.setdefault(f"{stream}: {name}", {})[run.name] = value
    return [(name, [values.get(run.name, ABSENT) for run in runs]) for name, values in found.items()]


def _speed(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """How far each run is, how long it took, and its rates."""
    rates = [rates_in_words(typical_speed(run.rows)) for run in runs]
    steps = [
        f"{run.steps:,}"
        if run.metrics is not None
        else f"{run.steps:,} of {run.recipe['train']['steps']:,}, not finished"
        for run in runs
    ]
    rows = [("steps", steps), ("minutes of training", [f"{run.minutes:.1f}" for run in runs])]
    units = dict.fromkeys(unit for rate in rates for unit in rate)
    return rows + [(unit, [rate.get(unit, ABSENT) for rate in rates]) for unit in units]


def _settings(run: RunRecord) -> dict[str, str]:
    """All that decides a run, by dotted name: the recipe, the versions, the machine."""
    about = {key: run.about[key] for key in ("versions", "threads", "machine", "system", "cuda") if key in run.about}
    return flat({**run.recipe, "environment": about})
