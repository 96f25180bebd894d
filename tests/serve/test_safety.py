"""What strangers may do: token, hosts, images, bodies, caps."""

from __future__ import annotations

import copy
import pickle
import re
import socket
import struct
import time
import zlib
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import torch

from tests.models.test_saved_models import IMAGES, SAVED, TOWERS
from tests.serve.running import call, data_url, encoded, picture, running, said, shown, url_of
from vislang.cli import main
from vislang.commands.by_server import token_of
from vislang.commands.serve import Serve, Source, named
from vislang.document import Document, Image
from vislang.errors import UserError
from vislang.models.loading import load
from vislang.serve.limits import Limits
from vislang.serve.security import HEADERS, host_name, is_loopback

TOKEN = "s3cret"
LIMITS = Limits(
    body_bytes=200_000,
    bodies_bytes=500_000,
    body_seconds=1.0,
    images=3,
    image_pixels=10_000,
    request_pixels=15_000,
    messages=5,
    characters=300,
    texts=4,
    new_tokens=5,
    returns=2,
)


@pytest.fixture(scope="module")
def guarded(models):
    """A server with a token and small limits."""
    chosen = {name: models[name] for name in ("flamingo", "dual", "vilbert")}
    with running(chosen, LIMITS, token=TOKEN, hosts=["localhost", "Box.local"]) as found:
        yield found


def ask(address: str, messages: list[dict], path: str = "/v1/chat/completions", **settings):
    body = {"model": "flamingo", "messages": messages, **settings}
    return call(address, path, body, Authorization=f"Bearer {TOKEN}")


def with_url(url: str) -> list[dict]:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


# Who may ask


def test_every_route_but_health_and_the_page_needs_the_token(guarded):
    paths = call(guarded, "/openapi.json", Authorization=f"Bearer {TOKEN}").json["paths"]
    routes = [(path, method) for path, methods in paths.items() for method in methods]
    assert len(routes) > 9
    for path, method in [
        *routes,
        ("/openapi.json", "get"),
        ("/none", "get"),
        ("/page", "get"),
        ("/page/none.js", "get"),
        ("/v1/models/x", "delete"),
    ]:
        body = {} if method == "post" else None
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}, {"Authorization": "Bearer "}):
            reply = call(guarded, path.replace("{name}", "x"), body, method.upper(), **header)
            if path == "/health":
                assert reply.status == 200
            else:
                assert reply.status == 401, path
                assert reply.error["code"] == "invalid_api_key"
                assert reply.headers["www-authenticate"] == "Bearer"
    assert call(guarded, "/v1/models", Authorization=f"Bearer {TOKEN}").status == 200
    assert call(guarded, "/v1/models", Authorization=f"bearer {TOKEN}").status == 200


