"""Training: the time of the loop itself, of two processes, of steps of different sizes, and until the first step.

* **The loop** (:func:`vislang.train.loop.train`) and the barest loop around the same small model, data and optimizer.
* **Two processes** on two cores, and one process with one thread and with two.
* **Steps of different sizes**, each size timed in turn: the smallest one is the peer of the others, and a step that is
  n times as large should take at most n times as long.
* **The demo**, from the start of its process to its first step, with warm caches. The peer imports torch and what the
  demo needs of transformers, and does nothing else.
* **torch.compile** of the blocks, and the same blocks as they are. Left out where there is no C++ compiler.
* **On a GPU**, the rows of ``benchmarks/gpu.py``.

Times of the loop and of steps of different sizes are processor time of one thread.

    python benchmarks/training.py [--quick] [--json FILE]
"""

from __future__ import annotations

import copy
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import gpu
import torch
from compare import Row, arguments, compare, medians, report
from data2vec import ours as data2vec_step
from flamingo import batch_of, sequences
from rich.console import Console
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM

from vislang.console import TrainingMonitor
from vislang.document import Document
from vislang.example import Example
from vislang.models.base import TrainableModel
from vislang.models.data2vec.blocks import EncoderConfig
from vislang.models.data2vec.front_ends import Modalities, TextConfig
from vislang.models.data2vec.model import Data2Vec, TeacherConfig
from vislang.models.data2vec.objective import Masked, ObjectiveConfig
from vislang.models.flamingo.bridge import Bridge
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.prefill import Runner
from vislang.models.towers.causal_lm import CausalLM
from vislang.nn.masking import mask_tokens
from vislang.nn.transformer import EncoderBlock
from vislang.train.batches import Stream
from vislang.train.config import TrainConfig
from vislang.train.log import read_metrics
from vislang.train.loop import train
from vislang.train.memory import keep_freed_memory
from vislang.train.monitor import Monitors
from vislang.train.processes import joined

STEP_S = 0.2
"""A step of this many seconds is what the loop's own time is compared with."""

FIRST = 20
"""Steps before the clock starts, in which memory is allocated and operations are counted."""

START_S = 10
"""The goal for the demo's first step."""

OPEN = "import torch; from transformers import AutoTokenizer, LlamaForCausalLM"
"""What the demo cannot start without."""

# ------------------------------------------------------------------------------------------- a model for the loop


@dataclass
class Numbers:
    """A batch of random sequences."""

    values: Tensor
    names: list[str] = field(default_factory=list)


class Blocks(TrainableModel):
    """Transformer blocks that learn to return their input."""

    def __init__(self, width: int, depth: int, tokens: int):
        super().__init__()
        torch.manual_seed(0)
        self.tokens, self.width = tokens, width
        self.blocks = nn.ModuleList(EncoderBlock(width, 4, 4 * width, norm_first=True) for _ in range(depth))
        self.collate = self.draw

    def draw(self, examples: Sequence[Example], seed: int = 0, first: int = 0) -> Numbers:
        """The batch of some examples."""
        generator = torch.Generator().manual_seed(seed + first)
        values = torch.randn(len(examples), self.tokens, self.width, generator=generator)
        return Numbers(values, [example.name for example in examples])

    def forward(self, batch: Numbers) -> dict[str, Tensor]:
        """The mean squared error."""
        hidden = batch.values
        for block in self.blocks:
            hidden, _ = block(hidden)
        return {"error": (hidden - batch.values).square().mean()}


class Clock:
    """A monitor that reads processor time after each step."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def step(self, step: int, row: dict[str, Any]) -> None:
        """Read the clock."""
        self.times.append(time.process_time())

    def evaluated(self, step: int, row: dict[str, Any]) -> None:
        """Nothing is evaluated."""

    @property
    def seconds(self) -> float:
        """Mean seconds of a step, without the first ones."""
        return (self.times[-1] - self.times[FIRST]) / (len(self.times) - 1 - FIRST)


def examples(count: int) -> list[Example]:
    """Examples without content."""
    return [Example(f"{number}", Document([f"{number}"])) for number in range(count)]


def by_the_loop(model: Blocks, data: list[Example], config: TrainConfig) -> float:
    """Seconds of a step in vislang's loop, with the progress and the log that a run has."""
    clock = Clock()
    monitor = TrainingMonitor(config.steps, config.log_every, Console(file=StringIO()))
    with tempfile.TemporaryDirectory() as folder, monitor:
        train(model, [Stream("data", data, 1.0, config.batch_size)], config, Path(folder), Monitors(monitor, clock))
    return clock.seconds


