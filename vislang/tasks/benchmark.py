"""Benchmarks as their authors publish them: a folder with the official files is a task."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from vislang.capabilities import Progress
from vislang.data.fields import one_of
from vislang.data.problems import DataError, Problem
from vislang.example import Example, Prediction, Wording
from vislang.tasks.files import splits_of
from vislang.tasks.task import Task, split_named


class Benchmark(Task):
    """An official benchmark.

    Each subclass is in its own file: a reader of the official format, a wording, and the official metric.

    Args:
        folder: folder with the official files.

    Attributes:
        files: the required files, for messages and the guide.
        patterns: regular expressions for the name of a split's main file; the group is the name of the split.
        prefer: beginnings of split names; the first that exists is evaluated by default.

    Raises:
        DataError: the folder or its main file is missing, or is of another format.
    """

    files: ClassVar[str]
    patterns: ClassVar[tuple[str, ...]] = ()
    prefer: ClassVar[tuple[str, ...]] = ("val", "dev", "test")
    wording: ClassVar[Wording] = Wording()

    def __init__(self, folder: Path):
        self.folder = folder
        self.split_files: dict[str, Path] = {}
        self.splits = tuple(self.find_splits())
        # If a folder contains several sets, the name of a split begins with that of its set.
        short = {split: split.rpartition(" ")[2] for split in self.splits}
        self.default_split = next(
            (split for start in self.prefer for split in self.splits if short[split].startswith(start)), self.splits[0]
        )
        self.support_split = next((split for split in self.splits if short[split].startswith("train")), None)

    def find_splits(self) -> Iterable[str]:
        """The splits in the folder, from the names of its files, which are stored as ``split_files``.

        Raises:
            DataError: there are none.
        """
        self.split_files = splits_of(self.folder, self.files, *self.patterns)
        return self.split_files

    @abstractmethod
    def read(self, split: str) -> list[Example]:
        """The examples of a split that exists."""

    def examples(
        self, split: str, problems: list[Problem] | None = None, progress: Progress | None = None
    ) -> list[Example]:
        """The examples of a split. A bad record is an error, because official files have none.

        Raises:
            DataError: there is no such split, a record is bad, two have the same id, or there are none.
        """
        examples = self.read(split_named(split, self.splits, f"{self.name} in {self.folder}"))
        if not examples:
            raise DataError(f"{self.folder}: the split {split} of {self.name} contains no records.")
        names: dict[str, str] = {}
        for example in examples:
            if example.id in names:
                raise DataError(f"{self.folder}: two records have the id {example.id} ({names[example.id]}).")
            names[example.id] = example.name
        return examples

    def must_answer(self, prediction: Prediction, example: Example) -> None:
        """See :meth:`~vislang.tasks.task.Task.must_answer`; a label must be one of the benchmark's."""
        super().must_answer(prediction, example)
        if self.labels and prediction.answer is not None:
            one_of(prediction.answer, self.labels)

    def subset(self, examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
        """At most ``limit`` random examples (0: all); examples that are scored together are drawn together."""
        if not limit or limit >= len(examples):
            return list(examples)
        groups: dict[str, list[Example]] = {}
        for example in examples:
            groups.setdefault(self.together(example), []).append(example)
        kept: list[Example] = []
        for group in random.Random(seed).sample(list(groups.values()), len(groups)):
            if not kept or len(kept) + len(group) <= limit:
                kept += group
        return kept


def must_have_target(example: Example) -> None:
    """Raise an error if an example cannot be scored.

    Raises:
        DataError: it has no target.
    """
    if example.target is None:
        raise DataError(f"{example.name}: has no label, so it cannot be scored. Choose another split.")
