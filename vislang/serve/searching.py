"""``GET /v1/indexes`` and ``POST /v1/search``: search in indexes that ``vislang index`` made, with corrections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from vislang.document import Image, MediaError
from vislang.pictures import at_most, data_url
from vislang.search.index import Index
from vislang.search.marks import NotInIndex
from vislang.search.query import Found, Query, Results, Searcher
from vislang.serve.engine import once
from vislang.serve.errors import ApiError, invalid, unsupported
from vislang.serve.images import ImagePart
from vislang.serve.server import Server
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
        results = await server.run(request, once(lambda: _search(searcher, query, body)))
        thumbnails = await run_in_threadpool(
            lambda: [_thumbnail(own.path, body.thumbnail) if body.thumbnail else None for own in results.found]
        )
        return SearchReply(
            id=new_id("search"),
            index=body.index,
            score_kind="probability" if results.marks else "similarity",
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


def _search(searcher: Searcher, query: Query, body: SearchRequest) -> Results:
    """Search; no message to a client has a path of the server.

    Raises:
        ApiError: a mark does not fit.
    """
    try:
        return searcher.search(query, body.top_n, body.right, body.wrong, body.forget)
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
