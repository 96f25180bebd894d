"""Which shot caused an answer: the log-likelihood of the answer without each shot, beside the attention to it.

Attention shows what was read. Leaving a shot out shows what it changed (Koh and Liang 2017 call the same quantity, for
training examples, their influence).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from vislang.capabilities import Attends, AttendsToChunks
from vislang.errors import UserError
from vislang.evaluate.alternatives import alternatives
from vislang.evaluate.rank import rank
from vislang.example import Answer, Example
from vislang.prompt import as_generation


@dataclass(frozen=True)
class ShotEffect:
    """What a shot did for an answer.

    Attributes:
        shot: the shot.
        change: log-likelihood of the answer with all shots minus that without this one, in nats. Above 0, the shot made
            the answer more likely.
        answer_without: for ranked answers, the answer without this shot; None if answers are generated.
        attention: share of the language model's self-attention on the shot's text; None if it cannot be recorded.
        image_attention: share of the cross-attention on the shot's images.
    """

    shot: Example
    change: float
    answer_without: Answer
    attention: float | None
    image_attention: float | None


@dataclass(frozen=True)
class ExplainedShots:
    """An answer after shots.

    Attributes:
        example: the query.
        answer: the answer with all shots.
        log_likelihood: of the answer with all shots, in nats; of an answer that fills the context, without its last
            token.
        change_of_all: log-likelihood with all shots minus that without any.
        effects: one for each shot, in the order of the prompt.
        query_attention, query_image_attention: the same shares for the query itself.
    """

    example: Example
    answer: Answer
    log_likelihood: float
    change_of_all: float
    effects: list[ShotEffect]
    query_attention: float | None
    query_image_attention: float | None


def explain_shots(model: Any, example: Example, shots: Sequence[Example], labels: Sequence[str] = ()) -> ExplainedShots:
    """Answer a query after shots, and again without each of them and without all.

    Args:
        model: it generates or ranks.
        example: the query; its target is not used.
        shots: the shots of its prompt, in order.
        labels: answers to rank; without them and without choices, the answer is generated.

    Raises:
        UserError: there are no shots, or the prompt fills the language model's context.
    """
    if not shots:
        raise UserError(f"{example.name}: there are no shots in its prompt. Give some.")
    prompts = without_each(shots)
    if labels or example.choices:
        ranked = rank(model, [example] * len(prompts), labels, shots=prompts)
        answer = ranked[0].answer
        index = ranked[0].candidates.index(answer)
        likelihoods = [prediction.scores[index] for prediction in ranked]
        without: list[Answer] = [prediction.answer for prediction in ranked[1:-1]]
        # Each choice of several images or paths has its own prompt.
        asked, text = _answered(example, answer)
    else:
        documents = [model.prompts.render(example, own) for own in prompts]
        (answer,) = model.generate(documents[:1])
        text = model.fitting(documents[0], answer) if isinstance(model, Attends) else answer
        if answer and not text:
            raise UserError(
                f"{example.name}: the prompt fills the language model's context, so that the answer cannot be read "
                "again. Shorten it, or give fewer shots."
            )
        likelihoods = [row[0].log_likelihood for row in model.rank(documents, [text])]
        without = [None] * len(shots)
        asked = example
    attention = _attention(model, asked, shots, text)
    effects = [
        ShotEffect(shot, likelihoods[0] - likelihoods[1 + n], without[n], *attention[n]) for n, shot in enumerate(shots)
    ]
    return ExplainedShots(
        example, answer, likelihoods[0], likelihoods[0] - likelihoods[-1], effects, *attention[len(shots)]
    )


def without_each(shots: Sequence[Example]) -> list[list[Example]]:
    """All shots; then all but one, for each of them; then none."""
    shots = list(shots)
    return [shots, *([*shots[:n], *shots[n + 1 :]] for n in range(len(shots))), []]


def _answered(example: Example, answer: Answer) -> tuple[Example, str]:
    """A ranked answer as a prompt and the text that was ranked."""
    options = alternatives(example, () if example.choices else (str(answer),))
    chosen = options[answer] if example.choices and isinstance(answer, int) else options[0]
    return chosen.given, chosen.text


def _attention(
    model: Any, example: Example, shots: Sequence[Example], answer: str
) -> list[tuple[float | None, float | None]]:
    """The shares of attention to the text and the images of each shot, and of the query."""
    counts = [len(as_generation(own).prompt.media) for own in (*shots, example)]
    prompt = model.prompts.render(example, shots)
    if not isinstance(model, AttendsToChunks) or not all(counts) or not answer.strip():
        # Text without a medium of its own would count as part of the chunk before it.
        return [(None, None)] * len(counts)
    found = model.chunk_attention(replace(prompt, target=answer))
    shares: list[tuple[float | None, float | None]] = []
    start = 0
    for count in counts:
        text = None if found.text is None else float(found.text[1 + start : 1 + start + count].sum())
        shares.append((text, float(found.media[start : start + count].sum())))
        start += count
    return shares
