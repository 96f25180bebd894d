"""``vislang train``: a recipe becomes a run."""

from __future__ import annotations

import importlib.util
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from vislang.capabilities import Generates, Trainable
from vislang.commands.run_folder import circumstances, fresh_folder, write_json
from vislang.console import TrainingMonitor, console, reporting
from vislang.data.example import Example
from vislang.evaluate.answering import Answered, answer
from vislang.recipe import Recipe
from vislang.tasks.answers import guesses
from vislang.tasks.data_sets import Split, split_data
from vislang.train.checkpoint import CheckpointError
from vislang.train.loop import Outcome, train


@dataclass(frozen=True)
class Run:
    """A finished run: its model, its data and its figures (what ``metrics.json`` holds)."""

    model: Any
    split: Split
    test: list[Example]
    answered: Answered
    metrics: dict[str, Any]


def run_recipe(
    recipe: Recipe,
    values: dict[str, Any],
    folder: Path,
    resume: bool = False,
    dry_run: bool = False,
) -> Run | None:
    """Train as a recipe says, score the result, write it all into a folder.

    Args:
        recipe: what to do.
        values: the recipe as plain values, for the record.
        folder: of the run.
        resume: go on with the run in ``folder``.
        dry_run: build model and data, take one step's losses, write nothing.

    Returns:
        The run, or None where it was dry or interrupted.
    """
    started = time.perf_counter()
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    torch.manual_seed(recipe.train.seed)
    with reporting("checking records") as report:
        split = split_data(recipe.data, recipe.eval_data, recipe.hold_out, recipe.skip_bad_records, report)
    learn = split.train[: recipe.limit or None]
    test = _draw(split.test, recipe.eval_limit, recipe.train.seed)
    watched = _draw(split.validation, recipe.train.eval_examples, recipe.train.seed)
    if split.problems:
        console.print(f"left out {len(split.problems)} bad records of {recipe.data}")
    model = recipe.model.build()
    trained, total = _parameters(model)
    console.print(
        f"{len(learn):,} examples to learn from, {len(watched):,} to watch, {len(test):,} to be scored on\n"
        f"{trained:,} parameters train, {total - trained:,} are frozen; {torch.get_num_threads()} threads"
    )
    lessons = [example.lesson(model.prompts) for example in learn]
    if dry_run:
        _try_one_step(model, lessons[: recipe.train.batch_size], recipe)
        return None
    if resume:
        _same_recipe(folder, values)
    elif (moved := fresh_folder(folder)) is not None:
        console.print(f"the earlier run in {folder} was moved to {moved}")
    if not resume:
        write_json(folder / "run.json", {"recipe": values, **circumstances(), "bad_records": len(split.problems)})
    with reporting("encoding images") as report:
        prompts = [example.prompt(model.prompts) for example in (*watched, *test)]
        model.prepare([*lessons, *prompts], report)
    if not resume:
        model.fit(lessons)
    prepared = time.perf_counter()

    def evaluate() -> dict[str, float]:
        return {"accuracy": answer(model, watched).accuracy.value}

    with TrainingMonitor(recipe.train.steps, recipe.train.log_every) as monitor:
        outcome = train(model, lessons, recipe.train, folder, monitor, evaluate if watched else None, resume)
    model.save(folder / "model")
    if outcome.interrupted:
        console.print(f"stopped after step {outcome.steps}; go on with --resume {folder}")
        return None
    metrics, answered = _score(model, recipe, learn, test, outcome)
    metrics["prepare_seconds"] = round(prepared - started, 1)
    metrics["total_seconds"] = round(time.perf_counter() - started, 1)
    write_json(folder / "metrics.json", metrics)
    console.print(f"the model is in {folder / 'model'}")
    _report(folder, model, test, answered)
    return Run(model, split, test, answered, metrics)


