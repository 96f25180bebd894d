"""Task: examples by split, their wording, and the scoring of predictions."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vislang.capabilities import Progress
from vislang.data.problems import DataError, Problem, must_be_file
from vislang.data.split import draw, keys_of
from vislang.document import Audio, Document, Image, Video
from vislang.example import Example, Label, Prediction, prediction_from
from vislang.metrics import by_kind
from vislang.metrics.figure import Figures
from vislang.metrics.items import Items, items
from vislang.tasks.files import each, read_lines

Reader = Callable[[list[Problem] | None, Progress | None], list[Example]]
"""Reads the examples of a split; its arguments are ``problems`` and ``progress`` of ``Task.examples``."""


class Task(ABC):
    """A task. It is independent of models, which state how they can answer.

    Attributes:
        name: name of the task: ``vqa``, ``easy-vqa``, ``my.jsonl``.
        about: description in one line.
        kind: kind of the targets, one of ``example.TARGETS``, or ``pairs`` for retrieval.
        media: contents of prompts and choices: ``text``, ``image``, ``several images``, ``video``, ``audio``.
        images: largest number of images in a prompt with one of its choices.
        metrics: names of the figures; the first one is the main metric.
        splits: names of the splits.
        default_split: the split that is evaluated by default.
        support_split: the split for shots, probes and baselines; None if there is none.
        labels: the closed set of labels; empty if the model must know it.
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
            split: one of ``splits``, or an unambiguous beginning of one.
            problems: bad records of a user's file are skipped and added to this list.
            progress: called with (records done, records in all).

        Raises:
            DataError: there is no such split, or the data cannot be used.
        """

    def support(self) -> list[Example]:
        """The examples of the support split; empty if there is none."""
        return [] if self.support_split is None else self.examples(self.support_split)

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The figures of predictions.

        Args:
            examples: each with a target.
            predictions: one for each of ``ids(examples)``, in that order; see :func:`complete`.
        """
        return by_kind.score(examples, predictions)

    def score_each(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Items:
        """The score of each prediction; see :func:`vislang.metrics.items.items`. The arguments are those of
        :meth:`score`."""
        return items(examples, predictions)

    def clusters(self, examples: Sequence[Example]) -> list[str]:
        """A key for each of ``ids(examples)``. Predictions with the same key share an image (without media, a text), so
        they are not independent."""
        if all(medium.is_there for example in examples for medium in example.media):
            return keys_of(examples)
        # A model that reads region files needs no images.
        return [example.group or "".join(medium.name for medium in example.media) for example in examples]

    def can_score(self, examples: Sequence[Example]) -> bool:
        """Whether the examples have targets; those of a test split are often not published."""
        return any(example.target is not None for example in examples)

    def must_be_answerable(self, examples: Sequence[Example]) -> None:
        """Raise an error if a model cannot answer the examples, because a file is missing that only models need.

        Raises:
            DataError: one is missing.
        """
        return

    def ids(self, examples: Sequence[Example]) -> list[str]:
        """The ids of the predictions for these examples."""
        return [example.id for example in examples]

    def together(self, example: Example) -> str:
        """A key; examples with the same key are scored together, and are in a subset together."""
        return example.id

    def subset(self, examples: Sequence[Example], limit: int, seed: int) -> list[Example]:
        """At most ``limit`` random examples (0: all); examples that are scored together are drawn together."""
        return draw(examples, limit, seed)

    def read_predictions(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """Predictions from a file: the ``predictions.jsonl`` of an evaluation, or the benchmark's official format.

        Args:
            path: path of the file.
            examples: the examples that are predicted.

        Returns:
            A prediction for each of ``ids(examples)``, in that order.

        Raises:
            DataError: the file has another format, or predictions are missing, unknown or duplicate.
        """
        must_be_file(path, "a file of predictions")
        if not _is_ours(path):
            return complete(self.ids(examples), self.read_official(path, examples), str(path))
        return complete(self.ids(examples), each(path, read_lines(path), self.prediction_reader(examples)), str(path))

    def prediction_reader(self, examples: Sequence[Example]) -> Callable[[Mapping[str, Any]], Prediction]:
        """Reads a record of ``predictions.jsonl`` and checks that it answers its example.

        The function raises a ValueError if it does not. An unknown id is left to :func:`complete`, which counts them.
        """
        by_id = {example.id: example for example in examples}

        def read(record: Mapping[str, Any]) -> Prediction:
            prediction = prediction_from(record)
            if prediction.id in by_id:
                self.must_answer(prediction, by_id[prediction.id])
            return prediction

        return read

    def must_answer(self, prediction: Prediction, example: Example) -> None:
        """Raise an error if a prediction from a file does not answer an example of this task.

        Raises:
            ValueError: the answer has another type, or is out of its range.
        """
        by_kind.must_answer(prediction, self.kind, len(example.choices))

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """Read predictions in the official format, in any order.

        Raises:
            DataError: the task has no official format, or the file has another one.
        """
        raise DataError(
            f'{path}: not a file of predictions. Each line is {{"id": ..., "answer": ...}}, as vislang eval --out '
            "writes them."
        )

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str] | None:
        """The name and content of a submission file in the official format; None if there is no such format."""
        return None

    def guesses(self, support: Sequence[Example], examples: Sequence[Example]) -> dict[str, Figures]:
        """The figures of baselines without media, by name; see :func:`vislang.metrics.by_kind.guesses`."""
        return by_kind.guesses(support, examples)


class ReadTask(Task):
    """A task with a reader for each split, scored by the kind of its targets.

    Args:
        name, about, kind, media: see :class:`Task`.
        read: a reader for each split.
        default_split, support_split, labels, images: see :class:`Task`.
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
    """The split with this name, or with an unambiguous beginning of its name.

    Raises:
        DataError: there is no such split, or several; the message lists the splits.
    """
    if split in known:
        return split
    fitting = [other for other in known if split and other.startswith(split)]
    if len(fitting) == 1:
        return fitting[0]
    if tuple(known) == ("all",):
        raise DataError(f"{name}: has no splits. Remove the split {split!r}.")
    fault = f"several splits begin with {split!r}" if fitting else f"no split {split!r}"
    raise DataError(f"{name}: {fault}. The splits are {', '.join(known)}.")


def complete(ids: Sequence[str], predictions: Sequence[Prediction], name: str) -> list[Prediction]:
    """The predictions in the order of the ids. They must be complete: nothing is scored on a subset.

    Raises:
        DataError: predictions are missing, unknown or duplicate; the message counts and names them.
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
    """The contents of prompts and choices: ``text``, ``image``, ``several images``, ``video`` and ``audio``."""
    found: set[str] = set()
    for example in examples:
        for document in example.documents():
            found |= _media_in(document)
    return frozenset(found)


def images_of(examples: Iterable[Example]) -> int:
    """The largest number of images in a prompt with one of its choices."""
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
    """Whether a file contains predictions as :meth:`~vislang.example.Prediction.as_record` gives them."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and {"id", "answer"} <= set(first)
