"""Send thousands of malformed images and bodies to a server with OpenAI's API, and look for what it does not survive.

    python benchmarks/abuse.py http://127.0.0.1:8000 [--requests 10000] [--token T] [--model NAME] [--json FILE]

The server may be any that answers ``/v1/models`` and ``/v1/chat/completions``; it must listen on this machine. Between
the malformed requests, clients ask proper questions whose answers are known from before, so that an answer that belongs
to another client is noticed. The program reports:

* replies with a status of 500 or more, and requests without a reply (other than those that were cut off on purpose),
* proper questions that got another answer than before,
* malformed requests that were answered with 200,
* growth of the server's memory after the first fifth, where ``/metrics`` has ``process_resident_memory_bytes``.

Each request is made from the seed and its number, so ``--only NUMBER`` sends one of them again and prints the reply.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import random
import re
import socket
import struct
import sys
import threading
import time
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from PIL import Image, ImageDraw

WITNESSES = 6
"""Proper questions whose answers are known."""

EVERY = 10
"""One request of this many is a proper question."""

GROWTH = 0.10
"""Memory may grow by this share after the first fifth of the requests: allocators keep some of what they get."""

SECONDS = 60
"""A reply that takes longer counts as none."""


@dataclass(frozen=True)
class Request:
    """A request as it is sent.

    Attributes:
        kind: what is wrong with it, for the counts.
        path: of the endpoint.
        body: the bytes of the body.
        headers: of the request, beside those of every request.
        raw: sent instead of all others, over a connection of its own, and then cut off.
    """

    kind: str
    path: str = "/v1/chat/completions"
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    raw: bytes | None = None


@dataclass
class Findings:
    """What was found, with the numbers of the requests."""

    statuses: Counter = field(default_factory=Counter)
    kinds: Counter = field(default_factory=Counter)
    failed: list[str] = field(default_factory=list)
    silent: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    accepted: Counter = field(default_factory=Counter)
    busy: int = 0


# Malformed images


def picture(number: int) -> Image.Image:
    """A small picture that differs for each number."""
    made = Image.new("RGB", (48, 48), "white")
    draw = ImageDraw.Draw(made)
    draw.rectangle([number * 5 % 30, 8, number * 5 % 30 + 12, 36], fill=("red", "blue", "green")[number % 3])
    return made


def encoded(image: Image.Image, form: str, **options) -> bytes:
    """An image in a format."""
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, depth: int, colour: int, data: bytes, *more: bytes) -> bytes:
    """A PNG with any header and any compressed data."""
    header = struct.pack(">IIBBBBB", width & 0xFFFFFFFF, height & 0xFFFFFFFF, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + b"".join(more) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


FORMS = (
    "PNG",
    "JPEG",
    "WEBP",
    "GIF",
    "BMP",
    "TIFF",
    "ICO",
    "PPM",
    "TGA",
    "PCX",
    "SGI",
    "DDS",
    "JPEG2000",
    "PDF",
    "EPS",
)


def broken_image(rng: random.Random) -> tuple[str, bytes]:
    """The kind of a fault, and an image that has it."""
    image = picture(rng.randrange(50))
    form = rng.choice(FORMS[:6])
    whole = encoded(image, form)
    kind = rng.choice(
        [
            "truncated",
            "flipped",
            "spliced",
            "noise",
            "bomb",
            "header",
            "frames",
            "other format",
            "huge chunk",
            "repeated",
        ]
    )
    if kind == "truncated":
        return kind, whole[: rng.randrange(len(whole))]
    if kind == "flipped":
        content = bytearray(whole)
        for _ in range(rng.choice([1, 3, 10, 100])):
            content[rng.randrange(len(content))] = rng.randrange(256)
        return kind, bytes(content)
    if kind == "spliced":
        other = encoded(image, rng.choice(FORMS[:6]))
        return kind, whole[: rng.randrange(len(whole))] + other[rng.randrange(len(other)) :]
    if kind == "noise":
        start = rng.choice(
            [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"BM", b"II*\0"]
        )
        return kind, start + rng.randbytes(rng.choice([0, 1, 10, 1000, 20_000]))
    if kind == "bomb":
        side = rng.choice([7_000, 12_000, 30_000])
        return kind, png_of(side, side, 8, 2, zlib.compress(bytes(3 * side * rng.choice([1, 50])), 9))
    if kind == "header":
        numbers = [0, 1, 2, 2**16, 2**31 - 1, 2**31, 2**32 - 1, rng.randrange(2**32)]
        data = zlib.compress(rng.randbytes(100))
        return kind, png_of(rng.choice(numbers), rng.choice(numbers), rng.randrange(256), rng.randrange(8), data)
    if kind == "frames":
        more = [picture(n) for n in range(rng.choice([2, 50]))]
        return kind, encoded(image, rng.choice(["GIF", "WEBP", "PNG", "TIFF"]), save_all=True, append_images=more)
    if kind == "other format":
        return kind, encoded(image, rng.choice(FORMS[5:]))
    if kind == "huge chunk":
        name = rng.choice([b"tEXt", b"zTXt", b"iCCP", b"eXIf", b"PLTE", b"acTL"])
        inner = b"k\0\0" + zlib.compress(bytes(20_000_000), 9) if name in (b"zTXt", b"iCCP") else rng.randbytes(5_000)
        return kind, png_of(48, 48, 8, 2, zlib.compress(bytes(48 * 145)), chunk(name, inner))
    return kind, whole * rng.choice([2, 50])


# Malformed requests


def shown(url: str, text: str = "what color?") -> list[dict]:
    """A message with an image."""
    return [
        {"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]}
    ]


def data_url(content: bytes, kind: str = "image/png") -> str:
    """An image as a URL."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


