"""``vislang eval --shots``: how a model does with so many examples in its prompt."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.table import Table

from vislang.console import console, reporting
from vislang.errors import UserError
from vislang.evaluate.few_shot import (
    TEXT_SHOTS,
    Point,
    Setting,
    baselines,
    evaluate_point,
    shots_of,
    similarities,
    way_of,
)
from vislang.evaluate.few_shot_page import selection, write_few_shot_page
from vislang.evaluate.few_shot_results import as_record, read_points, write_points
from vislang.evaluate.results import write_results
from vislang.example import Example
from vislang.metrics.figure import SCHEMA, Figures, figures_as_json, metric, show, title_of
from vislang.models.loading import load
from vislang.runs.folder import environment, versions
from vislang.tasks.few_shot import split_own_file
from vislang.tasks.task import Task

if TYPE_CHECKING:
    from vislang.commands.evaluate import Evaluate

OWN_QUERIES = 500
"""Questions of a user's own file that are asked with shots at most, where no limit is given."""


def few_shot(options: Evaluate, task: Task, examples: list[Example], bad: int) -> int:
    """Print the figures, and write a page with their curves; returns the exit status.

    Args:
        options: of the command.
        task: what is asked.
        examples: of its split; of a file without a split of its own a part serves as shots.
        bad: how many bad records were left out.

    Raises:
        UserError: the model cannot be prompted with examples, or there are too few.
    """
    settings = settings_of(options)
    support, queries = sides(task, examples, options)
    if task.kind == "pairs" or not any(query.media for query in queries):
        settings = [setting for setting in settings if not setting.blind]
    if max(setting.shots or TEXT_SHOTS for setting in settings) > len(support):
        raise UserError(
            f"--shots {options.shots}: {task.name} has {len(support)} examples to draw from (zero shots are "
            f"{TEXT_SHOTS} without their images)."
        )
    if options.report is not None and not task.can_score(queries):
        raise UserError(f"--report: no record of {task.name} has a target, so there are no figures to draw.")
    model = options.opened_model()
    ranked = way_of(model, task) == "rank"
    if options.orders > 1 and not ranked:
        raise UserError(f"--orders: the answers of {task.name} are generated; only ranked answers can be averaged.")
    points, others = measured(model, task, support, queries, options, settings, ranked)
    about = {"model": options.model, **options.about(task, bad)}
    finish(options, task, queries, points, others, about)
    if options.report is not None:
        title = f"{task.name}: {options.model}"
        write_few_shot_page(options.report, title, points, others, command_of(options), versions())
        if not options.json:
            console.print(f"[bold]{options.report}[/bold] shows the curves")
    return 0


def rescore_points(options: Evaluate, file: Path, task: Task, examples: list[Example], bad: int) -> int:
    """Score the predictions of an evaluation with shots again; returns 0."""
    support, queries = sides(task, examples, options)
    points = read_points(file, task, queries)
    about = {"predictions": str(file), **options.about(task, bad)}
    finish(options, task, queries, points, baselines(task, support, queries), about)
    return 0


def finish(
    options: Evaluate,
    task: Task,
    queries: Sequence[Example],
    points: Sequence[Point],
    others: dict[str, Figures],
    about: dict[str, Any],
) -> None:
    """Write the files and print the figures."""
    values = {
        "schema": SCHEMA,
        "task": task.name,
        "n": len(queries),
        "points": [as_record(point) for point in points],
        "baselines": {name: figures_as_json(figures) for name, figures in others.items()},
        **about,
    }
    if options.out is not None:
        write_points(options.out, points, task, queries)
        write_results(options.out, {**values, **environment()})
    if options.json:
        print(json.dumps(values), flush=True)
        return
    if about["bad_records"]:
        console.print(f"left out {about['bad_records']} bad records")
    console.print(few_shot_table(task.name, points, others))
    options.say_where()


