"""Cases by name: a benchmark in its official format, a set that comes by package, or a file of the user's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vislang.capabilities import Progress
from vislang.case import Case
from vislang.data.fetch import EMOJI, DataSet
from vislang.data.jsonl import DataError, Problem
from vislang.errors import UserError
from vislang.tasks import easy_vqa, scenes
from vislang.tasks.benchmarks import BENCHMARKS
from vislang.tasks.captioned import PAIRS, captioned
from vislang.tasks.case_files import read_cases
from vislang.tasks.retrieval import karpathy, pairs_of, right_pair
from vislang.tasks.vqa import from_examples


@dataclass(frozen=True)
class CaseSet:
    """A set with splits of its own: how they are read, and what has to be fetched for it."""

    read: Callable[[str], list[Case]]
    data_set: DataSet | None = None


CASE_SETS = {
    easy_vqa.NAME: CaseSet(lambda split: from_examples(easy_vqa.easy_vqa(split))),
    scenes.NAME: CaseSet(scenes.scenes, EMOJI),
}
"""Sets with a split into ``train`` and ``test`` of their own, by name."""


def needed(source: str) -> DataSet | None:
    """What has to be fetched before a source can be read; None for files, benchmarks, and what pip installs."""
    if source in CASE_SETS:
        return CASE_SETS[source].data_set
    kind, _, rest = source.partition(":")
    return PAIRS[rest].data_set if kind == "pairs" and rest in PAIRS else None


def read_source(
    source: str, task: str, split: str, problems: list[Problem], progress: Progress | None = None
) -> list[Case]:
    """The cases of a source, as cases of a task.

    Args:
        source: the name of a set that comes by package; ``BENCHMARK:FOLDER`` or ``BENCHMARK:FOLDER:SPLIT``;
            ``pairs:SOURCE`` for pairs of pictures and captions, whose wrong options are still to be drawn
            (:func:`~vislang.tasks.retrieval.four_way`); or a JSON Lines file.
        task: what the cases' task is called.
        split: which split, where the source names none.
        problems: bad records of a file are added to it, and left out.
        progress: called with (done, of how many).

    Raises:
        DataError: there is no such thing, or nothing usable in it.
    """
    kind, colon, rest = source.partition(":")
    if source in CASE_SETS:
        try:
            cases = CASE_SETS[source].read(split)
        except UserError:
            raise
        except ValueError as error:
            raise DataError(f"{error} Name one of these as --split.") from None
    elif kind in BENCHMARKS and colon:
        folder, _, own = rest.partition(":")
        cases = BENCHMARKS[kind](Path(folder), own or split).cases
    elif kind == "pairs" and colon:
        cases = [right_pair(document) for document in captioned(rest, problems, progress)]
    elif kind == "retrieval" and colon:
        folder, _, own = rest.partition(":")
        cases = [right_pair(document) for document in pairs_of(karpathy(Path(folder), own or split))]
    elif Path(source).is_file():
        cases = read_cases(Path(source), problems, progress)
    else:
        known = [*CASE_SETS, *(f"{name}:FOLDER" for name in [*BENCHMARKS, "retrieval"])]
        pairs = ", ".join(f"pairs:{name}" for name in PAIRS)
        raise DataError(
            f"{source}: neither a file nor a task. The tasks are: {', '.join(known)}, {pairs}, pairs:FILE.jsonl."
        )
    return [dataclasses.replace(case, task=task) for case in cases if case.target is not None]
