"""Answers of a trained head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from vislang.capabilities import Decides, Progress
from vislang.document import Document
from vislang.errors import UserError
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


def decide_among(model: Decides, example: Example, options: Sequence[str], head: str) -> Prediction:
    """The answer of a head among some options, with the score of each.

    Args:
        model: a model with heads.
        example: the question.
        options: different answers. A head for choices reads each with the question; a head for answers or labels must
            know them.
        head: the head to use.

    Raises:
        UserError: the head predicts something else, or does not know an option.
    """
    kind = model.heads[head]
    if kind == "choice":
        choices = tuple(Document([option], name=example.name) for option in options)
        (found,) = model.decide([replace(example, choices=choices)], head)
        scores = dict(zip(options, found.scores, strict=True))
    elif kind in ("answers", "label"):
        (found,) = model.decide([example], head)
        known = dict(zip(map(str, found.candidates), found.scores, strict=True))
        if unknown := [option for option in options if option not in known]:
            shown_answers = ", ".join([*list(known)[:10], *(["..."] if len(known) > 10 else [])])
            raise UserError(f"the head {head} does not know {', '.join(unknown[:5])}. It knows {shown_answers}.")
        scores = {option: known[option] for option in options}
    else:
        raise UserError(f"the head {head} predicts a {kind} and chooses among no options. Leave them out.")
    best = max(scores, key=lambda option: scores[option])
    return replace(found, answer=best, candidates=tuple(scores), scores=tuple(scores.values()))


def _read(example: Example, prediction: Prediction) -> Document:
    """What a model read: the prompt; of several choices, with the one that it decided for."""
    decided = prediction.answer
    return example.with_choice(decided) if example.choices and isinstance(decided, int) else example.prompt
