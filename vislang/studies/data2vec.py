"""Does data2vec learn anything on a small machine, and does its second generation learn it sooner?

    python -m vislang.studies.data2vec pictures --seeds 0 1 2 --out docs/runs/data2vec-pictures

Each run is one of a recipe, by generation and seed; v1 takes as many steps as fit into v2's time, measured on a few
steps of both. Checkpoints are probed, so that accuracy is known over minutes of training. Whatever was done already is
not done again: the study can be stopped and started. Baselines are the same encoder before any step (one a seed), raw
inputs, the most frequent label and, for pictures, a tower trained on ImageNet with labels.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vislang.commands.probe import task_of
from vislang.commands.run_folder import circumstances, write_json
from vislang.commands.train import run_recipe
from vislang.console import console
from vislang.document import Document, Image
from vislang.evaluate.baselines import raw_features
from vislang.evaluate.probing import Probed, majority, probe
from vislang.models.backbones import EFFICIENTNET_LITE0, load_vision_tower
from vislang.models.data2vec import Data2Vec
from vislang.models.pretraining import Pretraining
from vislang.recipe import read_recipe
from vislang.tasks.probes import Probe
from vislang.train.checkpoint import FILE, list_checkpoints
from vislang.train.log import read_metrics


@dataclass(frozen=True)
class Study:
    """A recipe and the probes that tell what its model knows."""

    recipe: Path
    probes: tuple[str, ...]


STUDIES = {
    "pictures": Study(Path("recipes/data2vec-image.yaml"), ("emoji-groups", "stamp-categories", "clip-art-categories")),
    "prose": Study(Path("recipes/data2vec-text.yaml"), ("emoji-names", "stamp-captions")),
    "recordings": Study(Path("recipes/data2vec-speech.yaml"), ("spoken-letters", "spoken-stamps-fr")),
}

GENERATIONS = ("v2", "v1")

POINTS = 6
"""Checkpoints of a run that are probed."""

MEASURED = 12
"""Steps on which a generation's pace is measured."""


