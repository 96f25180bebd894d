"""A server on a loopback port, for real clients."""

from __future__ import annotations

import base64
import http.client
import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import PIL.Image
import uvicorn
from PIL import ImageDraw

from vislang.serve.app import make_app


def running(models, limits=None, **settings):
    """The address of a server with these models, on a free port; see :func:`~vislang.serve.app.make_app`."""
    return running_app(make_app(models, limits, **settings))


@contextmanager
def running_app(app) -> Iterator[str]:
    """The address of an application, on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    deadline = time.monotonic() + 30
    while not server.started:
        assert thread.is_alive()
        assert time.monotonic() < deadline
        time.sleep(0.005)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(timeout=30)
        assert not thread.is_alive()


def picture(number: int, size: int = 32) -> PIL.Image.Image:
    """A picture with a rectangle, whose position and colour follow from the number."""
    made = PIL.Image.new("RGB", (size, size), "white")
    ImageDraw.Draw(made).rectangle([number % 20, 4, number % 20 + 11, 24], fill=("red", "blue")[number % 2])
    return made


def encoded(image: PIL.Image.Image, form: str = "PNG", **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def data_url(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def url_of(number: int) -> str:
    return data_url(encoded(picture(number)))


def shown(number: int, text: str | None = None) -> dict:
    """A user message with a picture and a text."""
    parts = [{"type": "image_url", "image_url": {"url": url_of(number)}}]
    return {"role": "user", "content": [*parts, *([] if text is None else [{"type": "text", "text": text}])]}


def said(text: str) -> dict:
    return {"role": "assistant", "content": text}


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]


def call(address: str, path: str, body: Any = None, method: str | None = None, **headers: str) -> Reply:
    """A request; a body is sent as JSON, or as it is if it is bytes."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    own = {} if body is None else {"Content-Type": "application/json"}
    own |= {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, sent, own)
        reply = connection.getresponse()
        return Reply(reply.status, {name.lower(): value for name, value in reply.getheaders()}, reply.read())
    finally:
        connection.close()
