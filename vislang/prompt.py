"""Templates: an Example becomes the Document that a generating model continues.

A task phrases its question (:class:`~vislang.example.Wording`); a model puts its own template around media and
question. The order matters. Text after an image can attend to it token by token, and learns to compare ("is it red?").
Text before an image is cheaper, since it is read once for any number of images, but all attention is then left to the
few tokens that follow. The default templates put the image first, as Flamingo does.
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
    """Templates with ``{image}`` once each and, to ask, ``{question}`` once.

    Attributes:
        question: asks something of an image; all media of an example stand where ``{image}`` does, in their order.
        caption: asks for the text that goes with an image.
        separator: stands between an example, which ends its chunk, and what follows it.

    Raises:
        UserError: a template has other placeholders than these.
    """

    question: str = "{image}Question: {question} Answer:"
    caption: str = "{image}Caption:"
    separator: str = ""

    def __post_init__(self):
        for name, needed in (("question", ["image", "question"]), ("caption", ["image"])):
            template = getattr(self, name)
            if sorted(re.findall(r"{(\w*)}", template)) != needed:
                raise UserError(
                    f"prompts.{name} {template!r}: needs {' and '.join(f'{{{n}}}' for n in needed)}, once each."
                )

    def render(self, example: Example, shots: Sequence[Example] = (), learn: bool = False) -> Document:
        """The prompt for one example, after any shots: those that are given, and then its own.

        Args:
            example: what is asked. One whose choices hold media is rendered by :func:`as_generation`. One without media
                is rendered without an image, as the text-only shots of Flamingo's zero-shot prompts are.
            shots: examples with their answers.
            learn: the document carries its target (:func:`~vislang.example.reference_text`), and the answers of the
                shots are Learned parts. Otherwise it is to be continued.
        """
        example = as_generation(example)
        own = example.prompt if learn else example.prompt.without_target()
        parts = [*self.examples([*shots, *example.shots], learn), *self._ask(example, own)]
        target = reference_text(example) if learn else None
        return replace(own, parts=tuple(parts), target=target, name=example.name)

    def examples(self, shots: Sequence[Example], learned: bool = False) -> list[Part]:
        """Shots as they stand before a question, each a chunk of its own.

        Raises:
            UserError: a shot whose answer is unknown, or is not a text.
        """
        parts: list[Part] = []
        for shot in map(as_generation, shots):
            answer = reference_text(shot)
            if answer is None:
                raise UserError(f"{shot.name}: has no answer in words, so it cannot be an example in a prompt.")
            answer = answer.strip()
            parts += self._ask(shot, shot.prompt if learned else shot.prompt.without_target())
            parts += [Learned(answer) if learned else f" {answer}", EndOfChunk()]
            parts += [self.separator] if self.separator else []
        return parts

    def _ask(self, example: Example, prompt: Document) -> list[Part]:
        """The example's own prompt in its template."""
        if example.wording.verbatim:
            return list(prompt.parts)
        media = [part for part in prompt.parts if isinstance(part, Medium | Absent)]
        question = question_of(example)
        before, after = (self.question if question else self.caption).split("{image}")
        before, after = (text.replace("{question}", question) for text in (before, after))
        return [part for part in (before, *media, after) if part != ""]


def as_generation(example: Example) -> Example:
    """An example whose choices hold media (paths for an instruction, images for a caption) as one of writing.

    The media of the right choice become the prompt, and the text becomes what is to be written. Other examples, and
    those whose right choice is unknown, stay as they are. To compare the choices, give each as the right one.
    """
    target = example.target
    if not isinstance(target, Choice) or not example.choices[target.index].media:
        return example
    whole = example.with_choice(target.index)
    media = Document([part for part in whole.parts if isinstance(part, Medium)], name=example.name)
    text = replace(example, prompt=whole).text
    return replace(example, prompt=media, target=Text((text,)), choices=(), wording=PLAIN)


def question_of(example: Example) -> str:
    """What is asked in words: the task's question, filled with the prompt's text; empty where a caption is wanted."""
    question = example.wording.question
    return example.text if question is None else question.replace("{text}", example.text)


def shown(document: Document) -> str:
    """A document as one line of text, for a record of what a model was sent.

    Media appear as ``<image: NAME>``, media that were taken away as ``<absent>``, and ends of chunks as ``<end>``.

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
