"""``vislang eval --shots``: scores with several examples in the prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rich.table import Table

from vislang.console import console, reporting
from vislang.errors import UserError
from vislang.evaluate.few_shot import (
    TEXT_SHOTS,
    Point,
    Select,
    Setting,
    measure,
    selection,
    settings_for,
    shots_of,
    way_of,
)
from vislang.evaluate.results import PREDICTIONS, write_predictions, write_results
from vislang.example import Example
from vislang.metrics.figure import SCHEMA, Figures, figures_as_json, metric, show
from vislang.models.loading import load
from vislang.runs.folder import environment, versions
from vislang.tasks.few_shot import split_own_file
from vislang.tasks.task import Task
from vislang.train.device import device_of

OWN_QUERIES = 500
"""Most queries that are taken from a user's own file without ``--limit``."""

SELECT: dict[str, tuple[Select, ...]] = {
    "random": ("random",),
    "retrieved": ("retrieved",),
    "both": ("random", "retrieved"),
}


@dataclass(frozen=True)
class FewShot:
    """The options of :class:`~vislang.commands.evaluate.Evaluate` that a few-shot evaluation uses."""

    model: str
    shots: str
    seeds: int
    select: Literal["random", "retrieved", "both"]
    selector: str | None
    orders: int
    split: str | None
    limit: int
    seed: int
    report: Path | None
    out: Path | None
    json: bool
    device: str

    def __post_init__(self):
        self.settings()

    def run(self, task: Task, examples: list[Example], bad_records: int) -> int:
        """Print the figures, and write a page with their curves; returns 0.

        Args:
            task: the task.
            examples: the examples of its split. A file without splits is divided into shots and queries.
            bad_records: number of records that were skipped.

        Raises:
            UserError: the model cannot be prompted with examples, or there are too few.
        """
        settings = [setting for setting in self.settings() if not (setting.blind and task.kind == "pairs")]
        support, queries = self._sides(task, examples)
        queries = task.subset(queries, self.limit, self.seed)
        if task.kind == "pairs" and self.select != "random":
            raise UserError(f"--select {self.select}: all images of {task.name} share the same shots. Leave it out.")
        usable = len(shots_of(support))
        if max(setting.shots or TEXT_SHOTS for setting in settings) > usable:
            raise UserError(
                f"--shots {self.shots}: {task.name} has {usable} examples to draw from (zero shots are {TEXT_SHOTS} "
                "examples without images). Give smaller numbers, or more records."
            )
        # The selector is small: its mistakes should not cost the time of opening the model.
        device = device_of(self.device)
        selector = None if self.selector is None else load(self.selector, device)
        model = load(self.model, device)
        if self.orders > 1 and way_of(model, task) != "rank":
            raise UserError(f"--orders: answers to {task.name} are generated; only ranked answers can be averaged.")
        points, others = measure(model, task, support, queries, settings, self.seeds, selector, reporting)
        values = {
            "schema": SCHEMA,
            "model": self.model,
            "task": task.name,
            "n": len(queries),
            "bad_records": bad_records,
            "points": [point.as_json() for point in points],
            "baselines": {name: figures_as_json(figures) for name, figures in others.items()},
        }
        if self.out is not None:
            _write(self.out, points, values)
        if self.json:
            print(json.dumps(values), flush=True)
        else:
            if bad_records:
                console.print(f"skipped {bad_records} bad records")
            console.print(few_shot_table(task.name, points, others))
        if self.report is not None:
            from vislang.evaluate.few_shot_page import write_few_shot_page

            title = f"{task.name}: {self.model}"
            write_few_shot_page(self.report, title, points, others, self._command(task), versions())
            if not self.json:
                console.print(f"wrote the curves to [bold]{self.report}[/bold]")
        return 0

    def settings(self) -> list[Setting]:
        """How to prompt.

        Raises:
            UserError: ``--shots`` is not a list of numbers, or an option is out of its range.
        """
        try:
            numbers = [int(number) for number in self.shots.split(",")]
        except ValueError:
            numbers = [-1]
        if min(numbers) < 0:
            raise UserError(f"--shots {self.shots}: write numbers with commas between them, such as 0,4,8.")
        for name in ("seeds", "orders"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least 1.")
        return settings_for(numbers, SELECT[self.select], self.orders)

    def _sides(self, task: Task, examples: list[Example]) -> tuple[list[Example], list[Example]]:
        """The examples that shots are drawn from, and the queries.

        Raises:
            DataError: a user's own file has too few different images to divide.
        """
        if task.support_split is not None:
            return task.support(), examples
        divided = split_own_file(task, self.limit or OWN_QUERIES, self.split)
        return divided.support(), divided.examples(divided.default_split)

    def _command(self, task: Task) -> str:
        """The command that was run."""
        options = {"shots": self.shots, "seeds": self.seeds, "select": self.select, "orders": self.orders}
        options |= {"limit": self.limit, "seed": self.seed}
        options |= {"selector": self.selector} if self.selector else {}
        words = [f"vislang eval {self.model} --task {task.name}"]
        return " ".join([*words, *(f"--{name} {value}" for name, value in options.items())])


def few_shot_table(task: str, points: Sequence[Point], others: dict[str, Figures]) -> Table:
    """The figures of all points and baselines."""
    table = Table(title=f"{task}: examples in the prompt", title_justify="left")
    for heading in ("shots", "selection", "metric", "mean over seeds (95 % interval)"):
        table.add_column(heading)
    for point in points:
        for name, figure in point.means.items():
            table.add_row(str(point.setting.shots), selection(point.setting), metric(name).title, show(name, figure))
    for label, figures in others.items():
        for name, figure in figures.items():
            table.add_row("", label, metric(name).title, show(name, figure))
    return table


def _write(out: Path, points: Sequence[Point], values: dict[str, Any]) -> None:
    """``predictions.jsonl`` with the setting of each prediction, and ``results.json``."""
    rows = (
        (prediction, {"shots": p.setting.shots, "select": p.setting.select, "blind": p.setting.blind, "seed": seed})
        for p in points
        for seed, predictions in p.predictions.items()
        for prediction in predictions
    )
    write_predictions(out / PREDICTIONS, rows)
    write_results(out, {**values, **environment()})
