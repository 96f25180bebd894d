"""``vislang ask --server`` and ``vislang embed --server``: a running server has the model."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from vislang.boxes import Box
from vislang.capabilities import Decoding, Progress
from vislang.commands.options import Command, given
from vislang.document import Document
from vislang.errors import UserError
from vislang.example import Example, Prediction, reference_text
from vislang.serve.client import Client, ServedModel, embedding_input, message

if TYPE_CHECKING:
    import numpy as np

TOKEN = "VISLANG_TOKEN"
"""The environment variable that can hold the token: other users of a machine see its command lines."""

AT_ONCE = 16
"""Most inputs of an embeddings request; servers take up to 32 images by default."""

REQUEST_BYTES = 8 * 2**20
"""An embeddings request gets no further input from this size on; servers take 20 MiB by default."""


class ByServer(Command, Protocol):
    """A verb that can use a server."""

    @property
    def server(self) -> str | None:
        """The address of the server."""
        ...

    @property
    def token(self) -> str | None:
        """Its token."""
        ...


def token_of(given_token: str | None) -> str | None:
    """The token of a server: that of the option, or else of the variable ``VISLANG_TOKEN``; None if there is none.

    Raises:
        UserError: it cannot be sent in a header.
    """
    token = os.environ.get(TOKEN) if given_token is None else given_token
    if token is not None and (not token or not token.isascii() or not token.isprintable() or " " in token):
        raise UserError("--token: give one or more printable ASCII characters without spaces.")
    return token


def connected(command: ByServer, ignored: Iterable[str]) -> Client | None:
    """The server that a verb names; None if it names none.

    Args:
        command: the verb.
        ignored: options that have no effect on a server.

    Raises:
        UserError: one of these is given, or the address or the token cannot be used.
    """
    if command.server is None:
        if command.token is not None:
            raise UserError("--token: only used together with --server.")
        return None
    if useless := given(command, ignored):
        raise UserError(f"{useless}: not possible together with --server. Leave it out, or open the model here.")
    return Client(command.server, token_of(command.token))


def choose(
    client: Client,
    model: ServedModel,
    example: Example,
    shots: Sequence[Example] = (),
    options: Sequence[str] | None = None,
    head: str | None = None,
) -> Prediction:
    """The answer of a head, or one of some options, with the score of each.

    Args:
        client: the server.
        model: one of its models.
        example: the question.
        shots: examples with their answers, for a model that generates text.
        options: possible answers; None for the head's own answer.
        head: which head answers; None for a model that generates text.

    Raises:
        UserError: the server refuses the request, or an image or video cannot be sent.
    """
    body = {"model": model.name, "messages": _messages(example, shots), "options": options, "head": head}
    reply = client.post("/v1/answer", {name: value for name, value in body.items() if value is not None})
    scores = {} if options is None else {found["answer"]: found["score"] for found in reply["candidates"]}
    answer = Box(**reply["answer"]) if isinstance(reply["answer"], dict) else reply["answer"]
    return Prediction(example.id, answer, tuple(scores), tuple(scores.values()), reply["score_kind"])


def generate(
    client: Client, model: ServedModel, example: Example, shots: Sequence[Example], decoding: Decoding
) -> Iterator[str]:
    """The pieces of an answer, while it is generated; or several answers, each with a line end.

    Raises:
        UserError: the server refuses the request, or an image or video cannot be sent.
    """
    if decoding.max_new_tokens > model.max_tokens:
        raise UserError(
            f"--max-new-tokens {decoding.max_new_tokens}: {client.address} generates at most {model.max_tokens}."
        )
    body: dict[str, Any] = {
        "model": model.name,
        "messages": _messages(example, shots),
        "max_tokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "top_k": decoding.top_k,
        "top_p": decoding.top_p,
        "seed": decoding.seed,
        "stop": list(decoding.stop),
    }
    if decoding.returns == 1:
        yield from client.stream(body)
        yield "\n"
        return
    for choice in client.post("/v1/chat/completions", {**body, "n": decoding.returns})["choices"]:
        yield f"{choice['message']['content']}\n"


def _messages(example: Example, shots: Sequence[Example]) -> list[dict[str, Any]]:
    """A question after examples, as a conversation."""
    turns = []
    for shot in shots:
        turns += [message(shot.prompt), {"role": "assistant", "content": reference_text(shot)}]
    return [*turns, message(example.prompt)]


def embed(
    client: Client, model: ServedModel, documents: Sequence[Document], batch_size: int, progress: Progress
) -> np.ndarray:
    """A vector for each document: (documents, width) float32.

    Args:
        client: the server.
        model: one of its models.
        documents: each one text or one image.
        batch_size: most documents of a request, up to :data:`AT_ONCE`.
        progress: called with (documents done, documents in all).

    Raises:
        UserError: the server refuses a request, or a document cannot be sent.
    """
    import numpy as np

    rows: list[np.ndarray] = []
    waiting: list[dict[str, str]] = []
    for number, document in enumerate(documents, start=1):
        waiting.append(embedding_input(document))
        size = sum(len(text) for given_input in waiting for text in given_input.values())
        if len(waiting) < min(batch_size, AT_ONCE) and size < REQUEST_BYTES and number < len(documents):
            continue
        body = {"model": model.name, "input": waiting, "encoding_format": "base64"}
        data = client.post("/v1/embeddings", body)["data"]
        rows += [np.frombuffer(base64.b64decode(own["embedding"]), dtype="<f4") for own in data]
        waiting = []
        progress(number, len(documents))
    return np.stack(rows)
