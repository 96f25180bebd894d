"""A client of a running ``vislang serve``, for ``vislang ask --server`` and ``vislang embed --server``.

It imports no torch, which takes seconds. Programs have OpenAI's client.
"""

from __future__ import annotations

import base64
import http.client
import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.serve.formats import FORMATS, has_frames

CONNECTING_S = 10
"""Seconds in which the connection must be made."""

SILENT_S = 600
"""Seconds without a byte after which the server counts as gone. Its own limit for a request is 120 by default."""


class ServerError(UserError):
    """A server does not answer, or refuses a request; the message has the reason."""


@dataclass(frozen=True)
class ServedModel:
    """A model that a server has.

    Attributes:
        name: the name that it is asked by.
        architecture: the class of the model, such as ``Flamingo``.
        abilities: what it can do, as the last parts of the endpoints.
        generates: whether it generates text.
        heads: the kind of answer of each head, by the head's name.
        max_tokens: greatest number of generated tokens of an answer.
    """

    name: str
    architecture: str
    abilities: tuple[str, ...]
    generates: bool
    heads: Mapping[str, str]
    max_tokens: int


class Client:
    """A server, by its address.

    Requests go to this address alone: proxies of the environment are not used, and redirections are not followed, so
    that nobody else gets the token and the images.

    Args:
        address: such as ``http://127.0.0.1:8000``; one that ends with ``/v1`` means the same.
        token: the token of the server; None sends none.

    Raises:
        ServerError: it is no such address.
    """

    def __init__(self, address: str, token: str | None = None):
        parts = urlsplit(address)
        try:
            self._port = parts.port
        except ValueError:
            self._port = 0
        if parts.scheme not in ("http", "https") or not parts.hostname or self._port == 0 or parts.query:
            raise ServerError(f"{address}: not the address of a server, such as http://127.0.0.1:8000.")
        self.address = address
        self._kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host = parts.hostname
        self._path = parts.path.rstrip("/").removesuffix("/v1")
        self._token = token

    def model(self, name: str) -> ServedModel:
        """One of the models.

        Raises:
            ServerError: there is none of this name, the server does not answer, or it is not one of vislang.
        """
        listed = self._models()
        if name not in listed:
            raise ServerError(f"{self.address}: serves no model {name}; its models are {', '.join(listed) or 'none'}.")
        return listed[name]

    def _models(self) -> dict[str, ServedModel]:
        with self._reply("GET", "/v1/models") as reply:
            content = reply.read()
        try:
            found = [
                ServedModel(
                    card["id"],
                    card["architecture"],
                    tuple(card["abilities"]),
                    card["generates"],
                    card["heads"],
                    card["max_tokens"],
                )
                for card in json.loads(content)["data"]
            ]
        except (ValueError, KeyError, TypeError):
            raise self._stranger() from None
        return {model.name: model for model in found}

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """The reply to a request.

        Raises:
            ServerError: the server does not answer, or refuses the request.
        """
        with self._reply("POST", path, body) as reply:
            content = reply.read()
        try:
            return json.loads(content)
        except ValueError:
            raise self._stranger() from None

    def stream(self, body: Mapping[str, Any]) -> Iterator[str]:
        """The answer to a chat request, piece by piece while it is generated.

        Raises:
            ServerError: the server does not answer, refuses the request, or ends the answer with an error.
        """
        with self._reply("POST", "/v1/chat/completions", {**body, "stream": True}) as reply:
            for line in reply:
                data = line.removeprefix(b"data:").strip()
                if data == b"[DONE]":
                    return
                if not data:
                    continue
                chunk = json.loads(data)
                if "error" in chunk:
                    raise ServerError(f"{self.address}: {chunk['error']['message']}")
                yield from (choice["delta"].get("content") or "" for choice in chunk["choices"])
        raise ServerError(f"{self.address}: the connection was closed before the end of the answer. Ask again.")

    @contextmanager
    def _reply(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The reply to a request, if the server accepts it."""
        headers = {} if body is None else {"Content-Type": "application/json"}
        if self._token is not None:
            headers["Authorization"] = f"Bearer {self._token}"
        connection = self._kind(self._host, self._port, timeout=CONNECTING_S)
        try:
            connection.connect()
            connection.sock.settimeout(SILENT_S)
            connection.request(method, self._path + path, None if body is None else json.dumps(body), headers)
            reply = connection.getresponse()
            if reply.status != 200:
                raise self._refusal(reply)
            yield reply
        except TimeoutError:
            raise ServerError(f"{self.address}: no answer within the time limit. Try again later.") from None
        except OSError as error:
            raise ServerError(
                f"{self.address}: cannot be reached ({error.strerror or error}). Check the address, or start a server "
                "with vislang serve."
            ) from None
        except http.client.HTTPException:
            raise self._stranger() from None
        finally:
            connection.close()

    def _refusal(self, reply: http.client.HTTPResponse) -> ServerError:
        """The error for a reply with another status than 200."""
        content = reply.read()
        try:
            message = json.loads(content)["error"]["message"]
        except (ValueError, KeyError, TypeError):
            return self._stranger(f"HTTP status {reply.status}")
        if reply.status == 401:
            message = "the token is wrong or missing. Give --token, or set VISLANG_TOKEN."
        return ServerError(f"{self.address}: {message}")

    def _stranger(self, why: str = "its replies have another form") -> ServerError:
        return ServerError(f"{self.address}: not a server of vislang ({why}). Check the address.")


def message(document: Document) -> dict[str, Any]:
    """A document of texts and images as a user message.

    Raises:
        MediaError: an image cannot be used.
        UserError: it has other media.
    """
    parts: list[dict[str, Any]] = []
    for part in document.parts:
        if isinstance(part, str):
            parts.append({"type": "text", "text": part})
        else:
            parts.append({"type": "image_url", "image_url": {"url": data_url(_still(part, document.name))}})
    return {"role": "user", "content": parts}


def embedding_input(document: Document) -> dict[str, str]:
    """A document of one text or one image as an input of an embeddings request.

    Raises:
        MediaError: the image cannot be used.
        UserError: it has several parts, or other media.
    """
    if len(document.parts) != 1:
        raise UserError(f"{document.name}: has {len(document.parts)} parts; a server embeds one text or one image.")
    (part,) = document.parts
    return {"text": part} if isinstance(part, str) else {"image": data_url(_still(part, document.name))}


def _still(part: Any, name: str) -> Image:
    if not isinstance(part, Image):
        kind = type(part).__name__.lower()
        raise UserError(f"{name}: servers take texts and images, no {kind}. Leave --server out.")
    return part


def data_url(image: Image) -> str:
    """An image as a ``data:`` URL: its file as it is, or a PNG of its pixels where servers do not read the file.

    Raises:
        MediaError: it cannot be used.
    """
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    content, kind = image.read(), "png"
    try:
        with Pillow.open(io.BytesIO(content), formats=FORMATS) as opened:
            as_it_is, kind = not has_frames(opened), (opened.format or "").lower()
    except UnidentifiedImageError:
        as_it_is = False
    if not as_it_is:
        stream = io.BytesIO()
        image.decode().save(stream, "PNG")
        content, kind = stream.getvalue(), "png"
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
