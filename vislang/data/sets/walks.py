"""Instructions on maps: which of several paths is described? As in R2R.

A map has 25 places on a square grid; some neighbours have no way between them. At each place stands one thing; the 25
things of a map are of five kinds. The candidates are paths of three steps from one start. They end at different places,
no two of them pass things of the same kinds in the same order, and one of them is drawn as the path to describe. It is
described three times, by the kinds of its things in their order.

Nothing but the instruction tells which candidate is meant, because it is drawn after the candidates. The kinds of
things alone do not tell either: candidates share them, often also the last one. A model has to recognise each thing of
a path, and to compare their order with that in the instruction.

The files have R2R's official format (Anderson et al. 2018), so paths are scored by it: neighbours are about 4 m apart,
and a path succeeds if it ends less than 3 m from the goal. :mod:`vislang.data.sets.things` has the pictures and the
splits.
"""

from __future__ import annotations

import json
import math
import random
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image as Pillow

from vislang.data.sets.things import KINDS, Things, drawn_once, ground

NAME = "map-walks"
VERSION = 1

MAPS = {"train": 150, "val": 20, "test": 40}
"""Maps of each split."""

PATHS = 10
"""Described paths of each map; each has three instructions."""

ACROSS = 5
"""Places of a map in each direction."""

KINDS_OF_MAP = 5
STEPS = 3
CANDIDATES = 6

CLOSED = 0.15
"""The share of neighbours without a way between them."""

METRES = 4.0
"""The distance of neighbours, to which up to half a metre is added in each direction."""

SIDE, DRAWING = 96, 64
"""The side of the image of a place and of the thing in it, in pixels."""

WORDINGS = (
    "pass the {0} and the {1}, and stop at the {2}",
    "go to the {0}, then to the {1}, then to the {2}",
    "your goal is the {2}; on the way, first comes the {0}, then the {1}",
)
"""The three instructions for a path."""


@dataclass(frozen=True)
class Map:
    """A map.

    Attributes:
        kinds: of the thing at each place.
        positions: x and y of each place, in metres.
        ways: the places that one can go to from each.
    """

    kinds: list[str]
    positions: list[tuple[float, float]]
    ways: list[list[int]]


Walk = tuple[int, ...]
"""The places of a path, the start first."""


def folder() -> Path:
    """The folder of the set, in R2R's format.

    Raises:
        DataError: the pictures were not fetched.
        UserError: the maps cannot be written.
    """
    return drawn_once(f"{NAME}-{VERSION}", draw)


def draw(into: Path) -> None:
    """Draw the places of all maps, and write their ways, instructions and candidates."""
    (into / "connectivity").mkdir()
    for split, count in MAPS.items():
        things = Things(split)
        records: list[dict[str, Any]] = []
        beams: list[dict[str, Any]] = []
        for number in range(count):
            scan = f"{split}{number}"
            rng = random.Random(f"{NAME} {VERSION} {scan}")
            made = new_map(rng)
            for place, kind in enumerate(made.kinds):
                image = Pillow.new("RGB", (SIDE, SIDE), ground(rng))
                middle = (SIDE / 2 + rng.uniform(-8, 8), SIDE / 2 + rng.uniform(-8, 8))
                things.paste(image, rng.choice(things.of(kind)), middle, DRAWING * rng.uniform(0.85, 1.15))
                image.save(into / f"{scan}-{place}.jpg", quality=92)
            connectivity = json.dumps(_connectivity(made))
            (into / "connectivity" / f"{scan}_connectivity.json").write_text(connectivity, encoding="utf-8")
            for own in range(PATHS):
                right, candidates = choice_of_walks(made, rng)
                path = f"{scan}-{own}"
                records.append(_record(made, scan, path, right))
                views = [[str(place) for place in walk] for walk in candidates]
                beams += [{"instr_id": f"{path}_{n}", "ranked_paths": views} for n in range(len(WORDINGS))]
        for name, content in ((f"R2R_{split}.json", records), (f"beams_{split}.json", beams)):
            (into / name).write_text(json.dumps(content), encoding="utf-8")


def new_map(rng: random.Random) -> Map:
    """A map on which every place has a way."""
    chosen = rng.sample(list(KINDS), KINDS_OF_MAP)
    places = range(ACROSS**2)
    kinds = [chosen[place % KINDS_OF_MAP] for place in places]
    rng.shuffle(kinds)
    positions = [
        (METRES * column + rng.uniform(-0.25, 0.25), METRES * row + rng.uniform(-0.25, 0.25))
        for row in range(ACROSS)
        for column in range(ACROSS)
    ]
    while True:
        ways: list[list[int]] = [[] for _ in places]
        for place in places:
            row, column = divmod(place, ACROSS)
            for other, there in ((place + 1, column + 1 < ACROSS), (place + ACROSS, row + 1 < ACROSS)):
                if there and rng.random() >= CLOSED:
                    ways[place].append(other)
                    ways[other].append(place)
        if all(len(own) > 1 for own in ways):
            return Map(kinds, positions, ways)


def choice_of_walks(made: Map, rng: random.Random) -> tuple[Walk, list[Walk]]:
    """A path to describe, and all candidates in random order."""
    while True:
        walks: list[Walk] = [(rng.randrange(len(made.kinds)),)]
        for _ in range(STEPS):
            walks = [(*walk, place) for walk in walks for place in made.ways[walk[-1]] if place not in walk]
        rng.shuffle(walks)
        candidates: list[Walk] = []
        for walk in walks:
            others = [(other[-1], kinds_of(made, other)) for other in candidates]
            if all(walk[-1] != end and kinds_of(made, walk) != kinds for end, kinds in others):
                candidates.append(walk)
        if len(candidates) >= CANDIDATES:
            candidates = candidates[:CANDIDATES]
            return rng.choice(candidates), candidates


def kinds_of(made: Map, walk: Walk) -> tuple[str, ...]:
    """What one passes on a path, after the start."""
    return tuple(made.kinds[place] for place in walk[1:])


def _record(made: Map, scan: str, name: str, walk: Walk) -> dict[str, Any]:
    """A path with its instructions, as in ``R2R_SPLIT.json``."""
    return {
        "path_id": name,
        "scan": scan,
        "path": [str(place) for place in walk],
        "heading": 0.0,
        "distance": sum(math.dist(made.positions[a], made.positions[b]) for a, b in pairwise(walk)),
        "instructions": [wording.format(*kinds_of(made, walk)) for wording in WORDINGS],
    }


def _connectivity(made: Map) -> list[dict[str, Any]]:
    """The places of a map, as in ``SCAN_connectivity.json``."""
    return [
        {
            "image_id": str(place),
            "pose": [1, 0, 0, x, 0, 1, 0, y, 0, 0, 1, 0, 0, 0, 0, 1],
            "included": True,
            "visible": [other in made.ways[place] for other in range(len(made.kinds))],
            "unobstructed": [other in made.ways[place] for other in range(len(made.kinds))],
            "height": 0.0,
        }
        for place, (x, y) in enumerate(made.positions)
    ]
