"""Training on pages, captions and questions: each step on the weighted sum of all streams, or on one stream in turn?

    python -m vislang.studies.mixing --seeds 0 1 2 --out docs/results/flamingo-mixture

Alayrac et al. 2022 (section 2.4, and the ablation in table 3) accumulate the gradients of all data sets before each
step. A step in turn is a third of the work, so training in turn is run twice: for the same number of optimizer steps,
and for the same number of examples. Each arm is scored with and without images; the difference is its gain from images.
Finished measurements are not repeated.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vislang.metrics.figure import figures_from_json, metric, plain
from vislang.runs.folder import read_json
from vislang.studies.arms import Arm, command_line, trained
from vislang.studies.line import Line, line_of, mean_line
from vislang.studies.results import Results

RECIPE = Path("recipes/flamingo-mixture.yaml")
STEPS = 200
SUM, SAME_STEPS, SAME_EXAMPLES = (
    f"weighted sum, {STEPS} steps",
    f"in turn, {STEPS} steps",
    f"in turn, {3 * STEPS} steps",
)
ARMS = (
    Arm(SUM, RECIPE, (f"--train.steps={STEPS}", f"--train.warmup_steps={STEPS // 10}")),
    Arm(
        SAME_STEPS,
        RECIPE,
        (f"--train.steps={STEPS}", f"--train.warmup_steps={STEPS // 10}", "--train.mixing=round-robin"),
    ),
    Arm(
        SAME_EXAMPLES,
        RECIPE,
        (f"--train.steps={3 * STEPS}", f"--train.warmup_steps={3 * STEPS // 10}", "--train.mixing=round-robin"),
    ),
)
SHOWN = ("loss_per_token", "accuracy")
"""Metrics of the table."""


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train what is missing; write ``results.json`` after each measurement, and ``table.md``."""
    results = Results(out)
    for seed in seeds:
        for arm in ARMS:
            if not results.known(arm=arm.name, seed=seed):
                metrics = read_json(trained(arm, ARMS, seed, runs) / "metrics.json")
                about = {"seed": seed, "steps": metrics["steps"], "seconds": metrics["train_seconds"]}
                results.add(*({"arm": arm.name, **about, **measured} for measured in by_stream(metrics)))
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def by_stream(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """For each stream of a run, the figures on its held-out examples with images and without (``blind``)."""
    found = []
    for stream, losses in metrics["held_out"].items():
        scored = metrics["tasks"].get(stream, {})
        figures = {"loss_per_token": losses["loss_per_token"], **scored.get("figures", {})}
        blind = {"loss_per_token": losses["loss_per_token_blind"], **scored.get("blind", {})}
        found.append({"stream": stream, "figures": figures, "blind": blind})
    return found


def gain(rows: Sequence[dict[str, Any]], name: str) -> Line:
    """The improvement of a metric by images; positive if it is better with images."""
    sign = 1 if metric(name).higher_is_better else -1
    differences = []
    for row in rows:
        seen, blind = (figures_from_json(row[of])[name] for of in ("figures", "blind"))
        differences.append(plain(sign * (seen.value - blind.value), seen.n))
    return line_of(name, differences)


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """For each stream and arm, the loss per token on held-out examples and, for questions, the accuracy."""
    lines = ["| stream | examples | metric | trained on | with images | without images | gain from images |"]
    lines.append(f"|{'---|' * 7}")
    for stream in dict.fromkeys(row["stream"] for row in rows):
        here = [row for row in rows if row["stream"] == stream]
        for name in (name for name in SHOWN if name in here[0]["figures"]):
            n = here[0]["figures"][name]["n"]
            title = f"{stream} | {n} | {metric(name).title}"
            for arm in (arm.name for arm in ARMS):
                own = [row for row in here if row["arm"] == arm]
                if own:
                    cells = [mean_line(own, name), mean_line(own, name, "blind"), gain(own, name)]
                    lines.append(f"| {title} | {arm} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/mixing"), run)
