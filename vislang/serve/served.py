"""A model that is served, and how it answers; every answer follows from the protocols of ``capabilities.py``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
    Ranks,
    Reads,
)
from vislang.document import Document
from vislang.evaluate.decide import decide_among
from vislang.evaluate.match import match
from vislang.example import Prediction
from vislang.serve.conversation import Conversation
from vislang.serve.errors import ApiError, unsupported
from vislang.serve.wire import now

Way = Literal["decide", "rank", "match", "generate"]


@dataclass(frozen=True)
class Served:
    """A model by its name.

    Attributes:
        name: the name by which clients ask for it.
        model: the model.
        created: when it was opened, in seconds since 1970.
    """

    name: str
    model: Any
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

    def prompt(self, conversation: Conversation) -> Document:
        """A conversation in the model's template; instructions come first."""
        document = self.model.prompts.render(conversation.question, conversation.shots)
        if not conversation.instructions:
            return document
        return replace(document, parts=(f"{conversation.instructions}\n", *document.parts))


class Progress(NamedTuple):
    """Generation so far: the tokens of the prompt, and the texts."""

    prompt_tokens: int
    texts: list[Continuation]


def generate(
    served: Served, conversation: Conversation, decoding: Decoding, top_tokens: int | None = None
) -> Iterator[Progress]:
    """Continue a conversation; yields after the prompt, and after each token.

    Raises:
        ApiError: the model generates no text.
        UserError: the prompt is too long, or an image cannot be decoded.
    """
    model = served.model
    if not isinstance(model, Continues):
        remedy = "; give allowed_answers to choose from" if served.matches else ""
        raise served.cannot(f"generates no text{remedy}")
    served.must_read(conversation)
    state = model.prefill(served.prompt(conversation))
    count = model.prompt_tokens(state)
    yield Progress(count, [])
    for texts in model.continuations(state, decoding, top_tokens):
        yield Progress(count, texts)


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
        (scores,) = model.rank([served.prompt(conversation)], [list(options)])
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
