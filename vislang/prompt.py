"""Templates: an Example becomes the Document that a generating model continues.

The task phrases the question (:class:`~vislang.example.Wording`); the model puts its template around media and
question. The order matters. Every token of a text after an image can attend to it, so the model learns to compare the
two ("is it red?"). Text before an image is cheaper, because it is read once for any number of images, but then only the
few tokens after the image can attend to it. The default templates put the image first, as Flamingo does.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vislang.document import Absent, Document, EndOfChunk, Learned, Medium, Part, set_off
from vislang.errors import UserError
from vislang.example import PLAIN, Choice, Example, Text, reference_text


@dataclass(frozen=True)
class Prompts:
    """The templates of a model. Each contains ``{image}`` once; ``question`` also contains ``{question}`` once.

    Attributes:
        question: template for a question. ``{image}`` is replaced by all media of the example, in order.
        caption: template for a caption.
        separator: text between an example of the prompt and what follows it.

    Raises:
        UserError: a template has other placeholders.
    """

    question: str = "{image}Question: {question} Answer:"
    caption: str = "{image}Caption:"
    separator: str = ""

    def __post_init__(self):
        for name, needed in (("question", ["image", "question"]), ("caption", ["image"])):
            template = getattr(self, name)
            if sorted(re.findall(r"{(\w*)}", template)) != needed:
                raise UserError(
                    f"prompts.{name} {template!r}: must contain {' and '.join(f'{{{n}}}' for n in needed)} once."
                )

    def render(
        self, example: Example, shots: Sequence[Example] = (), learn: bool = False, after_shots: bool = False
    ) -> Document:
        """The prompt for one example, preceded by ``shots`` and by the example's own shots.

        Args:
            example: the example. If its choices contain media, it is converted by :func:`as_generation`.
            shots: examples with their answers.
            learn: for training: add the target (:func:`~vislang.example.reference_text`), and mark the answers of the
                shots as Learned. Otherwise the document is a prompt.
            after_shots: whether the document follows one of :meth:`examples`.
        """
        example = as_generation(example)
        own = example.prompt if learn else example.prompt.without_target()
        shown, between = self.examples([*shots, *example.shots], learn), self._between
        parts = [*(between if after_shots else []), *shown, *(between if shown else []), *self._ask(example, own)]
        target = reference_text(example) if learn else None
        return replace(own, parts=tuple(parts), target=target, name=example.name)

    def examples(self, shots: Sequence[Example], learned: bool = False) -> list[Part]:
        """Shots as the parts of a prompt, each ended by an EndOfChunk.

        Raises:
            UserError: a shot has no answer in words.
        """
        parts: list[Part] = []
        for shot in map(as_generation, shots):
            answer = reference_text(shot)
            if answer is None:
                raise UserError(f"{shot.name}: cannot be an example in a prompt, because it has no answer in words.")
            answer = answer.strip()
            parts += self._between if parts else []
            parts += self._ask(shot, shot.prompt if learned else shot.prompt.without_target())
            parts += [Learned(answer) if learned else f" {answer}", EndOfChunk()]
        return parts

    @property
    def _between(self) -> list[Part]:
        """What separates an example from what follows it."""
        return [self.separator] if self.separator else []

    def _ask(self, example: Example, prompt: Document) -> list[Part]:
        """The example's prompt in the model's template."""
        if example.wording.verbatim:
            return list(prompt.parts)
        media = [part for part in prompt.parts if isinstance(part, Medium | Absent)]
        question = question_of(example)
        before, after = (self.question if question else self.caption).split("{image}")
        before, after = (text.replace("{question}", question) for text in (before, after))
        return [part for part in (before, *media, after) if part != ""]


def from_turns(turns: Sequence[tuple[str, Sequence[Part]]], name: str) -> tuple[tuple[Example, ...], Example]:
    """A conversation as examples with their answers, and a question.

    Args:
        turns: the role of each turn, ``user`` and ``assistant`` by turns, and its parts; the last one asks.
        name: the name of the question in messages.

    Raises:
        UserError: the roles are in another order, or a turn is empty.
    """
    roles = [role for role, _ in turns]
    if not roles or roles != [("user", "assistant")[number % 2] for number in range(len(roles))] or len(roles) % 2 == 0:
        raise UserError(
            f"{name}: the turns have the roles {', '.join(roles) or 'none'}; user and assistant must take turns, and "
            "user must have the first and the last one."
        )
    if not all(any(not isinstance(part, str) or part.strip() for part in parts) for _, parts in turns):
        raise UserError(f"{name}: a turn is empty.")
    shots = tuple(
        Example(f"example {number}", Document(asked), Text((_words(answer),)))
        for number, ((_, asked), (_, answer)) in enumerate(zip(turns[:-1:2], turns[1::2], strict=True), start=1)
    )
    return shots, Example("question", Document(turns[-1][1], name=name), source=name)


def _words(parts: Sequence[Part]) -> str:
    return " ".join(part.strip() for part in parts if isinstance(part, str) and part.strip())


def as_generation(example: Example) -> Example:
    """Turn a choice among media (paths for an instruction, images for a caption) into an example of generation.

    The media of the correct choice become the prompt, and the text becomes the target. Other examples, and those
    without a target, are returned unchanged. To rank the choices, call this once with each choice as the target.
    """
    target = example.target
    if not isinstance(target, Choice) or not example.choices[target.index].media:
        return example
    whole = example.with_choice(target.index)
    media = Document([part for part in whole.parts if isinstance(part, Medium)], name=example.name)
    text = replace(example, prompt=whole).text
    return replace(example, prompt=media, target=Text((text,)), choices=(), wording=PLAIN)


def question_of(example: Example) -> str:
    """The question: the task's question with the text of the prompt in it; empty if a caption is asked for."""
    question = example.wording.question
    return example.text if question is None else question.replace("{text}", example.text)


def shown(document: Document) -> str:
    """A document as one line of text, to record the prompt of a prediction.

    Media are written as ``<image: NAME>``, removed media as ``<absent>``, and ends of chunks as ``<end>``.

    >>> shown(Document(["a\\nb", EndOfChunk(), Absent(), Learned("red")]))
    'a\\\\nb<end><absent> red'
    """
    shown_parts: list[str] = []
    before: Part | None = None
    for part in document.parts:
        if isinstance(part, str):
            shown_parts.append(part)
        elif isinstance(part, Learned):
            shown_parts.append(set_off(part.text, before))
        elif isinstance(part, EndOfChunk):
            shown_parts.append("<end>")
        elif isinstance(part, Absent):
            shown_parts.append("<absent>")
        else:
            shown_parts.append(f"<{type(part).__name__.lower()}: {part.name.strip('<>')}>")
        before = part
    return "".join(shown_parts).replace("\n", "\\n")
