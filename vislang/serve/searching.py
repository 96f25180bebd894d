"""``GET /v1/indexes`` and ``POST /v1/search``: search in indexes that ``vislang index`` made, with corrections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from vislang.document import Image, MediaError
from vislang.pictures import at_most, data_url
from vislang.search.index import Index
from vislang.search.marks import NotInIndex
from vislang.search.query import RERANKED, Found, Query, Results, Searcher
from vislang.serve.errors import ApiError, invalid, unsupported
from vislang.serve.images import ImagePart
from vislang.serve.served import Served
from vislang.serve.server import Server
from vislang.serve.vectors import ranked
from vislang.serve.wire import (
    FoundImage,
    ImageInput,
    IndexCard,
    IndexList,
    SearchReply,
    SearchRequest,
    TextInput,
    new_id,
)


def search_routes(server: Server, indexes: Mapping[str, Searcher]) -> APIRouter:
    """The routes of searches."""
    router = APIRouter()

    @router.get("/v1/indexes", response_model=IndexList, tags=["search"])
    async def list_indexes():
        """The indexes that can be searched."""
        return IndexList(data=[_card(name, searcher) for name, searcher in indexes.items()])

    @router.post("/v1/search", response_model=SearchReply, tags=["search"])
    async def search(request: Request, body: SearchRequest):
        """The images of an index that match a text or an image best, the best first."""
        if body.index not in indexes:
            known = f"the indexes are {', '.join(indexes)}" if indexes else "start the server with --index"
            raise ApiError(404, f"there is no such index; {known}.", "index_not_found", "index")
        searcher = indexes[body.index]
        query = await _query(server, searcher, body)
        reranker = None if body.rerank is None else _reranker(server, body.rerank)
        results = await server.run(request, lambda: _searched(searcher, query, body, reranker))
        thumbnails = await run_in_threadpool(
            lambda: [_thumbnail(own.path, body.thumbnail) if body.thumbnail else None for own in results.found]
        )
        return SearchReply(
            id=new_id("search"),
            index=body.index,
            score_kind=results.kind,
            marks=results.marks,
            ended=results.ended,
            results=[_found(own, small) for own, small in zip(results.found, thumbnails, strict=True)],
        )

    return router


def _card(name: str, searcher: Searcher) -> IndexCard:
    queries = ["text", "image"] if searcher.embedder.reads_texts else ["image"]
    return IndexCard(id=name, images=Index(searcher.folder).count, queries=queries)


async def _query(server: Server, searcher: Searcher, body: SearchRequest) -> Query:
    """The query of a request.

    Raises:
        ApiError: it is empty or too long, or the index cannot be searched by it.
    """
    if isinstance(body.query, ImageInput):
        (image,) = await server.images([ImagePart(body.query.image, "query.image")])
        return Query(image=image)
    text = body.query.text if isinstance(body.query, TextInput) else body.query
    if not text.strip():
        raise invalid("the text is empty.", "query")
    if len(text) > server.limits.characters:
        raise invalid(f"more than {server.limits.characters:,} characters of text. Shorten it.", "query")
    if not searcher.embedder.reads_texts:
        raise unsupported(f"{body.index} can be searched by an image only, as its model reads no texts.", "query")
    return Query(text=text)


def _reranker(server: Server, name: str) -> Served:
    """The model of a name that ranks results again.

    Raises:
        ApiError: there is none, or it cannot.
    """
    served = server.model(name, "rerank")
    if "rerank" not in served.abilities:
        raise served.cannot("neither compares nor ranks", "rerank")
    return served


def _searched(searcher: Searcher, query: Query, body: SearchRequest, reranker: Served | None) -> Iterator[Results]:
    """The results of a search; then, if there is a second model, in its order.

    Raises:
        ApiError: a mark does not fit, or the second model cannot compare the query with these images.
    """
    count = body.top_n if reranker is None else max(body.top_n, RERANKED)
    results = _search(searcher, query, body, count)
    yield results
    if reranker is not None and results.found:
        try:
            for scores in ranked(reranker, query.document, [own.document for own in results.found], "rerank"):
                # Before the last item, not all images have a score.
                if len(scores.scores) == len(results.found):
                    yield results.in_order_of(scores, body.top_n)
        except MediaError:
            # Its message has a path of the server.
            message = "an image of the index cannot be read any more. Bring the index up to date with vislang index."
            raise ApiError(400, message, "invalid_image", "rerank") from None


def _search(searcher: Searcher, query: Query, body: SearchRequest, count: int) -> Results:
    """Search; no message to a client has a path of the server.

    Raises:
        ApiError: a mark does not fit.
    """
    try:
        return searcher.search(query, count, body.right, body.wrong, body.forget)
    except NotInIndex as error:
        param = "right" if error.name in body.right else "wrong"
        raise invalid(f"{error.name}: is not in the index. Mark a result by its name.", param) from None


def _found(own: Found, thumbnail: str | None) -> FoundImage:
    mark: Literal["right", "wrong"] | None = None if own.right is None else "right" if own.right else "wrong"
    # The name of a file need not be valid UTF-8, and JSON must be.
    name = own.name.encode("utf-8", "replace").decode("utf-8")
    return FoundImage(name=name, score=own.score, mark=mark, thumbnail=thumbnail)


def _thumbnail(path: Path, side: int) -> str | None:
    """A small copy of an image as a data: URL; None if it cannot be read."""
    try:
        return data_url(at_most(Image(path).decode(), side), "JPEG")
    except MediaError:
        return None
