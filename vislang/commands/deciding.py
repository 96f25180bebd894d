"""The goal of a model that decides: how well it does on cases it has not seen, task by task, beside guesses."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.case import Case, Decision, Place, Value
from vislang.console import console, reporting
from vislang.data.fetch import fetch
from vislang.data.jsonl import DataError, Problem, must_be_good
from vislang.data.split import hold_out
from vislang.recipe import Recipe, StreamConfig
from vislang.tasks.answers import Proportion
from vislang.tasks.case_sources import CASE_SETS, needed, read_source
from vislang.tasks.decisions import guess_scores, score_decisions
from vislang.tasks.official import Score
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
        self.streams: list[Stream] = []
        self.asked: list[Case] = []
        self.learned: dict[str, list[Case]] = {}
        self.watched: dict[str, list[Case]] = {}
        self.test: dict[str, list[Case]] = {}
        problems: list[Problem] = []
        for config in named:
            lessons, held, test = self._read(config, recipe, problems)
            chance = random.Random(recipe.train.seed)
            self.learned[config.name] = lessons[: recipe.limit or None]
            self.watched[config.name] = _draw(held, recipe.train.eval_examples, chance)
            self.test[config.name] = _draw(test or held, recipe.eval_limit, chance)
            self.asked += [*self.watched[config.name], *self.test[config.name]]
            size = config.batch_size or recipe.train.batch_size
            figure = "Pearson r" if isinstance(lessons[0].target, Value) else "accuracy"
            watched = f"{self._prefix(config.name, named)}{figure}"
            self.streams.append(Stream(config.name, self.learned[config.name], config.weight, size, watched))
        self.bad_records = len(problems)
        must_be_good(problems, recipe.skip_bad_records)

    @staticmethod
    def _prefix(name: str, named: list[StreamConfig]) -> str:
        return f"{name}/" if len(named) > 1 else ""

    def _read(
        self, config: StreamConfig, recipe: Recipe, problems: list[Problem]
    ) -> tuple[list[Case], list[Case], list[Case]]:
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
        lessons, held = hold_out(everything, recipe.hold_out)
        if not lessons:
            raise DataError(f"{config.name}: nothing left to learn from; lower hold_out or add records.")
        if not held and not test:
            raise DataError(f"{config.name}: nothing left to score on; raise hold_out, or name a file as eval_data.")
        return lessons, held, test

    def describe(self) -> str:
        """Counts of cases, by task."""
        return "; ".join(
            f"{name}: {len(self.learned[name]):,} cases to learn from, {len(self.watched[name]):,} to watch, "
            f"{len(self.test[name]):,} to be scored on"
            for name in self.learned
        )

    def watch(self) -> dict[str, float]:
        """The tasks' figures on cases held out."""
        found: dict[str, float] = {}
        for name, cases in self.watched.items():
            if cases:
                prefix = f"{name}/" if len(self.watched) > 1 else ""
                scores = score_decisions(cases, self.model.decide(cases))
                found |= {f"{prefix}{figure}": plain(value) for figure, value in scores.items()}
        return found

    def score(self, outcome: Outcome) -> dict[str, Any]:
        """The tasks' figures on the test cases, and what guesses are worth."""
        tasks = {}
        for name, cases in self.test.items():
            with reporting("deciding") as report:
                scores = score_decisions(cases, self.model.decide(cases, progress=report))
            tasks[name] = {"n": len(cases), **figures(scores), **guess_scores(self.learned[name], cases)}
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


def report_figures(folder: Path) -> None:
    """Write the report of a run whose figures are by task."""
    from vislang.evaluate.labelling_report import write_labelling_report

    tasks = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["tasks"]
    rows = [
        (f"{task}: {name}" if len(tasks) > 1 else name, f"{value} {interval}")
        for task, name, value, interval in figure_rows(tasks)
    ]
    write_labelling_report(folder, rows)


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


def _draw(cases: list[Case], limit: int, chance: random.Random) -> list[Case]:
    """At most ``limit`` cases (0: all)."""
    return chance.sample(cases, limit) if limit and limit < len(cases) else cases


def plain(value: Proportion | float) -> float:
    """A figure as a number."""
    return value.value if isinstance(value, Proportion) else value


def figures(scores: Score) -> dict[str, float]:
    """Figures as numbers, with the ends of intervals where there are some."""
    found = {}
    for name, value in scores.items():
        found[name] = plain(value)
        if isinstance(value, Proportion):
            found |= {f"{name}, low": value.low, f"{name}, high": value.high}
    return found


def decision_table(tasks: dict[str, dict[str, float]]) -> Table:
    """Figures by task."""
    table = Table(title=f"{sum(int(values['n']) for values in tasks.values()):,} test cases", title_justify="left")
    for heading in ("task", "what"):
        table.add_column(heading)
    for heading in ("value", "95 % interval"):
        table.add_column(heading, justify="right")
    for row in figure_rows(tasks):
        table.add_row(*row)
    return table


def figure_rows(tasks: dict[str, dict[str, float]]) -> Iterator[tuple[str, str, str, str]]:
    """Task, figure, value and interval."""
    for task, values in tasks.items():
        for name, value in values.items():
            if name == "n" or name.endswith((", low", ", high")):
                continue
            interval = ""
            if f"{name}, low" in values:
                interval = f"{100 * values[f'{name}, low']:.2f} to {100 * values[f'{name}, high']:.2f}"
            yield task, name, shown(name, value), interval


def shown(name: str, value: float) -> str:
    """A figure for a reader: shares as per cent."""
    share = name.startswith(("accuracy", "majority", "chance", "upper", "R@", "Q", "SR", "OSR", "consistency"))
    return f"{100 * value:.2f} %" if share else f"{value:.4f}"
