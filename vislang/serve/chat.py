"""``POST /v1/chat/completions``: OpenAI's chat, for few-shot prompts, questions and choices."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import AsyncIterator, Generator

from fastapi import APIRouter, Request
from fastapi.responses import StreamingResponse

from vislang.capabilities import LEAST_TEMPERATURE, Continuation, Decoding, TokenLikelihood
from vislang.errors import UserError
from vislang.example import shown_answer
from vislang.serve.choosing import Allowed, allowed_of
from vislang.serve.conversation import Conversation
from vislang.serve.errors import ApiError, from_user_error, invalid, unsupported
from vislang.serve.limits import Limits
from vislang.serve.served import Progress, Served, answer, generate
from vislang.serve.server import Server, unless_gone
from vislang.serve.wire import (
    AssistantMessage,
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    ChunkChoice,
    Delta,
    ErrorReply,
    Logprobs,
    ScoredAnswer,
    TokenLogprob,
    TopLogprob,
    Usage,
    new_id,
    now,
)

DEFAULT_TOKENS = 64
"""Greatest number of tokens of an answer, where the request does not say."""


def decoding_of(request: ChatRequest, limits: Limits) -> Decoding:
    """The settings of generation.

    Raises:
        ApiError: a field asks for what is not supported, or is out of range.
    """
    for name, off in (("frequency_penalty", (None, 0)), ("presence_penalty", (None, 0)), ("logit_bias", (None, {}))):
        if getattr(request, name) not in off:
            raise unsupported(f"{name} is not supported. Leave it out.", name)
    for name in ("tools", "functions"):
        if getattr(request, name):
            raise unsupported(f"{name}: these models call no tools. For a choice, give allowed_answers.", name)
    if (returns := request.n or 1) > limits.returns:
        raise invalid(f"n is {returns}, and the limit is {limits.returns}.", "n")
    temperature = request.temperature or 0.0
    samples = temperature >= LEAST_TEMPERATURE
    if returns > 1 and not samples:
        raise invalid("n answers without sampling would be equal. Set a temperature.", "n")
    stop = (request.stop,) if isinstance(request.stop, str) else tuple(request.stop or ())
    if len(stop) > 4 or not all(stop) or sum(map(len, stop)) > 1000:
        raise invalid("stop: up to four strings that are not empty, of 1,000 characters together.", "stop")
    if request.top_logprobs is not None and not request.logprobs:
        raise invalid("top_logprobs needs logprobs: true.", "top_logprobs")
    wanted = request.max_completion_tokens or request.max_tokens or DEFAULT_TOKENS
    try:
        return Decoding(
            max_new_tokens=min(wanted, limits.new_tokens),
            temperature=temperature if samples else 0.0,
            # Without sampling, neither has an effect.
            top_k=max(0, request.top_k or 0) if samples else 0,
            top_p=1.0 if request.top_p is None or not samples else request.top_p,
            returns=returns,
            stop=stop,
            seed=(secrets.randbits(32) if request.seed is None else request.seed) % 2**32,
        )
    except UserError as error:
        raise from_user_error(error) from None


def chat_routes(server: Server) -> APIRouter:
    """The route of chat completions."""
    router = APIRouter()

    @router.post(
        "/v1/chat/completions",
        response_model=ChatCompletion,
        responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
        tags=["OpenAI"],
    )
    async def chat_completions(request: Request, body: ChatRequest):
        """Answer the last message, after the examples before it. ``stream`` sends server-sent events."""
        served = server.model(body.model)
        decoding = decoding_of(body, server.limits)
        allowed = allowed_of(body, server.limits)
        if allowed is not None and (decoding.returns > 1 or body.logprobs):
            field = "n" if decoding.returns > 1 else "logprobs"
            raise unsupported(f"{field} has no effect on a choice among answers. Leave it out.", field)
        conversation = await server.conversation(body.messages)
        reply = _Reply(server, served, body, decoding, allowed, conversation)
        if not body.stream:
            return await reply.whole(request)
        events = reply.events()
        # An error of the prompt is found before the first event, and gets a status of its own.
        first = await unless_gone(request, anext(events))
        return StreamingResponse(_following(first, events), media_type="text/event-stream")

    return router


async def _following(first: str, events: AsyncIterator[str]) -> AsyncIterator[str]:
    """The first event and the others; closing it closes them."""
    try:
        yield first
        async for event in events:
            yield event
    finally:
        await events.aclose()  # type: ignore[attr-defined]  # an async generator


class _Reply:
    """The reply to one request."""

    def __init__(
        self,
        server: Server,
        served: Served,
        body: ChatRequest,
        decoding: Decoding,
        allowed: Allowed | None,
        conversation: Conversation,
    ):
        self.server, self.served, self.body = server, served, body
        self.decoding, self.allowed, self.conversation = decoding, allowed, conversation
        self.id, self.created = new_id("chatcmpl"), now()
        self.scores: list[ScoredAnswer] | None = None

    async def whole(self, request: Request) -> ChatCompletion:
        """The whole reply at once."""
        found = await self.server.run(request, self._work)
        choices = [
            ChatChoice(
                index=index,
                message=AssistantMessage(content=text.text),
                finish_reason=text.finish or "length",
                logprobs=self._logprobs(text.tokens),
                allowed_answers=self.scores,
            )
            for index, text in enumerate(found.texts)
        ]
        return ChatCompletion(
            id=self.id, created=self.created, model=self.served.name, choices=choices, usage=self._usage(found)
        )

    async def events(self) -> AsyncIterator[str]:
        """The reply as server-sent events. An error after the first event is an event, too."""
        started, begun = time.monotonic(), False
        shown = [Continuation("", 0)] * self.decoding.returns
        last = Progress(0, [])
        stream = self.server.stream(self._work)
        try:
            async for progress in stream:
                last = progress
                if not begun:
                    begun = True
                    roles = [ChunkChoice(index=n, delta=Delta(role="assistant", content="")) for n in range(len(shown))]
                    for choice in roles:
                        yield self._event([choice])
                if progress.texts and shown[0].length == 0:
                    self.server.metrics.first_token.observe(time.monotonic() - started)
                for index, (text, before) in enumerate(zip(progress.texts, shown, strict=False)):
                    if before.finish is None and (added := self._added(index, text, before)) is not None:
                        yield self._event([added])
                shown = progress.texts or shown
        except ApiError as error:
            if not begun:
                raise
            yield f"data: {ErrorReply.model_validate(error.body()).model_dump_json()}\n\n"
            return
        finally:
            await stream.aclose()  # type: ignore[attr-defined]  # an async generator
        usage = self._usage(last)
        if self.body.stream_options is not None and self.body.stream_options.include_usage:
            yield self._event([], usage)
        yield "data: [DONE]\n\n"

    def _work(self) -> Generator[Progress | None, None, Progress]:
        # A head answers at once, and so does a choice.
        if self.allowed is None and self.body.head is None and not self.served.kinds:
            top = (self.body.top_logprobs or 0) if self.body.logprobs else None
            return (yield from generate(self.served, self.conversation, self.decoding, top))
        options = None if self.allowed is None else self.allowed.answers
        prediction = answer(self.served, self.conversation, options, self.body.head).prediction
        if self.allowed is None:
            text = shown_answer(prediction.answer)
        else:
            text = self.allowed.written(str(prediction.answer))
            ordered = sorted(zip(prediction.candidates, prediction.scores, strict=True), key=lambda pair: -pair[1])
            self.scores = [ScoredAnswer(answer=str(option), score=score) for option, score in ordered]
        return Progress(0, [Continuation(text, 0, "stop")])

    def _added(self, index: int, text: Continuation, before: Continuation) -> ChunkChoice | None:
        """The chunk of what a text has more than before; None if that is nothing."""
        more = text.text[len(before.text) :]
        if not more and text.finish is None and len(text.tokens) == len(before.tokens):
            return None
        return ChunkChoice(
            index=index,
            delta=Delta(content=more or None),
            finish_reason=text.finish,
            logprobs=self._logprobs(text.tokens[len(before.tokens) :]),
        )

    def _event(self, choices: list[ChunkChoice], usage: Usage | None = None) -> str:
        chunk = ChatChunk(id=self.id, created=self.created, model=self.served.name, choices=choices, usage=usage)
        return f"data: {chunk.model_dump_json()}\n\n"

    def _usage(self, found: Progress) -> Usage:
        written = sum(text.length for text in found.texts)
        for kind, count in (("prompt", found.prompt_tokens), ("completion", written)):
            self.server.metrics.tokens.labels(kind).inc(count)
        total = found.prompt_tokens + written
        return Usage(prompt_tokens=found.prompt_tokens, completion_tokens=written, total_tokens=total)

    def _logprobs(self, tokens: tuple[TokenLikelihood, ...]) -> Logprobs | None:
        if not self.body.logprobs:
            return None
        content = []
        for token in tokens:
            own = _logprob(token.text, token.log_probability)
            top = [_logprob(text, value) for text, value in token.top]
            content.append(TokenLogprob(token=own.token, logprob=own.logprob, bytes=own.bytes, top_logprobs=top))
        return Logprobs(content=content)


def _logprob(token: str, value: float) -> TopLogprob:
    # JSON has no infinity; -9999 is what OpenAI's API has in its place.
    return TopLogprob(token=token, logprob=value if math.isfinite(value) else -9999.0, bytes=list(token.encode()))