URLS = (
    "http://127.0.0.1:{port}/v1/models",
    "http://169.254.169.254/latest/meta-data/",
    "http://[::1]:{port}/",
    "http://2130706433/",
    "http://0177.0.0.1/",
    "http://[::ffff:127.0.0.1]/",
    "file:///etc/passwd",
    "/etc/passwd",
    "ftp://127.0.0.1/",
    "gopher://127.0.0.1/",
    "data:,",
    "data:image/png;base64,",
    "data:image/png;base64,????",
    "data:text/html;base64,PGI+",
    "data:image/png,raw",
    "",
    " ",
    "\0",
)

VALUES = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    2**63,
    2**64,
    10**400,
    -(10**30),
    0.5,
    1e308,
    1e-308,
    -0.0,
    "",
    " ",
    "x",
    "\0",
    "\u202e",
    "<image>",
    "<|endofchunk|>",
    "</s>",
    "x" * 100_000,
    "\U0001f600" * 1000,
    [],
    {},
    [[]],
    [None],
    {"a": 1},
    [[[[[[[[]]]]]]]],
    {"$ref": "#"},
)

FIELDS = (
    "model",
    "messages",
    "temperature",
    "top_p",
    "n",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "stop",
    "stream",
    "stream_options",
    "logprobs",
    "top_logprobs",
    "response_format",
    "tools",
    "allowed_answers",
    "guided_choice",
    "logit_bias",
    "presence_penalty",
    "user",
)

PATHS = ("/v1/chat/completions", "/v1/embeddings", "/v1/rerank", "/v1/answer", "/v1/ground", "/v1/explain")


