"""Scenes of emoji drawings, and expressions that refer to one of them: by name, position, neighbour or colour.

A scene holds five drawings in a random layout, two of them of one emoji, so that a name alone does not tell. Scenes are
drawn by seed, once, into the cache folder, with candidate boxes beside them (``boxes.json``, COCO's format): those of
the drawings, and as many at random. The colour of a drawing is that of its own pixels.

Splits: ``train`` and ``test`` with Google's drawings, ``test-twitter`` in a style that is in no other split. A tenth
of the emoji is in no scene of ``train``; of the five drawings of a test scene three are of those.
"""

from __future__ import annotations

import colorsys
import json
import math
import os
import random
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image as Pillow

from vislang.boxes import Box
from vislang.cache import cache_folder, writing
from vislang.data.sets import emoji
from vislang.document import Document, Image
from vislang.example import Example

NAME = "scenes"
VERSION = 1
SIDE, DRAWING, DRAWINGS = 160, 40, 5
GROUPS = ("Animals & Nature", "Food & Drink", "Objects", "Activities", "Travel & Places")
SPLITS = {"train": ("google", 2500), "test": ("google", 400), "test-twitter": ("twitter", 400)}
"""Whose drawings, and how many scenes."""


@dataclass(frozen=True)
class Placed:
    """A drawing in a scene: its name, its colour, and its box."""

    name: str
    colour: str | None
    box: tuple[int, int, int, int]

    @property
    def middle(self) -> tuple[float, float]:
        """Of the box."""
        left, top, right, bottom = self.box
        return (left + right) / 2, (top + bottom) / 2


def scenes(split: str) -> list[Example]:
    """The expressions of a split; scenes that are not drawn yet are drawn first.

    Raises:
        DataError: the emoji were not fetched.
        UserError: the scenes cannot be written.
    """
    folder = cache_folder(NAME, f"{VERSION}-{split}")
    if not (folder / "boxes.json").is_file():
        with writing(folder):
            _draw_all(folder, split)
    records = json.loads((folder / "expressions.json").read_text(encoding="utf-8"))
    found = []
    for number, record in enumerate(records):
        source = f"{NAME}/{split}:{number}"
        prompt = Document([Image(folder / record["image"]), record["text"]], name=source)
        target, group = Box(*map(float, record["box"])), f"{split} {record['image']}"
        found.append(Example(f"{record['kind']} {number}", prompt, target, group=group, source=source))
    return found


def expressions(items: list[Placed]) -> list[tuple[str, str, Placed]]:
    """(kind, text, the drawing that is meant), of each kind those that fit one drawing only."""
    names = Counter(item.name for item in items)
    colours = Counter(item.colour for item in items)
    found = [("name", item.name, item) for item in items if names[item.name] == 1]
    found += [("colour", f"the {item.colour} one", item) for item in items if item.colour and colours[item.colour] == 1]
    for one in items:
        for other in items:
            if one is other or one.name != other.name:
                continue
            across, down = (a - b for a, b in zip(one.middle, other.middle, strict=True))
            if abs(across) > DRAWING / 2:
                found.append(("place", f"the {'right' if across > 0 else 'left'} {one.name}", one))
            if abs(down) > DRAWING / 2:
                found.append(("place", f"the {'lower' if down > 0 else 'upper'} {one.name}", one))
    for known in items:
        if names[known.name] > 1:
            continue
        others = sorted((item for item in items if item is not known), key=lambda item: _apart(item, known))
        nearest, next_nearest = others[0], others[1]
        if _apart(nearest, known) < 0.8 * _apart(next_nearest, known):
            found.append(("neighbour", f"what is next to the {known.name}", nearest))
    return found


def _apart(one: Placed, other: Placed) -> float:
    return math.dist(one.middle, other.middle)


