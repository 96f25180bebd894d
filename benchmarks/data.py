"""Long files: the time to index one, the memory that training on one takes, the time to read any of its records.

An artificial JSON Lines file of ten million records (800 MB; a hundred thousand with --quick) is written into a
temporary folder (set TMPDIR for another one) and removed.

The peer of the second row is pyarrow: rows of an Arrow file that is mapped into memory, as dicts. Its text was parsed
when the file was written, and nothing is checked; ours parses and checks each line, and makes an Example of it.

    python benchmarks/data.py [--quick] [--json FILE]
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow
from compare import Row, arguments, compare, report
from memory import rise

from vislang.data.index import IndexedFile
from vislang.data.jsonl import own_records
from vislang.data.replacing import Draws
from vislang.recipe import Recipe
from vislang.runs.streams import read_streams

SHORT = 10_000

DRAWN = 2_000
"""Records that are drawn in a measurement."""

LABELS = ("cat", "dog", "pump")


def records(count: int) -> Iterator[str]:
    """Lines of an artificial file."""
    for n in range(count):
        yield f'{{"text": "record {n} of an artificial file, with {n % 97} words", "label": "{LABELS[n % 3]}"}}\n'


def write(path: Path, count: int) -> None:
    """An artificial file of so many records."""
    with path.open("w", encoding="utf-8") as file:
        file.writelines(records(count))


def draw(path: Path) -> None:
    """What a run does with its data: index, hold out, sample, then draw batches from all over the file."""
    model: Any = SimpleNamespace(needs_targets=True)
    recipe = Recipe(model, data=str(path), evaluate=[], index_above=0)
    (stream,) = read_streams(recipe).streams
    draws = Draws(stream.train, 0, replace=True)
    step = len(stream.train) // DRAWN + 1
    for first in range(0, len(stream.train), step * 32):
        draws.batch(range(first, first + 32), lambda examples, _: [example.text for example in examples])


def memory(folder: Path, count: int) -> float:
    """How far memory rises in :func:`draw`, in MiB, in a process of its own."""
    path = folder / f"{count}.jsonl"
    write(path, count)
    read, written = os.pipe()
    if (child := os.fork()) == 0:
        os.write(written, str(rise(lambda: draw(path))).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(written)
    with os.fdopen(read) as answer:
        return float(answer.read())


def access(folder: Path, path: Path, count: int, rounds: int) -> Row:
    """Records from all over a file, and the same rows of an Arrow file."""
    ours = IndexedFile(own_records(str(path)))
    table = folder / "peer.arrow"
    schema = pyarrow.schema([("text", pyarrow.string()), ("label", pyarrow.string())])
    rows = 1000
    with pyarrow.ipc.new_file(str(table), schema) as writer:
        for start in range(0, count, rows):
            some = [ours[n] for n in range(start, min(count, start + rows))]
            columns = [[e.text for e in some], [e.target.name for e in some]]  # type: ignore[union-attr]
            writer.write_batch(pyarrow.record_batch(columns, schema=schema))
    peer = pyarrow.ipc.open_file(pyarrow.memory_map(str(table)))
    rng = random.Random(0)
    numbers = [rng.randrange(count) for _ in range(DRAWN)]
    return compare(
        f"{DRAWN:,} records from all over {count:,}, to pyarrow",
        lambda: [ours[n] for n in numbers],
        lambda: [peer.get_batch(n // rows).slice(n % rows, 1).to_pylist()[0] for n in numbers],
        2.0,
        rounds,
    )


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "")
    long, rounds = (100_000, 3) if options.quick else (10_000_000, 7)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        os.environ["VISLANG_CACHE"] = str(folder / "cache")
        path = folder / "access.jsonl"
        write(path, 100_000)
        started = time.process_time()
        IndexedFile(own_records(str(path)))
        rate = 100_000 / (time.process_time() - started)
        rows = [
            Row("records indexed in a second of a core", rate, "records/s", ">= 20000", rate >= 20_000, 0, 0, 1),
            access(folder, path, 100_000, rounds),
        ]
        short, longer = memory(folder, SHORT), memory(folder, long)
        name = f"memory to draw from {long:,} records over {SHORT:,}: {longer:.0f} and {short:.0f} MiB"
        rows.append(Row(name, longer - short, "MiB", "<= 100", longer - short <= 100, 0, 0, 1))
    report(rows, options.json)


if __name__ == "__main__":
    main()
