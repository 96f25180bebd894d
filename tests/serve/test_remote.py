"""Remote images: what is fetched, and the ways around the rules that have been found in other servers."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from tests.serve.running import call, encoded, picture, running
from vislang.serve import remote
from vislang.serve.errors import ApiError

PNG = encoded(picture(0))


@contextmanager
def serving(*pieces: bytes, pause: float = 0.0):
    """The port of a server that sends these bytes to everyone, and the requests that it received."""
    received: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            while True:
                try:
                    client, _ = listener.accept()
                except OSError:
                    return
                with client:
                    try:
                        received.append(client.recv(65536))
                        for piece in pieces:
                            client.sendall(piece)
                            time.sleep(pause)
                    except OSError:
                        pass

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1], received
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(timeout=5)


def head(status: str = "200 OK", *lines: str) -> bytes:
    return "\r\n".join([f"HTTP/1.1 {status}", "Content-Type: image/png", "Connection: close", *lines, "", ""]).encode()


@pytest.fixture
def reach(monkeypatch):
    """Let fetch reach a port of this machine, as if its address were public."""

    def to(port: int) -> None:
        monkeypatch.setattr(remote, "PORTS", {"http": port, "https": 443})
        monkeypatch.setattr(remote, "is_public", lambda address: str(address) == "127.0.0.1")

    return to


def failure(url: str, hosts=("*",)) -> ApiError:
    with pytest.raises(ApiError) as caught:
        remote.fetch(url, hosts)
    return caught.value


def test_an_image_of_a_host_that_is_listed(reach):
    with serving(head(), PNG) as (port, received):
        reach(port)
        assert remote.fetch("http://localhost/a%20b.png?size=1#x", ["localhost"]) == PNG
        (request,) = received
        assert request.startswith(b"GET /a%20b.png?size=1 HTTP/1.1\r\n")
        assert b"Host: localhost" in request
        assert b"Cookie" not in request
        assert failure("http://localhost/a.png", ["example.org"]).code == "remote_image_not_allowed"
        assert len(received) == 1


@pytest.mark.parametrize(
    ("host", "rules", "allowed"),
    [
        ("example.org", ["example.org"], True),
        ("EXAMPLE.org.", ["Example.org"], True),
        ("a.example.org", [".example.org"], True),
        ("a.example.org", ["example.org"], False),
        ("example.org.evil.net", ["example.org", ".example.org"], False),
        ("evilexample.org", [".example.org", "example.org"], False),
        ("anything", ["*"], True),
    ],
)
def test_hosts_are_listed_by_name_or_by_domain(host, rules, allowed, monkeypatch):
    def resolve(*arguments, **more):
        raise OSError("no such host")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    expected = "remote_image_failed" if allowed else "remote_image_not_allowed"
    assert failure(f"http://{host}/a.png", rules).code == expected


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://localhost/",
        "http://127.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://0/",
        "http://0.0.0.0/",
        "http://[::1]/",
        "http://[::]/",
        "http://[::ffff:127.0.0.1]/",
        "http://[::ffff:7f00:1]/",
        "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://[fd00:ec2::254]/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://100.64.0.1/",
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "http://192.0.2.1/",
        "http://198.18.0.1/",
        "http://[ff02::1]/",
    ],
)
def test_only_public_addresses_are_connected_to(url, monkeypatch):
    """Also where every host is allowed."""
    connected = []
    monkeypatch.setattr(socket, "create_connection", lambda *arguments, **more: connected.append(arguments))
    error = failure(url)
    assert error.code in ("remote_image_not_allowed", "remote_image_failed"), url
    assert not connected


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/",
        "gopher://example.org/",
        "http://",
        "http:///x",
        "http://example.org:22/",
        "http://example.org:99999/",
        "http://user:password@example.org/",
        "http://example.org@127.0.0.1/",
        "http://example.org\\@127.0.0.1/",
        "http://example.org/a b",
        "http://example.org/\r\nHost: evil",
        "http://ex\u00e4mple.org/",
        "http://[::1",
        "//example.org/",
        "http://example.org\t/",
    ],
)
def test_addresses_that_are_not_read(url, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: pytest.fail("a name was looked up"))
    assert failure(url).code == "remote_image_not_allowed"


def test_public_addresses():
    assert remote.is_public(ip_address("93.184.216.34"))
    assert remote.is_public(ip_address("2606:2800:220:1::1"))
    assert remote.is_public(ip_address("::ffff:93.184.216.34"))


def test_the_address_that_was_checked_is_the_one_that_is_connected_to(monkeypatch):
    """A name server that first answers with a public address, and then with this machine's."""
    answers = iter(["93.184.216.34", "127.0.0.1", "127.0.0.1"])
    connected = []

    def resolve(host, port, *arguments, **more):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def connect(address, timeout):
        connected.append(address)
        raise OSError("no network in tests")

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(socket, "create_connection", connect)
    assert failure("http://rebinding.example/a.png").code == "remote_image_failed"
    assert connected == [("93.184.216.34", 80)]


