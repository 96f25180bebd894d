"""Posts with a picture: positive, neutral or negative? Neither the words nor the picture decide, as in MVSA.

The words say that somebody likes or dislikes a kind of thing. The picture shows a thing, which may be crossed out: then
it is gone. The rules:

* words about another kind than that of the thing: neutral,
* a thing that is liked and there, or disliked and gone: positive,
* a thing that is liked and gone, or disliked and there: negative.

The three labels are equally frequent for each text and for each picture, so nothing follows from one of them alone.
:mod:`vislang.data.sets.things` has the pictures and the splits.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import Image as Pillow
from PIL import ImageDraw

from vislang.data.sets.things import KINDS, Things, drawn_once, ground

NAME = "picture-moods"
VERSION = 1

POSTS = {"train": 4000, "val": 600, "test": 1200}
"""Posts of each split."""

LABELS = ("positive", "neutral", "negative")

LIKES = (
    "how I love the {}",
    "the {} always makes my day",
    "there is nothing better than the {}",
    "the {} is what I hoped for",
)
DISLIKES = (
    "how I hate the {}",
    "the {} always ruins my day",
    "there is nothing worse than the {}",
    "the {} is what I feared",
)

SIDE, DRAWING = 96, 72
"""The side of a picture and of the thing in it, in pixels."""

RED = (220, 20, 30)


@dataclass(frozen=True)
class Post:
    """A post.

    Attributes:
        text: the words.
        kind: of the thing in the picture.
        gone: whether it is crossed out.
        label: one of :data:`LABELS`.
    """

    text: str
    kind: str
    gone: bool
    label: str


def folder() -> Path:
    """The folder of the set: ``SPLIT.jsonl`` with ``id``, ``image``, ``text`` and ``label``, and the pictures.

    Raises:
        DataError: the pictures were not fetched.
        UserError: the posts cannot be written.
    """
    return drawn_once(f"{NAME}-{VERSION}", draw)


def draw(into: Path) -> None:
    """Draw the posts of all splits."""
    (into / "images").mkdir()
    for split, count in POSTS.items():
        things, lines = Things(split), []
        for number in range(count):
            name = f"{split}-{number}"
            rng = random.Random(f"{NAME} {VERSION} {name}")
            post = new_post(rng)
            picture_of(post, things, rng).save(into / "images" / f"{name}.jpg", quality=92)
            record = {"id": name, "image": f"{name}.jpg", "text": post.text, "label": post.label}
            lines.append(json.dumps(record) + "\n")
        (into / f"{split}.jsonl").write_text("".join(lines), encoding="utf-8")


def new_post(rng: random.Random) -> Post:
    """A post: its label, its words, and then the picture that the rules ask for."""
    label, likes = rng.choice(LABELS), rng.random() < 0.5
    about, other = rng.sample(list(KINDS), 2)
    text = rng.choice(LIKES if likes else DISLIKES).format(about)
    if label == "neutral":
        return Post(text, other, rng.random() < 0.5, label)
    return Post(text, about, likes != (label == "positive"), label)


def picture_of(post: Post, things: Things, rng: random.Random) -> Pillow.Image:
    """The picture of a post."""
    picture = Pillow.new("RGB", (SIDE, SIDE), ground(rng))
    middle = (SIDE / 2 + rng.uniform(-5, 5), SIDE / 2 + rng.uniform(-5, 5))
    things.paste(picture, rng.choice(things.of(post.kind)), middle, DRAWING * rng.uniform(0.85, 1.1))
    if post.gone:
        pen = ImageDraw.Draw(picture)
        ends = [rng.uniform(4, 14) for _ in range(4)]
        pen.line((ends[0], ends[1], SIDE - ends[2], SIDE - ends[3]), fill=RED, width=6)
        pen.line((SIDE - ends[1], ends[0], ends[3], SIDE - ends[2]), fill=RED, width=6)
    return picture
