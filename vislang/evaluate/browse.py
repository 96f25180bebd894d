"""The answers of an evaluation as a gallery: image, prompt as it was sent, answer, references and score, worst
first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vislang.boxes import Box
from vislang.document import Image, Video
from vislang.evaluate.abstain import confidence_of, probability_of, shown_confidence
from vislang.evaluate.breakdown import Breakdown
from vislang.evaluate.page import fitted
from vislang.example import Answer, Answers, Choice, Example, Prediction, Text, reference_text, shown_answer
from vislang.metrics.figure import metric
from vislang.metrics.items import Items

WORST, OTHERS = 90, 30
"""How many answers are shown: the worst, and others evenly spaced over the rest."""

IMAGES, REFERENCES = 4, 6
"""Greatest number of images, or frames of a video, and of references of a card."""

SIDE = 256
"""Longer side of an image, in pixels."""

PROPOSED, TRUE = (179, 38, 30), (29, 122, 70)
"""Colours of the boxes of the answer and of the reference."""


@dataclass(frozen=True)
class Card:
    """An answer on the page.

    Attributes:
        id: identifier of the example.
        question: its text.
        answer, references: the answer and the references, as text.
        score: the score as text.
        verdict: ``right``, ``wrong`` or, for answers that are neither, ``scored``.
        probability: of the answer, as text; empty if it has none.
        kind: its kind in the first breakdown; empty without one.
        prompt: the prompt as it was sent; empty if it was not recorded.
        pictures: its images as data URLs.
        media: the names of media that are not images.
    """

    id: str
    question: str
    answer: str
    references: str
    score: str
    verdict: str
    probability: str
    kind: str
    prompt: str
    pictures: list[str] = field(repr=False)
    media: list[str]


@dataclass(frozen=True)
class Browser:
    """The gallery of an evaluation.

    Attributes:
        cards: the cards, worst first.
        total: number of answers of the evaluation.
        verdicts: the verdicts of the cards, with their numbers; empty if there is one only.
        by: what the kinds are; empty without kinds.
        kinds: the kinds of the cards, with their numbers; empty if there is one only.
    """

    cards: list[Card]
    total: int
    verdicts: dict[str, int]
    by: str
    kinds: dict[str, int]


def worst_first(items: Items, predictions: Sequence[Prediction]) -> list[int]:
    """The indices of all answers, the worst first; of equally bad answers, the one that the model was surest of first.

    Args:
        items: the score of each prediction.
        predictions: the predictions.
    """
    sign = 1 if metric(items.metric).higher_is_better else -1
    sure = [confidence_of(prediction) if _has_confidence(prediction) else 0.0 for prediction in predictions]
    # Sorting is stable: what is equal stays in the order of the file.
    return sorted(range(len(predictions)), key=lambda index: (sign * float(items.scores[index]), -sure[index]))


def chosen(order: Sequence[int]) -> list[int]:
    """Of the answers in this order, the first :data:`WORST` and :data:`OTHERS` evenly spaced ones of the rest."""
    rest = order[WORST:]
    spaced = np.linspace(0, len(rest) - 1, min(len(rest), OTHERS)).round().astype(int).tolist()
    return [*order[:WORST], *(rest[index] for index in spaced)]


def browser_of(
    examples: Sequence[Example], predictions: Sequence[Prediction], items: Items, breakdown: Breakdown | None = None
) -> Browser:
    """The gallery of an evaluation.

    Args:
        examples: the examples, each with a target.
        predictions: one for each example.
        items: their scores.
        breakdown: the kinds by which the cards can be filtered.
    """
    cards = [
        _card(examples[index], predictions[index], items, index, "" if breakdown is None else breakdown.kinds[index])
        for index in chosen(worst_first(items, predictions))
    ]
    verdicts = _counted(("wrong", "right"), [card.verdict for card in cards])
    kinds = {} if breakdown is None else _counted(list(breakdown.figures), [card.kind for card in cards])
    return Browser(cards, len(examples), verdicts, breakdown.by if breakdown is not None and kinds else "", kinds)


def _card(example: Example, prediction: Prediction, items: Items, index: int, kind: str) -> Card:
    probability = probability_of(prediction) if _has_confidence(prediction) else None
    verdict = "scored" if items.right is None else "right" if items.right[index] else "wrong"
    boxes = [(box, colour) for box, colour in ((example.target, TRUE), (prediction.answer, PROPOSED)) if _is_box(box)]
    return Card(
        example.id,
        example.text,
        _shown(prediction.answer, example) or "(nothing)",
        _references(example),
        f"{float(items.scores[index]):.3g} ({metric(items.metric).title})",
        verdict,
        "" if probability is None else shown_confidence(confidence_of(prediction)),
        kind,
        prediction.prompt,
        _pictures(example, boxes),
        [medium.name for medium in example.media if not isinstance(medium, Image | Video)],
    )


def _pictures(example: Example, boxes: Sequence[Any]) -> list[str]:
    found: list[str] = []
    for medium in example.media:
        if len(found) >= IMAGES:
            break
        if isinstance(medium, Image) and medium.is_there:
            found.append(fitted(medium.decode(), SIDE, boxes))
        elif isinstance(medium, Video) and medium.is_there:
            found += [fitted(frame, SIDE) for frame in medium.decode(max_frames=IMAGES - len(found))]
    return found


def _references(example: Example) -> str:
    target = example.target
    if isinstance(target, Text):
        found = list(dict.fromkeys(target.references))
    elif isinstance(target, Answers):
        scores = sorted(target.scores.items(), key=lambda pair: -pair[1])
        found = [answer if score == 1 else f"{answer} ({score:.2g})" for answer, score in scores]
    elif isinstance(target, Box):
        return shown_answer(target)
    elif isinstance(target, Choice):
        return _shown(target.index, example)
    else:
        return reference_text(example) or ""
    more = len(found) - REFERENCES
    return "; ".join(found[:REFERENCES]) + (f"; and {more} more" if more > 0 else "")


def _shown(answer: Answer, example: Example) -> str:
    """An answer as text; of a choice, its text."""
    if isinstance(answer, int) and not isinstance(answer, bool) and example.choices:
        words = " ".join(part for part in example.choices[answer].parts if isinstance(part, str))
        return words or f"choice {answer + 1}"
    return "" if answer is None else shown_answer(answer)


def _has_confidence(prediction: Prediction) -> bool:
    return prediction.log_likelihood is not None or prediction.answer in prediction.candidates


def _is_box(value: object) -> bool:
    return isinstance(value, Box)


def _counted(names: Sequence[str], values: Sequence[str]) -> dict[str, int]:
    """How often each name occurs; empty if fewer than two do, since there is nothing to choose then."""
    found = {name: values.count(name) for name in names if name in values}
    return found if len(found) > 1 else {}
