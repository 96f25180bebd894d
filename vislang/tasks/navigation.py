"""R2R (Anderson et al. 2018): follow an instruction through a building, by ranking paths (Majumdar et al. 2020).

A path is a document: the instruction and one image (or one record of region features) for each viewpoint. Candidate
paths come from a beam file, as a navigating agent left it. Distances are along the graph of viewpoints.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from vislang.case import Case, Choice, Decision
from vislang.data.jsonl import DataError
from vislang.document import Document
from vislang.tasks.answers import proportion
from vislang.tasks.official import Benchmark, Score, complete, each, image_in, one_file, read_json

SUCCESS = 3.0
"""Metres from the goal within which a path counts as arrived."""

STEPS = 8
"""Viewpoints of a path that are read, from its end on; the score sees all."""


class R2R(Benchmark):
    """``R2R_SPLIT.json``, ``<scan>_connectivity.json`` of each building, and ``beams_SPLIT.json``.

    The beam file holds ``[{"instr_id": ..., "ranked_paths": [[viewpoint, ...], ...]}, ...]``. The right option is the
    candidate that ends nearest to the goal, where it arrives; instructions none of whose candidates arrive are scored,
    and not learned from.
    """

    name = "r2r"
    files = "R2R_SPLIT.json, beams_SPLIT.json, connectivity/<scan>_connectivity.json, images as <scan>-<viewpoint>.jpg"

    def __init__(self, folder: Path, split: str):
        path = one_file(folder, f"R2R_{split}.json")
        beams = one_file(folder, f"beams_{split}.json")
        self._beams = dict(each(beams, read_json(beams), lambda r: (r["instr_id"], _paths(r["ranked_paths"]))))
        self._graphs: dict[str, Graph] = {}
        self._references: dict[str, tuple[str, list[str]]] = {}

        def cases(record: Mapping[str, Any]) -> list[Case]:
            scan = record["scan"]
            if scan not in self._graphs:
                self._graphs[scan] = Graph.read(
                    one_file(folder, f"connectivity/{scan}_connectivity.json", f"{scan}_connectivity.json")
                )
            made = []
            for number, instruction in enumerate(record["instructions"]):
                identifier = f"{record['path_id']}_{number}"
                if identifier not in self._beams:
                    raise DataError(f"{beams}: no candidate paths for instruction {identifier}.")
                self._references[identifier] = scan, record["path"]
                made.append(self._case(folder, path, identifier, instruction))
            return made

        self.cases = [case for made in each(path, read_json(path), cases) for case in made]

    def _case(self, folder: Path, path: Path, identifier: str, instruction: str) -> Case:
        scan, reference = self._references[identifier]
        graph = self._graphs[scan]
        distances = [graph.distance(option[-1], reference[-1]) for option in self._beams[identifier]]
        nearest = int(np.argmin(distances))
        name = f"{path.name}, {identifier}"
        options = tuple(
            Document([*(image_in(folder, f"{scan}-{view}.jpg") for view in option[-STEPS:]), instruction], name=name)
            for option in self._beams[identifier]
        )
        target = Choice(nearest) if distances[nearest] < SUCCESS else None
        return Case(name, options, target, self.name, scan, identifier)

    def score(self, decisions: Mapping[str, Decision]) -> Score:
        """``SR``, ``OSR``, ``SPL``, ``NE``, ``TL``, ``nDTW`` and ``SDTW``; see :func:`navigation_scores`."""
        rows = []
        for case, decision in zip(self.cases, complete(self.cases, decisions, self.name), strict=True):
            scan, reference = self._references[case.id]
            walked = list(decision.candidates) if isinstance(decision.best, str) else None
            if walked is None:
                assert isinstance(decision.best, int)
                walked = list(self._beams[case.id][decision.best])
            if not walked or str(walked[0]) != reference[0]:
                raise DataError(f"{case.name}: the path does not begin where the instruction does, at {reference[0]}.")
            rows.append(navigation_scores(self._graphs[scan], [str(view) for view in walked], reference))
        arrived = sum(row["SR"] for row in rows)
        means = {name: float(np.mean([row[name] for row in rows])) for name in rows[0] if name not in ("SR", "OSR")}
        oracle = proportion(sum(row["OSR"] for row in rows), len(rows))
        return {"SR": proportion(arrived, len(rows)), "OSR": oracle, **means}

    def read_predictions(self, path: Path) -> dict[str, Decision]:
        """``[{"instr_id": ..., "trajectory": [[viewpoint, heading, elevation], ...]}, ...]``, the leaderboard's."""

        def decide(record: Mapping[str, Any]) -> tuple[str, Decision]:
            # Turning the head is a step of its own there, at the same viewpoint.
            views = tuple(view for view, _ in groupby(step[0] for step in record["trajectory"]))
            return record["instr_id"], Decision(views[-1], views)

        return dict(each(path, read_json(path), decide))


