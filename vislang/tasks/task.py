"""Task: examples by split, how they are put into words, and how predictions are scored."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from vislang.capabilities import Progress
from vislang.data.problems import DataError, Problem
from vislang.data.split import draw
from vislang.document import Audio, Document, Image, Video
from vislang.example import Example, Label, Prediction, prediction_from
from vislang.metrics import by_kind
from vislang.metrics.figure import Figures
from vislang.tasks.files import each, read_lines

Reader = Callable[[list[Problem] | None, Progress | None], list[Example]]
"""Reads the examples of a split; takes what ``Task.examples`` takes after the name of the split."""


class Task(ABC):
    """A task. It names no model: a model states which kinds of answer it can give.

    Attributes:
        name: as people type it: ``vqa``, ``easy-vqa``, ``my.jsonl``.
        about: one line.
        kind: of the targets, one of ``example.TARGETS``; or ``pairs`` for retrieval.
        media: what prompts and choices hold, of ``text``, ``image``, ``several images``, ``video`` and ``audio``.
        images: the most images that are shown together, in a prompt with one of its choices.
        metrics: names of the figures; the first one is drawn and compared.
        splits: their names, in the data's own words.
        default_split: evaluated where no split is named.
        support_split: what shots, probes and guesses learn from; None where there is none.
        labels: the closed set of a task with labels; empty where a model has to know it.
    """

    name: str
    about: str
    kind: str
    media: frozenset[str]
    images: int = 1
    metrics: tuple[str, ...]
    splits: tuple[str, ...]
    default_split: str
    support_split: str | None = None
    labels: tuple[str, ...] = ()

    @abstractmethod
    def examples(
        self, split: str, problems: list[Problem] | None = None, progress: Progress | None = None
    ) -> list[Example]:
        """The examples of a split.

        Args:
            split: one of ``splits``, or the beginning of one of them alone.
            problems: bad records of a user's file are added to it, and left out.
            progress: called with (done, of how many).

        Raises:
            DataError: there is no such split, or the data cannot be used.
        """

    def support(self) -> list[Example]:
        """What shots are drawn from; empty where the task has nothing for that."""
        return [] if self.support_split is None else self.examples(self.support_split)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The figures of predictions.

        Args:
            examples: each with a target.
            predictions: one for each of ``ids(examples)``, in that order; see :func:`complete`.
        """
        return by_kind.score(examples, predictions)

    def can_score(self, examples: Sequence[Example]) -> bool:
        """Whether there is anything to score examples by; the answers to a test split are often kept secret."""
        return any(example.target is not None for example in examples)

    def ids(self, examples: Sequence[Example]) -> list[str]:
        """What predictions of these examples are called."""
        return [example.id for example in examples]

    def together(self, example: Example) -> str:
        """A subset takes all examples for which this is the same, or none."""
        return example.id

    def subset(self, examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
        """At most so many of the examples (0: all), drawn by seed; those that are scored together come together."""
        return draw(examples, limit, seed)

    def read_predictions(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """Predictions from a file: the ``predictions.jsonl`` of an evaluation, or the benchmark's official format.

        Args:
            path: of the file.
            examples: what they have to be predictions of.

        Returns:
            One for each of ``ids(examples)``, in that order.

        Raises:
            DataError: the file has another format, or predictions are missing, of no example, or there twice.
        """
        ours = _is_ours(path)
        read = each(path, read_lines(path), prediction_from) if ours else self.read_official(path, examples)
        return complete(self.ids(examples), read, str(path))

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """Predictions from the official format, in any order.

        Raises:
            DataError: there is none, or the file has another one.
        """
        raise DataError(
            f'{path}: not a file of predictions. Each line is {{"id": ..., "answer": ...}}, as vislang eval --out '
            "writes them."
        )

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str] | None:
        """The name and the content of a file in the official format; None where the task has no such format."""
        return None

    def guesses(self, support: Sequence[Example], examples: Sequence[Example]) -> dict[str, Figures]:
        """The figures of baselines that look at no medium, by name; see :func:`vislang.metrics.by_kind.guesses`."""
        return by_kind.guesses(support, examples)


class ReadTask(Task):
    """A task made of functions that read its splits, scored by the kind of its targets.

    Args:
        name, about, kind, media: see :class:`Task`.
        read: a function for each split.
        default_split: evaluated where no split is named.
        support_split: what shots are drawn from.
        labels: of a task with labels.
        images: the most that are shown together.
    """

    def __init__(
        self,
        name: str,
        about: str,
        kind: str,
        media: Iterable[str],
        read: Mapping[str, Reader],
        default_split: str,
        support_split: str | None = None,
        labels: tuple[str, ...] = (),
        images: int = 1,
    ):
        self.name, self.about, self.kind, self.media = name, about, kind, frozenset(media)
        self.metrics = by_kind.METRICS.get(kind, ())
        self.read, self.splits = read, tuple(read)
        self.default_split, self.support_split = default_split, support_split
        self.labels, self.images = labels, images

    def examples(
        self, split: str, problems: list[Problem] | None = None, progress: Progress | None = None
    ) -> list[Example]:
        """The examples of a split."""
        return self.read[split_named(split, self.splits, self.name)](problems, progress)


def split_named(split: str, known: Sequence[str], name: str) -> str:
    """The one of several splits that is meant: by its name, or by the beginning of one name alone.

    Raises:
        DataError: there is none, or several begin like this; the message names those that exist.
    """
    if split in known:
        return split
    fitting = [other for other in known if split and other.startswith(split)]
    if len(fitting) == 1:
        return fitting[0]
    if tuple(known) == ("all",):
        raise DataError(f"{name}: has no splits, and so no {split!r}. Leave the split out.")
    fault = f"several splits begin with {split!r}" if fitting else f"no split {split!r}"
    raise DataError(f"{name}: {fault}; there are {', '.join(known)}.")


def complete(ids: Sequence[str], predictions: Sequence[Prediction], name: str) -> list[Prediction]:
    """The predictions in the order of the ids. Nothing is scored on a subset.

    Raises:
        DataError: some are missing, of no record, or there twice; the message counts and names them.
    """
    counts = Counter(prediction.id for prediction in predictions)
    known = set(ids)
    faults = []
    for fault, found in (
        (f"no prediction for {{}} of {len(ids)} records", [i for i in ids if i not in counts]),
        (f"no record for {{}} of {len(predictions)} predictions", [i for i in counts if i not in known]),
        (f"several predictions for {{}} of {len(ids)} records", [i for i in counts if counts[i] > 1]),
    ):
        if found:
            shown = ", ".join(found[:5]) + (", ..." if len(found) > 5 else "")
            faults.append(f"{fault.format(len(found))}: {shown}")
    if faults:
        raise DataError(f"{name}: {'; '.join(faults)}.")
    by_id = {prediction.id: prediction for prediction in predictions}
    return [by_id[i] for i in ids]


def media_of(examples: Iterable[Example]) -> frozenset[str]:
    """What prompts and choices hold, of ``text``, ``image``, ``several images``, ``video`` and ``audio``."""
    found: set[str] = set()
    for example in examples:
        for document in example.documents():
            found |= _media_in(document)
    return frozenset(found)


def images_of(examples: Iterable[Example]) -> int:
    """The most images that are shown together, in a prompt with one of its choices."""
    counts = (
        sum(isinstance(medium, Image) for medium in document.media)
        for example in examples
        for document in example.documents()
    )
    return max(counts, default=0)


def labels_of(examples: Iterable[Example]) -> tuple[str, ...]:
    """The labels that occur, sorted."""
    return tuple(sorted({example.target.name for example in examples if isinstance(example.target, Label)}))


def _media_in(document: Document) -> set[str]:
    names = {Image: "image", Video: "video", Audio: "audio"}
    found = {names[type(medium)] for medium in document.media}
    if sum(isinstance(medium, Image) for medium in document.media) > 1:
        found.add("several images")
    if any(isinstance(part, str) and part.strip() for part in document.parts):
        found.add("text")
    return found


def _is_ours(path: Path) -> bool:
    """Whether a file holds predictions as :meth:`~vislang.example.Prediction.as_record` gives them."""
    try:
        with path.open(encoding="utf-8") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"id", "answer"} <= set(first)
