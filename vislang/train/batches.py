"""The batches of each step: drawn whole by (seed, step), then divided among processes and micro-batches.

What a step sees therefore does not depend on how many processes there are, nor on how many workers prepare the batches,
and nothing of the order has to be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader, Dataset

from vislang.data.bad_records import BadRecords
from vislang.data.problems import Problem
from vislang.data.replacing import Draws
from vislang.errors import UserError
from vislang.example import Example


@dataclass(frozen=True)
class Stream:
    """Examples to learn from, beside other streams or alone.

    Attributes:
        name: what to call it in logs, where there are several.
        examples: what it holds.
        weight: of its loss in the sum that a step minimises.
        batch_size: examples a step, of all processes together.
        watched: the name of the evaluated figure that shows how well it is learned, the higher the better; empty where
            there is none.
        complementary: whether its examples are drawn in complementary pairs, see
            :class:`~vislang.data.order.Complementary`.
    """

    name: str
    examples: Sequence[Example]
    weight: float
    batch_size: int
    watched: str = ""
    complementary: bool = False


@dataclass(frozen=True)
class Part:
    """The part of a stream's batch that one process computes at a time.

    Attributes:
        batch: what the model reads.
        examples: how many examples of the batch are in it; 0 for a stand-in, which keeps a process in step with the
            others where it has no example of its own. It counts for nothing.
        counts: see :meth:`~vislang.capabilities.Trainable.loss_counts`.
    """

    batch: Any
    examples: int
    counts: Mapping[str, int | None]

    @property
    def tokens(self) -> int:
        """Tokens of the texts, padding not counted; 0 for a stand-in, and for a batch that has none.

        Read while the batch is on the host, it waits for no device.
        """
        return getattr(self.batch, "tokens", 0) if self.examples else 0


class StepData(NamedTuple):
    """One process's part of a step.

    Attributes:
        parts: for each stream its micro-batches, each with the number of its examples; None for a stream that does not
            take part in the step.
        problems: the problems of records that were replaced.
    """

    parts: list[list[tuple[Any, int]] | None]
    problems: list[Problem]


def slices(size: int, parts: int) -> list[range]:
    """``size`` items in so many neighbouring parts, whose sizes differ by one at most.

    >>> slices(5, 2)
    [range(0, 2), range(2, 5)]
    """
    return [range(size * part // parts, size * (part + 1) // parts) for part in range(parts)]


def shares(size: int, rank: int, count: int, accumulate: int) -> list[range]:
    """The examples of a batch that a process takes, micro-batch by micro-batch: as many of these in every process.

    Args:
        size: examples in the whole batch.
        rank: of the process.
        count: of processes.
        accumulate: micro-batches of a process, fewer where there are not as many examples.
    """
    own = slices(size, count)[rank]
    most = -(-size // count)
    return [range(own.start + s.start, own.start + s.stop) for s in slices(len(own), min(accumulate, most))]


class Steps(Dataset):
    """One process's part of the batches of each step: a pure function of the seed and of the step.

    An item is the data of a step, or the error that one of its records raised.

    Args:
        collate: of the model.
        streams: what to learn from.
        seed: of the order and of all that is drawn.
        in_turn: whether streams take turns.
        rank, count: which of how many processes.
        accumulate: micro-batches of a step.
        replace_bad: replace bad records; otherwise they are an error.
    """

    def __init__(
        self,
        collate: Callable[..., Any],
        streams: Sequence[Stream],
        seed: int,
        in_turn: bool = False,
        rank: int = 0,
        count: int = 1,
        accumulate: int = 1,
        replace_bad: bool = False,
    ):
        self.collate = collate
        self.streams = streams
        self.seed = seed
        self.in_turn = in_turn
        self.rank, self.count, self.accumulate = rank, count, accumulate
        self.draws = [Draws(stream.examples, seed, replace_bad, stream.complementary) for stream in streams]

    def __getitem__(self, step: int) -> StepData | UserError:
        problems: list[Problem] = []
        try:
            return StepData([self._parts(step, number, problems) for number in range(len(self.streams))], problems)
        except UserError as error:
            # Raised in another process it would come with that one's traceback in its message.
            return error

    def positions(self, step: int, number: int) -> range:
        """The positions of a stream's whole batch in its order; empty if the stream does not take part in the step."""
        if self.in_turn and step % len(self.streams) != number:
            return range(0)
        size = self.streams[number].batch_size
        first = (step // len(self.streams) if self.in_turn else step) * size
        return range(first, first + size)

    def examples_until(self, step: int) -> int:
        """About how many examples this process has drawn after so many steps."""
        sizes = [stream.batch_size for stream in self.streams]
        return step * sum(sizes) // (self.count * (len(sizes) if self.in_turn else 1))

    def _parts(self, step: int, number: int, problems: list[Problem]) -> list[tuple[Any, int]] | None:
        positions = self.positions(step, number)
        if not positions:
            return None
        seed = (self.seed * 1_000_003 + step) * len(self.streams) + number
        parts = []
        for share in shares(len(positions), self.rank, self.count, self.accumulate):
            chosen = share or range(1)
            collate = partial(self._collated, seed, chosen.start)
            batch, replaced = self.draws[number].batch(positions[chosen.start : chosen.stop], collate)
            parts.append((batch, len(share)))
            # A stand-in is an example of another process, which reports it.
            problems += replaced if share else []
        return parts

    def _collated(self, seed: int, start: int, examples: Sequence[Example], first: int) -> Any:
        return self.collate(examples, seed, start + first)


def batches(
    steps: Steps, first: int, end: int, workers: int, bad_records: BadRecords | None = None
) -> Iterator[list[list[tuple[Any, int]] | None]]:
    """The batches from one step to another, in their order. Replaced records are added to ``bad_records``.

    Raises:
        UserError: a record cannot be used, or too many records were replaced.
    """
    loader = DataLoader(
        steps,
        batch_size=None,
        sampler=range(first, end),
        collate_fn=_as_it_is,
        num_workers=workers,
        persistent_workers=workers > 0,
        # The loader draws a number when it starts; drawn from torch's own generator, a resumed run would differ.
        generator=torch.Generator(),
    )
    for step, found in enumerate(loader, start=first + 1):
        if isinstance(found, UserError):
            raise found
        if found.problems and bad_records is not None:
            bad_records.replaced(found.problems, step, steps.examples_until(step))
        yield found.parts


def _as_it_is(found: Any) -> Any:
    return found
