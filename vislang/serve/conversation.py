"""Messages to the examples and the question that a model reads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from vislang.document import Image, Part
from vislang.example import Example
from vislang.prompt import from_turns
from vislang.serve.errors import invalid
from vislang.serve.images import ImagePart
from vislang.serve.limits import Limits
from vislang.serve.wire import ImageUrl, ImageUrlPart, Message


@dataclass(frozen=True)
class Conversation:
    """A conversation.

    Attributes:
        instructions: the texts of system and developer messages.
        shots: user messages with their answers.
        question: the last message.
    """

    instructions: str
    shots: tuple[Example, ...]
    question: Example

    @property
    def images(self) -> tuple[Image, ...]:
        """The images of the question."""
        return tuple(medium for medium in self.question.media if isinstance(medium, Image))

    @property
    def media(self) -> frozenset[str]:
        """What the question consists of, as :meth:`vislang.capabilities.Reads.why_unreadable` takes it."""
        found = {"text"} if self.question.text else set()
        count = len(self.images)
        return frozenset(found | ({"image"} if count else set()) | ({"several images"} if count > 1 else set()))


def image_parts(messages: Sequence[Message]) -> list[ImagePart]:
    """The images of messages, in order."""
    found = []
    for number, message in enumerate(messages):
        for index, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if isinstance(part, ImageUrlPart):
                url = part.image_url.url if isinstance(part.image_url, ImageUrl) else part.image_url
                found.append(ImagePart(url, f"messages[{number}].content[{index}].image_url"))
    return found


def conversation_of(messages: Sequence[Message], images: Sequence[Image], limits: Limits) -> Conversation:
    """A conversation from its messages.

    Args:
        messages: instructions; then user messages, each with its answer; last a user message.
        images: those of :func:`image_parts`.
        limits: of the numbers of messages and characters.

    Raises:
        ApiError: messages are in another order, empty, too many or too long.
    """
    if len(messages) > limits.messages:
        raise invalid(f"{len(messages)} messages, and the limit is {limits.messages}.", "messages", "too_many_messages")
    left = iter(images)
    instructions: list[str] = []
    turns: list[tuple[str, list[Part]]] = []
    characters = 0
    for number, message in enumerate(messages):
        where = f"messages[{number}]"
        parts = _parts(message, left)
        characters += sum(len(part) for part in parts if isinstance(part, str))
        if characters > limits.characters:
            raise invalid(
                f"more than {limits.characters:,} characters of text. Shorten it.", where, "context_length_exceeded"
            )
        if message.role != "user" and any(isinstance(part, Image) for part in parts):
            raise invalid("images belong into messages of the role user.", where)
        if not any(isinstance(part, Image) or part.strip() for part in parts if isinstance(part, str | Image)):
            raise invalid("the message is empty.", where)
        if message.role in ("system", "developer"):
            if turns:
                raise invalid("instructions come before all other messages.", where)
            instructions += [part for part in parts if isinstance(part, str)]
        elif turns and turns[-1][0] == message.role:
            turns[-1] = (message.role, [*turns[-1][1], *parts])
        else:
            turns.append((message.role, parts))
    if not turns or turns[0][0] != "user" or turns[-1][0] != "user":
        raise invalid(
            "the first message after any instructions, and the last one, must have the role user.", "messages"
        )
    shots, question = from_turns(turns, "the last message")
    return Conversation("\n".join(instructions), shots, question)


def _parts(message: Message, images: Iterator[Image]) -> list[Part]:
    if isinstance(message.content, str):
        return [message.content]
    return [next(images) if isinstance(part, ImageUrlPart) else part.text for part in message.content]
