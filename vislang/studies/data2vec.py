"""Does data2vec learn useful features on a small machine, does v2 learn faster, and can modalities share an encoder?

    python -m vislang.studies.data2vec pictures --seeds 0 1 2 --out docs/results/data2vec-pictures

A recipe is run once for each generation and seed. v1 trains for the number of steps that fit into the time v2 took with
the same seed, from a measurement of v1's speed just before. The first probe of a study is evaluated at every
checkpoint, for the curve of accuracy over minutes of training; all probes are evaluated at the end. Baselines are the
same encoder before training (one for each seed), raw inputs, the most frequent label and, for pictures, a tower trained
on ImageNet with labels. Finished measurements are not repeated, so a study can be stopped and continued.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vislang.console import console
from vislang.document import Document, Image
from vislang.evaluate.baselines import raw_features
from vislang.evaluate.features import frozen_features
from vislang.evaluate.probe import Probed, both_probes, majority
from vislang.metrics.figure import figures_as_json
from vislang.program import run_program
from vislang.recipe import Recipe, read_recipe
from vislang.studies.arms import add_options, finish, is_finished, use_threads
from vislang.studies.data2vec_figure import draw
from vislang.studies.data2vec_table import markdown
from vislang.studies.results import Results
from vislang.studies.tower import mean_features
from vislang.studies.untrained import before_training
from vislang.tasks.catalogue import open_task
from vislang.tasks.probes import as_probe
from vislang.train.checkpoint import list_checkpoints, open_checkpoint
from vislang.train.log import read_metrics


@dataclass(frozen=True)
class Study:
    """A recipe with its overrides, the probes of its model, and the generations that are compared."""

    recipe: Path
    probes: tuple[str, ...]
    generations: tuple[str, ...] = ("v2",)  # v2 before v1, which trains for the same time
    changes: tuple[str, ...] = ()


PICTURES = ("emoji-groups", "stamp-categories", "clip-art-categories")
PROSE = ("emoji-name-groups", "stamp-caption-categories")
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
"""Number of checkpoints of a run that are probed."""

MEASURED = 40
"""Number of steps in which the speed of v1 is measured."""

LOGGED = ("loss", "target_std", "prediction_std", "explained_variance")
"""Metrics of a run whose curves are stored, overall and for each stream."""


class Probes(Results):
    """Rows of accuracies, and the training curves of each run."""

    def __init__(self, out: Path, recipe: Path):
        super().__init__(out, recipe=str(recipe))
        self.training: dict[str, list[dict[str, float]]] = self.saved.get("training", {})
        self.about["training"] = self.training

    def add_probed(self, found: Mapping[str, Probed], **keys: Any) -> None:
        """Add a row for each type of probe."""
        self.add(
            *(
                {**keys, "kind": kind, "figures": figures_as_json({"accuracy": probed.accuracy})}
                for kind, probed in found.items()
            )
        )

    def log(self, run: str, metrics: Sequence[dict[str, Any]], points: int = 40) -> None:
        """Store the curves of a run as ``points`` means over equal numbers of steps."""
        steps = [row for row in metrics if "loss" in row]
        names = [name for name in steps[0] if name.rpartition("/")[2] in LOGGED]
        groups = [steps[len(steps) * n // points : len(steps) * (n + 1) // points] for n in range(points)]
        self.training[run] = [
            {"step": group[-1]["step"], "seconds": round(group[-1]["seconds"], 1)}
            | {name: round(statistics.fmean(row[name] for row in group), 4) for name in names}
            for group in groups
            if group
        ]
        self.write()


def run_study(study: Study, seeds: Sequence[int], out: Path, runs: Path) -> None:
    """Train and probe what is missing; ``results.json`` is written after each measurement.

    Args:
        study: the study.
        seeds: seeds of the runs.
        out: folder of the results.
        runs: folder of the runs, which are no part of the results.
    """
    results = Probes(out, study.recipe)
    tasks = {name: as_probe(open_task(name)) for name in study.probes}
    for seed in seeds:
        for generation in study.generations:
            folder = _trained(study, generation, seed, runs)
            metrics = read_metrics(folder / "metrics.jsonl")
            results.log(f"{generation}, seed {seed}", metrics)
            seconds = {row["step"]: row["seconds"] for row in metrics if "loss" in row}
            recipe, _ = _read(study, generation, seed)
            for step, model in _states(recipe.model, folder):
                name = generation if step else f"{generation}, before training"
                for probe in study.probes if step in (0, max(seconds)) else study.probes[:1]:
                    keys = {"probe": probe, "representation": name, "seed": seed, "step": step}
                    if not results.known(**keys):
                        documents = [item.prompt for item in tasks[probe].items]
                        found = both_probes(frozen_features(model, documents), tasks[probe])
                        results.add_probed(found, **keys, seconds=seconds.get(step, 0.0))
                        console.print(f"{probe}: {name}, seed {seed}, step {step} done")
    for probe, task in tasks.items():
        if not results.known(probe=probe, representation="most frequent label"):
            results.add_probed({"linear": majority(task)}, probe=probe, representation="most frequent label")
            documents = [item.prompt for item in task.items]
            for name, features in {**raw_features(documents), **_tower(documents)}.items():
                results.add_probed(both_probes({name: features}, task), probe=probe, representation=name)
                console.print(f"{probe}: {name} done")
    draw(results.rows, study.probes[0], out / "curves.png")
    (out / "table.md").write_text(markdown(results.rows), encoding="utf-8")


def _read(study: Study, generation: str, seed: int, *more: str) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a run."""
    return read_recipe(
        study.recipe, [*study.changes, f"--model.generation={generation}", f"--train.seed={seed}", *more]
    )


