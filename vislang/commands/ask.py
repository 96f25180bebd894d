"""``vislang ask``: one question about one image or video."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vislang.boxes import Box
from vislang.commands.options import optional_positional, positional, repeated
from vislang.data.files import MEDIA
from vislang.document import Document, Image, Video
from vislang.errors import UserError
from vislang.example import Answer, Answers, Example

WRITING = (
    "shot",
    "max_new_tokens",
    "temperature",
    "top_k",
    "top_p",
    "seed",
    "beams",
    "length_penalty",
    "returns",
    "stop",
    "drop_examples",
)
"""Options that only a model that writes uses."""


@dataclass(frozen=True)
class Ask:
    """Ask a model about an image or a video; without a question, the image is captioned.

    Attributes:
        model: folder of a model, or a Hub id
        image: path of an image or a video
        question: what to ask
        shot: an example to learn from: "question? answer", or the answer to the same question
        options: the only answers, with commas between them; they are ranked
        head: of a model with several heads: which of them answers
        max_new_tokens: longest answer
        temperature: draw tokens; 0 takes the most likely one
        top_k: draw among the K most likely tokens; 0 for all
        top_p: draw among the most likely tokens that together have this probability
        seed: of what is drawn
        beams: follow so many of the most likely texts
        length_penalty: rank beams by likelihood over length to this power
        returns: so many answers, one a line
        stop: text that ends an answer
        drop_examples: leave the first examples out where there is no room for all
    """

    model: str = positional()
    image: str = positional()
    question: str | None = optional_positional()
    shot: list[list[str]] = repeated("IMAGE", "TEXT")
    options: str | None = None
    head: str | None = None
    max_new_tokens: int = 20
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0
    beams: int = 1
    length_penalty: float = 1.0
    returns: int = 1
    stop: list[str] = repeated("TEXT")
    drop_examples: bool = False

    def run(self) -> int:
        """Print the answer, or several answers in lines; returns 0.

        Raises:
            UserError: the model cannot do what is asked.
            MediaError: an image cannot be used.
        """
        options = self._options()
        # Whatever needs no model is checked before one is opened, which takes seconds.
        example = Example(self.image, Document(self._parts(), name=self.image), source=self.image)
        shots = [shot_of(path, text, self.question) for path, text in self.shot]
        for medium in (m for e in (example, *shots) for m in e.media):
            medium.decode(max_frames=1) if isinstance(medium, Video) else medium.decode()  # type: ignore[attr-defined]
        from vislang.capabilities import Decides, Generates
        from vislang.models.flamingo.decoding import Decoding
        from vislang.models.loading import load

        decoding = Decoding(
            self.max_new_tokens,
            self.temperature,
            self.top_k,
            self.top_p,
            self.beams,
            self.length_penalty,
            self.returns,
            tuple(self.stop),
            self.seed,
        )
        model = load(self.model)
        if isinstance(model, Generates):
            if self.head is not None:
                raise UserError(f"--head: {self.model} writes its answers and has no heads; leave it out.")
            self._write(model, model.prompts.render(example, shots), options, decoding)
            return 0
        if not isinstance(model, Decides):
            raise UserError(f"{self.model}: is a {type(model).__name__}, which neither generates text nor decides.")
        self._decide(model, example, options)
        return 0

    def _parts(self) -> list[Any]:
        return [medium_of(self.image), *([] if self.question is None else [whole(self.question, "the question")])]

    def _options(self) -> tuple[str, ...] | None:
        if self.options is None:
            return None
        found = tuple(option.strip() for option in self.options.split(",") if option.strip())
        if len(set(found)) < max(2, len(found)):
            raise UserError('--options: give at least two different answers, such as --options "cat,dog".')
        return found

    def _decide(self, model: Any, example: Example, options: tuple[str, ...] | None) -> None:
        """One decision; its alternatives where some were named."""
        given = [name for name in WRITING if getattr(self, name) != Ask.__dataclass_fields__[name].default]
        ignored = [f"--{name.replace('_', '-')}" for name in given if getattr(self, name)]
        if ignored:
            raise UserError(f"{', '.join(ignored)}: {self.model} decides and writes nothing; leave them out.")
        if isinstance(example.media[0], Video):
            raise UserError(f"{self.image}: a video, and {self.model} reads images.")
        head = self.head or only_head(model, self.model)
        (prediction,) = model.decide([example], head)
        if options is None:
            print(shown_answer(prediction.answer))
            return
        scores = dict(zip(map(str, prediction.candidates), prediction.scores, strict=True))
        unknown = [option for option in options if option not in scores]
        if unknown:
            raise UserError(f"--options: {self.model} does not know {', '.join(unknown)} (head {head}).")
        for option in sorted(options, key=lambda option: -scores[option]):
            print(f"{scores[option] / max(sum(scores[o] for o in options), 1e-12):.3f}  {option}")

    def _write(self, model: Any, prompt: Document, options: tuple[str, ...] | None, decoding: Any) -> None:
        if self.drop_examples:
            model.drop_examples()
        if options is not None:
            (scores,) = model.rank([prompt], options)
            top = max(score.log_likelihood for score in scores)
            shares = [math.exp(score.log_likelihood - top) for score in scores]
            for share, option in sorted(zip(shares, options, strict=True), reverse=True):
                print(f"{share / sum(shares):.3f}  {option}")
            return
        if decoding.beams == 1 and decoding.returns == 1:
            for piece in model.stream(prompt, decoding):
                print(piece, end="", flush=True)
            print()
            return
        (texts,) = model.complete([prompt], decoding)
        for text in texts:
            print(text.text)


def medium_of(path: str) -> Image | Video:
    """A video where the name ends like one's, else an image."""
    return Video(path) if MEDIA.get(Path(path).suffix.lower()) is Video else Image(path)


def whole(text: str, what: str) -> str:
    """A text from the command line.

    Raises:
        UserError: it is empty, or was not UTF-8.
    """
    if not text.strip():
        raise UserError(f"{what} is empty. Write something in it.")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise UserError(f"{what} is not valid UTF-8. Type it again in a terminal that is set to UTF-8.")
    return text


def shot_of(path: str, text: str, question: str | None) -> Example:
    """An example from the command line: ``question? answer``, or an answer to the question that is asked.

    >>> shot_of("a.png", "what shape is it? circle", "what color is it?").target
    Answers(scores={'circle': 1.0})

    Raises:
        UserError: there is no answer in the text.
    """
    own, mark, answer = text.rpartition("?")
    if not answer.strip():
        raise UserError(f'--shot {path} "{text}": no answer in it. Write "question? answer", or the answer alone.')
    asked = f"{own.strip()}?" if mark else question
    parts = [medium_of(path), *([] if asked is None else [whole(asked, f"--shot {path}: the question")])]
    return Example(path, Document(parts, name=path), Answers({whole(answer.strip(), "the answer"): 1.0}), source=path)


def only_head(model: Any, name: str) -> str:
    """The head of a model that has one.

    Raises:
        UserError: it has several; the message lists them.
    """
    if len(model.heads) == 1:
        return next(iter(model.heads))
    known = ", ".join(f"{head} ({kind})" for head, kind in model.heads.items())
    raise UserError(f"--head: {name} has the heads {known}; name one.")


def shown_answer(answer: Answer) -> str:
    """An answer for a reader."""
    if isinstance(answer, Box):
        edges = (answer.left, answer.top, answer.right, answer.bottom)
        return f"{', '.join(f'{edge:.0f}' for edge in edges)} (left, top, right, bottom)"
    return f"{answer:.3f}" if isinstance(answer, float) else str(answer)
