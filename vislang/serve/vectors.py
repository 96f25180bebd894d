"""``POST /v1/embeddings`` and ``POST /v1/rerank``: vectors of texts and images, and how well they fit each other."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from fastapi import APIRouter, Request
from torch import Tensor

from vislang.capabilities import Embeds, Matches, Ranks
from vislang.document import Document, Image
from vislang.example import Example
from vislang.models.base import must_be_numbers
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

AT_ONCE = 16
"""Inputs that are embedded between two looks at whether the client is still there."""


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
        vectors = await server.run(request, lambda: _embedded(served, documents))
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
        kind, scores = await server.run(request, lambda: _ranked(served, query, documents))
        order = sorted(range(len(scores)), key=lambda index: -scores[index])[: body.top_n]
        shown = [_text(documents[index]) if body.return_documents else None for index in order]
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
    if sum(len(_text(document) or "") for document in documents) > limits.characters:
        raise invalid(f"more than {limits.characters:,} characters of text. Shorten it.", param)


def _text(document: Document) -> str | None:
    (part,) = document.parts
    return part if isinstance(part, str) else None


def _image(document: Document) -> Image | None:
    (part,) = document.parts
    return part if isinstance(part, Image) else None


def _embedded(served: Served, documents: Sequence[Document]) -> Iterator[Tensor]:
    """Vectors of documents, in parts; yields what is done after each."""
    done: list[Tensor] = []
    for start in range(0, len(documents), AT_ONCE):
        done.append(served.model.embed(documents[start : start + AT_ONCE]))
        vectors = torch.cat(done).float()
        must_be_numbers(vectors, served.name)
        yield vectors


def _in_base64(row: np.ndarray) -> str:
    return base64.b64encode(row.tobytes()).decode()


def _ranked(served: Served, query: Document, documents: Sequence[Document]) -> Iterator[tuple[str, list[float]]]:
    """The kind of score, and the score of each document.

    An image and a text are compared, or the text is ranked by its likelihood after the image; two of a kind are
    compared by the cosine of their vectors.

    Raises:
        ApiError: the model does not compare what was sent.
    """
    model, image = served.model, _image(query)
    texts = [text for document in documents if (text := _text(document)) is not None]
    images = [own for document in documents if (own := _image(document)) is not None]
    across = texts if image is not None else images
    if len(across) == len(documents) and served.matches:
        assert isinstance(model, Matches)
        pairs = ([image], texts) if image is not None else (images, [_text(query) or ""])
        scores = model.match_all(*pairs).flatten()
        must_be_numbers(scores, served.name)
        yield "similarity", scores.tolist()
    elif len(across) == len(documents) and isinstance(model, Ranks):
        prompts = [model.prompts.render(Example("query", Document([own]))) for own in ([image] if image else images)]
        ranked = model.rank(prompts, texts if image is not None else [_text(query) or ""])
        flat = ranked[0] if image is not None else [own for (own,) in ranked]
        yield "log_likelihood", [score.log_likelihood / score.tokens for score in flat]
    elif not across and isinstance(model, Embeds):
        for vectors in _embedded(served, [query, *documents]):
            unit = torch.nn.functional.normalize(vectors, dim=-1)
        yield "similarity", (unit[1:] @ unit[0]).tolist()
    else:
        raise served.cannot("does not compare these; send texts for an image, or images for a text", "documents")