def _trained(study: Study, generation: str, seed: int, runs: Path) -> Path:
    """The folder of a finished run; an unfinished one is trained or resumed first."""
    folder = runs / f"{generation}-{seed}"
    if is_finished(folder):
        return folder
    plain, _ = _read(study, generation, seed)
    steps = plain.train.number_of_steps
    if generation == "v1":
        (*_, last) = (row for row in read_metrics(runs / f"v2-{seed}" / "metrics.jsonl") if "loss" in row)
        steps = max(POINTS, int(last["seconds"] / _seconds_a_step(study, generation, seed, runs)))
    # The annealing of the teacher and the warm-up are the same share of a run for any number of steps.
    share = steps / plain.train.number_of_steps
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
    finish(recipe, values, folder)
    return folder


def _seconds_a_step(study: Study, generation: str, seed: int, runs: Path) -> float:
    """The present time of a step in seconds, measured in a short run."""
    folder = runs / f"pace-{generation}-{seed}"
    if not is_finished(folder):
        finish(
            *_read(
                study, generation, seed, f"--train.steps={MEASURED}", "--train.eval_every=0", "--train.eval_examples=8"
            ),
            folder,
        )
        shutil.rmtree(folder / "checkpoints")
    marks = [row["seconds"] for row in read_metrics(folder / "metrics.jsonl") if "loss" in row]
    return statistics.fmean(later - earlier for earlier, later in pairwise(marks))


def _states(recipe: Any, folder: Path) -> Iterator[tuple[int, Any]]:
    """Yield (step, model) of a run: before training, then at each checkpoint."""
    yield 0, before_training(folder).model.eval()
    built = recipe.build()
    for checkpoint in map(open_checkpoint, list_checkpoints(folder / "checkpoints")):
        built.load_extra_state(checkpoint.values["extra"])
        built.load_trainable_state(checkpoint.model_state())
        yield checkpoint.step, built.model.eval()


def _tower(documents: Sequence[Document]) -> dict[str, np.ndarray]:
    """For pictures, mean features of a tower that was trained on ImageNet's labels."""
    images = [medium for document in documents for medium in document.media if isinstance(medium, Image)]
    return {"EfficientNet-Lite0, ImageNet labels": mean_features(images)} if images else {}


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(STUDIES))
    add_options(parser, Path("runs/studies"))
    options = parser.parse_args()
    use_threads(options.threads)
    run_study(STUDIES[options.study], options.seeds, options.out, options.runs / options.study)


if __name__ == "__main__":
    sys.exit(run_program(main))
