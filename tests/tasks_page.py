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
from vislang.models.regions.readers import RegionsConfig
from vislang.tasks.catalogue import TASKS

SAVED = Path(__file__).parent / "saved"
PAGE = Path(__file__).parent.parent / "docs" / "tasks.md"

FINE_TUNED = ("ViLBERT, fine-tuned", "data2vec, fine-tuned")
"""Columns of models that are fine-tuned on the task: their heads know its labels."""

OPENING = """# Tasks and models

Every model answers every task that it can read, in the best way that it has:

* **generate**: it writes the answer, and what it wrote is compared with the ground truth.
* **rank**: it gives each option a log-likelihood; the highest wins.
* **decide**: a head that was trained for this kind of answer decides.
* **match**: it compares images with texts; the best match wins. Labels become texts by the task's template.
* **embed**: a linear classifier is fitted on its vectors of the training split.

`vislang eval MODEL --task TASK` does it. `vislang tasks --model MODEL` prints the column of a model of your own, with
the reason for each empty cell; `--json` gives the same to a program. The models of the table read images and text: a
Flamingo that was trained on videos answers `easy-vqa-films`, too, and a data2vec of speech the spoken tasks. This page
is written by
`python -m tests.tasks_page`.

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


def page(columns: Mapping[str, Any]) -> str:
    """The whole page."""
    headings = ["task", "target", "metrics", *columns]
    rows = [headings, ["---"] * len(headings)]
    for entry in TASKS.values():
        trained = replace(entry, labels=())
        cells = [cell(model, trained if name in FINE_TUNED else entry).way for name, model in columns.items()]
        rows.append([f"`{entry.spec}`", entry.kind, ", ".join(entry.metrics), *(way or "" for way in cells)])
    table = "".join(f"| {' | '.join(row)} |\n" for row in rows)
    return f"{OPENING}{table}"


if __name__ == "__main__":
    PAGE.write_text(page(models()), encoding="utf-8")
