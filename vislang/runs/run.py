"""A recipe becomes a run: its model is trained on its data and scored, and everything is written into a folder.

Of several processes all read the data, build the model and train it. The first one alone prints, writes and scores.
"""

from __future__ import annotations

import importlib.util
import json
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vislang.console import TrainingMonitor, console, messages, reporting
from vislang.data.bad_records import FILE, in_words, read_kinds
from vislang.data.indexed import Indexed
from vislang.errors import UserError
from vislang.evaluate.evaluation import Evaluation
from vislang.example import Example
from vislang.metrics.by_kind import kind_of_all
from vislang.metrics.figure import SCHEMA, figures_as_json
from vislang.nn.device import to_device
from vislang.recipe import Recipe, recipe_of
from vislang.runs.folder import (
    RUN,
    discard_unused,
    environment,
    fresh_folder,
    locked,
    must_be_free,
    read_json,
    recorded,
    write_json,
)
from vislang.runs.record import read_record
from vislang.runs.scores import (
    ScoredTask,
    final_scores,
    held_out,
    must_answer,
    named_tasks,
    read_scores,
    stream_tasks,
    watched_figures,
    watched_metric,
)
from vislang.runs.streams import StreamData, StreamsRead, counts, read_streams
from vislang.runs.trackers import Trackers, must_have_trackers, trackers_of
from vislang.train.batches import Stream
from vislang.train.budget import Budget
from vislang.train.checkpoint import CheckpointError
from vislang.train.device import device_of, seed_everything
from vislang.train.freezing import freeze, trained_and_frozen
from vislang.train.loop import Outcome, train
from vislang.train.memory import keep_freed_memory
from vislang.train.monitor import Monitors
from vislang.train.optimizer import Optimizer
from vislang.train.parallel import home_of
from vislang.train.processes import Processes, joined
from vislang.train.state import changed_settings


