"""Metrics of navigation: success, path length, and agreement with a reference path."""

from __future__ import annotations

import heapq
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from vislang.errors import UserError
from vislang.metrics.figure import Figures, mean, share

SUCCESS = 3.0
"""A path is successful if it ends less than this many metres from the goal."""

METRICS = (
    "success_rate",
    "oracle_success_rate",
    "spl",
    "navigation_error",
    "trajectory_length",
    "ndtw",
    "sdtw",
)


class Graph:
    """The graph of a building's viewpoints.

    Args:
        edges: for each viewpoint, the distances in metres to its neighbours.
        positions: x, y and z of each viewpoint in metres, z upwards; needed for directions.
    """

    def __init__(
        self, edges: Mapping[str, Mapping[str, float]], positions: Mapping[str, Sequence[float]] | None = None
    ):
        self.edges = edges
        self.positions = positions or {}
        self._from: dict[str, dict[str, float]] = {}

    def distance(self, start: str, end: str) -> float:
        """The length of the shortest path, in metres; infinite where there is none (Dijkstra 1959).

        Raises:
            UserError: no such viewpoint.
        """
        for view in (start, end):
            self.must_have(view)
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
        return self._from[start].get(end, math.inf)

    def must_have(self, view: str) -> None:
        """Raise an error if there is no such viewpoint.

        Raises:
            UserError: there is none.
        """
        if view not in self.edges:
            raise UserError(f"viewpoint {view}: not in the building's graph, or not included there.")

    def must_have_path(self, path: Sequence[str]) -> None:
        """Raise an error if a path cannot be walked. A repeated viewpoint is a turn of the head.

        Raises:
            UserError: a viewpoint is not in the graph, or there is no edge from one to the next.
        """
        for view in path:
            self.must_have(view)
        for one, other in pairwise(path):
            if one != other and other not in self.edges[one]:
                raise UserError(f"no edge leads from viewpoint {one} to {other}.")

    def simple_paths(self, start: str, shortest: int, longest: int) -> list[tuple[str, ...]]:
        """All paths from a viewpoint that visit no viewpoint twice, short ones first.

        Args:
            start: the first viewpoint.
            shortest, longest: least and greatest number of steps.

        Raises:
            UserError: no such viewpoint.
        """
        self.must_have(start)
        found: list[tuple[str, ...]] = [(start,)] if shortest <= 0 else []
        paths: list[tuple[str, ...]] = [(start,)]
        for steps in range(1, longest + 1):
            paths = [(*path, view) for path in paths for view in self.edges[path[-1]] if view not in path]
            if steps >= shortest:
                found += paths
        return found

    def directions(self, path: Sequence[str]) -> list[tuple[float, float]]:
        """Heading and elevation of the camera at each viewpoint of a path, in radians: those of the step that led
        there, and 0 at the start and after a turn of the head.

        As in the Matterport3D simulator, a heading is measured from the y axis, clockwise seen from above, from 0 to 2
        pi; an elevation is positive upwards.
        """
        found = [(0.0, 0.0)]
        for one, other in pairwise(path):
            x, y, z = (b - a for a, b in zip(self.positions[one], self.positions[other], strict=True))
            found.append((math.atan2(x, y) % (2 * math.pi), math.atan2(z, math.hypot(x, y))))
        return found


def navigation_scores(graph: Graph, walked: Sequence[str], reference: Sequence[str]) -> dict[str, float]:
    """The figures of one path.

    ``trajectory_length``: metres walked. ``navigation_error``: metres left to the goal. ``success_rate``: whether that
    is below 3 m. ``oracle_success_rate``: whether any viewpoint on the path was. ``spl``: success by shortest length
    over length walked (Anderson et al. 2018b); 1 for who stays at a start that is the goal, where the authors' program
    divides by zero. ``ndtw``: exp(-DTW / (3 m x viewpoints of the reference)), and ``sdtw``: the same if the path ends
    at most 3 m from the goal (Ilharco et al. 2019, whose program counts exactly 3 m, unlike that of R2R).

    Args:
        graph: the graph of the building.
        walked: viewpoints of the path; a repeated one, where the agent turned its head, counts for ``ndtw``.
        reference: viewpoints of the path that was described; its last one is the goal.

    Raises:
        UserError: the path cannot be walked.
    """
    graph.must_have_path(walked)
    end = reference[-1]
    length = sum(graph.distance(one, other) for one, other in pairwise(walked))
    left = graph.distance(walked[-1], end)
    arrived = float(left < SUCCESS)
    shortest = graph.distance(walked[0], end)
    costs = np.full((len(walked) + 1, len(reference) + 1), np.inf)
    costs[0, 0] = 0
    for row, view in enumerate(walked, start=1):
        for column, wanted in enumerate(reference, start=1):
            before = min(costs[row - 1, column], costs[row, column - 1], costs[row - 1, column - 1])
            costs[row, column] = graph.distance(view, wanted) + before
    fidelity = math.exp(-costs[-1, -1] / (SUCCESS * len(reference)))
    return {
        "success_rate": arrived,
        "oracle_success_rate": float(min(graph.distance(view, end) for view in walked) < SUCCESS),
        "spl": arrived * (shortest / max(shortest, length) if max(shortest, length) else 1.0),
        "navigation_error": left,
        "trajectory_length": length,
        "ndtw": fidelity,
        "sdtw": float(left <= SUCCESS) * fidelity,
    }


def navigation(paths: Sequence[Mapping[str, float]]) -> Figures:
    """The figures of :func:`navigation_scores` over several paths."""
    return {
        name: share(sum(path[name] for path in paths), len(paths))
        if name.endswith("success_rate")
        else mean([path[name] for path in paths])
        for name in METRICS
    }
