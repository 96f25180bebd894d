"""``vislang eval --shots``: how a model does with so many examples in its prompt."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.capabilities import Embeds, FewShot
from vislang.commands.outputs import must_hold_file
from vislang.commands.run_folder import versions
from vislang.console import console, reporting
from vislang.data.example import Example
from vislang.data.fetch import fetch
from vislang.data.jsonl import DataError, Problem, must_be_good
from vislang.errors import UserError
from vislang.evaluate.few_shot import (
    TEXT_SHOTS,
    Point,
    Setting,
    evaluate_point,
    likeness_of,
    most_frequent,
    nearest_answers,
)
from vislang.evaluate.few_shot_page import as_record, each, told, way, write_few_shot_page
from vislang.models.loading import load
from vislang.tasks.few_shot import FEW_SHOT_TASKS, FewShotTask, Mean, limited, of_examples
from vislang.tasks.material import material

OWN = 500
"""Questions of a user's own file that are asked at most, where no limit is given."""


@dataclass(frozen=True)
class Prompting:
    """What is measured.

    Attributes:
        shots: numbers, with commas between them.
        seeds: how often shots are drawn.
        select: ``random``, ``retrieved`` or ``both``.
        selector: folder of a model that compares images; None takes the model's own vision tower.
        orders: of the shots, over which likelihoods are averaged.
        limit: questions at most, drawn by ``seed``; 0 for all.
        seed: of that draw.
    """

    shots: str
    seeds: int
    select: str
    selector: str | None
    orders: int
    limit: int
    seed: int

    def settings(self) -> list[Setting]:
        """What to measure, the numbers of shots in order; without images too, where they are drawn.

        Raises:
            UserError: ``shots`` are no numbers.
        """
        try:
            numbers = sorted({int(number) for number in self.shots.split(",")})
        except ValueError:
            raise UserError(f"--shots {self.shots}: write numbers with commas between them, such as 0,4,8.") from None
        if min(numbers) < 0 or self.seeds < 1 or self.orders < 1:
            raise UserError("--shots must not be negative; --seeds and --orders are at least 1.")
        drawn = [Setting(n, "random", self.orders if n > 1 else 1) for n in numbers]
        retrieved = [Setting(n, "retrieved", self.orders if n > 1 else 1) for n in numbers if n]
        blind = [Setting(n, blind=True) for n in numbers]
        # Without examples there is nothing to choose.
        none = [setting for setting in drawn if not setting.shots]
        chosen = {"random": drawn, "retrieved": [*none, *retrieved], "both": [*drawn, *retrieved]}[self.select]
        return [*chosen, *blind]

    def command(self, source: str, task: str) -> str:
        """What was asked for, as it is typed."""
        words = [f"vislang eval {source} --task {task} --shots {self.shots} --seeds {self.seeds}"]
        words.append(f"--select {self.select} --orders {self.orders} --limit {self.limit} --seed {self.seed}")
        return " ".join([*words, f"--selector {self.selector}"] if self.selector else words)


def few_shot(
    source: str, task: str | None, prompting: Prompting, report: Path | None, skip: bool, as_json: bool
) -> int:
    """Print the figures, and write a page with their curves; returns the exit status.

    Raises:
        UserError: the model cannot be shown examples, or the task is not known.
    """
    settings = prompting.settings()
    if task is None:
        raise UserError(f"--shots: name a --task ({', '.join(FEW_SHOT_TASKS)}) or a --data file.")
    if report is not None:
        must_hold_file(report, "--report")
    whole, bad = task_named(task, prompting.limit or OWN, skip)
    chosen = limited(whole, prompting.limit, prompting.seed)
    if max(setting.shots or TEXT_SHOTS for setting in settings) > len(chosen.support):
        raise UserError(
            f"--shots {prompting.shots}: {task} has {len(chosen.support)} examples to draw from (zero shots are "
            f"{TEXT_SHOTS} without their images)."
        )
    if prompting.orders > 1 and not chosen.options:
        raise UserError(f"--orders: the answers of {task} are written, and only ranked answers can be averaged.")
    model = load(source)
    if not isinstance(model, FewShot):
        raise UserError(f"{source}: is a {type(model).__name__}, which is not shown examples; give a Flamingo.")
    points, baselines = measured(model, chosen, prompting, settings)
    if as_json:
        records = [as_record(point) for point in points]
        found = {"model": source, "task": task, "bad_records": bad, "points": records, "baselines": baselines}
        print(json.dumps(found), flush=True)
    else:
        if bad:
            console.print(f"left out {bad} bad records")
        console.print(few_shot_table(task, points, baselines))
    if report is not None:
        command = prompting.command(source, task)
        write_few_shot_page(report, f"{task}: {source}", points, baselines, command, versions())
        if not as_json:
            console.print(f"[bold]{report}[/bold] shows the curves")
    return 0


