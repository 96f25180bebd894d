"""``vislang serve`` under load: throughput, latencies, first tokens after shared examples, and a soak.

The served model has SmolLM2-135M, EfficientNet-Lite0 at 128 px and an untrained bridge of the demo's shape, which does
not change the speed. It runs in a process of its own; the clients are threads of this one. Each row compares two ways
of using the same server, measured in turn. Throughput and first tokens are in processor time of the server, on which
other programs of the machine have little effect; with one thread (OMP_NUM_THREADS=1) it is the time that an idle core
takes. Latencies are in wall-clock time. The rows about guesses need no server.

    python benchmarks/serve.py [--quick] [--soak SECONDS] [--json FILE]
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import itertools
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import PIL.Image
import torch
from compare import Row, medians, report
from PIL import ImageDraw

from vislang.capabilities import Decoding
from vislang.document import Document, Image
from vislang.example import Example, Text
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.decoding import Text as Growing
from vislang.models.flamingo.decoding import TextBatch
from vislang.models.flamingo.model import Flamingo
from vislang.models.flamingo.prefill import DecodeState
from vislang.models.flamingo.recipe import FlamingoRecipe

CLIENTS, RUNNING, WAITING = 8, 8, 8
"""Clients at once, and how many requests the server answers at once and lets wait."""

TOKENS = 32
"""Greatest length of an answer where throughput is measured."""

SHOTS = 8


def model() -> Flamingo:
    """An untrained Flamingo of the demo's shape; its gates are open, so that images have an effect."""
    torch.manual_seed(0)
    shape = FlamingoConfig(gated_layers=[28, 29], latents=8, resampler_width=256, resampler_depth=2, expansion=2)
    built = FlamingoRecipe(image_size=128, bridge=shape, cache_features=False).build()
    for block in built.bridge.gated_blocks.values():
        torch.nn.init.constant_(block.attention_gate, 0.1)  # type: ignore[arg-type]
    return built.eval()


# Guesses


def guesses(built: Flamingo, rounds: int) -> list[Row]:
    """Generating after four examples with and without guesses: where the answer repeats the form of the examples, and
    where it repeats nothing."""
    built.eval()
    shown = [Example(str(n), Document([picture(n), "what is it?"]), Text((CAPTIONS[n],))) for n in range(4)]
    prompt = built.prompts.render(Example("q", Document([picture(9), "what is it?"])), shown)
    plain = Document([picture(9), "Once upon a time"])
    rows = []
    for name, document, decoding in (
        ("32 tokens, form of 4 examples", prompt, Decoding(32)),
        ("32 sampled tokens", plain, Decoding(32, temperature=1.0, seed=1)),
    ):
        with torch.no_grad():
            state = built.prefill(document)
            passes = {drafts: generated(built, state, decoding, drafts).passes for drafts in (True, False)}
            sides = [partial(generated, built, state, decoding, drafts) for drafts in (True, False)]
            ours, peer = medians(sides, rounds, warmup=0, clock=time.process_time)
        at_most = 0.8 if decoding.temperature == 0 else 1.1
        title = f"{name}, guesses to none: {passes[True]} and {passes[False]} passes"
        rows.append(Row(title, ours / peer, "ours / peer", f"<= {at_most}", ours / peer <= at_most, ours, peer, rounds))
    return rows


def generated(built: Flamingo, state: DecodeState, decoding: Decoding, drafts: bool) -> TextBatch:
    """A text, alone in a batch that has generated it."""
    text, batch = Growing(decoding, frozenset()), TextBatch(built.runner, drafts)
    batch.join(state.of(torch.zeros(1, dtype=torch.long)), [text])
    while batch.texts:
        batch.step()
    assert len(text.tokens) == decoding.max_new_tokens
    return batch


CAPTIONS = [
    f"a photograph of a {colour} {shape} on a white table in front of a grey wall"
    for colour, shape in zip(
        ("red", "blue", "green", "yellow", "black", "orange", "brown", "pink"),
        ("bolt", "nut", "screw", "washer", "nail", "hook", "spring", "pin"),
        strict=True,
    )
]


# Requests


def content(number: int) -> bytes:
    """A PNG of 128 px; equal for equal numbers."""
    rng = random.Random(number)
    made = PIL.Image.new("RGB", (128, 128), "white")
    draw = ImageDraw.Draw(made)
    for _ in range(6):
        left, top = rng.randrange(100), rng.randrange(100)
        draw.rectangle([left, top, left + 25, top + 25], fill=tuple(rng.randrange(256) for _ in range(3)))
    stream = io.BytesIO()
    made.save(stream, "PNG")
    return stream.getvalue()


def picture(number: int) -> Image:
    """The same as an image."""
    return Image(content(number))


def user(number: int, text: str) -> dict[str, Any]:
    """A message with a picture."""
    url = f"data:image/png;base64,{base64.b64encode(content(number)).decode()}"
    return {
        "role": "user",
        "content": [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}],
    }


