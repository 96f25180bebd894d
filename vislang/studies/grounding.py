"""Referring expressions in composed scenes: two streams or one, by kind of expression.

    python -m vislang.studies.grounding --seeds 0 1 2 --out docs/results/vilbert-scenes

Both models train on the same scenes (:mod:`vislang.data.sets.scenes`) and are tested on scenes in the same drawing
style, and in a style that no training scene has. Each model is also scored with every expression replaced by the same
words, which measures what it achieves without reading them. Finished measurements are not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from vislang.console import console
from vislang.document import Document
from vislang.evaluate.evaluation import evaluate
from vislang.example import Example, Prediction
from vislang.metrics.figure import Figure, figures_as_json, show
from vislang.models.loading import load
from vislang.runs.folder import read_json
from vislang.studies.arms import Arm, command_line, trained
from vislang.studies.line import mean_line
from vislang.studies.results import Results
from vislang.tasks.catalogue import open_task
from vislang.tasks.task import Task

RECIPE = Path("recipes/vilbert-scenes.yaml")

# Six layers of one stream have fewer parameters than four, two and two co-attention layers, and take more time.
ARMS = (
    Arm("two streams", RECIPE),
    Arm("one stream", RECIPE, ("--model.streams.single_stream=true", "--model.streams.text.depth=6")),
)

TESTS = ("test", "test-twitter")
WITHOUT_TEXT = ", without the text"

KINDS = {"name": "name", "colour": "colour", "place": "position", "neighbour": "neighbour"}
"""The kind of an expression, by the first word of an example's id."""


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train and score what is missing; write ``results.json`` after each measurement, and ``table.md``."""
    results = Results(out)
    task = open_task("scenes")
    for seed in seeds:
        for arm in ARMS:
            folder = trained(arm, ARMS, seed, runs)
            seconds = read_json(folder / "metrics.json")["train_seconds"]
            for test in TESTS:
                if results.known(test=test, arm=arm.name, seed=seed):
                    continue
                model, examples = load(folder / "model"), task.examples(test)
                rows = []
                for name, shown in (
                    (arm.name, examples),
                    (arm.name + WITHOUT_TEXT, [without_text(example) for example in examples]),
                ):
                    predictions = evaluate(model, task, shown, with_blind=False).predictions
                    for kind, figure in by_kind(task, examples, predictions).items():
                        keys = {"test": test, "arm": name, "seed": seed, "kind": kind, "seconds": seconds}
                        rows.append({**keys, "figures": figures_as_json({"accuracy": figure})})
                        console.print(f"{test}: {name}, seed {seed}, {kind}: {show('accuracy', figure)}")
                results.add(*rows)
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def by_kind(task: Task, examples: Sequence[Example], predictions: Sequence[Prediction]) -> dict[str, Figure]:
    """Accuracy on all expressions, and on those of each kind."""
    kinds = [KINDS[example.id.partition(" ")[0]] for example in examples]
    found = {}
    for chosen_kind in ("all", *dict.fromkeys(kinds)):
        chosen = [number for number, kind in enumerate(kinds) if chosen_kind in ("all", kind)]
        figures = task.score([examples[n] for n in chosen], [predictions[n] for n in chosen])
        found[chosen_kind] = figures["accuracy"]
    return found


def without_text(example: Example) -> Example:
    """The example with its expression replaced by the same words for all."""
    parts = [part for part in example.prompt.parts if not isinstance(part, str)]
    return replace(example, prompt=Document([*parts, "what is it?"], name=example.prompt.name))


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """A table for each test: the accuracy of each arm by kind of expression."""
    parts = []
    for test in dict.fromkeys(row["test"] for row in rows):
        here = [row for row in rows if row["test"] == test]
        sizes = {row["kind"]: row["figures"]["accuracy"]["n"] for row in here}
        heads = " | ".join(f"{kind} ({size})" for kind, size in sizes.items())
        lines = [f"| {test} | {heads} |", f"|{'---|' * (len(sizes) + 1)}"]
        for arm in dict.fromkeys(row["arm"] for row in here):
            cells = [
                str(mean_line([r for r in here if (r["arm"], r["kind"]) == (arm, kind)], "accuracy")) for kind in sizes
            ]
            lines.append(f"| {arm} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/scenes"), run)
