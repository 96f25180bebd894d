"""Probing tasks: labelled examples, split so that nothing is recognised that was seen."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from vislang.capabilities import Progress
from vislang.data.jsonl import DataError, Problem
from vislang.data.sets import emoji, klettres, openclipart, stamps
from vislang.data.split import keys_of
from vislang.document import Audio, Document, Image
from vislang.example import Example, Label, Wording
from vislang.metrics import by_kind
from vislang.tasks.task import Task, labels_of, media_of, split_named

FOLDS = 5


class ProbeTask(Task):
    """Labels of examples, cross-validated: folds are made of whole groups.

    ``train`` and ``test`` are the two sides of the first fold; a probe goes through all of them (:meth:`folds`).

    Args:
        name, about: see :class:`~vislang.tasks.task.Task`.
        items: examples with a label and a group.
        trainable, testable: for each item, whether it may be trained on and tested on; None where all may.
        by_group: each group is a fold of its own.
    """

    kind = "label"
    metrics = by_kind.METRICS["label"]
    splits = ("train", "test")
    default_split, support_split = "test", "train"

    def __init__(
        self,
        name: str,
        about: str,
        items: Sequence[Example],
        trainable: Sequence[bool] | None = None,
        testable: Sequence[bool] | None = None,
        by_group: bool = False,
    ):
        self.name, self.about, self.items, self.by_group = name, about, list(items), by_group
        self.trainable = [True] * len(self.items) if trainable is None else list(trainable)
        self.testable = [True] * len(self.items) if testable is None else list(testable)
        self.media, self.labels = media_of(self.items), labels_of(self.items)

    @property
    def targets(self) -> list[str]:
        """The label of each item."""
        return [item.target.name for item in self.items if isinstance(item.target, Label)]

    def examples(
        self, split: str, problems: list[Problem] | None = None, progress: Progress | None = None
    ) -> list[Example]:
        """One side of the first fold."""
        side = self.splits.index(split_named(split, self.splits, self.name))
        return [self.items[n] for n in next(self.folds())[side]]

    def folds(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(training items, test items) of each fold, as indices."""
        fold = self._fold_of_items(len({item.group for item in self.items}) if self.by_group else FOLDS)
        for number in sorted(set(fold)):
            train = [n for n in range(len(self.items)) if self.trainable[n] and fold[n] != number]
            test = [n for n in range(len(self.items)) if self.testable[n] and fold[n] == number]
            if test:
                yield np.array(train), np.array(test)

    def inner(self, train: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Split a training part once more, by group, for whatever has to be chosen."""
        groups = {self.items[n].group for n in train}
        held = {group for group in groups if _hash(f"inner {group}") % 4 == 0}
        if not held or len(held) == len(groups):
            held = {min(groups)}
        inside = np.array([self.items[n].group in held for n in train])
        return train[~inside], train[inside]

    def _fold_of_items(self, count: int) -> list[int]:
        groups = sorted({item.group for item in self.items}, key=_hash)
        fold = {group: number % count for number, group in enumerate(groups)}
        return [fold[item.group] for item in self.items]


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])


def of_examples(name: str, about: str, examples: Sequence[Example]) -> ProbeTask:
    """A user's own labelled examples as a probe; those that share a medium stay together.

    Raises:
        DataError: fewer than two labels, or too few examples.
    """
    groups = keys_of(examples)
    items = [_item(e.prompt, str(by_label(e)), group, e.wording) for e, group in zip(examples, groups, strict=True)]
    if len(labels_of(items)) < 2 or len(set(groups)) < 2 * FOLDS:
        raise DataError(f"{name}: a probe needs two labels, and {2 * FOLDS} different records at least.")
    return ProbeTask(name, about, items)
