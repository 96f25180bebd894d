"""Does data2vec learn anything on a small machine? Does its second generation learn sooner? Can modalities share?

    python -m vislang.studies.data2vec pictures --seeds 0 1 2 --out docs/runs/data2vec-pictures

Each run is one of a recipe, by generation and seed; v1 takes as many steps as fit into the time that v2 took with the
same seed, by its pace just before. The first probe of a study is read at checkpoints, so that accuracy is known over
minutes of training; all are read at the end. Baselines are the same encoder before any step (one a seed), raw inputs,
the most frequent label and, for pictures, a tower trained on ImageNet with labels. Whatever was done already is not
done again: a study can be stopped and started.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vislang.commands.probe import both_probes, frozen_features, task_of
from vislang.commands.train import run_recipe
from vislang.console import console
from vislang.document import Document, Image
from vislang.evaluate.baselines import raw_features
from vislang.evaluate.probing import Probed, majority
from vislang.models.data2vec.model import Data2Vec
from vislang.models.data2vec.pretraining import Pretraining
from vislang.models.towers.packaged import EFFICIENTNET_LITE0
from vislang.models.towers.vision import load_vision_tower
from vislang.recipe import Recipe, read_recipe
from vislang.studies.data2vec_figure import draw
from vislang.studies.data2vec_table import markdown
from vislang.studies.results import Results
from vislang.train.checkpoint import FILE, list_checkpoints
from vislang.train.log import read_metrics


@dataclass(frozen=True)
class Study:
    """A recipe, what is changed of it, the probes that tell what its model knows, the generations that are compared."""

    recipe: Path
    probes: tuple[str, ...]
    generations: tuple[str, ...] = ("v2",)  # v2 before v1, which takes its time from it
    changes: tuple[str, ...] = ()


PICTURES = ("emoji-groups", "stamp-categories", "clip-art-categories")
PROSE = ("emoji-names", "stamp-captions")
RECORDINGS = ("spoken-stamps-fr", "spoken-letters")

STUDIES = {
    "pictures": Study(Path("recipes/data2vec-image.yaml"), PICTURES, ("v2", "v1")),
    "prose": Study(Path("recipes/data2vec-text.yaml"), PROSE),
    "recordings": Study(Path("recipes/data2vec-speech.yaml"), RECORDINGS),
    "recordings-long": Study(
        Path("recipes/data2vec-speech.yaml"),
        RECORDINGS,
        changes=("--train.steps=7000", "--model.choices.anneal_steps=5000", "--model.choices.end_decay=0.9995"),
    ),
    "shared": Study(Path("recipes/data2vec-shared.yaml"), (*PICTURES, *PROSE, *RECORDINGS)),
}

POINTS = 8
"""Checkpoints of a run that are probed."""

MEASURED = 40
"""Steps on which the pace of v1 is measured."""


class Probes(Results):
    """Rows of accuracies, and what each run logged."""

    def __init__(self, out: Path, recipe: Path):
        super().__init__(out, recipe=str(recipe))
        self.training: dict[str, list[dict[str, float]]] = self.kept.get("training", {})
        self.about["training"] = self.training

    def probed(self, found: dict[str, Probed], **what: Any) -> None:
        """A row a kind of probe."""
        for kind, probed in found.items():
            accuracy = probed.accuracy
            figures = {"accuracy": accuracy.value, "low": accuracy.low, "high": accuracy.high, "items": accuracy.n}
            self.add({**what, "kind": kind, **{k: round(v, 5) for k, v in figures.items()}})

    def log(self, run: str, metrics: Sequence[dict[str, Any]], points: int = 40) -> None:
        """The curves of a run, thinned: each point the mean over its share of the steps."""
        steps = [row for row in metrics if "loss" in row]
        names = [n for n in steps[0] if n.rpartition("/")[2] in ("loss", "explained") or n.endswith("_spread")]
        groups = [steps[len(steps) * n // points : len(steps) * (n + 1) // points] for n in range(points)]
        self.training[run] = [
            {"step": group[-1]["step"], "seconds": round(group[-1]["seconds"], 1)}
            | {name: round(statistics.fmean(row[name] for row in group), 4) for name in names}
            for group in groups
            if group
        ]
        self.write()


def run_study(study: Study, seeds: Sequence[int], out: Path, runs: Path, threads: int = 0) -> None:
    """Train what is not trained yet, probe what is not probed yet, write ``results.json`` after each step of that.

    Args:
        study: what to do.
        seeds: of the runs.
        out: folder of the results.
        runs: folder of the runs, which are not kept with the results.
        threads: CPU threads; 0 leaves torch's choice.
    """
    if threads:
        torch.set_num_threads(threads)
    results = Probes(out, study.recipe)
    tasks = {name: task_of(name) for name in study.probes}
    for seed in seeds:
        for generation in study.generations:
            folder = _trained(study, generation, seed, runs)
            metrics = read_metrics(folder / "metrics.jsonl")
            results.log(f"{generation}, seed {seed}", metrics)
            seconds = {row["step"]: row["seconds"] for row in metrics if "loss" in row}
            last = max(seconds)
            recipe, _ = _read(study, generation, seed)
            for step, model in _states(recipe.model, folder, seed):
                who = generation if step else f"{generation}, before training"
                for name in study.probes if step in (0, last) else study.probes[:1]:
                    what = {"probe": name, "who": who, "seed": seed, "step": step, "seconds": seconds.get(step, 0.0)}
                    if not results.known(**what):
                        documents = [item.document for item in tasks[name].items]
                        results.probed(both_probes(frozen_features(model, documents), tasks[name]), **what)
                        console.print(f"{name}: {who}, seed {seed}, step {step} done")
    for name, task in tasks.items():
        if not results.known(probe=name, who="most frequent label"):
            results.probed({"linear": majority(task)}, probe=name, who="most frequent label")
            documents = [item.document for item in task.items]
            for who, features in {**raw_features(documents), **_tower(documents)}.items():
                results.probed(both_probes({who: features}, task), probe=name, who=who)
                console.print(f"{name}: {who} done")
    draw(results.rows, study.probes[0], out / "curves.png")
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def _read(study: Study, generation: str, seed: int, *more: str) -> tuple[Recipe, dict[str, Any]]:
    """The study's recipe for one run."""
    return read_recipe(
        study.recipe, [*study.changes, f"--model.generation={generation}", f"--train.seed={seed}", *more]
    )


