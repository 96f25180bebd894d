"""R2R (Anderson et al. 2018): follow an instruction through a building, by ranking paths (Majumdar et al. 2020).

The choices are paths, with an image (or a record of region features) for each viewpoint. They come from a beam file:
that of a navigation agent, or one that ``vislang paths`` made from the graph of viewpoints, along which distances are
measured.

The official program (Matterport3DSimulator) scores the first of several trajectories of an instruction and ignores
unknown instructions. Here both are errors, as in all benchmarks: what is scored is what the file says.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from vislang.data.fields import as_list, as_text, field, finite, id_field, list_field, shown, text_field
from vislang.data.problems import DataError, RecordError
from vislang.document import Document, Facing, Image
from vislang.errors import UserError
from vislang.example import Answer, Choice, Example, Prediction
from vislang.metrics.figure import Figures
from vislang.metrics.items import Items, graded
from vislang.metrics.navigation import METRICS, SUCCESS, Graph, navigation, navigation_scores
from vislang.tasks.benchmark import Benchmark
from vislang.tasks.files import each, image_in, keyed, read_json

INSTRUCTIONS = 3
"""Number of instructions for each path, which the official program expects."""

VIEWS = 8
"""Number of last viewpoints of a path that a model reads; the score uses all of them."""


class R2R(Benchmark):
    """``R2R_SPLIT.json``, ``<scan>_connectivity.json`` of each building, and ``beams_SPLIT.json``.

    The beam file holds ``[{"instr_id": ..., "ranked_paths": [[viewpoint, ...], ...]}, ...]``. A model chooses among its
    paths; a file of trajectories is scored without it. The correct choice is the candidate that ends nearest to the
    goal (the end of the reference path), if it ends less than 3 m from it. An instruction without such a candidate has
    no target: it is scored, but not used for training.
    """

    name = "r2r"
    about = "instructions through buildings: the path that they describe, among candidates"
    kind = "choice"
    media = frozenset({"image", "several images", "text"})
    images = VIEWS
    metrics = METRICS
    splits = ("train", "val_seen", "val_unseen")
    prefer: ClassVar[tuple[str, ...]] = ("val_unseen", "val", "test")
    patterns = (r"R2R_(.+)\.json",)
    files = (
        "R2R_SPLIT.json, connectivity/<scan>_connectivity.json; for a model also beams_SPLIT.json and images as "
        "<scan>-<viewpoint>.jpg"
    )

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._beams: dict[str, list[list[str]]] = {}
        self._graphs: dict[str, Graph] = {}
        self._references: dict[str, tuple[str, list[str]]] = {}

    def read(self, split: str) -> list[Example]:
        """The instructions of a split, in the official order."""
        path, beams = self.split_files[split], self.folder / f"beams_{split}.json"
        candidates: dict[str, list[list[str]]] = {}
        if beams.exists():
            candidates = keyed(beams, read_json(beams), lambda r: (id_field(r, "instr_id"), _paths(r)))

        def examples(record: Mapping[str, Any]) -> list[Example]:
            scan, number = text_field(record, "scan"), id_field(record, "path_id")
            graph = self._graph(scan)
            reference = _views(field(record, "path"), "path")
            graph.must_have_path(reference)
            made = []
            for index, instruction in enumerate(list_field(record, "instructions", INSTRUCTIONS)):
                identifier = f"{number}_{index}"
                if not as_text(instruction, "instructions").strip():
                    raise RecordError(f"instruction {identifier} is empty.")
                paths = candidates.get(identifier, [])
                if beams.exists() and not paths:
                    raise DataError(f"{beams}: has no paths for {identifier}, an instruction of {path.name}.")
                try:
                    for candidate in paths:
                        _must_follow(candidate, graph, reference)
                except UserError as error:
                    raise DataError(f"{beams}, {identifier}: {error}") from None
                self._references[identifier], self._beams[identifier] = (scan, reference), paths
                made.append(self._example(path, identifier, instruction))
            return made

        found = [example for made in each(path, read_json(path), examples) for example in made]
        if extra := candidates.keys() - {example.id for example in found}:
            raise DataError(f"{beams}: paths for instructions that are not in {path.name}: {_few(extra)}.")
        return found

    def _graph(self, scan: str) -> Graph:
        """The graph of a building."""
        if scan not in self._graphs:
            name = f"{scan}_connectivity.json"
            inside = self.folder / "connectivity" / name
            self._graphs[scan] = read_graph(inside if inside.exists() else self.folder / name)
        return self._graphs[scan]

    def _example(self, path: Path, identifier: str, instruction: str) -> Example:
        scan, reference = self._references[identifier]
        beams, graph = self._beams[identifier], self._graphs[scan]
        distances = [graph.distance(candidate[-1], reference[-1]) for candidate in beams]
        nearest = int(np.argmin(distances)) if beams else 0
        source = f"{path.name}, {identifier}"
        choices = tuple(self._seen(scan, candidate, source) for candidate in beams)
        target = Choice(nearest) if beams and distances[nearest] < SUCCESS else None
        prompt = Document([instruction], name=source)
        return Example(identifier, prompt, target, choices, scan, source, self.name)

    def _seen(self, scan: str, path: Sequence[str], source: str) -> Document:
        """The images of a path, as a choice; each faces the direction of the step that led to its viewpoint."""
        directions = self._graphs[scan].directions(path)
        onwards = [heading for heading, _ in directions[1:]] + [directions[-1][0]]
        images = []
        for view, (heading, elevation), onward in list(zip(path, directions, onwards, strict=True))[-VIEWS:]:
            image = image_in(self.folder, f"{scan}-{view}.jpg")
            images.append(Image(Facing(Path(image.name), heading, elevation, onward)))
        return Document(images, name=source)

    def must_be_answerable(self, examples: Sequence[Example]) -> None:
        """Raise an error if there are no paths to choose from.

        Raises:
            DataError: there is no beam file.
        """
        for example in examples:
            if not example.choices:
                raise DataError(
                    f"{example.name}: has no paths to choose from. Add beams_SPLIT.json to {self.folder} (vislang "
                    "paths makes it), or give a file of trajectories in place of a model."
                )

    def paths_from_start(self, example: Example, shortest: int, longest: int) -> Example:
        """An instruction with all simple paths from its start as choices, and without a target.

        Args:
            example: of this task.
            shortest, longest: least and greatest number of steps of a path.

        Raises:
            DataError: there is no such path.
        """
        scan, reference = self._references[example.id]
        paths = self._graphs[scan].simple_paths(reference[0], shortest, longest)
        if not paths:
            raise DataError(f"{example.name}: no path of {shortest} to {longest} steps begins at {reference[0]}.")
        self._beams[example.id] = [list(path) for path in paths]
        choices = tuple(self._seen(scan, path, example.name) for path in paths)
        return replace(example, target=None, choices=choices)

    def can_score(self, examples: Sequence[Example]) -> bool:
        """Always: paths are scored by the reference path."""
        return True

    def score(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Figures:
        """The figures of :func:`vislang.metrics.navigation.navigation_scores`."""
        return navigation(self._paths(examples, predictions))

    def score_each(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Items:
        """The success of each path."""
        return graded([path["success_rate"] for path in self._paths(examples, predictions)], "success_rate")

    def _paths(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> list[dict[str, float]]:
        rows = []
        for example, prediction in zip(examples, predictions, strict=True):
            scan, reference = self._references[example.id]
            self.must_answer(prediction, example)
            rows.append(navigation_scores(self._graphs[scan], self._path(prediction), reference))
        return rows

    def must_answer(self, prediction: Prediction, example: Example) -> None:
        """See :meth:`~vislang.tasks.task.Task.must_answer`; a path begins at the start, and can be walked."""
        if not isinstance(prediction.answer, tuple):
            if prediction.answer is None or not example.choices:
                raise UserError(f"prediction {prediction.id}: {prediction.answer!r} is not a path.")
            super().must_answer(prediction, example)
        scan, reference = self._references[prediction.id]
        try:
            _must_follow(self._path(prediction), self._graphs[scan], reference)
        except UserError as error:
            raise UserError(f"prediction {prediction.id}: {error}") from None

    def _path(self, prediction: Prediction) -> list[str]:
        """The viewpoints of a prediction."""
        return self.path_of(prediction.id, prediction.answer)

    def path_of(self, name: str, answer: Answer) -> list[str]:
        """The viewpoints of an answer: a path, or the index of one of an instruction's paths."""
        return self._beams[name][answer] if isinstance(answer, int) else list(answer)  # type: ignore[arg-type]

    def read_official(self, path: Path, examples: Sequence[Example]) -> list[Prediction]:
        """``[{"instr_id": ..., "trajectory": [[viewpoint, heading, elevation], ...]}, ...]``, the leaderboard's."""
        known = {example.id: example for example in examples}

        def predict(record: Mapping[str, Any]) -> Prediction:
            name, views = id_field(record, "instr_id"), []
            for step in list_field(record, "trajectory"):
                if not isinstance(step, list) or not step or not isinstance(step[0], str):
                    raise RecordError(f"step {shown(step)} is not a list of viewpoint, heading and elevation.")
                for angle in step[1:]:
                    finite(angle, f"step {shown(step)}")
                views.append(step[0])
            prediction = Prediction(name, tuple(views))
            if name in known:
                self.must_answer(prediction, known[name])
            return prediction

        return each(path, read_json(path), predict)

    def submission(self, examples: Sequence[Example], predictions: Sequence[Prediction]) -> tuple[str, str]:
        """The format of :meth:`read_official`, with the direction of each step; directions are not scored."""
        records = []
        for prediction in predictions:
            path, graph = self._path(prediction), self._graphs[self._references[prediction.id][0]]
            steps = [[view, *angles] for view, angles in zip(path, graph.directions(path), strict=True)]
            records.append({"instr_id": prediction.id, "trajectory": steps})
        return "r2r_submission.json", json.dumps(records)


