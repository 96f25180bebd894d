"""metrics.jsonl: one JSON object a line, in the order of steps, each step once."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vislang.data.problems import DataError
from vislang.files import write_text


class MetricsLog:
    """Appends to a run's ``metrics.jsonl``.

    A resumed run first drops the lines after the step that it continues from: they are written again.

    Args:
        path: the file.
        steps_done: steps that the run has behind it.
    """

    def __init__(self, path: Path, steps_done: int):
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [row for row in read_metrics(path) if row["step"] <= steps_done] if path.exists() else []
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
        self._file = path.open("a", encoding="utf-8")

    def write(self, row: dict[str, Any]) -> None:
        """Append a row; it is handed to the system when this returns."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a ``metrics.jsonl``; a last line that a kill cut short is left out.

    Raises:
        DataError: a line other than the last is not JSON.
    """
    rows = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(json.loads(line))
        except ValueError:
            if number < len(lines):
                raise DataError(f"{path}:{number}: not JSON. Was the file edited?") from None
    return rows


def losses_of(row: Mapping[str, Any]) -> dict[str, float]:
    """The losses of a step: for each stream the sum of its losses, before its weight; with one stream, each loss."""
    found: dict[str, float] = {}
    for name, value in row.items():
        if name.startswith("loss/"):
            stream = name.split("/")[1]
            found[stream] = found.get(stream, 0.0) + value
    return found


def rates_in_words(values: Mapping[str, float]) -> dict[str, str]:
    """Rates and memory of a row as text, by unit: ``{"samples/s": "31.2", "of the matrix rate": "62 %"}``."""
    forms: dict[str, tuple[str, Callable[[float], str]]] = {
        "speed/examples_per_second": ("samples/s", _digits),
        "speed/tokens_per_second": ("tokens/s", _digits),
        "speed/matmul_share": ("of the matrix rate", _per_cent),
        "memory/peak_gib": ("peak memory", lambda memory: f"{memory:.1f} GiB"),
    }
    return {unit: form(values[name]) for name, (unit, form) in forms.items() if name in values}


def without_measurements(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without times, rates and memory. Two runs with the same results agree in all that is left."""
    return {name: value for name, value in row.items() if not name.startswith(("seconds", "speed/", "memory/"))}


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 1 else f"{value:.2g}"


def _per_cent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
