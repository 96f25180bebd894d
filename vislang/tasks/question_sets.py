"""Sets of questions that vislang knows by name, each with a split of its own into ``train`` and ``test``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from vislang.data.example import Example
from vislang.data.fetch import DataSet
from vislang.tasks import easy_vqa, films


@dataclass(frozen=True)
class QuestionSet:
    """How a set is read, split by split, and what has to be fetched for it."""

    read: Callable[[str], list[Example]]
    data_set: DataSet | None = None


QUESTION_SETS = {
    easy_vqa.NAME: QuestionSet(easy_vqa.easy_vqa),
    films.NAME: QuestionSet(films.films),
}
"""Sets by name."""
