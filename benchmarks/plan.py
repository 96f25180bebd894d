"""``vislang plan`` against training: predicted memory of each process against what Linux reports.

Each case trains for a few steps in processes of its own. What is measured is the growth of a process from just before
its model is built to its peak (VmHWM, resident memory), which is what a run needs beside Python, libraries and records.
The C library is told to return freed memory at once, so what is counted is in use. ``vislang train`` keeps freed memory
for the next step (``train/memory.py``), so its process may be larger.

    python benchmarks/plan.py [--quick] [--json FILE]
"""

from __future__ import annotations

import dataclasses
import json
import os
import socket
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
from vislang.train.batches import Stream
from vislang.train.device import device_of
from vislang.train.loop import train
from vislang.train.processes import joined
from vislang.train.speed import matrix_rate

RECIPES = Path(__file__).parents[1] / "recipes"

FLAMINGO = ("flamingo-easyvqa.yaml", "--limit=96", "--eval_limit=4", "--model.dtype=float32")
IMAGES = ("data2vec-image.yaml", "--data=emoji-google", "--train.batch_size=32", "--model.dtype=float32")
TEXT = ("data2vec-text.yaml", "--data=english", "--limit=4000", "--train.batch_size=32", "--model.dtype=float32")

CASES: dict[str, tuple[str, ...]] = {
    "flamingo.yaml": ("flamingo.yaml", "--limit=96", "--eval_limit=4"),
    "flamingo-easyvqa.yaml": FLAMINGO,
    "vilbert-easyvqa.yaml": ("vilbert-easyvqa.yaml", "--limit=1600", "--train.batch_size=512", "--model.dtype=float32"),
    "vilbert-pretrain.yaml": (
        "vilbert-pretrain.yaml",
        *("--data=emoji-google-names", "--eval_data=null", "--train.batch_size=256", "--model.dtype=float32"),
    ),
    "data2vec-image.yaml": IMAGES,
    "data2vec-text.yaml": TEXT,
    "flamingo-easyvqa.yaml, low-rank updates": (*FLAMINGO, "--model.tune.language_model=lora"),
    "data2vec-image.yaml, recomputed": (*IMAGES, "--train.gradient_checkpointing=true"),
    "data2vec-text.yaml, Muon, 4 micro-batches": (*TEXT, "--train.optimizer=muon", "--train.accumulate=4"),
    "data2vec-text.yaml, ddp": (*TEXT, "--train.parallel=ddp"),
    "data2vec-text.yaml, fsdp2": (*TEXT, "--train.parallel=fsdp2"),
}
"""Recipes, and what is changed in them: little data, and batches that need much more memory than libraries do. The last
two train in two processes."""

STEPS = 3
"""Steps of a case; from the second on, the optimizer has its state."""

GOAL = 0.15
"""Largest relative error of a prediction."""


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measured(_recipe(sys.argv[2]))))
        return
    options = arguments(__doc__ or "")
    rows = []
    for name in list(CASES)[: 1 if options.quick else None]:
        recipe = _recipe(name)
        processes = 1 if recipe.train.parallel == "none" else 2
        needed = _in_processes(name, processes)
        started = time.perf_counter()
        settings = {placement.parallel: placement for placement in plan(recipe, processes, float("inf")).placements}
        memory = settings[recipe.train.parallel].memory
        assert memory is not None
        seconds = time.perf_counter() - started
        print(
            f"{name}: predicted {memory.total / 2**20:.0f} MiB in {seconds:.1f} s, measured {needed / 2**20:.0f} MiB",
            flush=True,
        )
        value, unit = memory.total / needed, f"of {needed / 2**20:,.0f} MiB measured"
        rows.append(Row(name, value, unit, f"within {GOAL:.0%}", abs(value - 1) <= GOAL, 0, 0, 1))
    report(rows, options.json)


def _recipe(name: str) -> Recipe:
    file, *changes = CASES[name]
    return read_recipe(RECIPES / file, [*changes, "--train.device=cpu"])[0]


def _in_processes(name: str, count: int) -> int:
    """Bytes that training needs in the first of so many processes."""
    environment = {**os.environ, "WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
    environment |= {
        "TORCH_CPP_LOG_LEVEL": "ERROR",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "65536",
    }
    command = [sys.executable, __file__, "--measure", name]
    started = [
        subprocess.Popen(
            command, env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stdout=subprocess.PIPE, text=True
        )
        for rank in range(count)
    ]
    outputs = [process.communicate()[0] for process in started]
    if any(process.returncode for process in started):
        raise SystemExit(f"{name}: training failed")
    return json.loads(outputs[0].splitlines()[-1])


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def measured(recipe: Recipe) -> int:
    """Train for a few steps; returns how many bytes this process grew from before the model was built to its peak, 0 in
    other processes than the first."""
    with joined() as processes, tempfile.TemporaryDirectory() as own:
        data = read_streams(recipe).streams
        _load_libraries()
        before = status("VmRSS")
        model: Any = recipe.model.build(device_of("cpu"))
        model.prepare([example for stream in data for example in stream.train])
        model.fit([example for stream in data for example in stream.sample])
        # Reset the peak.
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        peaks: list[int] = []

        class Watch:
            def step(self, step: int, row: dict[str, Any]) -> None:
                peaks.append(status("VmHWM"))

            def evaluated(self, step: int, row: dict[str, Any]) -> None:
                pass

        config = dataclasses.replace(recipe.train, steps=STEPS, eval_every=0, checkpoint_every=STEPS)
        size = recipe.train.batch_size
        streams = [Stream(s.name, s.train, s.config.weight, s.config.batch_size or size) for s in data]
        folder = Path(processes.from_first(lambda: own))
        train(model, streams, config, folder, Watch())
    # Only the first process has a monitor.
    return (peaks[-1] - before) * 1024 if peaks else 0


def _load_libraries() -> None:
    """Compute something small of every kind, so that what libraries load once is loaded before anything is measured."""
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
    matrix_rate(torch.device("cpu"), torch.float32)


if __name__ == "__main__":
    main()
