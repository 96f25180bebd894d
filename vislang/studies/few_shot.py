"""A table of the few-shot results of several tasks, from ``vislang eval MODEL --task T --shots ... --json``.

    python -m vislang.studies.few_shot docs/results/flamingo-few-shot > table.md

The folder contains a file ``T.json`` for each task.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vislang.metrics.figure import figures_from_json, metric, show, title_of
from vislang.runs.folder import read_json

SELECTIONS = {
    "random": ("random", "plain"),
    "retrieved": ("retrieved", "plain"),
    "random, without images": ("random", "blind"),
}
"""Rows of a task: how shots are selected, and what is done with them."""

NO_RESULTS = ("metrics", "run")
"""Files in the folder that belong to the run, not to a task."""


def markdown(found: Iterable[dict[str, Any]]) -> str:
    """A row for each selection of shots, a column for each number of shots, then columns for the baselines."""
    found = list(found)
    shots = sorted({point["shots"] for task in found for point in task["points"]})
    baselines = list(found[0]["baselines"])
    lines = [f"| shots: | | {' | '.join(map(str, shots))} | {' | '.join(map(title_of, baselines))} |"]
    lines.append(f"|{'---|' * (len(shots) + len(baselines) + 2)}")
    for task in found:
        name = next(iter(task["points"][0]["figures"]))

        def cell(figures: dict[str, Any], name: str = name) -> str:
            return show(name, figures_from_json(figures)[name], interval=False)

        title = f"`{task['task']}`, {task['n']} queries, {metric(name).title}"
        others = [cell(task["baselines"][baseline]) for baseline in baselines]
        for selection, wanted in SELECTIONS.items():
            own = {
                point["shots"]: cell(point["figures"])
                for point in task["points"]
                if (point["select"], _variant(point)) == wanted
            }
            cells = [title, selection, *(own.get(count, "") for count in shots), *others]
            lines.append(f"| {' | '.join(cells)} |")
            title, others = "", [""] * len(others)
    return "\n".join(lines) + "\n"


def _variant(point: dict[str, Any]) -> str:
    """What is done with the shots of a point; earlier results only say whether their images are removed."""
    return point.get("variant", "blind" if point["blind"] else "plain")


def read(folder: Path) -> list[dict[str, Any]]:
    """The results of each task, in the order of their names."""
    return [read_json(file) for file in sorted(folder.glob("*.json")) if file.stem not in NO_RESULTS]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of the files")
    print(markdown(read(parser.parse_args().folder)), end="")
