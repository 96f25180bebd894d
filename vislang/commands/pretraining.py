"""The goal of a model that learns without labels: its loss on documents kept from training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from vislang.capabilities import Progress, Trainable
from vislang.console import console, reporting
from vislang.data.fetch import fetch
from vislang.data.jsonl import Problem, must_be_good
from vislang.data.split import hold_out
from vislang.document import Document
from vislang.recipe import Recipe, StreamConfig
from vislang.tasks.captioned import Source as Pairs
from vislang.tasks.unlabelled import SETS, Source, unlabelled
from vislang.train.loop import Outcome, Stream


class Pretraining:
    """See :class:`~vislang.commands.goal.Goal`.

    Args:
        model: it is trainable, and needs no labels.
        recipe: names the data.
        read: documents of a source; see :func:`~vislang.tasks.unlabelled.unlabelled`.
        sets: data sets by name, which are fetched where they are not here.

    Raises:
        DataError: nothing to read, or bad records that nobody allowed to skip.
    """

    def __init__(
        self,
        model: Trainable,
        recipe: Recipe,
        read: Callable[[str, list[Problem], Progress | None], list[Document]] = unlabelled,
        sets: Mapping[str, Source | Pairs] = SETS,
    ):
        self.model = model
        self.streams: list[Stream] = []
        self.learned: dict[str, list[Document]] = {}
        self.asked: list[Document] = []
        self.held_out: dict[str, list[Document]] = {}
        problems: list[Problem] = []
        named = [StreamConfig([recipe.data], "data")] if isinstance(recipe.data, str) else recipe.data
        for config in named:
            documents: list[Document] = []
            for source in config.sources:
                if source in sets and not sets[source].data_set.is_here:
                    fetch(sets[source].data_set, say=console.print)
            with reporting("checking records") as report:
                for source in config.sources:
                    documents += read(source, problems, report)
            lessons, held = hold_out(documents, recipe.hold_out)
            self.held_out[config.name] = held[: recipe.train.eval_examples]
            size = config.batch_size or recipe.train.batch_size
            self.learned[config.name] = lessons[: recipe.limit or None]
            self.streams.append(Stream(config.name, self.learned[config.name], config.weight, size))
        must_be_good(problems, recipe.skip_bad_records)
        self.bad_records = len(problems)

    def describe(self) -> str:
        """Counts of documents, by stream."""
        counts = [
            f"{stream.name}: {len(stream.lessons):,} documents to learn from, "
            f"{len(self.held_out[stream.name]):,} held out"
            for stream in self.streams
        ]
        return "; ".join(counts)

    @torch.no_grad()
    def watch(self) -> dict[str, float]:
        """Losses and diagnostics on documents held out, the same parts of them hidden each time."""
        found: dict[str, float] = {}
        for stream in self.streams:
            sums: dict[str, float] = defaultdict(float)
            held, size = self.held_out[stream.name], stream.batch_size
            batches = [held[start : start + size] for start in range(0, len(held), size)]
            for number, documents in enumerate(batches):
                losses = self.model.losses(self.model.collate(documents, seed=number))
                seen = {name: value.item() for name, value in losses.items()} | self.model.diagnostics()
                for name, value in seen.items():
                    sums[name] += value * len(documents) / len(held)
            prefix = f"{stream.name}/" if len(self.streams) > 1 else ""
            found |= {f"{prefix}{name}": value for name, value in sums.items()}
        return found

    def score(self, outcome: Outcome) -> dict[str, Any]:
        """The same figures as :meth:`watch`, at the end."""
        return {
            "documents": {stream.name: len(stream.lessons) for stream in self.streams},
            "held_out": self.watch(),
            "steps": outcome.steps,
            "train_seconds": round(outcome.seconds, 1),
        }

    def table(self, metrics: dict[str, Any]) -> Table:
        """The held-out figures."""
        table = Table(title="on documents kept from training", title_justify="left")
        table.add_column("what")
        table.add_column("value", justify="right")
        for name, value in metrics["held_out"].items():
            table.add_row(name.replace("_", " "), f"{value:.4f}")
        return table

    def report(self, folder: Path) -> None:
        """Curves, gaps and what was predicted of them, nearest neighbours."""
        from vislang.evaluate.pretraining_report import write_pretraining_report

        with reporting("drawing the report") as report:
            write_pretraining_report(folder, self.model, self.held_out, self.learned, report)
