"""Batches of a run by position, with another record in the place of each bad one.

Which record stands in is a function of the seed and of the position in the run alone. So all processes and workers
agree on it without a word, and a resumed run draws the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from vislang.boxes import Box
from vislang.data.indexed import Indexed, problem_of
from vislang.data.order import Shuffled
from vislang.data.problems import DataError, Problem, RecordError
from vislang.data.record_file import CheckedMedia, must_be_inside
from vislang.document import MediaError
from vislang.example import Example

Check = Callable[[Example], object]
"""Raises a RecordError or a MediaError where an example is bad."""

ATTEMPTS = 100
"""Records that may be bad one after the other, at one position."""


class Batches:
    """The batches of a stream.

    Args:
        examples: what is drawn from.
        collate: examples and a seed -> a batch.
        seed: of the order.
        replace: whether bad records are replaced; otherwise they are an error.
    """

    def __init__(
        self, examples: Sequence[Example], collate: Callable[[Sequence[Example], int], Any], seed: int, replace: bool
    ):
        self.examples, self.collate, self.seed, self.replace = examples, collate, seed, replace
        self.order = Shuffled(len(examples), seed)

    def batch(self, positions: Sequence[int], seed: int) -> tuple[Any, list[Problem]]:
        """The batch of some positions of the run, and what was wrong with records that were replaced.

        Args:
            positions: of the run; a step has as many as its batch has examples.
            seed: of whatever is random in the batch.

        Raises:
            MediaError: a record is bad, and none is replaced.
            DataError: a hundred records in turn are bad.
        """
        checks: list[Check] = [self._box_fits, lambda example: self.collate([example], seed), CheckedMedia().check]
        for level in range(1, len(checks) + 1):
            problems: list[Problem] = []
            drawn = [self._good(position, checks[:level], problems) for position in positions]
            try:
                return self.collate(drawn, seed), problems
            except MediaError:
                # The costly checks find out which one is bad. Most batches need none of them.
                if not self.replace or level == len(checks):
                    raise
        raise AssertionError("the last check returns or raises")

    def _good(self, position: int, checks: Sequence[Check], problems: list[Problem]) -> Example:
        """The record of a position, or the first of those that stand in for it which passes all checks."""
        for attempt in range(ATTEMPTS):
            example = self.examples[self._index(position, attempt)]
            try:
                for check in checks:
                    check(example)
                return example
            except (RecordError, MediaError) as error:
                problem = problem_of(example, error)
                if not self.replace:
                    raise DataError(f"{problem}\nPass --skip-bad-records to train on others in its place.") from None
                problems.append(problem)
        raise DataError(f"{ATTEMPTS} records in turn are bad; the last one: {problems[-1]}")

    def _index(self, position: int, attempt: int) -> int:
        if not attempt:
            return self.order[position]
        named = hashlib.blake2b(f"{self.seed} {position} {attempt}".encode(), digest_size=8)
        return int.from_bytes(named.digest()) % len(self.examples)

    def _box_fits(self, example: Example) -> None:
        """What no collator checks; of lists it was checked when they were read."""
        if isinstance(self.examples, Indexed) and isinstance(box := example.target, Box):
            must_be_inside(box, example.media[0].size)  # type: ignore[attr-defined]  # a box is in an image
