"""Examples that stay in their files: a sequence of any length that takes hardly any memory."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from typing import overload

import numpy as np

from vislang.capabilities import Progress
from vislang.data.index import IndexedFile
from vislang.data.problems import Problem, RecordError
from vislang.data.record_file import CheckedMedia
from vislang.example import Example

INDEX_ABOVE = 500_000
"""By default, sources of files with more records than this are indexed for training."""

SAMPLE = 20_000
"""The number of examples in a sample, on which vocabularies, statistics and so on are measured."""

BLOCK = 100
"""The number of consecutive examples that are sampled together; every format reads these fast."""

THREADS = 8
"""Threads that check media; they mostly wait for the disk or the network."""


class Indexed(Sequence[Example]):
    """The examples of several files and lists, one after the other. It can be pickled.

    Args:
        parts: indexed files, and lists.
        left_out: sorted numbers of the examples that are left out. Numbers count the examples of all parts.
        changes: functions of an example that are applied, in order, to each example that is read.
        bounds: the range of the remaining examples that belong to the sequence; None for all.
    """

    def __init__(
        self,
        parts: Sequence[Sequence[Example]],
        left_out: np.ndarray | Sequence[int] = (),
        changes: Sequence[Callable[[Example], Example]] = (),
        bounds: tuple[int, int] | None = None,
    ):
        self.parts, self.changes = tuple(parts), tuple(changes)
        self.left_out = np.asarray(left_out, dtype=np.int64)
        self.starts = [0, *accumulate(len(part) for part in self.parts)]
        self.bounds = bounds or (0, self.starts[-1] - len(self.left_out))
        # The number of examples left out before position p is the number of values up to p in this array.
        self._skipped = self.left_out - np.arange(len(self.left_out))

    def __len__(self) -> int:
        return self.bounds[1] - self.bounds[0]

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Indexed: ...
    def __getitem__(self, index: int | slice) -> Example | Indexed:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            if step != 1:
                raise ValueError("indexed examples are sliced with a step of 1 only")
            first = self.bounds[0]
            return Indexed(self.parts, self.left_out, self.changes, (first + start, first + max(start, stop)))
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        position = self.bounds[0] + index % len(self)
        return self.numbered(position + int(np.searchsorted(self._skipped, position, side="right")))

    def numbered(self, number: int) -> Example:
        """An example by its number, even if it is left out."""
        part = bisect_right(self.starts, number) - 1
        example = self.parts[part][number - self.starts[part]]
        for change in self.changes:
            example = change(example)
        return example

    @property
    def files(self) -> list[IndexedFile]:
        """The indexed files."""
        return [part for part in self.parts if isinstance(part, IndexedFile)]

    @property
    def faults(self) -> Counter[str]:
        """The number of bad records of each kind in the files."""
        return sum((file.faults for file in self.files), Counter())

    def map(self, change: Callable[[Example], Example]) -> Indexed:
        """The same examples with a further change."""
        return Indexed(self.parts, self.left_out, (*self.changes, change), self.bounds)

    def without(self, numbers: np.ndarray) -> Indexed:
        """A complete sequence without the examples of these sorted numbers."""
        assert not len(self.left_out)
        return Indexed(self.parts, numbers, self.changes)

    def sample(self, most: int = SAMPLE) -> list[Example]:
        """A sample in evenly spaced blocks, all examples if there are no more than ``most``. It includes the first
        example of each kind of target and of each label, so that all labels are known."""
        if len(self) <= most:
            return list(self)
        blocks = max(1, most // BLOCK)
        starts = (block * len(self) // blocks for block in range(blocks))
        found = [self[index] for start in starts for index in range(start, start + min(BLOCK, most))]
        known = {example.name for example in found}
        firsts = (self.numbered(number) for number in self._firsts())
        return found + [example for example in firsts if example.name not in known]

    def _firsts(self) -> Iterator[int]:
        for start, part in zip(self.starts, self.parts, strict=False):
            if isinstance(part, IndexedFile):
                yield from (start + first for first in sorted(set(part.firsts.values())))


def joined(parts: Iterable[Sequence[Example]]) -> Sequence[Example]:
    """The examples of several sources, one after the other: a list, or Indexed if one of them is."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, Indexed) else (part,))]
    if any(isinstance(part, IndexedFile) for part in flat):
        return Indexed(flat)
    return [example for part in flat for example in part]


def expanded(
    examples: Sequence[Example], expand: Callable[[Sequence[Example]], Sequence[Example]]
) -> Sequence[Example]:
    """The expanded examples. Indexed examples have at most one reference each and need no expansion."""
    return examples if isinstance(examples, Indexed) else expand(examples)


def with_good_media(
    examples: Sequence[Example], progress: Progress | None = None
) -> tuple[list[Example], list[Problem]]:
    """The examples whose media can be decoded, and the problems of the others.

    Args:
        examples: examples of an index.
        progress: called with (examples checked, examples in all).
    """
    checked = CheckedMedia()

    def fault(example: Example) -> Problem | None:
        try:
            checked.check(example)
        except RecordError as error:
            return problem_of(example, error)
        return None

    good, problems = [], []
    with ThreadPoolExecutor(THREADS) as pool:
        for done, (example, problem) in enumerate(zip(examples, pool.map(fault, examples), strict=True), start=1):
            if problem is None:
                good.append(example)
            else:
                problems.append(problem)
            if progress is not None:
                progress(done, len(examples))
    return good, problems


def problem_of(example: Example, error: Exception) -> Problem:
    """The problem of an example, with the file and line of its name."""
    file, _, line = example.name.rpartition(":")
    kind = getattr(error, "kind", "fields")
    return Problem(file, int(line), str(error), kind) if line.isdigit() else Problem(example.name, 0, str(error), kind)
