"""``POST /v1/embeddings`` and ``POST /v1/rerank``: vectors of texts and images, and how well they fit each other."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import numpy as np
from fastapi import APIRouter, Request

from vislang.capabilities import Embeds
from vislang.document import Document
from vislang.search.relevance import NotComparable, Relevance, embedded, relevance, text_of
from vislang.serve.errors import invalid, unsupported
from vislang.serve.images import ImagePart
from vislang.serve.limits import Limits
from vislang.serve.served import Served
from vislang.serve.server import Server
from vislang.serve.wire import (
    Embedding,
    EmbeddingList,
    EmbeddingsRequest,
    ImageInput,
    Input,
    RankedDocument,
    RerankReply,
    RerankRequest,
    TextInput,
    new_id,
)


def vector_routes(server: Server) -> APIRouter:
    """The routes of embeddings and reranking."""
    router = APIRouter()

    @router.post("/v1/embeddings", response_model=EmbeddingList, tags=["OpenAI"])
    async def embeddings(request: Request, body: EmbeddingsRequest):
        """A vector for each text or image."""
        served = server.model(body.model)
        if not isinstance(served.model, Embeds):
            raise served.cannot("gives no vectors")
        inputs = [body.input] if isinstance(body.input, str) else body.input
        documents = await _documents(server, inputs, "input")
        vectors = await server.run(request, lambda: embedded(served.model, served.name, documents))
        width = vectors.shape[1]
        if body.dimensions not in (None, width):
            raise unsupported(f"the vectors of {served.name} have {width} dimensions.", "dimensions")
        rows = vectors.numpy().astype("<f4")
        form = (lambda row: row.tolist()) if body.encoding_format != "base64" else _in_base64
        data = [Embedding(index=index, embedding=form(row)) for index, row in enumerate(rows)]
        return EmbeddingList(model=served.name, data=data)

    @router.post("/v1/rerank", response_model=RerankReply, tags=["rerank"])
    async def rerank(request: Request, body: RerankRequest):
        """The documents, the one that fits the query best first."""
        served = server.model(body.model)
        if "rerank" not in served.abilities:
            raise served.cannot("neither compares nor ranks")
        query, *documents = await _documents(server, [body.query, *body.documents], "documents")
        kind, scores = await server.run(request, lambda: ranked(served, query, documents, "documents"))
        order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
        shown = [text_of(documents[index]) if body.return_documents else None for index in order]
        results = [
            RankedDocument(
                index=index,
                relevance_score=scores[index],
                document=None if text is None else {"text": text},
            )
            for index, text in zip(order, shown, strict=True)
        ]
        return RerankReply(id=new_id("rerank"), model=served.name, score_kind=kind, results=results)

    return router


async def _documents(server: Server, inputs: Sequence[Input | int | list[int]], param: str) -> list[Document]:
    """Inputs as documents of one text or one image."""
    limits = server.limits
    if not inputs:
        raise invalid("give at least one input.", param)
    if len(inputs) > limits.texts + 1:
        raise invalid(f"{len(inputs)} inputs, and the limit is {limits.texts}.", param)
    parts = [
        ImagePart(given.image, f"{param}[{number}].image")
        for number, given in enumerate(inputs)
        if isinstance(given, ImageInput)
    ]
    images = iter(await server.images(parts))
    found = []
    for number, given in enumerate(inputs):
        name = f"{param}[{number}]"
        if isinstance(given, ImageInput):
            found.append(Document([next(images)], name=name))
            continue
        if isinstance(given, int | list):
            raise unsupported(
                "token ids are not supported. Send texts; for langchain: check_embedding_ctx_length=False.", param
            )
        text = given.text if isinstance(given, TextInput) else given
        if not text.strip():
            raise invalid("the text is empty.", name)
        found.append(Document([text], name=name))
    _must_be_short(found, limits, param)
    return found


def _must_be_short(documents: Sequence[Document], limits: Limits, param: str) -> None:
    if sum(len(text_of(document) or "") for document in documents) > limits.characters:
        raise invalid(f"more than {limits.characters:,} characters of text. Shorten it.", param)


def _in_base64(row: np.ndarray) -> str:
    return base64.b64encode(row.tobytes()).decode()


def ranked(served: Served, query: Document, documents: Sequence[Document], param: str) -> Iterator[Relevance]:
    """The kind of score, and the score of each document; see :func:`~vislang.search.relevance.relevance`.

    Raises:
        ApiError: the model does not compare what was sent; ``param`` is the field at fault.
    """
    try:
        yield from relevance(served.model, served.name, query, documents)
    except NotComparable:
        raise served.cannot("does not compare these; send texts for an image, or images for a text", param) from None