class Attack:
    """Makes requests.

    Args:
        model: the name of the model to ask.
        port: of the server.
        seed: of all requests.
    """

    def __init__(self, model: str, port: int, seed: int):
        self.model, self.port, self.seed = model, port, seed

    def proper(self, number: int) -> Request:
        """A proper question; there are :data:`WITNESSES` different ones."""
        image = data_url(encoded(picture(number % WITNESSES), "PNG"))
        return self._json("proper", {"model": self.model, "messages": shown(image), "max_tokens": 8, "temperature": 0})

    def request(self, number: int) -> Request:
        """The malformed request of a number."""
        rng = random.Random(f"{self.seed} {number}")
        make: Callable[[random.Random], Request] = rng.choices(
            [self._image, self._url, self._value, self._structure, self._bytes, self._connection, self._large],
            [10, 2, 5, 3, 4, 2, 1],
        )[0]
        return make(rng)

    def _json(self, kind: str, body: object, path: str = "/v1/chat/completions") -> Request:
        return Request(kind, path, json.dumps(body).encode("utf-8", "surrogatepass"))

    def _asked(self, content: bytes) -> dict:
        return {"model": self.model, "messages": shown(data_url(content)), "max_tokens": 2}

    def _image(self, rng: random.Random) -> Request:
        kind, content = broken_image(rng)
        if rng.random() < 0.2:
            body = {"model": self.model, "input": [{"image": data_url(content)}]}
            return self._json(f"image: {kind}", body, "/v1/embeddings")
        return self._json(f"image: {kind}", self._asked(content))

    def _url(self, rng: random.Random) -> Request:
        url = rng.choice(URLS).replace("{port}", str(self.port))
        return self._json("url", {"model": self.model, "messages": shown(url), "max_tokens": 2})

    def _value(self, rng: random.Random) -> Request:
        """A value of another type or size in a field."""
        body = self._asked(encoded(picture(rng.randrange(50)), "PNG"))
        for name in rng.sample(FIELDS, rng.choice([1, 1, 2, 5])):
            body[name] = rng.choice(VALUES)
        return self._json("value", body, rng.choice(PATHS) if rng.random() < 0.5 else PATHS[0])

    def _structure(self, rng: random.Random) -> Request:
        """Messages that make no conversation, or many of everything."""
        image = data_url(encoded(picture(rng.randrange(50)), "PNG"))
        part = {"type": "image_url", "image_url": {"url": image}}
        messages: list = rng.choice(
            [
                [
                    {
                        "role": rng.choice(["user", "assistant", "system", "tool", "x", "", None]),
                        "content": rng.choice(VALUES),
                    }
                ],
                [{"role": "user", "content": [part] * rng.choice([0, 20, 100, 1000])}],
                [
                    {
                        "role": "user",
                        "content": [{"type": rng.choice(["text", "video_url", 1]), "text": rng.choice(VALUES)}],
                    }
                ],
                [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}] * rng.choice([1, 50, 2000]),
                [{"role": "assistant", "content": [part]}, {"role": "user", "content": [part]}],
                [{}],
                [None],
                ["x"],
                [[]],
            ]
        )
        return self._json("structure", {"model": self.model, "messages": messages, "max_tokens": 2}, rng.choice(PATHS))

    def _bytes(self, rng: random.Random) -> Request:
        """A body that is no JSON, or hardly any."""
        whole = json.dumps(self._asked(encoded(picture(0), "PNG"))).encode()
        body = rng.choice(
            [
                whole[: rng.randrange(len(whole))],
                whole + whole,
                b"\xff\xfe" + whole,
                whole.decode().encode("utf-16"),
                b"[" * rng.choice([10, 10_000, 1_000_000]),
                b'{"a":' * 100_000,
                b'{"model":' + b"9" * 100_000 + b"}",
                b'{"model": NaN, "messages": [Infinity]}',
                whole.replace(b"what color?", b"\\ud800"),
                whole.replace(b"what color?", b"\\u0000"),
                rng.randbytes(rng.choice([0, 1, 100, 100_000])),
                b"null",
            ]
        )
        kinds = [
            "application/json",
            "application/json",
            "text/plain",
            "multipart/form-data; boundary=x",
            "",
            "application/json; charset=x",
        ]
        return Request("bytes", rng.choice(PATHS), body, {"Content-Type": rng.choice(kinds)})

    def _connection(self, rng: random.Random) -> Request:
        """A connection that is cut off, or that is no HTTP."""
        whole = json.dumps(self._asked(encoded(picture(0), "PNG"))).encode()
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
        )
        raw = rng.choice(
            [
                f"{head}Content-Length: {len(whole)}\r\n\r\n".encode() + whole[: len(whole) // 2],
                f"{head}Content-Length: {len(whole)}\r\n\r\n".encode() + whole,
                f"{head}Content-Length: 999999999999\r\n\r\n".encode(),
                f"{head}Content-Length: -1\r\n\r\n".encode(),
                f"{head}Content-Length: 5\r\nContent-Length: 6\r\n\r\nabcdef".encode(),
                f"{head}Transfer-Encoding: chunked\r\n\r\nzzz\r\n".encode(),
                f"{head}Transfer-Encoding: chunked\r\n\r\nfffffffff\r\n".encode(),
                f"{head}X: {'y' * 100_000}\r\n\r\n".encode(),
                b"\x16\x03\x01\x02\x00" + rng.randbytes(200),
                b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
                b"GET /../../../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
                rng.randbytes(1000),
            ]
        )
        return Request("connection", raw=raw)

    def _large(self, rng: random.Random) -> Request:
        """A body of megabytes."""
        size = rng.choice([1, 5, 30]) * 2**20
        if rng.random() < 0.5:
            return Request("large", body=b" " * size, headers={"Content-Type": "application/json"})
        return self._json("large", {"model": self.model, "messages": shown("data:image/png;base64," + "A" * size)})


# Sending


class Target:
    """The server.

    Args:
        url: its address, with or without ``/v1``.
        token: sent with every request, if there is one.

    Raises:
        SystemExit: it is not on this machine.
    """

    def __init__(self, url: str, token: str | None):
        parts = urlsplit(url if "//" in url else f"//{url}")
        if parts.hostname not in ("127.0.0.1", "localhost", "::1") or parts.port is None:
            sys.exit("abuse.py: give the address of a server on this machine, such as http://127.0.0.1:8000.")
        self.host, self.port = parts.hostname, parts.port
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def send(self, request: Request) -> tuple[int, bytes]:
        """The status and body of the reply; status 0 where there was none."""
        if request.raw is not None:
            return self._cut(request.raw)
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        headers = {"Content-Type": "application/json", **request.headers, **self._headers}
        try:
            try:
                connection.request("POST", request.path, request.body, headers)
            except (BrokenPipeError, ConnectionResetError):
                # A server may reply before it has read a body that is too long.
                connection.sock.settimeout(SECONDS)
            reply = connection.getresponse()
            return reply.status, reply.read()
        except (OSError, http.client.HTTPException) as error:
            return 0, repr(error).encode()
        finally:
            connection.close()

    def get(self, path: str) -> tuple[int, bytes]:
        """The status and body of a GET."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=SECONDS)
        try:
            connection.request("GET", path, headers=self._headers)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()

    def _cut(self, raw: bytes) -> tuple[int, bytes]:
        """Send bytes and hang up."""
        try:
            with socket.create_connection((self.host, self.port), SECONDS) as sock:
                sock.sendall(raw)
                sock.settimeout(0.05)
                found = sock.recv(65536)
        except OSError:
            found = b""
        status = re.match(rb"HTTP/1\.[01] (\d{3})", found)
        # Nobody waits for a reply here, so none is no finding.
        return (int(status[1]) if status else -1), found

    def memory(self) -> float | None:
        """The server's resident memory in bytes, if it reports it."""
        status, body = self.get("/metrics")
        found = re.search(rb"^process_resident_memory_bytes (\S+)", body, re.MULTILINE) if status == 200 else None
        return float(found[1]) if found else None


def answer_of(body: bytes) -> str:
    """The text of a chat completion."""
    return json.loads(body)["choices"][0]["message"]["content"]


def abuse(target: Target, attack: Attack, requests: int, clients: int) -> tuple[Findings, list[float]]:
    """Send all requests; returns what was found, and the server's memory over time."""
    known = []
    for number in range(WITNESSES):
        status, body = target.send(attack.proper(number))
        if status != 200:
            sys.exit(f"abuse.py: a proper question was answered with {status}: {body[:500]!r}")
        known.append(answer_of(body))
    if len(set(known)) == 1:
        print("note: all proper questions have the same answer, so foreign answers would not be noticed.")
    findings, memory, lock = Findings(), [], threading.Lock()
    started = time.monotonic()

    def one(number: int) -> None:
        is_proper = number % EVERY == 0
        witness = number // EVERY
        request = attack.proper(witness) if is_proper else attack.request(number)
        status, body = target.send(request)
        with lock:
            findings.statuses[status] += 1
            findings.kinds[request.kind] += 1
            if status >= 500:
                findings.failed.append(f"{number} ({request.kind}): {status} {body[:200]!r}")
            elif status == 0:
                findings.silent.append(f"{number} ({request.kind}): {body[:200]!r}")
            elif status == 429:
                findings.busy += 1
            elif is_proper and (status != 200 or answer_of(body) != known[witness % WITNESSES]):
                findings.foreign.append(f"{number}: {status} {body[:200]!r}")
            elif status == 200 and not is_proper:
                findings.accepted[request.kind] += 1
            if number % max(1, requests // 50) == 0:
                done = sum(findings.statuses.values())
                used = target.memory()
                memory.extend([used] if used is not None else [])
                shown_memory = "" if used is None else f", server {used / 2**20:.0f} MiB"
                print(f"{done}/{requests} in {time.monotonic() - started:.0f} s{shown_memory}", flush=True)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(one, range(requests)))
    return findings, memory


def main() -> int:
    """Run; returns 1 if anything was found."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("url", help="address of a server on this machine")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4, help="requests at a time")
    parser.add_argument("--token", help="sent as Authorization: Bearer TOKEN")
    parser.add_argument("--model", help="which model to ask (default: the first one)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="send this request alone, and print the reply")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results to this file")
    given = parser.parse_args()
    target = Target(given.url, given.token)
    model = given.model or json.loads(target.get("/v1/models")[1])["data"][0]["id"]
    attack = Attack(model, target.port, given.seed)
    if given.only is not None:
        request = attack.request(given.only)
        print(request.kind, request.path, request.headers, (request.raw or request.body)[:2000])
        print(*target.send(request))
        return 0
    findings, memory = abuse(target, attack, given.requests, given.clients)
    return report(findings, memory, given.requests, given.json)


def report(findings: Findings, memory: list[float], requests: int, path: Path | None) -> int:
    """Print what was found, and write it; returns 1 if anything was found."""
    rows = [
        {"name": "status of 500 or more", "value": len(findings.failed), "goal": "<= 0"},
        {"name": "no reply", "value": len(findings.silent), "goal": "<= 0"},
        {"name": "another answer than before", "value": len(findings.foreign), "goal": "<= 0"},
    ]
    later = memory[len(memory) // 5 :]
    if len(later) > 2:
        growth = sum(later[-3:]) / sum(later[:3]) - 1
        rows.append({"name": "growth of memory", "value": round(growth, 4), "goal": f"<= {GROWTH}"})
    for row in rows:
        row |= {"unit": "share" if row["name"] == "growth of memory" else "requests"}
        row["met"] = float(row["value"]) <= float(str(row["goal"]).removeprefix("<= "))
    print(f"\n{requests} requests: {dict(sorted(findings.statuses.items()))} (-1: cut off on purpose)")
    print(f"told to come back (429): {findings.busy}")
    print(f"malformed and answered with 200: {dict(findings.accepted)} of {dict(findings.kinds)}")
    for name, found in (("500", findings.failed), ("no reply", findings.silent), ("other answer", findings.foreign)):
        for line in found[:20]:
            print(f"{name}: request {line}")
    for row in rows:
        print(f"{'ok ' if row['met'] else 'BAD'} {row['name']}: {row['value']} (goal {row['goal']})")
    if path is not None:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0 if all(row["met"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
