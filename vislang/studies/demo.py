"""What makes the demo learn to compare the words of a question with an image: each of its choices is taken back alone.

    python -m vislang.studies.demo --seeds 0 --out docs/results/flamingo-demo

Accuracy is that on held-out training images. No arm is scored on the test split. The study also measures how much of
what a gated block reads differs between questions.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from vislang.data.sources import load_source
from vislang.recipe import read_recipe
from vislang.studies.arms import Arm, command_line, finish, is_finished
from vislang.studies.results import Results

RECIPE = Path(__file__).parents[1] / "commands" / "demo.yaml"
STEPS, EXAMPLES = 500, 600
SHOWN = (100, 200, 300, 400, 500)
"""Steps whose accuracy is in the table."""

ALL, VARIANCE = "all choices", "variance between questions"
ARMS = (
    Arm(ALL, RECIPE),
    Arm("training questions not in pairs", RECIPE, ("--complementary_pairs=false",)),
    Arm("text not standardised", RECIPE, ("--model.bridge.standardise_text=false",)),
)


LAYERS = (20, 23, 26, 29)
"""Layers at which the variance between questions is measured."""


def run(seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train what is missing; write ``results.json`` after each run, and ``table.md``."""
    results = Results(out)
    if not results.known(arm=VARIANCE):
        results.add({"arm": VARIANCE, "share": variance_between_questions()})
    for seed in seeds:
        for arm in ARMS:
            if not results.known(arm=arm.name, seed=seed):
                results.add({"arm": arm.name, "seed": seed, "accuracy": curve(arm, seed, runs)})
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


@torch.no_grad()
def variance_between_questions() -> dict[str, float]:
    """By layer, the share of variance between questions in the normalised hidden states of their last tokens.

    A layer norm gives each token a mean square of 1, so this is the variance over questions, averaged over channels.
    """
    recipe, _ = read_recipe(RECIPE, [f"--model.bridge.gated_layers={list(LAYERS)}"])
    model = recipe.model.build()
    questions = {example.text: example for example in load_source("easy-vqa", "train")}
    prompts = [model.prompts.render(example.without_target()) for example in questions.values()]
    inputs = model.runner.gate_inputs(model.with_features(model.collate.documents(prompts)))
    normed = {layer: F.layer_norm(hidden, hidden.shape[-1:]) for layer, hidden in inputs.items()}
    return {str(layer): float(hidden.var(dim=0).mean()) for layer, hidden in normed.items()}


def curve(arm: Arm, seed: int, runs: Path) -> dict[str, float]:
    """The accuracy of an arm by step; the arm is trained, or its training continued, if necessary."""
    folder = runs / f"{arm.name.replace(' ', '-')}-{seed}"
    if not is_finished(folder):
        settings = {
            "steps": STEPS,
            "minutes": 0,
            "eval_every": SHOWN[0],
            "eval_examples": EXAMPLES,
            "seed": seed,
        }
        changes = [f"--train.{name}={value}" for name, value in settings.items()]
        finish(*read_recipe(arm.recipe, [*arm.changes, *changes, "--evaluate=[]"]), folder)
    rows = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {str(row["step"]): row["eval/accuracy"] for row in rows if "eval/accuracy" in row}


def markdown(rows: Sequence[dict[str, Any]]) -> str:
    """For each arm, the accuracy after some steps in per cent: the mean over seeds, and each seed."""
    lines = [f"| | {' | '.join(f'{step} steps' for step in SHOWN)} |", f"|{'---|' * (1 + len(SHOWN))}"]
    for arm in ARMS:
        own = [row["accuracy"] for row in rows if row["arm"] == arm.name]
        if own:
            cells = [_cell([accuracy[str(step)] for accuracy in own]) for step in SHOWN]
            lines.append(f"| {arm.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(values: Sequence[float]) -> str:
    mean = f"{100 * sum(values) / len(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({', '.join(f'{100 * value:.1f}' for value in values)})"


if __name__ == "__main__":
    command_line(__doc__ or "", Path("runs/studies/demo"), run)