def figures(metrics: dict[str, Any]) -> Table:
    """The result as a table."""
    table = Table(title=f"{metrics['task']}, {metrics['n']:,} test questions", title_justify="left")
    table.add_column("who answers")
    table.add_column("accuracy", justify="right")
    table.add_column("95 % interval", justify="right")
    table.add_row(
        "[bold]the bridge[/bold]",
        f"[bold]{100 * metrics['accuracy']:.1f} %[/bold]",
        f"{100 * metrics['accuracy_low']:.1f} to {100 * metrics['accuracy_high']:.1f}",
    )
    for what, key in (
        ("the same model, images taken away (blind)", "blind_accuracy"),
        ("most frequent answer to each question", "majority_by_question_accuracy"),
        ("most frequent answer", "majority_accuracy"),
        ("chance", "chance_accuracy"),
    ):
        table.add_row(what, f"{100 * metrics[key]:.1f} %", "")
    table.caption = (
        f"{metrics['train_seconds'] / 60:.1f} minutes of training, {metrics['total_seconds'] / 60:.1f} in all"
    )
    return table


def _score(
    model: Generates, recipe: Recipe, learn: Sequence[Example], test: Sequence[Example], outcome: Outcome
) -> tuple[dict[str, Any], Answered]:
    with reporting("answering") as report:
        answered = answer(model, test, progress=report)
    with reporting("answering blind") as report:
        blind = answer(model, test, blind=True, progress=report)
    guessed = guesses(learn, test)
    return {
        "task": recipe.eval_data or recipe.data,
        "n": len(test),
        "accuracy": answered.accuracy.value,
        "accuracy_low": answered.accuracy.low,
        "accuracy_high": answered.accuracy.high,
        "blind_accuracy": blind.accuracy.value,
        "majority_by_question_accuracy": guessed.majority_by_question.value,
        "majority_accuracy": guessed.majority.value,
        "chance_accuracy": guessed.chance,
        "steps": outcome.steps,
        "train_seconds": round(outcome.seconds, 1),
    }, answered


def _same_recipe(folder: Path, values: dict[str, Any]) -> None:
    """Refuse to resume a run with another model or other data; the loop looks at the training settings itself."""
    path = folder / "run.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: no run to resume in it (no run.json).")
    recorded = json.loads(path.read_text(encoding="utf-8"))["recipe"]
    now = json.loads(json.dumps(values, default=str))
    changed = [name for name in ("model", "data", "hold_out", "limit") if recorded.get(name) != now.get(name)]
    if changed:
        raise CheckpointError(
            f"{folder} is a run with another {' and another '.join(changed)} (see its run.json). Resume with the "
            "same recipe and options, or start a new run in another folder."
        )


def _report(folder: Path, model: Any, test: Sequence[Example], answered: Answered) -> None:
    if any(importlib.util.find_spec(package) is None for package in ("jinja2", "matplotlib")):
        console.print("no report was drawn; for the next one: pip install 'vislang[report]'")
        return
    from vislang.evaluate.report import write_report

    with reporting("drawing the report") as report:
        write_report(folder, model, test, answered, report)
    console.print(f"[bold]{folder / 'report.html'}[/bold] shows the run")


def _try_one_step(model: Trainable, lessons: Sequence, recipe: Recipe) -> None:
    batch = model.collate(lessons)
    started = time.perf_counter()
    losses = model.losses(batch)
    torch.stack(list(losses.values())).sum().backward()
    seconds = time.perf_counter() - started
    shown = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
    trained = sum(tensor.nbytes for tensor in model.trainable_state().values())
    console.print(
        f"one batch of {len(lessons)}: losses {shown}; {seconds:.1f} s with nothing cached\n"
        f"a checkpoint takes {3 * trained / 2**20:.0f} MiB, {recipe.train.keep_checkpoints} are kept\n"
        "nothing was written"
    )


def _parameters(model: torch.nn.Module) -> tuple[int, int]:
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)


def _draw(examples: list[Example], limit: int, seed: int) -> list[Example]:
    """At most ``limit`` examples (0: all), drawn by seed."""
    if not limit or limit >= len(examples):
        return examples
    return random.Random(seed).sample(examples, limit)
