"""A model that is served, and how it answers; every answer follows from the protocols of ``capabilities.py``."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

from vislang.capabilities import (
    Attends,
    Continuation,
    Continues,
    Decides,
    Decoding,
    Embeds,
    Explains,
    Matches,
    Prefix,
    Ranks,
    Reads,
)
from vislang.document import Document, Part
from vislang.evaluate.decide import decide_among
from vislang.evaluate.match import match
from vislang.example import Prediction
from vislang.serve.conversation import Conversation
from vislang.serve.errors import ApiError, unsupported
from vislang.serve.reader import Reader
from vislang.serve.wire import now

Way = Literal["decide", "rank", "match", "generate"]


@dataclass(frozen=True)
class Served:
    """A model by its name.

    Attributes:
        name: the name by which clients ask for it.
        model: the model.
        pack: examples that precede every prompt.
        reader: what the requests to the model share; the server sets it.
        created: when it was opened, in seconds since 1970.
    """

    name: str
    model: Any
    pack: Prefix | None = None
    reader: Reader | None = None
    created: int = field(default_factory=now)

    @property
    def matches(self) -> bool:
        """Whether the model compares images with texts."""
        return isinstance(self.model, Matches) and self.model.why_unmatched() is None

    @property
    def kinds(self) -> set[str]:
        """The kinds of target that the model's heads predict."""
        return set(self.model.heads.values()) if isinstance(self.model, Decides) else set()

    @property
    def abilities(self) -> list[str]:
        """What the model can do, as the last parts of the endpoints."""
        can = {
            "chat/completions": isinstance(self.model, Continues) or self.matches or bool(self.kinds - {"box"}),
            "embeddings": isinstance(self.model, Embeds),
            "rerank": self.matches or isinstance(self.model, Embeds | Ranks),
            "answer": isinstance(self.model, Continues) or self.matches or bool(self.kinds),
            "ground": "box" in self.kinds,
            "explain": isinstance(self.model, Attends) or (isinstance(self.model, Explains) and bool(self.kinds)),
        }
        return [name for name, able in can.items() if able]

    def cannot(self, what: str, param: str | None = "model") -> ApiError:
        """The error for something that the model cannot do."""
        can = ", ".join(f"/v1/{ability}" for ability in self.abilities)
        return unsupported(f"{self.name}: a {type(self.model).__name__} {what}. It answers {can}.", param)

    def must_read(self, conversation: Conversation) -> None:
        """Raise an error where the model cannot read the question."""
        reason = self.model.why_unreadable(conversation.media) if isinstance(self.model, Reads) else None
        if reason is not None:
            raise self.cannot(reason, "messages")
        if not isinstance(self.model, Continues) and (conversation.shots or conversation.instructions):
            raise self.cannot("reads the last message only, no examples and no instructions", "messages")
        if self.pack is not None and conversation.instructions:
            raise self.cannot("begins with the examples of a pack, so there can be no instructions", "messages")

    def prompt(self, conversation: Conversation) -> Document:
        """A conversation in the model's template; instructions come first, or the examples of the pack."""
        packed = self.pack is not None
        document = self.model.prompts.render(conversation.question, conversation.shots, after_shots=packed)
        first: tuple[Part, ...] = self.pack.document.parts if self.pack is not None else ()
        if conversation.instructions:
            first = (f"{conversation.instructions}\n",)
        return replace(document, parts=(*first, *document.parts))


class Progress(NamedTuple):
    """Generation so far: the tokens of the prompt, and the texts."""

    prompt_tokens: int
    texts: list[Continuation]

    @property
    def over(self) -> bool:
        """Whether all texts are complete."""
        return bool(self.texts) and all(text.finish is not None for text in self.texts)


def generate(
    served: Served, conversation: Conversation, decoding: Decoding, top_tokens: int | None = None
) -> Generator[Progress | None, None, Progress]:
    """Continue a conversation; yields None before the prompt is read, then after the prompt and after each token, and
    returns the last.

    Raises:
        ApiError: the model generates no text.
        UserError: the prompt is too long, or an image cannot be decoded.
    """
    model = served.model
    if not isinstance(model, Continues):
        remedy = "; give allowed_answers to choose from" if served.matches else ""
        raise served.cannot(f"generates no text{remedy}")
    served.must_read(conversation)
    assert served.reader is not None
    state = yield from served.reader.read(served.prompt(conversation))
    progress = Progress(model.prompt_tokens(state), [])
    yield progress
    for texts in served.reader.together.continuations(state, decoding, top_tokens):
        progress = progress._replace(texts=texts)
        if progress.over:
            break
        yield progress
    return progress


class Answered(NamedTuple):
    """An answer, and how it was found."""

    way: Way
    prediction: Prediction


def answer(
    served: Served, conversation: Conversation, options: Sequence[str] | None = None, head: str | None = None
) -> Answered:
    """An answer that needs no generation: of a head, or one of some options by likelihood or similarity.

    Raises:
        ApiError: the model cannot answer in this way.
        UserError: it has no such head, or several; or an image cannot be decoded.
    """
    model = served.model
    served.must_read(conversation)
    if served.kinds:
        return Answered("decide", _decided(served, conversation, options, head))
    if head is not None:
        raise served.cannot("has no heads", "head")
    if options is None:
        raise served.cannot("answers only with options to choose from", "options")
    if isinstance(model, Ranks):
        state, prompt = None, served.prompt(conversation)
        if served.reader is not None:
            state, prompt = served.reader.resume(prompt)
        (scores,) = model.rank([prompt], [list(options)], state=state)
        likelihoods = tuple(score.log_likelihood for score in scores)
        best = options[max(range(len(options)), key=lambda number: likelihoods[number])]
        return Answered("rank", Prediction("question", best, tuple(options), likelihoods, "log_likelihood"))
    if served.matches:
        (prediction,) = match(model, [conversation.question], options)
        return Answered("match", prediction)
    raise served.cannot("does not choose among options")


def _decided(served: Served, conversation: Conversation, options: Sequence[str] | None, head: str | None) -> Prediction:
    """The answer of a head; among options, if there are any."""
    model = served.model
    # Without a name: the only head for this kind of question, or the only one at all.
    fitting = [name for name, kind in model.heads.items() if head in (name, None)]
    if options is None:
        fitting = [name for name in fitting if model.heads[name] not in ("choice", "box")] or fitting
    else:
        fitting = [name for name in fitting if model.heads[name] in ("answers", "label", "choice")] or fitting
    if len(fitting) != 1:
        known = ", ".join(f"{name} ({kind})" for name, kind in model.heads.items())
        raise served.cannot(f"has the heads {known}; choose one with the field head", "head")
    (name,) = fitting
    if options is not None:
        return decide_among(model, conversation.question, options, name)
    if model.heads[name] == "choice":
        raise served.cannot(f"has a head {name} that chooses among given options", "options")
    (prediction,) = model.decide([conversation.question], name)
    return prediction
