"""The words around media: templates that turn a question or an image to caption into a Document.

The order matters. Text after the image can look at it, token by token, and learns to compare ("is it red?");
text before it is cheaper, since it is read once however many images it is asked of (see
``vislang.models.flamingo.frozen_text``), but all looking is then left to the few tokens that follow. The templates
here put the image first, as Flamingo does; docs/flamingo.md has the measured difference.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from vislang.document import Document, EndOfChunk, Image, Learned, Part, Video
from vislang.errors import UserError


@dataclass(frozen=True)
class Shot:
    """An example in the prompt: what is looked at (nothing, in an example of words alone), what was asked of it (if
    anything), and the answer."""

    image: Image | Video | None
    answer: str
    question: str | None = None


@dataclass(frozen=True)
class Prompts:
    """Templates with ``{image}`` once each and, to ask, ``{question}`` once.

    Attributes:
        question: asks something of an image.
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
            if sorted(_placeholders(template)) != needed:
                raise UserError(
                    f"prompts.{name} {template!r}: needs {' and '.join(f'{{{n}}}' for n in needed)}, once each."
                )

    def ask(
        self,
        image: Part,
        question: str | None = None,
        shots: Sequence[Shot] = (),
        name: str = "",
        learn_shots: bool = False,
    ) -> Document:
        """The prompt for one image: its question, or its caption where none is given, after any examples.

        With ``learn_shots`` the answers of the examples are to be learned too.
        """
        return Document([*self.examples(shots, learn_shots), *self._fill(image, question)], name=name)

    def examples(self, shots: Sequence[Shot], learned: bool = False) -> list[Part]:
        """What stands before a question: examples, each a chunk of its own."""
        parts: list[Part] = []
        for shot in shots:
            answer = shot.answer.strip()
            parts += self._fill(shot.image, shot.question)
            parts += [Learned(answer) if learned else f" {answer}", EndOfChunk()]
            parts += [self.separator] if self.separator else []
        return parts

    def _fill(self, image: Part | None, question: str | None) -> list[Part]:
        template = self.caption if question is None else self.question
        before, after = template.split("{image}")
        asked = "" if question is None else question.strip()
        texts = [before.replace("{question}", asked), after.replace("{question}", asked)]
        parts = [texts[0], image, texts[1]] if image is not None else texts
        return [part for part in parts if part != ""]


def _placeholders(template: str) -> list[str]:
    return re.findall(r"{(\w*)}", template)