def _trained(study: Study, generation: str, seed: int, runs: Path) -> Path:
    """The folder of a finished run; trained, or taken up where it stopped."""
    folder = runs / f"{generation}-{seed}"
    if (folder / "metrics.json").is_file():
        return folder
    plain, _ = _read(study, generation, seed)
    steps = plain.train.steps
    if generation == "v1":
        (*_, last) = (row for row in read_metrics(runs / f"v2-{seed}" / "metrics.jsonl") if "loss" in row)
        steps = max(POINTS, int(last["seconds"] / _pace(study, generation, seed, runs)))
    # The teacher's annealing and the warm-up span the same share of a run, however many its steps are.
    share = steps / plain.train.steps
    anneal = plain.model.choices.anneal_steps  # type: ignore[attr-defined]
    recipe, values = _read(
        study,
        generation,
        seed,
        f"--train.steps={steps}",
        f"--train.checkpoint_every={-(-steps // POINTS)}",
        "--train.keep_checkpoints=99",
        f"--model.choices.anneal_steps={round(anneal * share)}",
        f"--train.warmup_steps={max(1, round(plain.train.warmup_steps * share))}",
        "--train.eval_every=0",
    )
    resume = bool(list_checkpoints(folder / "checkpoints"))
    if run_recipe(recipe, values, folder, resume=resume) is None:
        raise KeyboardInterrupt
    return folder


def _pace(study: Study, generation: str, seed: int, runs: Path) -> float:
    """Seconds a step, as they are now."""
    folder = runs / f"pace-{generation}-{seed}"
    if not (folder / "metrics.json").is_file():
        recipe, values = _read(
            study, generation, seed, f"--train.steps={MEASURED}", "--train.eval_every=0", "--train.eval_examples=8"
        )
        run_recipe(recipe, values, folder)
        shutil.rmtree(folder / "checkpoints")
    marks = [row["seconds"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
    return statistics.fmean(later - earlier for earlier, later in pairwise(marks))


def _states(recipe: Any, folder: Path, seed: int) -> Iterator[tuple[int, Data2Vec]]:
    """(step, model) of a run: before training, then at each checkpoint."""
    torch.manual_seed(seed)
    built: Pretraining = recipe.build()
    # What fits data beforehand, a vocabulary say, is in every checkpoint, and an untrained model needs it too.
    states = [torch.load(path / FILE, weights_only=True) for path in list_checkpoints(folder / "checkpoints")]
    fresh = {**states[0]["model"], **{name: tensor.clone() for name, tensor in built.model.trainable_state().items()}}
    for step, state in [(0, fresh), *((state["step"], state["model"]) for state in states)]:
        built.load_trainable_state(state)
        yield step, built.model.eval()


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


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--runs", type=Path, default=Path("runs/studies"))
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args()
    run_study(STUDIES[options.study], options.seeds, options.out, options.runs / options.study, options.threads)


if __name__ == "__main__":
    main()
