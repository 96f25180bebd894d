"""The process that a user starts, with the curl line and the Python client of docs/serve.md."""

from __future__ import annotations

import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from urllib.parse import urlsplit

import pytest

from tests.run_docs import ROOT, blocks
from tests.serve.running import call, encoded, picture, shown


@pytest.fixture
def process(flamingo, tmp_path):
    """A server of the Flamingo, called demo: its address, its process, and what it logs."""
    flamingo.save(tmp_path / "demo" / "model")
    words = [sys.executable, "-m", "vislang.cli", "serve", str(tmp_path / "demo" / "model"), "--port", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    started = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    lines: list[str] = []
    assert started.stderr is not None
    for line in started.stderr:
        lines.append(line)
        if found := re.search(r"running on (http://\S+)", line):
            break
    else:
        pytest.fail("".join(lines))
    # The process must not wait for someone to read what it logs.
    reader = threading.Thread(target=lambda: lines.extend(started.stderr), daemon=True)
    reader.start()
    yield found[1], started, lines
    started.kill()
    started.wait()
    reader.join()


def test_what_the_docs_say(process, tmp_path, flamingo):
    address, started, log = process
    assert address.startswith("http://127.0.0.1:")
    assert call(address, "/v1/models").json["data"][0]["id"] == "demo"
    for number, name in enumerate(("photo.png", "a.png")):
        (tmp_path / name).write_bytes(encoded(picture(number)))
    page = ROOT / "docs" / "serve.md"
    (line,) = [text for _, _, text in blocks(page, "sh") if text.startswith("curl")]
    (program,) = [text for _, _, text in blocks(page, "python")]
    if shutil.which("curl") and shutil.which("bash"):
        asked = subprocess.run(
            ["bash", "-c", line.replace("http://127.0.0.1:8000", address)], cwd=tmp_path, capture_output=True, text=True
        )
        assert '"finish_reason":' in asked.stdout, asked.stdout + asked.stderr
    (tmp_path / "client.py").write_text(program.replace("http://127.0.0.1:8000", address), encoding="utf-8")
    printed = subprocess.run([sys.executable, "client.py"], cwd=tmp_path, capture_output=True, text=True)
    assert printed.returncode == 0, printed.stderr
    assert printed.stdout.strip()
    must_drain(address, started)
    assert "Application shutdown complete" in "".join(log)


def must_drain(address: str, started: subprocess.Popen) -> None:
    """After SIGTERM, all accepted requests are answered, also those that wait. New connections are refused, and the
    status is 0."""
    where = urlsplit(address)
    body = {"model": "demo", "messages": [shown(0, "what color?")], "max_tokens": 60, "stream": True}
    connections = []
    for _ in range(12):
        connection = http.client.HTTPConnection(where.hostname, where.port, timeout=60)
        connection.request(
            "POST", "/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        connections.append(connection)
    replies = [connections[0].getresponse()]
    begun = replies[0].readline()
    started.send_signal(signal.SIGTERM)
    replies += [connection.getresponse() for connection in connections[1:]]
    texts = [reply.read() for reply in replies]
    assert b"chat.completion.chunk" in begun
    assert [reply.status for reply in replies] == [200] * 12
    assert all(text.endswith(b"data: [DONE]\n\n") for text in texts)
    assert started.wait(timeout=30) == 0
    with pytest.raises(OSError, match=r"refused|reset"):
        call(address, "/health")
