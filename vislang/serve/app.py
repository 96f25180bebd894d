"""The application: routes, errors and middleware around the models."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from vislang import __version__
from vislang.capabilities import Continues, Decides
from vislang.search.query import Searcher
from vislang.serve.answers import answer_routes
from vislang.serve.bodies import BodyCap
from vislang.serve.chat import chat_routes
from vislang.serve.errors import ApiError, invalid
from vislang.serve.images import Fetch
from vislang.serve.limits import Limits
from vislang.serve.observing import Observer
from vislang.serve.page import page_routes
from vislang.serve.reports import report_routes
from vislang.serve.searching import search_routes
from vislang.serve.security import Guard
from vislang.serve.served import Served
from vislang.serve.server import ClientGone, Server
from vislang.serve.vectors import vector_routes
from vislang.serve.wire import ErrorReply, ModelCard, ModelList

_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorReply} for status in (400, 401, 403, 404, 405, 408, 413, 415, 422, 429, 500, 503, 504)
}
"""Any route may answer with these, all in one shape."""

_CODES = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


def make_app(
    models: Mapping[str, Served],
    limits: Limits | None = None,
    *,
    token: str | None = None,
    hosts: Collection[str] = ("localhost",),
    origins: Collection[str] = (),
    fetch: Fetch | None = None,
    indexes: Mapping[str, Searcher] | None = None,
    reports: Sequence[Path] = (),
) -> FastAPI:
    """The application.

    Args:
        models: by the names that clients use.
        limits: what a request may ask for.
        token: every route but /health and the page needs it; None needs none.
        hosts: the names by which the server may be called; addresses always may.
        origins: web pages of other origins that may read replies.
        fetch: reads remote images; None allows none.
        indexes: what can be searched, by the names that clients use.
        reports: folders whose reports are shown.
    """
    limits = limits or Limits()
    server = Server(models, limits, fetch)

    @asynccontextmanager
    async def lifespan(_: FastAPI):
        yield
        server.engine.close()

    app = FastAPI(
        title="vislang",
        version=__version__,
        description="Models that join images and language, with OpenAI's API.",
        # FastAPI's own pages load scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
        responses=_ERRORS,
        lifespan=lifespan,
    )
    app.state.server = server
    _add_errors(app)
    _add_status(app, server)
    routers = (page_routes(), chat_routes(server), vector_routes(server), answer_routes(server))
    for router in (*routers, search_routes(server, indexes or {}), report_routes(reports)):
        app.include_router(router)
    # The last one added is the first to see a request.
    app.add_middleware(BodyCap, limits=limits)
    app.add_middleware(Guard, token=token, hosts={host.lower() for host in hosts})
    if origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type"],
        )
    app.add_middleware(Observer, metrics=server.metrics)
    return app


def _add_status(app: FastAPI, server: Server) -> None:
    """Routes about the server itself."""

    @app.get("/health", tags=["status"])
    async def health() -> dict[str, str]:
        """Whether the process lives; needs no token."""
        return {"status": "ok"}

    @app.get("/ready", tags=["status"])
    async def ready() -> dict[str, str]:
        """Whether requests are answered."""
        if not server.engine.is_running:
            raise ApiError(503, "the server is shutting down.", "shutting_down")
        return {"status": "ready"}

    @app.get("/metrics", response_class=Response, tags=["status"])
    async def metrics():
        """Counts and times, in Prometheus' format."""
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/v1/models", response_model=ModelList, tags=["OpenAI"])
    async def models():
        """The models, and the endpoints that each can answer."""
        return ModelList(data=[_card(served, server.limits) for served in server.models.values()])

    # Ids of the Hub have a slash.
    @app.get("/v1/models/{name:path}", response_model=ModelCard, tags=["OpenAI"])
    async def model(name: str):
        """One of the models."""
        return _card(server.model(name), server.limits)


def _card(served: Served, limits: Limits) -> ModelCard:
    return ModelCard(
        id=served.name,
        created=served.created,
        architecture=type(served.model).__name__,
        abilities=served.abilities,
        generates=isinstance(served.model, Continues),
        heads=served.model.heads if isinstance(served.model, Decides) else {},
        max_tokens=limits.new_tokens,
    )


def _add_errors(app: FastAPI) -> None:
    """Every error has OpenAI's shape."""

    def reply(error: ApiError) -> JSONResponse:
        return JSONResponse(error.body(), error.status_code, error.headers)

    @app.exception_handler(ApiError)
    async def of_api(_: Request, error: ApiError) -> JSONResponse:
        return reply(error)

    @app.exception_handler(RequestValidationError)
    async def of_validation(request: Request, error: RequestValidationError) -> JSONResponse:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            return reply(ApiError(415, "send JSON, with Content-Type: application/json.", "unsupported_media_type"))
        return reply(_of_fields(error))

    @app.exception_handler(HTTPException)
    async def of_http(_: Request, error: HTTPException) -> JSONResponse:
        code = _CODES.get(error.status_code, "invalid_request")
        return reply(ApiError(error.status_code, str(error.detail), code, headers=error.headers))

    @app.exception_handler(ClientGone)
    async def of_gone(_: Request, error: ClientGone) -> Response:
        # Nobody reads it; the number is the one that nginx logs for this.
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def of_bug(_: Request, error: Exception) -> JSONResponse:
        return reply(ApiError(500, "the server failed at this request; its log has the reason.", "internal_error"))


def _of_fields(error: RequestValidationError) -> ApiError:
    """The first field that is wrong."""
    problems = error.errors()
    if problems[0]["type"] == "json_invalid":
        return invalid("the body is not JSON.", None, "invalid_json")
    # Of the alternatives of a field, the one that fits best is wrong in the innermost place.
    worst = max(problems, key=lambda problem: len(problem["loc"]))
    param = _param(worst["loc"])
    return invalid(f"{param or 'body'}: {worst['msg']}.", param or None)


def _param(location: tuple[str | int, ...]) -> str:
    """A field as it is written in JavaScript, without pydantic's names of alternatives."""
    path = ""
    before: str | int | None = None
    for part in location[1:]:
        if isinstance(part, int):
            path += f"[{part}]"
        elif part != before and part.isidentifier() and part.islower() and part not in ("str", "int", "float"):
            path += f".{part}" if path else part
        before = part
    return path
