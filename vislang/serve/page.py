"""The page at ``/``: plain HTML, CSS and JavaScript from the folder ``static``, for people with a browser.

It uses the API like any other client. Read ``static/main.js`` first.
"""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

from fastapi import APIRouter, Response

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
"""Media types by the ending of a file's name."""


class PageFile(NamedTuple):
    """A file of the page."""

    content: bytes
    media_type: str


def _read() -> dict[str, PageFile]:
    """The files of the page by their paths in a URL; no path of a request ever becomes a path of a file."""
    found = {}
    for file in files("vislang.serve").joinpath("static").iterdir():
        path = "/" if file.name == "index.html" else f"/page/{file.name}"
        found[path] = PageFile(file.read_bytes(), TYPES[file.name.rpartition(".")[2]])
    return found


PAGE = _read()
"""The files of the page, by their paths."""


def page_routes() -> APIRouter:
    """A route for each file of the page."""
    router = APIRouter()
    for path, file in PAGE.items():
        router.add_api_route(path, _sends(file), methods=["GET"], include_in_schema=False)
    return router


def _sends(file: PageFile):
    async def send() -> Response:
        """A file of the page."""
        return Response(file.content, media_type=file.media_type)

    return send
