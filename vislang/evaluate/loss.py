"""Losses on held-out examples."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from vislang.capabilities import Generates, Scores
from vislang.example import Example, reference_text
from vislang.nn.device import to_device


@torch.no_grad()
def held_out_losses(model: Any, examples: Sequence[Example], batch_size: int) -> dict[str, float]:
    """The mean of each loss and diagnostic by name, over batches that are the same each time.

    Args:
        model: a trainable model, in evaluation mode.
        examples: held-out examples.
        batch_size: examples at a time; batches are weighted by their size.
    """
    sums: dict[str, float] = defaultdict(float)
    for number, start in enumerate(range(0, len(examples), batch_size)):
        part = examples[start : start + batch_size]
        losses = model(to_device(model.collate(part, number), model.device))
        for name, value in {**losses, **model.diagnostics()}.items():
            sums[name] += float(value) * len(part) / len(examples)
    return dict(sums)


def loss_per_token(model: Any, examples: Sequence[Example], blind: bool = False, batch_size: int = 16) -> float:
    """The mean loss per target token of a generating model, in nats; with ``blind``, without media."""
    total, count = 0.0, 0
    seen = [example.without_media() for example in examples] if blind else list(examples)
    with torch.no_grad():
        for start in range(0, len(seen), batch_size):
            batch = model.collate(seen[start : start + batch_size], 0)
            targets = int((batch.targets >= 0).sum())
            total += targets * sum(float(loss) for loss in model(to_device(batch, model.device)).values())
            count += targets
    return total / max(1, count)


def reference_perplexity(model: Any, examples: Sequence[Example], batch_size: int = 64) -> float | None:
    """Perplexity per token of the references, including the end-of-text token.

    None if the model gives no likelihoods, or no example has a reference in words.
    """
    if not isinstance(model, Scores) or not isinstance(model, Generates):
        return None
    written = [example for example in examples if reference_text(example) is not None]
    if not written:
        return None
    scores = model.score([model.prompts.render(example, learn=True) for example in written], batch_size)
    return math.exp(-sum(s.log_likelihood for s in scores) / sum(s.tokens for s in scores))
