"""Learning from examples in the prompt: does it matter before which layers the language model sees images?

    python -m vislang.studies.in_context --seeds 0 1 2 --out docs/runs/flamingo-in-context

Flamingo learns from episodes alone (:mod:`vislang.tasks.emoji_groups`), whose classes are named anew each time, and is
asked about three groups of emoji that are in none of them, by another hand, and called by words of no meaning. A
language model repeats what followed the like of a token by a few of its heads (induction heads, Olsson et al. 2022); in
SmolLM2-135M these are in layers 17 to 24 (:mod:`vislang.studies.heads`). One arm lets it see images before them, one
only above most of them.
Whatever was done already is not done again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.capabilities import FewShot
from vislang.console import console
from vislang.evaluate.few_shot import Setting, evaluate_point
from vislang.models.loading import load
from vislang.studies.arms import Arm, command_line, trained
from vislang.studies.line import mean_line
from vislang.studies.results import Results
from vislang.tasks.few_shot import FEW_SHOT_TASKS

RECIPE = Path("recipes/flamingo-few-shot.yaml")
EPISODES_ALONE = (
    "--data=[{sources: [emoji-episodes], name: episodes, batch_size: 8}]",
    "--train.steps=150",
    "--train.warmup_steps=15",
)

BEFORE, ABOVE = "gates before layers 12, 16, 20, 24", "gates before layers 20, 23, 26, 29"
ARMS = (
    Arm(BEFORE, RECIPE, (*EPISODES_ALONE, "--model.bridge.gated_layers=[12, 16, 20, 24]")),
    Arm(ABOVE, RECIPE, (*EPISODES_ALONE, "--model.bridge.gated_layers=[20, 23, 26, 29]")),
)

TASK = "emoji-groups-coded"
SHOTS, DRAWS = (0, 4, 8, 16, 32), (0, 1)
"""Examples in a prompt, and how often they are drawn."""

HELD_OUT = "episodes held out"


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train and ask what is missing; write ``results.json`` after each step of that, and ``table.md``."""
    results = Results(out)
    task = FEW_SHOT_TASKS[TASK].build()
    for seed in seeds:
        for arm in ARMS:
            folder = trained(arm, ARMS, seed, runs)
            what = {"who": arm.name, "seed": seed}
            if not results.known(task=HELD_OUT, **what):
                metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
                episodes = metrics["tasks"]["episodes"]
                figures = {
                    "accuracy": episodes["accuracy"],
                    "items": episodes["n"],
                    "seconds": metrics["train_seconds"],
                }
                results.add({**what, "task": HELD_OUT, **figures})
            missing = [shots for shots in SHOTS if not results.known(task=TASK, shots=shots, **what)]
            model = load(folder / "model") if missing else None
            for shots in missing:
                assert isinstance(model, FewShot)
                point = evaluate_point(model, task, Setting(shots), DRAWS)
                figures = {"accuracy": point.means["accuracy"].value, "items": point.queries}
                results.add({**what, "task": TASK, "shots": shots, **figures})
                console.print(f"{arm.name}, seed {seed}, {shots} examples: {100 * figures['accuracy']:.1f} %")
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """What each arm gets right: of episodes held out, and of new groups by the number of examples."""
    asked = next(row["items"] for row in rows if row["task"] == TASK)
    held = next(row["items"] for row in rows if row["task"] == HELD_OUT)
    heads = " | ".join(f"{shots}" for shots in SHOTS)
    lines = [f"| | {held} {HELD_OUT} | {asked} of new groups, examples: {heads} |", f"|{'---|' * (len(SHOTS) + 2)}"]
    for who in dict.fromkeys(row["who"] for row in rows):
        of = [row for row in rows if row["who"] == who]
        groups = [[row for row in of if row["task"] == HELD_OUT]]
        groups += [[row for row in of if row["task"] == TASK and row["shots"] == shots] for shots in SHOTS]
        cells = [str(mean_line([row["accuracy"] for row in group], group[0]["items"])) for group in groups]
        lines.append(f"| {who} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/in-context"), run)
