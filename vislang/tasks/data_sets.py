"""Examples by name: a task that vislang knows, or a file of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vislang.capabilities import Progress
from vislang.data.example import Example
from vislang.data.jsonl import DataError, Problem, must_be_good, read_jsonl
from vislang.data.split import hold_out
from vislang.tasks.question_sets import QUESTION_SETS


@dataclass(frozen=True)
class Split:
    """What to learn from, what to watch while learning, and what to be scored on.

    Attributes:
        train: to learn from.
        validation: kept from training, for the curve.
        test: for the final score, never looked at before.
        problems: bad records that were left out.
    """

    train: list[Example]
    validation: list[Example]
    test: list[Example]
    problems: list[Problem]


def split_data(
    data: str,
    eval_data: str | None,
    share: float,
    skip_bad_records: bool = False,
    progress: Progress | None = None,
) -> Split:
    """Read a data set and split it.

    Raises:
        DataError: nothing to read, or bad records that nobody allowed to skip.
    """
    problems: list[Problem] = []
    if data in QUESTION_SETS:
        everything, test = QUESTION_SETS[data]("train"), QUESTION_SETS[data]("test")
    else:
        everything, test = _file(data, skip_bad_records, problems, progress), []
    train, validation = hold_out(everything, share)
    if eval_data is not None:
        test = evaluation_examples(eval_data, skip_bad_records, problems, progress)
    if not train:
        raise DataError(f"{data}: nothing left to learn from; lower hold_out or add records.")
    if not test and not validation:
        raise DataError(f"{data}: nothing left to score on; raise hold_out, or name a file as eval_data.")
    return Split(train, validation, test or validation, problems)


def evaluation_examples(
    data: str,
    skip_bad_records: bool = False,
    problems: list[Problem] | None = None,
    progress: Progress | None = None,
) -> list[Example]:
    """What to score a model on: a task's test split, or all of a file."""
    if data in QUESTION_SETS:
        return QUESTION_SETS[data]("test")
    return _file(data, skip_bad_records, [] if problems is None else problems, progress)


def _file(data: str, skip: bool, problems: list[Problem], progress: Progress | None) -> list[Example]:
    if not Path(data).is_file():
        raise DataError(f"{data}: neither a file nor a task; the tasks are: {', '.join(QUESTION_SETS)}.")
    records = read_jsonl(data, progress=progress)
    must_be_good(records.problems, skip, data)
    problems += records.problems
    if not records.examples:
        raise DataError(f"{data}: no good record in it.")
    return records.examples
