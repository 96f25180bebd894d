"""Answers by a head that was trained for them."""

from __future__ import annotations

from collections.abc import Sequence

from vislang.capabilities import Decides, Progress
from vislang.example import Example, Prediction
from vislang.prompt import shown


def decide(
    model: Decides,
    examples: Sequence[Example],
    head: str | None = None,
    *,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> list[Prediction]:
    """One prediction an example.

    Args:
        model: it decides.
        examples: what to answer; their targets are not looked at.
        head: which head decides; None takes the one of their task, or the only one of the kind.
        batch_size: examples at a time; it changes nothing but the time.
        progress: called with (examples done, of how many).
    """
    predictions = model.decide(examples, head, batch_size, progress)
    return [
        Prediction(p.id, p.answer, p.candidates, p.scores, p.kind, shown(example.prompt))
        for p, example in zip(predictions, examples, strict=True)
    ]