def run_study(study: Study, seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train what is not trained yet, probe what is not probed yet, write ``results.json`` after each step of that.

    Args:
        study: what to do.
        seeds: of the runs.
        out: folder of the results.
        runs: folder of the runs, which are not kept with the results.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "results.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.is_file() else []
    tasks = {name: task_of(name) for name in study.probes}

    def known(**wanted: Any) -> bool:
        return any(all(row.get(key) == value for key, value in wanted.items()) for row in rows)

    def add(found: dict[str, Probed], **what: Any) -> None:
        for kind, probed in found.items():
            accuracy = probed.accuracy
            rows.append({**what, "kind": kind, "accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high})
        write_json(path, {"recipe": str(study.recipe), **circumstances(), "rows": rows})

    for name, task in tasks.items():
        if not known(probe=name, who="most frequent label"):
            add({"linear": majority(task)}, probe=name, who="most frequent label")
            documents = [item.document for item in task.items]
            for who, features in {**raw_features(documents), **_tower(documents)}.items():
                add(_both({who: features}, task), probe=name, who=who)
                console.print(f"{name}: {who} done")
    for seed in seeds:
        for generation in GENERATIONS:
            folder = _trained(study, generation, seed, runs)
            seconds = {row["step"]: row["seconds"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row}
            recipe, _ = read_recipe(study.recipe, _overrides(generation, seed, []))
            for step, model in _states(recipe.model, folder, seed):
                for name, task in tasks.items():
                    what: dict[str, Any] = {
                        "probe": name,
                        "who": generation if step else f"{generation}, before training",
                    }
                    what |= {"seed": seed, "step": step, "seconds": seconds.get(step, 0.0)}
                    if not known(**what):
                        add(_both(_features(model, task), task), **what)
                        console.print(f"{name}: {what['who']}, seed {seed}, step {step} done")
    draw(path, out)


def _overrides(generation: str, seed: int, more: Sequence[str]) -> list[str]:
    return [f"--model.generation={generation}", f"--train.seed={seed}", *more]


def _trained(study: Study, generation: str, seed: int, runs: Path) -> Path:
    """The folder of a finished run; trained, or taken up where it stopped."""
    folder = runs / f"{generation}-{seed}"
    if (folder / "metrics.json").is_file():
        return folder
    plain, _ = read_recipe(study.recipe, [])
    steps = plain.train.steps
    if generation == "v1":
        steps = max(POINTS, int(steps * _pace(study, "v2", runs) / _pace(study, "v1", runs)))
    more = [f"--train.steps={steps}", f"--train.checkpoint_every={-(-steps // POINTS)}", "--train.keep_checkpoints=99"]
    # The teacher's annealing and the warm-up span the same share of a run, however many its steps are.
    share = steps / plain.train.steps
    anneal = plain.model.choices.anneal_steps  # type: ignore[attr-defined]
    more += [f"--model.choices.anneal_steps={round(anneal * share)}"]
    more += [f"--train.warmup_steps={max(1, round(plain.train.warmup_steps * share))}", "--train.eval_every=0"]
    recipe, values = read_recipe(study.recipe, _overrides(generation, seed, more))
    resume = bool(list_checkpoints(folder / "checkpoints"))
    if run_recipe(recipe, values, folder, resume=resume) is None:
        raise KeyboardInterrupt
    return folder


def _pace(study: Study, generation: str, runs: Path) -> float:
    """Seconds a step, measured once for all seeds."""
    folder = runs / f"pace-{generation}"
    if not (folder / "metrics.json").is_file():
        more = [f"--train.steps={MEASURED}", "--train.eval_every=0", "--train.eval_examples=8"]
        recipe, values = read_recipe(study.recipe, _overrides(generation, 0, more))
        run_recipe(recipe, values, folder)
        shutil.rmtree(folder / "checkpoints")
    marks = [row["seconds"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
    return statistics.median(later - earlier for earlier, later in pairwise(marks))


def _states(recipe: Any, folder: Path, seed: int):
    """(step, model) of a run: before training, then at each checkpoint."""
    torch.manual_seed(seed)
    built: Pretraining = recipe.build()
    # What fits data beforehand, a vocabulary say, is in every checkpoint, and an untrained model needs it too.
    states = [torch.load(path / FILE, weights_only=True) for path in list_checkpoints(folder / "checkpoints")]
    fresh = {**states[0]["model"], **{name: tensor.clone() for name, tensor in built.model.trainable_state().items()}}
    for step, state in [(0, fresh), *((state["step"], state["model"]) for state in states)]:
        built.load_trainable_state(state)
        yield step, built.model.eval()


def _features(model: Data2Vec, task: Probe) -> dict[str, np.ndarray]:
    documents = [item.document for item in task.items]
    depth = len(model.student.blocks)
    return {str(blocks): model.embed(documents, blocks=blocks).numpy() for blocks in (depth // 2, depth - 1, depth)}


def _both(features: dict[str, np.ndarray], task: Probe) -> dict[str, Probed]:
    return {"linear": probe(features, task), "neighbours": probe(features, task, "knn")}


@torch.inference_mode()
def _tower(documents: Sequence[Document]) -> dict[str, np.ndarray]:
    """Mean features of a tower that was trained on ImageNet's labels, for pictures."""
    if not isinstance(documents[0].parts[0], Image):
        return {}
    tower = load_vision_tower(EFFICIENTNET_LITE0, 128)
    made = []
    for start in range(0, len(documents), 64):
        images = [medium for document in documents[start : start + 64] for medium in document.media]
        pixels = torch.stack([tower.preprocess(image.decode()) for image in images if isinstance(image, Image)])
        made.append(tower(pixels).mean(dim=1))
    return {"EfficientNet-Lite0, ImageNet labels": torch.cat(made).numpy()}


def draw(results: Path, out: Path) -> None:
    """Accuracy of the linear probe over minutes of training, a panel a probe: ``curves.png``."""
    from matplotlib.figure import Figure

    rows = [row for row in json.loads(results.read_text())["rows"] if row["kind"] == "linear"]
    names = list(dict.fromkeys(row["probe"] for row in rows))
    figure = Figure(figsize=(4.6 * len(names), 3.6), layout="constrained")
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    colours = {"v1": "#b3591e", "v2": "#1f4e79"}
    for axes, name in zip(panels, names, strict=True):
        here = [row for row in rows if row["probe"] == name]
        for row in here:
            if "seed" not in row:
                axes.axhline(100 * row["accuracy"], linewidth=1, linestyle="--", color="#888")
                axes.annotate(
                    row["who"],
                    (0.99, 100 * row["accuracy"]),
                    xycoords=("axes fraction", "data"),
                    fontsize=7,
                    ha="right",
                    va="bottom",
                    color="#555",
                )
        for generation, colour in colours.items():
            of = [row for row in here if row["who"].startswith(generation)]
            for seed in sorted({row["seed"] for row in of}):
                points = sorted((row["seconds"] / 60, 100 * row["accuracy"]) for row in of if row["seed"] == seed)
                axes.plot(
                    *zip(*points, strict=True),
                    marker="o",
                    markersize=3,
                    linewidth=1.3,
                    color=colour,
                    label=generation if seed == min(row["seed"] for row in of) else None,
                )
        axes.set_title(name, fontsize=10)
        axes.set_xlabel("minutes of training")
        axes.set_ylabel("linear probe, accuracy (%)")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False, fontsize=8)
    figure.savefig(out / "curves.png", dpi=130)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"))
    options = parser.parse_args()
    run_study(STUDIES[options.study], options.seeds, options.out, options.runs / options.study)


if __name__ == "__main__":
    main()
