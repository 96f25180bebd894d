"""Files at addresses: a file system in memory, and real servers on loopback, of HTTP and of S3's protocol."""

import functools
import hashlib
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import fsspec
import pytest

from tests.data.test_tars import write as write_tar
from tests.data.test_web_pages import png
from vislang.cli import main
from vislang.data import remote
from vislang.data.problems import DataError
from vislang.data.remote import RemoteError, RemoteFile, local_copy, within
from vislang.data.sources import load_source, open_source
from vislang.document import Image, MissingMedium
from vislang.example import Text
from vislang.tasks.catalogue import open_task

LISTING = """<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
<Name>bucket</Name><KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated>{contents}
</ListBucketResult>"""


class Handler(SimpleHTTPRequestHandler):
    """Files with ETags, and of ``bucket`` a listing as S3 gives it. Notes each request; fails as often as told."""

    def do_GET(self):
        self.server.requests.append((self.command, self.path.partition("?")[0]))
        if self.server.failures:
            self.server.failures -= 1
            self.send_error(503)
        elif "list-type=2" in self.path:
            self._list()
        else:
            super().do_GET() if self.command == "GET" else super().do_HEAD()

    do_HEAD = do_GET

    def _list(self):
        found = sorted(path for path in (self.server.folder / "bucket").iterdir() if path.is_file())
        entries = (
            f"<Contents><Key>{path.name}</Key><Size>{path.stat().st_size}</Size>"
            f'<LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>"{path.name}"</ETag></Contents>'
            for path in found
        )
        body = LISTING.format(count=len(found), contents="".join(entries)).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        super().end_headers()
        self.wfile.write(body)

    def end_headers(self):
        path = self.server.folder / self.path.partition("?")[0].lstrip("/")
        if path.is_file():
            self.send_header("ETag", f'"{hashlib.md5(path.read_bytes()).hexdigest()}"')
        super().end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of a folder on loopback, with the list of its requests."""
    monkeypatch.setattr(remote, "WAIT", 0.001)
    folder = tmp_path / "served"
    (folder / "bucket").mkdir(parents=True)
    served = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    served.folder, served.requests, served.failures = folder, [], 0
    served.address = f"http://127.0.0.1:{served.server_port}"
    thread = threading.Thread(target=served.serve_forever, args=(0.01,))
    thread.start()
    yield served
    served.shutdown()
    served.server_close()
    thread.join()


@pytest.fixture(autouse=True)
def _forget():
    remote._version.cache_clear()


def fill(folder):
    (folder / "images").mkdir(exist_ok=True)
    (folder / "images" / "a b.png").write_bytes(png("red"))
    records = [{"image": "images/a b.png", "text": "a caption"}, {"image": "images/none.png", "text": "gone"}]
    (folder / "my.jsonl").write_text("\n".join(map(json.dumps, records)))


def test_records_and_media_over_http(server):
    fill(server.folder)
    address, problems = f"{server.address}/my.jsonl", []
    (example,) = load_source(address, problems=problems)
    assert example.target == Text(("a caption",))
    assert example.source == f"{address}:1"
    for task in (f"captions:{address}", f"retrieval:{address}", address):
        assert len(open_task(task, problems=[]).examples("all")) == 1
    image = example.media[0]
    assert image.name == f"{server.address}/images/a b.png"
    assert image.decode().getpixel((3, 3)) == (255, 0, 0)
    assert image.content_hash == Image(png("red")).content_hash
    assert [str(problem) for problem in problems] == [
        f"{address}:2: {server.address}/images/none.png: no such file. Check the path. In a JSON Lines file, paths are "
        "relative to that file."
    ]
    assert problems[0].kind == "missing media"
    assert server.requests.count(("GET", "/images/a%20b.png")) == 1
    assert open_source(address, indexed=True)[0] == example
    assert [e.prompt.parts for e in load_source(image.name)] == [(image,)]


def test_a_file_is_read_again_when_it_has_changed(server):
    path = server.folder / "a.txt"
    path.write_text("one")
    address = f"{server.address}/a.txt"
    first = local_copy(address)
    assert local_copy(address) == first
    remote._version.cache_clear()
    assert local_copy(address).read_text() == "one"
    assert server.requests.count(("GET", "/a.txt")) == 1
    path.write_text("two")
    remote._version.cache_clear()
    assert local_copy(address).read_text() == "two"
    assert not first.exists()
    # A copy that was cut short is not taken.
    local_copy(address).write_text("t")
    assert local_copy(address).read_text() == "two"


def test_a_failing_server_is_asked_again_and_is_no_fault_of_a_record(server):
    (server.folder / "a.png").write_bytes(png("red"))
    address = f"{server.address}/a.png"
    server.failures = 5
    assert Image(RemoteFile(address)).decode().size == (32, 32)
    remote._version.cache_clear()
    server.failures = 1000
    with pytest.raises(RemoteError, match=r"a\.png: cannot be read after 4 tries \(503"):
        Image(RemoteFile(address)).read()


def test_what_is_not_there(server):
    missing = Image(RemoteFile(f"{server.address}/none.png"))
    with pytest.raises(MissingMedium):
        missing.read()
    assert not missing.is_there
    with pytest.raises(DataError, match=r"none\.jsonl: no such file"):
        load_source(f"{server.address}/none.jsonl")
    with pytest.raises(DataError, match=r"notes\.pdf: a file of no known kind"):
        load_source(f"{server.address}/notes.pdf")
    server.shutdown()
    server.server_close()
    with pytest.raises(RemoteError, match="Is there a connection"):
        missing.read()


def test_check_and_show_over_http(server, tmp_path, capsys):
    fill(server.folder)
    address = f"{server.address}/my.jsonl"
    assert main(["data", "check", address, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert (found["good"], [bad["kind"] for bad in found["bad"]]) == (1, ["missing media"])
    assert main(["data", "show", address, "-o", str(tmp_path / "page.html")]) == 0
    assert "1 of 1 good records, 1 bad (" in capsys.readouterr().out
    assert (tmp_path / "page.html").read_text().count("data:image/webp;base64,") == 1


def test_s3_with_a_pattern(server, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for name in "ab":
        write_tar(server.folder / "bucket" / f"{name}.tar", {"1.png": png("red"), "1.txt": name.encode()})
    (server.folder / "bucket" / "c.txt").write_text("no tar")
    first, second = load_source("s3://bucket/*.tar")
    assert [e.target.references for e in (first, second)] == [("a",), ("b",)]
    assert first.media[0].name == "s3://bucket/a.tar: 1.png"
    assert first.media[0].decode().size == (32, 32)
    with pytest.raises(DataError, match=r"s3://bucket/d\*\.tar: no such file"):
        load_source("s3://bucket/d*.tar")
    with pytest.raises(DataError, match=r"s3://bucket/d\.tar: no such file"):
        load_source("s3://bucket/d.tar")


def test_a_file_system_of_fsspec():
    fs = fsspec.filesystem("memory")
    fs.pipe("/set/images/0.png", png("red"))
    records = [{"image": "images/0.png", "label": "red"}, {"image": "memory://set/images/0.png", "label": "x"}]
    fs.pipe("/set/my.jsonl", "\n".join(map(json.dumps, records)).encode())
    first, second = load_source("memory://set/my.jsonl")
    assert first.media == second.media == (Image(RemoteFile("memory://set/images/0.png")),)
    pairs = [{"image": "images/0.png", "text": "red"}]
    fs.pipe("/set/pairs.jsonl", json.dumps(pairs[0]).encode())
    assert load_source("pairs:memory://set/pairs.jsonl")[0].media == first.media
    assert len(load_source("memory://set/*.jsonl")) == 3
    fs.rm("/set", recursive=True)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("1.png", "https://host/a/b/1.png"),
        ("/1.png", "https://host/1.png"),
        ("../../../1.png", "https://host/1.png"),
        ("s3://bucket/1.png", "s3://bucket/1.png"),
    ],
)
def test_media_are_relative_to_their_file(name, wanted):
    assert within("https://host/a/b/", name) == RemoteFile(wanted)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "aiohttp", None)
    with pytest.raises(RemoteError, match=r"pip install 'vislang\[remote\]'"):
        local_copy("https://127.0.0.1/a.jsonl")
