"""The alternatives among which an example is decided, as pairs of something given and a text.

A choice among answers gives each answer after the same prompt; a choice among images or paths gives the instruction
after each of them; a choice among pairs gives the text of each pair after its image. So the likelihood of a text, or
its similarity to an image, decides them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.example import Choice, Example, reference_text
from vislang.prompt import as_generation


@dataclass(frozen=True)
class Alternative:
    """One of several.

    Attributes:
        answer: what is answered where it is the best: the index of a choice, or a label.
        given: what is given: an example to be rendered as a prompt.
        text: the text whose likelihood, or similarity to what is given, decides.
    """

    answer: int | str
    given: Example
    text: str


def alternatives(example: Example, labels: Sequence[str] = ()) -> list[Alternative]:
    """The choices of an example, or the labels of its task, in words.

    Raises:
        UserError: there is nothing to choose from.
    """
    if example.choices:
        return [_choice(example, index) for index in range(len(example.choices))]
    if not labels:
        raise UserError(f"{example.name}: has neither choices nor labels to decide among.")
    return [Alternative(label, example, example.wording.labels.get(label, label)) for label in labels]


def _choice(example: Example, index: int) -> Alternative:
    # As the example is learned from, were this choice the right one.
    learned = as_generation(replace(example, target=Choice(index)))
    return Alternative(index, replace(learned, choices=(), target=None), reference_text(learned) or "")


def captions(example: Example, labels: Sequence[str] = ()) -> list[tuple[int | str, tuple[Image, ...], str]]:
    """The same for a model that compares images with texts: (answer, images, caption).

    The text of a prompt stands before each choice; a label is put into words by the task's captions.

    Raises:
        UserError: there is no image to compare with.
    """
    found: list[tuple[int | str, tuple[Image, ...], str]] = []
    for index in range(len(example.choices)):
        document = example.with_choice(index)
        text = " ".join(part.strip() for part in document.parts if isinstance(part, str) and part.strip())
        found.append((index, _images(document, example), text))
    for label in () if example.choices else labels:
        found.append((label, _images(example.prompt, example), caption_of(example, label)))
    return found


def caption_of(example: Example, label: str) -> str:
    """The caption by which a task says a label."""
    known = example.wording.captions
    template = known.get(label, known.get("", "{label}"))
    return template.replace("{label}", label).replace("{text}", example.text).strip()


def _images(document: Document, example: Example) -> tuple[Image, ...]:
    images = tuple(medium for medium in document.media if isinstance(medium, Image))
    if not images:
        raise UserError(f"{example.name}: no image in it to compare a text with.")
    return images
