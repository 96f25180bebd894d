"""What a run is for: what is learned from, what is watched meanwhile, what is scored in the end."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from rich.table import Table

from vislang.train.loop import Outcome, Stream


class Goal(Protocol):
    """One kind of run; which one follows from what the model can do.

    Attributes:
        streams: what is learned from.
        asked: documents that the model will be asked later on, to be prepared beforehand.
        bad_records: how many were left out.
    """

    streams: list[Stream]
    asked: list[Any]
    bad_records: int

    def describe(self) -> str:
        """What is learned from and scored on, in a line."""
        ...

    def watch(self) -> dict[str, float]:
        """Figures for the curve, by name; nothing where nothing is held out."""
        ...

    def score(self, outcome: Outcome) -> dict[str, Any]:
        """The final figures, for ``metrics.json``."""
        ...

    def table(self, metrics: dict[str, Any]) -> Table:
        """The final figures for a reader."""
        ...

    def report(self, folder: Path) -> None:
        """Write ``report.html`` into the folder of the run."""
        ...
