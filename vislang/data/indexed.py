"""Examples that stay in their files: a sequence of any length that takes no memory."""

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
"""Sources of files with more records than this are indexed for training, unless a recipe says otherwise."""

SAMPLE = 20_000
"""Examples on which is measured what cannot be measured on all of a long sequence."""

BLOCK = 100
"""Neighbours that are sampled together: those are read quickly in every format."""

THREADS = 8
"""Examples whose media are checked at a time; most of that time is spent waiting for a disk or a network."""


class Indexed(Sequence[Example]):
    """Examples of several files and lists, one after the other. It can be pickled.

    Args:
        parts: files with an index, and lists.
        left_out: sorted numbers of examples that are left out, counted over all parts.
        changes: functions of an example, applied in turn to each that is read.
        bounds: the first of those that are left, and the one after the last; None for all.
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
        # Before position p, so many are left out as there are values up to p in here.
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
                raise ValueError("a part of indexed examples is a range of neighbours")
            first = self.bounds[0]
            return Indexed(self.parts, self.left_out, self.changes, (first + start, first + max(start, stop)))
        if not -len(self) <= index < len(self):
            raise IndexError(f"example {index} of {len(self)}")
        position = self.bounds[0] + index % len(self)
        return self.numbered(position + int(np.searchsorted(self._skipped, position, side="right")))

    def numbered(self, number: int) -> Example:
        """An example by its number over all parts, whether it is left out or not."""
        part = bisect_right(self.starts, number) - 1
        example = self.parts[part][number - self.starts[part]]
        for change in self.changes:
            example = change(example)
        return example

    @property
    def files(self) -> list[IndexedFile]:
        """The parts that are files."""
        return [part for part in self.parts if isinstance(part, IndexedFile)]

    @property
    def faults(self) -> Counter[str]:
        """How many bad records there are in the files, by kind."""
        return sum((file.faults for file in self.files), Counter())

    def map(self, change: Callable[[Example], Example]) -> Indexed:
        """The same examples, each changed when it is read."""
        return Indexed(self.parts, self.left_out, (*self.changes, change), self.bounds)

    def without(self, numbers: np.ndarray) -> Indexed:
        """The same examples but for some, given by their sorted numbers over all parts; of a whole sequence."""
        assert not len(self.left_out)
        return Indexed(self.parts, numbers, self.changes)

    def sample(self, most: int = SAMPLE) -> list[Example]:
        """Some of the examples, spread evenly; of each kind of target and each label the first one is among them, so
        that all labels are known."""
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
    """Examples of several sources one after the other: a list, unless one of them is indexed."""
    flat = [inner for part in parts for inner in (part.parts if isinstance(part, Indexed) else (part,))]
    if any(isinstance(part, IndexedFile) for part in flat):
        return Indexed(flat)
    return [example for part in flat for example in part]


def sample_of(examples: Sequence[Example]) -> Sequence[Example]:
    """Examples on which to measure what is measured and not learned: all of a list, a sample of what is indexed."""
    return examples.sample() if isinstance(examples, Indexed) else examples


def expanded(
    examples: Sequence[Example], expand: Callable[[Sequence[Example]], Sequence[Example]]
) -> Sequence[Example]:
    """What a step draws from. Indexed records are drawn as they are: each has one reference at most."""
    return examples if isinstance(examples, Indexed) else expand(examples)


def with_good_media(
    examples: Sequence[Example], progress: Progress | None = None
) -> tuple[list[Example], list[Problem]]:
    """Those of some examples whose media can be decoded, and what is wrong with the others.

    Args:
        examples: as they were read from an index.
        progress: called with (examples checked, of how many).
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
    """What is wrong with an example, by the file and the line that it names."""
    file, _, line = example.name.rpartition(":")
    kind = getattr(error, "kind", "fields")
    return Problem(file, int(line), str(error), kind) if line.isdigit() else Problem(example.name, 0, str(error), kind)
