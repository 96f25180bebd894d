"""From the start of a process to its result: ``vislang --help``, ``ask``, ``embed``, ``serve`` until it is ready, and
``ask`` with a running server.

The model has SmolLM2-135M, EfficientNet-Lite0 at 128 px and an untrained bridge of the demo's shape, which does not
change the speed. Caches are warm. The peer is a process that only imports torch and what the model needs of
transformers; all run in turn. The first rows are in processor time of all threads, the others in wall-clock time.

    python benchmarks/start.py [--quick] [--json FILE]
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from compare import Row, arguments, report
from serve import content, model, processor_time, server

ASK_S = 5
"""The goal for an answer, in seconds of processor time."""

HELP_S = 0.5
"""The goal for the help."""

IMPORTS = "import torch; from transformers import AutoTokenizer, LlamaForCausalLM"
"""What the model cannot be opened without."""


VISLANG = ("-m", "vislang.cli")


class Seconds(NamedTuple):
    """What a process took."""

    processor: float
    wall: float


def run(*words: str) -> Seconds:
    """Run a command of Python to its end.

    Raises:
        RuntimeError: it fails.
    """
    before, started = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    wall, after = time.perf_counter() - started, os.times()
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr}")
    user, system = after.children_user - before.children_user, after.children_system - before.children_system
    return Seconds(user + system, wall)


def served(saved: Path, question: Sequence[str]) -> tuple[Seconds, Seconds]:
    """What a server took until it said that it answers requests, and a client that asks it."""
    started = time.perf_counter()
    with server(f"demo={saved}") as (port, process):
        address = f"http://127.0.0.1:{port}"
        with urllib.request.urlopen(f"{address}/ready", timeout=60) as reply:
            assert reply.status == 200
        ready = Seconds(processor_time(process), time.perf_counter() - started)
        return ready, run(*VISLANG, "ask", "demo", *question, "--server", address)


def measure(saved: Path, image: Path, rounds: int) -> dict[str, list[Seconds]]:
    """What each command took in each round, after a first one that fills the caches."""
    question = (str(image), "what color is the shape?")
    found: dict[str, list[Seconds]] = {}
    for number in range(rounds + 1):
        own = {
            "imports": run("-c", IMPORTS),
            "--help": run(*VISLANG, "--help"),
            "ask": run(*VISLANG, "ask", str(saved), *question),
            "embed": run(*VISLANG, "embed", str(saved), str(image), "--out", str(image.with_suffix(".parquet"))),
        }
        own["serve, until it is ready"], own["ask --server"] = served(saved, question)
        if number:
            for name, seconds in own.items():
                found.setdefault(name, []).append(seconds)
    return found


GOALS = {"--help": HELP_S, "ask": ASK_S}
"""Goals, in seconds of processor time."""


def rows(found: dict[str, list[Seconds]], rounds: int) -> list[Row]:
    """A row for each command and clock."""

    def median(name: str, clock: str) -> float:
        return statistics.median(getattr(seconds, clock) for seconds in found[name])

    made = []
    for clock, words in (("processor", "processor time"), ("wall", "wall-clock")):
        peer = median("imports", clock)
        for name in found:
            if name == "imports":
                continue
            value, goal = median(name, clock), GOALS.get(name) if clock == "processor" else None
            met = goal is None or value <= goal
            title = f"vislang {name}, {words}"
            made.append(Row(title, value, "s", "" if goal is None else f"<= {goal}", met, value, peer, rounds))
    return made


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "")
    rounds = 1 if options.quick else 3
    with tempfile.TemporaryDirectory() as folder:
        saved, image = Path(folder) / "model", Path(folder) / "0.png"
        model().save(saved)
        image.write_bytes(content(0))
        report(rows(measure(saved, image, rounds), rounds), options.json)


if __name__ == "__main__":
    main()
