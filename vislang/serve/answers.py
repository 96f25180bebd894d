"""What has no standard: ``POST /v1/answer``, ``/v1/ground`` and ``/v1/explain``."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, replace
from typing import Any

from fastapi import APIRouter, Request
from torch import Tensor

from vislang.boxes import Box
from vislang.capabilities import Attends, Continues, Decoding, Explained, Explains, ShowsGates
from vislang.document import Image
from vislang.evaluate.shot_effects import without_each
from vislang.example import Answer, Prediction
from vislang.serve.chat import DEFAULT_TOKENS
from vislang.serve.choosing import options_of
from vislang.serve.conversation import Conversation
from vislang.serve.engine import once
from vislang.serve.errors import invalid
from vislang.serve.served import Answered, Served, answer, generate
from vislang.serve.server import Server
from vislang.serve.wire import (
    AnswerReply,
    AnswerRequest,
    AnswerValue,
    BoxReply,
    Candidate,
    CoAttentionLayer,
    ExplainReply,
    ExplainRequest,
    Gates,
    GroundReply,
    GroundRequest,
    ScoredBox,
    TokenMaps,
    new_id,
)


def answer_routes(server: Server) -> APIRouter:
    """The routes of vislang's own endpoints."""
    router = APIRouter()

    @router.post("/v1/answer", response_model=AnswerReply, tags=["vislang"])
    async def answer_(request: Request, body: AnswerRequest):
        """An answer of the model's own kind: a text, a label, a number, a box, or one of the options."""
        served = server.model(body.model)
        options = None if body.options is None else options_of(body.options, server.limits, "options")
        tokens = min(body.max_tokens or DEFAULT_TOKENS, server.limits.new_tokens)
        conversation = await server.conversation(body.messages)
        way, found = await server.run(request, lambda: _answered(served, conversation, options, body.head, tokens))
        ordered = sorted(zip(found.candidates, found.scores, strict=True), key=lambda pair: -pair[1])
        return AnswerReply(
            id=new_id("answer"),
            model=served.name,
            way=way,
            answer=_value(found.answer),
            score_kind=found.kind,
            candidates=[Candidate(answer=_value(option), score=score) for option, score in ordered],
        )

    @router.post("/v1/ground", response_model=GroundReply, tags=["vislang"])
    async def ground(request: Request, body: GroundRequest):
        """The boxes of the image that fit the text of the last message, the best first."""
        served = server.model(body.model)
        heads = [name for name, kind in getattr(served.model, "heads", {}).items() if kind == "box"]
        if not heads:
            raise served.cannot("has no head that gives boxes")
        head = body.head or heads[0]
        if head not in heads:
            raise invalid(f"the heads that give boxes are {', '.join(heads)}.", "head")
        conversation = await server.conversation(body.messages)
        image = _only_image(conversation)
        _, found = await server.run(request, once(lambda: answer(served, conversation, head=head)))
        ordered = sorted(zip(found.candidates, found.scores, strict=True), key=lambda pair: -pair[1])[: body.top_n]
        boxes = [ScoredBox(box=_box(box), score=score) for box, score in ordered if isinstance(box, Box)]
        width, height = image.size
        return GroundReply(id=new_id("ground"), model=served.name, width=width, height=height, boxes=boxes)

    @router.post("/v1/explain", response_model=ExplainReply, tags=["vislang"])
    async def explain(request: Request, body: ExplainRequest):
        """An answer, and what each of its tokens, or each word of the question, attended to."""
        served = server.model(body.model)
        if "explain" not in served.abilities:
            raise served.cannot("shows no attention")
        tokens = min(body.max_tokens or DEFAULT_TOKENS, server.limits.new_tokens)
        conversation = await server.conversation(body.messages)
        if isinstance(served.model, Attends):
            leave_out = bool(body.leave_out)
            if leave_out and not conversation.shots:
                raise invalid("there are no examples to leave out. Give some, or no leave_out.", "leave_out")
            return await server.run(request, lambda: _attended(served, conversation, tokens, leave_out))
        if body.leave_out:
            raise served.cannot("reads no examples that could be left out", "leave_out")
        _only_image(conversation)
        explained = await server.run(request, once(lambda: _explained(served, conversation, body.head)))
        return ExplainReply(
            id=new_id("explain"),
            model=served.name,
            answer=_value(explained.prediction.answer),
            words=explained.tokens,
            regions=[_box(box) for box in explained.boxes],
            layers=[
                CoAttentionLayer(
                    text_to_regions=_rows(layer.text.mean(dim=0)), regions_to_text=_rows(layer.regions.mean(dim=0))
                )
                for layer in explained.blocks
            ],
        )

    return router


def _answered(
    served: Served, conversation: Conversation, options: tuple[str, ...] | None, head: str | None, tokens: int
) -> Generator[Any, None, Answered]:
    """An answer, found in the way that fits the model and the options."""
    if options is not None or served.kinds or not isinstance(served.model, Continues):
        return answer(served, conversation, options, head)
    if head is not None:
        raise served.cannot("has no heads", "head")
    progress = yield from generate(served, conversation, Decoding(tokens))
    return Answered("generate", Prediction("question", progress.texts[0].text, kind="log_likelihood"))


def _attended(
    served: Served, conversation: Conversation, tokens: int, leave_out: bool
) -> Generator[Any, None, ExplainReply]:
    """The answer of a generating model, the attention of its tokens, and what its examples changed."""
    progress = yield from generate(served, conversation, Decoding(tokens))
    generated, prompt = progress.texts[0].text, served.prompt(conversation)
    text = served.model.fitting(prompt, generated)
    if generated and not text:
        raise invalid(
            "the messages fill the language model's context, so that the answer cannot be read again. Shorten them, or "
            "give fewer examples.",
            "messages",
            "context_length_exceeded",
        )
    maps = served.model.attention(replace(prompt, target=text)) if text else []
    reply = ExplainReply(
        id=new_id("explain"),
        model=served.name,
        answer=generated,
        tokens=[TokenMaps(token=own.token, maps=[_rows(grid[0]) for grid in own.maps]) for own in maps],
    )
    if isinstance(served.model, ShowsGates):
        reply.gates = [Gates(**asdict(gates)) for gates in served.model.gated_layers()]
    if leave_out:
        likelihoods = []
        for shots in without_each(conversation.shots):
            yield progress
            prompt = served.prompt(replace(conversation, shots=tuple(shots)))
            ((score,),) = served.model.rank([prompt], [[text]])
            likelihoods.append(score.log_likelihood)
        whole, *parts, none = likelihoods
        reply.log_likelihood, reply.change_of_all = whole, whole - none
        reply.changes = [whole - part for part in parts]
    return reply


def _explained(served: Served, conversation: Conversation, head: str | None) -> Explained:
    assert isinstance(served.model, Explains)
    served.must_read(conversation)
    return served.model.explain(conversation.question, head)


def _only_image(conversation: Conversation) -> Image:
    if len(conversation.images) != 1:
        raise invalid(f"the last message has {len(conversation.images)} images; it needs one.", "messages")
    return conversation.images[0]


def _value(found: Answer) -> AnswerValue:
    if isinstance(found, Box):
        return _box(found)
    return float(found) if isinstance(found, float | int) else str(found)


def _box(box: Box) -> BoxReply:
    return BoxReply(left=box.left, top=box.top, right=box.right, bottom=box.bottom)


def _rows(values: Tensor) -> list[list[float]]:
    return values.float().tolist()
