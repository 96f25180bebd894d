"""Answers by generation: the prompt of each example is continued, and the text is parsed for the kind of target."""

from __future__ import annotations

import re
from collections.abc import Sequence

from vislang.capabilities import Completion, Generates, Prefix, Progress
from vislang.evaluate.prefix import NOTHING, distinct
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
        examples: examples to answer; prompts that are equal are answered once.
        labels: the closed set of labels, if there is one.
        blind: remove all media and keep their positions.
        shots: for each example, the shots of its prompt.
        prefix: the shots that all prompts share.
        batch_size: prompts at a time; it does not change the result.
        max_new_tokens: greatest length of an answer, in tokens.
        progress: called with (prompts done, prompts in all).
    """
    before = [()] * len(examples) if shots is None else shots
    prompts = [
        model.prompts.render(example, own, after_shots=not prefix.is_empty)
        for example, own in zip(examples, before, strict=True)
    ]
    if blind:
        prompts = [prompt.without_media() for prompt in prompts]
    # Equal prompts, such as those of one question without its images, have the same answer.
    first, position = distinct([prompt.parts for prompt in prompts])
    made: list[Completion] = []
    for start in range(0, len(first), batch_size):
        part = [prompts[index] for index in first[start : start + batch_size]]
        made += model.generate_scored(part, max_new_tokens, batch_size, state=prefix.state)
        if progress is not None:
            progress(len(made), len(first))
    found = []
    for example, prompt, own in zip(examples, prompts, position, strict=True):
        answer = read_answer(made[own].text, example, labels)
        sent = prefix.text + shown(prompt)
        found.append(Prediction(example.id, answer, prompt=sent, log_likelihood=made[own].log_likelihood))
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