def task_named(name: str, queries: int, skip: bool = False) -> tuple[FewShotTask, int]:
    """A task by name, or of the examples of a file; and how many bad records were left out.

    Raises:
        DataError: nothing usable in the file.
    """
    if name in FEW_SHOT_TASKS:
        source = FEW_SHOT_TASKS[name]
        if source.data_set is not None and not source.data_set.is_here:
            fetch(source.data_set, say=console.print)
        return source.build(), 0
    problems: list[Problem] = []
    with reporting("checking records") as progress:
        items = material(name, "train", problems, progress)
    must_be_good(problems, skip, name)
    examples = [item for item in items if isinstance(item, Example) and item.image is not None]
    if len(examples) < 2:
        raise DataError(f"{name}: needs two examples with an image, one to show and one to ask.")
    return of_examples(name, examples, queries), len(problems)


def measured(
    model: Any, task: FewShotTask, prompting: Prompting, settings: list[Setting]
) -> tuple[list[Point], dict[str, dict[str, float]]]:
    """The points, and the figures of those that need no prompt."""
    compared = prompting.select != "random" or not task.options
    prepared = [*task.queries, *task.support] if compared else task.queries
    with reporting("encoding images") as progress:
        model.prepare([example.prompt(model.prompts) for example in prepared], progress)
    selector = load(prompting.selector) if prompting.selector else model
    if not isinstance(selector, Embeds):
        raise UserError(f"--selector {prompting.selector}: is a {type(selector).__name__}, which compares no images.")
    likeness = None
    if compared:
        with reporting("comparing images") as progress:
            likeness = likeness_of(selector, task, progress)
    points = []
    for setting in settings:
        # What is retrieved is the same for every seed; without orders to draw, one is enough.
        seeds = range(1 if setting.select == "retrieved" and setting.orders == 1 else prompting.seeds)
        with reporting(f"asking with {setting.shots} examples, {way(Point(setting, {}, {}, 0))}") as progress:
            points.append(evaluate_point(model, task, setting, list(seeds), likeness, progress=progress))
    frequent = [most_frequent(task.support)] * len(task.queries)
    guesses = {"most frequent answer": task.score(frequent, task.queries)}
    if likeness is not None:
        guesses["answer to the most similar image"] = task.score(nearest_answers(task, likeness), task.queries)
    baselines = {
        name: {figure: value if isinstance(value, float) else value.value for figure, value in figures.items()}
        for name, figures in guesses.items()
    }
    return points, baselines


def few_shot_table(task: str, points: list[Point], baselines: dict[str, dict[str, float]]) -> Table:
    """All figures, for the terminal."""
    table = Table(title=f"{task}, {points[0].queries:,} questions", title_justify="left")
    table.add_column("examples", justify="right")
    for heading in ("chosen", "what"):
        table.add_column(heading)
    table.add_column("mean (95 % interval)", justify="right")
    for point, figure, mean in each(points):
        table.add_row(str(point.setting.shots), way(point), figure, told(figure, mean))
    for name, figures in baselines.items():
        for figure, value in figures.items():
            table.add_row("", name, figure, told(figure, Mean(value, value, value)))
    return table
