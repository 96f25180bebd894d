"""Few-shot evaluation: shots that all questions share are read once; the peer reads them with every question.

Both use the same model (the towers and the bridge of the demo, untrained, gates open), the same questions and the same
batches, and give the same answers, which is checked first. Times are processor times.

    python benchmarks/few_shot.py [--quick] [--json FILE]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from compare import Row, arguments, medians, report

from vislang.evaluate.generate import generate
from vislang.evaluate.rank import rank
from vislang.evaluate.shots import drawn, prefill
from vislang.example import Example, Prediction
from vislang.models.flamingo.config import FlamingoConfig
from vislang.models.flamingo.model import Flamingo
from vislang.models.flamingo.recipe import FlamingoRecipe
from vislang.tasks.catalogue import open_task

QUESTIONS, SHOTS, BATCH = 32, 8, 16

Answer = Callable[[], list[Prediction]]


def model() -> Flamingo:
    """The demo's Flamingo with open gates."""
    torch.manual_seed(0)
    bridge = FlamingoConfig(gated_layers=[20, 23, 26], latents=8, resampler_width=256, resampler_depth=2)
    built = FlamingoRecipe(image_size=128, bridge=bridge).build().eval()
    with torch.no_grad():
        for block in built.bridge.gated_blocks.values():
            block.attention_gate.fill_(0.5)  # type: ignore[union-attr, operator]
            block.feed_forward_gate.fill_(0.5)  # type: ignore[union-attr, operator]
    return built


def row(name: str, ours: Answer, peer: Answer, at_most: float, rounds: int) -> Row:
    """Check that both give the same answers, and compare their processor times."""
    one, other = ([prediction.answer for prediction in answer()] for answer in (ours, peer))
    assert one == other, "ours and the peer give different answers"
    ours_s, peer_s = medians([ours, peer], rounds, warmup=1, clock=time.process_time)
    ratio = ours_s / peer_s
    return Row(name, ratio, "ours / peer", f"<= {at_most}", ratio <= at_most, ours_s, peer_s, rounds)


def sides(built: Flamingo, queries: Sequence[Example], shots: Sequence[Example], labels: Sequence[str]):
    """Ranking and generation, each with the shots read once and read with every question."""
    given = [shots] * len(queries)
    yield (
        f"{len(labels)} answers ranked",
        lambda: rank(built, queries, labels, prefix=prefill(built, shots), batch_size=BATCH),
        lambda: rank(built, queries, labels, shots=given, batch_size=BATCH),
    )
    yield (
        "answers generated",
        lambda: generate(built, queries, prefix=prefill(built, shots), batch_size=BATCH, max_new_tokens=4),
        lambda: generate(built, queries, shots=given, batch_size=BATCH, max_new_tokens=4),
    )


def main() -> None:
    """Print the table."""
    options = arguments(__doc__ or "")
    rounds = 2 if options.quick else 7
    task = open_task("easy-vqa")
    queries = task.subset(task.examples("test"), QUESTIONS, 0)
    (shots,) = drawn(task.support(), SHOTS, 0)
    built = model()
    built.prepare([*queries, *shots])
    labels = ("circle", "rectangle", "triangle", "yes", "no")
    rows = [
        row(f"{QUESTIONS} questions after {SHOTS} shots, {what}", ours, peer, 0.5, rounds)
        for what, ours, peer in sides(built, queries, shots, labels)
    ]
    report(rows, options.json)


if __name__ == "__main__":
    main()