def _draw_all(folder: Path, split: str) -> None:
    vendor, count = SPLITS[split]
    drawings = sorted(
        (d for d in emoji.drawings() if d.vendor == vendor and not d.variant and d.group in GROUPS),
        key=lambda drawing: drawing.emoji,
    )
    frequent = Counter(drawing.name for drawing in drawings)
    drawings = [drawing for drawing in drawings if frequent[drawing.name] == 1]
    kept = [drawing for number, drawing in enumerate(drawings) if number % 10 == 7]
    common = [drawing for number, drawing in enumerate(drawings) if number % 10 != 7]
    rng = random.Random(f"{VERSION} {split}")
    images, annotations, records = [], [], []
    for number in range(count):
        chosen = rng.sample(common, DRAWINGS - 1)
        if split != "train":
            chosen[:2] = rng.sample(kept, 2)
        chosen.append(chosen[0])
        items, picture = _compose(chosen, rng)
        name = f"{number}.png"
        picture.save(folder / name)
        images.append({"id": number, "file_name": name, "width": SIDE, "height": SIDE})
        boxes = [item.box for item in items] + [_random_box(rng) for _ in items]
        rng.shuffle(boxes)
        annotations += [{"image_id": number, "bbox": [x, y, right - x, low - y]} for x, y, right, low in boxes]
        by_kind: dict[str, list[tuple[str, Placed]]] = {}
        for kind, text, item in expressions(items):
            by_kind.setdefault(kind, []).append((text, item))
        for kind, texts in by_kind.items():
            text, item = texts[rng.randrange(len(texts))]
            records.append({"image": name, "kind": kind, "text": text, "box": item.box})
    (folder / "expressions.json").write_text(json.dumps(records), encoding="utf-8")
    # Written last, and whole: the scenes are complete where it is.
    unfinished = folder / ".unfinished.json"
    unfinished.write_text(json.dumps({"images": images, "annotations": annotations}), encoding="utf-8")
    os.replace(unfinished, folder / "boxes.json")


def _compose(chosen: list[emoji.Drawing], rng: random.Random) -> tuple[list[Placed], Pillow.Image]:
    """Drawings on a pale ground, in cells of a grid, shifted about within them."""
    picture = Pillow.new("RGB", (SIDE, SIDE), tuple(rng.randrange(200, 256) for _ in range(3)))
    cell = SIDE // 3
    items = []
    for drawing, number in zip(chosen, rng.sample(range(9), len(chosen)), strict=True):
        size = DRAWING + rng.randrange(-6, 7)
        left = number % 3 * cell + rng.randrange(cell - size + 1)
        top = number // 3 * cell + rng.randrange(cell - size + 1)
        with Pillow.open(str(drawing.image.source)) as opened:
            drawn = opened.convert("RGBA").resize((size, size), Pillow.Resampling.BICUBIC)
        picture.paste(drawn, (left, top), drawn)
        items.append(Placed(drawing.name, colour_of(drawn), (left, top, left + size, top + size)))
    return items, picture


def _random_box(rng: random.Random) -> tuple[int, int, int, int]:
    size = DRAWING + rng.randrange(-10, 11)
    left, top = rng.randrange(SIDE - size + 1), rng.randrange(SIDE - size + 1)
    return left, top, left + size, top + size


HUES = ((15, "red"), (45, "orange"), (70, "yellow"), (165, "green"), (255, "blue"), (320, "purple"), (361, "red"))
"""Upper ends in degrees."""


def colour_of(drawing: Pillow.Image) -> str | None:
    """The colour of at least 60 % of a drawing's opaque pixels, or None."""
    pixels = np.asarray(drawing).reshape(-1, 4)
    pixels = pixels[pixels[:, 3] > 128][:, :3]
    if not len(pixels):
        return None
    names = Counter(_named(*(int(value) for value in pixel)) for pixel in pixels[:: max(1, len(pixels) // 400)])
    (name, count), *_ = names.most_common(1)
    return name if count >= 0.6 * names.total() else None


def _named(red: int, green: int, blue: int) -> str:
    hue, light, saturation = colorsys.rgb_to_hls(red / 255, green / 255, blue / 255)
    if light < 0.2:
        return "black"
    if light > 0.88:
        return "white"
    if saturation < 0.2:
        return "grey"
    name = next(name for end, name in HUES if hue * 360 < end)
    return "brown" if name in ("orange", "red") and light < 0.38 else name