def sides(task: Task, examples: list[Example], options: Evaluate) -> tuple[list[Example], list[Example]]:
    """What shots are drawn from, and what is asked; of data without a split for shots, or where that is the one that is
    asked, different images are on each side.

    Raises:
        DataError: there is nothing to show.
    """
    if task.support_split in (None, task.default_split):
        divided = split_own_file(task, OWN_QUERIES)
        support, queries = divided.support(), divided.examples(divided.default_split)
    else:
        support, queries = task.support(), examples
    return shots_of(support), task.subset(queries, options.limit, options.seed)


def settings_of(options: Evaluate) -> list[Setting]:
    """What to measure, the numbers of shots in order; without images too, where they are drawn.

    Raises:
        UserError: the options are no numbers of shots.
    """
    assert options.shots is not None
    try:
        numbers = sorted({int(number) for number in options.shots.split(",")})
    except ValueError:
        raise UserError(f"--shots {options.shots}: write numbers with commas between them, such as 0,4,8.") from None
    if min(numbers) < 0 or options.seeds < 1 or options.orders < 1:
        raise UserError("--shots must not be negative; --seeds and --orders are at least 1.")
    drawn = [Setting(n, "random", options.orders if n > 1 else 1) for n in numbers]
    retrieved = [Setting(n, "retrieved", options.orders if n > 1 else 1) for n in numbers if n]
    blind = [Setting(n, blind=True) for n in numbers]
    # Without examples there is nothing to choose.
    none = [setting for setting in drawn if not setting.shots]
    chosen = {"random": drawn, "retrieved": [*none, *retrieved], "both": [*drawn, *retrieved]}[options.select]
    return [*chosen, *blind]


def measured(
    model: Any,
    task: Task,
    support: Sequence[Example],
    queries: Sequence[Example],
    options: Evaluate,
    settings: Sequence[Setting],
    ranked: bool,
) -> tuple[list[Point], dict[str, Figures]]:
    """The points, and the figures of what needs no prompt."""
    from vislang.capabilities import Embeds

    # Drawn shots need no comparison; the baseline by the most similar image does, where the images are in the prompt.
    compared = options.select != "random" or (not ranked and all(e.prompt.media for e in (*queries, *support)))
    with reporting("encoding media") as progress:
        seen = [*queries, *support] if compared else queries
        model.prepare([example.without_target() for example in seen], progress)
    selector = load(options.selector) if options.selector else model
    if not isinstance(selector, Embeds):
        raise UserError(f"--selector {options.selector}: is a {type(selector).__name__}, which compares no images.")
    similarity = None
    if compared:
        with reporting("comparing images") as progress:
            similarity = similarities(selector, queries, support, progress)
    points = []
    for setting in settings:
        # What is retrieved is the same for every seed; without orders to draw, one is enough.
        seeds = range(1 if setting.select == "retrieved" and setting.orders == 1 else options.seeds)
        what = f"{setting.shots} shots, {selection(Point(setting, {}, {}))}"
        with reporting(what) as progress:
            points.append(
                evaluate_point(model, task, support, queries, setting, list(seeds), similarity, progress=progress)
            )
    return points, baselines(task, support, queries, similarity)


def few_shot_table(task: str, points: Sequence[Point], others: dict[str, Figures]) -> Table:
    """All figures of all points."""
    table = Table(title=f"{task}: examples in the prompt", title_justify="left")
    for heading in ("shots", "chosen", "metric", "mean over seeds (95 % interval)"):
        table.add_column(heading)
    for point in points:
        for name, figure in point.means.items():
            table.add_row(str(point.setting.shots), selection(point), metric(name).title, show(name, figure))
    for baseline, figures in others.items():
        for name, figure in figures.items():
            table.add_row("", title_of(baseline), metric(name).title, show(name, figure))
    return table


def command_of(options: Evaluate) -> str:
    """The command, as it is typed."""
    words = [f"vislang eval {options.model} --task {options.spec()} --shots {options.shots} --seeds {options.seeds}"]
    words.append(f"--select {options.select} --orders {options.orders} --limit {options.limit} --seed {options.seed}")
    for name in ("split", "selector", "regions"):
        if (value := getattr(options, name)) is not None:
            words.append(f"--{name} {value}")
    return " ".join(words)