class Prepared(NamedTuple):
    """What a run starts with: the untrained model on its device, its data and its scored tasks."""

    model: Any
    data: StreamsRead
    tasks: list[ScoredTask]

    @property
    def streams(self) -> list[StreamData]:
        """The streams of the data."""
        return self.data.streams

    def to_prepare(self) -> list[Example]:
        """The examples that are read repeatedly: training examples in memory, and those to watch and to score."""
        trained = [e for stream in self.streams if not isinstance(stream.train, Indexed) for e in stream.train]
        evaluated = [e for stream in self.streams for e in stream.watched] + [e for t in self.tasks for e in t.examples]
        return [*trained, *(example.without_target() for example in evaluated)]

    def to_fit(self) -> list[Example]:
        """The examples on which the model is fitted before training."""
        return [example for stream in self.streams for example in stream.sample]


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        model: as it was trained.
        streams: its data.
        evaluations: of each of its tasks, in the process that scored them.
        metrics: what ``metrics.json`` holds.
    """

    model: Any
    streams: list[StreamData]
    metrics: dict[str, Any]
    evaluations: dict[str, Evaluation] = field(default_factory=dict)


def run_recipe(
    recipe: Recipe,
    values: dict[str, Any],
    folder: Path,
    resume: bool = False,
    dry_run: bool = False,
    track: Sequence[str] | None = None,
    report: bool = True,
) -> Run | None:
    """Train as a recipe says, score the result, write it all into a folder.

    Where torchrun or ``vislang train --devices`` started several processes, each of them calls this.

    Args:
        recipe: what to do.
        values: the recipe as plain values, for the record.
        folder: of the run.
        resume: continue the run in ``folder``.
        dry_run: build model and data, take one step's losses, write nothing.
        track: experiment trackers (:mod:`vislang.runs.trackers`); None takes those that a resumed run had.
        report: draw the page of the run at the end.

    Returns:
        The run, or None where it was dry or interrupted.

    Raises:
        UserError: the folder cannot be written, or what the recipe names does not go together.
    """
    started = time.perf_counter()
    with joined(recipe.train.hang_minutes or 30) as processes:
        if not processes.is_first:
            console.quiet = messages.quiet = True
            warnings.simplefilter("ignore")
        earlier: dict[str, Any] = {}
        if resume:
            earlier = processes.from_first(lambda: recorded(folder))
            recipe, values = _with_chosen_steps(recipe, values, earlier)
            _must_be_same_run(folder, earlier, recipe, values)
            track = trackers_of(folder) if track is None else track
        if not dry_run:
            processes.from_first(lambda: must_be_free(folder))
        must_have_trackers(track or [])
        # Whatever is wrong with the recipe shows before a folder is made or moved.
        prepared = _prepared(recipe, processes, _indexed(earlier) if resume else None)
        if dry_run:
            _try_one_step(prepared, recipe)
            return None
        if not resume and (moved := processes.from_first(lambda: fresh_folder(folder))) is not None:
            console.print(f"the earlier run in {folder} was moved to {moved}", markup=False)
        with locked(folder) if processes.is_first else nullcontext():
            time_budget = earlier.get("time_budget")
            try:
                with Trackers((track or []) if processes.is_first else [], folder, values, resume) as trackers:
                    return _run(
                        *(recipe, values, folder, prepared, started, resume, processes, time_budget, trackers, report)
                    )
            except UserError:
                if processes.is_first and not resume:
                    discard_unused(folder)
                raise


def _run(
    recipe: Recipe,
    values: dict[str, Any],
    folder: Path,
    found: Prepared,
    started: float,
    resume: bool,
    processes: Processes,
    time_budget: dict[str, Any] | None,
    trackers: Trackers,
    report: bool,
) -> Run | None:
    model, streams, tasks, bad_records = found.model, found.streams, found.tasks, found.data.bad_records
    where = {"device": str(device_of(recipe.train.device, processes.local_rank)), "processes": processes.count}
    record = {"schema": SCHEMA, "recipe": values, **environment(), **where}
    record |= {"bad_records": bad_records.count, "indexed": found.data.indexed}
    if time_budget is not None:
        record["time_budget"] = time_budget

    def write_record(**more: Any) -> None:
        record.update(more)
        if processes.is_first:
            write_json(folder / RUN, record)

    write_record()
    with processes.first_of_machine_first(), reporting("encoding media") as progress:
        model.prepare(found.to_prepare(), progress)
    # A resumed run is fitted as well: what its checkpoint holds then replaces what was found here.
    _fit(found)
    write_record(parameters=_what_trains(model, recipe))
    prepared = time.perf_counter()
    several = len(streams) > 1
    trained = [
        Stream(
            stream.name,
            stream.train,
            stream.config.weight,
            stream.config.batch_size or recipe.train.batch_size,
            watched_metric(model, stream, several),
            recipe.complementary_pairs,
        )
        for stream in streams
    ]
    with TrainingMonitor(recipe.train.steps or 0, recipe.train.log_every) as monitor:

        def budgeted(budget: Budget) -> None:
            write_record(time_budget=asdict(budget))
            console.print(
                f"{budget.steps:,} steps of {budget.seconds_per_step:.3g} s fit into {budget.minutes:g} minutes, after "
                f"a trial of {budget.tried}"
            )
            monitor.expect(budget.steps)

        outcome = train(
            model,
            trained,
            recipe.train,
            folder,
            Monitors(monitor, trackers),
            lambda: watched_figures(model, streams, recipe.train.batch_size),
            resume,
            bad_records,
            budgeted,
        )
    if bad := read_kinds(folder):
        console.print(f"{in_words(bad)}; {folder / FILE} lists them", markup=False)
    processes.from_first(lambda: model.save(folder / "model"))
    if outcome.interrupted:
        trackers.close(failed=True)
        console.print(f"stopped after step {outcome.steps}; continue with: vislang train --resume {folder}")
        return None
    evaluations: dict[str, Evaluation] = {}

    def score() -> dict[str, Any]:
        evaluations.update(final_scores(model, tasks, folder))
        metrics = {
            **_metrics(outcome, streams, evaluations),
            "bad_records": bad,
            "held_out": {
                stream: figures_as_json(figures)
                for stream, figures in held_out(model, streams, recipe.train.batch_size).items()
            },
            "prepare_seconds": round(prepared - started, 1),
            "total_seconds": round(time.perf_counter() - started, 1),
        }
        write_json(folder / "metrics.json", metrics)
        scores = {f"final/{t}/{n}": f.value for t, e in evaluations.items() for n, f in e.figures.items()}
        trackers.evaluated(outcome.steps, scores)
        console.print(f"the model is in {folder / 'model'}")
        if report:
            draw_report(Run(model, streams, metrics, evaluations), folder)
        return metrics

    return Run(model, streams, processes.from_first(score), evaluations)


def reopened(folder: Path) -> Run:
    """A finished run from its folder: its data are read again, and so is what it answered.

    Raises:
        UserError: it did not come to its end, or its data are no longer there.
    """
    for needed in (RUN, "metrics.json", "metrics.jsonl", "model/config.json"):
        if not (folder / needed).is_file():
            raise UserError(f"{folder}: no {needed} in it; give the folder of a run that came to its end.")
    recipe, _ = recipe_of(recorded(folder)["recipe"], name=str(folder / RUN))
    streams = read_streams(recipe, _indexed(recorded(folder))).streams
    model = recipe.model.open(folder / "model")
    named = named_tasks(recipe)
    evaluations = read_scores(stream_tasks(model, streams) if named is None else named, folder)
    return Run(model, streams, read_json(folder / "metrics.json"), evaluations)


def draw_report(run: Run, folder: Path, page: Path | None = None) -> None:
    """Write the page of the finished run in a folder, if the packages that draw it are installed.

    Args:
        run: the run.
        folder: its folder.
        page: file to write; None takes ``report.html`` in the folder.
    """
    if any(importlib.util.find_spec(package) is None for package in ("jinja2", "matplotlib")):
        console.print("no report was drawn; for the next one: pip install 'vislang\\[report]'")
        return
    from vislang.evaluate.run_page import write_run_page

    page = page or folder / "report.html"
    with reporting("drawing the report") as progress:
        write_run_page(
            page,
            read_record(folder),
            run.model,
            run.evaluations,
            {stream.name: (stream.watched or stream.test, stream.sample) for stream in run.streams},
            progress,
        )
    console.print(f"[bold]{page}[/bold] shows the run")


def _indexed(record: dict[str, Any]) -> list[str]:
    """The sources that a run indexed, by its record; earlier versions read everything into memory."""
    return record.get("indexed", [])


def _prepared(recipe: Recipe, processes: Processes, indexed: list[str] | None) -> Prepared:
    """Everything that can be opened before training, announced on the terminal; for ``indexed`` see read_streams."""
    if recipe.train.threads:
        torch.set_num_threads(recipe.train.threads)
    keep_freed_memory()
    device = device_of(recipe.train.device, processes.local_rank)
    # The data are read first: a file that does not exist, or one that cannot be scored, should not cost the time of
    # opening towers.
    data = read_streams(recipe, indexed)
    for stream in data.streams:
        kind_of_all([*stream.test, *stream.sample])
    named = named_tasks(recipe)
    seed_everything(recipe.train.seed)
    with processes.first_of_machine_first():
        model = recipe.model.build(device)
        model.to(home_of(model, recipe.train, processes, device))
    if data.bad_records.count:
        console.print(f"left out {in_words(data.bad_records.kinds)}", markup=False)
    console.print(f"{counts(data.streams)}; {_named(device, processes)}", markup=False)
    return Prepared(model, data, stream_tasks(model, data.streams) if named is None else named)


def _fit(found: Prepared) -> None:
    """Fit the model to its training examples. Only then is it known which tasks it can answer.

    Raises:
        UserError: it cannot answer a task that the recipe names under ``evaluate``.
    """
    found.model.fit(found.to_fit())
    must_answer(found.model, found.tasks)


def _named(device: torch.device, processes: Processes) -> str:
    """Where a run trains, in words."""
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    if device.type == "cpu":
        where = f"{torch.get_num_threads()} thread{'s' if torch.get_num_threads() > 1 else ''}"
    return f"{processes.count} processes, each on {where}" if processes.count > 1 else where


def _what_trains(model: Any, recipe: Recipe) -> dict[str, dict[str, int]]:
    """Freeze what the recipe freezes of a fitted model, print what trains, and return the counts for the record."""
    freeze(model, recipe.train.freeze)
    numbers = trained_and_frozen(model)
    trained = ", ".join(f"{count:,} of {part}" for part, count in numbers["trained"].items())
    console.print(
        f"{sum(numbers['trained'].values()):,} parameters train ({trained}), "
        f"{sum(numbers['frozen'].values()):,} are frozen",
        markup=False,
    )
    return numbers


def _metrics(outcome: Outcome, streams: list[StreamData], evaluations: dict[str, Evaluation]) -> dict[str, Any]:
    return {
        "schema": SCHEMA,
        "steps": outcome.steps,
        "train_seconds": round(outcome.seconds, 1),
        "examples": {stream.name: len(stream.train) for stream in streams},
        "tasks": {name: evaluation.as_json() for name, evaluation in evaluations.items()},
    }


def _with_chosen_steps(
    recipe: Recipe, values: dict[str, Any], earlier: dict[str, Any]
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a resumed run, and its plain values, with the number of steps that was chosen for its time budget
    when it started.

    A number of steps that the recipe did not have then extends the run, which has no time budget from then on.

    Raises:
        CheckpointError: another time budget is wanted.
    """
    budget = earlier.get("time_budget")
    if budget is None or not recipe.train.minutes:
        return recipe, values
    if recipe.train.minutes != budget["minutes"]:
        raise CheckpointError(
            f"train.minutes was {budget['minutes']:g}, is {recipe.train.minutes:g}; the run's {budget['steps']} steps "
            "were chosen when it started. To extend it, give a larger number: --train.steps."
        )
    steps = recipe.train.steps
    if steps in (None, earlier["recipe"]["train"].get("steps")):
        steps = budget["steps"]
    else:
        values = {**values, "train": {**values["train"], "minutes": 0.0}}
    return replace(recipe, train=replace(recipe.train, steps=steps, minutes=0.0)), values


