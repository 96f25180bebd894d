"""Evaluate a model that generates on examples with references."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from vislang.capabilities import Generates, Progress, Scores
from vislang.data.example import Example
from vislang.prompt import Shot
from vislang.tasks.answers import Proportion, accuracy, correct


@dataclass(frozen=True)
class Answered:
    """A model's answers and their score.

    Attributes:
        predictions: one a example, in order.
        correct: whether each is right.
        accuracy: the share that is.
    """

    predictions: list[str]
    correct: list[bool]
    accuracy: Proportion


def answer(
    model: Generates,
    examples: Sequence[Example],
    blind: bool = False,
    max_new_tokens: int = 20,
    batch_size: int = 64,
    progress: Progress | None = None,
) -> Answered:
    """Ask a model every example.

    Args:
        model: the model.
        examples: what to ask, each with references.
        blind: take the media away and leave their places, to see what they were worth.
        max_new_tokens: longest answer.
        batch_size: examples at a time.
        progress: called with (examples done, examples in all).
    """
    prompts = [example.prompt(model.prompts) for example in examples]
    if blind:
        prompts = [prompt.without_media() for prompt in prompts]
    predictions: list[str] = []
    for start in range(0, len(prompts), batch_size):
        predictions += model.generate(prompts[start : start + batch_size], max_new_tokens, batch_size)
        if progress is not None:
            progress(len(predictions), len(prompts))
    right = [correct(p, e) for p, e in zip(predictions, examples, strict=True)]
    return Answered(predictions, right, accuracy(predictions, examples))


def shots_of(examples: Sequence[Example]) -> list[Shot]:
    """Examples as they stand before a question, with the answer that is most often given."""
    return [Shot(example.image, example.target, example.question) for example in examples if example.image is not None]


def perplexity(model: Scores, examples: Sequence[Example], prompts) -> float:
    """exp of the mean negative log-likelihood of a reference's token, the end included; 1 is certainty."""
    scores = model.score([example.lesson(prompts) for example in examples])
    return math.exp(-sum(s.log_likelihood for s in scores) / sum(s.tokens for s in scores))
