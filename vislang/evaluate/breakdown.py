"""Scores by the kind of question: for which questions is a model good, and for which is it not?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vislang.example import Answers, Example, Label, reference_text
from vislang.metrics.figure import Figure
from vislang.metrics.items import Items
from vislang.metrics.variance import spread

GROUPS = 12
"""Greatest number of kinds in a breakdown; the rarest share the last one."""

FEWEST = 5
"""A kind of question has at least this many examples."""

OTHERS = "others"


@dataclass(frozen=True)
class Breakdown:
    """The scores of each kind.

    Attributes:
        by: what the kinds are.
        kinds: the kind of each example.
        figures: the mean score of each kind, from the most frequent kind; its interval counts questions about one image
            as one unit.
    """

    by: str
    kinds: list[str]
    figures: dict[str, Figure]


def breakdowns(examples: Sequence[Example], items: Items, clusters: Sequence[str]) -> list[Breakdown]:
    """The breakdowns that apply to the examples of a task.

    Args:
        examples: the examples.
        items: the score of each prediction.
        clusters: a key for each example, which questions about one image share.
    """
    kinds = {
        "task": [example.task for example in examples],
        "first words of the question": [_beginning(example) for example in examples],
        "reference answer": [_reference(example) for example in examples],
    }
    found = []
    for by, own in kinds.items():
        grouped = _grouped(own)
        if len(set(grouped)) > 1:
            found.append(Breakdown(by, grouped, _figures(grouped, items, clusters)))
    return found


def _figures(kinds: Sequence[str], items: Items, clusters: Sequence[str]) -> dict[str, Figure]:
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    found = {}
    for kind in sorted(counts, key=lambda kind: (kind == OTHERS, -counts[kind])):
        own = np.array([other == kind for other in kinds])
        near = [key for key, is_own in zip(clusters, own, strict=True) if is_own]
        found[kind] = spread(items.scores[own][None, None], near, items.binary).mean
    return found


def _grouped(kinds: Sequence[str]) -> list[str]:
    """The kinds, with the rare ones put together; one kind for all if almost all are rare."""
    counts = {kind: kinds.count(kind) for kind in set(kinds) if kind}
    kept = sorted((kind for kind in counts if counts[kind] >= FEWEST), key=lambda kind: (-counts[kind], kind))[:GROUPS]
    if sum(counts[kind] for kind in kept) < len(kinds) / 2:
        return [OTHERS] * len(kinds)
    return [kind if kind in kept else OTHERS for kind in kinds]


def _beginning(example: Example) -> str:
    """The first two words of the question, by which VQA questions are commonly grouped (Antol et al. 2015, section
    4.1)."""
    return " ".join(example.text.lower().split()[:2])


def _reference(example: Example) -> str:
    return (reference_text(example) or "") if isinstance(example.target, Answers | Label) else ""
