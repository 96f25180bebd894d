"""Scoring decisions by the kind of their targets, where a set has no rules of its own."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from vislang.boxes import overlaps
from vislang.case import Answers, Case, Choice, Decision, Label, Place, Value
from vislang.data.jsonl import DataError
from vislang.tasks.answers import normalize, proportion
from vislang.tasks.official import Score
from vislang.tasks.referring import as_boxes, pointing


def score_decisions(cases: Sequence[Case], decisions: Sequence[Decision]) -> Score:
    """The figures of one task.

    Answers, choices and labels: ``accuracy`` (of answers with soft scores, their mean). Places: see
    :func:`~vislang.tasks.referring.pointing`. Values: ``Pearson r`` and ``root mean squared error``.
    """
    target = cases[0].target
    if any(type(case.target) is not type(target) for case in cases):
        raise DataError(f"{cases[0].name} and others: records of several kinds; a task has one.")
    if isinstance(target, Place):
        return pointing(list(cases), list(decisions))
    if isinstance(target, Value):
        said = np.array([decision.best for decision in decisions], float)
        wanted = np.array([case.target.number for case in cases if isinstance(case.target, Value)])
        constant = said.std() == 0 or wanted.std() == 0
        return {
            "Pearson r": math.nan if constant else float(np.corrcoef(said, wanted)[0, 1]),
            "root mean squared error": float(np.sqrt(np.mean((said - wanted) ** 2))),
        }
    worth = [worth_of(decision.best, case) for case, decision in zip(cases, decisions, strict=True)]
    if all(value in (0, 1) for value in worth):
        return {"accuracy": proportion(int(sum(worth)), len(worth))}
    return {"accuracy": float(np.mean(worth))}


def guess_scores(learned: Sequence[Case], cases: Sequence[Case]) -> dict[str, float]:
    """What guesses are worth that never look: the most frequent right answer or label, overall and to the same text;
    of choices, chance; of places, the whole image, where the images are there to be measured."""
    target = cases[0].target
    if isinstance(target, Choice):
        return {"chance accuracy": float(np.mean([1 / len(case.options) for case in cases]))}
    if isinstance(target, Place):
        if not all(image.is_there for case in cases for image in case.images):
            return {}
        right = [
            overlaps(as_boxes(Place(0.0, 0.0, *map(float, case.images[0].size))), as_boxes(case.target))[0, 0] > 0.5
            for case in cases
            if isinstance(case.target, Place)
        ]
        return {"whole image accuracy": float(np.mean(right))}
    if not isinstance(target, Answers | Label):
        return {}
    overall: Counter[str] = Counter()
    by_text: dict[str, Counter[str]] = defaultdict(Counter)
    for case in learned:
        overall[right_of(case)] += 1
        by_text[_text(case)][right_of(case)] += 1
    frequent = overall.most_common(1)[0][0]
    same = [by_text.get(_text(case), overall).most_common(1)[0][0] for case in cases]
    return {
        "majority accuracy": float(np.mean([worth_of(frequent, case) for case in cases])),
        "majority accuracy to the same text": float(
            np.mean([worth_of(said, case) for said, case in zip(same, cases, strict=True)])
        ),
    }


def right_of(case: Case) -> str:
    """The best answer, or the label."""
    if isinstance(case.target, Answers):
        return max(case.target.scores, key=lambda answer: case.target.scores[answer])  # type: ignore[union-attr]
    assert isinstance(case.target, Label)
    return case.target.name


def worth_of(best: object, case: Case) -> float:
    """How right a decision is, from 0 to 1."""
    target = case.target
    if isinstance(target, Answers):
        known = {normalize(answer): score for answer, score in target.scores.items()}
        return known.get(normalize(str(best)), 0.0)
    if isinstance(target, Choice):
        return float(best == target.index)
    assert isinstance(target, Label)
    return float(best == target.name)


def _text(case: Case) -> str:
    return " ".join(part for part in case.options[0].parts if isinstance(part, str))
