"""The goal of a model that decides: how well it does on cases it has not seen, task by task, beside guesses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.case import Case, Decision, Place, Value
from vislang.commands.figures import decision_table, figures, plain, report_figures
from vislang.commands.parts import Parts, count_of, divide
from vislang.console import console, reporting
from vislang.data.fetch import fetch
from vislang.data.jsonl import DataError, Problem, must_be_good
from vislang.recipe import Recipe, StreamConfig
from vislang.tasks.case_sources import CASE_SETS, needed, read_source
from vislang.tasks.decisions import guess_scores, score_decisions
from vislang.tasks.retrieval import four_way
from vislang.train.loop import Outcome, Stream


class Deciding:
    """See :class:`~vislang.commands.goal.Goal`. Each stream of the recipe is a task with a head of its own.

    Args:
        model: it decides.
        recipe: names the data: one source, or streams of sources.

    Raises:
        DataError: bad records that nobody allowed to skip, or nothing to read.
    """

    def __init__(self, model: Any, recipe: Recipe):
        self.model = model
        named = [StreamConfig([recipe.data], task_name(recipe.data))] if isinstance(recipe.data, str) else recipe.data
        self.several = len(named) > 1
        self.streams: list[Stream] = []
        self.asked: list[Case] = []
        self.parts: dict[str, Parts[Case]] = {}
        problems: list[Problem] = []
        if recipe.eval_data is not None and self.several:
            raise DataError(
                "eval_data: one file cannot score several tasks; leave it out, and a share is held out of each."
            )
        for config in named:
            parts = self._read(config, recipe, problems)
            self.parts[config.name] = parts
            self.asked += [*parts.watched, *parts.test]
            size = config.batch_size or recipe.train.batch_size
            figure = "Pearson r" if isinstance(parts.learned[0].target, Value) else "accuracy"
            watched = f"{self._prefix(config.name)}{figure}"
            self.streams.append(Stream(config.name, parts.learned, config.weight, size, watched))
        self.bad_records = len(problems)
        must_be_good(problems, recipe.skip_bad_records)

    def _prefix(self, name: str) -> str:
        return f"{name}/" if self.several else ""

    def _read(self, config: StreamConfig, recipe: Recipe, problems: list[Problem]) -> Parts[Case]:
        everything: list[Case] = []
        test: list[Case] = []
        for source in config.sources:
            if (data_set := needed(source)) is not None and not data_set.is_here:
                fetch(data_set, say=console.print)
        with reporting("checking records") as report:
            for source in config.sources:
                everything += read_source(source, config.name, "train", problems, report)
                if source in CASE_SETS and recipe.eval_data is None:
                    test += read_source(source, config.name, "test", problems, report)
            if recipe.eval_data is not None:
                test = read_source(recipe.eval_data, config.name, "test", problems, report)
        if not everything:
            must_be_good(problems, skip=False, name=config.name)
        kinds = {type(case.target).__name__.lower() for case in (*everything, *test)}
        if len(kinds) > 1:
            raise DataError(f"{config.name}: records of several kinds ({', '.join(sorted(kinds))}); a task has one.")
        return divide(config.name, everything, test, recipe, four_way)

    def describe(self) -> str:
        """Counts of cases, by task."""
        return count_of(self.parts, "cases")

    def watch(self) -> dict[str, float]:
        """The tasks' figures on cases held out."""
        found: dict[str, float] = {}
        for name, parts in self.parts.items():
            if parts.watched:
                scores = score_decisions(parts.watched, self.model.decide(parts.watched))
                found |= {f"{self._prefix(name)}{figure}": plain(value) for figure, value in scores.items()}
        return found

    def score(self, outcome: Outcome) -> dict[str, Any]:
        """The tasks' figures on the test cases, and what guesses are worth."""
        tasks = {}
        for name, parts in self.parts.items():
            with reporting("deciding") as report:
                scores = score_decisions(parts.test, self.model.decide(parts.test, progress=report))
            tasks[name] = {"n": len(parts.test), **figures(scores), **guess_scores(parts.learned, parts.test)}
        return {
            "task": ", ".join(tasks),
            "n": sum(values["n"] for values in tasks.values()),
            "tasks": tasks,
            "steps": outcome.steps,
            "train_seconds": round(outcome.seconds, 1),
        }

    def table(self, metrics: dict[str, Any]) -> Table:
        """The tasks' figures."""
        return decision_table(metrics["tasks"])

    def report(self, folder: Path) -> None:
        """Curves, and the figures."""
        report_figures(folder)


def told(decision: Decision) -> str:
    """What was decided, for a reader."""
    best = decision.best
    if isinstance(best, Place):
        return f"{best.left:.0f}, {best.top:.0f}, {best.right:.0f}, {best.bottom:.0f} (left, top, right, bottom)"
    return f"{best:.3f}" if isinstance(best, float) else str(best)


def task_name(source: str) -> str:
    """What to call the task of a source: the benchmark, the set, or the file without its ending."""
    kind, colon, _ = source.partition(":")
    return kind if colon else Path(source).stem
