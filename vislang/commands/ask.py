"""``vislang ask``: one question about one image."""

from __future__ import annotations

from collections.abc import Sequence

from vislang.document import Image
from vislang.errors import UserError
from vislang.models.loading import load_generating
from vislang.prompt import Shot


def ask(model: str, image: str, question: str | None, shots: Sequence[Sequence[str]], max_new_tokens: int) -> int:
    """Print the answer; returns the exit status."""
    # Decode before the model is opened: a wrong path should not cost its loading time.
    picture = Image(image)
    examples = [parse_shot(path, text, question) for path, text in shots]
    for medium in (picture, *(shot.image for shot in examples)):
        medium.decode()
    print(load_generating(model).ask(picture, question, examples, max_new_tokens))
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
