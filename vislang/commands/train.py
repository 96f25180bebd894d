"""``vislang train``: a recipe becomes a run."""

from __future__ import annotations

import importlib.util
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from vislang.capabilities import Generates, Labels, Matches, OldDecides, Trainable
from vislang.commands.answering import Answering
from vislang.commands.deciding import Deciding
from vislang.commands.goal import Goal
from vislang.commands.labelling import Labelling
from vislang.commands.matching import Matching
from vislang.commands.mixture import Mixture
from vislang.commands.outputs import must_hold_folder
from vislang.commands.pretraining import Pretraining
from vislang.commands.run_folder import circumstances, fresh_folder, write_json
from vislang.console import TrainingMonitor, console, reporting
from vislang.recipe import Recipe, with_current_classes
from vislang.train.checkpoint import CheckpointError
from vislang.train.loop import Stream, train
from vislang.train.memory import keep_freed_memory


@dataclass(frozen=True)
class Run:
    """A finished run: its model, what it was for, and its figures (what ``metrics.json`` holds)."""

    model: Any
    goal: Goal
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

    Raises:
        UserError: the folder cannot be written, or what the recipe names does not go together.
    """
    started = time.perf_counter()
    must_hold_folder(folder)
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    keep_freed_memory()
    torch.manual_seed(recipe.train.seed)
    model = recipe.model.build()
    goal = goal_of(model, recipe)
    if goal.bad_records:
        console.print(f"left out {goal.bad_records} bad records")
    trained, total = _parameters(model)
    console.print(
        f"{goal.describe()}\n"
        f"{trained:,} parameters train, {total - trained:,} are frozen; {torch.get_num_threads()} threads"
    )
    lessons = [lesson for stream in goal.streams for lesson in stream.lessons]
    if dry_run:
        model.fit(lessons)
        _try_one_step(model, goal.streams, recipe)
        return None
    if resume:
        _same_recipe(folder, values)
    elif (moved := fresh_folder(folder)) is not None:
        console.print(f"the earlier run in {folder} was moved to {moved}")
    if not resume:
        write_json(folder / "run.json", {"recipe": values, **circumstances(), "bad_records": goal.bad_records})
    with reporting("encoding media") as report:
        model.prepare([*lessons, *goal.asked], report)
    # A resumed run is fitted as well: what its checkpoint holds then takes the place of what was found here.
    model.fit(lessons)
    prepared = time.perf_counter()
    with TrainingMonitor(recipe.train.steps, recipe.train.log_every) as monitor:
        outcome = train(model, goal.streams, recipe.train, folder, monitor, goal.watch, resume)
    model.save(folder / "model")
    if outcome.interrupted:
        console.print(f"stopped after step {outcome.steps}; go on with --resume {folder}")
        return None
    metrics = goal.score(outcome)
    metrics["prepare_seconds"] = round(prepared - started, 1)
    metrics["total_seconds"] = round(time.perf_counter() - started, 1)
    write_json(folder / "metrics.json", metrics)
    console.print(f"the model is in {folder / 'model'}")
    _report(folder, goal)
    return Run(model, goal, metrics)


def goal_of(model: Any, recipe: Recipe) -> Goal:
    """What a run of this model is for, with its data read."""
    if isinstance(model, Generates):
        return Answering(model, recipe) if isinstance(recipe.data, str) else Mixture(model, recipe)
    if isinstance(model, OldDecides):
        return Deciding(model, recipe)
    if isinstance(model, Matches):
        return Matching(model, recipe)
    return Labelling(model, recipe) if isinstance(model, Labels) else Pretraining(model, recipe)


def figures(run: Run) -> Table:
    """The result as a table."""
    table = run.goal.table(run.metrics)
    table.caption = (
        f"{run.metrics['train_seconds'] / 60:.1f} minutes of training, {run.metrics['total_seconds'] / 60:.1f} in all"
    )
    return table


def _same_recipe(folder: Path, values: dict[str, Any]) -> None:
    """Refuse to resume a run with another model or other data; the loop looks at the training settings itself."""
    path = folder / "run.json"
    if not path.is_file():
        raise CheckpointError(f"{folder}: no run to resume in it (no run.json).")
    recorded = with_current_classes(json.loads(path.read_text(encoding="utf-8"))["recipe"])
    now = json.loads(json.dumps(values, default=str))
    changed = [name for name in ("model", "data", "hold_out", "limit") if recorded.get(name) != now.get(name)]
    if changed:
        raise CheckpointError(
            f"{folder} is a run with another {' and another '.join(changed)} (see its run.json). Resume with the "
            "same recipe and options, or start a new run in another folder."
        )


def _report(folder: Path, goal: Goal) -> None:
    if any(importlib.util.find_spec(package) is None for package in ("jinja2", "matplotlib")):
        console.print("no report was drawn; for the next one: pip install 'vislang[report]'")
        return
    goal.report(folder)
    console.print(f"[bold]{folder / 'report.html'}[/bold] shows the run")


def _try_one_step(model: Trainable, streams: list[Stream], recipe: Recipe) -> None:
    for stream in streams:
        lessons = stream.lessons[: stream.batch_size]
        batch = model.collate(lessons)
        started = time.perf_counter()
        losses = model.losses(batch)
        torch.stack(list(losses.values())).sum().backward()
        seconds = time.perf_counter() - started
        shown = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
        console.print(f"one batch of {len(lessons)}: losses {shown}; {seconds:.1f} s with nothing cached")
    trained = sum(tensor.nbytes for tensor in model.trainable_state().values())
    console.print(
        f"a checkpoint takes {3 * trained / 2**20:.0f} MiB, {recipe.train.keep_checkpoints} are kept\n"
        "nothing was written"
    )


def _parameters(model: torch.nn.Module) -> tuple[int, int]:
    sizes = [(p.numel(), p.requires_grad) for p in model.parameters()]
    return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)
