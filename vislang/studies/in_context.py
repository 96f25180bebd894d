"""Learning from examples in the prompt: does it matter where the gated blocks are in the language model?

    python -m vislang.studies.in_context --seeds 0 1 2 --out docs/results/flamingo-in-context

Flamingo is trained on episodes alone (:mod:`vislang.data.sets.emoji_groups`), each with new names for its classes. It
is then tested on three groups of emoji that are in no episode, in another drawing style, with made-up names. Induction
heads (Olsson et al. 2022) predict the token that followed an earlier occurrence of the current one; in SmolLM2-135M
they are in layers 17 to 24 (:mod:`vislang.studies.heads`). In one arm, gated blocks come before these layers; in the
other, most come after them. Finished measurements are not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.console import console
from vislang.evaluate.few_shot import evaluate_point
from vislang.evaluate.shots import Setting
from vislang.metrics.figure import figures_as_json, show
from vislang.models.loading import load
from vislang.runs.folder import read_json
from vislang.studies.arms import Arm, command_line, trained
from vislang.studies.line import mean_line
from vislang.studies.results import Results
from vislang.tasks.catalogue import open_task

RECIPE = Path("recipes/flamingo-few-shot.yaml")
EPISODES_ALONE = (
    "--data=[{sources: [emoji-episodes], name: episodes, batch_size: 8}]",
    "--train.steps=150",
    "--train.warmup_steps=15",
)

EARLY, LATE = "gates before layers 12, 16, 20, 24", "gates before layers 20, 23, 26, 29"
ARMS = (
    Arm(EARLY, RECIPE, (*EPISODES_ALONE, "--model.bridge.gated_layers=[12, 16, 20, 24]")),
    Arm(LATE, RECIPE, (*EPISODES_ALONE, "--model.bridge.gated_layers=[20, 23, 26, 29]")),
)

TASK = "emoji-groups-coded"
SHOTS, DRAWS = (0, 4, 8, 16, 32), (0, 1)
"""Numbers of shots, and the seeds with which they are drawn."""

HELD_OUT = "held-out episodes"


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train and evaluate what is missing; write ``results.json`` after each measurement, and ``table.md``."""
    results = Results(out)
    task = open_task(TASK)
    support, queries = task.support(), task.examples(task.default_split)
    for seed in seeds:
        for arm in ARMS:
            folder = trained(arm, ARMS, seed, runs)
            keys = {"arm": arm.name, "seed": seed}
            if not results.known(task=HELD_OUT, **keys):
                metrics = read_json(folder / "metrics.json")
                figures = metrics["tasks"]["episodes"]["figures"]
                results.add({**keys, "task": HELD_OUT, "seconds": metrics["train_seconds"], "figures": figures})
            missing = [shots for shots in SHOTS if not results.known(task=TASK, shots=shots, **keys)]
            model = load(folder / "model") if missing else None
            for shots in missing:
                point = evaluate_point(model, task, support, queries, Setting(shots), DRAWS)
                results.add({**keys, "task": TASK, "shots": shots, "figures": figures_as_json(point.means)})
                console.print(f"{arm.name}, seed {seed}, {shots} shots: {show('accuracy', point.means['accuracy'])}")
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """The accuracy of each arm on held-out episodes, and on new groups by number of shots."""
    episodes = [row for row in rows if row["task"] == HELD_OUT]
    queries = [row for row in rows if row["task"] == TASK]
    sizes = episodes[0]["figures"]["exact_match"]["n"], queries[0]["figures"]["accuracy"]["n"]
    heads = " | ".join(f"{shots}" for shots in SHOTS)
    lines = [f"| | {sizes[0]} {HELD_OUT} | {sizes[1]} images of new groups, shots: {heads} |"]
    lines.append(f"|{'---|' * (len(SHOTS) + 2)}")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        cells = [mean_line([row for row in episodes if row["arm"] == arm], "exact_match")]
        for shots in SHOTS:
            own = [row for row in queries if (row["arm"], row["shots"]) == (arm, shots)]
            cells.append(mean_line(own, "accuracy"))
        lines.append(f"| {arm} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/in-context"), run)
