"""The evaluation of a run: figures on held-out examples during training, and the recipe's tasks at the end."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vislang.capabilities import Generates
from vislang.console import reporting
from vislang.data.problems import Problem, must_be_good
from vislang.errors import UserError
from vislang.evaluate.card import card_of
from vislang.evaluate.evaluation import Evaluation, evaluate
from vislang.evaluate.loss import held_out_losses, loss_per_token
from vislang.evaluate.results import PREDICTIONS, RESULTS, write_evaluation
from vislang.evaluate.ways import Way, cell, why_not
from vislang.example import Example
from vislang.metrics.by_kind import kind_of_all
from vislang.metrics.figure import Figures, figures_from_json, plain
from vislang.models.loading import identity, is_saved_model
from vislang.recipe import Recipe
from vislang.runs.folder import environment, read_json
from vislang.runs.streams import StreamData
from vislang.tasks.catalogue import open_task
from vislang.tasks.retrieval import Retrieval, is_pair
from vislang.tasks.task import ReadTask, Task, images_of, labels_of, media_of

DRAWN = ("split", "limit", "seed")
"""Options of ``vislang eval`` that choose the examples of a task."""

WATCHED: tuple[Way, ...] = ("decide", "rank", "generate")
"""Ways of answering that are fast enough to be evaluated during training."""


@dataclass(frozen=True)
class ScoredTask:
    """A task to score a trained model on.

    Attributes:
        name: its name in the results.
        task: scores the examples.
        examples: examples to answer.
        support: examples for the baselines.
        about: how ``vislang eval`` finds the same examples; empty for examples that were held out of a stream.
    """

    name: str
    task: Task
    examples: list[Example]
    support: list[Example]
    about: dict[str, Any] = field(default_factory=dict)


def own_task(model: Any, name: str, examples: Sequence[Example], support: Sequence[Example] = ()) -> Task | None:
    """The examples of a stream as a task; None if they have no targets.

    For pairs of image and text, the task is captioning if the model generates text, and retrieval if it does not.
    """
    everything = [*examples, *support]
    kind = kind_of_all(everything)
    if kind == "none":
        return None
    about = f"examples of the stream {name}"
    if kind == "text" and not isinstance(model, Generates) and all(is_pair(example) for example in everything):
        return Retrieval(name, about, {"test": lambda problems, progress: list(examples)}, "test")
    read = {
        "train": lambda problems, progress: list(support),
        "test": lambda problems, progress: list(examples),
    }
    labels, images = labels_of(everything), images_of(everything)
    return ReadTask(name, about, kind, media_of(everything), read, "test", "train", labels, images)


def watched_figures(model: Any, streams: Sequence[StreamData], batch_size: int) -> dict[str, float]:
    """Figures on the watched examples, by name; with the stream's name as a prefix if there are several.

    For questions, labels, boxes and numbers, the metrics of their kind; for text to be generated, the loss per token;
    for examples without targets, and for pairs if the model generates no text, the model's losses and diagnostics.
    """
    found: dict[str, float] = {}
    for stream in streams:
        if not stream.watched:
            continue
        figures: dict[str, float] = {}
        task = own_task(model, stream.name, stream.watched)
        way = None if task is None or task.kind == "text" else cell(model, task).way
        if task is not None and way in WATCHED:
            scored = evaluate(model, task, stream.watched, way=way, with_blind=False, with_perplexity=False)
            figures |= {name: figure.value for name, figure in scored.figures.items()}
        if isinstance(model, Generates) and (not figures or len(streams) > 1):
            figures["loss_per_token"] = loss_per_token(model, stream.watched)
        if not figures:
            figures = held_out_losses(model, stream.watched, stream.config.batch_size or batch_size)
        prefix = f"{stream.name}/" if len(streams) > 1 else ""
        found |= {f"{prefix}{name}": value for name, value in figures.items()}
    return found


def watched_metric(model: Any, stream: StreamData, several: bool) -> str:
    """The name of a stream's main figure, of which higher is better; empty if there is none."""
    task = own_task(model, stream.name, stream.sample)
    if task is None or task.kind == "text" or cell(model, task).way not in WATCHED:
        return ""
    return f"{stream.name}/{task.metrics[0]}" if several else task.metrics[0]


