"""Sets of questions that vislang knows by name, each with a split of its own into ``train`` and ``test``."""

from __future__ import annotations

from collections.abc import Callable

from vislang.data.example import Example
from vislang.tasks import easy_vqa, films

QUESTION_SETS: dict[str, Callable[[str], list[Example]]] = {
    easy_vqa.NAME: easy_vqa.easy_vqa,
    films.NAME: films.films,
}
"""How the questions of a split are read, by the name of the set."""
