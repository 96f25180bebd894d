"""Pointing at drawings in composed scenes: two streams or one, by what the expression refers with.

    python -m vislang.studies.grounding --seeds 0 1 2 --out docs/runs/vilbert-scenes

Both models learn from the same scenes (:mod:`vislang.tasks.scenes`) and point in scenes by the same hand and by a hand
never seen. The same models without the text tell what can be had by pointing at any drawing. Whatever was done already
is not done again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.capabilities import OldDecides, Trainable
from vislang.case import Case
from vislang.console import console
from vislang.document import Document
from vislang.models.loading import load
from vislang.studies.arms import Arm, command_line, trained
from vislang.studies.line import Line, mean_line
from vislang.studies.results import Results
from vislang.tasks import scenes
from vislang.tasks.answers import Proportion
from vislang.tasks.referring import pointing

RECIPE = Path("recipes/vilbert-scenes.yaml")

# Six layers of one stream have fewer parameters than four, two, and two meetings of both, and take more time.
ARMS = (
    Arm("two streams", RECIPE),
    Arm("one stream", RECIPE, ("--model.streams.single_stream=true", "--model.streams.text.depth=6")),
)

TESTS = ("test", "test-twitter")
BLIND = ", text taken away"


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train and score what is missing; write ``results.json`` after each step of that, and ``table.md``."""
    results = Results(out)
    for seed in seeds:
        for arm in ARMS:
            folder = trained(arm, ARMS, seed, runs)
            seconds = json.loads((folder / "metrics.json").read_text("utf-8"))["train_seconds"]
            for test in TESTS:
                if results.known(test=test, who=arm.name + BLIND, seed=seed):
                    continue
                model = load(folder / "model")
                assert isinstance(model, OldDecides)
                assert isinstance(model, Trainable)
                cases = scenes.scenes(test)
                model.prepare(cases)
                rows = []
                for who, asked in ((arm.name, cases), (arm.name + BLIND, [_wordless(case) for case in cases])):
                    for kind, found in by_kind(cases, model.decide(asked)).items():
                        figures = {"right": round(found.value * found.n), "items": found.n}
                        what = {"test": test, "who": who, "seed": seed, "kind": kind, "seconds": seconds}
                        rows.append({**what, **figures})
                        console.print(f"{test}: {who}, seed {seed}, {kind}: {found}")
                results.add(*rows)
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def by_kind(cases: Sequence[Case], decisions: Sequence[Any]) -> dict[str, Proportion]:
    """How many were pointed at, of all expressions and of each kind of them."""
    kinds = [case.id.partition(" ")[0] for case in cases]
    found = {}
    for wanted in ("all", *dict.fromkeys(kinds)):
        chosen = [number for number, kind in enumerate(kinds) if wanted in ("all", kind)]
        figure = pointing([cases[n] for n in chosen], [decisions[n] for n in chosen])["accuracy"]
        assert isinstance(figure, Proportion)
        found[wanted] = figure
    return found


def _wordless(case: Case) -> Case:
    """The same case with the words of every expression the same."""
    (option,) = case.options
    return dataclasses.replace(case, options=(Document([*case.images, "what is it?"], name=option.name),))


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """One table a test: who pointed, by kind of expression."""
    parts = []
    for test in dict.fromkeys(row["test"] for row in rows):
        here = [row for row in rows if row["test"] == test]
        sizes = {row["kind"]: row["items"] for row in here}
        heads = " | ".join(f"{kind} ({size})" for kind, size in sizes.items())
        lines = [f"| {test} | {heads} |", f"|{'---|' * (len(sizes) + 1)}"]
        for who in dict.fromkeys(row["who"] for row in here):
            cells = [str(line_of([r for r in here if (r["who"], r["kind"]) == (who, kind)])) for kind in sizes]
            lines.append(f"| {who} | {' | '.join(cells)} |")
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def line_of(rows: Sequence[dict[str, Any]]) -> Line:
    """The mean over seeds, with the interval that so many expressions allow."""
    items = rows[0]["items"]
    return mean_line([row["right"] / items for row in rows], items)


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/scenes"), run)
