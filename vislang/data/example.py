"""Example: one record of any data set, before a prompt is put around it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from vislang.document import Document, Image, Part, Video
from vislang.prompt import Prompts, Shot


@dataclass(frozen=True)
class Example:
    """Something to learn from or to be tested on.

    Attributes:
        name: where it comes from, such as ``my.jsonl:12``.
        references: the accepted answers; none where nothing is asked.
        image: what is asked about, a video perhaps; None where ``parts`` says it all.
        question: what is asked; None asks for a caption.
        parts: text and media in full, where no template is to be put around them.
        shots: examples that always stand before it: they say what the answers mean.
    """

    name: str
    references: tuple[str, ...]
    image: Image | Video | None = None
    question: str | None = None
    parts: tuple[Part, ...] | None = None
    shots: tuple[Shot, ...] = ()

    def document(self) -> Document:
        """The record itself, without question or target."""
        parts = self.parts if self.parts is not None else (self.image,) if self.image is not None else ()
        return Document(parts, name=self.name)

    @property
    def target(self) -> str:
        """The answer to learn: the most frequent reference, the earlier of equals."""
        return Counter(self.references).most_common(1)[0][0]

    def prompt(self, prompts: Prompts, shots: Sequence[Shot] = ()) -> Document:
        """The document to be continued."""
        return self._after(prompts, shots, learn_shots=False)

    def lesson(self, prompts: Prompts, shots: Sequence[Shot] = ()) -> Document:
        """The document with its target, to learn from; so are the answers of examples before it."""
        return replace(self._after(prompts, shots, learn_shots=True), target=self.target)

    def _after(self, prompts: Prompts, shots: Sequence[Shot], learn_shots: bool) -> Document:
        shots = (*shots, *self.shots)
        if self.parts is not None:
            return Document([*prompts.examples(shots, learn_shots), *self.parts], name=self.name)
        assert self.image is not None
        return prompts.ask(self.image, self.question, shots, self.name, learn_shots)
