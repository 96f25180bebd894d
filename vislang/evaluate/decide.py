"""Answers of a trained head."""

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
    """A prediction for each example.

    Args:
        model: a model with heads.
        examples: examples to answer; their targets are not used.
        head: the head to use; None takes the one of the examples' task, or the only one for their kind of target.
        batch_size: examples at a time; it does not change the result.
        progress: called with (examples done, examples in all).
    """
    predictions = model.decide(examples, head, batch_size, progress)
    return [
        Prediction(p.id, p.answer, p.candidates, p.scores, p.kind, shown(example.prompt))
        for p, example in zip(predictions, examples, strict=True)
    ]
