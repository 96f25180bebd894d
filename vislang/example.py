"""Example: one record of any data set, with its target; Prediction: what a model answered.

A caption pair, a question about an image, a choice among answers, a path to follow, a labelled recording and an
unlabelled picture are all Examples. What is wanted shows in the kind of target; how a model gives it is the model's own
affair (:mod:`vislang.evaluate.ways`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vislang.boxes import Box
from vislang.document import Document, Medium


@dataclass(frozen=True)
class Text:
    """Free text: a caption, a transcript, a translation; several references where people wrote several."""

    references: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """Answers from an open vocabulary, with a soft score from 0 to 1 each (as in VQA)."""

    scores: Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """The index of the right one of ``Example.choices``."""

    index: int


@dataclass(frozen=True)
class Label:
    """One of a closed set of labels."""

    name: str


@dataclass(frozen=True)
class Value:
    """A number."""

    number: float


Target = Text | Answers | Choice | Label | Box | Value

TARGETS: dict[str, type] = {
    "text": Text,
    "answers": Answers,
    "choice": Choice,
    "label": Label,
    "box": Box,
    "value": Value,
}
"""The kinds of target by name, as JSON and messages call them."""


def kind_of(target: Target | type | None) -> str:
    """The name of a target's kind; ``none`` where nothing is asked.

    >>> kind_of(Label("cat")), kind_of(Box), kind_of(None)
    ('label', 'box', 'none')
    """
    made = target if isinstance(target, type) else type(target)
    return next((name for name, kind in TARGETS.items() if kind is made), "none")


@dataclass(frozen=True)
class Wording:
    """How a task is put into words for models that read text and media in one sequence, or compare both.

    Attributes:
        question: what such a model is asked, with ``{text}`` for the text of the prompt; None takes that text itself.
        labels: for each label, the words by which it is written and ranked; a label that is missing is its own word.
        captions: for each label, a caption that fits an image of it, with ``{text}`` and ``{label}``; under the key
            ``""`` the one for all other labels.
        verbatim: the prompt is continued as it stands; no template is put around it.
    """

    question: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=lambda: {"": "{label}"})
    verbatim: bool = False


PLAIN = Wording()
"""The words of a record itself."""

VERBATIM = Wording(verbatim=True)


@dataclass(frozen=True)
class Example:
    """A record.

    Attributes:
        id: what its data set calls it; predictions are matched by this.
        prompt: what is given: media and text in reading order.
        target: what is wanted; None where nothing is, or where nobody knows it.
        choices: what is to be chosen from. Each is read together with the prompt (see :meth:`with_choice`), so that
            captions for an image, images for a caption and paths for an instruction are all the same.
        group: examples of a group are never on both sides of a split; empty goes by the content of the media.
        source: where it comes from, such as ``my.jsonl:12``, for messages.
        task: the task that it belongs to, where a model learns several.
        wording: how to put it into words.
        shots: examples that always stand before it in a prompt.
    """

    id: str
    prompt: Document
    target: Target | None = None
    choices: tuple[Document, ...] = ()
    group: str = ""
    source: str = ""
    task: str = ""
    wording: Wording = PLAIN
    shots: tuple[Example, ...] = ()

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return self.source or self.id

    @property
    def media(self) -> tuple[Medium, ...]:
        """Every medium of the prompt and of the choices."""
        return tuple(medium for document in (self.prompt, *self.choices) for medium in document.media)

    @property
    def text(self) -> str:
        """The text of the prompt."""
        return " ".join(part.strip() for part in self.prompt.parts if isinstance(part, str) and part.strip())

    def with_choice(self, index: int) -> Document:
        """The prompt and one of the choices as one document."""
        return Document([*self.prompt.parts, *self.choices[index].parts], name=self.name)

    def documents(self) -> list[Document]:
        """All that is read of it: the prompt with each choice, or the prompt alone."""
        return [self.with_choice(index) for index in range(len(self.choices))] or [self.prompt]

    def without_media(self) -> Example:
        """The same example for a blind reader: media are taken away, their positions are kept."""
        return replace(
            self,
            prompt=self.prompt.without_media(),
            choices=tuple(choice.without_media() for choice in self.choices),
            shots=tuple(shot.without_media() for shot in self.shots),
        )

    def without_target(self) -> Example:
        """The same example with nothing known of what is wanted."""
        return replace(self, target=None, prompt=self.prompt.without_target())


def reference_text(example: Example) -> str | None:
    """The text that a model learns to write for an example.

    Of several references the most frequent one, of equals the first; of soft scores the best answer; the words of a
    label; the text of the right choice; a number in its shortest form. None where the target is a box, holds no text,
    or is unknown.
    """
    target = example.target
    if isinstance(target, Text):
        return Counter(target.references).most_common(1)[0][0]
    if isinstance(target, Answers):
        return max(target.scores, key=lambda answer: target.scores[answer])
    if isinstance(target, Label):
        return example.wording.labels.get(target.name, target.name)
    if isinstance(target, Value):
        return f"{target.number:g}"
    if isinstance(target, Choice):
        chosen = example.choices[target.index]
        return None if chosen.media else "".join(part for part in chosen.parts if isinstance(part, str)).strip()
    return None


Answer = str | int | float | Box | tuple[str, ...] | None


@dataclass(frozen=True)
class Prediction:
    """What a model answered to an example.

    Attributes:
        id: of the example.
        answer: a text or label, the index of a choice, a number, a box, or a path as viewpoints; None where the model
            gave none.
        candidates: what was decided among, if anything: answers, labels, indices or boxes.
        scores: of each candidate, the higher the better; see ``kind``.
        kind: what the scores are: ``probability``, ``log_likelihood`` or ``similarity``.
        prompt: the prompt as the model was sent it, with its shots, media by name, for the record; where each choice or
            label has a prompt of its own, that of the answer.
    """

    id: str
    answer: Answer
    candidates: tuple[str | int | Box, ...] = ()
    scores: tuple[float, ...] = ()
    kind: str = "probability"
    prompt: str = ""

    def as_record(self) -> dict[str, Any]:
        """As plain values for a JSON line; :func:`prediction_from` reads it."""
        # An answer may be an empty text, and is written all the same.
        found = {name: value for name, value in vars(self).items() if name == "answer" or value not in ((), "")}
        return {name: _plain(value) for name, value in found.items()}


def prediction_from(record: Mapping[str, Any]) -> Prediction:
    """The prediction that :meth:`Prediction.as_record` gave.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    answer = _answer(record["answer"])
    candidates = tuple(_answer(value) for value in record.get("candidates", ()))
    scores = tuple(float(score) for score in record.get("scores", ()))
    if len(candidates) != len(scores):
        raise ValueError(f"{len(candidates)} candidates and {len(scores)} scores")
    return Prediction(
        str(record["id"]),
        answer,
        candidates,  # type: ignore[arg-type]  # no candidate is a path
        scores,
        str(record.get("kind", "probability")),
        str(record.get("prompt", "")),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Box):
        return asdict(value)
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def _answer(value: Any) -> Answer:
    if isinstance(value, dict):
        return Box(**{edge: float(value[edge]) for edge in ("left", "top", "right", "bottom")})
    if isinstance(value, list):
        return tuple(str(step) for step in value)
    if value is None or (isinstance(value, str | int | float) and not isinstance(value, bool)):
        return value
    raise ValueError(f"{value!r} is no answer")
