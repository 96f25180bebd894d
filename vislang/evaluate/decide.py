"""Answers by a head that was trained for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vislang.capabilities import Decides, Progress
from vislang.document import Document
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
        replace(prediction, prompt=shown(_read(example, prediction)))
        for prediction, example in zip(predictions, examples, strict=True)
    ]


def _read(example: Example, prediction: Prediction) -> Document:
    """What a model read: the prompt; of several choices, with the one that it decided for."""
    decided = prediction.answer
    return example.with_choice(decided) if example.choices and isinstance(decided, int) else example.prompt
