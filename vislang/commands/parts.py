"""What a stream is learned from, watched on, and scored on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from vislang.case import Case
from vislang.data.example import Example
from vislang.data.jsonl import DataError
from vislang.data.split import draw, hold_out
from vislang.document import Document
from vislang.recipe import Recipe

Item = TypeVar("Item", bound=Example | Document | Case)


@dataclass(frozen=True)
class Parts(Generic[Item]):
    """The three parts of a stream; none of ``watched`` and ``test`` is in ``learned``."""

    learned: list[Item]
    watched: list[Item]
    test: list[Item]


def divide(
    name: str,
    everything: list[Item],
    test: list[Item],
    recipe: Recipe,
    complete: Callable[[list[Item]], list[Item]] = list,
) -> Parts[Item]:
    """Divide a stream as the recipe wants it.

    Args:
        name: of the stream.
        everything: all of it but the test items.
        test: what it is scored on; nothing if that is to be what is held out.
        recipe: its ``hold_out``, ``limit``, ``eval_limit`` and ``train.eval_examples``.
        complete: what items get from others of their side, before some of them are drawn.

    Raises:
        DataError: nothing is left to learn from, or to score on.
    """
    lessons, held = map(complete, hold_out(everything, recipe.hold_out))
    test = complete(test)
    if not lessons:
        raise DataError(f"{name}: nothing left to learn from; lower hold_out or add records.")
    if not held and not test:
        raise DataError(f"{name}: nothing left to score on; raise hold_out, or name test records.")
    return Parts(
        lessons[: recipe.limit or None],
        draw(held, recipe.train.eval_examples, recipe.train.seed),
        draw(test or held, recipe.eval_limit, recipe.train.seed),
    )


def count_of(streams: Mapping[str, Parts[Item]], what: str) -> str:
    """How many there are of each part, by stream; ``what`` they are, such as "cases"."""
    return "; ".join(
        f"{name}: {len(parts.learned):,} {what} to learn from, {len(parts.watched):,} to watch, "
        f"{len(parts.test):,} to be scored on"
        for name, parts in streams.items()
    )
