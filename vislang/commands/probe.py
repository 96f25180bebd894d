"""``vislang probe``: a linear probe and nearest neighbours on frozen features, beside baselines that learned
nothing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rich.table import Table

from vislang.commands.options import positional, required
from vislang.console import console, reporting
from vislang.errors import needs
from vislang.metrics.figure import SCHEMA, figures_as_json, show

if TYPE_CHECKING:
    from vislang.evaluate.probe import Probed


@dataclass(frozen=True)
class Probe:
    """Evaluate frozen features with a linear probe and a nearest-neighbour classifier.

    Attributes:
        models: folders of models, or Hub ids
        task: a task with labels (vislang tasks lists them), or a JSON Lines file with labels
        encoder: for data2vec: probe the student's or the teacher's features
        baselines: also probe raw inputs, and report the most frequent label
        device: where the model runs: auto, cpu, cuda or mps
        json: print one JSON object
    """

    models: list[str] = positional()
    task: str = required()
    encoder: Literal["student", "teacher"] = "student"
    baselines: bool = False
    device: str = "auto"
    json: bool = False

    def run(self) -> int:
        """Print the figures; returns 0."""
        needs("sklearn", "eval", "a probe")
        from vislang.evaluate import baselines
        from vislang.evaluate.features import frozen_features
        from vislang.evaluate.probe import both_probes, majority
        from vislang.models.loading import load
        from vislang.tasks.catalogue import open_task
        from vislang.tasks.probes import ProbeTask, as_probe
        from vislang.train.device import device_of

        device = device_of(self.device)

        opened = open_task(self.task)
        task = opened if isinstance(opened, ProbeTask) else as_probe(opened)
        documents = [item.prompt for item in task.items]
        rows: dict[str, dict[str, Probed]] = {}
        for source in self.models:
            model = load(source, device)
            with reporting("embedding") as progress:
                features = frozen_features(model, documents, self.encoder, progress)
            rows[source] = both_probes(features, task)
        if self.baselines:
            for name, raw in baselines.raw_features(documents).items():
                rows[name] = both_probes({name: raw}, task)
            rows["most frequent label"] = {"linear": majority(task)}
        n = next(iter(rows.values()))["linear"].accuracy.n
        if self.json:
            print(json.dumps({"schema": SCHEMA, "task": task.name, "n": n, "rows": _plain(rows)}))
        else:
            console.print(_table(task.name, n, rows))
        return 0


def _plain(rows: dict[str, dict[str, Probed]]) -> dict[str, Any]:
    return {
        name: {
            kind: {"figures": figures_as_json({"accuracy": found.accuracy}), "features": found.features}
            for kind, found in row.items()
        }
        for name, row in rows.items()
    }


def _table(task: str, n: int, rows: dict[str, dict[str, Probed]]) -> Table:
    table = Table(title=f"{task}: accuracy on {n:,} examples, with 95 % intervals", title_justify="left")
    for heading in ("features", "linear probe", "nearest neighbours"):
        table.add_column(heading)
    for name, row in rows.items():
        cells = [show("accuracy", row[kind].accuracy) if kind in row else "" for kind in ("linear", "neighbours")]
        table.add_row(name, *cells)
    return table
