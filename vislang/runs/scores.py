"""What a run is scored by: figures on held-out examples while it trains, and the tasks of its recipe at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vislang.capabilities import Generates
from vislang.console import reporting
from vislang.data.problems import Problem, must_be_good
from vislang.evaluate.evaluation import Evaluation, evaluate
from vislang.evaluate.loss import held_out_losses, loss_per_token
from vislang.evaluate.results import write_evaluation
from vislang.evaluate.ways import Way, cell
from vislang.example import Example
from vislang.recipe import Recipe
from vislang.runs.folder import environment
from vislang.runs.streams import StreamData, by_kind
from vislang.tasks.catalogue import open_task
from vislang.tasks.own import OwnTask
from vislang.tasks.task import Task

WATCHED: tuple[Way, ...] = ("decide", "rank", "generate")
"""Ways of answering that are quick enough to watch while training."""


def watched_figures(model: Any, streams: Sequence[StreamData], batch_size: int) -> dict[str, float]:
    """Figures on the watched examples, by name; behind the name of the stream where there are several.

    Of questions, labels and the like the metrics of their kind; of text to be written the loss of a token; where nothing
    is asked, the model's losses and diagnostics.
    """
    found: dict[str, float] = {}
    for stream in streams:
        prefix = f"{stream.name}/" if len(streams) > 1 else ""
        for kind, examples in by_kind(stream.watched).items():
            figures: dict[str, float]
            if kind == "none" or (kind == "text" and not isinstance(model, Generates)):
                figures = held_out_losses(model, examples, stream.config.batch_size or batch_size)
            elif kind == "text":
                figures = {"loss_per_token": loss_per_token(model, examples)}
            else:
                figures = _quick_figures(model, OwnTask(stream.name, kind, examples), examples)
                if len(streams) > 1 and isinstance(model, Generates):
                    figures["loss_per_token"] = loss_per_token(model, examples)
            found |= {f"{prefix}{name}": value for name, value in figures.items()}
    return found


def _quick_figures(model: Any, task: Task, examples: list[Example]) -> dict[str, float]:
    found = cell(model, task)
    if found.way not in WATCHED:
        return {}
    evaluation = evaluate(model, task, examples, way=found.way, with_blind=False, with_perplexity=False)
    return {name: figure.value for name, figure in evaluation.figures.items()}


def watched_metric(model: Any, stream: StreamData, several: bool) -> str:
    """The figure that says how well a stream goes, the higher the better; empty where there is none."""
    for kind in stream.kinds:
        if kind in ("none", "text"):
            continue
        task = OwnTask(stream.name, kind, stream.train[:1])
        if cell(model, task).way in WATCHED:
            return f"{stream.name}/{task.metrics[0]}" if several else task.metrics[0]
    return ""


@dataclass(frozen=True)
class ScoredTask:
    """A task that a trained model is scored on: its name in the results, examples, and what guesses learn from."""

    name: str
    task: Task
    examples: list[Example]
    support: list[Example]


def scored_tasks(recipe: Recipe, streams: Sequence[StreamData]) -> list[ScoredTask]:
    """What a recipe scores its model on.

    The tasks that it names; or each stream's own test examples, a task for each kind of target in it.

    Raises:
        DataError: a task that does not exist, or cannot be read.
    """
    found: list[ScoredTask] = []
    for name in recipe.evaluate or ():
        task = open_task(name)
        problems: list[Problem] = []
        examples = task.examples(task.default_split, problems)
        must_be_good(problems, recipe.skip_bad_records, name)
        chosen = task.subset(examples, recipe.eval_limit, recipe.train.seed)
        found.append(ScoredTask(name, task, chosen, task.support()))
    if recipe.evaluate is None:
        for stream in streams:
            groups = {kind: examples for kind, examples in by_kind(stream.test).items() if kind != "none"}
            for kind, examples in groups.items():
                name = stream.name if len(groups) == 1 else f"{stream.name} ({kind})"
                support = by_kind(stream.train).get(kind, [])
                found.append(ScoredTask(name, OwnTask(name, kind, [*examples, *support]), examples, support))
    return found


def final_scores(model: Any, tasks: Sequence[ScoredTask], folder: Path) -> dict[str, Evaluation]:
    """Score a trained model on its tasks; the files of each evaluation go into ``evaluation/`` of the run's folder.

    A task that the model cannot answer is passed over: it is not what such a model is trained for.
    """
    found = {}
    for scored in tasks:
        if cell(model, scored.task).way is None:
            continue
        evaluation = evaluate(model, scored.task, scored.examples, scored.support, reporter=reporting)
        found[scored.name] = evaluation
        about = {"model": str(folder / "model"), **environment()}
        write_evaluation(folder / "evaluation" / _file_name(scored.name), evaluation, scored.task, about)
    return found


def held_out(model: Any, streams: Sequence[StreamData], batch_size: int) -> dict[str, dict[str, float]]:
    """Losses on the watched examples of the streams in which nothing is asked, and the loss of a token, with the media
    and without, of those that a model learns to write."""
    found: dict[str, dict[str, float]] = {}
    for stream in streams:
        groups = by_kind(stream.watched)
        if "none" in groups or not isinstance(model, Generates):
            losses = held_out_losses(model, stream.watched, stream.config.batch_size or batch_size)
            found[stream.name] = losses
        elif stream.test:
            found[stream.name] = {
                "loss_per_token": loss_per_token(model, stream.test),
                "loss_per_token_blind": loss_per_token(model, stream.test, blind=True),
            }
    return {name: values for name, values in found.items() if values}


def _file_name(task: str) -> str:
    """The name of a task as a folder's."""
    return "".join(c if c.isalnum() or c in "-_.()" else "-" for c in task).strip("-.") or "task"
