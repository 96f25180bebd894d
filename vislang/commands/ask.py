"""``vislang ask``: one question about one image or video."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vislang.capabilities import Generates, OldDecides
from vislang.case import Case
from vislang.commands.deciding import told
from vislang.document import Document, Image, Video
from vislang.errors import UserError
from vislang.models.flamingo.decoding import Decoding
from vislang.models.flamingo.model import Flamingo
from vislang.models.loading import load
from vislang.prompt import Shot

VIDEOS = (".mp4", ".webm", ".mkv", ".mov", ".avi", ".m4v", ".ogv", ".mpg", ".mpeg")
"""Endings of the names of videos; everything else is an image."""


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        medium: path of an image or a video.
        question: None asks for a caption.
        shots: pairs (path, text) of examples.
        options: the only answers there are, two or more; they are ranked by likelihood. None lets the model write.
        drop_examples: leave the first examples out where they are more than the language model's context holds.
    """

    medium: str
    question: str | None
    shots: Sequence[Sequence[str]]
    options: tuple[str, ...] | None = None
    drop_examples: bool = False


def ask(model: str, asked: Question, decoding: Decoding) -> int:
    """Print the answer, or several answers in lines; returns the exit status.

    A model that decides answers from its vocabulary, or points: then its box is printed, in pixels.

    Raises:
        UserError: the model cannot do what is asked.
        MediaError: an image cannot be used.
    """
    if asked.options is not None and len(set(asked.options)) < max(2, len(asked.options)):
        raise UserError('--options: give at least two different answers, such as --options "cat,dog".')
    # Decode before the model is opened: a wrong path should not cost its loading time.
    medium = medium_of(asked.medium)
    examples = [parse_shot(path, text, asked.question) for path, text in asked.shots]
    for each in (medium, *(shot.image for shot in examples)):
        if isinstance(each, Video):
            each.decode(max_frames=1)
        elif each is not None:
            each.decode()
    opened = load(model)
    if isinstance(opened, OldDecides):
        if asked.question is None or examples or isinstance(medium, Video):
            raise UserError(f"{model}: decides on an image and a text, without examples; name the text.")
        case = Case(asked.medium, (Document([medium, asked.question], name=asked.medium),))
        case = dataclasses.replace(case, task=opened.head_for(case))
        (decision,) = opened.decide([case])
        print(told(decision))
        return 0
    if not isinstance(opened, Generates):
        raise UserError(f"{model}: is a {type(opened).__name__}, which neither generates text nor decides.")
    assert isinstance(opened, Flamingo)
    _write(opened, opened.prompts.ask(medium, asked.question, examples, name=asked.medium), asked, decoding)
    return 0


def _write(model: Flamingo, prompt: Document, asked: Question, decoding: Decoding) -> None:
    if asked.drop_examples:
        model.collate.config = dataclasses.replace(model.collate.config, too_long="drop")
    if asked.options is not None:
        (scores,) = model.rank([prompt], asked.options)
        likely = torch.tensor([score.log_likelihood for score in scores]).softmax(dim=0)
        for place in likely.argsort(descending=True).tolist():
            print(f"{likely[place]:.3f}  {asked.options[place]}")
        return
    if decoding.beams == 1 and decoding.returns == 1:
        for piece in model.stream(prompt, decoding):
            print(piece, end="", flush=True)
        print()
        return
    (texts,) = model.write([prompt], decoding)
    for text in texts:
        print(text.text)


def medium_of(path: str) -> Image | Video:
    """A video where the name ends like one's, else an image."""
    return Video(path) if Path(path).suffix.lower() in VIDEOS else Image(path)


def parse_shot(path: str, text: str, question: str | None) -> Shot:
    """An example from the command line: ``question? answer``, or an answer to the question that is asked.

    >>> parse_shot("a.png", "what shape is it? circle", "what color is it?").answer
    'circle'

    Raises:
        UserError: there is no answer in the text.
    """
    own, mark, answer = text.rpartition("?")
    shot = Shot(medium_of(path), answer.strip(), f"{own.strip()}?" if mark else question)
    if not shot.answer:
        raise UserError(f'--shot {path} "{text}": no answer in it. Write "question? answer", or the answer alone.')
    return shot
