"""Bodies of requests: their bytes are counted while they arrive, one request's and all requests' together."""

from __future__ import annotations

import asyncio

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vislang.serve.errors import ApiError
from vislang.serve.limits import Limits


class BodyCap:
    """Middleware that ends a request whose body is too long or too slow.

    A body stays in memory until its request is answered, so the bytes of all requests count until then.

    Args:
        app: the application.
        limits: its caps.
    """

    def __init__(self, app: ASGIApp, limits: Limits):
        self.app, self.limits = app, limits
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a body that is counted."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limits, loop = self.limits, asyncio.get_running_loop()
        announced = Headers(scope=scope).get("content-length", "")
        deadline = loop.time() + limits.body_seconds
        count, complete = 0, False

        async def counted() -> Message:
            nonlocal count, complete
            if complete:
                return await receive()
            if announced.isdecimal() and len(announced) < 20 and int(announced) > limits.body_bytes:
                raise self._too_large()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise ApiError(408, f"the body took longer than {limits.body_seconds:g} s.", "body_timeout") from None
            size = len(message.get("body", b""))
            count += size
            self._held += size
            complete = message["type"] != "http.request" or not message.get("more_body", False)
            if count > limits.body_bytes:
                raise self._too_large()
            if self._held > limits.bodies_bytes:
                raise ApiError(
                    429,
                    "the server holds too many requests. Try again.",
                    "server_overloaded",
                    None,
                    {"Retry-After": "1"},
                )
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            self._held -= count

    def _too_large(self) -> ApiError:
        return ApiError(
            413, f"the body has more than {self.limits.body_bytes:,} bytes. Scale images down.", "body_too_large"
        )
