"""Training steps on a GPU: their share of the GPU's matrix rate, and their time beside transformers and OpenFlamingo.

A step is the forward and backward pass and the optimizer, in bfloat16 (autocast) on both sides. The matrix rate is that
of ``torch.matmul`` in bfloat16, see ``vislang/train/speed.py``. Losses are compared in float32 before. One row has what
``torch.compile`` gains. The batches fill the GPU: with 64 texts, starting the kernels takes longer than running them.

``--check`` runs everything on the processor with small shapes, to see that it works; its figures mean nothing.

    python benchmarks/gpu.py [--check] [--quick] [--json FILE]
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch
from compare import Row, arguments, compare, medians, report
from data2vec import COPIES, TOKENS, second_generation
from data2vec import both as data2vec_and_transformers
from flamingo import TOKENS as DOCUMENT
from flamingo import training
from open_flamingo_peer import both as flamingo_and_open_flamingo
from torch import Tensor
from vilbert import BATCH, images, labels, texts, without_dropout
from vilbert import TOKENS as CAPTION

from vislang.models.vilbert.config import TextStreamConfig, ViLBERTConfig, VisionStreamConfig, preset
from vislang.models.vilbert.heads import original_heads
from vislang.models.vilbert.model import ViLBERT, pretraining_losses
from vislang.nn.device import to_device
from vislang.nn.transformer import EncoderBlock
from vislang.train.rows import StepSize
from vislang.train.speed import Speed

SMALL = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128}
"""The shape of data2vec with ``--check``."""


SMALL_VILBERT = ViLBERTConfig(
    TextStreamConfig(width=64, depth=2, heads=4, mlp_width=128),
    VisionStreamConfig(width=64, depth=1, heads=4, mlp_width=64),
    co_attention_layers=[(1, 0)],
    width=64,
    heads=4,
)


def in_bfloat16(run: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """The same step in autocast; processors without bfloat16 would emulate it."""

    def whole() -> Any:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            return run()

    return whole


def measured(
    name: str,
    step: Callable[[], Any],
    examples: int,
    tokens: int,
    device: torch.device,
    rounds: int,
    peer: Callable[[], Any] | None = None,
) -> list[Row]:
    """The rate of a step, and its time to a peer's.

    Args:
        name: of the model.
        step, peer: each waits for the device before it returns.
        examples, tokens: of a step; 0 tokens if there is no text.
        device: where they compute.
        rounds: how often each is timed.
    """
    step = in_bfloat16(step, device)
    speed, size = Speed(device), StepSize(("step",), examples, tokens)
    with speed.counted(size.streams):
        step()
    times = medians([step, *([in_bfloat16(peer, device)] if peer is not None else [])], rounds)
    found = speed.row(times[0], size)
    rate, unit = (
        found.get("speed/tokens_per_second", found["speed/examples_per_second"]),
        "tokens" if tokens else "samples",
    )
    share = found["speed/matmul_share"]
    rows = [Row(f"{name}, {rate:,.0f} {unit}/s", share, "of matmul", ">= 0.3", share >= 0.3, times[0], 0.0, rounds)]
    if peer is not None:
        ratio = times[0] / times[1]
        rows.append(Row(f"{name} vs. its peer", ratio, "ours / peer", "<= 1.0", ratio <= 1, *times, rounds))
    return rows


def compiled(step: Callable[[], Any], batch_size: int, device: torch.device, rounds: int) -> Row:
    """A step of data2vec with text whose blocks are compiled, to ``step``, the same without."""
    own, _, model = data2vec_and_transformers("text", batch_size, str(device))
    # As ``train.compile`` does.
    for block in model.modules():
        if isinstance(block, EncoderBlock):
            block.compile()
    steps = [in_bfloat16(run, device) for run in (own, step)]
    return compare("data2vec text v1, blocks compiled to not compiled", *steps, 1.0, rounds, warmup=3)


def vilbert_step(device: torch.device, config: ViLBERTConfig, batch_size: int) -> Callable[[], float]:
    """A pretraining step of ViLBERT."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    model = ViLBERT(without_dropout(config), original_heads()).train().to(device)
    model.dropout.p = 0.0

    def repeated(values: tuple[Tensor, ...]) -> list[Tensor]:
        return [to_device(value.repeat(batch_size // BATCH, *[1] * (value.ndim - 1)), device) for value in values]

    text, image = repeated(texts(generator)), repeated(images(generator))
    wanted = labels(generator)
    wanted = type(wanted)(*repeated(wanted))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=True)

    def step() -> float:
        encoded = model.streams(model.streams.read_text(*text), model.streams.read_regions(*image))
        loss = torch.stack(list(pretraining_losses(model, encoded, wanted).values())).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def flamingo_rows(device: torch.device, batch_size: int, rounds: int) -> list[Row]:
    """Flamingo and OpenFlamingo, from pixels."""
    try:
        models = flamingo_and_open_flamingo()
    except subprocess.CalledProcessError:
        print("Flamingo is left out: pip cannot install its peer, open-flamingo.")
        return []
    for module in (models.peer, models.ours.bridge, models.tower):
        module.to(device)
    ours, peer = training(models, cached=False, rows=batch_size)
    tokens = batch_size * DOCUMENT
    return measured("Flamingo", lambda: ours().item(), batch_size, tokens, device, rounds, lambda: peer().item())


def rows(device: torch.device, small: bool, rounds: int) -> list[Row]:
    """All rows."""
    shape: dict[str, int] = SMALL if small else {}
    found: list[Row] = []
    for kind, batch_size in (("text", 2 if small else 512), ("image", 2 if small else 256)):
        step, peer, _ = data2vec_and_transformers(kind, batch_size, str(device), **shape)
        tokens = batch_size * TOKENS if kind == "text" else 0
        found += measured(f"data2vec {kind} v1", step, batch_size, tokens, device, rounds, peer)
        if kind == "text" and not small:
            found.append(compiled(step, batch_size, device, rounds))
    count = 1 if small else 48
    step = second_generation(count, str(device), depth=1 if small else 10)
    found += measured(f"data2vec image v2, {COPIES} masks", step, count, 0, device, rounds)
    batch_size = BATCH if small else 1024
    step = vilbert_step(device, SMALL_VILBERT if small else preset("base-6"), batch_size)
    found += measured("ViLBERT pretraining", step, batch_size, batch_size * CAPTION, device, rounds)
    return [*found, *flamingo_rows(device, 1 if small else 128, rounds)]


def main() -> None:
    """Print the table."""
    small = "--check" in sys.argv
    if small:
        sys.argv.remove("--check")
    options = arguments(__doc__ or "")
    if not small and not torch.cuda.is_available():
        print("torch sees no GPU here. --check runs this on the processor with small shapes.")
        return
    if not small:
        print(torch.cuda.get_device_name())
    report(rows(torch.device("cpu" if small else "cuda"), small, 1 if options.quick else 7), options.json)


if __name__ == "__main__":
    main()
