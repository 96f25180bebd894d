"""Case: one record of a task for models that decide rather than write: what is read, and what is right.

Whatever a task is called, a model decides in one of five ways, and the kind of target says which: it answers from a
vocabulary, chooses among options, points at a place, gives a label, or gives a number.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vislang.document import Document, Image


@dataclass(frozen=True)
class Answers:
    """Answers from a vocabulary, and how right each is, from 0 to 1 (VQA's soft scores)."""

    scores: Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """One of the options is right: which, counted from 0."""

    index: int


@dataclass(frozen=True)
class Place:
    """A box of the image, in its pixels."""

    left: float
    top: float
    right: float
    bottom: float


@dataclass(frozen=True)
class Label:
    """One of a few classes."""

    name: str


@dataclass(frozen=True)
class Value:
    """A number."""

    number: float


Target = Answers | Choice | Place | Label | Value


@dataclass(frozen=True)
class Case:
    """A record.

    Attributes:
        name: where it comes from, for messages.
        options: what is read: one document, or several of which one is to be chosen. A document holds one image or
            more, and one or two texts.
        target: what is right; None where that is not known.
        task: which task it is of, where a model has several.
        group: cases of a group are never on both sides of a split; empty goes by the first image.
        id: what the data set calls it, by which predictions are matched.
    """

    name: str
    options: tuple[Document, ...]
    target: Target | None = None
    task: str = ""
    group: str = ""
    id: str = ""

    @property
    def images(self) -> list[Image]:
        """Every image of every option."""
        return [medium for option in self.options for medium in option.media if isinstance(medium, Image)]


@dataclass(frozen=True)
class Decision:
    """What a model decided of a case.

    Attributes:
        best: an answer or label (text), the index of an option, a place, or a number.
        candidates: what was decided among: answers, labels, indices or places; nothing for numbers.
        probabilities: of each candidate; over places, each on its own.
    """

    best: str | int | float | Place
    candidates: tuple[str | int | Place, ...] = ()
    probabilities: tuple[float, ...] = ()
