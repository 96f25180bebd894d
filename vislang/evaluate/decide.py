"""Answers of a trained head."""

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
        replace(prediction, prompt=shown(_read(example, prediction)))
        for prediction, example in zip(predictions, examples, strict=True)
    ]


def _read(example: Example, prediction: Prediction) -> Document:
    """What a model read: the prompt; of several choices, with the one that it decided for."""
    decided = prediction.answer
    return example.with_choice(decided) if example.choices and isinstance(decided, int) else example.prompt
