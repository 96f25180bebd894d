"""The alternatives of an example, each as a prompt and a text.

For a choice among answers, each answer follows the same prompt. For a choice among images or paths, the instruction
follows each of them. For a choice among pairs, the text of each pair follows its image. So all of them can be ranked by
the likelihood of a text, or by its similarity to an image.
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
    """An alternative.

    Attributes:
        answer: the answer that it stands for: the index of a choice, or a label.
        given: the prompt, as an example.
        text: the text whose likelihood after the prompt, or similarity to it, is its score.
    """

    answer: int | str
    given: Example
    text: str


def alternatives(example: Example, labels: Sequence[str] = ()) -> list[Alternative]:
    """The choices of an example, or the labels of its task, as alternatives.

    Raises:
        UserError: the example has no choices, and there are no labels.
    """
    if example.choices:
        return [_choice(example, index) for index in range(len(example.choices))]
    if not labels:
        raise UserError(f"{example.name}: has neither choices nor labels to choose from.")
    return [Alternative(label, example, example.wording.labels.get(label, label)) for label in labels]


def _choice(example: Example, index: int) -> Alternative:
    # The prompt and text that the example would have in training if this choice were correct.
    learned = as_generation(replace(example, target=Choice(index)))
    return Alternative(index, replace(learned, choices=(), target=None), reference_text(learned) or "")


def captions(example: Example, labels: Sequence[str] = ()) -> list[tuple[int | str, tuple[Image, ...], str]]:
    """The same for a model that compares images with texts: (answer, images, caption).

    The text of the prompt precedes each choice; labels are phrased by the task's captions.

    Raises:
        UserError: the example has no image.
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
    """The task's caption for a label."""
    known = example.wording.captions
    template = known.get(label, known.get("", "{label}"))
    return template.replace("{label}", label).replace("{text}", example.text).strip()


def _images(document: Document, example: Example) -> tuple[Image, ...]:
    images = tuple(medium for medium in document.media if isinstance(medium, Image))
    if not images:
        raise UserError(f"{example.name}: has no image to compare texts with.")
    return images
