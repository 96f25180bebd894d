"""Exact match of short answers after the usual clean-up."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from vislang.metrics.figure import Figure, share


def normalize(answer: str) -> str:
    """Lower case, one space between words, no full stop at the end, no leading article."""
    words = " ".join(answer.lower().split()).rstrip(".").strip()
    return re.sub(r"^(an?|the) (?=\S)", "", words)


def correct(answer: str, references: Sequence[str]) -> bool:
    """Whether an answer equals one of the references, both normalized."""
    return normalize(answer) in {normalize(reference) for reference in references}


def soft_score(answer: str, scores: Mapping[str, float]) -> float:
    """The score of an answer, from 0 to 1, both sides normalized; 0 for an answer without one."""
    return {normalize(known): score for known, score in scores.items()}.get(normalize(answer), 0.0)


def exact_match(answers: Sequence[str], references: Sequence[Sequence[str]]) -> Figure:
    """The share of answers that equal one of their references."""
    return share(sum(correct(a, r) for a, r in zip(answers, references, strict=True)), len(references))