def by_the_barest_loop(model: Blocks, data: list[Example], config: TrainConfig) -> float:
    """Seconds of a step in the shortest loop that trains the same: no log, no order of data, no schedule."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, fused=True)
    clock = Clock()
    model.train()
    for step in range(config.steps):
        batch = model.collate(data[: config.batch_size], step)
        optimizer.zero_grad(set_to_none=True)
        model(batch)["error"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        clock.step(step, {})
    return clock.seconds


def loop(rounds: int) -> Row:
    """What the loop adds to a step, as a share of a step of 200 ms."""
    torch.set_num_threads(1)
    data = examples(1000)
    config = TrainConfig(steps=FIRST + 200, batch_size=8, device="cpu", checkpoint_every=10**6)
    model = Blocks(width=32, depth=2, tokens=16)
    seconds = [
        [run(copy.deepcopy(model), data, config) for run in (by_the_loop, by_the_barest_loop)] for _ in range(rounds)
    ]
    ours, bare = (statistics.median(own) for own in zip(*seconds, strict=True))
    share = 100 * (ours - bare) / STEP_S
    name = f"the loop adds {1000 * (ours - bare):.1f} ms to a step; of a step of 200 ms"
    return Row(name, share, "%", "<= 2", share <= 2, ours, bare, rounds)


# --------------------------------------------------------------------------------------------------- two processes


def work(folder: Path, steps: int) -> None:
    """Train in as many processes as were started."""
    data = examples(1000)
    with joined() as processes:
        parallel = "ddp" if processes.count > 1 else "none"
        config = TrainConfig(steps=steps, batch_size=16, device="cpu", parallel=parallel, checkpoint_every=10**6)
        train(Blocks(192, 6, 128), [Stream("data", data, 1.0, 16)], config, folder, Monitors())


def step_of(processes: int, threads: int, steps: int) -> float:
    """Seconds of a step with so many processes of so many threads: the median of a run."""
    words = [__file__, "--work", str(steps)]
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *(launcher if processes > 1 else []), *words, folder]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TORCH_CPP_LOG_LEVEL": "ERROR"}
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        rates = [row["speed/examples_per_second"] for row in read_metrics(Path(folder) / "metrics.jsonl")]
    return 16 / statistics.median(rates[2:])


def processes(rounds: int, steps: int) -> list[Row]:
    """Two processes of one thread each, to one process with one thread and with two."""
    ways = ((2, 1), (1, 1), (1, 2))
    times = [[step_of(*way, steps) for way in ways] for _ in range(rounds)]
    two, one, threads = (statistics.median(own) for own in zip(*times, strict=True))
    rows = []
    for peer, name, at_most in ((one, "1 thread", 0.65), (threads, "2 threads", 1.1)):
        title = f"2 processes to 1 process with {name}: {16 / two:.0f} and {16 / peer:.0f} samples/s"
        rows.append(
            Row(title, two / peer, "ours / peer", f"<= {at_most}", two / peer <= at_most, two, peer, len(times))
        )
    return rows


# ---------------------------------------------------------------------------------------- steps of different sizes


def flamingo_steps() -> Callable[[int, int, int], Callable[[], object]]:
    """A function of the batch size, the tokens and the images of a document, which gives a training step of a small
    Flamingo: a language model of 8 layers and width 256, gated blocks before two of them, images of 16 features."""
    torch.manual_seed(0)
    shape = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 8, "num_attention_heads": 4}
    lm = LlamaForCausalLM(LlamaConfig(**shape, num_key_value_heads=2, vocab_size=49_152, tie_word_embeddings=True))
    config = FlamingoConfig(gated_layers=[4, 6], latents=8, resampler_width=128, resampler_depth=2, media_token=49_150)
    bridge = Bridge(config, CausalLM(lm), 320, lm.get_input_embeddings().weight[0].detach())
    runner = Runner(bridge)
    optimizer = torch.optim.AdamW([p for p in bridge.parameters() if p.requires_grad], lr=1e-4, fused=True)

    def of(batch_size: int, tokens: int, images: int) -> Callable[[], object]:
        batch = batch_of(*sequences(batch_size, images, tokens), torch.randn(batch_size * images, 16, 320))

        def step() -> None:
            optimizer.zero_grad(set_to_none=True)
            runner.losses(batch)["text"].backward()
            optimizer.step()

        return step

    return of


def small_data2vec() -> Data2Vec:
    """A data2vec of texts, of 6 blocks and width 192."""
    torch.manual_seed(0)
    return Data2Vec(
        EncoderConfig(width=192, depth=6, heads=6, mlp_width=768),
        Modalities(text=TextConfig(vocabulary_size=8_000, mask_id=7_999)),
        ObjectiveConfig("v1", top_k=4),
        TeacherConfig(0.999, 0.999, 0),
    )


def texts(batch_size: int, tokens: int) -> Masked:
    """Texts without padding, 15 % masked."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 7_000, (batch_size, tokens), generator=generator)
    masked = mask_tokens(ids, torch.ones_like(ids, dtype=torch.bool), 7_999, 7_000, generator)
    return Masked("text", ids, masked.mask, masked.input_ids)