def test_without_a_token_a_server_listens_on_this_machine_alone():
    assert Serve(["model"]).host == "127.0.0.1"
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"):
        Serve(["model"], host=host)._must_be_safe(None)
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example.org", ""):
        with pytest.raises(UserError, match="--token, or --insecure"):
            Serve(["model"], host=host)._must_be_safe(None)
        Serve(["model"], host=host)._must_be_safe(TOKEN)
        Serve(["model"], host=host, insecure=True)._must_be_safe(None)
    for token in ("", "a b", "ä", "a\n"):
        with pytest.raises(UserError, match="--token"):
            token_of(token)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--host", "0.0.0.0"], "other machines can reach this address"),
        (["--port", "99999"], "a port is a number"),
        (["--token", ""], "printable ASCII characters"),
        (["--max-images", "0"], "--max-images must be above 0"),
        (["--allow-origin", "*"], "any web page"),
        (["x=none", "x=none"], "two models are called x"),
        (["none"], "no such folder"),
    ],
)
def test_mistakes_are_found_before_a_model_is_opened(tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.delenv("VISLANG_TOKEN", raising=False)
    assert main(["serve", str(tmp_path / "none"), *more]) == 2
    assert message in capsys.readouterr().err


def test_names_of_models(tmp_path):
    folder = tmp_path / "shapes" / "model"
    folder.mkdir(parents=True)
    assert named([str(folder), f"a={folder}", "org/name"]) == {
        "shapes": Source(str(folder)),
        "a": Source(str(folder)),
        "org/name": Source("org/name"),
    }


def test_only_known_names_and_addresses_reach_the_server(guarded):
    """A page in a browser reaches a server on its user's machine by a name of its own that resolves to it."""
    token = {"Authorization": f"Bearer {TOKEN}"}
    for host in ("127.0.0.1:80", "localhost", "LOCALHOST:9", "[::1]:8000", "192.168.0.7", "box.local"):
        assert call(guarded, "/v1/models", Host=host, **token).status == 200, host
    for host in ("evil.example", "localhost.evil.example:8000", "box.local.evil.example", "", "127.0.0.1.nip.io"):
        reply = call(guarded, "/v1/models", Host=host, **token)
        assert (reply.status, reply.error["code"]) == (403, "host_not_allowed"), host
    assert host_name("[::1]:80") == "::1"
    assert not is_loopback("::ffff:8.8.8.8")


def test_other_origins_read_nothing_unless_they_are_named(guarded, models):
    asked = {"Origin": "https://evil.example", "Access_Control_Request_Method": "POST"}
    assert "access-control-allow-origin" not in call(guarded, "/v1/models", None, "OPTIONS", **asked).headers
    with running({"dual": models["dual"]}, token=TOKEN, origins=["https://good.example"]) as address:
        good = call(address, "/v1/embeddings", None, "OPTIONS", **{**asked, "Origin": "https://good.example"})
        assert good.headers["access-control-allow-origin"] == "https://good.example"
        assert "access-control-allow-credentials" not in good.headers
        assert "access-control-allow-origin" not in call(address, "/v1/models", None, "OPTIONS", **asked).headers
        # Only the token lets a request through, wherever it comes from.
        assert call(address, "/v1/models", Origin="https://good.example").status == 401


def test_a_form_of_another_site_is_not_read(guarded):
    """A browser sends these without asking the server first."""
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        reply = call(guarded, "/v1/embeddings", b'{"model": "dual", "input": "x"}', Content_Type=kind,
                     Authorization=f"Bearer {TOKEN}")  # fmt: skip
        assert (reply.status, reply.error["code"]) == (415, "unsupported_media_type")


def test_every_reply_keeps_a_browser_from_running_it(guarded):
    token = {"Authorization": f"Bearer {TOKEN}"}
    page = "<script>alert(1)</script>"
    for reply in (
        call(guarded, "/health"),
        call(guarded, "/v1/models", **token),
        call(guarded, f"/{page}"),
        call(guarded, "/v1/embeddings", {"model": page, "input": "x"}, **token),
        call(guarded, "/v1/embeddings", {"model": "dual", "input": page}, **token),
        call(guarded, "/v1/models", Host=page),
        call(guarded, "/metrics", **token),
    ):
        for name, value in HEADERS.items():
            assert reply.headers[name.lower()] == value
        assert reply.headers["content-type"].split(";")[0] in ("application/json", "text/plain")
        assert page.encode() not in reply.content or reply.headers["content-type"] == "application/json"
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "unsafe" not in policy


# Images


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/a.png",
        "https://example.org/a.png",
        "HTTP://2130706433/",
        "file:///etc/passwd",
        "FILE:/etc/passwd",
        "/etc/passwd",
        "../../etc/passwd",
        "ftp://example.org/a.png",
        "//example.org/a.png",
        "gopher://x",
        "javascript:1",
        "",
        "data:text/html;base64,PHA+",
        "data:image/png,abc",
        " data:image/png;base64,AAAA",
        "data:,x",
        "data:image/svg+xml;utf8,<svg/>",
    ],
)
def test_an_image_is_a_data_url(guarded, url):
    reply = ask(guarded, with_url(url))
    assert reply.status == 400
    assert reply.error["param"] == "messages[0].content[0].image_url"
    assert reply.error["code"] in ("invalid_image_url", "remote_images_off")
    assert "/etc/passwd" not in reply.error["message"]
    embedded = call(
        guarded, "/v1/embeddings", {"model": "dual", "input": [{"image": url}]}, Authorization=f"Bearer {TOKEN}"
    )
    assert embedded.status == 400


