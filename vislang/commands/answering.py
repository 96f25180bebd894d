"""The goal of a model that answers: accuracy on questions about media, against those who do not look."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.console import reporting
from vislang.data.split import draw
from vislang.evaluate.answering import Answered, answer
from vislang.recipe import Recipe
from vislang.tasks.answers import guesses
from vislang.tasks.data_sets import split_data
from vislang.train.loop import Outcome, Stream


class Answering:
    """See :class:`~vislang.commands.goal.Goal`.

    Args:
        model: it generates.
        recipe: names the data.
    """

    def __init__(self, model: Any, recipe: Recipe):
        assert isinstance(recipe.data, str)
        self.model = model
        self.task = recipe.eval_data or recipe.data
        with reporting("checking records") as report:
            split = split_data(recipe.data, recipe.eval_data, recipe.hold_out, recipe.skip_bad_records, report)
        self.bad_records = len(split.problems)
        self.learn = split.train[: recipe.limit or None]
        self.test = draw(split.test, recipe.eval_limit, recipe.train.seed)
        self.watched = draw(split.validation, recipe.train.eval_examples, recipe.train.seed)
        lessons = [example.lesson(model.prompts) for example in self.learn]
        self.streams = [Stream("text", lessons, 1.0, recipe.train.batch_size)]
        self.asked = [example.prompt(model.prompts) for example in (*self.watched, *self.test)]
        self.answered: Answered | None = None

    def describe(self) -> str:
        """Counts of examples."""
        return (
            f"{len(self.learn):,} examples to learn from, {len(self.watched):,} to watch, {len(self.test):,} to be "
            "scored on"
        )

    def watch(self) -> dict[str, float]:
        """Accuracy on examples held out."""
        return {"accuracy": answer(self.model, self.watched).accuracy.value} if self.watched else {}

    def score(self, outcome: Outcome) -> dict[str, Any]:
        """Accuracy on the test examples: of the model, of the model blind, of guesses."""
        with reporting("answering") as report:
            self.answered = answer(self.model, self.test, progress=report)
        with reporting("answering blind") as report:
            blind = answer(self.model, self.test, blind=True, progress=report)
        guessed = guesses(self.learn, self.test)
        return {
            "task": self.task,
            "n": len(self.test),
            "accuracy": self.answered.accuracy.value,
            "accuracy_low": self.answered.accuracy.low,
            "accuracy_high": self.answered.accuracy.high,
            "blind_accuracy": blind.accuracy.value,
            "majority_by_question_accuracy": guessed.majority_by_question.value,
            "majority_accuracy": guessed.majority.value,
            "chance_accuracy": guessed.chance,
            "steps": outcome.steps,
            "train_seconds": round(outcome.seconds, 1),
        }

    def table(self, metrics: dict[str, Any]) -> Table:
        """Who answers how well."""
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
        return table

    def report(self, folder: Path) -> None:
        """Curves, and a gallery of answers."""
        from vislang.evaluate.report import write_report

        if self.answered is None:
            with reporting("answering") as report:
                self.answered = answer(self.model, self.test, progress=report)
        with reporting("drawing the report") as report:
            write_report(folder, self.model, self.test, self.answered, report)