def curve(
    model: str, of: Callable[[int], Callable[[], object]], sizes: Sequence[int], what: str, batch: int, rounds: int
) -> list[Row]:
    """A row for each size but the first: how much longer a step takes than that of the first size.

    Args:
        model: whose step it is.
        of: the step of a size.
        sizes: in ascending order.
        what: what is counted.
        batch: documents in a batch; 0 where these are the sizes.
        rounds: how often each is timed.
    """
    times = medians([of(size) for size in sizes], rounds, warmup=1, clock=time.process_time)
    rows = []
    for size, seconds in zip(sizes[1:], times[1:], strict=True):
        ratio, most = seconds / times[0], size // sizes[0]
        name = f"{model}, {size} {what} to {sizes[0]}: {(batch or size) / seconds:.0f} samples/s"
        rows.append(Row(name, ratio, "ours / peer", f"<= {most}", ratio <= most, seconds, times[0], rounds))
    return rows


def sizes(rounds: int) -> list[Row]:
    """The curves."""
    torch.set_num_threads(1)
    flamingo, model = flamingo_steps(), small_data2vec()
    return [
        *curve("Flamingo", lambda n: flamingo(n, 64, 1), (4, 8, 16, 32), "documents a batch", 0, rounds),
        *curve("Flamingo", lambda n: flamingo(8, n, 1), (32, 64, 128, 256), "tokens a document", 8, rounds),
        *curve("Flamingo", lambda n: flamingo(8, 128, n), (1, 2, 4, 8), "images a document", 8, rounds),
        *curve("data2vec", lambda n: data2vec_step(model, texts(n, 64)), (4, 8, 16, 32), "texts a batch", 0, rounds),
        *curve("data2vec", lambda n: data2vec_step(model, texts(8, n)), (32, 64, 128, 256), "tokens a text", 8, rounds),
    ]


# ----------------------------------------------------------------------------------------------- until the first step


def start(rounds: int) -> list[Row]:
    """From the start of the demo's process to its first step."""
    # Threads that wait for each other use processor time; one thread never waits.
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    walls: list[list[float]] = []
    processors: list[list[float]] = []
    with tempfile.TemporaryDirectory() as scratch:

        def once(name: str, environment: dict[str, str] | None = None) -> list[tuple[float, float]]:
            demo = [sys.executable, "-m", "vislang.cli", "demo", "--out", f"{scratch}/{name}"]
            imports = [sys.executable, "-c", OPEN]
            return [
                first_step(demo, Path(scratch) / name / "metrics.jsonl", environment),
                first_step(imports, Path(scratch) / "never", environment),
            ]

        once("fills-caches")
        for number in range(rounds):
            walls.append([wall for wall, _ in once(f"{number}")])
            processors.append([processor for _, processor in once(f"{number}-one-thread", one_thread)])
    rows = []
    # Two cores have twice as much processor time.
    ways = (("wall-clock", walls, START_S), ("processor time of 1 thread", processors, 2 * START_S))
    for name, times, most in ways:
        ours, peer = (statistics.median(own) for own in zip(*times, strict=True))
        title = f"demo, start to first step, {name}"
        rows.append(Row(title, ours, "s", f"<= {most}", ours <= most, ours, peer, rounds))
    return rows


def first_step(command: Sequence[str], metrics: Path, environment: dict[str, str] | None) -> tuple[float, float]:
    """Wall-clock and processor seconds of a command until it has logged a step, or until it ends.

    Raises:
        RuntimeError: it ended with an error.
    """
    before, started = _of_children(), time.perf_counter()
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (metrics.is_file() and metrics.stat().st_size):
        time.sleep(0.01)
    seconds = time.perf_counter() - started
    if process.poll() is None:
        process.kill()
    elif process.returncode:
        raise RuntimeError(f"{' '.join(command)} ended with status {process.returncode}")
    process.wait()
    return seconds, _of_children() - before


def _of_children() -> float:
    """Processor seconds of all child processes that have ended."""
    times = os.times()
    return times.children_user + times.children_system


# -------------------------------------------------------------------------------------------------------- torch.compile


def compiled(rounds: int) -> list[Row]:
    """A step whose blocks are compiled, to the same step without."""
    if shutil.which("c++") is None:
        print("torch.compile is not measured: there is no C++ compiler.")
        return []
    torch.set_num_threads(2)
    models = [small_data2vec(), small_data2vec()]
    # As ``train.compile`` does.
    for block in models[0].modules():
        if isinstance(block, EncoderBlock):
            block.compile()
    steps = [data2vec_step(model, texts(16, 128)) for model in models]
    return [compare("data2vec, blocks compiled to not compiled", *steps, at_most=1.0, rounds=rounds, warmup=3)]


def main() -> None:
    """Print the table."""
    if sys.argv[1:2] == ["--work"]:
        work(Path(sys.argv[3]), int(sys.argv[2]))
        return
    options = arguments(__doc__ or "")
    # As in ``vislang train``, for both sides of each row.
    keep_freed_memory()
    rounds = 2 if options.quick else 5
    rows = [
        *start(1 if options.quick else 3),
        *processes(1 if options.quick else 3, steps=6 if options.quick else 20),
        loop(rounds),
        *sizes(rounds),
        *compiled(rounds),
    ]
    if torch.cuda.is_available():
        rows += gpu.rows(torch.device("cuda"), small=False, rounds=rounds)
    else:
        print("rows of benchmarks/gpu.py are left out: torch sees no GPU here.")
    report(rows, options.json)


if __name__ == "__main__":
    main()
