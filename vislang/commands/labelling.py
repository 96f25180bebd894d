"""The goal of a model that labels: how well it labels what it has not seen, beside guesses."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.console import reporting
from vislang.data.example import Example
from vislang.document import Document
from vislang.recipe import Recipe, RecipeError
from vislang.tasks.data_sets import split_data
from vislang.tasks.labels import score_labels
from vislang.train.loop import Outcome, Stream


class Labelling:
    """See :class:`~vislang.commands.goal.Goal`.

    Args:
        model: it labels.
        recipe: names the data, a JSON Lines file with labels.
    """

    def __init__(self, model: Any, recipe: Recipe):
        if not isinstance(recipe.data, str):
            raise RecipeError("data: a model that labels learns from one file; name it.")
        self.model = model
        self.task = recipe.eval_data or recipe.data
        with reporting("checking records") as report:
            split = split_data(recipe.data, recipe.eval_data, recipe.hold_out, recipe.skip_bad_records, report)
        self.bad_records = len(split.problems)
        self.learn = split.train[: recipe.limit or None]
        self.test = split.test[: recipe.eval_limit or None]
        watched = list(split.validation)
        random.Random(recipe.train.seed).shuffle(watched)
        self.watched = watched[: recipe.train.eval_examples]
        self.streams = [Stream("labels", [lesson(example) for example in self.learn], 1.0, recipe.train.batch_size)]
        self.asked: list[Document] = []

    def describe(self) -> str:
        """Counts of examples."""
        return (
            f"{len(self.learn):,} examples to learn from, {len(self.watched):,} to watch, {len(self.test):,} to be "
            "scored on"
        )

    def watch(self) -> dict[str, float]:
        """The task's figures on examples held out."""
        return self._figures(self.watched) if self.watched else {}

    def score(self, outcome: Outcome) -> dict[str, Any]:
        """The task's figures on the test examples."""
        return {
            "task": self.task,
            "n": len(self.test),
            **self._figures(self.test),
            "steps": outcome.steps,
            "train_seconds": round(outcome.seconds, 1),
        }

    def _figures(self, examples: list[Example]) -> dict[str, float]:
        predictions = self.model.label([example.document() for example in examples])
        wanted = [example.target for example in examples]
        return score_labels(self.model.head_config.kind, predictions, wanted, [e.target for e in self.learn])

    def table(self, metrics: dict[str, Any]) -> Table:
        """The task's figures."""
        table = Table(title=f"{metrics['task']}, {metrics['n']:,} test examples", title_justify="left")
        table.add_column("what")
        table.add_column("value", justify="right")
        for name, value in metrics.items():
            if isinstance(value, float) and "seconds" not in name:
                table.add_row(name.replace("_", " "), f"{value:.4f}")
        return table

    def report(self, folder: Path) -> None:
        """Curves, and the figures."""
        from vislang.evaluate.labelling_report import write_labelling_report

        write_labelling_report(folder)


def lesson(example: Example) -> Document:
    """The record with its label."""
    return Document(example.document().parts, example.target, example.name)
