"""The goal of a model that is pretrained on pictures and their captions: its losses, and whether it finds the pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.table import Table

from vislang.capabilities import Matches
from vislang.commands.figures import decision_table, figures, report_figures
from vislang.commands.pretraining import Pretraining
from vislang.console import reporting
from vislang.data.jsonl import Problem, must_be_good
from vislang.data.split import draw
from vislang.recipe import Recipe
from vislang.tasks.captioned import PAIRS, captioned
from vislang.tasks.retrieval import of_documents, recalls
from vislang.train.loop import Outcome


class Matching(Pretraining):
    """See :class:`~vislang.commands.goal.Goal`.

    Args:
        model: it is trainable, and matches.
        recipe: names the data. Retrieval is scored on ``eval_data``, or on at most ``eval_examples`` pairs of each
            stream that are held out.
    """

    def __init__(self, model: Any, recipe: Recipe):
        super().__init__(model, recipe, captioned, PAIRS)
        self.pairs = {name: documents for name, documents in self.held_out.items() if documents}
        if recipe.eval_data is not None:
            problems: list[Problem] = []
            found = captioned(recipe.eval_data, problems)
            must_be_good(problems, recipe.skip_bad_records, recipe.eval_data)
            self.bad_records += len(problems)
            self.asked = draw(found, recipe.eval_limit, recipe.train.seed)
            self.pairs = {recipe.eval_data: self.asked}

    def score(self, outcome: Outcome) -> dict[str, Any]:
        """The losses at the end, and recall both ways."""
        tasks = {}
        for name, documents in self.pairs.items():
            collection = of_documents(documents)
            assert isinstance(self.model, Matches)
            with reporting("matching") as report:
                scores = self.model.match_all(collection.images, collection.texts, progress=report)
            tasks[name] = {"n": len(documents), **figures(recalls(scores.numpy(), collection))}
        return {
            **super().score(outcome),
            "tasks": tasks,
            "task": ", ".join(tasks),
            "n": sum(values["n"] for values in tasks.values()),
        }

    def table(self, metrics: dict[str, Any]) -> Table:
        """Recall both ways."""
        return decision_table(metrics["tasks"])

    def report(self, folder: Path) -> None:
        """Curves, and the figures."""
        report_figures(folder)
