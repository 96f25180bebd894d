"""Examples by position in the run, with bad records replaced by good ones.

The replacement depends on the seed and on the position in the run only. All processes and workers therefore choose the
same one without communicating, and so does a resumed run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from vislang.boxes import Box
from vislang.data.indexed import Indexed, problem_of
from vislang.data.order import Asked, Complementary, Shuffled
from vislang.data.problems import DataError, Problem, RecordError
from vislang.data.record_file import CheckedMedia, must_be_inside
from vislang.document import MediaError
from vislang.example import Example, reference_text

Collate = Callable[[Sequence[Example], int], Any]
"""Makes a batch of consecutive examples of a step; the number is the index of the first of them among the positions."""

Check = Callable[[Example, int], object]
"""Raises a RecordError or a MediaError if the example at an index among the positions is bad."""

ATTEMPTS = 100
"""How many records are tried for one position."""


class Draws:
    """The examples of a stream by position in the run.

    Args:
        examples: the training examples.
        seed: the seed of the order.
        replace: replace bad records; otherwise they are an error.
        complementary: draw complementary pairs, see :class:`~vislang.data.order.Complementary`.

    Raises:
        DataError: ``complementary``, and no two examples have the same question and different answers.
    """

    def __init__(self, examples: Sequence[Example], seed: int, replace: bool, complementary: bool = False):
        self.examples, self.seed, self.replace = examples, seed, replace
        self.order = _in_pairs(examples, seed) if complementary else Shuffled(len(examples), seed)

    def batch(self, positions: Sequence[int], collate: Collate) -> tuple[Any, list[Problem]]:
        """A batch, and the problems of the records that were replaced.

        Args:
            positions: positions in the run. A step takes one for each example of its batch, in one or several calls.
            collate: makes the batch. It is called with single examples too, to find out which one is bad.

        Raises:
            MediaError, DataError: a record is bad and ``replace`` is off, or 100 records in a row are bad.
        """
        media = CheckedMedia()
        checks: list[Check] = [
            self._box_fits,
            lambda example, index: collate([example], index),
            lambda example, index: media.check(example),
        ]
        for level in range(1, len(checks) + 1):
            problems: list[Problem] = []
            drawn = [self._good(index, position, checks[:level], problems) for index, position in enumerate(positions)]
            try:
                return collate(drawn, 0), problems
            except MediaError:
                # The next check is slower and finds the bad record. Most batches do not need it.
                if not self.replace or level == len(checks):
                    raise
        raise AssertionError("the last check returns or raises")

    def _good(self, index: int, position: int, checks: Sequence[Check], problems: list[Problem]) -> Example:
        """The record at a position, or its first replacement that passes all checks."""
        for attempt in range(ATTEMPTS):
            example = self.examples[self._number(position, attempt)]
            try:
                for check in checks:
                    check(example, index)
                return example
            except (RecordError, MediaError) as error:
                problem = problem_of(example, error)
                if not self.replace:
                    raise DataError(f"{problem}\nPass --skip-bad-records to replace bad records.") from None
                problems.append(problem)
        raise DataError(f"{ATTEMPTS} records in a row are bad. The last one: {problems[-1]}")

    def _number(self, position: int, attempt: int) -> int:
        """The number of the example at a position, or, after the first attempt, of a replacement."""
        if not attempt:
            return self.order[position]
        named = hashlib.blake2b(f"{self.seed} {position} {attempt}".encode(), digest_size=8)
        return int.from_bytes(named.digest()) % len(self.examples)

    def _box_fits(self, example: Example, index: int) -> None:
        """Check a box, which no collator does. Examples in memory were checked when they were read."""
        if isinstance(self.examples, Indexed) and isinstance(box := example.target, Box):
            must_be_inside(box, example.media[0].size)  # type: ignore[attr-defined]  # a box is in an image


def _in_pairs(examples: Sequence[Example], seed: int) -> Complementary:
    if isinstance(examples, Indexed):
        raise DataError(
            f"complementary_pairs: the questions of {len(examples):,} records would have to be read first. Raise "
            "index_above to keep them in memory, or turn complementary_pairs off."
        )
    order = Complementary([_asked(example) for example in examples], seed)
    if not order.pairs:
        raise DataError(
            "complementary_pairs: no two training examples have the same question and different answers. Turn it off."
        )
    return order


def _asked(example: Example) -> Asked:
    answer = reference_text(example) if example.text and example.media else None
    return None if answer is None else (example.text, answer)