def named_tasks(recipe: Recipe) -> list[ScoredTask] | None:
    """The tasks that a recipe names under ``evaluate``; None if it names none.

    Raises:
        DataError: a task does not exist or cannot be read.
    """
    if recipe.evaluate is None:
        return None
    found = []
    for name in recipe.evaluate:
        problems: list[Problem] = []
        task = open_task(name, None, problems)
        examples = task.examples(task.default_split, problems)
        must_be_good(problems, recipe.skip_bad_records, name)
        limit, seed = recipe.eval_limit, recipe.train.seed
        about = {"spec": name, "split": task.default_split, "limit": limit, "seed": seed, "bad_records": len(problems)}
        found.append(ScoredTask(name, task, task.subset(examples, limit, seed), task.support(), about))
    return found


def stream_tasks(model: Any, streams: Sequence[StreamData]) -> list[ScoredTask]:
    """Each stream's own test examples as a task."""
    found = []
    for stream in streams:
        own = own_task(model, stream.name, stream.test, stream.sample)
        if own is not None and stream.test:
            found.append(ScoredTask(stream.name, own, stream.test, list(stream.sample)))
    return found


def must_answer(model: Any, tasks: Sequence[ScoredTask]) -> None:
    """Check that a model can answer the tasks that its recipe names.

    Args:
        model: the model after ``fit``, when it has its heads and labels.
        tasks: see :func:`named_tasks`.

    Raises:
        UserError: it cannot; the message names both and the reason.
    """
    for scored in tasks:
        if not scored.about:
            continue
        if (reason := why_not(model, scored.task)) is not None:
            raise UserError(f"evaluate: {reason}")
        scored.task.must_be_answerable(scored.examples)


def final_scores(model: Any, tasks: Sequence[ScoredTask], folder: Path) -> dict[str, Evaluation]:
    """Score a trained model on its tasks; the files of each evaluation are written to ``evaluation/`` in the run's
    folder.

    Streams whose task the model cannot answer are ignored: such streams, as the captions of pretraining, are for
    training only.
    """
    found = {}
    for scored in tasks:
        if cell(model, scored.task).way is None:
            continue
        evaluation = evaluate(model, scored.task, scored.examples, scored.support, reporter=reporting)
        found[scored.name] = evaluation
        source = str(folder / "model")
        known = {"source": source, **(identity(source) if is_saved_model(source) else {})}
        options = {"task": scored.about["spec"], **{n: scored.about[n] for n in DRAWN}} if scored.about else {}
        card = card_of(scored.task, scored.examples, (), model=known, options=options, environment=environment())
        about = {"model": source, **scored.about, **environment()}
        write_evaluation(folder / "evaluation" / _file_name(scored.name), evaluation, scored.task, about, card)
    return found


def read_scores(tasks: Sequence[ScoredTask], folder: Path) -> dict[str, Evaluation]:
    """The evaluations that :func:`final_scores` wrote, by task; tasks that were not scored are not in the result.

    Raises:
        DataError: the predictions are for other examples, because the data have changed.
    """
    found = {}
    for scored in tasks:
        own = folder / "evaluation" / _file_name(scored.name)
        if (own / RESULTS).is_file() and (own / PREDICTIONS).is_file():
            values = read_json(own / RESULTS)
            predictions = scored.task.read_predictions(own / PREDICTIONS, scored.examples)
            figures = figures_from_json(values["figures"])
            found[scored.name] = Evaluation(values["task"], values["way"], scored.examples, predictions, figures)
    return found


def held_out(model: Any, streams: Sequence[StreamData], batch_size: int) -> dict[str, Figures]:
    """Losses on held-out examples, by stream.

    For a model that generates text, the loss per token on the test examples, with and without media; for others, their
    losses and diagnostics on the watched examples.
    """
    found: dict[str, Figures] = {}
    for stream in streams:
        if isinstance(model, Generates):
            if stream.test:
                n = len(stream.test)
                found[stream.name] = {
                    "loss_per_token": plain(loss_per_token(model, stream.test), n),
                    "loss_per_token_blind": plain(loss_per_token(model, stream.test, blind=True), n),
                }
        elif stream.watched:
            losses = held_out_losses(model, stream.watched, stream.config.batch_size or batch_size)
            found[stream.name] = {name: plain(value, len(stream.watched)) for name, value in losses.items()}
    return found


def _file_name(task: str) -> str:
    """The name of a task as the name of a folder."""
    return "".join(c if c.isalnum() or c in "-_.()" else "-" for c in task).strip("-.") or "task"