def _paths(paths: Sequence[Sequence[str]]) -> list[list[str]]:
    if not paths or not all(paths):
        raise ValueError("an empty list of paths, or an empty path")
    return [list(path) for path in paths]


class Graph:
    """Viewpoints of a building and how far they are from each other.

    Args:
        edges: from each viewpoint to those that can be walked to, in metres.
    """

    def __init__(self, edges: Mapping[str, Mapping[str, float]]):
        self.edges = edges
        self._from: dict[str, dict[str, float]] = {}

    @classmethod
    def read(cls, path: Path) -> Graph:
        """A ``<scan>_connectivity.json``: pairs of included viewpoints that see each other without an obstacle.

        Raises:
            DataError: another format.
        """
        records = read_json(path)
        places = each(path, records, lambda r: (r["image_id"], bool(r["included"]), [r["pose"][i] for i in (3, 7, 11)]))
        edges: dict[str, dict[str, float]] = {view: {} for view, included, _ in places if included}
        for (view, included, position), record in zip(places, records, strict=True):
            for (other, also, there), unobstructed in zip(places, record["unobstructed"], strict=True):
                if included and also and unobstructed:
                    edges[view][other] = edges[other][view] = math.dist(position, there)
        return cls(edges)

    def distance(self, start: str, goal: str) -> float:
        """The shortest way, in metres; infinite where there is none (Dijkstra 1959).

        Raises:
            DataError: no such viewpoint.
        """
        for view in (start, goal):
            if view not in self.edges:
                raise DataError(f"viewpoint {view}: not in the building's graph, or not included there.")
        if start not in self._from:
            known = {start: 0.0}
            queue = [(0.0, start)]
            while queue:
                so_far, view = heapq.heappop(queue)
                if so_far > known[view]:
                    continue
                for other, step in self.edges[view].items():
                    if so_far + step < known.get(other, math.inf):
                        known[other] = so_far + step
                        heapq.heappush(queue, (so_far + step, other))
            self._from[start] = known
        return self._from[start].get(goal, math.inf)


def navigation_scores(graph: Graph, walked: Sequence[str], reference: Sequence[str]) -> dict[str, float]:
    """The figures of one path.

    ``TL``: length walked. ``NE``: distance left to the goal. ``SR``: whether that is below 3 m. ``OSR``: whether any
    viewpoint on the way was. ``SPL``: success by shortest length over length walked (Anderson et al. 2018b). ``nDTW``:
    exp(-DTW / (3 m x viewpoints of the reference)), and ``SDTW``: the same where arrived (Ilharco et al. 2019).
    """
    goal = reference[-1]
    length = sum(graph.distance(one, other) for one, other in pairwise(walked))
    left = graph.distance(walked[-1], goal)
    arrived = float(left < SUCCESS)
    shortest = graph.distance(walked[0], goal)
    costs = np.full((len(walked) + 1, len(reference) + 1), np.inf)
    costs[0, 0] = 0
    for row, view in enumerate(walked, start=1):
        for column, wanted in enumerate(reference, start=1):
            before = min(costs[row - 1, column], costs[row, column - 1], costs[row - 1, column - 1])
            costs[row, column] = graph.distance(view, wanted) + before
    fidelity = math.exp(-costs[-1, -1] / (SUCCESS * len(reference)))
    return {
        "SR": arrived,
        "OSR": float(min(graph.distance(view, goal) for view in walked) < SUCCESS),
        "SPL": arrived * (shortest / max(shortest, length) if max(shortest, length) else 1.0),
        "NE": left,
        "TL": length,
        "nDTW": fidelity,
        "SDTW": arrived * fidelity,
    }
