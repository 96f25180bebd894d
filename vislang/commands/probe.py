"""``vislang probe``: what frozen representations know, beside what could know as much without learning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from rich.table import Table

from vislang.capabilities import Embeds, Progress
from vislang.console import console, reporting
from vislang.data.jsonl import DataError
from vislang.document import Audio, Document
from vislang.errors import UserError
from vislang.evaluate import baselines
from vislang.evaluate.probing import Probed, majority, probe
from vislang.models.data2vec.model import Data2Vec
from vislang.models.loading import load
from vislang.tasks.probes import PROBES, Probe, from_file


def run_probes(
    sources: list[str], task_name: str, encoder: Literal["student", "teacher"], with_baselines: bool, as_json: bool
) -> int:
    """Probe models on a task, print the figures, return 0.

    Args:
        sources: folders of models.
        task_name: a name, or a JSON Lines file with labels.
        encoder: ``student`` or ``teacher``.
        with_baselines: raw inputs and the majority too.
        as_json: one JSON object on standard output.
    """
    task = task_of(task_name)
    documents = [item.document for item in task.items]
    rows: dict[str, dict[str, Probed]] = {}
    for source in sources:
        model = load(source)
        if not isinstance(model, Data2Vec):
            kind = "gives no vectors" if not isinstance(model, Embeds) else "has no depths to choose from"
            raise UserError(f"{source}: is a {type(model).__name__}, which {kind}; give a data2vec model.")
        with reporting("embedding") as report:
            features = frozen_features(model, documents, encoder, report)
        rows[source] = both_probes(features, task)
    if with_baselines:
        for name, raw in baselines.raw_features(documents).items():
            rows[name] = both_probes({name: raw}, task)
        rows["most frequent label"] = {"linear": majority(task)}
    if as_json:
        print(
            json.dumps({"task": task.name, "n": len(next(iter(rows.values()))["linear"].right), "rows": _plain(rows)})
        )
        return 0
    console.print(_table(task, rows))
    return 0


def task_of(name: str) -> Probe:
    """A probing task by name, or from a file."""
    if name in PROBES:
        return PROBES[name]()
    if Path(name).is_file():
        return from_file(name)
    raise DataError(f"{name}: neither a file nor a probe; the probes are: {', '.join(PROBES)}.")


def frozen_features(
    model: Data2Vec,
    documents: Sequence[Document],
    encoder: Literal["student", "teacher"] = "student",
    progress: Progress | None = None,
) -> dict[str, np.ndarray]:
    """What a model makes of documents, at the depths among which a probe chooses (the lower half never was best).

    Of recordings each third is averaged apart, as it is for the baseline: the order of sounds makes a word.
    """
    depth = len(model.student.blocks)
    depths = sorted({(depth + 1) // 2, max(1, depth - 1), depth})
    parts = 3 if isinstance(documents[0].parts[0], Audio) else 1
    vectors = model.embed_at(documents, depths, encoder=encoder, parts=parts, progress=progress)
    return {f"{blocks} blocks": made.numpy() for blocks, made in vectors.items()}


def both_probes(features: dict[str, np.ndarray], task: Probe) -> dict[str, Probed]:
    """The linear probe and the nearest neighbours."""
    return {"linear": probe(features, task), "neighbours": probe(features, task, "knn")}


def _plain(rows: dict[str, dict[str, Probed]]) -> dict:
    return {
        name: {
            kind: {
                "accuracy": found.accuracy.value,
                "low": found.accuracy.low,
                "high": found.accuracy.high,
                "features": found.features,
            }
            for kind, found in row.items()
        }
        for name, row in rows.items()
    }


def _table(task: Probe, rows: dict[str, dict[str, Probed]]) -> Table:
    n = len(next(iter(rows.values()))["linear"].right)
    table = Table(title=f"{task.name}: accuracy on {n:,} items, 95 % interval", title_justify="left")
    for heading in ("representation", "linear probe", "nearest neighbours"):
        table.add_column(heading)
    for name, row in rows.items():
        table.add_row(name, *(str(row[kind].accuracy) if kind in row else "" for kind in ("linear", "neighbours")))
    return table
