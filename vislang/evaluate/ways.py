"""How a model answers a task, derived from the task's kind of target and the model's capabilities."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from vislang.capabilities import Decides, Embeds, Generates, Matches, Ranks, Reads

Way = Literal["generate", "rank", "decide", "match", "embed"]

WAYS: dict[str, tuple[Way, ...]] = {
    "text": ("generate", "decide", "match"),
    "answers": ("decide", "generate"),
    "choice": ("decide", "rank", "match"),
    "label": ("decide", "rank", "match", "embed"),
    "box": ("decide",),
    "value": ("decide", "generate"),
    "pairs": ("match", "rank"),
}
"""For each kind of target, the ways of answering, the best first."""

TAKES: dict[Way, str] = {
    "generate": "generates text",
    "rank": "gives the likelihood of a text",
    "decide": "has a head for it",
    "match": "compares images with texts",
    "embed": "gives vectors",
}
"""What a model must be able to do, for each way of answering."""


class TaskSide(Protocol):
    """The attributes of a task that decide how models answer it; see :class:`vislang.tasks.task.Task`."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def kind(self) -> str: ...  # noqa: D102

    @property
    def media(self) -> frozenset[str]: ...  # noqa: D102

    @property
    def images(self) -> int: ...  # noqa: D102

    @property
    def labels(self) -> tuple[str, ...]: ...  # noqa: D102

    @property
    def support_split(self) -> str | None: ...  # noqa: D102


@dataclass(frozen=True)
class Cell:
    """How a model would answer a task: ``way``, or None with the reason ``why_not``."""

    way: Way | None
    why_not: str | None = None


def cell(model: Any, task: TaskSide) -> Cell:
    """How a model would answer a task, or why it cannot.

    Args:
        model: a model.
        task: a task of the catalogue, or a user's own.
    """
    reasons = []
    for way in WAYS[task.kind]:
        reason = _why_not(way, model, task)
        if reason is None:
            return Cell(way)
        reasons.append(reason)
    return Cell(None, "; ".join(dict.fromkeys(reasons)))


def why_not(model: Any, task: TaskSide) -> str | None:
    """Why a model cannot answer a task, in a sentence that names both and what would work; None if it can."""
    found = cell(model, task)
    if found.way is not None:
        return None
    takes = " or ".join(TAKES[way] for way in WAYS[task.kind])
    return (
        f"task {task.name}: a {type(model).__name__} cannot answer it, because it {found.why_not}. Its targets are of "
        f"the kind {task.kind}: use a model that reads {', '.join(sorted(task.media))} and {takes}."
    )


def ways(model: Any, task: TaskSide) -> list[Way]:
    """All ways in which a model can answer a task, the best first."""
    return [way for way in WAYS[task.kind] if _why_not(way, model, task) is None]


def _why_not(way: Way, model: Any, task: TaskSide) -> str | None:
    """Why a model cannot answer a task in one way; None if it can."""
    media = task.media
    if way == "match" and "several images" in media:
        # Each image is compared with the text separately.
        media = media - {"several images"} | {"image"}
    unreadable = model.why_unreadable(media) if isinstance(model, Reads) else None
    return unreadable or _WAYS[way](model, task)


def _generate(model: Any, task: TaskSide) -> str | None:
    return None if isinstance(model, Generates) else "generates no text"


def _rank(model: Any, task: TaskSide) -> str | None:
    return None if isinstance(model, Ranks) else "gives no likelihoods of texts"


def _decide(model: Any, task: TaskSide) -> str | None:
    if not isinstance(model, Decides):
        return f"has no head for targets of the kind {task.kind}"
    return model.why_undecided(task.kind, task.labels, task.images)


def _match(model: Any, task: TaskSide) -> str | None:
    if not isinstance(model, Matches):
        return "does not compare images with texts"
    if (reason := model.why_unmatched()) is not None:
        return reason
    if not task.media & {"image", "several images"}:
        return "compares texts with images, and this task has no images"
    if task.kind == "text" and task.support_split is None:
        return "chooses among given captions, and this task has no training split to take them from"
    return None


def _embed(model: Any, task: TaskSide) -> str | None:
    if not isinstance(model, Embeds):
        return "gives no vectors"
    if task.support_split is None:
        return "only gives vectors, and this task has no training split to fit a classifier on"
    if len(task.media) > 1:
        return "gives a vector for a single medium, and this task has several"
    return None


_WAYS: dict[Way, Callable[[Any, TaskSide], str | None]] = {
    "generate": _generate,
    "rank": _rank,
    "decide": _decide,
    "match": _match,
    "embed": _embed,
}
