"""Curves of few-shot tasks side by side, as ``vislang eval MODEL --task T --shots ... --json`` printed them.

    python -m vislang.studies.few_shot docs/runs/flamingo-few-shot > table.md

The folder holds one ``T.json`` a task.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vislang.evaluate.few_shot_page import number

WAYS = {
    "drawn": ("random", False),
    "retrieved": ("retrieved", False),
    "drawn, without images": ("random", True),
}
"""Rows of a task: how shots are chosen, and whether images are taken away."""


def markdown(found: Iterable[dict[str, Any]]) -> str:
    """A row for each way to choose examples, a column for each number of them; then what is had without a prompt."""
    found = list(found)
    shots = sorted({point["shots"] for task in found for point in task["points"]})
    lines = [f"| examples: | | {' | '.join(map(str, shots))} | most frequent answer | that of the most similar image |"]
    lines.append(f"|{'---|' * (len(shots) + 4)}")
    for task in found:
        figure = next(iter(task["points"][0]["means"]))
        title = f"`{task['task']}`, {task['points'][0]['queries']} questions, {figure}"
        others = [number(figure, figures[figure]) for figures in task["baselines"].values()]
        for way, (select, blind) in WAYS.items():
            means = {
                point["shots"]: number(figure, point["means"][figure]["value"])
                for point in task["points"]
                if point["select"] == select and point["blind"] == blind
            }
            cells = [title, way, *(means.get(count, "") for count in shots), *others]
            lines.append(f"| {' | '.join(cells)} |")
            title, others = "", [""] * len(others)
    return "\n".join(lines) + "\n"


def read(folder: Path) -> list[dict[str, Any]]:
    """What was printed for each task, in the order of their names."""
    files = [file for file in sorted(folder.glob("*.json")) if file.stem not in ("metrics", "run")]
    return [json.loads(file.read_text(encoding="utf-8")) for file in files]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="of the files")
    print(markdown(read(parser.parse_args().folder)), end="")
