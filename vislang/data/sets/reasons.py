"""Scenes with people, questions about them with four answers, and four reasons for the right answer, as in VCR.

A scene has four people. Next to each is one thing, to the left, to the right, above or below. Each person has a name,
which is written on a box around the person; who stands where is random. There are three questions about each scene:

* "what will Casey do next?" What a person does depends on the kind of the thing next to the person
  (:data:`ACTIVITIES`). The things of a scene are of four kinds, two of one activity and two of another. The answers are
  these activities and two that are drawn at random, the reasons the four kinds that lead to the right activity: two
  kinds are in the scene, next to different people.
* "what is next to Casey?" The answers are the four kinds in the scene, the reasons the four directions.
* "who is next to the fruit?" The answers are the four people, the reasons the four directions.

The texts alone never tell which choice is right: the choices of a question follow from the scene and what it asks
for, and each of them is right equally often, in a random position. To answer, a model has to find a person or a thing,
and to recognise what is next to it. :mod:`vislang.data.sets.things` has the pictures and the splits.

The files have VCR's official format (Zellers et al. 2019).
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image as Pillow
from PIL import ImageDraw

from vislang.data.sets.things import Box, Things, drawn_once, ground

NAME = "scene-reasons"
VERSION = 1

ACTIVITIES = {
    "have a snack": ("fruit", "vegetable", "sweet", "drink"),
    "watch animals": ("mammal", "bird", "fish", "insect"),
    "go on a trip": ("vehicle", "aircraft", "boat", "building"),
    "have fun": ("toy", "sports gear", "instrument", "decoration"),
    "do some work": ("tool", "book", "computer", "stationery"),
}
"""What a person next to a thing of some kinds will do."""

DIRECTIONS = {
    "to the left of": (-1, 0),
    "to the right of": (1, 0),
    "above": (0, -1),
    "below": (0, 1),
}
"""Where a thing is, seen from the person: steps to the right and downwards."""

SCENES = {"train": 1500, "val": 200, "test": 400}
"""Scenes of each split."""

SIDE, BLOCK = 256, 128
"""The side of a scene, and of the block of each of the four people, in pixels."""

APART = 50
"""The distance of a thing from its person, in pixels; that from any other person is at least 68."""

SIZES = (40, 48)
"""The longer side of a person or thing, in pixels."""

SHIFT = 5
"""How far a person with a thing is moved from the middle of the block at most, in pixels."""

Item = TypeVar("Item")

Tokens = list[str | list[int]]
"""A text as VCR has it: words, and lists of the numbers of people."""


@dataclass(frozen=True)
class Pair:
    """A person and what is next to that person.

    Attributes:
        kind: of the thing.
        direction: where it is, one of :data:`DIRECTIONS`.
    """

    kind: str
    direction: str


@dataclass(frozen=True)
class Asked:
    """A question with its choices. The first answer and the first reason are the right ones."""

    question: Tokens
    answers: list[Tokens]
    reasons: list[Tokens]


def folder() -> Path:
    """The folder of the set, in VCR's format.

    Raises:
        DataError: the pictures were not fetched.
        UserError: the scenes cannot be written.
    """
    return drawn_once(f"{NAME}-{VERSION}", draw)


def draw(into: Path) -> None:
    """Draw the scenes of all splits and write their questions."""
    images = into / "vcr1images"
    images.mkdir()
    for split, count in SCENES.items():
        records, things = [], Things(split)
        for number in range(count):
            rng = random.Random(f"{NAME} {VERSION} {split} {number}")
            name = f"{split}-{number}"
            pairs = people_and_things(rng)
            scene, boxes = compose(pairs, things, rng)
            scene.save(images / f"{name}.jpg", quality=92)
            boxes_of = {"boxes": [[*box, 1.0] for box in boxes], "width": SIDE, "height": SIDE}
            (images / f"{name}.json").write_text(json.dumps(boxes_of), encoding="utf-8")
            for kind, asked in questions(pairs, rng).items():
                records.append(record(name, kind, asked, rng))
        text = "".join(json.dumps(record) + "\n" for record in records)
        (into / f"{split}.jsonl").write_text(text, encoding="utf-8")


def people_and_things(rng: random.Random) -> list[Pair]:
    """What is next to each of the four people: two kinds of each of two activities."""
    kinds = [kind for activity in rng.sample(list(ACTIVITIES), 2) for kind in rng.sample(ACTIVITIES[activity], 2)]
    rng.shuffle(kinds)
    return [Pair(kind, rng.choice(list(DIRECTIONS))) for kind in kinds]


def compose(pairs: Sequence[Pair], things: Things, rng: random.Random) -> tuple[Pillow.Image, list[Box]]:
    """The image of a scene, and the box of each person."""
    scene = Pillow.new("RGB", (SIDE, SIDE), ground(rng))
    pen = ImageDraw.Draw(scene)
    boxes = []
    persons = rng.sample(things.people, len(pairs))
    for pair, person, block in zip(pairs, persons, rng.sample(range(4), 4), strict=True):
        left, top = block % 2 * BLOCK, block // 2 * BLOCK
        pen.rounded_rectangle((left + 3, top + 3, left + BLOCK - 4, top + BLOCK - 4), 12, fill=ground(rng))
        middle = [edge + BLOCK / 2 + rng.uniform(-SHIFT, SHIFT) for edge in (left, top)]
        step = DIRECTIONS[pair.direction]
        where = [place - step[axis] * APART / 2 for axis, place in enumerate(middle)]
        thing = [place + step[axis] * APART / 2 for axis, place in enumerate(middle)]
        boxes.append(things.paste(scene, person, (where[0], where[1]), rng.uniform(*SIZES)))
        things.paste(scene, rng.choice(things.of(pair.kind)), (thing[0], thing[1]), rng.uniform(*SIZES))
    return scene, boxes


def questions(pairs: Sequence[Pair], rng: random.Random) -> dict[str, Asked]:
    """The three questions about a scene, by what they are about. Each asks about a person that is drawn for it."""
    number = rng.randrange(len(pairs))
    kind = pairs[number].kind
    right = _activity(kind)
    there = {_activity(pair.kind) for pair in pairs}
    absent = rng.sample([activity for activity in ACTIVITIES if activity not in there], 2)
    other = [activity for activity in ACTIVITIES if activity in there and activity != right]
    found = {
        "activity": Asked(
            ["what", "will", [number], "do", "next", "?"],
            [[*activity.split()] for activity in (right, *other, *absent)],
            [["there", "is", "the", own, "next", "to", [number]] for own in _first(kind, ACTIVITIES[right])],
        )
    }
    number = rng.randrange(len(pairs))
    kinds = [pair.kind for pair in pairs]
    found["thing"] = Asked(
        ["what", "is", "next", "to", [number], "?"],
        [["the", own] for own in _first(kinds[number], kinds)],
        _directions(pairs, number),
    )
    number = rng.randrange(len(pairs))
    found["person"] = Asked(
        ["who", "is", "next", "to", "the", kinds[number], "?"],
        [[[person]] for person in _first(number, range(len(pairs)))],
        _directions(pairs, number),
    )
    return found


def record(scene: str, kind: str, asked: Asked, rng: random.Random) -> dict[str, Any]:
    """A line of VCR's files, with the choices in random order."""
    places = {part: rng.sample(range(4), 4) for part in ("answer", "rationale")}
    choices = {"answer": asked.answers, "rationale": asked.reasons}
    return {
        "annot_id": f"{scene}-{kind}",
        "img_fn": f"{scene}.jpg",
        "metadata_fn": f"{scene}.json",
        "objects": ["person"] * 4,
        "question": asked.question,
        **{f"{part}_choices": [choices[part][place] for place in order] for part, order in places.items()},
        **{f"{part}_label": order.index(0) for part, order in places.items()},
    }


def _activity(kind: str) -> str:
    """The activity that a kind leads to."""
    return next(activity for activity, kinds in ACTIVITIES.items() if kind in kinds)


def _directions(pairs: Sequence[Pair], number: int) -> list[Tokens]:
    """Where the thing next to a person is, the right direction first."""
    pair = pairs[number]
    return [["the", pair.kind, "is", *own.split(), [number]] for own in _first(pair.direction, DIRECTIONS)]


def _first(one: Item, many: Iterable[Item]) -> list[Item]:
    """One of many, followed by the others."""
    return [one, *(other for other in many if other != one)]
