"""R2R (Anderson et al. 2018): follow an instruction through a building, by ranking paths (Majumdar et al. 2020).

The choices are paths, with an image (or a record of region features) for each viewpoint. They come from the beam file
of a navigation agent. Distances are measured along the graph of viewpoints.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from vislang.data.problems import DataError
from vislang.document import Document
from vislang.example import Choice, Example, Prediction
from vislang.metrics.figure import Figures
from vislang.metrics.navigation import METRICS, SUCCESS, Graph, navigation, navigation_scores
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.files import each, image_in, one_file, read_json

VIEWS = 8
"""Number of last viewpoints of a path that a model reads; the score uses all of them."""


class R2R(Benchmark):
    """``R2R_SPLIT.json``, ``<scan>_connectivity.json`` of each building, and ``beams_SPLIT.json``.

    The beam file holds ``[{"instr_id": ..., "ranked_paths": [[viewpoint, ...], ...]}, ...]``. The correct choice is
    the candidate that ends nearest to the goal (the end of the reference path), if it ends less than 3 m from it. An
    instruction without such a candidate has no target: it is scored, but not used for training.
    """

    name = "r2r"
    about = "instructions through buildings: the path that they describe, among candidates"
    kind = "choice"
    media = frozenset({"image", "several images", "text"})
    images = VIEWS
    metrics = METRICS
    splits = ("train", "val_seen", "val_unseen")
    prefer = ("val_unseen", "val", "test")
    patterns = (r"R2R_(.+)\.json",)
    files = "R2R_SPLIT.json, beams_SPLIT.json, connectivity/<scan>_connectivity.json, images as <scan>-<viewpoint>.jpg"

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._beams: dict[str, list[list[str]]] = {}
        self._graphs: dict[str, Graph] = {}
        self._references: dict[str, tuple[str, list[str]]] = {}

    def read(self, split: str) -> list[Example]:
        """The instructions of a split, in the official order."""
        path = self.split_files[split]
        beams = one_file(self.folder, f"beams_{split}.json")
        self._beams |= each(beams, read_json(beams), lambda r: (str(r["instr_id"]), _paths(r["ranked_paths"])))

        def examples(record: Mapping[str, Any]) -> list[Example]:
            scan = record["scan"]
            if scan not in self._graphs:
                self._graphs[scan] = read_graph(
                    one_file(self.folder, f"connectivity/{scan}_connectivity.json", f"{scan}_connectivity.json")
                )
            made = []
            for number, instruction in enumerate(record["instructions"]):
                identifier = f"{record['path_id']}_{number}"
                if identifier not in self._beams:
                    raise DataError(f"{beams}: no candidate paths for instruction {identifier}.")
                self._references[identifier] = scan, record["path"]
                made.append(self._example(path, identifier, instruction))
            return made

        return [example for made in each(path, read_json(path), examples) for example in made]

    def _example(self, path: Path, identifier: str, instruction: str) -> Example:
        scan, reference = self._references[identifier]
        beams = self._beams[identifier]
        distances = [self._graphs[scan].distance(candidate[-1], reference[-1]) for candidate in beams]
        nearest = int(np.argmin(distances))
        source = f"{path.name}, {identifier}"
        choices = tuple(
            Document([image_in(self.folder, f"{scan}-{view}.jpg") for view in candidate[-VIEWS:]], name=source)
            for candidate in beams
        )
        target = Choice(nearest) if distances[nearest] < SUCCESS else None
        prompt = Document([instruction], name=source)
        return Example(identifier, prompt, target, choices, scan, source, self.name)

    def can_score(self, examples: Sequence[Example]) -> bool:
        """Always: paths are scored by the reference path."""
        return True

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The figures of :func:`vislang.metrics.navigation.navigation_scores`."""
        rows = []
        for example, prediction in zip(examples, predictions, strict=True):
            scan, reference = self._references[example.id]
            walked = self._path(prediction)
            if not walked or walked[0] != reference[0]:
                start = reference[0]
                raise DataError(f"{example.name}: the path must start at {start}.")
            rows.append(navigation_scores(self._graphs[scan], walked, reference))
        return navigation(rows)

    def _path(self, prediction: Prediction) -> list[str]:
        """The viewpoints of a prediction."""
        answer, beams = prediction.answer, self._beams[prediction.id]
        if isinstance(answer, int) and 0 <= answer < len(beams):
            return beams[answer]
        if not isinstance(answer, tuple):
            raise DataError(
                f"prediction {prediction.id}: {answer!r} is neither a path nor the index of one, from 0 to "
                f"{len(beams) - 1}."
            )
        return list(answer)

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """``[{"instr_id": ..., "trajectory": [[viewpoint, heading, elevation], ...]}, ...]``, the leaderboard's."""

        def predict(record: Mapping[str, Any]) -> Prediction:
            # In this format, turning is a separate step at the same viewpoint.
            views = tuple(str(view) for view, _ in groupby(step[0] for step in record["trajectory"]))
            return Prediction(str(record["instr_id"]), views)

        return each(path, read_json(path), predict)

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`; heading and elevation, which are not scored, are 0."""
        records = [{"instr_id": p.id, "trajectory": [[view, 0.0, 0.0] for view in self._path(p)]} for p in predictions]
        return "r2r_submission.json", json.dumps(records)


def read_graph(path: Path) -> Graph:
    """A ``<scan>_connectivity.json``: pairs of included viewpoints that see each other without an obstacle.

    Raises:
        DataError: another format.
    """
    records = read_json(path)
    views = each(path, records, lambda r: (r["image_id"], bool(r["included"]), [r["pose"][i] for i in (3, 7, 11)]))
    edges: dict[str, dict[str, float]] = {view: {} for view, included, _ in views if included}
    for (view, included, position), record in zip(views, records, strict=True):
        for (other, also, there), unobstructed in zip(views, record["unobstructed"], strict=True):
            if included and also and unobstructed:
                edges[view][other] = edges[other][view] = math.dist(position, there)
    return Graph(edges)


def _paths(paths: Sequence[Sequence[str]]) -> list[list[str]]:
    if not paths or not all(paths):
        raise ValueError("an empty list of paths, or an empty path")
    return [[str(view) for view in path] for path in paths]
