"""Probing tasks: labelled examples in groups, which are never in both training and test data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from vislang.capabilities import Progress
from vislang.data.problems import DataError, Problem
from vislang.data.sets import emoji, klettres, openclipart, stamps
from vislang.data.split import keys_of
from vislang.document import Audio, Document, Image
from vislang.example import PLAIN, Example, Label, Wording
from vislang.metrics import by_kind
from vislang.tasks.task import Task, labels_of, media_of, split_named

FOLDS = 5

EMOJI_GROUPS = (
    "Activities",
    "Animals & Nature",
    "Flags",
    "Food & Drink",
    "Objects",
    "People & Body",
    "Smileys & Emotion",
    "Symbols",
    "Travel & Places",
)

CLIP_ART_CATEGORIES = (
    "animals",
    "computer",
    "food",
    "geography",
    "office",
    "people",
    "plants",
    "recreation",
    "signs_and_symbols",
    "tools",
    "transportation",
)

STAMP_CATEGORIES = ("animals", "food", "household", "plants", "seasonal", "symbols", "town", "vehicles")
"""Categories with enough images."""

CAPTION_STAMP_CATEGORIES = tuple(sorted((*STAMP_CATEGORIES, "clothes", "people")))
"""Categories with enough captions and recordings."""


class ProbeTask(Task):
    """A cross-validated task with labels; folds consist of whole groups.

    ``train`` and ``test`` are the two sides of the first fold; probes use all folds (:meth:`folds`).

    Args:
        name, about: see :class:`~vislang.tasks.task.Task`.
        items: examples with a label and a group.
        trainable, testable: whether each item may be used for training and for testing; None if all may.
        by_group: make each group its own fold.
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
        """Split a training part again by group, to choose hyper-parameters."""
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


def as_probe(task: Task) -> ProbeTask:
    """A task with labels as a probe; examples that share a medium stay together.

    Raises:
        DataError: it has no labels, or too few examples.
    """
    if isinstance(task, ProbeTask):
        return task
    if task.kind != "label":
        raise DataError(f"{task.name}: a probe needs labels, and its targets are of the kind {task.kind}.")
    examples = task.examples(task.default_split)
    groups = keys_of(examples)
    if len(labels_of(examples)) < 2 or len(set(groups)) < 2 * FOLDS:
        raise DataError(f"{task.name}: a probe needs at least two labels and {2 * FOLDS} different records.")
    items = [replace(example, group=group) for example, group in zip(examples, groups, strict=True)]
    return ProbeTask(task.name, task.about, items)


def _item(part: Image | Audio | str, label: str, group: str, name: str, wording: Wording = PLAIN) -> Example:
    return Example(name, Document([part], name=name), Label(label), group=group, wording=wording)


def _frequent(items: list[Example], least: int) -> list[Example]:
    """The items whose label has at least ``least`` groups."""
    counts = Counter(target for target, _ in {(item.target, item.group) for item in items})
    return [item for item in items if counts[item.target] >= least]


def _drawn_emoji() -> list[emoji.Drawing]:
    return [d for d in emoji.drawings() if not d.variant and d.group != "Component"]


def emoji_groups(name: str, about: str) -> ProbeTask:
    """The group of an emoji, from its drawing."""
    drawings = _drawn_emoji()
    return ProbeTask(
        name,
        about,
        [_item(d.image, d.group, d.emoji, f"{d.vendor} {d.emoji}") for d in drawings],
        [d.vendor == "google" for d in drawings],
        [d.vendor == "twitter" for d in drawings],
    )


def emoji_name_groups(name: str, about: str) -> ProbeTask:
    """The group of an emoji, from its name."""
    wording = Wording('What kind of emoji is called "{text}"?', captions={"": "{label}"})
    items = {d.emoji: _item(d.name, d.group, d.emoji, d.emoji, wording) for d in _drawn_emoji()}
    return ProbeTask(name, about, list(items.values()))


def clip_art_categories(name: str, about: str) -> ProbeTask:
    """The category of a piece of clip art, for categories with at least 60 pieces; pieces of one title are a group."""
    items = [
        _item(c.image, c.category, c.title or c.image.name, f"clip art {number}")
        for number, c in enumerate(openclipart.clip_art(), start=1)
        if c.category not in ("unsorted", "special")
    ]
    return ProbeTask(name, about, _frequent(items, 60))


def stamp_categories(name: str, about: str) -> ProbeTask:
    """The category of a stamp, from its picture."""
    items = [_item(s.image, s.category, s.name, s.name) for s in stamps.stamps() if s.image is not None]
    return ProbeTask(name, about, _frequent(items, 20))


def stamp_caption_categories(name: str, about: str) -> ProbeTask:
    """The category of a stamp, from its English caption; stamps with the same caption are a group."""
    wording = Wording('What kind of thing is "{text}"?', captions={"": "{label}"})
    items = [
        _item(s.captions["en"], s.category, s.captions["en"].lower(), s.name, wording)
        for s in stamps.stamps()
        if "en" in s.captions
    ]
    return ProbeTask(name, about, _frequent(items, 20))


def spoken_letters(name: str, about: str) -> ProbeTask:
    """The letter that is read. Each language, which has a single voice, is a fold."""
    items = [
        _item(r.sound, r.text, r.language, f"{r.language} {r.text}")
        for r in klettres.readings()
        if r.kind == "letter" and len(r.text) == 1 and "A" <= r.text <= "Z"
    ]
    return ProbeTask(name, about, _frequent(items, 5), by_group=True)


def spoken_stamps(name: str, about: str, language: str = "fr") -> ProbeTask:
    """The category of a stamp, from its spoken caption; in one language, so the voice does not reveal the category."""
    items = [_item(s.spoken[language], s.category, s.name, s.name) for s in stamps.stamps() if language in s.spoken]
    return ProbeTask(name, about, _frequent(items, 20))