def test_paths_of_files_are_texts(guarded):
    """Even where a model takes paths, a request has none."""
    path = str(IMAGES[0].source)
    assert Path(path).is_file()
    assert ask(guarded, with_url(path)).status == 400
    assert ask(guarded, with_url(f"file://{path}")).status == 400


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, rows: bytes = b"") -> bytes:
    """A PNG with this size in its header."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def resident() -> int:
    """The memory of this process, in bytes; the server runs in it."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def frames(form: str, **more) -> bytes:
    return encoded(picture(0), form, save_all=True, append_images=[picture(1), picture(2)], **more)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (png(12_000, 12_000, bytes(3 * 12_000 * 100)), "image_too_large"),
        (png(2**31 - 1, 2**31 - 1), "image_too_large"),
        (png(200, 51), "image_too_large"),
        (encoded(picture(0, 120), "GIF"), "image_too_large"),
        (frames("GIF"), "animated_image"),
        (frames("PNG"), "animated_image"),
        (frames("WEBP"), "animated_image"),
        (frames("TIFF"), "invalid_image"),
        (encoded(picture(0), "TIFF"), "invalid_image"),
        (encoded(picture(0), "PDF"), "invalid_image"),
        (encoded(picture(0), "EPS"), "invalid_image"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "invalid_image"),
        (b"", "invalid_image"),
        (b"\x89PNG\r\n\x1a\n", "invalid_image"),
        (encoded(picture(0))[:60], "invalid_image"),
        (encoded(picture(0), "JPEG")[:400], "invalid_image"),
    ],
)
def test_images_that_are_no_still_pictures_of_usual_size(guarded, content, code):
    before = resident()
    reply = ask(guarded, with_url(data_url(content)))
    assert (reply.status, reply.error["code"]) == (400, code)
    assert resident() - before < 50 * 2**20


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "MPO"])
def test_still_pictures_of_usual_formats_are_read(guarded, form):
    more = {"save_all": True, "append_images": [picture(1)]} if form == "MPO" else {}
    assert ask(guarded, with_url(data_url(encoded(picture(0), form, **more)))).status == 200


def test_many_images_in_a_request(guarded):
    many = [{"type": "image_url", "image_url": {"url": url_of(n)}} for n in range(100)]
    reply = ask(guarded, [{"role": "user", "content": many}])
    assert (reply.status, reply.error["code"]) == (400, "too_many_images")
    large = [{"type": "image_url", "image_url": {"url": data_url(encoded(picture(n, 90)))}} for n in range(2)]
    assert ask(guarded, [{"role": "user", "content": large[:1]}]).status == 200
    assert ask(guarded, [{"role": "user", "content": large}]).error["code"] == "image_too_large"
    several = {"model": "dual", "input": [{"image": url_of(n)} for n in range(4)]}
    assert call(guarded, "/v1/embeddings", several, Authorization=f"Bearer {TOKEN}").error["code"] == "too_many_images"


# Bodies


def raw(address: str, *parts: bytes, pause: float = 0.0) -> bytes:
    """Send bytes; returns what comes back until the server closes, or for 10 s."""
    where = urlsplit(address)
    with socket.create_connection((where.hostname, where.port), 10) as sock:
        try:
            for part in parts:
                sock.sendall(part)
                time.sleep(pause)
        except (BrokenPipeError, ConnectionResetError):
            pass
        received = b""
        try:
            while b"\r\n\r\n" not in received or b"}" not in received:
                more = sock.recv(65536)
                if not more:
                    break
                received += more
        except (ConnectionResetError, TimeoutError):
            pass
        return received


HEAD = (
    f"POST /v1/embeddings HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    "Content-Type: application/json\r\n"
)


def test_a_body_is_counted_while_it_arrives(guarded):
    announced = raw(guarded, f"{HEAD}Content-Length: 999999999\r\n\r\n".encode())
    assert b" 413 " in announced.split(b"\r\n")[0]
    piece = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    started = time.monotonic()
    streamed = raw(guarded, f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode(), *[piece] * 40)
    assert b" 413 " in streamed.split(b"\r\n")[0]
    assert b"body_too_large" in streamed
    assert time.monotonic() - started < 5


def test_a_body_that_does_not_arrive(guarded):
    reply = raw(guarded, f"{HEAD}Content-Length: 100\r\n\r\n{{".encode())
    assert b" 408 " in reply.split(b"\r\n")[0]


def test_the_bodies_of_all_requests_together(guarded):
    """Two bodies that are not complete are held, so the next one is told to come back."""
    where = urlsplit(guarded)
    started = f"{HEAD}Content-Length: 199999\r\n\r\n".encode() + b" " * 190_000
    held = [socket.create_connection((where.hostname, where.port)) for _ in range(2)]
    for sock in held:
        sock.sendall(started)
    time.sleep(0.2)
    reply = raw(guarded, started)
    assert b" 429 " in reply.split(b"\r\n")[0]
    assert b"retry-after: 1" in reply.lower()
    for sock in held:
        sock.close()
    time.sleep(0.2)
    # They no longer count once they have gone.
    body = {"model": "dual", "input": "x" * 100}
    assert call(guarded, "/v1/embeddings", body, Authorization=f"Bearer {TOKEN}").status == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"x"',
        b"\xff\xfe",
        b"[" * 50_000,
        b'{"model":' + b"9" * 10_000 + b"}",
        b'{"model": "dual", "input": NaN}',
        b'{"model": "dual", "input": "\\ud800"}',
        b'{"model": 1, "input": "x"}',
        b'{"model": "dual", "input": {"text": "x"}}',
        b'{"model": "dual", "input": ["x", {"image": 3}]}',
    ],
)
def test_a_body_that_makes_no_sense(guarded, body):
    reply = call(guarded, "/v1/embeddings", body, "POST", Authorization=f"Bearer {TOKEN}")
    assert reply.status in (400, 415), reply.content
    assert set(reply.error) == {"message", "type", "param", "code"}