def read_graph(path: Path) -> Graph:
    """A ``<scan>_connectivity.json``: pairs of included viewpoints that see each other without an obstacle.

    Raises:
        DataError: another format.
    """
    records = read_json(path)
    views = list(keyed(path, records, _viewpoint).items())
    edges: dict[str, dict[str, float]] = {view: {} for view, (included, _, _) in views if included}
    for view, (included, position, seen) in views:
        if len(seen) != len(views):
            raise DataError(
                f"{path}, viewpoint {view}: unobstructed has {len(seen)} entries for {len(views)} viewpoints."
            )
        for (other, (also, there, _)), unobstructed in zip(views, seen, strict=True):
            if included and also and unobstructed:
                edges[view][other] = math.dist(position, there)
    for view, near in edges.items():
        for other in near:
            if view not in edges[other]:
                raise DataError(f"{path}, viewpoint {view}: sees {other}, which does not see it.")
    return Graph(edges, {view: position for view, (_, position, _) in views})


def _viewpoint(record: Mapping[str, Any]) -> tuple[str, tuple[bool, list[float], list[bool]]]:
    """A viewpoint, whether it is included, its position, and which others it sees."""
    included, seen = field(record, "included"), list_field(record, "unobstructed")
    if not all(isinstance(value, bool) for value in (included, *seen)):
        raise RecordError('"included" and "unobstructed" are not all true or false.')
    # A 4 x 4 matrix, row by row; the position is its last column.
    pose = [finite(value, '"pose"') for value in list_field(record, "pose", 16)]
    return text_field(record, "image_id"), (included, pose[3:12:4], seen)


def _views(path: Any, key: str) -> list[str]:
    """The viewpoints of a path; ``key`` names its field."""
    return [as_text(view, key) for view in as_list(path, key)]


def _paths(record: Mapping[str, Any]) -> list[list[str]]:
    return [_views(path, "ranked_paths") for path in list_field(record, "ranked_paths")]


def _must_follow(path: Sequence[str], graph: Graph, reference: Sequence[str]) -> None:
    """Raise an error unless a path begins where its reference does, and can be walked.

    Raises:
        UserError: it does not.
    """
    if not path or path[0] != reference[0]:
        raise UserError(f"the path must start at {reference[0]}.")
    graph.must_have_path(path)


def _few(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:5])