def examples(first: int, count: int = SHOTS) -> list[dict[str, Any]]:
    """Messages with their answers."""
    found = []
    for number in range(count):
        found += [user(first + number, "what is it?"), {"role": "assistant", "content": CAPTIONS[number % 8]}]
    return found


class Answer(NamedTuple):
    """The reply to a request: its status, seconds to its end and to its first piece, and its tokens."""

    status: int
    seconds: float
    first: float
    tokens: int
    retry_after: float = 0.0


def ask(port: int, name: str, messages: list[dict[str, Any]], **settings: Any) -> Answer:
    """A streamed request."""
    options = {"stream": True, "stream_options": {"include_usage": True}, **settings}
    body = json.dumps({"model": name, "messages": messages, **options}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    started = time.perf_counter()
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        if reply.status != 200:
            reply.read()
            after = float(reply.headers.get("Retry-After", 0))
            return Answer(reply.status, time.perf_counter() - started, 0.0, 0, after)
        first, tokens, complete = 0.0, 0, False
        for line in reply:
            data = line.removeprefix(b"data: ").strip()
            complete = complete or data == b"[DONE]"
            if not data.startswith(b"{"):
                continue
            chunk = json.loads(data)
            if "error" in chunk:
                return Answer(500, time.perf_counter() - started, first, 0)
            choices = chunk["choices"]
            if choices and not first and (choices[0]["delta"].get("content") or choices[0]["finish_reason"]):
                first = time.perf_counter() - started
            tokens = chunk["usage"]["completion_tokens"] if chunk.get("usage") else tokens
        # A reply without its end was cut off.
        return Answer(200 if complete else 0, time.perf_counter() - started, first, tokens)
    finally:
        connection.close()


@contextmanager
def server(*models: str) -> Iterator[tuple[int, subprocess.Popen]]:
    """The port and the process of ``vislang serve``."""
    options = ["--port", "0", "--max-running", str(RUNNING), "--max-waiting", str(WAITING)]
    # So that it is full early in the soak.
    options += ["--cache-mb", "128"]
    command = [sys.executable, "-m", "vislang.cli", "serve", *models, *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    assert process.stderr is not None
    lines = []
    for line in process.stderr:
        lines.append(line)
        if found := re.search(r"running on http://127.0.0.1:(\d+)", line):
            break
    else:
        sys.exit("".join(lines))
    threading.Thread(target=process.stderr.read, daemon=True).start()
    try:
        yield int(found[1]), process
    finally:
        process.terminate()
        status = process.wait(timeout=300)
    assert status == 0, f"the server ended with status {status}"


# Measurements


def throughput(port: int, process: subprocess.Popen, rounds: int) -> list[Row]:
    """Questions one at a time, and from eight clients at once."""
    numbers = itertools.count(1000)

    def question(_: int) -> Answer:
        number = next(numbers)
        settings = {"max_tokens": TOKENS, "temperature": 1.0, "seed": number}
        found = ask(port, "plain", [user(number, "tell a long story about it.")], **settings)
        assert found.status == 200
        return found

    rates: dict[int, list[float]] = {1: [], CLIENTS: []}
    answers: dict[int, list[Answer]] = {1: [], CLIENTS: []}
    question(0)
    for _ in range(rounds):
        for clients, asked in ((1, 3), (CLIENTS, 2 * CLIENTS)):
            started = processor_time(process)
            with ThreadPoolExecutor(clients) as pool:
                found = list(pool.map(question, range(asked)))
            rates[clients].append(sum(answer.tokens for answer in found) / (processor_time(process) - started))
            answers[clients] += found
    one, all_ = (statistics.median(rates[clients]) for clients in (1, CLIENTS))
    title = f"{CLIENTS} clients to 1: {all_:.0f} and {one:.0f} tokens per CPU second"
    rows = [Row(title, all_ / one, "times the throughput", ">= 3", all_ >= 3 * one, 0.0, 0.0, rounds)]
    for name, pick in (("answer", Answer._fields.index("seconds")), ("first token", Answer._fields.index("first"))):
        for share in (50, 95):
            ours, peer = (quantile([answer[pick] for answer in answers[n]], share) for n in (CLIENTS, 1))
            title = f"{name}, {CLIENTS} clients to 1, wall-clock, percentile {share}"
            rows.append(Row(title, ours / peer, "ours / peer", "", True, ours, peer, rounds))
    return rows


def quantile(values: list[float], share: int) -> float:
    """A percentile: the smallest value that so many percent do not exceed."""
    return sorted(values)[max(0, -(-share * len(values) // 100) - 1)]


def first_tokens(port: int, process: subprocess.Popen, rounds: int) -> list[Row]:
    """The first token after eight examples that were never seen, after those that were, and after those of a pack; the
    first request of all is one after a pack."""
    times: dict[str, list[float]] = {"new": [], "known": [], "pack": []}

    def first(name: str, messages: list[dict[str, Any]]) -> float:
        started = processor_time(process)
        found = ask(port, name, messages, max_tokens=1)
        assert found.status == 200
        return processor_time(process) - started

    after_restart = first("packed", [user(999, "what is it?")])
    first("plain", [*examples(1), user(500, "what is it?")])
    for number in range(rounds):
        query = user(2000 + number, "what is it?")
        for kind, name, messages in (
            ("new", "plain", examples(3000 + SHOTS * number)),
            ("known", "plain", examples(1)),
            ("pack", "packed", []),
        ):
            times[kind].append(first(name, [*messages, query]))
    new, known, pack = (statistics.median(times[kind]) for kind in ("new", "known", "pack"))
    rows = []
    for name, value in (
        ("first token after 8 examples, known to new", known),
        ("first token, pack of 8 to 8 new examples", pack),
        ("the same, first request after a restart", after_restart),
    ):
        rows.append(Row(name, value / new, "ours / peer", "<= 0.25", value <= 0.25 * new, value, new, rounds))
    return rows


def processor_time(process: subprocess.Popen) -> float:
    """Seconds of processor time that a process has taken."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    # The 14th and 15th field of all: user and system time.
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def soak(port: int, process: subprocess.Popen, seconds: float) -> list[Row]:
    """Twice as many clients as the server has places, for a while: prompts of several kinds, some clients hang up."""
    clients = 2 * (RUNNING + WAITING)
    statuses: Counter[int] = Counter()
    until = time.monotonic() + seconds
    sizes: list[float] = []

    def client(number: int) -> None:
        rng = random.Random(number)
        while time.monotonic() < until:
            kind = rng.randrange(6)
            messages = [
                *examples(10 * rng.randrange(400), rng.randrange(3)),
                user(rng.randrange(10_000), "what is it?"),
            ]
            if kind == 0:
                hang_up(port, messages, rng.random())
                continue
            settings = {"max_tokens": rng.randint(1, 12), "temperature": rng.choice([0.0, 1.0]), "seed": number}
            if kind == 1:
                settings = {"allowed_answers": ["a bolt", "a nut"], "max_tokens": 1}
            try:
                found = ask(port, rng.choice(["plain", "packed"]), messages, **settings)
            except OSError:
                found = Answer(0, 0.0, 0.0, 0)
            statuses[found.status] += 1
            if found.status == 429:
                # Clients that obey; a second at most, so that the server stays full.
                clean = found.retry_after >= 1
                statuses[-1] += not clean
                time.sleep(min(found.retry_after, 1.0) * rng.uniform(0.5, 1.0))

    def watch() -> None:
        while time.monotonic() < until:
            sizes.append(resident(process))
            time.sleep(seconds / 40)

    with ThreadPoolExecutor(clients + 1) as pool:
        for done in [pool.submit(watch), *(pool.submit(client, number) for number in range(clients))]:
            done.result()
    failed = sum(count for status, count in statuses.items() if status not in (200, 429))
    # Caches fill in the first half.
    half = len(sizes) // 2
    growth = max(sizes[half:]) - max(sizes[:half])
    title = f"failed in {seconds:.0f} s from {clients} clients: {statuses[200]:,} answered, {statuses[429]:,} with 429"
    return [
        Row(title, failed, "requests", "<= 0", failed == 0, 0.0, 0.0, 1),
        Row("rise of peak memory, second half of it", growth, "MiB", "<= 64", growth <= 64, 0.0, 0.0, 1),
    ]


def hang_up(port: int, messages: list[dict[str, Any]], after: float) -> None:
    """A client that goes before it has an answer."""
    body = json.dumps({"model": "plain", "messages": messages, "max_tokens": 200, "stream": True}).encode()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
    time.sleep(after)
    connection.close()


def resident(process: subprocess.Popen) -> float:
    """Memory of a process in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    found = re.search(r"VmRSS:\s+(\d+)", status)
    assert found is not None
    return int(found[1]) / 1024


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few rounds, to check that it works")
    parser.add_argument("--soak", type=float, default=None, metavar="SECONDS", help="length of the soak (default: 60)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the rows to this file")
    options = parser.parse_args()
    rounds = 1 if options.quick else 3
    seconds = options.soak if options.soak is not None else 8.0 if options.quick else 60.0
    built = model()
    rows = guesses(built, rounds)
    with tempfile.TemporaryDirectory() as folder:
        saved, pack = Path(folder) / "model", Path(folder) / "bolts.pack"
        built.save(saved)
        built.pack(
            [Example(str(n), Document([picture(n), "what is it?"]), Text((CAPTIONS[n],))) for n in range(8)], pack
        )
        del built
        with server(f"plain={saved}", f"packed={saved}@{pack}") as (port, process):
            rows += first_tokens(port, process, 2 * rounds + 1)
            rows += throughput(port, process, rounds)
            rows += soak(port, process, seconds)
    report(rows, options.json)


if __name__ == "__main__":
    main()
