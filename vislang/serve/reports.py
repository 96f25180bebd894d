"""``GET /v1/reports``: the report pages of runs and evaluations under a folder, and the pages themselves.

A link in a browser carries no token. The address of a report therefore has a part that nobody can guess, which is new
at each start of the server and which only the list tells.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from fastapi import APIRouter
from fastapi.responses import FileResponse
from starlette.concurrency import run_in_threadpool

from vislang.serve.errors import ApiError
from vislang.serve.wire import ReportCard, ReportList

UNDER = "/reports/"
"""Where the reports are; the routes under it need no token but the unguessable part."""

FILE = "report.html"

POLICY = (
    "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""A report is one file without scripts. In a sandbox, it could not use the API even if it had some."""


def report_routes(folders: Sequence[Path]) -> APIRouter:
    """The routes of the reports in some folders and in the folders inside them."""
    router = APIRouter()
    secret = secrets.token_urlsafe(24)

    @router.get("/v1/reports", response_model=ReportList, tags=["reports"])
    async def list_reports():
        """The reports, the newest first."""
        found = await run_in_threadpool(reports_in, folders)
        cards = [
            ReportCard(id=name, url=f"{UNDER}{secret}/{quote(name)}", modified=int(path.stat().st_mtime))
            for name, path in found.items()
        ]
        return ReportList(data=sorted(cards, key=lambda card: -card.modified))

    @router.get(f"{UNDER}{{given}}/{{name:path}}", include_in_schema=False)
    async def report(given: str, name: str):
        """A report."""
        path = None
        if secrets.compare_digest(given.encode(), secret.encode()):
            # No part of a request ever becomes a part of a path.
            path = (await run_in_threadpool(reports_in, folders)).get(name)
        if path is None:
            raise ApiError(404, "there is no such report. Open it from the page of this server.", "not_found")
        return FileResponse(path, media_type="text/html", headers={"Content-Security-Policy": POLICY})

    return router


def reports_in(folders: Sequence[Path]) -> dict[str, Path]:
    """The reports by the names of their folders, relative to the folder that was given."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob(FILE)):
            name = path.parent.relative_to(folder.parent).as_posix()
            # The name of a folder need not be valid UTF-8, and JSON must be.
            found.setdefault(name.encode("utf-8", "replace").decode("utf-8"), path)
    return found
