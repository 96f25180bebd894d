"""Who may ask: the host name, the token, and what a browser may do with a reply."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Collection

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vislang.serve.errors import ApiError
from vislang.serve.page import PAGE
from vislang.serve.reports import UNDER

OPEN = frozenset({"/health", *PAGE})
"""Routes that need no token: the page has nothing of the models, and asks its reader for the token."""

POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""A page of this server loads nothing from elsewhere, runs no inline script, and is in no frame."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Middleware that lets in requests for the right host and with the token.

    Args:
        app: the application.
        token: every route needs it but those in ``OPEN`` and the reports, which have a secret of their own; None needs
            none.
        hosts: the names by which the server may be called, in lower case. Addresses always may: a page in a browser
            that wants to reach a server on its user's machine needs a name for it (DNS rebinding).
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Collection[str]):
        self.app, self.token, self.hosts = app, token, frozenset(hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with an error, or pass the request on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(raw=message["headers"])
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                message["headers"] = headers.raw
            await send(message)

        headers = Headers(scope=scope)
        error = self._host_error(headers.get("host", "")) or self._token_error(scope["path"], headers)
        if error is None:
            await self.app(scope, receive, send_with_headers)
        else:
            await JSONResponse(error.body(), error.status_code, error.headers)(scope, receive, send_with_headers)

    def _host_error(self, host: str) -> ApiError | None:
        name = host_name(host)
        if name in self.hosts or _is_address(name):
            return None
        return ApiError(
            403, f"this server is not called {name!r}. Start it with --allow-host to allow a name.", "host_not_allowed"
        )

    def _token_error(self, path: str, headers: Headers) -> ApiError | None:
        if self.token is None or path in OPEN or path.startswith(UNDER):
            return None
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and secrets.compare_digest(given.strip().encode(), self.token.encode()):
            return None
        return ApiError(
            401,
            "a wrong token, or none. Send the header Authorization: Bearer TOKEN.",
            "invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def host_name(host: str) -> str:
    """The name or address in a Host header, without the port, in lower case.

    >>> host_name("localhost:8000"), host_name("[::1]:80"), host_name("::1")
    ('localhost', '::1', '::1')
    """
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return (host if host.count(":") > 1 else host.partition(":")[0]).lower().rstrip(".")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether a host to listen on can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
