"""Example: one record of any data set, with its target. Prediction: a model's answer to an Example.

A captioned image, a question about an image, a choice among answers, a path to choose, a labelled recording and an
unlabelled image are all Examples. The kind of target says what is asked. How a model answers depends on the model
(:mod:`vislang.evaluate.ways`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from vislang.boxes import Box
from vislang.document import Document, Medium


@dataclass(frozen=True)
class Text:
    """Free text, such as a caption or a transcript, with one or several references."""

    references: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """Answers from an open vocabulary, each with a soft score from 0 to 1 (as in VQA)."""

    scores: Mapping[str, float]


@dataclass(frozen=True)
class Choice:
    """The index of the correct one of ``Example.choices``."""

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
"""The kinds of target, by their names in JSON and messages."""


def kind_of(target: Target | type | None) -> str:
    """The name of a target's kind; ``none`` without a target.

    >>> kind_of(Label("cat")), kind_of(Box), kind_of(None)
    ('label', 'box', 'none')
    """
    made = target if isinstance(target, type) else type(target)
    return next((name for name, kind in TARGETS.items() if kind is made), "none")


@dataclass(frozen=True)
class Wording:
    """How a task is phrased for models that generate, rank or compare text.

    Attributes:
        question: the question to ask, with ``{text}`` for the text of the prompt; None asks that text itself.
        labels: the words for each label when it is generated or ranked; a label without an entry stands for itself.
        captions: a caption for images of each label, with ``{text}`` and ``{label}``. The key ``""`` holds the caption
            for all other labels.
        verbatim: use the prompt unchanged, without the model's template.
    """

    question: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    captions: Mapping[str, str] = field(default_factory=lambda: {"": "{label}"})
    verbatim: bool = False


PLAIN = Wording()
"""The text of the prompt is the question, and labels stand for themselves."""

VERBATIM = Wording(verbatim=True)


@dataclass(frozen=True)
class Example:
    """A record of a data set.

    Attributes:
        id: identifier in its data set; predictions are matched by it.
        prompt: the input: media and text in reading order.
        target: the ground truth; None if nothing is asked or the answer is not known.
        choices: the options of a choice. Each is read together with the prompt (see :meth:`with_choice`), so captions
            for an image, images for a caption and paths for an instruction are handled in the same way.
        group: all examples of a group are on the same side of a split. Empty: examples that share a medium are.
        source: origin of the record, such as ``my.jsonl:12``, for messages.
        task: the task that it belongs to, if a model is trained on several.
        wording: how the task is phrased.
        shots: examples that precede it in every prompt.
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
        """The name of the example in messages."""
        return self.source or self.id

    @property
    def media(self) -> tuple[Medium, ...]:
        """The media of the prompt and of all choices."""
        return tuple(medium for document in (self.prompt, *self.choices) for medium in document.media)

    @property
    def text(self) -> str:
        """The text of the prompt."""
        return " ".join(part.strip() for part in self.prompt.parts if isinstance(part, str) and part.strip())

    def with_choice(self, index: int) -> Document:
        """The prompt followed by one of the choices, as one document."""
        return Document([*self.prompt.parts, *self.choices[index].parts], name=self.name)

    def documents(self) -> list[Document]:
        """The documents that a model reads: the prompt with each choice, or only the prompt."""
        return [self.with_choice(index) for index in range(len(self.choices))] or [self.prompt]

    def without_media(self) -> Example:
        """The same example with all media removed and their positions kept."""
        return replace(
            self,
            prompt=self.prompt.without_media(),
            choices=tuple(choice.without_media() for choice in self.choices),
            shots=tuple(shot.without_media() for shot in self.shots),
        )

    def without_target(self) -> Example:
        """The same example without its target."""
        return replace(self, target=None, prompt=self.prompt.without_target())

    def _repr_html_(self) -> str:
        """The example in a notebook: its prompt, its choices, and its target in bold."""
        from vislang.notebook import Html, block, text

        shown = [Html(document._repr_html_()) for document in (self.prompt, *self.choices)]
        if self.target is None:
            return block(*shown)
        answer = shown_answer(self.target) if isinstance(self.target, Box) else reference_text(self)
        if isinstance(self.target, Choice) and answer is None:
            answer = f"choice {self.target.index + 1}"
        return block(*shown, text(answer or "", strong=True))