# Caps


def test_caps(guarded):
    asked = ask(guarded, [shown(0)], max_tokens=10**9)
    assert asked.json["usage"]["completion_tokens"] == 5
    assert asked.json["choices"][0]["finish_reason"] == "length"
    assert ask(guarded, [shown(0)], n=3, temperature=1).error["param"] == "n"
    turns = [{"role": "user", "content": "what?"}, said("red")] * 3 + [shown(0)]
    assert ask(guarded, turns).error["code"] == "too_many_messages"
    assert ask(guarded, [shown(0, "x" * 301)]).error["code"] == "context_length_exceeded"
    assert ask(guarded, [shown(0)], allowed_answers=list("abcde")).error["param"] == "allowed_answers"
    assert ask(guarded, [shown(0)], allowed_answers=["a" * 200, "b" * 200]).error["param"] == "allowed_answers"
    token = {"Authorization": f"Bearer {TOKEN}"}
    texts = {"model": "dual", "query": "x", "documents": ["a"] * 5}
    assert call(guarded, "/v1/rerank", texts, **token).error["param"] == "documents"
    long = {"model": "dual", "input": ["a" * 200, "b" * 200]}
    assert call(guarded, "/v1/embeddings", long, **token).error["param"] == "input"


# Text and pickles


@pytest.mark.parametrize("spelled", ["<image>", "<|endofchunk|>", "</s>", "<s>", "<pad>"])
def test_text_that_spells_a_special_token_is_text(flamingo, spelled):
    collate = copy.copy(flamingo.collate)
    collate.tokenizer = copy.deepcopy(flamingo.tokenizer)
    collate.tokenizer.add_special_tokens({"additional_special_tokens": ["<image>", "<|endofchunk|>"]})
    special = {collate.media_token, *collate.tokenizer.all_special_ids}
    image = Image(encoded(picture(0)))
    batch, plain = (
        collate.documents([Document(["what ", image, text])]) for text in (f"is {spelled} this?", "is this?")
    )
    found, expected = batch.input_ids[0].tolist(), plain.input_ids[0].tolist()
    assert [token for token in found if token in special] == [token for token in expected if token in special]
    assert spelled in collate.tokenizer.decode([token for token in found if token not in special])
    assert not special & set(collate.answer(Document(["x"]), spelled)[:-1])


def test_text_that_spells_bert_s_tokens_is_text(models):
    words = models["vilbert"].model.inputs.words
    ids = words([("the [MASK] [SEP] shape",)]).ids[0].tolist()
    assert words.mask not in ids
    assert ids.count(words.end) == 1
    text = models["data2vec"].model.inputs.text
    assert text.mask_id not in text.tokens("the <mask> </s> fox")
    assert text.end not in text.tokens("the <mask> </s> fox")


def test_no_pickle_is_read(tmp_path, monkeypatch):
    """Neither while a model is opened nor while it answers; a folder with pickled weights is no model."""

    def refused(*arguments, **settings):
        raise AssertionError("a pickle was read")

    monkeypatch.setattr(pickle, "loads", refused)
    monkeypatch.setattr(pickle, "load", refused)
    monkeypatch.setattr(pickle, "Unpickler", refused)
    monkeypatch.setattr(torch, "load", refused)
    from vislang.serve.served import Served

    opened = load(SAVED / "flamingo", **TOWERS)
    with running({"flamingo": Served("flamingo", opened)}) as address:
        assert call(address, "/v1/chat/completions", {"model": "flamingo", "messages": [shown(0)]}).status == 200
        pickled = pickle.dumps({"a": 1})
        assert ask(address, with_url(data_url(pickled))).error["code"] == "invalid_image"


def test_what_is_logged_and_measured_has_no_words_of_a_client(guarded):
    token = {"Authorization": f"Bearer {TOKEN}"}
    call(guarded, "/v1/models/secret-words", **token)
    call(guarded, "/secret-words", **token)
    text = call(guarded, "/metrics", **token).content.decode()
    assert "secret-words" not in text
    assert re.search(r'vislang_requests_total{route="/v1/models/\{name:path\}",status="404"} \d', text)
    assert "vislang_waiting_requests 0.0" in text
    assert "process_resident_memory_bytes" in text
