"""What all routes share: the models, the engine, the limits, and how a request reaches them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Mapping, Sequence
from dataclasses import replace

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from vislang.capabilities import Caches
from vislang.document import Image
from vislang.serve.conversation import Conversation, conversation_of, image_parts
from vislang.serve.engine import Engine, Item, Work
from vislang.serve.errors import ApiError
from vislang.serve.images import Fetch, ImagePart, read_images
from vislang.serve.limits import Limits
from vislang.serve.metrics import Metrics
from vislang.serve.reader import Reader
from vislang.serve.served import Served
from vislang.serve.wire import Message


class ClientGone(Exception):
    """The client closed the connection; nobody reads the reply."""


class Server:
    """The state of a server.

    Args:
        models: by the names that clients use.
        limits: what a request may ask for.
        fetch: reads remote images; None allows none.
    """

    def __init__(self, models: Mapping[str, Served], limits: Limits, fetch: Fetch | None = None):
        self.limits = limits
        self._fetch = fetch
        # A model may be served under several names.
        distinct = {id(served.model): served.model for served in models.values()}
        readers = {key: Reader(m, limits.prefix_bytes) for key, m in distinct.items() if Reader.can_read(m)}
        self.models = {name: replace(served, reader=readers.get(id(served.model))) for name, served in models.items()}
        for model in distinct.values():
            if isinstance(model, Caches):
                model.keep_in_memory(limits.kept_images)
        for served in self.models.values():
            if served.pack is not None and served.reader is not None:
                served.reader.pin(served.pack)
        self.engine = Engine(limits)
        self.metrics = Metrics(self.engine, list(readers.values()))

    def model(self, name: str, param: str = "model") -> Served:
        """The model of a name.

        Args:
            name: the name.
            param: the field of the request that has it.

        Raises:
            ApiError: there is none.
        """
        if name not in self.models:
            known = f"the models are {', '.join(self.models)}" if self.models else "this server has none"
            raise ApiError(404, f"there is no such model; {known}.", "model_not_found", param)
        return self.models[name]

    async def images(self, parts: Sequence[ImagePart]) -> list[Image]:
        """The images of a request; see :func:`~vislang.serve.images.read_images`."""
        return await run_in_threadpool(read_images, parts, self.limits, self._fetch)

    async def conversation(self, messages: Sequence[Message]) -> Conversation:
        """A conversation with its images; see :func:`~vislang.serve.conversation.conversation_of`."""
        return conversation_of(messages, await self.images(image_parts(messages)), self.limits)

    def stream(self, work: Work[Item]) -> AsyncIterator[Item]:
        """Run a job; yields what it yields."""
        return self.engine.stream(work)

    async def run(self, request: Request, work: Work[Item]) -> Item:
        """Run a job; returns the last thing that it yields. If the client goes, the job is cancelled.

        Raises:
            ClientGone: the client has gone.
            ApiError: the job failed.
        """
        return await unless_gone(request, self.engine.last(work))


async def unless_gone(request: Request, reply: Awaitable[Item]) -> Item:
    """Wait for a reply; it is cancelled if the client goes.

    Raises:
        ClientGone: the client has gone.
    """
    answer = asyncio.ensure_future(reply)
    gone = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            raise ClientGone
        return answer.result()
    finally:
        for task in (answer, gone):
            task.cancel()
        await asyncio.gather(answer, gone, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    """Return when the client has gone. The body has been read, so nothing else can arrive."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
