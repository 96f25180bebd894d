"""``vislang ask``: one question about one image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from vislang.capabilities import Decides, Generates
from vislang.case import Case
from vislang.commands.deciding import told
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.models.loading import load
from vislang.prompt import Shot


def ask(model: str, image: str, question: str | None, shots: Sequence[Sequence[str]], max_new_tokens: int) -> int:
    """Print the answer; returns the exit status.

    A model that decides answers from its vocabulary, or points: then its box is printed, in pixels.

    Raises:
        UserError: the model cannot do what is asked.
        MediaError: an image cannot be used.
    """
    # Decode before the model is opened: a wrong path should not cost its loading time.
    picture = Image(image)
    examples = [parse_shot(path, text, question) for path, text in shots]
    for medium in (picture, *(shot.image for shot in examples)):
        assert medium is not None
        medium.decode()
    opened = load(model)
    if isinstance(opened, Decides):
        if question is None or examples:
            raise UserError(f"{model}: decides on an image and a text, without examples; name the text.")
        case = Case(image, (Document([picture, question], name=image),))
        case = dataclasses.replace(case, task=opened.head_for(case))
        (decision,) = opened.decide([case])
        print(told(decision))
        return 0
    if not isinstance(opened, Generates):
        raise UserError(f"{model}: is a {type(opened).__name__}, which neither generates text nor decides.")
    print(opened.ask(picture, question, examples, max_new_tokens))  # type: ignore[attr-defined]
    return 0


def parse_shot(path: str, text: str, question: str | None) -> Shot:
    """An example from the command line: ``question? answer``, or an answer to the question that is asked.

    >>> parse_shot("a.png", "what shape is it? circle", "what color is it?").answer
    'circle'

    Raises:
        UserError: there is no answer in the text.
    """
    own, mark, answer = text.rpartition("?")
    shot = Shot(Image(path), answer.strip(), f"{own.strip()}?" if mark else question)
    if not shot.answer:
        raise UserError(f'--shot {path} "{text}": no answer in it. Write "question? answer", or the answer alone.')
    return shot