def test_one_private_address_among_public_ones_is_enough(monkeypatch):
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 80)) for address in ("93.184.216.34", "10.0.0.1")]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **more: found)
    assert failure("http://two.example/a.png").code == "remote_image_not_allowed"


def test_redirects_are_not_followed(reach):
    with (
        serving(b"secret") as (_, secret),
        serving(head("302 Found", "Location: http://127.0.0.1/")) as (port, received),
    ):
        reach(port)
        error = failure("http://localhost/a.png")
        assert "redirects are not followed" in error.detail
        assert len(received) == 1
        assert not secret


@pytest.mark.parametrize(
    "reply",
    [
        head("404 Not Found"),
        head("200 OK", "Content-Encoding: gzip") + b"x",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 500 + b"\r\n",
        b"",
    ],
)
def test_replies_that_are_no_image(reach, reply):
    with serving(reply) as (port, _):
        reach(port)
        assert failure("http://localhost/a.png").code == "remote_image_failed"


def test_size_and_time_are_capped(reach, monkeypatch):
    monkeypatch.setattr(remote, "MOST_BYTES", 100_000)
    with serving(head(), *[b"x" * 50_000] * 5) as (port, _):
        reach(port)
        assert "more than 100,000 bytes" in failure("http://localhost/a.png").detail
    monkeypatch.setattr(remote, "MOST_SECONDS", 0.4)
    # Each piece arrives in time, and all of them would not; the headers may be slow as well.
    for pieces in ([head(), *[b"x"] * 100], [bytes([byte]) for byte in head() + PNG]):
        with serving(*pieces, pause=0.1) as (port, _):
            reach(port)
            started = time.monotonic()
            assert failure("http://localhost/a.png").code == "remote_image_failed"
            assert time.monotonic() - started < 2


def test_a_handshake_takes_no_longer_than_everything_may(reach, monkeypatch):
    monkeypatch.setattr(remote, "MOST_SECONDS", 0.4)
    # The beginning of a record of TLS, a byte at a time.
    with serving(*[bytes([byte]) for byte in b"\x16\x03\x03\x40\x00" + bytes(40)], pause=0.1) as (port, _):
        reach(port)
        monkeypatch.setitem(remote.PORTS, "https", port)
        started = time.monotonic()
        assert failure("https://localhost/a.png").code == "remote_image_failed"
        assert time.monotonic() - started < 2


def test_a_certificate_that_nobody_signed(reach, monkeypatch):
    with serving(head(), PNG) as (port, _):
        reach(port)
        monkeypatch.setitem(remote.PORTS, "https", port)
        assert "SSLError" in failure("https://localhost/a.png").detail


def test_a_server_with_a_list_of_hosts(reach, models):
    def fetch(url: str) -> bytes:
        return remote.fetch(url, ["localhost"])

    body = {"model": "dual", "input": [{"image": "http://localhost/a.png"}]}
    with serving(head(), PNG) as (port, _), running({"dual": models["dual"]}, fetch=fetch) as address:
        reach(port)
        assert call(address, "/v1/embeddings", body).status == 200
        body["input"][0]["image"] = "http://example.org/a.png"
        reply = call(address, "/v1/embeddings", body)
        assert (reply.status, reply.error["param"]) == (400, "input[0].image")
        body["input"][0]["image"] = "file:///etc/passwd"
        assert call(address, "/v1/embeddings", body).error["code"] == "invalid_image_url"
