"""Answers by generation: the prompt of each example is continued, and the text is parsed for the kind of target."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vislang.capabilities import Generates, Progress
from vislang.evaluate.prefix import NOTHING, Prefix
from vislang.example import Answer, Example, Prediction, Value
from vislang.metrics.accuracy import normalize
from vislang.prompt import shown

MAX_NEW_TOKENS = 20


def generate(
    model: Generates,
    examples: Sequence[Example],
    labels: Sequence[str] = (),
    *,
    blind: bool = False,
    shots: Sequence[Sequence[Example]] | None = None,
    prefix: Prefix = NOTHING,
    batch_size: int = 64,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Progress | None = None,
) -> list[Prediction]:
    """A prediction for each example.

    Args:
        model: a model that generates.
        examples: examples to answer.
        labels: the closed set of labels, if there is one.
        blind: remove all media and keep their positions.
        shots: for each example, the shots of its prompt.
        prefix: the shots that all prompts share.
        batch_size: examples at a time; it does not change the result.
        max_new_tokens: greatest length of an answer, in tokens.
        progress: called with (examples done, examples in all).
    """
    found: list[Prediction] = []
    for start in range(0, len(examples), batch_size):
        part = examples[start : start + batch_size]
        before = [()] * len(part) if shots is None else shots[start : start + batch_size]
        prompts = [model.prompts.render(example, own) for example, own in zip(part, before, strict=True)]
        if blind:
            prompts = [prompt.without_media() for prompt in prompts]
        texts = model.generate(prompts, max_new_tokens, batch_size, state=prefix.state)
        for example, prompt, text in zip(part, prompts, texts, strict=True):
            answer = read_answer(text, example, labels)
            found.append(Prediction(example.id, answer, prompt=prefix.text + shown(prompt)))
        if progress is not None:
            progress(len(found), len(examples))
    return found


def read_answer(text: str, example: Example, labels: Sequence[str] = ()) -> Answer:
    """Parse a text: a number if the target is a value, a label if the text has the words of one, or the text itself.

    None if the target is a value and the text contains no number.
    """
    if isinstance(example.target, Value):
        number = re.search(r"[-+]?\d+(?:\.\d+)?", text)
        return None if number is None else float(number[0])
    words = {normalize(example.wording.labels.get(label, label)): label for label in labels}
    return words.get(normalize(text), text)
