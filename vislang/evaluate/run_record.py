"""What a run's folder says of the run, finished or not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunRecord:
    """A run without its model.

    Attributes:
        name: what to call it.
        about: its ``run.json``: the recipe and the environment.
        rows: of its ``metrics.jsonl``.
        metrics: its ``metrics.json``; None where it has not come to its end.
    """

    name: str
    about: dict[str, Any]
    rows: Sequence[dict[str, Any]]
    metrics: dict[str, Any] | None

    @property
    def recipe(self) -> dict[str, Any]:
        """Its settings."""
        return self.about["recipe"]

    @property
    def steps(self) -> int:
        """Steps that it has done."""
        return max((row["step"] for row in self.rows), default=0)

    @property
    def minutes(self) -> float:
        """Minutes of training steps."""
        return max((row["seconds"] for row in self.rows if "seconds" in row), default=0.0) / 60

    @property
    def threads(self) -> str:
        """How many threads it had, in words."""
        count = self.about["threads"]
        return f"{count} thread{'s' if count != 1 else ''}"