def reference_text(example: Example) -> str | None:
    """The text that a model learns to generate for an example.

    This is the most frequent reference (the first of equally frequent ones), the answer with the highest score, the
    words of the label, the text of the correct choice, or a number in its shortest form. None for boxes, for choices
    without text, and without a target.
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


EDGES = ("left", "top", "right", "bottom")

KINDS_OF_SCORE = ("probability", "log_likelihood", "similarity")

Answer = str | int | float | Box | tuple[str, ...] | None


def shown_answer(answer: Answer) -> str:
    """An answer as text."""
    if isinstance(answer, Box):
        edges = (answer.left, answer.top, answer.right, answer.bottom)
        return f"{', '.join(f'{edge:.0f}' for edge in edges)} (left, top, right, bottom)"
    return f"{answer:.3f}" if isinstance(answer, float) else str(answer)


@dataclass(frozen=True)
class Prediction:
    """A model's answer to an example.

    Attributes:
        id: identifier of the example.
        answer: a text or label, the index of a choice, a number, a box, or a path as a tuple of viewpoints; None if the
            model gave no usable answer.
        candidates: the answers, labels, indices or boxes that the model chose from, if any.
        scores: the score of each candidate, higher is better.
        kind: the kind of score: ``probability``, ``log_likelihood`` or ``similarity``.
        prompt: the prompt as it was sent to the model, shots included, with the names of the media. If each choice or
            label has its own prompt, that of the answer.
        log_likelihood: of a generated text, in nats.
    """

    id: str
    answer: Answer
    candidates: tuple[str | int | Box, ...] = ()
    scores: tuple[float, ...] = ()
    kind: str = "probability"
    prompt: str = ""
    log_likelihood: float | None = None

    def as_record(self) -> dict[str, Any]:
        """The prediction as JSON values; :func:`prediction_from` reads them."""
        # The answer is written even if it is an empty text.
        found = {name: value for name, value in vars(self).items() if name == "answer" or value not in ((), "", None)}
        return {name: _plain(value) for name, value in found.items()}


def prediction_from(record: Mapping[str, Any]) -> Prediction:
    """Read what :meth:`Prediction.as_record` wrote.

    Raises:
        ValueError: the record is not a prediction.
    """
    for name in ("id", "answer"):
        if name not in record:
            raise ValueError(f'has no "{name}"')
    name, answer = record["id"], _answer(record["answer"])
    if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
        raise ValueError(f'"id" is {name!r}, not an identifier')
    given, scores = record.get("candidates", []), record.get("scores", [])
    if not isinstance(given, list) or not isinstance(scores, list) or len(given) != len(scores):
        raise ValueError('"candidates" and "scores" are not lists of the same length')
    candidates = tuple(_answer(value) for value in given)
    kind, prompt = record.get("kind", "probability"), record.get("prompt", "")
    if kind not in KINDS_OF_SCORE:
        raise ValueError(f'"kind" is {kind!r}, none of {", ".join(KINDS_OF_SCORE)}')
    return Prediction(
        str(name),
        answer,
        candidates,  # type: ignore[arg-type]  # no candidate is a path
        tuple(_number(score, "a score") for score in scores),
        kind,
        str(prompt),
        None if record.get("log_likelihood") is None else _number(record["log_likelihood"], "log_likelihood"),
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Box):
        return asdict(value)
    return [_plain(inner) for inner in value] if isinstance(value, tuple) else value


def _answer(value: Any) -> Answer:
    if isinstance(value, dict) and value.keys() == set(EDGES):
        return Box(**{edge: _number(value[edge], f'"{edge}"') for edge in EDGES})
    if isinstance(value, list) and all(isinstance(step, str) for step in value):
        return tuple(value)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        _number(value, "the answer")
        return value
    raise ValueError(f"{value!r} is not an answer")


def finite_number(value: Any) -> float | None:
    """A finite number as a float; None for any other value, such as NaN, true, or an integer too large for a float.

    >>> finite_number(2), finite_number(float("nan")), finite_number("2")
    (2.0, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value) if math.isfinite(value) else None
    except OverflowError:
        return None


def _number(value: Any, what: str) -> float:
    number = finite_number(value)
    if number is None:
        raise ValueError(f"{what} is {value!r}, not a finite number")
    return number