def _must_be_same_run(folder: Path, earlier: dict[str, Any], recipe: Recipe, values: dict[str, Any]) -> None:
    """Raise an error where a run is to be continued with another model, other data or other settings of training.

    Raises:
        CheckpointError: it is another run.
    """
    # Both with the defaults of this version, which may have settings that the run did not have yet.
    _, before = recipe_of(earlier["recipe"], name=str(folder / RUN))
    before, now = (json.loads(json.dumps(each, default=str)) for each in (before, values))
    train = before["train"]
    if "time_budget" in earlier:
        train = {**train, "steps": earlier["time_budget"]["steps"]}
    of_data = ("data", "hold_out", "complementary_pairs", "limit")
    changed = [name for name in ("model", *of_data) if before.get(name) != now.get(name)]
    settings = changed_settings(train, recipe.train)
    if settings:
        raise CheckpointError(
            f"{folder} is a run with other settings ({'; '.join(settings)}). To continue it as it was started: vislang "
            f"train --resume {folder}. Or start a new run in another folder."
        )
    if changed:
        raise CheckpointError(
            f"{folder} is a run with another {' and another '.join(changed)} (see its run.json). To continue it as it "
            f"was started: vislang train --resume {folder}. Or start a new run in another folder."
        )


def _try_one_step(found: Prepared, recipe: Recipe) -> None:
    model, streams = found.model, found.streams
    _fit(found)
    # Heads may have been made for what was found.
    model.to(model.device)
    _what_trains(model, recipe)
    Optimizer(model, recipe.train)
    for stream in streams:
        examples = stream.sample[: stream.config.batch_size or recipe.train.batch_size]
        batch = model.collate(examples, 0)
        started = time.perf_counter()
        losses = model(to_device(batch, model.device))
        torch.stack(list(losses.values())).sum().backward()
        shown = ", ".join(f"{name} {value.item():.3f}" for name, value in losses.items())
        seconds = time.perf_counter() - started
        console.print(f"one batch of {len(examples)}: losses {shown}; {seconds:.1f} s with nothing cached")
    trained = sum(tensor.nbytes for tensor in model.trainable_state().values())
    console.print(
        f"a checkpoint takes {3 * trained / 2**20:.0f} MiB, {recipe.train.keep_checkpoints} are kept\n"
        "nothing was written"
    )
