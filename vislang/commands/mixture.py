"""The goal of a model that writes and learns from streams: questions, captions and pages, each with a weight."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from vislang.commands.figures import decision_table, report_figures
from vislang.commands.parts import Parts, count_of, divide
from vislang.console import console, reporting
from vislang.data.example import Example
from vislang.data.fetch import fetch
from vislang.data.jsonl import DataError, Problem, must_be_good
from vislang.document import Document
from vislang.evaluate.answering import answer, shots_of
from vislang.recipe import Recipe, StreamConfig
from vislang.tasks.answers import guesses
from vislang.tasks.material import Material, material, needed_for
from vislang.tasks.question_sets import QUESTION_SETS
from vislang.train.loop import Outcome, Stream


class Mixture:
    """See :class:`~vislang.commands.goal.Goal`.

    Args:
        model: it generates.
        recipe: names the streams.

    Raises:
        DataError: bad records that nobody allowed to skip, or nothing to read.
    """

    def __init__(self, model: Any, recipe: Recipe):
        assert not isinstance(recipe.data, str)
        self.model = model
        self.streams: list[Stream] = []
        self.parts: dict[str, Parts[Material]] = {}
        problems: list[Problem] = []
        for config in recipe.data:
            parts = self._read(config, recipe, problems)
            self.parts[config.name] = parts
            size = config.batch_size or recipe.train.batch_size
            watched = f"{config.name}/accuracy" if _asks(parts.learned) else ""
            documents = self._lessons(parts.learned, config.shots, recipe.train.seed)
            self.streams.append(Stream(config.name, documents, config.weight, size, watched))
        self.bad_records = len(problems)
        must_be_good(problems, recipe.skip_bad_records)
        asked = [item for parts in self.parts.values() for item in (*parts.watched, *parts.test)]
        self.asked = [item if isinstance(item, Document) else item.prompt(model.prompts) for item in asked]

    def _read(self, config: StreamConfig, recipe: Recipe, problems: list[Problem]) -> Parts[Material]:
        everything: list[Material] = []
        test: list[Material] = []
        for source in config.sources:
            if (data_set := needed_for(source)) is not None and not data_set.is_here:
                fetch(data_set, say=console.print)
            with reporting(f"reading {config.name}") as report:
                everything += material(source, "train", problems, report)
            if source in QUESTION_SETS:
                test += QUESTION_SETS[source]("test")
        return divide(config.name, everything, test, recipe)

    def _lessons(self, items: Sequence[Material], shots: int, seed: int) -> list[Document]:
        """Each question or pair, after so many others as examples; pages as they are."""
        examples = [item for item in items if isinstance(item, Example)]
        if shots and not shots_of(examples):
            raise DataError("shots: an example is an image or a video with a question or a caption, and there is none.")
        chance = random.Random(seed)
        lessons = []
        for item in items:
            if isinstance(item, Document):
                lessons.append(item)
            else:
                drawn = [other for other in chance.sample(examples, min(shots + 1, len(examples))) if other is not item]
                lessons.append(item.lesson(self.model.prompts, shots_of(drawn[:shots])))
        return lessons

    def describe(self) -> str:
        """Counts, by stream."""
        return count_of(self.parts, "documents")

    def watch(self) -> dict[str, float]:
        """Of each stream, the loss a token on what is held out, and of questions the accuracy."""
        found: dict[str, float] = {}
        for name, parts in self.parts.items():
            if parts.watched:
                watched = self._figures(parts.watched, blind=False)
                found |= {f"{name}/{figure}": value for figure, value in watched.items()}
        return found

    def _figures(self, items: Sequence[Material], blind: bool) -> dict[str, float]:
        documents = [item if isinstance(item, Document) else item.lesson(self.model.prompts) for item in items]
        if blind:
            documents = [document.without_media() for document in documents]
        found = {"nats a token": nats(self.model, documents)}
        if _asks(items):
            examples = [item for item in items if isinstance(item, Example)]
            found["accuracy"] = answer(self.model, examples, blind=blind).accuracy.value
        return found

    def score(self, outcome: Outcome) -> dict[str, Any]:
        """The figures of each stream on its test items, with the media and without."""
        tasks: dict[str, dict[str, float]] = defaultdict(dict)
        for name, parts in self.parts.items():
            items = parts.test
            with reporting(f"scoring {name}") as report:
                tasks[name] = {"n": len(items), **self._figures(items, blind=False)}
                report(1, 2)
                tasks[name] |= {f"{figure}, blind": value for figure, value in self._figures(items, blind=True).items()}
                report(2, 2)
            if _asks(items):
                learned = [item for item in parts.learned if isinstance(item, Example)]
                guessed = guesses(learned, [item for item in items if isinstance(item, Example)])
                tasks[name]["majority accuracy to the same question"] = guessed.majority_by_question.value
        return {
            "task": ", ".join(tasks),
            "n": sum(int(figures["n"]) for figures in tasks.values()),
            "tasks": dict(tasks),
            "steps": outcome.steps,
            "train_seconds": round(outcome.seconds, 1),
        }

    def table(self, metrics: dict[str, Any]) -> Table:
        """The figures by stream."""
        return decision_table(metrics["tasks"])

    def report(self, folder: Path) -> None:
        """Curves, and the figures."""
        report_figures(folder)


def nats(model: Any, documents: Sequence[Document], batch_size: int = 16) -> float:
    """The mean loss of a token that is to be learned."""
    total, count = 0.0, 0
    with torch.no_grad():
        for start in range(0, len(documents), batch_size):
            batch = model.collate(documents[start : start + batch_size])
            targets = int((batch.targets >= 0).sum())
            total += targets * sum(float(loss) for loss in model.losses(batch).values())
            count += targets
    return total / max(1, count)


def _asks(items: Sequence[Material]) -> bool:
    """Whether answers are right or wrong: those to questions, and those that examples say how to give."""
    return any(isinstance(item, Example) and (item.question is not None or item.shots) for item in items)
