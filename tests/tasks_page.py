"""Writes docs/tasks.md, the table of tasks times models: ``python -m tests.tasks_page``.

Each column is a model of ``tests/saved``. What a cell says depends on the kind of model and of task, not on weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import vislang
from vislang.evaluate.ways import cell
from vislang.models.earlier.dfaf import DFAFRecipe
from vislang.models.earlier.mattnet import MAttNetRecipe
from vislang.models.earlier.r2c import R2CRecipe
from vislang.models.earlier.scan import SCANRecipe
from vislang.models.earlier.system import SystemForTask
from vislang.models.regions.readers import RegionsConfig
from vislang.models.vilbert.task_batches import Task
from vislang.tasks.benchmarks import BENCHMARKS
from vislang.tasks.catalogue import TASKS

SAVED = Path(__file__).parent / "saved"
PAGE = Path(__file__).parent.parent / "docs" / "tasks.md"

FINE_TUNED = ("ViLBERT, fine-tuned", "data2vec, fine-tuned")
"""Columns of models that are fine-tuned on the task: their heads know its labels, and read as many images."""

OPENING = """# Tasks and models

Every model answers every task that it can read, in the best way that it has:

* **generate**: it writes the answer, and what it wrote is compared with the ground truth.
* **rank**: it gives each option a log-likelihood; the highest wins.
* **decide**: a head that was trained for this kind of answer decides.
* **match**: it compares images with texts; the best match wins. Labels become texts by the task's template.
* **embed**: a linear classifier is fitted on its vectors of the training split.

`vislang eval MODEL --task TASK` does it. `vislang tasks --model MODEL` prints the column of a model of your own, with
the reason for each empty cell; `--json` gives the same to a program. Any [source](data.md) whose records have a target
is a task as well.

The models of the table read images and text: a Flamingo that was trained on videos answers the tasks about videos, too,
and a data2vec of speech the spoken tasks; fine-tuned with a `ctc` head it transcribes `librispeech`, with a
`regression` head it answers `cmu-mosi-audio`. The fine-tuned models are fine-tuned on the task; a ViLBERT for the paths
of `r2r` is built with `streams.vision.images: 8`. This page is written by `python -m tests.tasks_page`.

"""

SYSTEMS = """
The [earlier systems](earlier.md) learn targets of one kind each:

| system | way | tasks |
| --- | --- | --- |
"""

FILES = """
## Files of the benchmarks

A benchmark is opened with a folder of the files that its authors distribute. A missing file is an error that names all
of them.

| task | content | splits | files in the folder |
| --- | --- | --- | --- |
"""

REASONS = """
## Why a cell is empty

| model | tasks | reason |
| --- | --- | --- |
"""


def models() -> dict[str, Any]:
    """A model for each column."""
    vision, language = str(SAVED / "towers" / "vision"), str(SAVED / "towers" / "language")
    regions = RegionsConfig(tower=vision, image_size=0)
    clustered = replace(regions, clusters=str(SAVED / "clusters.safetensors"))
    return {
        "Flamingo": vislang.load(SAVED / "flamingo", language_model=language, vision_tower=vision),
        "dual encoder": vislang.load(SAVED / "dual-encoder", regions=regions),
        "ViLBERT, pretrained": vislang.load(SAVED / "vilbert-pretrained", regions=clustered),
        "ViLBERT, fine-tuned": vislang.load(SAVED / "vilbert-tasks", regions=regions),
        "data2vec": vislang.load(SAVED / "data2vec-v2"),
        "data2vec, fine-tuned": vislang.load(SAVED / "data2vec-finetuned"),
    }


def systems() -> dict[str, Any]:
    """The earlier systems, each with a task of its kind."""
    found = {}
    for name, recipe in (("SCAN", SCANRecipe), ("DFAF", DFAFRecipe), ("MAttNet", MAttNetRecipe), ("R2C", R2CRecipe)):
        model = recipe(regions=RegionsConfig(tower=str(SAVED / "towers" / "vision"), image_size=0)).build()
        if isinstance(model, SystemForTask):
            model.add_task("task", Task(model.kind, ["yes"] if model.kind == "answers" else []))
        found[name] = model
    return found


def rows_of_systems() -> list[list[str]]:
    """A row for each earlier system: how it answers, and which tasks."""
    rows = []
    for name, model in systems().items():
        cells = {entry.name: cell(model, entry).way for entry in TASKS.values()}
        for way in dict.fromkeys(way for way in cells.values() if way is not None):
            rows.append([name, way, ", ".join(f"`{task}`" for task, own in cells.items() if own == way)])
    return rows


def page(columns: Mapping[str, Any]) -> str:
    """The whole page."""
    headings = ["task", "target", "metrics", *columns]
    rows = [headings, ["---"] * len(headings)]
    without: dict[tuple[str, str], list[str]] = {}
    for entry in TASKS.values():
        # The saved ViLBERT's head for labels compares two images; its other heads read one.
        trained = replace(entry, labels=(), images=2 if entry.kind == "label" else 1)
        cells = {name: cell(model, trained if name in FINE_TUNED else entry) for name, model in columns.items()}
        ways = [found.way or "" for found in cells.values()]
        rows.append([f"`{entry.spec}`", entry.kind, ", ".join(entry.metrics), *ways])
        for name, found in cells.items():
            if found.why_not is not None:
                without.setdefault((name, found.why_not), []).append(f"`{entry.name}`")
    reasons = [
        [name, ", ".join(without[name, why]), why] for model in columns for name, why in without if name == model
    ]
    files = [[f"`{name}`", made.about, ", ".join(made.splits), f"`{made.files}`"] for name, made in BENCHMARKS.items()]
    table, learned, needed, empty = (
        "".join(f"| {' | '.join(row)} |\n" for row in part) for part in (rows, rows_of_systems(), files, reasons)
    )
    return f"{OPENING}{table}{SYSTEMS}{learned}{FILES}{needed}{REASONS}{empty}"


if __name__ == "__main__":
    PAGE.write_text(page(models()), encoding="utf-8")
