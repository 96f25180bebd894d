"""Answers by writing: the prompt of each example is continued, and the text is read as the kind of target wants it."""

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
    """One prediction an example.

    Args:
        model: it writes.
        examples: what to answer.
        labels: the closed set of answers, if there is one.
        blind: take the media away and keep their positions, to see what they contribute.
        shots: for each example, the examples that stand before it.
        prefix: what was read before all of them.
        batch_size: examples at a time; it changes nothing but the time.
        max_new_tokens: the longest answer.
        progress: called with (examples done, of how many).
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
    """A text as an answer: a number where one is wanted, a label where the words are those of one, or the text itself.

    None where a number is wanted and the text holds none.
    """
    if isinstance(example.target, Value):
        number = re.search(r"[-+]?\d+(?:\.\d+)?", text)
        return None if number is None else float(number[0])
    words = {normalize(example.wording.labels.get(label, label)): label for label in labels}
    return words.get(normalize(text), text)
