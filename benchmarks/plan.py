"""``vislang plan`` against what training takes: the process's memory above what it holds before the model is built.

A recipe is trained for a few steps in a process of its own, in which freed memory goes back to the system at once, so
that Linux counts what is held. ``vislang train`` keeps freed memory (``train/memory.py``); how much larger its process
becomes is the last column of the printed lines.

    python benchmarks/plan.py [--quick] [--json FILE]
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from compare import Row, arguments, report
from memory import status
from torch import nn

from vislang.nn.transformer import EncoderBlock
from vislang.recipe import Recipe, read_recipe
from vislang.runs.plan import plan
from vislang.runs.streams import read_streams
from vislang.train.loop import Stream, train
from vislang.train.memory import keep_freed_memory

RECIPES = Path(__file__).parents[1] / "recipes"

CASES: dict[str, tuple[str, ...]] = {
    "flamingo.yaml": ("--limit=96",),
    "flamingo-easyvqa.yaml": ("--limit=96", "--eval_limit=4"),
    "vilbert-easyvqa.yaml": ("--limit=1600", "--train.batch_size=512"),
    "vilbert-pretrain.yaml": ("--data=emoji-google-names", "--eval_data=null", "--train.batch_size=128"),
    "data2vec-image.yaml": ("--data=emoji-google", "--train.batch_size=32"),
    "data2vec-text.yaml": ("--data=english", "--limit=4000", "--train.batch_size=32"),
}
"""Recipes and what is changed in them: small data, and batches for which tensors take far more than anything else."""

GOAL = 0.15
"""By how much the prediction may differ."""


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measured(_recipe(sys.argv[2]), steps=int(sys.argv[3]), keep=sys.argv[4] == "keep")))
        return
    options = arguments(__doc__ or "")
    torch.set_num_threads(2)
    rows = []
    for name in list(CASES)[: 1 if options.quick else None]:
        found, kept = (_in_process(name, 2 if options.quick else 4, how) for how in ("return", "keep"))
        started = time.perf_counter()
        memory = plan(_recipe(name), 1, float("inf")).placements[0].memory
        assert memory is not None
        seconds = time.perf_counter() - started
        print(
            f"{name}: predicted {memory.total / 2**20:.0f} MiB in {seconds:.1f} s, measured {found / 2**20:.0f}, "
            f"{kept / 2**20:.0f} where freed memory is kept",
            flush=True,
        )
        value = memory.total / found
        rows.append(
            Row(f"{name}, peak memory", value, "predicted / measured", f"within {GOAL:.0%}", abs(value - 1) <= GOAL, 0, 0, 1)
        )
    report(rows, options.json)


def _recipe(name: str) -> Recipe:
    return read_recipe(RECIPES / name, CASES[name])[0]


def _in_process(name: str, steps: int, how: str) -> int:
    """Bytes that training takes; ``how`` freed memory is treated: ``return`` or ``keep``."""
    environment = dict(os.environ)
    if how == "return":
        environment |= {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
    command = [sys.executable, __file__, "--measure", name, str(steps), how]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measured(recipe: Recipe, steps: int, keep: bool) -> int:
    """Train for a few steps; returns by how many bytes this process grew at most since before the model was built."""
    torch.set_num_threads(2)
    if keep:
        keep_freed_memory()
    streams, _ = read_streams(recipe)
    _load_libraries()
    before = status("VmRSS")
    model = recipe.model.build()
    examples = [example for stream in streams for example in stream.train]
    model.prepare(examples)
    model.fit(examples)
    # Linux forgets the peak so far.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    peaks: list[int] = []

    class Watch:
        def step(self, step: int, row: dict[str, Any]) -> None:
            peaks.append(status("VmHWM"))

        def evaluated(self, step: int, row: dict[str, Any]) -> None:
            pass

    config = dataclasses.replace(recipe.train, steps=steps, eval_every=0, checkpoint_every=steps)
    with tempfile.TemporaryDirectory() as folder:
        of_each = [
            Stream(s.name, s.train, s.config.weight, s.config.batch_size or recipe.train.batch_size) for s in streams
        ]
        train(model, of_each, config, Path(folder), Watch())
    return (peaks[-1] - before) * 1024


def _load_libraries() -> None:
    """Train something tiny, so that what libraries load and set up once is there before anything is measured."""
    front = nn.Sequential(nn.Conv2d(3, 64, 4, 4), nn.Flatten(2), nn.LayerNorm(64), nn.Linear(64, 64), nn.GELU())
    block = EncoderBlock(64, 4, 256)
    optimizer = torch.optim.AdamW([*front.parameters(), *block.parameters()], fused=True)
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            hidden, _ = block(front(torch.randn(16, 3, 32, 32)))
        labels = torch.zeros(hidden[..., 0].numel(), dtype=torch.long)
        nn.functional.cross_entropy(hidden.flatten(0, 1).float(), labels).backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
