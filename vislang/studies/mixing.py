"""A mixture of pages, captions and questions: one step on the weighted sum of all, or one stream a step in turn?

    python -m vislang.studies.mixing --seeds 0 1 2 --out docs/runs/flamingo-mixture

Alayrac et al. 2022 (section 2.4, and the ablation of table 3) accumulate the gradients of all data sets before each
step. Both arms meet the same examples; in turn takes three times as many steps, each of a third of the work. Whatever
was done already is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.studies.arms import Arm, command_line, trained
from vislang.studies.line import mean_line
from vislang.studies.results import Results

RECIPE = Path("recipes/flamingo-mixture.yaml")
SUM, IN_TURN = "weighted sum", "in turn"
ARMS = (
    Arm(SUM, RECIPE, ("--train.steps=200", "--train.warmup_steps=20")),
    Arm(IN_TURN, RECIPE, ("--train.steps=600", "--train.warmup_steps=60", "--train.mixing=round-robin")),
)
NATS = "nats a token"


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train what is missing; write ``results.json`` after each step of that, and ``table.md``."""
    results = Results(out)
    for seed in seeds:
        for arm in ARMS:
            if results.known(who=arm.name, seed=seed):
                continue
            metrics = json.loads((trained(arm, ARMS, seed, runs) / "metrics.json").read_text("utf-8"))
            what = {"who": arm.name, "seed": seed, "steps": metrics["steps"], "seconds": metrics["train_seconds"]}
            results.add(*({**what, "stream": name, **figures} for name, figures in metrics["tasks"].items()))
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """Of each stream the loss a token on what was held out, and of questions the accuracy; with images and without."""
    lines = [f"| stream | items | figure | {SUM} | {IN_TURN} | without images |", f"|{'---|' * 6}"]
    for stream in dict.fromkeys(row["stream"] for row in rows):
        here = [row for row in rows if row["stream"] == stream]
        items = here[0]["n"]
        for figure in (NATS, "accuracy"):
            if figure not in here[0]:
                continue
            groups = [[row[figure] for row in here if row["who"] == who] for who in (SUM, IN_TURN)]
            groups.append([row[f"{figure}, blind"] for row in here if row["who"] == SUM])
            cells = [_nats(group) if figure == NATS else str(mean_line(group, items)) for group in groups]
            lines.append(f"| {stream} | {items} | {figure} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _nats(values: Sequence[float]) -> str:
    """The mean over seeds, and their range."""
    spread = f" (seeds {min(values):.3f} to {max(values):.3f})" if len(values) > 1 else ""
    return f"{sum(values) / len(values):.3f}{spread}"


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/mixing"), run)
