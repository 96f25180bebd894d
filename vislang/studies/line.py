"""A figure of a study: a mean over seeds, with an interval over test items."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vislang.tasks.answers import Proportion, proportion


@dataclass(frozen=True)
class Line:
    """A share of test items that were got right, over seeds.

    Attributes:
        accuracy: mean over seeds, with the 95 % interval that so many test items allow; seeds share the items, so more
            of them do not narrow it.
        seeds: share of each seed; one where nothing was drawn by chance.
    """

    accuracy: Proportion
    seeds: tuple[float, ...]

    def __str__(self) -> str:
        spread = f", seeds {100 * min(self.seeds):.1f} to {100 * max(self.seeds):.1f}" if len(self.seeds) > 1 else ""
        figure = self.accuracy
        return f"{100 * figure.value:.1f} ({100 * figure.low:.1f} to {100 * figure.high:.1f}{spread})"


def mean_line(shares: Sequence[float], items: int) -> Line:
    """The line of so many seeds' shares of the same test items."""
    return Line(proportion(sum(shares) / len(shares) * items, items), tuple(shares))
