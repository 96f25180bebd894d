"""``vislang eval --shots``: scores with several examples in the prompt."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vislang.console import console, reporting
from vislang.errors import UserError
from vislang.evaluate.card import completed, write_card
from vislang.evaluate.few_shot import FewShotEvaluation, concluded, measure, settings_for, way_of
from vislang.evaluate.few_shot_baselines import baselines
from vislang.evaluate.few_shot_results import as_record, read_points, shots_as_json, write_points
from vislang.evaluate.results import write_results
from vislang.evaluate.shots import TEXT_SHOTS, Select, shots_of
from vislang.evaluate.tables import few_shot_table
from vislang.example import Example
from vislang.metrics.figure import SCHEMA, figures_as_json
from vislang.models.loading import load
from vislang.runs.folder import environment, versions
from vislang.tasks.few_shot import split_own_file
from vislang.tasks.task import Task
from vislang.train.device import device_of

OWN_QUERIES = 500
"""Most queries that are taken from data without a training split."""

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
    draws: int
    select: Literal["random", "retrieved", "both"]
    selector: str | None
    orders: int
    abstain: float | None
    limit: int
    seed: int
    report: Path | None
    out: Path | None
    json: bool
    device: str

    def __post_init__(self):
        self._numbers()

    def run(
        self,
        task: Task,
        examples: list[Example],
        about: dict[str, Any],
        card_of: Callable[[Task, Sequence[Example], Sequence[Example]], dict[str, Any]],
    ) -> int:
        """Print the figures, and write a page with their curves; returns 0.

        Args:
            task: the task.
            examples: the examples of its split. Data without a training split are divided into shots and queries.
            about: what the results record of the command.
            card_of: makes the score card from the task, the queries and the examples that shots are drawn from.

        Raises:
            UserError: the model cannot be prompted with examples, or there are too few.
        """
        support, queries = sides(task, examples, self.limit, self.seed)
        media = any(query.media for query in queries)
        settings = settings_for(self._numbers(), SELECT[self.select], media, blind=task.kind != "pairs")
        if self.report is not None and not task.can_score(queries):
            raise UserError(f"--report: no record of {task.name} has a target, so there are no figures to draw.")
        if task.kind == "pairs" and self.select != "random":
            raise UserError(f"--select {self.select}: all images of {task.name} share the same shots. Leave it out.")
        if max(setting.shots or TEXT_SHOTS for setting in settings) > len(support):
            raise UserError(
                f"--shots {self.shots}: {task.name} has {len(support)} examples to draw from (zero shots are "
                f"{TEXT_SHOTS} examples without images). Give smaller numbers, or more records."
            )
        # The selector is small: its mistakes should not cost the time of opening the model.
        device = device_of(self.device)
        selector = None if self.selector is None else load(self.selector, device)
        model = load(self.model, device)
        card = card_of(task, queries, support)
        way = way_of(model, task)
        found = measure(
            model, task, support, queries, settings, self.draws, self.orders, selector, self.abstain, reporting
        )
        about = {"model": self.model, **about}
        page = None if self.report is None else Page(self.report, f"{task.name}: {self.model}", self._command(about))
        finish(task, support, queries, found, about, card, way, self.out, self.json, page)
        return 0

    def _numbers(self) -> list[int]:
        """The numbers of shots.

        Raises:
            UserError: ``--shots`` is not a list of numbers, or an option is out of its range.
        """
        try:
            numbers = [int(number) for number in self.shots.split(",")]
        except ValueError:
            numbers = [-1]
        if min(numbers) < 0:
            raise UserError(f"--shots {self.shots}: write numbers with commas between them, such as 0,4,8.")
        for name in ("draws", "orders"):
            if getattr(self, name) < 1:
                raise UserError(f"--{name} is {getattr(self, name)}; it must be at least 1.")
        return numbers

    def _command(self, about: dict[str, Any]) -> str:
        """The command that was run."""
        options = {"task": about["spec"], "split": about["split"]}
        options |= {"shots": self.shots, "draws": self.draws, "select": self.select, "orders": self.orders}
        options |= {"limit": self.limit, "seed": self.seed}
        options |= {"selector": self.selector} if self.selector else {}
        options |= {"abstain": self.abstain} if self.abstain is not None else {}
        return " ".join([f"vislang eval {self.model}", *(f"--{name} {value}" for name, value in options.items())])


@dataclass(frozen=True)
class Page:
    """The page of an evaluation: its path, its title, and the command that was run."""

    path: Path
    title: str
    command: str


def sides(task: Task, examples: list[Example], limit: int, seed: int) -> tuple[list[Example], list[Example]]:
    """The examples that can serve as shots, and the queries.

    Queries are never among the shots: data without a training split, and the training split itself, are divided.

    Raises:
        DataError: there are too few different images to divide.
    """
    if task.support_split in (None, task.default_split):
        divided = split_own_file(task, OWN_QUERIES)
        support, queries = divided.support(), divided.examples(divided.default_split)
    else:
        support, queries = task.support(), examples
    return shots_of(support), task.subset(queries, limit, seed)


def rescore_points(
    file: Path,
    task: Task,
    examples: list[Example],
    about: dict[str, Any],
    card_of: Callable[[Task, Sequence[Example], Sequence[Example]], dict[str, Any]],
    out: Path | None,
    as_json: bool,
    abstain: float | None = None,
    page: Page | None = None,
) -> int:
    """Score a file of predictions with shots; returns 0.

    Args:
        file: the ``predictions.jsonl`` of a few-shot evaluation.
        task, examples: see :meth:`FewShot.run`.
        about: what the results record of the command.
        card_of: see :meth:`FewShot.run`.
        out: folder for the results, if any.
        as_json: print JSON.
        abstain: see :func:`~vislang.evaluate.few_shot.measure`.
        page: the page to write, if any.
    """
    support, queries = sides(task, examples, about["limit"], about["seed"])
    points = read_points(file, task, queries)
    found = concluded(task, queries, points, baselines(task, support, queries), abstain)
    finish(task, support, queries, found, about, card_of(task, queries, support), "file", out, as_json, page)
    return 0


def finish(
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    found: FewShotEvaluation,
    about: dict[str, Any],
    card: dict[str, Any],
    way: str,
    out: Path | None,
    as_json: bool,
    page: Page | None,
) -> None:
    """Write the files and the page, and print the figures."""
    values = {
        "schema": SCHEMA,
        "task": task.name,
        "n": len(queries),
        "points": [as_record(point) for point in found.points],
        "baselines": {name: figures_as_json(figures) for name, figures in found.baselines.items()},
        "verdict": [finding.as_json() for finding in found.verdict],
        **about,
    }
    if out is not None or page is not None:
        media = [medium for example in (*queries, *support) for medium in example.media]
        predictions = [p for point in found.points for own in point.predictions.values() for p in own]
        card = completed(card, way, predictions, found.points[0].metric, media, shots_as_json(found.points))
    if out is not None:
        write_points(out, found.points, task, queries)
        write_results(out, {**values, **environment()})
        write_card(out, card)
    if page is not None:
        from vislang.evaluate.few_shot_page import write_few_shot_page

        write_few_shot_page(page.path, page.title, task, queries, found, card, page.command, versions())
    if as_json:
        print(json.dumps(values), flush=True)
        return
    if about["bad_records"]:
        console.print(f"skipped {about['bad_records']} bad records")
    console.print(few_shot_table(task.name, found))
    for sentence in found.sentences():
        console.print(f"* {sentence}")
    if out is not None:
        console.print(f"wrote results and predictions to [bold]{out}[/bold]")
    if page is not None:
        console.print(f"wrote the page [bold]{page.path}[/bold]")
